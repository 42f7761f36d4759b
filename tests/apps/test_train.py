"""The main job in small: trains on a tiny puppet, must beat the static model, resumes where it stood, samples."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

from dimo_jax.apps import interpolate, reconstruct, sample, train
from dimo_jax.configs.dimo import get_config
from dimo_jax.core.errors import UserError
from dimo_jax.data.dataset import select_motions
from dimo_jax.data.formats.native import write_dataset
from dimo_jax.data.sources import load
from dimo_jax.io.metrics_log import read_metrics
from dimo_jax.metrics.motion import trajectory_diversity
from dimo_jax.runs.restore import restore
from dimo_jax.training.checkpoints import Checkpoints


def make_config():
    config = get_config("smoke")
    config.data.source.update(num_motions=2, num_frames=6, size=32, num_train_views=8, num_test_views=1)
    config.batch = dict(motions=2, views=2, frames=2)
    config.decoder.update(width=64, head_width=32, depth=3, skip=1)
    config.num_key_points = 32
    config.stage1.update(capacity=64, num_points=48, densify_every=50, densify_from=50, anneal_every=100)
    config.stage1.num_steps, config.stage2.num_steps = 300, 500
    config.stage1.phases = config.stage2.phases = ((0, 16), (200, 32))
    config.stage3.update(num_steps=200, phases=((0, 32),))
    config.stage3.fit.num_steps = 300
    config.stage2.update(num_per_key_point=10, prune_every=200, prune_until=400)
    config.log_every = config.checkpoint_every = config.image_every = 100
    config.keep_checkpoints = 20
    config.evaluation.update(baseline_steps=100, num_lpips_images=2)
    return config


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run; its workdir is not to be changed."""
    workdir = tmp_path_factory.mktemp("run") / "puppet"
    train.run(config=make_config(), workdir=str(workdir))
    return workdir


def test_stretch_trains_by_a_longer_config(tmp_path, monkeypatch):
    configs = []
    monkeypatch.setattr(train, "train", lambda config, folder, *, then: configs.append(config))
    train.run(config=get_config("demo"), workdir=str(tmp_path / "run"), stretch=1.5)
    assert [configs[0][stage].num_steps for stage in ("stage1", "stage2", "stage3")] == [2_400, 3_150, 600]
    assert configs[0].stage3.fit.num_steps == round(1.5 * get_config("demo").stage3.fit.num_steps)
    wrong = get_config("demo")
    wrong.stage1.phases = ((0,),)
    with pytest.raises(UserError, match=r"config\.stage1\.phases: found"):
        train.run(config=wrong, workdir=str(tmp_path / "run"), stretch=1.5)


def final_parameters(workdir):
    return jax.tree.leaves(restore(workdir).player.params)


@pytest.mark.slow
def test_run_is_complete_and_beats_the_static_model(trained):
    summary = json.loads((trained / "summary.json").read_text())
    for key in ("preset", "seconds", "peak_memory_gib", "config_sha256", "versions", "surface_distance"):
        assert summary[key], key
    for key in ("held_out_views", "held_out_frames", "static_baseline"):
        assert set(summary[key]) >= {"psnr", "psnr_foreground", "ssim", "lpips_vgg"}
    assert summary["held_out_views"]["psnr"] > 24
    assert summary["held_out_views"]["psnr"] > summary["static_baseline"]["psnr"] + 2
    assert summary["held_out_views"]["num_images"] == 2 * 1 * 5
    assert summary["held_out_frames"]["num_images"] == 2 * 8 * 1
    for name in (
        "report.html",
        "contact_sheet.png",
        "latents.png",
        "samples.mp4",
        "interpolation.mp4",
        "gaussians.ply",
        "player.html",
    ):
        assert (trained / name).stat().st_size > 500, name
    assert len(list((trained / "videos").glob("*.mp4"))) == 2
    report = (trained / "report.html").read_text()
    assert "the foreground is the true mask grown by 3 pixels" in report
    assert '<a href="player.html">Play its motions in the browser</a>' in report
    assert list((trained / "tensorboard").iterdir())


