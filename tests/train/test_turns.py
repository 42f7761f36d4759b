"""Turns of the whole body: found in pictures whose turns are known, and the guides that pull towards them."""

import dataclasses
import functools
import itertools
import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from configs.dimo import get_config
from dimo_jax.data.cameras import orbit
from dimo_jax.data.dataset import Dataset, train_frames
from dimo_jax.data.sampler import Sampler
from dimo_jax.errors import UserError
from dimo_jax.geometry import quaternion
from dimo_jax.losses import motion
from dimo_jax.losses.total import build_terms, evaluate
from dimo_jax.model.dimo import build_components, decode_trajectories, move_points
from dimo_jax.model.gaussians import mask_dead
from dimo_jax.render import render
from dimo_jax.train import stages, turns
from dimo_jax.train.step import build_step
from dimo_jax.types import Turns

NUM_FRAMES, SIZE = 8, 24
TRUE_ANGLES = np.deg2rad([0, 30, 60, 120, 180, 240, 300, 360])
WALK = np.array([0.15, 0.0, -0.1])  # of the body over the whole video


def make_config():
    config = get_config("smoke")
    config.turns.update(size=SIZE, num_angles=12)
    return config


@pytest.fixture(scope="module")
def scene():
    """A motionless model, and pictures of it: motion "turning" turns and walks, "resting" does neither."""
    config = make_config()
    components = build_components(config)
    stage = stages.build_stages(config)[0]
    state = stages.begin_first(config, components, num_motions=3, num_frames=NUM_FRAMES, key=jax.random.key(0))
    rng = np.random.default_rng(0)
    points = state.params.gaussians
    points = points.replace(
        means=jnp.asarray(rng.normal(size=points.means.shape) * [0.2, 0.2, 0.1], jnp.float32),
        logit_opacities=jnp.full_like(points.logit_opacities, 2.0),
        log_scales=jnp.full_like(points.log_scales, np.log(0.08)),
        sh=jnp.asarray(rng.uniform(-1.5, 1.5, size=points.sh.shape), jnp.float32),
    )
    state = state.replace(params=state.params.replace(gaussians=points))
    cameras = orbit((0, 120, 240), 0, radius=2.0, fov_deg=33.9, height=SIZE, width=SIZE)
    shown = mask_dead(points, state.alive)
    center = np.asarray(points.means)[np.asarray(state.alive)].mean(axis=0)

    @jax.jit
    def see(means, world_to_camera):
        camera = jax.tree.map(lambda x: x[0], cameras).replace(world_to_camera=world_to_camera)
        drawn = render(shown.replace(means=means), camera, jnp.zeros(3))
        alpha = jnp.maximum(drawn.alpha, 1e-6)[..., None]
        return jnp.rint(255 * jnp.concatenate([drawn.rgb / alpha, alpha], axis=-1)).astype(jnp.uint8)

    def film(angles, walk):
        for angle, way in zip(angles, np.linspace(0, 1, NUM_FRAMES)):
            turned = Rotation.from_rotvec([0, angle, 0]).apply(np.asarray(points.means) - center) + center + way * walk
            yield np.stack([see(jnp.float32(turned), view) for view in cameras.world_to_camera])

    turning = np.stack(list(film(TRUE_ANGLES, WALK)), axis=1)
    resting = np.stack(list(film(np.zeros(NUM_FRAMES), 0 * WALK)), axis=1)
    names, views = ("turning", "resting", "unseen"), ("a", "b", "c")
    split = ("train", "train", "test")
    frames = np.stack([turning, resting, turning])
    dataset = Dataset(frames, cameras, names, names, split, views, ("train",) * 3, 12.0, "cloud")
    # The model stands still, but its bodies have to be looked for where the pictures have them.
    walking = functools.partial(walk_along, dataset.times)
    return config, components, stage, state, dataset, walking


def walk_along(times, components, params, neighbors, z, time, *, walks):
    """Moves as the first stage does, and with `walks` all points along the true way."""
    moved = move_points(components, params, neighbors, z, time)
    shift = walks * jnp.asarray(WALK, jnp.float32) * time / times[-1]
    return moved.replace(gaussians=moved.gaussians.replace(means=moved.gaussians.means + shift))


def find(scene, *, walks=1.0, held_out_every=0, **options):
    _, components, stage, state, dataset, walking = scene
    step_options = dataclasses.replace(stage.options, move=functools.partial(walking, walks=walks))
    return turns.find_turns(
        state, components, step_options, dataset, held_out_every=held_out_every, size=SIZE, num_angles=12, **options
    )


def test_turns_are_found_where_the_body_turns_and_walks(scene):
    found = find(scene)
    np.testing.assert_array_equal(found.found, [1, 0, 0])
    np.testing.assert_allclose(found.angles[0], TRUE_ANGLES, atol=1e-5)


