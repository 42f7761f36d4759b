"""The motion space of a rig, from training to a file with new clips, at the smallest size."""

import json
import shutil

import jax
import numpy as np
import pytest
from support.puppet_rig import puppet_file
from support.small_rig import write_small_rig
from support.travelling import WAY, walking_run

from dimo_jax.apps import animate, status, train
from dimo_jax.configs.rig import get_config
from dimo_jax.core.errors import UserError
from dimo_jax.data.sources import load
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.rigs.forward import make_rig
from dimo_jax.rigs.markers import find_joints
from dimo_jax.rigs.posing import pose_nodes
from dimo_jax.rigs.sampling import sample_clip
from dimo_jax.rigs.travel import follow_way
from dimo_jax.runs.build import build_system
from dimo_jax.runs.restore import restore
from dimo_jax.runs.rigs import restore_rig
from dimo_jax.training.checkpoints import Checkpoints
from dimo_jax.training.config_file import load_config
from dimo_jax.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("quick_compile")


def tiny_config(**data):
    config = get_config("smoke")
    config.data.update({"path": str(puppet_file()), "clips": "", "test_clips": "wave_left", **data})
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rig") / "run"
    train.run(config=tiny_config(), workdir=str(folder))
    return folder


def test_it_ends_with_errors_of_its_clips_and_a_report(workdir, capsys):
    summary = json.loads((workdir / "summary.json").read_text())
    assert list(summary["clips"]["each"]) == ["jumping_jacks", "walk", "bow_deeply"]
    assert 0 < summary["clips"]["vertex_error"] < 0.05
    assert list(summary["held_out_clips"]["each"]) == ["wave_left"]
    assert "Held-out clips" in (workdir / "report.html").read_text()
    assert (workdir / "samples.png").stat().st_size > 0
    facts = json.loads((workdir / "facts.json").read_text())
    assert facts["seconds"] == [1.0] * 4
    assert "camera" not in facts
    status.run(workdir=str(workdir))
    said = capsys.readouterr().out
    assert "2 of 2 (clips)" in said
    assert "px" not in said


def test_a_resumed_run_repeats_the_unbroken_one_bit_for_bit(workdir):
    config = load_config(workdir)
    trainer = Trainer(config, build_system(config, dataset := load(config.data)), dataset)
    checkpoints = Checkpoints(workdir)
    first = checkpoints.restore_latest(trainer.system.template, before=2)
    last = checkpoints.restore_latest(trainer.system.template)
    assert (first[0], last[0]) == (1, 2)
    state = trainer.resume(first[1], checkpoints.notes(1))
    state, _ = trainer.step(state, trainer.next_batch())
    for found, true in zip(jax.tree.leaves(state), jax.tree.leaves(last[1]), strict=True):
        np.testing.assert_array_equal(np.asarray(found), np.asarray(true))


def test_apps_of_pictures_name_the_app_that_plays_it(workdir):
    with pytest.raises(UserError, match=r"holds a motion space of a rig.*--app=animate plays it"):
        restore(workdir)


def poses_of(path, name):
    scene = load_scene(path)
    clip = next(clip for clip in scene.clips if clip.name == name)
    return sample_clip(make_rig(scene), clip, clip.channels[0].times), clip


def test_new_clips_stand_in_the_source_file(workdir, tmp_path, capsys):
    out = tmp_path / "new.glb"
    animate.run(workdir=str(workdir), num_samples=2, loop=True, duration=1.5, fps=10, out=str(out), foot_lock="auto")
    scene = load_scene(out)
    assert [clip.name for clip in scene.clips[:4]] == ["jumping_jacks", "walk", "bow_deeply", "wave_left"]
    assert [clip.name for clip in scene.clips[4:]] == ["sample_0_1", "sample_0_2"]
    rows = json.loads(out.with_suffix(".json").read_text())["clips"]
    assert [row["clip"] for row in rows] == ["sample_0_1", "sample_0_2"]
    assert all(row["bone_drift"] < 0.01 and row["frames"] == 16 and row["loop"] for row in rows)
    assert all(row["foot_slide"] <= row["foot_slide_before"] + 1e-6 for row in rows)
    pose, clip = poses_of(out, "sample_0_1")
    assert clip.end == pytest.approx(1.5)
    np.testing.assert_array_equal(pose.translations[0], pose.translations[-1])
    np.testing.assert_allclose(pose.rotations[0], pose.rotations[-1], atol=1e-6)
    assert np.abs(np.diff(np.asarray(pose.rotations), axis=0)).max() > 1e-3
    said = capsys.readouterr().out
    assert "feet: " in said
    assert "wrote 2 clips more" in said
    assert out.with_suffix(".png").is_file()


