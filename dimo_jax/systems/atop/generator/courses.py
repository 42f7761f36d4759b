"""Which motions along candidate joints a frozen model finds likely: its score, used to tell them apart.

A model's expected error in telling the noise is least for what it would draw itself (as diffusion classifiers use it,
Li et al. 2023). So candidates are drawn and compared under the same noise before any of them is distilled: distillation
improves a motion that is near, and stays where it began where nothing is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array, Camera
from dimo_jax.diffusion.ddim import Predict
from dimo_jax.diffusion.distillation import separate
from dimo_jax.diffusion.noise import NUM_TRAIN_STEPS, Prediction, add_noise, plan_alphas, to_noise
from dimo_jax.geometry.joint import PRISMATIC, REVOLUTE
from dimo_jax.meshes.boxes import smallest_box
from dimo_jax.meshes.objects import ObjectMesh, bounds, join_objects
from dimo_jax.systems.atop.candidates import candidates
from dimo_jax.systems.atop.seen.course import Course, slide_to, to_poses
from dimo_jax.systems.atop.seen.paper import propose_lines
from dimo_jax.systems.atop.seen.splats import Blend, composite

from .latents import LatentScene, RigidMoves, draw_video, pose_moves, shape_video

TURNS = (0.5, 1.0, 1.6, 2.3)  # radians at the end of a course, both ways
SLIDES = (0.1, 0.2, 0.35)  # object diagonals, likewise
SAME_ANGLE, SAME_PLACE = 0.12, 0.025  # radians, object diagonals: lines that count as one
ROUGH, FINE = (0.45, 0.7), (0.2, 0.4, 0.6, 0.8)  # timesteps as shares of all
STARTS, APART = 2, 0.05  # of either type; mean distance of the part's points at the end, in object diagonals


def propose_courses(body: ObjectMesh, part: ObjectMesh, num_frames: int) -> list[Course]:
    """Motions at an even pace to some ends, along the candidates of the shape and of the part's box."""
    size = bounds(join_objects([body, part]).vertices)[2]
    center = part.vertices.mean(axis=0)
    lines = [Course(each.type, each.axis, each.origin, np.zeros(1)) for each in candidates(body, part)]
    lines = _thin([slide_to(line, center) for line in [*propose_lines(smallest_box(part.vertices), 1), *lines]], size)
    ends = {REVOLUTE: np.asarray(TURNS), PRISMATIC: size * np.asarray(SLIDES)}
    pace = np.linspace(0, 1, num_frames)
    return [
        replace(line, values=sign * end * pace) for line in lines for end in ends[line.type] for sign in (1.0, -1.0)
    ]


def _thin(lines: Sequence[Course], size: float) -> list[Course]:
    """Lines of which none is nearly another one."""
    kept: list[Course] = []
    for line in lines:
        near = [each for each in kept if each.type == line.type and abs(each.axis @ line.axis) > np.cos(SAME_ANGLE)]
        if all(np.linalg.norm(each.origin - line.origin) > SAME_PLACE * size for each in near):
            kept.append(line)
    return kept


def choose_starts(courses: Sequence[Course], losses: np.ndarray, points: np.ndarray, size: float) -> list[Course]:
    """The best `STARTS` courses of either type that end apart from each other.

    Args:
      courses: of one object.
      losses: [M] of them.
      points: [P,3] of the part at rest.
      size: of the object.
    """
    kept: list[tuple[Course, np.ndarray]] = []
    for index in np.argsort(losses, kind="stable"):
        course = courses[index]
        pose = to_poses(course)[-1]
        end = points @ pose[:3, :3].T + pose[:3, 3]
        others = [other for each, other in kept if each.type == course.type]
        apart = all(np.linalg.norm(end - other, axis=-1).mean() > APART * size for other in others)
        if len(others) < STARTS and apart:
            kept.append((course, end))
    return [course for course, _ in kept]


def measure_losses(
    predict: Predict,
    key: Array,
    scene: LatentScene,
    moves: RigidMoves,
    cameras: Camera,
    *,
    shares: Sequence[float],
    draws: int = 1,
    prediction: Prediction = "epsilon",
    blend: Blend = composite,
) -> Array:
    """How far a model is from telling the noise in drawn videos, mean squares, the same noise for all.

    Args:
      predict: the model with its condition: noisy latents [V,F,h,w,C], timestep [] -> [V,F,h,w,C].
      key: of the noise.
      scene: with a look.
      moves: M of them, arrays stacked [M,F-1,3].
      cameras: the V views, at the size of the latents.
      shares: timesteps as shares of all.
      draws: of noise at each timestep; each is also taken with its sign turned.
      prediction: what the model predicts.
      blend: what draws the Gaussians.

    Returns:
      [M,2 * draws * timesteps].
    """
    first = jax.tree.map(lambda each: each[0], moves)
    call, arrays = separate(predict, shape_video(scene, first, cameras))

    @jax.jit
    def run(moves: RigidMoves, given: tuple[LatentScene, Camera, list[Array]], rows: tuple[Array, Array]) -> Array:
        scene, cameras, arrays = given

        def measure(one: RigidMoves) -> Array:
            return _compare(call, arrays, draw_video(scene, one, cameras, blend=blend), rows, prediction)

        return jax.lax.map(measure, moves)

    measured: Array = run(moves, (scene, cameras, arrays), _plan_noise(key, shares, draws))
    return measured


def measure_film(
    predict: Predict,
    key: Array,
    film: Array,
    *,
    shares: Sequence[float],
    draws: int = 1,
    prediction: Prediction = "epsilon",
) -> Array:
    """The same of one video [V,F,h,w,C] that is given as latents: [2 * draws * timesteps], with the same noise."""
    call, arrays = separate(predict, film)
    run = jax.jit(lambda film, arrays, rows: _compare(call, arrays, film, rows, prediction))
    measured: Array = run(film, arrays, _plan_noise(key, shares, draws))
    return measured


def _plan_noise(key: Array, shares: Sequence[float], draws: int) -> tuple[Array, Array]:
    timesteps = np.repeat(np.round(np.asarray(shares) * NUM_TRAIN_STEPS), draws).astype(np.int32)
    return jnp.asarray(timesteps), jax.random.split(key, len(timesteps))


def _compare(
    call: Callable[[list[Array], Array, Array], Array],
    arrays: list[Array],
    film: Array,
    rows: tuple[Array, Array],
    prediction: Prediction,
) -> Array:
    plan = jnp.asarray(plan_alphas(), jnp.float32)

    def compare(row: tuple[Array, Array]) -> Array:
        timestep, key = row
        noise = jax.random.normal(key, film.shape)

        def error(noise: Array) -> Array:
            noisy = add_noise(film, noise, plan[timestep])
            found = to_noise(call(arrays, noisy, timestep), noisy, plan[timestep], prediction=prediction)
            return jnp.mean((found - noise) ** 2)

        return jnp.stack([error(noise), error(-noise)])

    return jax.lax.map(compare, rows).reshape(-1)


def stack_moves(scene: LatentScene, courses: Sequence[Course]) -> RigidMoves:
    """Moves [M,F-1,3] of M courses of F frames."""
    poses = np.stack([to_poses(course)[1:] for course in courses])
    moves = pose_moves(scene, poses.reshape(-1, 4, 4))
    return jax.tree.map(lambda each: each.reshape(*poses.shape[:2], 3), moves)