def test_frames_that_do_not_train_are_not_looked_at(scene):
    """Their angles lie between those of their neighbours."""
    *others, dataset, walking = scene
    frames = dataset.frames.copy()
    seen = train_frames(dataset, 3)
    hidden = np.setdiff1d(np.arange(NUM_FRAMES), seen)
    assert len(hidden) > 1
    frames[:, :, hidden] = 0
    found = find((*others, dataclasses.replace(dataset, frames=frames), walking), held_out_every=3)
    np.testing.assert_allclose(found.angles[0, seen], TRUE_ANGLES[seen], atol=1e-5)
    between = (TRUE_ANGLES[hidden - 1] + TRUE_ANGLES[hidden + 1]) / 2
    np.testing.assert_allclose(found.angles[0, hidden], between, atol=1e-5)


def test_small_turns_are_left_to_descent(scene):
    assert find(scene, least_angle=370.0).found[0] == 0
    assert find(scene, largest_cost=0.0).found[0] == 0


def test_a_model_that_does_not_know_the_front_finds_nothing(scene):
    """Its points stand turned by a right angle to the first frame."""
    *others, state, dataset, walking = scene
    points = state.params.gaussians
    center = points.means[state.alive].mean(axis=0)
    turned = quaternion.rotate(motion.about_vertical(jnp.asarray([np.pi / 2])), points.means - center) + center
    state = state.replace(params=state.params.replace(gaussians=points.replace(means=turned)))
    np.testing.assert_array_equal(find((*others, state, dataset, walking)).found, 0)


def test_pictures_without_room_are_named(scene, caplog):
    _, components, stage, state, dataset, _ = scene
    with caplog.at_level("WARNING"):
        for capacity in (4096, 16):
            options = dataclasses.replace(stage.options, implementation="xla", capacity=capacity)
            turns.find_turns(state, components, options, dataset, held_out_every=0, size=SIZE, num_angles=12)
    (said,) = [record.getMessage() for record in caplog.records if "no room" in record.getMessage()]
    assert int(said.split(":")[1].split()[0]) > 0


def price_of(path, costs, frames, stiffness):
    """Of a path of indices, written out as `follow` says it."""
    num_angles, total = costs.shape[1], costs[0, path[0]] + (np.inf if path[0] else 0)
    for t in range(1, len(path)):
        apart = min((path[t] - path[t - 1]) % num_angles, (path[t - 1] - path[t]) % num_angles) * 360 / num_angles
        total += costs[t, path[t]] + stiffness * np.median(costs) * (apart / 15) ** 2 / (frames[t] - frames[t - 1])
    return total


@pytest.mark.parametrize("stiffness", [0.0, 0.003, 0.03])
@pytest.mark.parametrize("seed", range(3))
def test_follow_finds_the_cheapest_of_all_paths(seed, stiffness):
    costs = np.random.default_rng(seed).uniform(size=(4, 7))
    frames = np.array([0, 1, 3, 4])
    best = min(itertools.product(range(7), repeat=4), key=lambda path: price_of(path, costs, frames, stiffness))
    path = turns.follow(costs, frames, stiffness=stiffness)
    np.testing.assert_array_equal(np.round(path * 7 / (2 * np.pi)).astype(int) % 7, best)
    assert np.all(np.abs(np.diff(path)) <= np.pi + 1e-6)


def test_follow_counts_on_beyond_a_whole_turn():
    angles = np.arange(0, 15) * 2
    costs = np.ones((15, 12))
    costs[np.arange(15), angles % 12] = 0
    np.testing.assert_allclose(turns.follow(costs, np.arange(15)), np.deg2rad(30) * angles)
    np.testing.assert_allclose(turns.follow(costs[:, -np.arange(12)], np.arange(15)), -np.deg2rad(30) * angles)


def test_relative_cost_looks_at_turned_frames_alone():
    costs = np.array([[1.0, 9, 9, 9], [4.0, 2, 9, 9], [6.0, 9, 3, 9]])
    assert turns.relative_cost(costs, np.deg2rad([0, 90, 180])) == 0.5
    assert turns.relative_cost(costs, np.deg2rad([0, -270, 180])) == 0.5
    assert turns.relative_cost(costs, np.deg2rad([0, -270, -360])) == 0.5
    assert turns.relative_cost(costs, np.zeros(3)) == 1.0


