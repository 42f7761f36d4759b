"""Which way up and round a body stands, found by search, because descent on pictures does not find it.

Where a body has turned by more than some 30 degrees, or lies down, the gradient of a picture mends its colours where
they stand instead of turning it: a front becomes a back without a motion. So, once the model has a shape, its canonical
pose is turned every way, rendered into the training views and compared with each frame; the cheapest continuous path
through these comparisons is how the motion turns. The term `turn` pulls the decoder towards it. Not in the paper; see
docs/method.md, "Departures".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from dimo_jax.cameras.orbits import resize
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array, Camera, Rendering, Turns
from dimo_jax.data.dataset import Dataset, motions_in, train_frames, views_in
from dimo_jax.data.sampler import downsample
from dimo_jax.geometry import quaternion
from dimo_jax.losses.total import Term
from dimo_jax.render import render
from dimo_jax.skinning.posing import pose
from dimo_jax.systems.dimo.state import TrainState
from dimo_jax.systems.dimo.step import StepOptions, visible_params
from dimo_jax.training.images import composite_truth

_LEAST_TURN = np.deg2rad(45)  # below this a frame's pose tells nothing about whether it pays to turn


def no_turns(num_motions: int, num_frames: int) -> Turns:
    """What is known before a search: nothing."""
    return Turns(
        rotations=quaternion.identity((num_motions, num_frames)),
        shifts=jnp.zeros((num_motions, num_frames, 3)),
        found=jnp.zeros(num_motions),
    )


def searched_after(terms: tuple[Term, ...], first_step: int) -> int | None:
    """The step after which a stage that begins at `first_step` searches; None without a term `turn`."""
    starts = [first_step + max(term.start, 1) for term in terms if term.name == "turn"]
    return min(starts, default=None)


def to_notes(turns: Turns) -> dict[str, Any]:
    """As JSON holds them, without loss."""
    return {name: np.asarray(getattr(turns, name)).tolist() for name in ("rotations", "shifts", "found")}


def from_notes(notes: Mapping[str, Any]) -> Turns:
    """The inverse of `to_notes`.

    Raises:
      UserError: notes of a version that looked for something else.
    """
    if missing := sorted({"rotations", "shifts", "found"} - notes.keys()):
        raise UserError(
            f"checkpoint's notes, turns: found {', '.join(sorted(notes))}, expected also {', '.join(missing)} "
            "(it is of another version: go on with that, or train anew)"
        )
    return Turns(**{name: jnp.asarray(notes[name], jnp.float32) for name in ("rotations", "shifts", "found")})


def orientations(num_angles: int, num_headings: int) -> tuple[np.ndarray, list[str]]:
    """Ways in which a body may stand or lie: turned about +Y by so many angles, and lying on each of four sides.

    Args:
      num_angles: of a standing body, evenly spaced over the circle.
      num_headings: of a body that lies, likewise, on each side: tilted by 90 degrees about -X, +X, -Z or +Z first.

    Returns:
      Quaternions [A,4] wxyz, of which the first is the identity, and what they are called: "75", "-x330".
    """
    poses, names = [], []
    tilts = {"": (0, 0, 0), "-x": (-1, 0, 0), "+x": (1, 0, 0), "-z": (0, 0, -1), "+z": (0, 0, 1)}
    for name, axis in tilts.items():
        tilt = quaternion.from_axis_angle(jnp.asarray(axis) * (jnp.pi / 2))
        for angle in np.linspace(0, 360, num_headings if name else num_angles, endpoint=False):
            heading = quaternion.from_axis_angle(jnp.asarray([0.0, np.deg2rad(angle), 0.0]))
            poses.append(np.asarray(quaternion.multiply(heading, tilt)))
            names.append(f"{name}{angle:.0f}")
    return np.stack(poses), names


def find_turns(
    state: TrainState,
    options: StepOptions,
    dataset: Dataset,
    *,
    held_out_every: int,
    size: int = 32,
    num_angles: int = 24,
    num_headings: int = 12,
    num_views: int = 5,
    stiffness: float = 0.002,
    least_angle: float = 60.0,
    largest_cost: float = 0.8,
) -> Turns:
    """How every training motion turns the body, as the canonical model sees it.

    Args:
      state, options: of a stage, on one device; a capacity in the options is that of one image.
      dataset: its training views and frames are compared; +Y is up.
      held_out_every: `config.data.held_out_every`.
      size: height in pixels of the pictures that are compared.
      num_angles, num_headings: of `orientations`.
      num_views: of the training views at most, evenly spaced among them.
      stiffness: of `follow`.
      least_angle: degrees; a motion that turns less far from the canonical pose at its farthest is left to descent.
      largest_cost: a motion is taken to turn where the turned pose costs at most so much of the unturned one, over the
        frames in which it is turned by 45 degrees or more.

    Returns:
      Rotations and shifts of every frame, in one that does not train those of the frame before; `found` is 0 for
      motions that do not turn, and for those that do not train.
    """
    all_views, frames = views_in(dataset, "train"), train_frames(dataset, held_out_every)
    views = all_views[np.arange(min(num_views, len(all_views))) * len(all_views) // min(num_views, len(all_views))]
    small = resize(dataset.cameras, size, size * dataset.cameras.width // dataset.cameras.height)
    cameras = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[views]), small)
    candidates, names = orientations(num_angles, num_headings)
    apart = _angles_between(candidates)
    # The state is an argument, because what a compiled function closes over becomes constants of its program.
    ways = jnp.asarray(candidates)
    origins, unseen = jax.jit(lambda state: _center(state, options, cameras, ways))(state)
    compare = jax.jit(lambda state, origins, images: _compare(state, options, cameras, ways, origins, images))
    turns = jax.tree.map(np.array, no_turns(dataset.num_motions, dataset.num_frames))
    latest = np.maximum(np.searchsorted(frames, np.arange(dataset.num_frames), side="right") - 1, 0)
    lost = int(unseen)
    for motion in motions_in(dataset, "train"):
        images = np.moveaxis(np.asarray(dataset.frames[motion][views][:, frames]), 0, 1)
        images = downsample(images, cameras.height, cameras.width)
        costs, shifts, overflow = jax.device_get(compare(state, origins, images))
        lost += int(overflow)
        path = follow(costs, apart, frames, stiffness=stiffness)
        turns.rotations[motion] = candidates[path][latest]
        turns.shifts[motion] = shifts[np.arange(len(frames)), path][latest]
        cost = relative_cost(costs, apart[0], path)
        turns_far = np.max(apart[0, path]) >= np.deg2rad(least_angle) - 1e-6
        turns.found[motion] = turns_far and cost <= largest_cost
        if turns.found[motion]:
            said = " ".join(names[index] for index in path)
            logging.info("%s turns: %s degrees, at %.2f of the cost", dataset.names[motion], said, cost)
    if lost:
        logging.warning("search for turns: %d Gaussian-tile pairs found no room in the pictures that it compared", lost)
    return jax.tree.map(jnp.asarray, turns)


def _see_turned(state: TrainState, options: StepOptions, cameras: Camera, turn: Array, shift: Array) -> Rendering:
    """The canonical pose, turned and then shifted, as `cameras` [V,...] see it."""
    body = visible_params(state.params, state.alive, options).gaussians
    quats = quaternion.multiply(jnp.broadcast_to(turn, body.quats.shape), body.quats)
    posed = pose(body, quaternion.rotate(turn[None], body.means) + shift, quats, light=state.params.light)

    def one(camera: Camera) -> Rendering:
        return render(
            posed,
            camera,
            jnp.asarray(options.background),
            implementation=options.implementation,
            capacity=options.capacity,
            dilation=options.dilation,
        )

    return jax.vmap(one)(cameras)


def _body_center(state: TrainState) -> Array:
    points = state.params.gaussians.means
    return jnp.sum(jnp.where(state.alive[:, None], points, 0), axis=0) / jnp.sum(state.alive)


def _center(state: TrainState, options: StepOptions, cameras: Camera, candidates: Array) -> tuple[Array, Array]:
    """Shifts [A,3] after which the pictures of the turned canonical pose have their middle at the origin.

    Where a turned body stands is told by the middles of its pictures, as where the true one stands. The second result
    is the number [] of pairs that found no room in these pictures.
    """
    center = _body_center(state)
    shifts = center - quaternion.rotate(candidates, center)

    def one(pose: tuple[Array, Array]) -> tuple[Array, Array]:
        drawn = _see_turned(state, options, cameras, *pose)
        return find_middle(drawn.alpha, cameras, fallback=center), jnp.sum(drawn.overflow)

    middles, overflow = jax.lax.map(one, (candidates, shifts))
    return shifts - middles, jnp.sum(overflow)


def _compare(
    state: TrainState, options: StepOptions, cameras: Camera, candidates: Array, origins: Array, images: Array
) -> tuple[Array, Array, Array]:
    """The canonical pose, turned by `candidates` [A,4] and put where the body stands, against pictures of one motion.

    `origins` [A,3] are those of `_center`; `images` [T,V,H,W,4] are uint8; `cameras` [V,...].

    Returns:
      Mean squared errors [T,A], shifts [T,A,3] that put the turned pose there, and the pairs [] that found no room.
    """

    def one_frame(seen: Array) -> tuple[Array, Array, Array]:
        truth, alpha = composite_truth(seen, jnp.asarray(options.background))
        shifts = origins + find_middle(alpha, cameras, fallback=_body_center(state))

        def one_pose(turn: Array, shift: Array) -> tuple[Array, Array]:
            drawn = _see_turned(state, options, cameras, turn, shift)
            return jnp.mean((drawn.rgb - truth) ** 2), jnp.sum(drawn.overflow)

        costs, overflow = jax.vmap(one_pose)(candidates, shifts)
        return costs, shifts, overflow

    costs, shifts, overflow = jax.lax.map(one_frame, images)
    return costs, shifts, jnp.sum(overflow)


def find_middle(alpha: Array, cameras: Camera, *, fallback: Array) -> Array:
    """The point [3] nearest to the lines of sight through the middles of `alpha` [V,H,W], seen by `cameras` [V].

    Views that see nothing do not count; along what no view tells, it is that of `fallback` [3].
    """
    height, width = alpha.shape[1:]
    mass = jnp.sum(alpha, axis=(1, 2))
    safe = jnp.maximum(mass, 1e-6)
    columns = jnp.sum(alpha * (jnp.arange(width) + 0.5), axis=(1, 2)) / safe
    rows = jnp.sum(alpha * (jnp.arange(height) + 0.5)[:, None], axis=(1, 2)) / safe
    pixels = jnp.stack([columns, rows], axis=-1)
    in_camera = jnp.concatenate([(pixels - cameras.center) / cameras.focal, jnp.ones((len(alpha), 1))], axis=-1)
    to_camera, offset = cameras.world_to_camera[:, :3, :3], cameras.world_to_camera[:, :3, 3]
    origins = -jnp.einsum("vji,vj->vi", to_camera, offset)
    sight = jnp.einsum("vji,vj->vi", to_camera, in_camera)
    sight = sight / jnp.linalg.norm(sight, axis=-1, keepdims=True)
    across = jnp.where(mass[:, None, None] > 0, jnp.eye(3) - sight[:, :, None] * sight[:, None, :], 0)
    matrix = jnp.sum(across, axis=0) + 1e-4 * jnp.eye(3)
    return jnp.linalg.solve(matrix, jnp.einsum("vij,vj->i", across, origins) + 1e-4 * fallback)


def _angles_between(quats: np.ndarray) -> np.ndarray:
    """Angles [A,A] in radians between rotations [A,4], at most pi."""
    return 2 * np.arccos(np.clip(np.abs(quats.astype(np.float64) @ quats.T.astype(np.float64)), 0, 1))


def follow(costs: np.ndarray, apart: np.ndarray, frames: np.ndarray, *, stiffness: float = 0.002) -> np.ndarray:
    """The cheapest continuous path through the costs of orientations (Viterbi).

    Args:
      costs: [T,A].
      apart: [A,A] angles between the orientations, in radians.
      frames: [T] increasing numbers of the frames, some of which may be left out.
      stiffness: price of turning by 15 degrees from one frame to the next, in medians of `costs`; it grows with the
        square of the angle and falls with the number of frames between.

    Returns:
      [T] indices of orientations.
    """
    price = stiffness * np.median(costs) * (apart / np.deg2rad(15)) ** 2
    total = costs[0]
    origins = []
    for cost, gap in zip(costs[1:], np.diff(frames), strict=True):
        moves = total[:, None] + price / gap
        origins.append(np.argmin(moves, axis=0))
        total = np.min(moves, axis=0) + cost
    path = [int(np.argmin(total))]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return np.array(path[::-1])


def relative_cost(costs: np.ndarray, away: np.ndarray, path: np.ndarray) -> float:
    """Cost along a path [T] over that of the first orientation, of `costs` [T,A], in the frames that it turns.

    `away` [A] are the angles of the orientations from the first, in radians. 1 where no frame is turned.
    """
    turned = away[path] >= _LEAST_TURN - 1e-6
    if not turned.any():
        return 1.0
    return float(costs[turned, path[turned]].mean() / costs[turned, 0].mean())
