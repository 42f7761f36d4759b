"""Forward-mode derivatives of `xla` against its reverse mode, through every way of mapping; others say so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.types import Gaussians
from dimo_jax.render import render


def make_gaussians(num=40, seed=0):
    rng = np.random.default_rng(seed)
    shapes = dict(means=(num, 3), log_scales=(num, 3), quats=(num, 4), logit_opacities=(num,), sh=(num, 4, 3))
    drawn = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    drawn |= dict(means=0.2 * drawn["means"], log_scales=0.3 * drawn["log_scales"] - 3.0, sh=0.3 * drawn["sh"])
    return Gaussians(**drawn)


CAMERA = jax.tree.map(lambda x: jnp.asarray(x)[0], orbit([30.0], 10, radius=2.0, fov_deg=33.9, height=20, width=24))


def see(gaussians, implementation="xla"):
    """rgb, depth and normal as one picture [20,24,7], so that every feature has a part."""
    seen = render(gaussians, CAMERA, jnp.zeros(3), implementation=implementation, capacity=4_096)
    return jnp.concatenate([seen.rgb, seen.depth[..., None], seen.normal], axis=-1)


def inner(a, b):
    return sum(float(jnp.sum(x * y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_pushing_forward_is_the_transpose_of_pulling_back():
    gaussians, direction = make_gaussians(), make_gaussians(seed=1)
    picture, tangent = jax.jit(lambda g, d: jax.jvp(see, (g,), (d,)))(gaussians, direction)
    np.testing.assert_allclose(picture, jax.jit(see)(gaussians), atol=1e-5)
    cotangent = jnp.asarray(np.random.default_rng(2).normal(size=picture.shape), jnp.float32)
    pulled = jax.jit(jax.grad(lambda g: jnp.sum(see(g) * cotangent)))(gaussians)
    pushed = float(jnp.sum(tangent * cotangent))
    assert abs(pushed) > 1.0
    np.testing.assert_allclose(inner(pulled, direction), pushed, rtol=1e-3)


def test_forward_mode_composes_with_vmap_in_either_order():
    several = jax.tree.map(lambda a, b: jnp.stack([a, b]), make_gaussians(), make_gaussians(seed=3))
    direction = jax.tree.map(lambda x: 0.5 * x + 0.1, several)
    inside = jax.jit(lambda g, d: jax.jvp(jax.vmap(see), (g,), (d,))[1])(several, direction)
    outside = jax.jit(jax.vmap(lambda g, d: jax.jvp(see, (g,), (d,))[1]))(several, direction)
    alone = jax.jit(lambda g, d: jax.jvp(see, (g,), (d,))[1])
    apart = jnp.stack([alone(*jax.tree.map(lambda x, i=i: x[i], (several, direction))) for i in range(2)])
    scale = float(jnp.abs(apart).max())
    assert scale > 0.1
    np.testing.assert_allclose(inside, apart, atol=1e-5 * scale)
    np.testing.assert_allclose(outside, apart, atol=1e-5 * scale)


@pytest.mark.parametrize("implementation", ["pallas", "native"])
def test_a_backend_without_forward_mode_says_so(implementation):
    gaussians = make_gaussians(num=3)
    with pytest.raises((TypeError, NotImplementedError), match=r"reverse mode only|custom_vjp|jvp"):
        jax.jvp(lambda g: see(g, implementation), (gaussians,), (gaussians,))
