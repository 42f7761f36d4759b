"""Turns of the whole body: found in pictures whose turns are known, and the guides that pull towards them."""

import dataclasses
import itertools
import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dimo_jax.cameras.orbits import orbit
from dimo_jax.configs.dimo import get_config
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import LitParams, Turns
from dimo_jax.data.dataset import Dataset, train_frames
from dimo_jax.data.sampler import Sampler
from dimo_jax.geometry import quaternion
from dimo_jax.losses import rigidity
from dimo_jax.losses.total import build_terms, evaluate
from dimo_jax.render import render
from dimo_jax.skinning.posing import pose
from dimo_jax.systems.dimo import stages, terms, turns
from dimo_jax.systems.dimo.model import build_components, decode_trajectories
from dimo_jax.systems.dimo.step import build_step
from dimo_jax.training.gaussians import mask_dead

NUM_FRAMES, SIZE = 8, 24
TRUE_ANGLES = np.deg2rad([0, 30, 60, 120, 180, 240, 300, 360])


def about_vertical(angles):
    return Rotation.from_rotvec(np.outer(angles, [0, 1, 0]))


FALLEN = Rotation.from_euler("YX", [[90, -90]] * 3 + [[180, -90]] * 2, degrees=True)  # turned about Y when on its back
LYING = Rotation.concatenate([about_vertical([0, 0, np.pi / 6]), FALLEN])
WALK = np.array([0.15, 0.0, -0.1])  # of the body over the whole video


def make_config():
    config = get_config("smoke")
    config.turns.update(size=SIZE, num_angles=12)
    return config


@pytest.fixture(scope="module")
def scene():
    """A body, and pictures of it: motion "turning" turns and walks, "lying" falls and rolls, "resting" does neither."""
    config = make_config()
    components = build_components(config)
    stage = stages.build_stages(config)[0]
    state = stages.begin_first(config, components, num_motions=4, num_frames=NUM_FRAMES, key=jax.random.key(0))
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

    def film(rotations, walk):
        for rotation, way in zip(rotations, np.linspace(0, 1, NUM_FRAMES)):
            turned = rotation.apply(np.asarray(points.means) - center) + center + way * walk
            yield np.stack([see(jnp.float32(turned), view) for view in cameras.world_to_camera])

    turning = np.stack(list(film(about_vertical(TRUE_ANGLES), WALK)), axis=1)
    lying = np.stack(list(film(LYING, 0 * WALK)), axis=1)
    resting = np.stack(list(film(about_vertical(np.zeros(NUM_FRAMES)), 0 * WALK)), axis=1)
    names, views = ("turning", "resting", "unseen", "lying"), ("a", "b", "c")
    split = ("train", "train", "test", "train")
    frames = np.stack([turning, resting, turning, lying])
    dataset = Dataset(frames, cameras, names, names, split, views, ("train",) * 3, 12.0, "cloud")
    return config, stage, state, dataset


def find(scene, *, held_out_every=0, **options):
    _, stage, state, dataset = scene
    sizes = dict(size=SIZE, num_angles=12, num_headings=4) | options
    return turns.find_turns(state, stage.options, dataset, held_out_every=held_out_every, **sizes)


def degrees_apart(quats, rotations):
    """Of quaternions [T,4] wxyz from rotations."""
    return np.rad2deg((Rotation.from_quat(np.asarray(quats), scalar_first=True) * rotations.inv()).magnitude())


def test_turns_are_found_where_the_body_turns_and_walks(scene):
    found = find(scene)
    np.testing.assert_array_equal(found.found, [1, 0, 0, 1])
    assert degrees_apart(found.rotations[0], about_vertical(TRUE_ANGLES)).max() < 0.1


def test_a_lying_body_is_found_on_its_side(scene):
    assert degrees_apart(find(scene).rotations[3], LYING).max() < 0.1
    upright = find(scene, num_headings=0)
    assert degrees_apart(upright.rotations[3], LYING)[3:].min() > 60
    tilted = Rotation.from_quat(np.asarray(upright.rotations[3]), scalar_first=True).apply([0, 1, 0])
    np.testing.assert_allclose(tilted, np.tile([0, 1, 0], (NUM_FRAMES, 1)), atol=1e-5)


