"""`--app=pose_maps`: clips of a rig drawn as a folder of poses, which `--app=animate` reads back."""

import json

import numpy as np
import pytest
from support.small_rig import write_small_rig

from dimo_jax.apps.animate import run as animate
from dimo_jax.apps.pose_maps import run
from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.pose_folder import open_pose_folder
from dimo_jax.io.clips import open_clip
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.rigs.pose_markers import measure_diagonal
from dimo_jax.rigs.posing import pose_nodes, pose_vertices


def test_what_is_drawn_is_read_back_as_the_same_motion(tmp_path, capsys):
    source, poses, out = write_small_rig(tmp_path / "small.glb"), tmp_path / "poses", tmp_path / "moved.glb"
    run(source=str(source), out=str(poses), size=240, frame_rate=6.0, azimuths="20,110,230")
    assert "wrote Swing of 3 views, 10 markers" in capsys.readouterr().out
    opened = open_pose_folder(poses)
    assert [name for name, _ in opened.clips] == ["Swing"]
    assert (opened.frame_rate, len(opened.lenses), opened.image) == (6, 3, (240, 240))
    assert len(list(open_clip(poses / "Swing" / "view_2.mp4").frames())) == 13
    animate(source=str(source), poses=str(poses), out=str(out))
    old, new, times = load_scene(source), load_scene(out), np.arange(13) / 6
    assert [clip.name for clip in new.clips] == ["Swing", "Swing_2"]
    true, found = (pose_vertices(new, pose_nodes(new, clip, times), slice(None)) for clip in new.clips)
    assert np.linalg.norm(found - true, axis=-1).mean() < 0.01 * measure_diagonal(old)


def test_a_model_without_clips_is_drawn_at_rest(tmp_path):
    source = write_small_rig(tmp_path / "still.glb", clip=False)
    run(source=str(source), out=str(tmp_path / "poses"), size=64)
    assert len(list(open_clip(tmp_path / "poses" / "rest" / "view_0.mp4").frames())) == 1
    assert len(json.loads((tmp_path / "poses" / "cameras.json").read_text())["views"]) == 4


def test_what_cannot_be_drawn_is_one_line_and_no_folder(tmp_path):
    source, out = str(write_small_rig(tmp_path / "small.glb")), tmp_path / "poses"
    bare = str(write_small_rig(tmp_path / "bare.glb", skin=False))
    for flags, match in (
        (dict(source=source, clips="Run"), r"clips='Run' matches no clip, expected some of: Swing"),
        (dict(source=source, size=65), r"--size: found 65, expected an even number"),
        (dict(source=source, azimuths="20"), r"--azimuths: found 20, expected two at least"),
        (dict(source=source, frame_rate=0.0), r"--frame_rate: found 0"),
        (dict(source=bare), r"bare\.glb: no skin found"),
        (dict(source=str(tmp_path / "none.glb")), r"none\.glb: no such model"),
    ):
        with pytest.raises(UserError, match=match) as caught:
            run(out=str(out), **flags)
        assert "\n" not in str(caught.value)
        assert not out.exists()
    out.mkdir()
    (out / "mine").write_text("")
    with pytest.raises(UserError, match=r"--out=.*poses: exists and is not an empty folder"):
        run(source=source, out=str(out))
