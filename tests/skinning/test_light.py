"""Canonical Gaussians where a motion puts them: what their colours do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimo_jax.core.types import Gaussians
from dimo_jax.geometry import harmonics, quaternion
from dimo_jax.skinning.posing import pose, rest

LIGHT = np.array([0.3, -1.2, 0.5])


def make(shape, *, degree, seed=0):
    """Gaussians [*shape,7] at random."""
    rng = np.random.default_rng(seed)
    sizes = dict(means=(3,), log_scales=(3,), quats=(4,), logit_opacities=(), sh=((degree + 1) ** 2, 3))
    return Gaussians(**{n: jnp.asarray(rng.normal(size=(*shape, 7, *s)), jnp.float32) for n, s in sizes.items()})


def draw_quats(shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(*shape, 7, 4)), jnp.float32)


def to_rotation(quats):
    return Rotation.from_quat(np.asarray(quats, np.float64).reshape(-1, 4), scalar_first=True)


@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 2)])
def test_a_light_shows_what_turns_towards_it(shape):
    canonical, quats = make(shape, degree=1), draw_quats(shape)
    lit = pose(canonical, canonical.means + 1, quats, light=jnp.asarray(LIGHT, jnp.float32))
    assert lit.sh.shape == (*shape, 7, 1, 3)
    turned = to_rotation(quats) * to_rotation(canonical.quats).inv()
    x, y, z = turned.inv().apply(LIGHT / np.linalg.norm(LIGHT)).T
    sh = np.asarray(canonical.sh, np.float64).reshape(-1, 4, 3)
    first = np.sqrt(3 / (4 * np.pi)) * np.stack([-y, z, -x], axis=-1)
    colors = harmonics.DEGREE0 * sh[:, 0] + np.einsum("nb,nbc->nc", first, sh[:, 1:])
    np.testing.assert_allclose(harmonics.DEGREE0 * np.asarray(lit.sh).reshape(-1, 3), colors, atol=2e-6)


def test_body_and_light_that_turn_together_keep_their_colours():
    canonical, quats = make((), degree=1), draw_quats(())
    whole = jnp.asarray([0.3, -0.5, 0.7, 0.2])
    light = jnp.asarray(LIGHT, jnp.float32)
    before = pose(canonical, canonical.means, quats, light=light).sh
    turned = quaternion.rotate(quaternion.normalize(whole), light)
    after = pose(canonical, canonical.means, quaternion.multiply(whole, quats), light=turned).sh
    np.testing.assert_allclose(after, before, atol=1e-5)
    still = pose(canonical, canonical.means, quaternion.multiply(whole, quats), light=light).sh
    assert np.abs(still - before).max() > 0.1


def test_neither_lengths_nor_signs_of_what_is_a_direction_count():
    canonical, quats = make((), degree=1), draw_quats(())
    light = jnp.asarray(LIGHT, jnp.float32)
    lit = pose(canonical, canonical.means, quats, light=light).sh
    same = pose(canonical, canonical.means, -3 * quats, light=5 * light).sh
    np.testing.assert_allclose(same, lit, atol=1e-5)


def test_at_rest_is_the_motion_that_does_nothing():
    canonical = make((), degree=1)
    light = jnp.asarray(LIGHT, jnp.float32)
    still = rest(canonical, light)
    np.testing.assert_array_equal(still.sh, pose(canonical, canonical.means, canonical.quats, light=light).sh)
    np.testing.assert_array_equal(still.means, canonical.means)
    assert rest(canonical, None) is canonical


def test_the_light_is_learnt_where_colours_tell_it():
    canonical, quats = make((), degree=1), draw_quats(())

    def loss(light):
        seen = pose(canonical, canonical.means, quats, light=light).sh
        return jnp.mean((seen - pose(canonical, canonical.means, quats, light=jnp.asarray(LIGHT)).sh) ** 2)

    light = jnp.asarray([0.0, -1.0, 0.0])
    for _ in range(200):
        light = light - 0.3 * jax.grad(loss)(light)
    np.testing.assert_allclose(light / jnp.linalg.norm(light), LIGHT / np.linalg.norm(LIGHT), atol=0.02)
