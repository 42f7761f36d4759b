"""The presets for GPUs, with all their terms and variants, made small enough for a test."""

import math

import jax
import numpy as np
import pytest

from dimo_jax.configs.dimo import get_config
from dimo_jax.data.sources import load
from dimo_jax.runs.build import build_system
from dimo_jax.systems.dimo import stages
from dimo_jax.systems.dimo.estimate import estimate_hours
from dimo_jax.training.loop import fit

pytestmark = pytest.mark.usefixtures("quick_compile")


def make_small(preset):
    config = get_config(preset)
    config.data.source.update(num_motions=2, num_frames=6, size=32, num_train_views=3, num_test_views=1)
    config.batch = dict(motions=2, views=1, frames=2)
    config.decoder.width = 16
    if "head_width" in config.decoder:
        config.decoder.head_width = 16
    config.num_key_points = 16
    config.stage1.update(num_steps=3, capacity=48, num_points=32, densify_from=1, densify_every=1, anneal_every=2)
    config.stage2.update(num_steps=3, num_per_key_point=4, prune_every=2, refresh_every=2)
    config.stage1.phases = config.stage2.phases = ((0, 32),)
    config.stage3.num_steps = 0
    config.stage2.losses.depth.start = config.stage2.losses.normal.start = 1
    for stage in (config.stage1, config.stage2):
        stage.losses.lpips.update(network="alex", num_images=1)  # VGG compiles for a minute; tests/losses tries it
    config.log_every = 1
    return config


def check_that_everything_moved(config, trained):
    """What learns is not where it began: where its gradient or its rate is lost, it stays to the bit."""
    size = dict(num_motions=2, num_frames=6)
    begun = stages.begin_first(config, trained.system.components, **size, key=jax.random.key(config.seed)).params
    ended = trained.state.params
    assert np.all(np.abs(ended.latents.mu - begun.latents.mu).max(axis=1) > 1e-3)
    spread = np.abs(ended.latents.log_sigma - begun.latents.log_sigma).max()
    assert (spread > 1e-3) == ("reparameterize" in config.latent.fn)  # a plain code has none
    for (path, old), new in zip(jax.tree.leaves_with_path(begun.decoder), jax.tree.leaves(ended.decoder), strict=True):
        assert np.abs(new - old).max() > 1e-5, path
    # The second stage begins with round Gaussians of one opacity and rotation, and one colour around each key point.
    gaussians, count = ended.gaussians, config.stage2.num_per_key_point
    assert np.ptp(gaussians.logit_opacities) > 1e-2
    assert np.ptp(gaussians.log_scales, axis=1).max() > 1e-3
    assert np.abs(gaussians.quats - np.asarray([1, 0, 0, 0])).max() > 1e-3
    assert np.ptp(np.asarray(gaussians.sh).reshape(-1, count, 3), axis=1).max() > 1e-3
    assert np.ptp(ended.key_points.log_radii) > 0


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["paper", "official"])
def test_both_stages_run_with_every_term(preset, watcher, tmp_path, monkeypatch):
    monkeypatch.setenv("DIMO_JAX_CACHE", str(tmp_path))
    config = make_small(preset)
    dataset = load(config.data)
    trained = fit(config, build_system(config, dataset), dataset, watcher, watcher)
    assert int(trained.state.step) == 6
    terms = {stage: {name for s, row in watcher.rows if s == stage for name in row} for stage in ("stage1", "stage2")}
    common = {"loss/rgb", "loss/mask", "loss/ssim", "loss/lpips", "loss/arap"}
    common |= {"loss/kl"} if preset == "paper" else set()
    assert {name for name in terms["stage1"] if name.startswith("loss/")} == common
    assert {name for name in terms["stage2"] if name.startswith("loss/")} == common | {
        "loss/depth",
        "loss/normal",
        "loss/chamfer",
    }
    rows = [row for _, row in watcher.rows]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert rows[-1]["loss/depth"] > 0
    check_that_everything_moved(config, trained)


def test_hours_are_estimated_from_a_measured_step(tmp_path, monkeypatch):
    monkeypatch.setenv("DIMO_JAX_CACHE", str(tmp_path))
    config = make_small("demo")
    config.stage1.phases = config.stage2.phases = ((0, 16), (1, 32))
    seconds, hours = estimate_hours(config, load(config.data))
    # Of each stage's three steps one has the measured size and two have four times its pixels.
    assert hours * 3600 == pytest.approx(2 * (1 + 2 * 4) * seconds)
    assert seconds > 0
