"""`--app=animate` with AnimaX: a tiny run, trained by the loop of all systems, draws a clip for a rig."""

import json
import shutil

import jax
import numpy as np
import pytest
from support.bert_folder import write_folder
from support.outside import validate
from support.small_rig import write_small_rig
from support.tiny_clips import write_tiny_clips

from dimo_jax.apps import animate, train
from dimo_jax.cli.flag_checks import check_flags
from dimo_jax.cli.parameters import read_app
from dimo_jax.configs.animax import get_config
from dimo_jax.core.errors import UserError
from dimo_jax.io.clips import open_clip
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.runs.animax import restore_animax
from dimo_jax.runs.drawn_clips import STILL
from dimo_jax.systems.animax.player import AnimaxPlayer

pytestmark = pytest.mark.usefixtures("quick_compile")


def count_frames(path):
    return sum(1 for _ in open_clip(path).frames())


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_small_rig(tmp_path_factory.mktemp("rig") / "small.glb")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of the tiny preset, with its outcome."""
    root = tmp_path_factory.mktemp("animax")
    write_tiny_clips(root / "clips")
    write_folder(root / "bert")
    config = get_config("tiny")
    config.data.path, config.animax.text.bert = str(root / "clips"), str(root / "bert")
    config.animax.backbone.text_dim = 12
    config.num_devices = 1
    train.run(config=config, workdir=str(root / "run"))
    return root / "run"


def test_a_run_ends_with_checkpoints_and_videos(workdir):
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"2", "4"}
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["preset"] == "tiny"
    assert summary["num_steps"] == 4
    assert count_frames(workdir / "videos" / "clip_box_jump.mp4") == 3
    assert "Held-out clips" in (workdir / "report.html").read_text()
    facts = json.loads((workdir / "facts.json").read_text())
    assert facts["azimuths"] == [20, 110]
    assert facts["elevation"] == 15
    assert facts["splits"] == ["train", "train", "test"]


def test_drawing_takes_the_average_of_the_weights(workdir):
    run = restore_animax(workdir)
    assert run.step == 4
    head = run.player.params.backbone.head.kernel
    assert 0 < np.abs(head).max() < 1


@pytest.fixture(scope="module")
def drawn(source, workdir, tmp_path_factory):
    """What two draws give; the first call is stopped in the second of them."""
    out, calls = tmp_path_factory.mktemp("out") / "moved.glb", []
    whole = AnimaxPlayer.draw

    def stop_at_the_second(self, key, *arguments, **changes):
        calls.append(jax.random.key_data(key).tolist())
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, key, *arguments, **changes)

    arguments = dict(source=str(source), prompt="it waves left", workdir=str(workdir), num_samples=2, out=str(out))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnimaxPlayer, "draw", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            animate.run(**arguments)
        assert not out.exists()
        assert [path.name for path in sorted(out.with_suffix(".samples").iterdir())] == [
            "request.json",
            "sample_000.npz",
        ]
        animate.run(**arguments)
    return out, calls


def test_a_sentence_becomes_a_clip_and_a_killed_call_goes_on(drawn):
    out, calls = drawn
    assert len(calls) == 3  # the first sample was not drawn again
    assert calls[1] == calls[2] != calls[0]
    assert not out.with_suffix(".samples").exists()
    scene = load_scene(out)
    assert [clip.name for clip in scene.clips] == ["Swing", "it_waves_left"]
    (row,) = json.loads(out.with_suffix(".json").read_text())["clips"]
    assert row["frames"] == 3
    assert row["prompt"] == "it waves left"
    assert len(row["samples"]) == 2
    assert row["sample"] == row["samples"][0]["sample"]
    assert row["moved"] == row["samples"][0]["moved"] < STILL
    assert row["samples"][0]["markers_seen"] > 0.5  # a model that has learnt nothing shows the still
    for ending in ("views", "poses"):
        assert count_frames(out.with_name(f"moved_{ending}.mp4")) == 3
    assert out.with_suffix(".png").is_file()


def test_the_validator_finds_nothing_new(source, drawn):
    assert sorted(validate(drawn[0])) == sorted(validate(source))


def test_a_config_names_the_run_and_says_how_to_draw(source, workdir, tmp_path):
    config = get_config("tiny")
    config.animax.trained = str(workdir)
    config.animax.sampling.num_steps = 1
    out = tmp_path / "other.glb"
    animate.run(source=str(source), prompt="it jumps", config=config, out=str(out), fps=4.0)
    (row,) = json.loads(out.with_suffix(".json").read_text())["clips"]
    assert row["frame_rate"] == 4
    assert row["clip"] == "it_jumps"


def given(**changes):
    return {name: each.default for name, each in read_app("animate").parameters.items()} | changes


def test_what_does_not_fit_is_one_line(source, workdir, tmp_path):
    plain = dict(source=str(source), workdir=str(workdir), out=str(tmp_path / "x.glb"))
    for changes, match in (
        (dict(prompt="  "), r"--prompt: found '  ', expected what the model shall do"),
        (dict(prompt="walks", source="absent.glb"), r"--source=absent\.glb: no such model"),
        (dict(prompt="walks", motion="a"), r"--motion: found 'a', expected a run of configs/rig\.py with it"),
        (dict(prompt="walks", num_samples=-1), r"--num_samples: found -1"),
        (dict(prompt="walks", duration=1.0, fps=3.0), r"--fps: found 3 with --duration"),
    ):
        with pytest.raises(UserError, match=match):
            check_flags("animate", given(**plain | changes))
    config = get_config("tiny")
    with pytest.raises(UserError, match=r"--workdir: found with --config"):
        check_flags("animate", given(**plain, prompt="walks", config=config))
    plain.pop("workdir")
    with pytest.raises(UserError, match=r"config\.animax\.trained: not given, expected the workdir"):
        animate.run(**plain, prompt="walks", config=config)
    config.animax.trained = str(tmp_path / "absent")
    with pytest.raises(UserError, match=r"config\.animax\.trained: no such folder"):
        animate.run(**plain, prompt="walks", config=config)
    bare = write_small_rig(tmp_path / "bare.glb", skin=False)
    with pytest.raises(UserError, match=r"bare\.glb: .*skin"):
        animate.run(source=str(bare), prompt="walks", workdir=str(workdir), out=str(tmp_path / "y.glb"))
    assert not list(tmp_path.glob("[xy].*"))


def test_damaged_weights_are_one_line(source, workdir, tmp_path):
    broken = shutil.copytree(workdir, tmp_path / "run")
    for step in (broken / "checkpoints").iterdir():
        largest = max((path for path in step.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
        largest.write_bytes(largest.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"none of the checkpoints \[4, 2\] can be read"):
        animate.run(source=str(source), prompt="walks", workdir=str(broken), out=str(tmp_path / "z.glb"))
    facts = json.loads((workdir / "facts.json").read_text())
    (broken / "facts.json").write_text(json.dumps(facts | {"azimuths": [20]}))
    with pytest.raises(UserError, match=r"facts\.json: azimuths is \[20\], expected two numbers or more"):
        animate.run(source=str(source), prompt="walks", workdir=str(broken), out=str(tmp_path / "z.glb"))
    assert not list(tmp_path.glob("z.*"))
