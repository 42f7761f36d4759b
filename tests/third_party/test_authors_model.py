"""The authors' model, converted and run by our functions, against torch: transforms and Gaussians to 1e-5."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.configs.dimo import get_config
from dimo_jax.core.errors import UserError
from dimo_jax.runs.authors_model import import_model
from dimo_jax.runs.restore import restore
from dimo_jax.systems.dimo import model as dimo
from dimo_jax.third_party.dimo import read_motion_model

FIXTURE = Path(__file__).parent / "authors_model"
TIMES = (0.0, 3 / 21, 20 / 21)


def convert(source, out, **options):
    import_model(source, out, config=get_config("official"), **options)
    return restore(out)


def compare(model, expected):
    """Everything that the reference computed, from a restored workdir."""
    player, params = model.player, model.player.params
    count = expected["means"].shape[2]
    for motion in range(len(expected["means"])):
        z = player.latent(motion)
        for index, time in enumerate(TIMES):
            decoded = dimo.decode(player.components, params, z, params.key_points.positions, jnp.float32(time))
            np.testing.assert_allclose(decoded[0], expected["translations"][motion, index], atol=1e-5)
            np.testing.assert_allclose(decoded[1], expected["rotations"][motion, index], atol=1e-5)
        clip = player.play(z, TIMES)
        assert player.alive.sum() == count
        assert player.alive[:count].all()
        np.testing.assert_allclose(clip.gaussians.means[:, :count], expected["means"][motion], atol=1e-5)
        turned = np.asarray(clip.gaussians.quats[:, :count])
        signs = np.sign(np.sum(turned * expected["quats"][motion], axis=-1, keepdims=True))
        np.testing.assert_allclose(signs * turned, expected["quats"][motion], atol=1e-5)
        np.testing.assert_allclose(
            clip.key_points, np.asarray(params.key_points.positions) + expected["translations"][motion], atol=1e-5
        )


def test_files_that_torch_made_are_run_as_torch_runs_them(tmp_path):
    with np.load(FIXTURE / "expected.npz") as expected:
        expected = dict(expected)
    # What is compared has moved, turned, and depends on motion and time.
    assert np.ptp(expected["translations"], axis=1).max() > 0.01
    assert np.abs(expected["translations"][0] - expected["translations"][1]).max() > 0.01
    assert np.abs(np.linalg.norm(expected["rotations"], axis=-1) - 1).max() > 0.1
    model = convert(FIXTURE, tmp_path / "run")
    assert model.facts["names"] == ["00-move", "01-move"]
    assert model.player.params.gaussians.means.shape == (24, 3)  # 20, in a whole number for each of 6 key points
    compare(model, expected)
    rgb, alpha = model.player.render(
        model.player.play(model.player.latent(0), TIMES[:1]).gaussians,
        jax.tree.map(lambda x: x[None], model.camera(32)),
    )
    assert np.isfinite(rgb).all()
    assert alpha.max() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("vae", [False, True])
def test_a_model_of_full_width_from_live_torch(tmp_path, vae):
    pytest.importorskip("torch", reason="torch is not installed; the stored files are tested without it")
    from authors_reference import TimeNet, make_model

    source = tmp_path / "theirs" / "s2"
    source.mkdir(parents=True)
    expected = make_model(
        source, net=TimeNet(), num_motions=3, num_key_points=40, num_gaussians=300, vae=vae, names=False
    )
    model = convert(source.parent, tmp_path / "run")  # the folder above s2 will do
    assert model.facts["names"] == ["motion_00", "motion_01", "motion_02"]
    compare(model, expected)
    read = read_motion_model(source)
    assert (read.width, read.depth, read.skip, read.head_width) == (256, 8, 5, 256)
    assert (read.log_sigma is not None) == vae


def test_the_fixture_is_what_its_script_makes(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="torch is not installed")
    import authors_reference

    monkeypatch.setattr(authors_reference, "FOLDER", tmp_path)
    authors_reference.main()
    with np.load(FIXTURE / "expected.npz") as stored, np.load(tmp_path / "expected.npz") as made:
        for name in stored.files:
            np.testing.assert_allclose(stored[name], made[name], atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in FIXTURE.iterdir())
    assert sum(path.stat().st_size for path in FIXTURE.iterdir()) < 60_000


def edit_ply(path, change):
    head, data = path.read_bytes().split(b"end_header\n", 1)
    path.write_bytes(change(head) + b"end_header\n" + data)


CASES = {
    "no codes": (lambda f: (f / "latent_codes.pth").unlink(), r"latent_codes\.pth: no such file"),
    "no decoder": (lambda f: (f / "timenet.pth").rename(f / "timenet_500.pth"), r"there are --step=500"),
    "no key points": (lambda f: (f / "point_cloud_c.ply").unlink(), r"point_cloud_c\.ply: no such file"),
    "other codes": (lambda f: shutil.copy(f / "trees.pth", f / "latent_codes.pth"), "OrderedDict, expected a tensor"),
    "other decoder": (lambda f: shutil.copy(f / "trees.pth", f / "timenet.pth"), "OrderedDict, expected a state"),
    "names": (lambda f: (f / "motion_order.json").write_text('["one"]'), "expected a list of 2 names"),
    "path in a name": (lambda f: (f / "motion_order.json").write_text('["../up", "b"]'), "no plain folder name"),
    "clouds swapped": (lambda f: shutil.copy(f / "point_cloud.ply", f / "point_cloud_c.ply"), "no property 'c_x'"),
    "cut cloud": (
        lambda f: (f / "point_cloud.ply").write_bytes((f / "point_cloud.ply").read_bytes()[:-9]), "cut short",
    ),
    "radius": (
        lambda f: (f / "point_cloud_c.ply").write_bytes((f / "point_cloud_c.ply").read_bytes()[:-4] + b"\xff" * 4),
        "values that are not finite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_files_that_do_not_fit_are_named_and_nothing_is_written(tmp_path, case):
    source = tmp_path / "in"
    shutil.copytree(FIXTURE, source)
    change, message = CASES[case]
    change(source)
    with pytest.raises(UserError, match=message) as error:
        import_model(source, tmp_path / "run", config=get_config("official"))
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("flag", ["num_frames", "step"])
def test_counts_below_zero_are_refused(tmp_path, flag):
    with pytest.raises(UserError, match=rf"--{flag}: found -1, expected at least"):
        import_model(FIXTURE, tmp_path / "run", config=get_config("official"), **{flag: -1})
    assert not (tmp_path / "run").exists()