def test_the_turned_body_is_put_where_it_is_seen(scene):
    """To a twentieth of its size, as the middles of pictures tell it."""
    found, means = find(scene), np.asarray(scene[2].params.gaussians.means)[np.asarray(scene[2].alive)]
    center = means.mean(axis=0)
    told = Rotation.from_quat(np.asarray(found.rotations[0]), scalar_first=True).apply(center) + found.shifts[0]
    truth = center + np.linspace(0, 1, NUM_FRAMES)[:, None] * WALK
    assert np.abs(told - truth).max() < 0.02


def test_a_turned_body_is_seen_in_its_light(scene):
    _, stage, state, dataset = scene
    points, turn = state.params.gaussians, jnp.asarray([0.5, 0.5, 0.5, 0.5])
    sh = jnp.concatenate([points.sh, jax.random.normal(jax.random.key(1), (*points.sh.shape[:1], 3, 3))], axis=1)
    parts = vars(state.params) | dict(gaussians=points.replace(sh=sh))
    params = LitParams(**parts, light=jnp.asarray([0.2, 0.9, 0.4]))
    seen = turns._see_turned(state.replace(params=params), stage.options, dataset.cameras, turn, jnp.zeros(3))
    shown = mask_dead(params.gaussians, state.alive)
    means, quats = quaternion.rotate(turn[None], shown.means), quaternion.multiply(turn[None], shown.quats)
    posed = pose(shown, means, quats, light=params.light)
    truth = render(posed, dataset.cameras[0], jnp.asarray(stage.options.background), dilation=stage.options.dilation)
    np.testing.assert_allclose(seen.rgb[0], truth.rgb, atol=1e-4)


def test_frames_that_do_not_train_are_not_looked_at(scene):
    """They take what the frame before has."""
    config, stage, state, dataset = scene
    frames = dataset.frames.copy()
    seen = train_frames(dataset, 3)
    hidden = np.setdiff1d(np.arange(NUM_FRAMES), seen)
    assert len(hidden) > 1
    frames[:, :, hidden] = 0
    found = find((config, stage, state, dataclasses.replace(dataset, frames=frames)), held_out_every=3)
    assert degrees_apart(found.rotations[0, seen], about_vertical(TRUE_ANGLES[seen])).max() < 0.1
    np.testing.assert_array_equal(found.rotations[0, hidden], found.rotations[0, hidden - 1])
    np.testing.assert_array_equal(found.shifts[0, hidden], found.shifts[0, hidden - 1])


def test_small_turns_are_left_to_descent(scene):
    assert find(scene, least_angle=370.0).found[0] == 0
    assert find(scene, largest_cost=0.0).found[0] == 0


def test_a_body_whose_canonical_pose_faces_away_is_turned_from_the_first_frame_on(scene):
    config, stage, state, dataset = scene
    points = state.params.gaussians
    center = points.means[state.alive].mean(axis=0)
    quarter = jnp.asarray(Rotation.from_rotvec([0, np.pi / 2, 0]).as_quat(scalar_first=True), jnp.float32)
    turned = quaternion.rotate(quarter[None], points.means - center) + center
    state = state.replace(params=state.params.replace(gaussians=points.replace(means=turned)))
    found = find((config, stage, state, dataset))
    np.testing.assert_array_equal(found.found, [1, 1, 0, 1])
    assert degrees_apart(found.rotations[1], about_vertical(np.full(NUM_FRAMES, -np.pi / 2))).max() < 0.1


