"""Gaussians that find no room are missed by nobody: who chose no capacity is warned, however the call is mapped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.types import Gaussians
from dimo_jax.render import first_capacity, render, tiles

CAMERA = jax.tree.map(lambda x: jnp.asarray(x)[0], orbit([0.0], 0, radius=2.0, fov_deg=33.9, height=128, width=128))
NUM = 300  # each over all of the 256 tiles of 8 pixels: 76,800 pairs, of 65,536 that are assumed


def make_gaussians(log_scale=0.0):
    means = jnp.asarray(np.random.default_rng(0).uniform(-0.1, 0.1, size=(NUM, 3)), jnp.float32)
    return Gaussians(
        means=means,
        log_scales=jnp.full((NUM, 3), log_scale),
        quats=jnp.tile(jnp.asarray([1.0, 0, 0, 0]), (NUM, 1)),
        logit_opacities=jnp.full(NUM, -3.0),
        sh=jnp.zeros((NUM, 1, 3)),
    )


def draw(gaussians, capacity=None):
    return render(gaussians, CAMERA, jnp.ones(3), implementation="xla", capacity=capacity)


MAPPED = {
    "jit": lambda g: draw(g).rgb,
    "grad": jax.grad(lambda g: jnp.sum(draw(g).rgb)),
    "vmap of grad": lambda g: jax.vmap(jax.grad(lambda g: jnp.sum(draw(g).rgb)))(jax.tree.map(lambda x: x[None], g)),
}


@pytest.mark.parametrize("how", MAPPED)
def test_a_picture_that_lacks_gaussians_is_said_on_the_host(how, caplog, monkeypatch):
    monkeypatch.setattr("absl.logging.log_every_n_seconds", lambda level, message, _, *a: said.append(message % a))
    said = []
    call = jax.jit(MAPPED[how])
    jax.block_until_ready(call(make_gaussians(log_scale=-5.0)))  # of a few tiles each
    jax.effects_barrier()
    assert said == []
    jax.block_until_ready(call(make_gaussians()))
    jax.effects_barrier()
    assert len(said) == 1
    missing = 256 * NUM - tiles.default_capacity(NUM, 256)
    assert said[0].startswith(f"render: {missing} Gaussian-tile pairs found no room among 65536")


def test_the_warning_reaches_the_log(caplog):
    with caplog.at_level("WARNING"):
        jax.block_until_ready(jax.jit(draw)(make_gaussians()))
        jax.effects_barrier()
    assert "found no room" in caplog.text


def test_who_chooses_a_capacity_looks_at_overflow():
    with_capacity = jax.make_jaxpr(lambda g: draw(g, capacity=1_000))(make_gaussians())
    assert "debug_callback" in str(jax.make_jaxpr(draw)(make_gaussians()))
    assert "debug_callback" not in str(with_capacity)  # so it can be cached, and exported
    assert int(jax.jit(lambda g: draw(g, capacity=1_000))(make_gaussians()).overflow) == 256 * NUM - 1_000
    assert first_capacity(NUM, "xla") == 65_536
    assert first_capacity(100_000, "pallas") == 800_000


def test_a_picture_that_is_not_traced_is_whole():
    assert int(draw(make_gaussians()).overflow) == 0
