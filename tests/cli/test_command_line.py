"""Bad input through the command line: exit code 2, one line that says what to mend, and nothing written.

The cases that users meet first run `python launch.py` itself; the others run it in forks of one process that has
imported jax already (`launch_server.py`), because the import takes most of the time.
"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.gltf_writer import moving_square

from dimo_jax.cameras.orbits import orbit
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.formats.native import write_dataset

ROOT = Path(__file__).resolve().parents[2]
CONFIG = f"{ROOT}/configs/dimo.py"
SMOKE = f"--config={CONFIG}:smoke"
VARIABLES = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


@dataclasses.dataclass
class Launch:
    """How a launch ended."""

    code: int
    err: str


class Server:
    """A `launch_server.py` that runs as long as the tests of this file."""

    def __init__(self):
        command = [sys.executable, str(ROOT / "tests/apps/launch_server.py")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | VARIABLES
        )

    def launch(self, arguments, folder, variables):
        """Runs launch.py in `folder`."""
        paths = {name: str(folder.parent / f"{folder.name}.{name}") for name in ("out", "err")}
        job = {"arguments": arguments, "folder": str(folder), "variables": variables, **paths}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"the launch server has ended with code {self.process.wait(timeout=60)}"
        return Launch(int(answer), Path(paths["err"]).read_text())

    def close(self):
        self.process.stdin.close()
        code = self.process.wait(timeout=60)
        assert code == 0, f"the launch server has ended with code {code}"


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def good_data(tmp_path_factory):
    """A dataset of 2 motions, 2 training views and 1 test view, 6 frames, 32 px; not to be changed."""
    folder = tmp_path_factory.mktemp("good") / "data"
    write_dataset(
        Dataset(
            frames=np.random.default_rng(0).integers(0, 256, (2, 3, 6, 32, 32, 4), np.uint8),
            cameras=orbit([0, 120, 240], 10, radius=2.0, fov_deg=33.9, height=32, width=32),
            names=("walk", "jump"),
            captions=("a walk", "a jump"),
            splits=("train", "train"),
            view_names=("front", "left", "right"),
            view_splits=("train", "train", "test"),
            frame_rate=12.0,
            object_name="box",
        ),
        folder,
    )
    return folder


@pytest.fixture
def place(tmp_path):
    """The folder that a case runs in; what it holds before and after is compared."""
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


@pytest.fixture
def data(good_data, place):
    """A copy of the dataset, to be damaged; its path from the working folder is "data"."""
    shutil.copytree(good_data, place / "data")
    return place / "data"


@pytest.fixture
def refuses(place, request):
    """Launches, and asserts that the command was refused with one line that contains all the given parts."""

    def check(*arguments, says, process=False):
        before = list_tree(place)
        variables = {"DIMO_JAX_CACHE": str(place / "cache")}
        if process:
            command = [sys.executable, str(ROOT / "launch.py"), *arguments]
            environment = os.environ | VARIABLES | variables
            done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
            ended = Launch(done.returncode, done.stderr)
        else:
            ended = request.getfixturevalue("server").launch(list(arguments), place, variables)
        lines = ended.err.splitlines()
        assert ended.code == 2, ended.err
        assert lines[-1].startswith("error: "), ended.err
        assert sum("error: " in line for line in lines) == 1, ended.err
        assert "Traceback" not in ended.err
        for part in says:
            assert part in lines[-1]
        assert list_tree(place) == before

    return check


def list_tree(folder):
    """Every path below a folder, with the time it was last written to."""
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def cut(path):
    """Keeps the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def save_square(path, side):
    Image.fromarray(np.zeros((side, side, 4), np.uint8)).save(path)