def without_clips(path, target):
    """A copy of a GLB that has no animation."""
    data = path.read_bytes()
    length = int.from_bytes(data[12:16], "little")
    content = json.loads(data[20 : 20 + length])
    del content["animations"]
    text = json.dumps(content).encode().ljust(length)
    target.write_bytes(data[:20] + text + data[20 + length :])
    return target


def test_a_copy_without_clips_can_be_animated_too(workdir, tmp_path):
    bare, out = without_clips(puppet_file(), tmp_path / "bare.glb"), tmp_path / "new.glb"
    assert not load_scene(bare, animated=False).clips
    animate.run(workdir=str(workdir), source=str(bare), out=str(out), motion="walk", foot_lock="auto")
    scene = load_scene(out)
    assert [clip.name for clip in scene.clips] == ["walk"]
    (row,) = json.loads(out.with_suffix(".json").read_text())["clips"]
    assert row["jerk"] > 0
    assert row["foot_slide"] <= row["foot_slide_before"] + 1e-6


def test_codes_between_clips_from_files_and_fitted(workdir, tmp_path):
    run = restore_rig(workdir)
    names = tmp_path / "z.npz"
    np.savez(names, z=np.asarray(run.player.latent(1)))
    made = {}
    for key, flags in {
        "motion": dict(motion="walk"),
        "code": dict(code=str(names), root_motion="remove"),
        "walk": dict(motions="walk,bow_deeply"),
        "fit": dict(fit=str(puppet_file())),
    }.items():
        made[key] = tmp_path / f"{key}.glb"
        animate.run(workdir=str(workdir), out=str(made[key]), **flags)
    played = poses_of(made["motion"], "walk_2")[0]
    np.testing.assert_allclose(poses_of(made["code"], "z")[0].rotations, played.rotations, atol=1e-5)
    between = poses_of(made["walk"], "walk_bow_deeply_linear")[0]
    np.testing.assert_allclose(between.rotations[0], played.rotations[0], atol=2e-2)
    rows = json.loads(made["fit"].with_suffix(".json").read_text())["clips"]
    assert [row["clip"] for row in rows] == ["jumping_jacks_2", "walk_2", "bow_deeply_2", "wave_left_2"]
    assert rows[0]["vertex_error"] < 6
    assert rows[0]["vertex_error"] < rows[3]["vertex_error"]


def test_a_walk_that_moves_on_closes_in_pose_and_goes_its_way(tmp_path):
    workdir = walking_run()
    run = restore_rig(workdir)
    assert run.loops.all()
    np.testing.assert_allclose(run.ways[run.find_motions("on", flag="motions")[0]], WAY, atol=5e-3)
    ends = {}
    for key, flags in {
        "keep": dict(motion="on"),
        "remove": dict(motion="on", root_motion="remove"),
        "loop": dict(motions="on,walk", share=0.5, loop=True),
        "walk": dict(motions="on,walk"),
    }.items():
        out = tmp_path / f"{key}.glb"
        animate.run(workdir=str(workdir), out=str(out), fps=10.0, **flags)
        scene = load_scene(out)
        matrices = pose_nodes(scene, scene.clips[-1], np.array([scene.clips[-1].start, scene.clips[-1].end])).matrices
        ends[key] = matrices[:, list(find_joints(scene).deforming)]
        (row,) = json.loads(out.with_suffix(".json").read_text())["clips"]
        assert row["bone_drift"] < 0.01
        assert row["loop"] == (key != "walk")
        assert not row["low_confidence"]
    np.testing.assert_allclose(ends["remove"][1], ends["remove"][0], atol=1e-6)
    np.testing.assert_allclose(ends["keep"][0], ends["remove"][0], atol=1e-6)
    for key, share in (("keep", 1), ("loop", 0.5)):
        gone = follow_way(share * run.ways[run.find_motions("on", flag="motions")[0]])
        np.testing.assert_allclose(ends[key][1], gone @ ends[key][0], atol=1e-5)
    assert 0.3 < np.linalg.norm((ends["walk"][1] - ends["walk"][0])[:, [0, 2], 3].mean(axis=0)) < 1.2


