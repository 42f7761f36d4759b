import pytest

from dimo_jax.apps.import_data import run
from dimo_jax.core.errors import UserError
from dimo_jax.data.clips import ClipShards
from dimo_jax.data.puppet.rig import write_puppet_rig


def test_the_command_writes_a_folder_that_opens(tmp_path, capsys):
    rig = write_puppet_rig(tmp_path / "puppet.glb", num_motions=3)
    flags = dict(clips="bow_deeply,walk", num_frames=4, size=32, azimuths="20,110", elevation=10.0, num_workers=1)
    run(source=str(rig), out=str(tmp_path / "out"), pose_maps=True, samples=1, **flags)
    said = capsys.readouterr().out
    assert "wrote" in said
    assert "2 views x 4 frames of 32x32" in said
    shards = ClipShards(tmp_path / "out")
    assert (shards.num_views, shards.num_frames, shards.size) == (2, 4, 32)
    with pytest.raises(UserError, match="exists and is not an empty folder"):
        run(source=str(rig), out=str(tmp_path / "out"), pose_maps=True)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (dict(variants=2), "--variants: found 2, expected --pose_maps with it"),
        (dict(pose_maps=True, framing="x"), "--framing: found a flag that an import of pose maps does not take"),
        (dict(pose_maps=True, source="none.glb"), "none.glb: no such file or folder"),
        (dict(pose_maps=True, size=33), "--size: found 33, expected an even number"),
        (dict(pose_maps=True, azimuths="20"), r"--azimuths: found \(20.0,\), expected 2 to 64 cameras"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, flags, says):
    rig = write_puppet_rig(tmp_path / "puppet.glb", num_motions=1)
    with pytest.raises(UserError, match=says):
        run(**dict(source=str(rig), out=str(tmp_path / "out")) | flags)
    assert not (tmp_path / "out").exists()
