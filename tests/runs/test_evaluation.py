"""Scores against a dataset: which pictures LPIPS and FVD see, undefined figures, and figures by motion."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.apps import evaluate
from dimo_jax.apps.reconstruct import mean_scores
from dimo_jax.cameras.orbits import orbit
from dimo_jax.data.dataset import Dataset, held_out_frames, motions_in, train_frames, views_in
from dimo_jax.metrics import scores as score_module
from dimo_jax.metrics import videos as video_scores
from dimo_jax.runs.evaluation import find_worst, score
from dimo_jax.runtime.files import write_json
from dimo_jax.training.images import composite_truth

SIDE = 24
NUM_MOTIONS, NUM_VIEWS, NUM_FRAMES = 6, 4, 12  # of which motion 1 and views 1 and 2 test


@pytest.fixture(scope="module")
def dataset():
    """A square on nothing, whose colour in every frame names its motion, view and frame."""
    shape = (NUM_MOTIONS, NUM_VIEWS, NUM_FRAMES)
    frames = np.zeros((*shape, SIDE, SIDE, 4), np.uint8)
    for axis in range(3):
        numbers = 20 * np.arange(shape[axis], dtype=np.uint8)
        frames[..., 8:16, 8:16, axis] = numbers.reshape([-1 if i == axis else 1 for i in range(5)])
    frames[..., 8:16, 8:16, 3] = 255
    return Dataset(
        frames=frames,
        cameras=orbit(np.arange(NUM_VIEWS) * 40.0, 0.0, radius=2.0, fov_deg=33.9, height=SIDE, width=SIDE),
        names=tuple(f"m{i}" for i in range(NUM_MOTIONS)),
        captions=("",) * NUM_MOTIONS,
        splits=("train", "test", *["train"] * (NUM_MOTIONS - 2)),
        view_names=tuple(f"v{i}" for i in range(NUM_VIEWS)),
        view_splits=("train", "test", "test", "train"),
        frame_rate=12.0,
        object_name="squares",
    )


def read_labels(pictures):
    """The motion, view and frame that pictures [n,H,W,3] in 0..1 show."""
    return np.rint(np.asarray(pictures)[:, 12, 12] * 255 / 20).astype(int).tolist()


def truth_of(dataset, views, frames):
    """The training motions as a perfect model would play them."""
    for motion in motions_in(dataset, "train"):
        pictures = dataset.frames[motion][np.ix_(views, frames)]
        yield int(motion), np.asarray(composite_truth(jnp.asarray(pictures), jnp.ones(3))[0])


@pytest.fixture
def seen(monkeypatch):
    """What LPIPS was asked about; the network is replaced."""
    labels = []

    def lpips(images, truth, *, network):
        assert network == "vgg"
        labels.extend(read_labels(truth))
        return jnp.full(len(images), 0.25)

    monkeypatch.setattr(score_module, "lpips", lpips)
    return labels


def run_score(dataset, predictions, views, frames, count):
    options = dict(views=views, frames=frames, background=jnp.ones(3), num_lpips_images=count)
    return score(dataset, predictions, **options)


@pytest.mark.parametrize("count", [1, 4, 5, 17, 20, 39, 0, 10_000])
def test_lpips_sees_motions_views_and_frames_evenly_and_says_which(dataset, seen, count):
    views, frames = views_in(dataset, "test"), train_frames(dataset, 5)
    result = run_score(dataset, truth_of(dataset, views, frames), views, frames, count)
    total = 5 * len(views) * len(frames)
    assert result["num_lpips_images"] == len(result["lpips_images"]) == (min(count, total) or total)
    assert result["lpips_images"] == seen  # by the pictures themselves, not by what the code says of them
    for axis, every in enumerate((motions_in(dataset, "train"), views, frames)):
        hits = [sum(row[axis] == index for row in seen) for index in every]
        assert sum(hits) == len(seen)
        assert max(hits) - min(hits) <= 1


def test_undefined_figures_are_counted_and_spoil_no_mean(dataset, seen, tmp_path):
    """A blank picture has no figure to score, and what the model paints perfectly no finite PSNR."""
    views, frames = views_in(dataset, "test"), train_frames(dataset, 5)
    blank = dataset.frames.copy()
    blank[3, views[0], frames[2]] = 0
    dataset = dataclasses.replace(dataset, frames=blank)
    off = {motion: np.float32(0.01 * (1 + motion)) for motion in range(NUM_MOTIONS)}
    perfect = np.arange(len(frames))[:, None, None, None] == 4
    predictions = [
        (motion, np.where(perfect & (motion == 0), rgb, rgb - off[motion]))
        for motion, rgb in truth_of(dataset, views, frames)
    ]
    result = run_score(dataset, iter(predictions), views, frames, 4)
    assert result["psnr_undefined"] == len(views)  # equal pictures: infinite
    assert result["psnr_foreground_undefined"] == len(views) + 1  # and the blank one: none
    assert result["ssim_undefined"] == result["lpips_vgg_undefined"] == 0
    by_motion = result["motions"]
    assert list(by_motion) == ["m0", "m2", "m3", "m4", "m5"]
    assert by_motion["m3"]["psnr_foreground_undefined"] == 1
    assert by_motion["m0"]["psnr_undefined"] == len(views)
    assert by_motion["m5"]["psnr_foreground"] == pytest.approx(-20 * np.log10(off[5]), rel=1e-4)
    assert result["worst_motion"] == "m5"
    counts = {name: each["psnr_undefined"] for name, each in by_motion.items()}
    per_motion = len(views) * len(frames)
    total = sum(each["psnr"] * (per_motion - counts[name]) for name, each in by_motion.items())
    assert result["psnr"] == pytest.approx(total / (5 * per_motion - len(views)))
    write_json(result, tmp_path / "a.json")
    json.loads((tmp_path / "a.json").read_text(), parse_constant=pytest.fail)
    assert "non_finite" not in json.loads((tmp_path / "a.json").read_text())


def test_nothing_but_undefined_figures_is_none_and_still_json(dataset, seen, tmp_path):
    views, frames = views_in(dataset, "train"), held_out_frames(dataset, 5)
    result = run_score(dataset, truth_of(dataset, views, frames), views, frames, 3)
    assert result["psnr"] is result["psnr_foreground"] is result["worst_motion"] is None
    assert result["psnr_undefined"] == result["num_images"] == 5 * 2 * 2
    assert result["ssim"] == pytest.approx(1)
    assert find_worst({}) is None


@pytest.mark.parametrize("count", [2, 3, 5, 7, 0])
def test_fvd_sees_motions_and_views_evenly_and_says_which(dataset, monkeypatch, count):
    """The network is replaced: tests/metrics/test_fvd.py has it."""
    asked = []

    def features(videos):
        asked.append(np.asarray(videos))
        return np.asarray(videos).mean(axis=(1, 2, 3))

    monkeypatch.setattr(video_scores, "video_features", features)
    monkeypatch.setattr(evaluate, "track", lambda each, *_, **__: each)
    views = views_in(dataset, "test")
    player = Perfect(dataset, views)
    videos = video_scores.VideoScores(clip=None)
    played = list(evaluate._watch(player, dataset, views, 5, videos, count))
    assert [motion for motion, _ in played] == motions_in(dataset, "train").tolist()
    summary = videos.summary()
    first_frames = [label for pair in asked[1::2] for label in read_labels(pair[:, 0])]
    assert summary["fvd_videos"] == first_frames
    assert summary["num_fvd_videos"] == len(first_frames) == (count or 10)
    assert summary["num_videos"] == 10
    for axis, every in enumerate((motions_in(dataset, "train"), views)):
        hits = [sum(row[axis] == index for row in first_frames) for index in every]
        assert max(hits) - min(hits) <= 1


class Perfect:
    """A player whose pictures are the truth."""

    background = jnp.ones(3)

    def __init__(self, dataset, views):
        self.videos = dict(truth_of(dataset, views, np.arange(NUM_FRAMES)))

    def latent(self, motion):
        return motion

    def play(self, z, times):
        return type("Clip", (), dict(gaussians=z))

    def render(self, gaussians, cameras):
        rgb = self.videos[gaussians]
        return rgb, (rgb.min(axis=-1) < 1).astype(np.float32)


def test_means_of_fits_leave_out_what_is_undefined():
    rows = [
        dict(fitted_views=dict(psnr=20.0, psnr_undefined=0, psnr_foreground=None, psnr_foreground_undefined=4,
                               num_images=4), other_views=None),
        dict(fitted_views=dict(psnr=30.0, psnr_undefined=1, psnr_foreground=15.0, psnr_foreground_undefined=0,
                               num_images=4), other_views=None),
    ]  # fmt: skip
    assert mean_scores(rows) == dict(
        fitted_views=dict(psnr=25.0, psnr_undefined=1, psnr_foreground=15.0, psnr_foreground_undefined=4, num_images=8),
        other_views=None,
    )