# The damage to data/, and what the line must say.
DAMAGES_IN_PROCESSES = {
    "missing folder": (shutil.rmtree, ["data: no such folder", "expected a dataset folder with dataset.json"]),
    "empty folder": (empty, ["data: the folder is empty", "expected a dataset folder with dataset.json"]),
    "unreadable image": (
        lambda data: (data / "jump/left/00004.png").write_bytes(b"no picture"),
        ["data/jump/left/00004.png: cannot be read (cannot identify image file", "expected an image"],
    ),
    "sizes differ": (
        lambda data: save_square(data / "jump/right/00005.png", 24),
        ["data/jump/right/00005.png: image of 24x24, expected 32x32"],
    ),
    "camera missing": (
        lambda data: edit_json(data / "dataset.json", lambda content: content["views"].pop(1)),
        ["data/dataset.json", "num_views is 3, expected 2"],
    ),
}
DAMAGES = {
    "no JSON": (lambda data: (data / "dataset.json").unlink(), ["data: found no dataset.json, expected"]),
    "broken JSON": (lambda data: cut(data / "dataset.json"), ["data/dataset.json: not valid JSON"]),
    "file instead of folder": (
        lambda data: (shutil.rmtree(data), data.write_text("")),
        ["data: no such folder, expected a dataset folder"],
    ),
    "cut image": (
        lambda data: cut(data / "walk/front/00000.png"),
        ["data/walk/front/00000.png: cannot be read (image file is truncated)", "expected an image"],
    ),
    "camera without pose": (
        lambda data: edit_json(data / "dataset.json", lambda content: content["views"][1].pop("world_to_camera")),
        ["data/dataset.json: view left: key 'world_to_camera' is missing, expected list"],
    ),
    "folder of a camera missing": (
        lambda data: shutil.rmtree(data / "walk/left"),
        ["data/walk/left: no such folder, expected numbered PNGs"],
    ),
    "frame missing": (
        lambda data: (data / "walk/left/00003.png").unlink(),
        ["data/walk/left: 5 numbered PNGs, expected 6", "00003.png is missing"],
    ),
    "nothing to train on": (
        lambda data: edit_json(
            data / "dataset.json", lambda content: [motion.update(split="test") for motion in content["motions"]]
        ),
        ["config.data: no motion of box has the split 'train', expected at least 1"],
    ),
}


@pytest.mark.parametrize("name", DAMAGES_IN_PROCESSES)
def test_damaged_data_in_its_own_process(name, data, refuses):
    damage, says = DAMAGES_IN_PROCESSES[name]
    damage(data)
    refuses(SMOKE, "--config.data.path=data", "--workdir=run", says=says, process=True)


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_data(name, data, refuses):
    damage, says = DAMAGES[name]
    damage(data)
    refuses(SMOKE, "--config.data.path=data", "--workdir=run", says=says)


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--config.batch.views=3", ["config.batch.views: found 3, expected at most 2 (views of box that train)"]),
        ("--config.batch.frames=6", ["config.batch.frames: found 6, expected at most 5 (frames of box that train)"]),
    ],
)
def test_batch_larger_than_the_data(flag, says, data, refuses):
    refuses(SMOKE, "--config.data.path=data", flag, "--workdir=run", says=says)


def test_config_typo_in_its_own_process(refuses):
    says = ["--config.stage1.num_step: config.stage1 has no key 'num_step', expected 'num_steps'?"]
    refuses(SMOKE, "--config.stage1.num_step=3", "--workdir=run", says=says, process=True)


def test_phases_and_empty_fields_can_be_given(refuses):
    """What is refused here is the backend, after the phases were accepted: the checks below do not refuse all."""
    flags = ["--config.stage1.phases=((0,16),(1,32))", "--config.render.capacity=4096", "--config.seed=7"]
    says = ["config.render.implementation: found 'nope', expected one of xla, native, pallas"]
    refuses(SMOKE, *flags, "--config.render.implementation=nope", "--workdir=run", says=says)


