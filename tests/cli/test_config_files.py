"""Presets by the path that they have in a checkout, from any folder."""

import pytest

from dimo_jax import configs
from dimo_jax.cli.config_files import use_packaged_config


@pytest.fixture(autouse=True)
def away(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)


def read_config(argv):
    """The text of the file that the last argument names, whatever follows a colon."""
    with open(argv[-1].removeprefix("--config=").partition(":")[0]) as file:
        return file.read()


@pytest.mark.parametrize("arguments", [["--config=configs/dimo.py:smoke"], ["--config", "configs/dimo.py:smoke"]])
def test_away_from_a_checkout_the_packages_own_file_is_taken(arguments):
    argv = use_packaged_config(["launch.py", "--app=train", *arguments])
    assert argv[:2] == ["launch.py", "--app=train"]
    assert argv[-1].endswith(":smoke")
    assert "def get_config" in read_config(argv)
    assert len(argv) == 2 + len(arguments)


def test_files_in_folders_below_are_found():
    assert "rigid" in read_config(use_packaged_config(["launch.py", "--config=configs/ablations/rigid_arap.py"]))


def test_a_file_of_the_working_folder_comes_first(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/dimo.py").write_text("mine")
    assert use_packaged_config(["launch.py", "--config=configs/dimo.py:demo"])[-1] == "--config=configs/dimo.py:demo"


@pytest.mark.parametrize(
    "argument",
    [
        "--config=configs/none.py",  # in neither place
        "--config=dimo.py",
        "--config=/configs/dimo.py",
        "--config=configs",
        "--config=configs/../configs/dimo.py",
        "--config=",
        "--config",
        "--config.batch.views=configs/dimo.py",
        "--workdir=configs/dimo.py",
    ],
)
def test_everything_else_stays_as_it_is(argument):
    assert use_packaged_config(["launch.py", argument]) == ["launch.py", argument]


def test_the_name_of_the_program_is_no_flag():
    assert use_packaged_config(["--config", "configs/dimo.py"]) == ["--config", "configs/dimo.py"]


def test_it_is_said(informed, caplog):
    use_packaged_config(["launch.py", "--config=configs/dimo.py:demo"])
    said = f"--config=configs/dimo.py: not in this folder, so the one of the package is taken ({configs.__path__[0]}"
    assert said in caplog.text