def test_notes_hold_turns_to_the_last_bit():
    before = Turns(angles=jax.random.normal(jax.random.key(0), (2, 3)), found=jnp.asarray([1.0, 0.0]))
    after = turns.from_notes(json.loads(json.dumps(turns.to_notes(before))))
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("angle", [0.0, 1.0, -2.5, 7.0])
def test_turn_is_zero_for_the_turned_pose_and_grows_beside_it(angle):
    rng = np.random.default_rng(1)
    canonical = rng.normal(size=(6, 3))
    alive = np.array([True] * 5 + [False])
    rotation = Rotation.from_rotvec([0, angle, 0])
    turned = rotation.apply(canonical) + [3, -1, 2]
    turned[5] = 99  # not alive
    pose = [jnp.float32(turned), jnp.float32(canonical), jnp.asarray(alive)]
    assert motion.turn(*pose, jnp.float32(angle)) < 1e-8
    rest = canonical[:5] - canonical[:5].mean(axis=0)
    other = Rotation.from_rotvec([0, angle + 0.5, 0])
    expected = np.mean(np.sum((rotation.apply(rest) - other.apply(rest)) ** 2, axis=-1))
    np.testing.assert_allclose(motion.turn(*pose, jnp.float32(angle + 0.5)), expected, rtol=1e-4)
    gradient = jax.grad(motion.turn, argnums=(0, 1))(*pose, jnp.float32(angle + 0.5))
    assert float(jnp.abs(gradient[0][:5]).max()) > 0
    assert not gradient[0][5].any()
    assert not gradient[1].any()


def test_embedded_is_the_rigid_energy_at_the_best_rotations():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 7, 3))
    edges = np.array([rng.permutation(7)[:4] for _ in range(7)])
    weights = rng.uniform(0.1, 1.0, size=(7, 4))
    weights[edges == np.arange(7)[:, None]] = 0
    best = [
        Rotation.align_vectors(b[edges[k]] - b[k], a[edges[k]] - a[k], weights=weights[k] + 1e-12)[0] for k in range(7)
    ]
    quats = np.stack([rotation.as_quat(scalar_first=True) for rotation in best])
    graph = [jnp.float32(a), jnp.float32(b)]
    rest = [jnp.asarray(edges), jnp.float32(weights)]
    expected = motion.arap_rigid(*graph, *rest, reduction="mean")
    np.testing.assert_allclose(motion.embedded(*graph, jnp.float32(-2 * quats), *rest), expected, rtol=1e-4)
    others = jnp.float32(quats + 0.1 * rng.normal(size=quats.shape))
    assert motion.embedded(*graph, others, *rest) > expected


class Opacities(NamedTuple):
    """What the term `opacity` looks at."""

    opacities: jax.Array


def test_a_term_fades_between_its_start_and_its_stop():
    spec = dict(fn="dimo_jax.losses.terms:opacity", weight=3.0, start=10, stop=20)
    terms = build_terms({"opacity": spec}, key="stage1.losses")
    weigh = jax.jit(lambda step: evaluate(terms, Opacities(jnp.ones(4)), step))

    def weighed(step):
        total, values = weigh(jnp.asarray(step))
        return float(total), float(values["opacity"])

    assert [weighed(step) for step in (0, 9, 10, 15, 19, 20, 99)] == [
        (0.0, 0.0), (0.0, 0.0), (3.0, 1.0), (1.5, 1.0), (pytest.approx(0.3), 1.0), (0.0, 0.0), (0.0, 0.0),
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"config.stage1.losses.opacity.stop: found 10, expected more than its start"):
        build_terms({"opacity": {**spec, "stop": 10}}, key="stage1.losses")


def test_guided_steps_turn_the_body(scene):
    """By the guides alone, no pictures: the points turn as they are told, and their rotations follow them."""
    config = make_config()
    for name, term in config.stage1.losses.items():
        term.weight = {"turn": 1_000.0, "rotations": 1_000.0}.get(name, 0.0)
        if term.weight:
            term.start = 0
    config.stage1.losses.turn.stop = None
    components, stage = build_components(config), stages.build_stages(config)[0]
    state, dataset = scene[3], scene[4]
    state = state.replace(optimizer=stage.options.optimizer.init(state.params))
    known = Turns(
        angles=jnp.stack([jnp.asarray(TRUE_ANGLES), *jnp.zeros((2, NUM_FRAMES))]), found=jnp.asarray([1.0, 0.0, 0.0])
    )
    sampler = Sampler(dataset, batch_motions=2, batch_views=1, batch_frames=NUM_FRAMES, held_out_every=0)
    step = jax.jit(build_step(components, stage.options))
    seen = []
    for i in range(160):
        state, metrics = step(state, sampler.sample(i), {"turns": known}, jax.random.key(1))
        seen.append({name: float(value) for name, value in metrics.terms.items()})
    assert set(seen[0]) == {"turn", "rotations"}
    assert seen[-1]["turn"] < 0.05 * seen[0]["turn"]
    times = stages.frame_times(NUM_FRAMES)
    z, points = state.params.latents.mu[0], state.params.gaussians.means[state.alive]
    _, rotations = decode_trajectories(components, state.params, z, points, times)
    told = motion.about_vertical(jnp.asarray(TRUE_ANGLES))[:, None]
    agreement = jnp.abs(jnp.sum(quaternion.normalize(rotations) * told, axis=-1))  # cosine of half the angle between
    assert float(jnp.mean(agreement)) > 0.95
    assert np.mean(np.abs(np.cos(TRUE_ANGLES / 2))) < 0.75  # of rotations that were never told