SKINNING = "config.skinning.fn: "
GRAPH = "--config.graph={'fn': 'dimo_jax.systems.dimo.graph:trajectory_neighbors', 'neighbours': 3}"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--config.stage9.num_steps=3"], ["config has no key 'stage9', expected 'stage"]),
        (["--config.seed.more=3"], ["config.seed has no key 'more', expected no key below it"]),
        (["--config.batch.views=x"], ["--config.batch.views: found 'x', expected an integer"]),
        (["--config.batch.views=0"], ["config.batch.views: found 0, expected an integer of at least 1"]),
        (["--config.radius_scale=wide"], ["--config.radius_scale: found 'wide', expected a number"]),
        (["--config.stage1=3"], ["--config.stage1: found '3', expected "]),
        (["--config.evaluation.num_samples=0"], ["config.evaluation.num_samples: found 0, expected an integer of at"]),
        (["--config.evaluation.surface_points=0"], ["config.evaluation.surface_points: found 0, expected an integer"]),
        (["--config.stage2.opacity=1.5"], ["config.stage2.opacity: found 1.5, expected a number above 0 and below 1"]),
        (["--config.stage2.light=(0,0,0)"], ["config.stage2.light: found (0, 0, 0), expected three numbers that are"]),
        (["--config.stage2.light=(0,1)"], ["config.stage2.light: found (0, 1), expected three numbers that are not"]),
        (["--config.stage1.adam_b2=1.0"], ["config.stage1.adam_b2: found 1.0, expected a number above 0 and below 1"]),
        (["--config.stage2.sh_degree=1"], ["config.stage2.sh_degree: found 1 beside stage2.light, expected 0"]),
        (["--config.skinning.fn=dimo_jax.skinning.weights:nope"], [SKINNING, "has no function 'nope'"]),
        (["--config.skinning.fn=dimo_jax.model.nope:rbf"], [SKINNING, "cannot import module 'dimo_jax.model.nope'"]),
        (["--config.skinning.fn=rbf_weights"], [SKINNING, "found 'rbf_weights', expected \"module:function\""]),
        (["--config.stage1.densify.fn=nope:nope"], ["config.stage1.densify.fn: cannot import module 'nope'"]),
        (["--config.stage2.losses.kl.fn=dimo_jax.systems.dimo.terms:nope"], ["config.stage2.losses.kl.fn", "'nope'"]),
        (
            ["--config.radius_power=1.0"],
            ["config.radius_power: found 1, expected 2: the radius of dimo_jax.skinning"],
        ),
        (["--config.graph.neighbours=3"], ["config.graph has no key 'neighbours', expected 'num_neighbors'?"]),
        ([GRAPH], ["config.graph.neighbours: not an option", "(options: num_neighbors)"]),
        (
            ["--config.stage1.capacity=31"],
            ["config.stage1.capacity: found 31, expected at least stage1.num_points (32)"],
        ),
        (["--config.stage1.phases=x"], ["config.stage1.phases: found ('x',), expected pairs ((first step, pixels)"]),
        (["--config.stage1.phases=(0,32)"], ["config.stage1.phases: found (0, 32), expected pairs"]),
        (
            ["--config.stage2.phases=((0,16),(0,32))"],
            ["config.stage2.phases: found ((0, 16), (0, 32)), expected pairs"],
        ),
        (["--config.stage2.phases=((1,16),)"], ["config.stage2.phases: found ((1, 16),), expected pairs"]),
        (["--config.render.dilation=0.0"], ["config.render.dilation: found 0.0, expected a number above 0"]),
        (["--config.render.implementation=nope"], ["config.render.implementation: found 'nope', expected one of xla"]),
        (["--config.data.held_out_every=1"], ["config.data.held_out_every: found 1, expected 0 (every frame trains)"]),
        (["--config.stage2.losses.rgb.weight=inf"], ["config.stage2.losses.rgb.weight: found inf, expected a finite"]),
        (["--config.num_devices=99"], ["config.num_devices: found 99, expected at most"]),
        (["--config.batch.accumulate=0"], ["config.batch.accumulate: found 0, expected an integer of at least 1"]),
        (["--config.batch.accumulate=3"], ["config.batch.accumulate: found 3; ", "share a batch of 2 x 2 x 2"]),
        (["--config.data.device_gib=-1"], ["config.data.device_gib: found -1.0, expected a number of at least 0"]),
        (
            ["--config.data.path=x", "--config.data.store=tape"],
            ["config.data.store: found 'tape', expected one of auto"],
        ),
        (["--coordinator=nowhere"], ["--coordinator: found 'nowhere', expected HOST:PORT of process 0, or auto"]),
        (["--coordinator=a:1", "--process_id=0"], ["--num_processes: found None, expected at least 1"]),
        (["--coordinator=a:1", "--num_processes=2", "--process_id=2"], ["--process_id: found 2, expected 0 to 1"]),
        (["--coordinator=auto", "--process_id=2"], ["--coordinator=auto: found --num_processes or --process_id"]),
        (["--num_processes=2"], ["--coordinator: not given, expected it with --num_processes"]),
        (
            ["--app=sample", "--coordinator=auto"],
            ["--coordinator: found with --app=sample, expected it with --app=train"],
        ),
        (["--object_list=x", "--coordinator=auto"], ["--object_list: found --coordinator beside it"]),
        (["--object_list=nope.txt"], ["--object_list=nope.txt: cannot be read", "expected a text file"]),
        (["--config.data.path=", "--config.data.source.fn=nope:f"], ["config.data.source.fn: cannot import"]),
        (["--config.data.source.num_motions=999"], ["config.data.source.num_motions: found 999, expected 1 to"]),
        (["--nope=3"], ["--nope: no such flag, expected one of those that --app=train --help lists"]),
        (["--workdirs=run"], ["--workdirs: no such flag, did you mean --workdir?"]),
        (["--app=nope"], ["--app: found 'nope', expected one of", "import_data", "train"]),
        (["--app=exprot"], ["--app: found 'exprot', expected one of", "; did you mean 'export'?"]),
        (["stray"], ["command line: found 'stray', expected only --flags"]),
        (
            ["--source=model.glb"],
            [
                "--source: found a flag of",
                "export, import_data",
                "--app=train does not take, expected some of --config",
            ],
        ),
        (["--app=sample"], ["--config: found a flag of", "that --app=sample does not take", "--workdir"]),
    ],
    ids=lambda value: value[-1][:40],
)
def test_bad_flags(flags, says, refuses):
    refuses(SMOKE, "--workdir=run", *flags, says=says)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], ["--config: not given, expected --config=..."]),
        (["--config.seed=3"], ["--config.seed: no --config=FILE stands before it, expected one such as"]),
        (["--config=nope.py"], ["--config=nope.py: no such file, expected a config file such as configs/dimo.py"]),
        (["--config", "nope.py:demo"], ["--config=nope.py:demo: no such file"]),
        (["--config="], ["--config=: no such file"]),
        (
            [f"--config={CONFIG}:nope"],
            ["dimo.py:nope: preset 'nope' does not exist, expected one of paper, official, demo"],
        ),
    ],
    ids=lambda value: value[-1][:40] if value else "no config",
)
def test_bad_config_argument(arguments, says, refuses):
    refuses("--workdir=run", *arguments, says=says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def get_config(:", ["--config=own.py: SyntaxError: "]),
        ("x = 1", ["--config=own.py: AttributeError: ", "get_config"]),
        ("def get_config():\n    return typo", ["--config=own.py: NameError: name 'typo' is not defined"]),
        ("def get_config():\n    return open('nope.txt')", ["--config=own.py: ", "No such file", "nope.txt"]),
        ("import nope_nope", ["--config=own.py: ModuleNotFoundError: No module named 'nope_nope'"]),
        (
            "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict(dict(seed=1))",
            ["config.preset: not found in the config, expected as in configs/dimo.py"],
        ),
        (
            "def get_config():\n    return None",
            ["--config=own.py: found NoneType from get_config, expected a ConfigDict"],
        ),
    ],
    ids=["syntax", "no get_config", "name", "no file", "import", "incomplete", "nothing"],
)
def test_bad_config_file(text, says, place, refuses):
    (place / "own.py").write_text(text)
    refuses("--config=own.py", "--workdir=run", says=says)


