"""The joint of a part from a frozen video model, whose score compares candidates and then improves the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.cameras.orbits import orbit, resize
from dimo_jax.cameras.upright import turn_to_y
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array, Camera
from dimo_jax.data.articulated.videos import FOV, RADIUS, mark_part, settle_matrix
from dimo_jax.geometry.joint import Joint, make_joint, move_joint
from dimo_jax.meshes.objects import ObjectMesh, join_objects, move_object
from dimo_jax.meshes.renderer import render_mesh
from dimo_jax.systems.atop.seen.course import Course, orient, slide_to
from dimo_jax.systems.atop.seen.layers import split_cameras
from dimo_jax.systems.atop.seen.tell import find_doubts

from .courses import FINE, ROUGH, choose_starts, measure_film, measure_losses, propose_courses, stack_moves
from .generator import Generator
from .latents import LatentScene, distill_each, joint_moves, place_scene, pose_moves, to_course
from .look import STEPS as LOOK_STEPS
from .look import fit_look, show_poses, spread_poses
from .model import Condition
from .sampling import GUIDANCE, NUM_STEPS

COUNT = 256  # Gaussians on the body, and as many on the part
STEPS = 150  # of distillation
DRAWS = 4  # of noise at each timestep, for the last comparison
SOURCE = "generated motion"


@dataclass(frozen=True, eq=False)
class Asked:
    """A generator with what it is asked about one object; all in its coordinates."""

    generator: Generator
    condition: Condition
    body: ObjectMesh
    part: ObjectMesh
    cameras: Camera  # V views at the side of its pictures

    @property
    def views(self) -> Camera:
        """The cameras at the size of the latents, as arrays."""
        size = self.generator.size
        return jax.tree.map(jnp.asarray, resize(self.cameras, size, size))


@dataclass(frozen=True, eq=False)
class Imagined:
    """What a generator has a part do."""

    joints: list[Joint]  # the one that it finds likelier first, in the object's coordinates
    video: np.ndarray  # [V,F,H,W,4] uint8, straight alpha: drawn from noise, to be looked at
    doubts: tuple[str, ...]  # lines for the user


def joint_from_generator(
    body: ObjectMesh,
    part: ObjectMesh,
    generator: Generator,
    sentence: str,
    key: Array,
    *,
    up: np.ndarray | None = None,
    guidance: float = GUIDANCE,
    count: int = COUNT,
    steps: int = STEPS,
) -> list[Joint]:
    """The joint along which a video model finds a part likely to move.

    Args:
      body, part: at rest.
      generator: a trained model, see `generator.Generator`.
      sentence: what the part shall do.
      key: of all noise.
      up: [3] the direction against gravity; +Y where it is not known.
      guidance: of distillation.
      count: Gaussians on the body, and as many on the part.
      steps: of distillation.

    Returns:
      The joint of the likelier type, then the other type's. `range` runs over what was distilled, with rest at 0;
      `confidence` is the share of noises under which the model prefers it, as it began or as it ended, to the others
      that were distilled and to rest.

    Raises:
      UserError: no sentence, or a part that none of the model's views sees.
    """
    asked, matrix = ask(body, part, generator, sentence, up=up)
    return find_joints(asked, key, matrix, guidance=guidance, count=count, steps=steps)[0]


def imagine(
    body: ObjectMesh,
    part: ObjectMesh,
    generator: Generator,
    sentence: str,
    key: Array,
    *,
    up: np.ndarray | None = None,
    guidance: float = GUIDANCE,
    num_steps: int = NUM_STEPS,
    count: int = COUNT,
    steps: int = STEPS,
) -> Imagined:
    """As `joint_from_generator`, with a video that the model draws in `num_steps`, and what is doubtful."""
    asked, matrix = ask(body, part, generator, sentence, up=up)
    draw_key, key = jax.random.split(key)
    latents = generator.draw(draw_key, asked.condition, num_steps=num_steps, guidance=guidance)
    shown = generator.decode(latents.reshape(-1, *latents.shape[2:]))
    video = shown.reshape(*latents.shape[:2], *shown.shape[1:])
    joints, doubts = find_joints(asked, key, matrix, guidance=guidance, count=count, steps=steps)
    return Imagined(joints, video, (*doubts, *find_doubts(body, part, joints[0], sentence)))


def ask(
    body: ObjectMesh, part: ObjectMesh, generator: Generator, sentence: str, *, up: np.ndarray | None = None
) -> tuple[Asked, np.ndarray]:
    """What a generator is asked about an object, and the matrix [4,4] that brings the object into its coordinates.

    Raises:
      UserError: no sentence, or a part that none of the model's views sees.
    """
    if not sentence.strip():
        raise UserError('the sentence is empty, expected what the part shall do, such as "open the door"')
    turn = np.eye(4)
    turn[:3, :3] = np.eye(3) if up is None else turn_to_y(up)
    matrix = settle_matrix(move_object(join_objects([body, part]), turn).vertices) @ turn
    body, part = (move_object(each, matrix) for each in (body, part))
    side = generator.side
    cameras = orbit(generator.azimuths, generator.elevation, radius=RADIUS, fov_deg=FOV, height=side, width=side)
    whole = join_objects([body, part])
    moves = np.arange(len(whole.triangles)) >= len(body.triangles)
    views, marked = split_cameras(cameras), mark_part(whole.mesh, moves)
    rest = np.stack([render_mesh(whole.vertices, whole.mesh, view) for view in views])
    shown = np.stack([render_mesh(whole.vertices, marked, view) for view in views])
    masks = np.where((shown[..., 3] > 0) & (shown[..., 0] >= 128), 255, 0).astype(np.uint8)
    if not masks.any():
        azimuths = ", ".join(f"{each:g}" for each in generator.azimuths)
        raise UserError(
            f"none of the model's views (azimuths {azimuths}, elevation {generator.elevation:g}) sees the part, "
            "expected one that shows; --up says what is up"
        )
    condition = generator.condition(rest, masks, cameras, sentence.strip())
    return Asked(generator, condition, body, part, cameras), matrix


def find_joints(
    asked: Asked, key: Array, matrix: np.ndarray, *, guidance: float, count: int, steps: int
) -> tuple[list[Joint], list[str]]:
    """The best joint of either type in the object's own coordinates, from which `matrix` leads away, and doubts."""
    keys = jax.random.split(key, 3)
    scene = make_scene(asked, count=count)
    starts = find_starts(asked, scene, keys[0])
    generator, views = asked.generator, asked.views
    ended = distill_each(
        generator.predict(asked.condition, guidance=guidance),
        keys[1],
        scene,
        [joint_moves(scene, start) for start in starts],
        views,
        steps=steps,
        prediction=generator.prediction,
    )
    distilled = [to_course(scene, moves) for moves in ended]
    # Along a candidate as far as was distilled: where that explains as much, the axis owes nothing to the noise.
    snapped = [replace(start, values=course.values) for start, course in zip(starts, distilled)]
    courses = [*starts, *distilled, *snapped]
    losses = _compare(asked, scene, keys[2], courses, FINE, draws=DRAWS)
    losses = np.concatenate([losses, _compare_rest(asked, keys[2], FINE, draws=DRAWS)[None]])
    means = losses.mean(axis=1)
    by_loss = [int(index) for index in np.argsort(means[: len(courses)], kind="stable")]
    first = {courses[index].type: index for index in reversed(by_loss)}
    best = sorted(first.values(), key=by_loss.index)
    families = np.array([*range(len(starts))] * 3 + [-1])  # which start a course came of; -1: rest
    liked = families[losses.argmin(axis=0)]
    shares = [float((liked == families[index]).mean()) for index in best]
    back, center = np.linalg.inv(matrix), asked.part.vertices.mean(axis=0)
    joints = [_to_joint(courses[index], center, share, back) for index, share in zip(best, shares)]
    doubts = []
    if means[-1] <= means[best[0]]:
        doubts.append("the model finds it likelier that the part stays at rest")
    return joints, doubts