@pytest.mark.slow
def test_the_best_checkpoint_can_be_asked_for(trained, tmp_path):
    best = Checkpoints(trained).best()
    assert restore(str(trained), checkpoint="best").step == best  # a path as a text, too
    names = ",".join(restore(trained).facts["names"])
    interpolate.run(workdir=str(trained), motions=names, checkpoint="best", num_steps=2, out=str(tmp_path))
    assert list(tmp_path.glob("*.mp4"))


@pytest.mark.slow
def test_loss_falls_and_resolution_follows_the_schedule(trained):
    rows = read_metrics(trained / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(100, 1001, 100))
    assert [row["resolution"] for row in rows] == [16, 16, 32, 16, 16, 32, 32, 32, 32, 32]
    assert rows[-1]["psnr"] > rows[0]["psnr"] + 2
    assert all(row["overflow"] == 0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("last_step", "reasons"),
    [
        (200, ["resuming", "new stage", "new resolution", "new stage"]),
        (500, ["resuming", "new stage"]),
        (900, ["resuming"]),
    ],
)
def test_resumed_run_ends_with_the_same_parameters(trained, tmp_path, caplog, informed, last_step, reasons):
    workdir = tmp_path / "resumed"
    shutil.copytree(trained, workdir)
    for folder in (workdir / "checkpoints").iterdir():
        if folder.name.isdigit() and int(folder.name) > last_step:
            shutil.rmtree(folder)
    train.run(config=make_config(), workdir=str(workdir))
    for a, b in zip(final_parameters(trained), final_parameters(workdir), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [r["step"] for r in read_metrics(workdir / "metrics.jsonl")] == list(range(100, 1001, 100))
    said = [record.message for record in caplog.records if "compiling the step" in record.message]
    compiled = [message for message in said if message.startswith("stage")]  # not the baseline's
    assert [re.search(r"\(([^()]*)\)$", message)[1] for message in compiled] == reasons


@pytest.mark.slow
def test_damaged_checkpoint_is_named_and_the_one_before_it_used(trained, tmp_path, caplog):
    workdir = tmp_path / "damaged"
    shutil.copytree(trained, workdir)
    for path in (workdir / "checkpoints" / "1000").rglob("*"):
        if path.is_file() and path.name != "_CHECKPOINT_METADATA":
            path.write_bytes(b"damaged")
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.steps()[:2] == [1000, 900]
    restored = restore(workdir)
    assert "checkpoint 1000 is damaged" in caplog.text
    assert restored.num_frames == 6


@pytest.mark.slow
def test_sample_renders_new_motions_of_any_length(trained, tmp_path, capsys):
    sample.run(workdir=str(trained), out=str(tmp_path), num_samples=2, num_frames=9, seed=5)
    path = tmp_path / "samples_5.mp4"
    novelty, cost, printed = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"a new motion differs by 0\.\d+ of the object's size from the nearest of training, "
        r"two new ones by 0\.\d+, two of training by 0\.\d+",
        novelty,
    )
    assert cost.startswith("one pass: ")
    assert "9 frames" in cost
    assert printed == str(path)
    import imageio.v3 as iio

    assert len(iio.imread(path)) == 9


@pytest.mark.slow
def test_diverse_samples_lie_farther_apart_and_begin_with_the_same(trained):
    model = restore(trained)
    plain, diverse = (sample.draw_codes(model, seed=2, num_samples=8 * n, diverse=n == 1) for n in (8, 1))
    np.testing.assert_allclose(diverse[0], plain[0], atol=1e-6)
    apart = [trajectory_diversity(np.asarray(model.player.trace(z, np.linspace(0, 1, 6)))) for z in (plain, diverse)]
    assert apart[1] > 1.1 * apart[0]
    tracks = model.player.play(plain[0], np.linspace(0, 1, 6)).key_points
    np.testing.assert_allclose(model.player.trace(plain[:1], np.linspace(0, 1, 6))[0], tracks, atol=1e-5)