def test_ctrl_c_gives_one_line(server, place):
    (place / "own.py").write_text("def get_config():\n    raise KeyboardInterrupt")
    ended = server.launch(["--config=own.py"], place, {})
    assert ended.code == 130
    assert ended.err.splitlines()[-1].startswith("stopped: interrupted")
    assert "Traceback" not in ended.err


def test_a_disk_that_takes_no_more_gives_one_line(data, place):
    launch = [sys.executable, str(ROOT / "launch.py"), "--app=import_data", "--check=data", "--out=sheets"]
    limited = ["bash", "-c", 'ulimit -f 1 && exec "$@"', "bash", *launch]  # files of up to 1 KiB
    environment = os.environ | VARIABLES | {"DIMO_JAX_CACHE": str(place / "cache")}
    done = subprocess.run(limited, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 4, done.stderr
    assert "cannot be written (File too large)" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not [path for path in (place / "sheets").rglob("*") if path.is_file()]


def test_workdir_is_a_file(place, refuses):
    (place / "run").write_text("mine")
    refuses(SMOKE, "--workdir=run", says=["--workdir=run: found a file, expected a folder"])
    refuses(SMOKE, "--workdir=run/below", says=["--workdir=run/below: found a file at", "expected a folder"])


def test_workdir_with_foreign_files(place, refuses):
    (place / "run").mkdir()
    (place / "run/thesis.tex").write_text("mine")
    says = ["--workdir=run: holds other files (thesis.tex), expected a run or an empty or new folder"]
    refuses(SMOKE, "--workdir=run", says=says)


def test_workdir_of_another_config(place, refuses):
    (place / "run/checkpoints").mkdir(parents=True)
    (place / "run/config.json").write_text(json.dumps({"batch": {"views": 1}}))
    says = ["--workdir=run: holds a run with another config (config.", "expected the same config, or another --workdir"]
    refuses(SMOKE, "--workdir=run", says=says)
    (place / "run/config.json").write_text("{")
    refuses(SMOKE, "--workdir=run", says=["run/config.json: not readable as JSON"])


def test_sample_without_a_run(place, refuses):
    says = ["--workdir=run: no such folder, expected the workdir of a training run"]
    refuses("--app=sample", "--workdir=run", says=says)
    (place / "run").mkdir()
    says = ["--workdir=run: no config.json in it, expected the workdir of a training run"]
    refuses("--app=sample", "--workdir=run", says=says)


def test_sample_without_a_checkpoint(place, refuses):
    (place / "run").mkdir()
    (place / "run/config.json").write_text("{}")
    refuses("--app=sample", "--workdir=run", says=["run/facts.json: cannot read it", "expected a run's facts"])
    (place / "run/facts.json").write_text(json.dumps({"names": ["walk"]}))
    refuses("--app=sample", "--workdir=run", says=["run/facts.json: cannot read it (KeyError: 'num_frames')"])
    (place / "run/facts.json").write_text(json.dumps({"names": ["walk"], "num_frames": 6}))
    says = ["--workdir=run: no checkpoint in it, expected a training run that has saved one"]
    refuses("--app=sample", "--workdir=run", says=says)


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--num_samples=0", "--num_samples: found 0, expected at least 1"),
        ("--spread=-1", "--spread: found -1, expected at least 0"),
        ("--spread=1.3", "--spread: found 1.3, expected 0 to 1"),
        ("--frame_rate=inf", "--frame_rate: found inf, expected at least 0"),
        ("--prior=gauss", "--prior: found 'gauss', expected one of"),
        ("--num_samples=x", "--num_samples: found 'x', expected an integer"),
        ("--test_clips=Walk", "--test_clips: found a flag of import_data that --app=sample does not take"),
        ("--out=taken", "--out=taken: found a file, expected a folder"),
    ],
)
def test_sample_with_bad_flags(flag, says, place, refuses):
    (place / "taken").write_text("mine")
    refuses("--app=sample", "--workdir=run", flag, says=[says])


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--app=interpolate"], "--motions: not given, expected --motions=..., which this app needs"),
        (["--app=interpolate", "--motions=walk"], "--motions: found 'walk', expected two names or more"),
        (["--app=interpolate", "--motions=a,b", "--num_steps=1"], "--num_steps: found 1, expected at least 2"),
        (["--app=interpolate", "--motions=a,b"], "--workdir=run: no such folder, expected the workdir"),
        (["--app=text", "--evaluate_captions=held_out", "--size=64"], "--size: found 64, expected --prompt="),
        (["--app=evaluate", "--gt=a", "--pred=b", "--checkpoint=best"], "--checkpoint: found 'best', expected a run"),
        (["--app=reconstruct", "--steps=-1"], "--steps: found -1, expected at least 0"),
        (["--app=reconstruct", "--start=far"], "--start: found 'far', expected one of"),
        (["--app=reconstruct", "--out=taken"], "--out=taken: found a file, expected a folder"),
    ],
    ids=lambda value: (value if isinstance(value, str) else value[-1])[:40],
)
def test_interpolate_and_reconstruct_with_bad_flags(flags, says, place, refuses):
    (place / "taken").write_text("mine")
    refuses("--workdir=run", *flags, says=[says])