def make_scene(asked: Asked, *, count: int = COUNT, look_steps: int = LOOK_STEPS) -> LatentScene:
    """Gaussians that look like the object in the generator's latents, wherever the part is."""
    body, part, generator = asked.body, asked.part, asked.generator
    scene = place_scene(body, part, channels=generator.channels, count=count)
    poses = spread_poses(body, part)
    shown = show_poses(body, part, poses, asked.cameras)
    latents = jnp.stack([jnp.asarray(generator.encode(shown[:, index])) for index in range(len(poses))], axis=1)
    return fit_look(scene, latents, pose_moves(scene, poses), asked.views, steps=look_steps)


def find_starts(asked: Asked, scene: LatentScene, key: Array) -> list[Course]:
    """The courses along candidates that the generator finds likeliest."""
    courses = propose_courses(asked.body, asked.part, asked.generator.num_frames)
    losses = _compare(asked, scene, key, courses, ROUGH, draws=1).mean(axis=1)
    points = np.asarray(scene.gaussians.means[-scene.num_moving :], np.float64)
    return choose_starts(courses, losses, points, float(scene.size))


def _compare(
    asked: Asked, scene: LatentScene, key: Array, courses: Sequence[Course], shares: Sequence[float], *, draws: int
) -> np.ndarray:
    """Losses [M,noises] of courses, by the model as it is, without guidance."""
    generator = asked.generator
    predict = generator.predict(asked.condition, guidance=1.0)
    options: Any = dict(shares=shares, draws=draws, prediction=generator.prediction)
    return np.asarray(measure_losses(predict, key, scene, stack_moves(scene, courses), asked.views, **options))


def _compare_rest(asked: Asked, key: Array, shares: Sequence[float], *, draws: int) -> np.ndarray:
    """Losses [noises] of a film that stands still, of the pictures themselves.

    Not of Gaussians at rest: they do not look quite like these, and some motions hide that from any model.
    """
    generator = asked.generator
    rest = show_poses(asked.body, asked.part, np.eye(4)[None], asked.cameras)[:, 0]
    latents = jnp.asarray(generator.encode(rest))[:, None]
    film = jnp.repeat(latents, generator.num_frames, axis=1)
    predict = generator.predict(asked.condition, guidance=1.0)
    return np.asarray(measure_film(predict, key, film, shares=shares, draws=draws, prediction=generator.prediction))


def _to_joint(course: Course, center: np.ndarray, share: float, back: np.ndarray) -> Joint:
    course = slide_to(orient(course), center)
    limits = (min(float(course.values.min()), 0.0), max(float(course.values.max()), 0.0))
    joint = make_joint(course.type, course.axis, course.origin, limits, confidence=share, source=SOURCE)
    return move_joint(joint, back)