@pytest.mark.parametrize("num_views", [1, 2, 5])
def test_the_middle_is_where_lines_of_sight_meet(num_views):
    cameras = orbit(np.arange(num_views) * 70, 10, radius=2.0, fov_deg=33.9, height=32, width=48)
    truth = np.array([0.1, -0.05, 0.08])
    inside = (cameras.world_to_camera @ np.append(truth, 1))[:, :3]
    pixels = inside[:, :2] / inside[:, 2:] * cameras.focal + cameras.center
    rows, columns = np.arange(32)[:, None] + 0.5, np.arange(48) + 0.5
    spots = [np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8) for x, y in np.asarray(pixels)]
    alpha = jnp.asarray(np.stack(spots), jnp.float32)
    found = turns.find_middle(alpha, cameras, fallback=jnp.zeros(3))
    if num_views == 1:  # anywhere on the line of sight
        origin = -cameras.world_to_camera[0, :3, :3].T @ cameras.world_to_camera[0, :3, 3]
        line = (truth - origin) / np.linalg.norm(truth - origin)
        assert np.linalg.norm(np.cross(found - origin, line)) < 2e-3
    else:
        np.testing.assert_allclose(found, truth, atol=2e-3)
    nothing = turns.find_middle(0 * alpha, cameras, fallback=jnp.asarray([1.0, 2, 3]))
    np.testing.assert_allclose(nothing, [1, 2, 3], rtol=1e-5)


def test_pictures_without_room_are_named(scene, caplog):
    _, stage, state, dataset = scene
    with caplog.at_level("WARNING"):
        for capacity in (4096, 16):
            options = dataclasses.replace(stage.options, implementation="xla", capacity=capacity)
            sizes = dict(size=SIZE, num_angles=4, num_headings=0)
            turns.find_turns(state, options, dataset, held_out_every=0, **sizes)
    (said,) = [record.getMessage() for record in caplog.records if "no room" in record.getMessage()]
    assert int(said.split(":")[1].split()[0]) > 0


def price_of(path, costs, apart, frames, stiffness):
    """Of a path of indices, written out as `follow` says it."""
    total = costs[0, path[0]]
    for t in range(1, len(path)):
        angle = np.rad2deg(apart[path[t - 1], path[t]])
        total += costs[t, path[t]] + stiffness * np.median(costs) * (angle / 15) ** 2 / (frames[t] - frames[t - 1])
    return total


@pytest.mark.parametrize("stiffness", [0.0, 0.003, 0.03])
@pytest.mark.parametrize("seed", range(3))
def test_follow_finds_the_cheapest_of_all_paths(seed, stiffness):
    rng = np.random.default_rng(seed)
    costs, frames = rng.uniform(size=(4, 7)), np.array([0, 1, 3, 4])
    rotations = Rotation.random(7, rng)
    apart = np.array([[(a * b.inv()).magnitude() for b in rotations] for a in rotations])
    every = itertools.product(range(7), repeat=4)
    best = min(every, key=lambda path: price_of(path, costs, apart, frames, stiffness))
    np.testing.assert_array_equal(turns.follow(costs, apart, frames, stiffness=stiffness), best)


def test_orientations_are_all_ways_to_stand_and_to_lie():
    quats, names = turns.orientations(8, 4)
    assert len(quats) == len(names) == len(set(names)) == 8 + 4 * 4
    np.testing.assert_allclose(quats[0], [1, 0, 0, 0])
    up = Rotation.from_quat(quats, scalar_first=True).apply([0, 1, 0])
    np.testing.assert_allclose(up[:8], np.tile([0, 1, 0], (8, 1)), atol=1e-6)
    np.testing.assert_allclose(up[8:, 1], 0, atol=1e-6)
    named = dict(zip(names, Rotation.from_quat(quats, scalar_first=True)))
    truth = Rotation.from_euler("Y", 270, degrees=True) * Rotation.from_euler("X", -90, degrees=True)
    assert (named["-x270"] * truth.inv()).magnitude() < 1e-6
    assert turns.orientations(8, 0)[1] == [str(45 * k) for k in range(8)]


def test_relative_cost_looks_at_turned_frames_alone():
    costs = np.array([[1.0, 9, 9, 9], [4.0, 2, 9, 9], [6.0, 9, 3, 9]])
    away = np.deg2rad([0, 90, 180, 30])
    assert turns.relative_cost(costs, away, np.array([0, 1, 2])) == 0.5
    assert turns.relative_cost(costs, away, np.array([3, 1, 2])) == 0.5
    assert turns.relative_cost(costs, away, np.array([0, 3, 0])) == 1.0