@pytest.fixture
def model(place):
    """A GLB whose one clip moves a square."""
    return moving_square("Walk"), place / "model.glb"


def test_model_without_animation_in_its_own_process(model, refuses):
    writer, path = model
    del writer.json["animations"]
    writer.write(path)
    says = ["model.glb: no animation found, expected at least one clip"]
    refuses("--app=import_data", "--source=model.glb", "--out=made", says=says, process=True)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--source=nope.glb"], "nope.glb: no such file or folder, expected data to read"),
        ([], "--source: not given, expected --source=..."),
        (["--source=model.glb", "--clips=Run"], "clips='Run' matches no clip, expected some of: Walk"),
        (["--source=model.glb", "--size=big"], "--size: found 'big', expected an integer"),
        (["--source=model.glb", "--root_motion=drop"], "--root_motion: found 'drop', expected one of"),
        (["--source=model.glb", "--config.seed=3"], "--config.seed: no --config=FILE stands before it"),
        (["--source=model.glb", "--out=full"], "full: exists and is not an empty folder, expected a new one"),
        (["--source=model.glb", "--out=model.glb"], "--out=model.glb: found a file, expected a folder"),
    ],
    ids=lambda value: (value if isinstance(value, str) else (value or ["no source"])[-1])[:40],
)
def test_import_with_bad_flags(flags, says, model, place, refuses):
    model[0].write(model[1])
    (place / "full").mkdir()
    (place / "full/thesis.tex").write_text("mine")
    refuses("--app=import_data", "--out=made", *flags, says=[says])
