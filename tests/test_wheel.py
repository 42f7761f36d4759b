"""A wheel, installed away from the checkout, is all that a user needs; and its names stand in nobody's way."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
# Builds with what is installed here, so that nothing is fetched.
BUILD = (*PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index")


def run(*command, cwd, **variables):
    """What a command printed; fails with it where the command failed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder into which a wheel was installed, alone; it was built from a copy, as building leaves files behind."""
    pytest.importorskip(
        "setuptools", minversion="77", reason="a wheel is built with setuptools (pip install setuptools)"
    )
    pytest.importorskip("pip", reason="a wheel is installed with pip, which is not here")
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    for name in ("dimo_jax", "configs", "third_party"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=LEFT_OUT)
    run(*BUILD, f"--wheel-dir={folder}", str(folder / "source"), cwd=folder)
    (wheel,) = folder.glob("*.whl")
    run(*PIP, "install", "--no-deps", "--no-index", f"--target={folder / 'site'}", str(wheel), cwd=folder)
    return folder / "site"


@pytest.mark.slow
def test_nothing_bears_a_name_that_others_may_want(installed):
    names = {path.name for path in installed.iterdir()} - {"bin", "__pycache__"}
    assert names == {"dimo_jax", "dimo_jax-0.1.0.dist-info"}


@pytest.mark.slow
def test_what_stands_beside_the_package_in_a_checkout_is_in_it(installed):
    assert {path.name for path in (installed / "dimo_jax/configs").glob("*.py")} == {
        path.name for path in (ROOT / "configs").glob("*.py")
    }
    for path in (ROOT / "third_party").rglob("*"):
        if path.suffix in (".py", ".md"):
            there = installed / "dimo_jax/third_party" / path.relative_to(ROOT / "third_party")
            assert there.read_bytes() == path.read_bytes()
    assert (installed / "dimo_jax/py.typed").is_file()
    folders = (ROOT / "dimo_jax/views/web", ROOT / "dimo_jax/views/viewer")
    files = [path for folder in folders for path in folder.iterdir() if path.suffix not in (".py", "")]
    assert len(files) > 6
    for path in files:
        assert (installed / path.relative_to(ROOT)).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_the_compiled_library_is_in_it(installed):
    if not list((ROOT / "dimo_jax/native").glob("_native*.so")):
        pytest.skip("the native library is not compiled here either")
    assert list((installed / "dimo_jax/native").glob("_native*.so"))


@pytest.mark.slow
def test_the_smallest_run_works_from_an_empty_folder(installed, tmp_path):
    command = (str(installed / "bin/dimo-jax"), "--config=configs/dimo.py:smoke", "--workdir=out")
    said = run(*command, cwd=tmp_path, PYTHONPATH=str(installed), JAX_PLATFORMS="cpu")
    assert f"the one of the package is taken ({installed}/dimo_jax/configs/dimo.py)" in said
    assert (tmp_path / "out/report.html").is_file()
    assert (tmp_path / "out/player.html").is_file()
    assert (tmp_path / "out/summary.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


@pytest.mark.slow
def test_presets_are_found_from_python(installed, tmp_path):
    program = "import dimo_jax.configs.ablations.rigid_arap as r; print(r.__file__, r.get_config('smoke').preset)"
    said = run(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(installed), JAX_PLATFORMS="cpu")
    assert said.split() == [f"{installed}/dimo_jax/configs/ablations/rigid_arap.py", "smoke"]