def test_notes_hold_turns_to_the_last_bit():
    keys = jax.random.split(jax.random.key(0))
    before = Turns(
        rotations=jax.random.normal(keys[0], (2, 3, 4)),
        shifts=jax.random.normal(keys[1], (2, 3, 3)),
        found=jnp.asarray([1.0, 0.0]),
    )
    after = turns.from_notes(json.loads(json.dumps(turns.to_notes(before))))
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_notes_of_an_earlier_version_are_named():
    with pytest.raises(UserError, match="turns: found angles, found, expected also rotations, shifts"):
        turns.from_notes({"angles": [[0.0]], "found": [0.0]})


@pytest.mark.parametrize("seed", range(3))
def test_turn_is_zero_for_the_turned_pose_and_grows_beside_it(seed):
    rng = np.random.default_rng(seed)
    canonical, shift = rng.normal(size=(6, 3)), rng.normal(size=3)
    alive = np.array([True] * 5 + [False])
    rotation, other = Rotation.random(2, rng)
    turned = rotation.apply(canonical) + shift
    turned[5] = 99  # not alive
    pose = [jnp.float32(turned), jnp.float32(canonical), jnp.asarray(alive)]

    def told(rotation):
        return jnp.float32(rotation.as_quat(scalar_first=True)), jnp.float32(shift)

    assert rigidity.turn(*pose, *told(rotation)) < 1e-8
    expected = np.mean(np.sum((rotation.apply(canonical) - other.apply(canonical))[:5] ** 2, axis=-1))
    np.testing.assert_allclose(rigidity.turn(*pose, *told(other)), expected, rtol=1e-4)
    gradient = jax.grad(rigidity.turn, argnums=(0, 1))(*pose, *told(other))
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
    expected = rigidity.arap_rigid(*graph, *rest, reduction="mean")
    np.testing.assert_allclose(rigidity.embedded(*graph, jnp.float32(-2 * quats), *rest), expected, rtol=1e-4)
    others = jnp.float32(quats + 0.1 * rng.normal(size=quats.shape))
    assert rigidity.embedded(*graph, others, *rest) > expected


class Trajectories(NamedTuple):
    """What the term `chamfer` looks at."""

    controls: jax.Array
    reference: jax.Array
    turns: Turns | None


def test_motions_that_turn_are_free_of_the_first_stage():
    controls, reference = jax.random.normal(jax.random.key(0), (2, 3, 2, 5, 3))  # 3 motions, 2 times, 5 points
    each = [float(jnp.mean(jax.vmap(rigidity.chamfer)(a, b))) for a, b in zip(controls, reference, strict=True)]
    known = turns.no_turns(3, 2)
    one_turns = known.replace(found=jnp.asarray([0.0, 1.0, 0.0]))
    cases = ((None, sum(each)), (known, sum(each)), (one_turns, each[0] + each[2]))
    for found, expected in cases:
        value = terms.chamfer(Trajectories(controls, reference, found))
        np.testing.assert_allclose(value, expected / 3, rtol=1e-5)


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
    state, dataset = scene[2], scene[3]
    state = state.replace(optimizer=stage.options.optimizer.init(state.params))
    truth = jnp.float32(about_vertical(TRUE_ANGLES).as_quat(scalar_first=True))
    known = turns.no_turns(4, NUM_FRAMES)
    known = known.replace(rotations=known.rotations.at[0].set(truth), found=known.found.at[0].set(1.0))
    sampler = Sampler(
        dataset, motion_ids=(0, 1), batch_motions=2, batch_views=1, batch_frames=NUM_FRAMES, held_out_every=0
    )
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
    told = truth[:, None]
    agreement = jnp.abs(jnp.sum(quaternion.normalize(rotations) * told, axis=-1))  # cosine of half the angle between
    assert float(jnp.mean(agreement)) > 0.95
    assert np.mean(np.abs(np.cos(TRUE_ANGLES / 2))) < 0.75  # of rotations that were never told
