"""Ten thousand random scenes for every backend, most of them with something extreme in them.

Nothing may crash, be NaN or infinite, overflow unseen, or be dropped: where the float64 oracle draws something that can
be seen, so does the backend. Float32 bounds how well the rest can agree where a Gaussian is a thousand times longer
than wide; pixels that differ are counted.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import scenes

from dimo_jax.core.types import Camera, Gaussians
from dimo_jax.render import render
from dimo_jax.render.rasterize import api

NUM_CASES, CHUNK = 10_000, 25  # few at once: what an interpreted kernel takes grows with the square of a batch
HEIGHT, WIDTH, NUM = 17, 20, 8
# What may be put in the place of a Gaussian's number.
EXTREMES = {
    "means": (np.nan, np.inf, -np.inf, 0.0, 1e-30, 1e6, -1e15, 3e38),
    "log_scales": (np.nan, np.inf, -np.inf, -100.0, -12.0, 1.0, 5.0, 20.0, 60.0),
    "quats": (np.nan, np.inf, 0.0, 1e-30, 1e15, -1e-10),
    "logit_opacities": (np.nan, np.inf, -np.inf, -5.54, -5.5, 30.0, -90.0),
    "sh": (np.nan, -np.inf, 0.0, 1e6, -50.0),
}


@pytest.fixture(params=["xla", "native", "pallas"])
def backend(request):
    reason = api.why_unavailable(request.param)
    if reason is not None:
        pytest.skip(f"{request.param}: {reason}")
    return request.param


def make_case(seed: int) -> oracle.Scene:
    scene = scenes.make_scene(seed, height=HEIGHT, width=WIDTH, num=NUM, degree=0, opaque=seed % 3 == 0)
    rng = np.random.default_rng([seed, 1])
    for name, values in EXTREMES.items():
        array = scene.gaussians[name]
        places = rng.uniform(size=array.shape) < 0.04
        array[places] = rng.choice(values, size=int(places.sum()))
    return scene


@functools.partial(jax.jit, static_argnames="backend")
def render_chunk(gaussians, cameras, backgrounds, *, backend):
    def draw(gaussians, camera, background):
        return render(gaussians, camera, background, implementation=backend, capacity=8 * NUM * 2)

    def loss(gaussians, camera, background):
        images = draw(gaussians, camera, background)
        total = images.rgb.sum() + 0.5 * images.alpha.sum() + 0.1 * (images.depth.sum() + images.normal.sum())
        return total, images

    differentiate = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
    (_, images), gradients = jax.vmap(differentiate)(gaussians, cameras, backgrounds)
    return images, gradients


def is_comparable(case: oracle.Scene) -> bool:
    """Whether float32 can hold every conic: not that of a needle that ends beyond a thousand pictures away."""
    log_scales = case.gaussians["log_scales"]
    return not ((log_scales > 3) & (log_scales < np.log(1e12))).any()


def stack(cases: list[oracle.Scene]):
    gaussians = {name: np.stack([case.gaussians[name] for case in cases]) for name in oracle.FIELDS}
    cameras = {
        name: np.stack([getattr(case, name) for case in cases]) for name in ("world_to_camera", "focal", "center")
    }
    backgrounds = np.stack([case.background for case in cases])
    return Gaussians(**gaussians), Camera(**cameras, height=HEIGHT, width=WIDTH), jnp.asarray(backgrounds)


@functools.cache
def expected_chunk(first: int):
    """The oracle's rgb and alpha, and the pixels not to compare, of one chunk; shared by the backends."""
    cases = [make_case(first + i) for i in range(CHUNK)]
    found = [oracle.render(case) for case in cases]
    comparable = np.array([is_comparable(case) for case in cases])
    return (
        np.stack([images["rgb"] for images, _ in found]),
        np.stack([images["alpha"] for images, _ in found]),
        np.stack([at_jump for _, at_jump in found]) | ~comparable[:, None, None],
    )


@pytest.mark.slow
def test_ten_thousand_cases(backend):
    drawn = differing = compared = pixels = 0
    for first in range(0, NUM_CASES, CHUNK):
        images, gradients = render_chunk(*stack([make_case(first + i) for i in range(CHUNK)]), backend=backend)
        assert not np.asarray(images.overflow).any()
        for leaf in jax.tree.leaves((images, gradients)):
            assert np.isfinite(np.asarray(leaf)).all()
        alpha = np.asarray(images.alpha)
        assert alpha.min() >= 0
        assert alpha.max() <= 1
        rgb, expected, ignored = expected_chunk(first)
        seen = (expected > 0.02) & ~ignored
        assert (alpha[seen] > 0).all(), f"case {first + int(np.argwhere(seen & (alpha == 0))[0, 0])}: dropped"
        assert (alpha[(expected == 0) & ~ignored] == 0).all(), "something is drawn that is not there"
        error = np.maximum(
            np.abs(alpha - expected), np.abs(images.rgb - rgb).max(-1) / np.maximum(1, np.abs(rgb).max(-1))
        )
        differing += int(((error > 1e-3) & ~ignored).sum())
        drawn += int(seen.sum())
        pixels += seen.size
        compared += int((~ignored).sum())
    assert compared > 0.5 * pixels
    assert drawn > 0.2 * pixels, "most of the pictures must show something"
    assert differing < 2e-4 * compared
