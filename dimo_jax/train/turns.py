"""Whole-body turns about the vertical, found by search, because descent on pictures does not find them.

Where a body has turned by more than some 30 degrees, the gradient of a picture mends its colours where they stand
instead of turning it: a front becomes a back without a motion. So, once the model has a shape, a motion's start pose is
turned by every angle, rendered into the training views and compared with each frame; the cheapest continuous path
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

from dimo_jax.data.cameras import resize
from dimo_jax.data.dataset import Dataset, motions_in, train_frames, views_in
from dimo_jax.data.sampler import downsample
from dimo_jax.geometry import quaternion
from dimo_jax.losses.motion import about_vertical
from dimo_jax.losses.total import Term
from dimo_jax.model.dimo import Components
from dimo_jax.render import render
from dimo_jax.train.state import TrainState
from dimo_jax.train.step import StepOptions, composite_truth, visible_params
from dimo_jax.types import Array, Camera, Rendering, Turns

_LEAST_TURN = np.deg2rad(45)  # below this a frame's pose tells nothing about whether it pays to turn


def no_turns(num_motions: int, num_frames: int) -> Turns:
    """What is known before a search: nothing."""
    return Turns(angles=jnp.zeros((num_motions, num_frames)), found=jnp.zeros(num_motions))


def searched_after(terms: tuple[Term, ...], first_step: int) -> int | None:
    """The step after which a stage that begins at `first_step` searches; None without a term `turn`."""
    starts = [first_step + max(term.start, 1) for term in terms if term.name == "turn"]
    return min(starts, default=None)


def to_notes(turns: Turns) -> dict[str, Any]:
    """As JSON holds them, without loss."""
    return {"angles": np.asarray(turns.angles).tolist(), "found": np.asarray(turns.found).tolist()}


def from_notes(notes: Mapping[str, Any]) -> Turns:
    """The inverse of `to_notes`."""
    return Turns(**{name: jnp.asarray(notes[name], jnp.float32) for name in ("angles", "found")})


def find_turns(
    state: TrainState,
    components: Components,
    options: StepOptions,
    dataset: Dataset,
    *,
    held_out_every: int,
    size: int = 32,
    num_angles: int = 24,
    num_views: int = 9,
    stiffness: float = 0.002,
    least_angle: float = 60.0,
    largest_cost: float = 0.9,
) -> Turns:
    """By how much every training motion turns the body, as the model sees it.

    Args:
      state, components, options: of a stage, on one device; a capacity in the options is that of one image.
      dataset: its training views and frames are compared; +Y is up.
      held_out_every: `config.data.held_out_every`.
      size: height in pixels of the pictures that are compared.
      num_angles: compared, evenly spaced over the circle.
      num_views: of the training views at most, evenly spaced among them.
      stiffness: of `follow`.
      least_angle: degrees; a motion that turns less far at its farthest is left to descent.
      largest_cost: a motion is taken to turn where the turned start pose costs at most so much of the unturned one,
        over the frames in which it faces 45 degrees or more away, and where the start pose fits the first frame as it
        is.

    Returns:
      Angles of every frame, those of the frames that do not train interpolated; `found` is 0 for motions that do not
      turn, and for those that do not train.
    """
    all_views, frames = views_in(dataset, "train"), train_frames(dataset, held_out_every)
    views = all_views[np.arange(min(num_views, len(all_views))) * len(all_views) // min(num_views, len(all_views))]
    small = resize(dataset.cameras, size, size * dataset.cameras.width // dataset.cameras.height)
    cameras = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[views]), small)
    candidates = jnp.arange(num_angles) * (2 * jnp.pi / num_angles)
    # The state is an argument, because what a compiled function closes over becomes constants of its program.
    compare = jax.jit(
        lambda state, motion, images: _compare(
            state, components, options, cameras, candidates, motion, dataset.times[frames], images
        )
    )
    turns = no_turns(dataset.num_motions, dataset.num_frames)
    angles, found = np.array(turns.angles), np.array(turns.found)
    lost = 0
    for motion in motions_in(dataset, "train"):
        images = np.moveaxis(np.asarray(dataset.frames[motion][views][:, frames]), 0, 1)
        costs, overflow = jax.device_get(compare(state, motion, downsample(images, cameras.height, cameras.width)))
        lost += int(overflow)
        path = follow(costs, frames, stiffness=stiffness)
        angles[motion] = np.interp(np.arange(dataset.num_frames), frames, path)
        cost = relative_cost(costs, path)
        knows_front = abs((np.argmin(costs[0]) + num_angles // 2) % num_angles - num_angles // 2) <= 1
        turns_far = np.max(np.abs(path)) >= np.deg2rad(least_angle)
        found[motion] = knows_front and turns_far and cost <= largest_cost
        if found[motion]:
            said = " ".join(f"{angle:.0f}" for angle in np.rad2deg(path))
            logging.info("%s turns: %s degrees, at %.2f of the cost", dataset.names[motion], said, cost)
    if lost:
        logging.warning("search for turns: %d Gaussian-tile pairs found no room in the pictures that it compared", lost)
    return Turns(angles=jnp.asarray(angles), found=jnp.asarray(found))


def _compare(
    state: TrainState,
    components: Components,
    options: StepOptions,
    cameras: Camera,
    candidates: Array,
    motion: Array,
    times: Array,
    images: Array,
) -> tuple[Array, Array]:
    """Mean squared errors [T,A] of the start pose, turned by `candidates` [A] where the body stands at `times` [T].

    `images` [T,V,H,W,4] uint8 are those of one motion; `cameras` [V,...]. Also the pairs [] that found no room.
    """
    params = visible_params(state.params, state.alive, options)
    near = jax.tree.map(lambda x: x[motion], state.neighbors)
    background = jnp.asarray(options.background)

    def at(time: Array) -> Any:
        return options.move(components, params, near, params.latents.mu[motion], time).gaussians

    def center(points: Array) -> Array:
        return jnp.sum(jnp.where(state.alive[:, None], points, 0), axis=0) / jnp.sum(state.alive)

    def see(gaussians: Any, camera: Camera) -> Rendering:
        return render(gaussians, camera, background, implementation=options.implementation, capacity=options.capacity)

    start = at(times[0])

    def one_frame(inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        time, seen = inputs
        place, (truth, _) = center(at(time).means), composite_truth(seen, background)

        def one_angle(angle: Array) -> tuple[Array, Array]:
            turn = about_vertical(angle)
            means = quaternion.rotate(turn[None], start.means - center(start.means)) + place
            quats = quaternion.multiply(jnp.broadcast_to(turn, start.quats.shape), start.quats)
            posed = start.replace(means=means, quats=quats)
            drawn = jax.vmap(lambda camera: see(posed, camera))(cameras)
            return jnp.mean((drawn.rgb - truth) ** 2), jnp.sum(drawn.overflow)

        return jax.vmap(one_angle)(candidates)

    costs, overflow = jax.lax.map(one_frame, (times, images))
    return costs, jnp.sum(overflow)


def follow(costs: np.ndarray, frames: np.ndarray, *, stiffness: float = 0.002) -> np.ndarray:
    """The cheapest continuous path through the costs of angles, from 0 at the first frame on (Viterbi).

    Args:
      costs: [T,A] of angles spaced evenly over the circle.
      frames: [T] increasing numbers of the frames, some of which may be left out.
      stiffness: price of turning by 15 degrees from one frame to the next, in medians of `costs`; it grows with the
        square of the angle and falls with the number of frames between.

    Returns:
      [T] radians, continuous: beyond a whole turn they go on counting.
    """
    num_angles = costs.shape[1]
    width = 2 * np.pi / num_angles
    index = np.arange(num_angles)
    apart = (index[None] - index[:, None] + num_angles // 2) % num_angles - num_angles // 2  # the shorter way round
    price = stiffness * np.median(costs) * (apart * width / np.deg2rad(15)) ** 2
    total = np.where(index == 0, costs[0], np.inf)
    origins = []
    for cost, gap in zip(costs[1:], np.diff(frames), strict=True):
        moves = total[:, None] + price / gap
        origins.append(np.argmin(moves, axis=0))
        total = np.min(moves, axis=0) + cost
    path = [int(np.argmin(total))]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    path.reverse()
    return np.concatenate([[0], np.cumsum(apart[path[:-1], path[1:]])]) * width


def relative_cost(costs: np.ndarray, path: np.ndarray) -> float:
    """Cost along a path [T] over that of angle 0, of `costs` [T,A] in the frames that face away; 1 where none does."""
    away = np.abs((path + np.pi) % (2 * np.pi) - np.pi)
    turned = away >= _LEAST_TURN - 1e-6
    if not turned.any():
        return 1.0
    index = np.round(path * costs.shape[1] / (2 * np.pi)).astype(int) % costs.shape[1]
    return float(costs[turned, index[turned]].mean() / costs[turned, 0].mean())
