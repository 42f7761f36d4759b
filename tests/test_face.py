"""`import dimo_jax as dj`: few names, imported lazily, that do in a few lines what docs/library.md says."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dimo_jax as dj
from dimo_jax.apps import train
from dimo_jax.configs.dimo import get_config
from dimo_jax.core.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = (ROOT / "docs/library.md").read_text()


def test_the_import_is_quick_and_loads_no_jax():
    code = (
        "import time; start = time.perf_counter(); import dimo_jax, sys; took = time.perf_counter() - start;"
        "print(took, 'jax' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    took, has_jax, has_numpy = done.stdout.split()
    assert float(took) < 0.2
    assert has_jax == has_numpy == "False"


def test_every_name_is_there_and_has_words():
    assert set(dj.__all__) <= set(dir(dj))
    for name in dj.__all__:
        if name != "__version__":
            assert len(inspect.getdoc(getattr(dj, name)) or "") > 40, name
    with pytest.raises(AttributeError, match=r"has no attribute 'rendr'; it has .*render"):
        dj.rendr  # noqa: B018


def test_the_package_that_renders_is_called_by_the_functions_name():
    code = (
        "import dimo_jax as dj; face = dj.render; import dimo_jax.render; from dimo_jax.render import project, render;"
        "assert dj.render is face and dj.render.project is project and callable(render) and callable(face)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    config = get_config("smoke")
    config.evaluation.update(num_videos=0, num_samples=1)
    folder = tmp_path_factory.mktemp("face") / "run"
    train.run(config=config, workdir=str(folder))
    return folder


def test_ten_lines_sample_a_run_and_render_it(workdir):
    code = re.search(r"```\n(import dimo_jax as dj\n\nrun = .*?)```", LIBRARY, re.S)[1]
    assert 'load_run("runs/dimo")' in code
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    names = {}
    exec(code.replace("runs/dimo", str(workdir)), names)
    assert names["image"].shape == (256, 256, 3)
    assert names["clip"].key_points.shape[0] == 42
    run = names["run"]
    assert run.render(names["clip"], run.camera(16)).shape == (42, 16, 16, 3)
    half = run.blend(run.motions[:2], (0.5, 0.5))
    np.testing.assert_allclose(half, (run.code(run.motions[0]) + run.code(run.motions[1])) / 2, rtol=1e-5, atol=1e-7)
    assert np.any(np.asarray(run.sample(seed=1)) != np.asarray(run.sample(seed=2)))
    with pytest.raises(UserError, match=r"no training motion|--motion"):
        run.code("nobody")


def test_fifteen_lines_take_a_training_step():
    code = next(each for each in re.findall(r"```python\n(.*?)```", LIBRARY, re.S) if "make_trainer" in each)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15


def test_a_preset_that_is_not_there_is_named():
    with pytest.raises(UserError, match="preset 'dimo:nothing'"):
        dj.load_preset("dimo:nothing")
    with pytest.raises(UserError, match="preset 'nobody'"):
        dj.load_preset("nobody")