@pytest.mark.slow
def test_sample_around_a_motion_on_an_orbit(trained, tmp_path):
    model = restore(trained)
    name = model.facts["names"][1]
    still = sample.draw_codes(model, seed=1, num_samples=2, around=name, spread=0.0)
    np.testing.assert_allclose(still, np.tile(model.player.latent(1), (2, 1)), atol=1e-6)
    standard = sample.draw_codes(model, seed=1, num_samples=2, prior="standard")
    np.testing.assert_array_equal(standard, jax.random.normal(jax.random.key(1), (2, 32)))
    sample.run(workdir=str(trained), out=str(tmp_path), num_samples=1, around=name, camera="orbit", num_frames=4)
    import imageio.v3 as iio

    frames = iio.imread(tmp_path / f"samples_0_around_{name}_orbit.mp4").astype(int)
    assert np.abs(frames[0] - frames[2]).mean() > 1  # seen from the other side
    with pytest.raises(UserError, match=rf"--around: found 'nope', expected a training motion: .*{name}"):
        sample.run(workdir=str(trained), out=str(tmp_path / "none"), around="nope")
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["linear", "spherical"])
def test_interpolation_is_drawn_and_measured(trained, tmp_path, path):
    names = restore(trained).facts["names"]
    interpolate.run(workdir=str(trained), motions=",".join(names), out=str(tmp_path), path=path, num_steps=3)
    stem = f"{names[0]}_{names[1]}_{path}"
    report = json.loads((tmp_path / f"{stem}.json").read_text())
    assert report["shares"] == [0, 0.5, 1]
    assert set(report["training"]) == set(names)
    first, last = (report["training"][name]["distance_change"] for name in names)
    assert report["stations"][0]["distance_change"] == pytest.approx(first, rel=1e-4)
    expected = report["stations"][1]["distance_change"] / (0.5 * (first + last))
    assert report["distance_change_ratio"] == pytest.approx(expected, rel=1e-4)
    assert report["evenness"] >= 1
    import imageio.v3 as iio

    assert len(iio.imread(tmp_path / f"{stem}_grid.mp4")) == 6
    assert len(iio.imread(tmp_path / f"{stem}_morph.mp4")) == 12


@pytest.fixture(scope="module")
def unseen(tmp_path_factory):
    """A folder with two motions, the second of which has the split "test" and is none of the run's."""
    config = make_config()
    config.data.source.update(num_motions=3, num_test_motions=1)
    dataset = select_motions(load(config.data), (0, 2))
    folder = tmp_path_factory.mktemp("unseen") / "data"
    write_dataset(dataset, folder)
    return folder, dataset.names[1]


@pytest.mark.slow
def test_unseen_motion_is_fitted_by_its_code_alone(trained, unseen, tmp_path):
    folder, name = unseen
    before = final_parameters(trained)
    options = dict(workdir=str(trained), source=str(folder), out=str(tmp_path), steps=300, views="0,3,6")
    reconstruct.run(**options, finetune_decoder=100)
    scores = json.loads((tmp_path / "scores.json").read_text())
    (result,) = scores["motions"]
    assert result["motion"] == name
    assert (result["code"]["fitted_views"]["num_images"], result["code"]["other_views"]["num_images"]) == (18, 36)
    losses = result["losses"]  # every tenth step's; its batches differ, so means count
    assert np.mean(losses[20:30]) < 0.9 * np.mean(losses[:4])
    # The decoder sees the batches that the code saw. What it gains is told by the loss, of colour and alpha, that it
    # minimizes: on a model this small the PSNR of colours does not rise with it.
    gained = sum(losses[36:40]) / sum(losses[6:10])
    assert gained < 0.95
    assert losses[30] < losses[0]
    code = np.load(tmp_path / f"{name}.npz")
    assert np.abs(code["z"] - code["start"]).max() > 1e-3
    assert (tmp_path / f"{name}.mp4").stat().st_size > 500
    assert (tmp_path / f"{name}_decoder.npz").stat().st_size > 500
    for a, b in zip(before, final_parameters(trained), strict=True):
        np.testing.assert_array_equal(a, b)
    for flags, says in (
        (dict(motion="nope"), "--motion: found 'nope', expected a motion of puppet"),
        (dict(views="0,99"), "--views: found '0,99', expected distinct numbers from 0 to 8"),
        (dict(fit_size=64), "--fit_size: found 64, expected at most 32"),
        (dict(source=""), "--motion: not given, and no motion of puppet has the split 'test'"),
    ):
        with pytest.raises(UserError, match=says):
            reconstruct.run(**options | dict(out=str(tmp_path / "none")) | flags)
    assert not (tmp_path / "none").exists()
