"""Exports in the user's world: what a user's own cameras see of them is what the model's cameras see of the model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.made_motion import as_jax, make_motion

from dimo_jax.cameras.orbits import orbit
from dimo_jax.cameras.upright import turn_to_y
from dimo_jax.data.world import place_cameras
from dimo_jax.geometry import quaternion, rotations
from dimo_jax.geometry.harmonics import evaluate, rotate
from dimo_jax.geometry.world import World
from dimo_jax.io.motion import skin_points
from dimo_jax.io.place import place_gaussians, place_motion
from dimo_jax.render import render
from dimo_jax.skinning.weights import rbf_weights, rbf_weights_authors

AWAY = World(0.02, np.array([30.0, -20.0, 100.0]), turn_to_y(np.array([0.48, -0.6, 0.64])))


def random_rotations():
    rng = np.random.default_rng(3)
    quats = rng.normal(size=(6, 4))
    return [np.asarray(quaternion.to_matrix(jnp.asarray(q / np.linalg.norm(q), jnp.float32)), float) for q in quats]


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_users_cameras_see_the_same_picture(degree):
    motion = make_motion(degree=degree, num=20)
    gaussians = as_jax(jax.tree.map(lambda x: x[:-2], motion.canonical)).replace(
        means=0.2 * motion.canonical.means[:-2]
    )
    camera = orbit([35.0], 20.0, radius=2.0, fov_deg=40, height=32, width=32)
    away = place_cameras(camera, AWAY.inverse())
    one = [jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[0], jnp.float32), each) for each in (camera, away)]
    placed = as_jax(place_gaussians(gaussians, AWAY))
    white = jnp.ones(3)
    before = render(gaussians, one[0], white, implementation="xla")
    after = render(placed, one[1], white, implementation="xla")
    assert float(jnp.max(1 - before.rgb)) > 0.2
    np.testing.assert_allclose(after.rgb, before.rgb, atol=2e-3)
    if degree:
        unturned = render(placed.replace(sh=gaussians.sh), one[1], white, implementation="xla")
        assert float(jnp.abs(unturned.rgb - before.rgb).max()) > 0.05


def test_colours_turn_with_what_they_colour():
    rng = np.random.default_rng(0)
    sh, directions = rng.normal(size=(16, 3)), rng.normal(size=(20, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for rotation in random_rotations():
        turned = rotate(jnp.asarray(sh, jnp.float32), jnp.asarray(rotations.from_matrix(rotation), jnp.float32))
        found = evaluate(jnp.asarray(turned, jnp.float32), jnp.asarray(directions @ rotation.T, jnp.float32))
        np.testing.assert_allclose(found, evaluate(jnp.asarray(sh, jnp.float32), jnp.asarray(directions)), atol=1e-5)
        quat = rotations.from_matrix(rotation)
        np.testing.assert_allclose(quaternion.to_matrix(jnp.asarray(quat, jnp.float32)), rotation, atol=1e-6)


def test_a_motion_is_skinned_where_it_stands():
    motion = make_motion()
    placed = place_motion(motion, AWAY)
    keep = np.isfinite(motion.canonical.means).all(axis=1)
    for each in (motion, placed):
        skinned = skin_points(each, each.neighbors, each.weights)
        np.testing.assert_allclose(
            skinned[:, keep], each.means[:, keep], rtol=1e-4, atol=2e-2 if each is placed else 1e-4
        )
    np.testing.assert_allclose(AWAY.apply(placed.means[:, keep]), motion.means[:, keep], atol=1e-4)
    np.testing.assert_allclose(AWAY.apply(placed.tracks), motion.tracks, atol=1e-4)
    assert place_motion(motion, World()) is motion


@pytest.mark.parametrize(("weights", "power"), [(rbf_weights, 2.0), (rbf_weights_authors, 1.0)])
def test_control_radii_keep_the_weights(weights, power):
    motion = dataclasses.replace(make_motion(), radii=np.linspace(0.5, 1.5, 10).astype(np.float32))
    placed = place_motion(motion, World(0.01))
    found = [
        weights(
            jnp.asarray(each.canonical.means[:5]),
            jnp.asarray(each.rest[each.neighbors[:5]]),
            power * jnp.log(jnp.asarray(each.radii[each.neighbors[:5]])),
        )
        for each in (motion, placed)
    ]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3)


def test_gltf_files_stay_upright():
    world = World(0.1, np.array([1.0, 2.0, 3.0]), turn_to_y(np.array([0.0, 0, 1])))  # of a user with +Z up
    top = np.array([[0.0, 1.0, 0.0]])  # of the model
    x, y, z = world.undo(top)[0]
    np.testing.assert_allclose(world.upright().undo(top)[0], [x, z, -y])  # what Blender's reader turns back to x, y, z