def test_what_does_not_fit_is_named_and_nothing_written(workdir, tmp_path):
    other = write_small_rig(tmp_path / "other.glb")
    out = tmp_path / "x.glb"
    for flags, says in (
        (dict(num_samples=1, source=str(other)), r"--source=.*other\.glb: 9 nodes, not those of the run's model"),
        (dict(fit=str(other)), r"--fit=.*other\.glb: 9 nodes, not those"),
        (dict(motion="swim"), r"--motion: found 'swim', expected a training motion: "),
        (dict(num_samples=1, foot_lock="tail"), r"--foot_lock: found 'tail', expected 'auto' or joints"),
        (dict(num_samples=1, motion="walk"), r"--motion: found --motion and --num_samples"),
        (dict(), r"--motion: found no motion, expected one of"),
        (dict(num_samples=1, hide="head"), r"--hide: found with a run of configs/rig\.py"),
        (dict(motion="walk", prior="data"), r"--prior: found 'data', expected --num_samples=N with it"),
        (dict(num_samples=1, smooth=1.0), r"--smooth: found 1\.0, expected --poses=FOLDER with it"),
        (dict(num_samples=1, poses=str(tmp_path)), r"--poses: both --poses and --workdir"),
        (dict(fit=str(other), num_samples=1), r"--num_samples: found 1, expected no --fit with it"),
    ):
        with pytest.raises(UserError, match=says):
            animate.run(workdir=str(workdir), out=str(out), **flags)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.glb"]
    folder = shutil.copytree(workdir, tmp_path / "changed")
    table = json.loads((folder / "config.json").read_text())
    table["system"]["fn"] = "dimo_jax.systems.static.system:Static"
    (folder / "config.json").write_text(json.dumps(table))
    with pytest.raises(UserError, match=r"--workdir=.*: holds a run of .*Static, expected"):
        animate.run(workdir=str(folder), num_samples=1, out=str(out))


def test_data_that_cannot_train_are_named(tmp_path):
    for data, says in (
        (dict(path=str(tmp_path / "no.glb")), r"config\.data\.path: found .*no\.glb, expected a rigged"),
        (dict(test_clips="*"), r"config\.data\.test_clips: all 4 clips of .*puppet\.glb"),
        (dict(test_clips="swim"), r"config\.data\.test_clips='swim' matches no clip"),
        (dict(clips="walk", test_clips="wave_left"), r"found 'wave_left', expected clips among those of config"),
        (
            dict(path=str(write_small_rig(tmp_path / "bare.glb", skin=False)), test_clips=""),
            r"bare\.glb: no skin found",
        ),
        (dict(path=str(write_small_rig(tmp_path / "still.glb", clip=False)), test_clips=""), r"no clip found"),
    ):
        with pytest.raises(UserError, match=says):
            train.run(config=tiny_config(**data), workdir=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    config = get_config("smoke")
    config.rig.weights.turn = -1.0
    with pytest.raises(UserError, match=r"config\.rig\.weights\.turn: found -1\.0, expected a number of at least 0"):
        train.run(config=config, workdir=str(tmp_path / "run"))
