"""Gaussians with features of their own, drawn as latents (ATOP Sec. 4.3.1, 4.4.3), and moved by a model's score.

Features are the latents' channels instead of colours. Body and first frame stand still; in every later frame the part's
points move freely, as in the paper, as one rigid part, or along a joint that all frames share.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.spatial.transform import Rotation

from dimo_jax.core.types import Array, Camera, Gaussians
from dimo_jax.diffusion.ddim import Predict
from dimo_jax.diffusion.distillation import (
    anneal,
    distillation_gradient,
    distillation_loss,
    draw_timestep,
    separate,
)
from dimo_jax.diffusion.noise import Prediction
from dimo_jax.geometry import quaternion
from dimo_jax.geometry.joint import PRISMATIC, REVOLUTE
from dimo_jax.meshes.boxes import frame_around
from dimo_jax.meshes.objects import ObjectMesh
from dimo_jax.render.project import project
from dimo_jax.render.rasterize.api import NUM_FEATURES
from dimo_jax.systems.atop.seen.clouds import surface_of
from dimo_jax.systems.atop.seen.course import Course
from dimo_jax.systems.atop.seen.splats import COUNT, Blend, composite, find_neighbors, place_gaussians, stretch

SIZE = 32  # rows and columns of latents
LEARNING_RATE = 5e-3  # of the paper's Adam, lengths in object diagonals
FINAL_RATE = 0.1  # of the first
STIFFNESS = 30.0


class LatentScene(flax.struct.PyTreeNode):
    """Gaussians of body, then part, at rest."""

    gaussians: Gaussians  # [N]
    features: Array  # [N,C]
    background: Array  # [C] latents where nothing is
    size: Array  # [] of the object
    num_moving: int = flax.struct.field(pytree_node=False)  # the last of them, of the part


class FreeMoves(flax.struct.PyTreeNode):
    """Every point of the part for itself, in object sizes, in all frames but the first."""

    offsets: Array  # [F-1,P,3]


class RigidMoves(flax.struct.PyTreeNode):
    """The part as a whole, about the middle of its points, in all frames but the first."""

    turns: Array  # [F-1,3] axis times angle, radians
    shifts: Array  # [F-1,3] object sizes


class JointMoves(flax.struct.PyTreeNode):
    """The part along one joint, in all frames but the first; where it began stays as it is."""

    frame: Array  # [3,3] where it began: rows are two sides of the axis, then the axis
    origin: Array  # [3] a point of the axis then
    tilts: Array  # [2] of the axis about its sides, radians
    slips: Array  # [2] of a turning part's axis along its sides, object sizes
    values: Array  # [F-1] radians or object sizes
    turning: Array  # [] 1 where the part turns, 0 where it slides; stays


Moves = FreeMoves | RigidMoves | JointMoves
M = TypeVar("M", bound=Moves)


def place_scene(body: ObjectMesh, part: ObjectMesh, *, channels: int = 4, count: int = COUNT) -> LatentScene:
    """Gaussians without a look on points of body and part, `count` on either, in the coordinates of the meshes."""
    pieces = [place_gaussians(surface_of(thing, count)) for thing in (body, part)]
    gaussians = jax.tree.map(lambda *each: jnp.concatenate(each), *pieces)
    size = jnp.linalg.norm(jnp.ptp(gaussians.means, axis=0))
    return LatentScene(gaussians, jnp.zeros((2 * count, channels)), jnp.zeros(channels), size, count)


def free_moves(scene: LatentScene, num_frames: int) -> FreeMoves:
    """F frames that stand still, whose points may move freely."""
    return FreeMoves(jnp.zeros((num_frames - 1, scene.num_moving, 3)))


def rigid_moves(num_frames: int) -> RigidMoves:
    """F frames that stand still, whose part may move as a whole."""
    return RigidMoves(jnp.zeros((num_frames - 1, 3)), jnp.zeros((num_frames - 1, 3)))


def joint_moves(scene: LatentScene, course: Course) -> JointMoves:
    """Moves along a course of F frames, of which the first shows rest."""
    unit = 1.0 if course.type == REVOLUTE else scene.size
    return JointMoves(
        frame=jnp.asarray(frame_around(course.axis), jnp.float32),
        origin=jnp.asarray(course.origin, jnp.float32),
        tilts=jnp.zeros(2),
        slips=jnp.zeros(2),
        values=jnp.asarray(course.values[1:], jnp.float32) / unit,
        turning=jnp.float32(course.type == REVOLUTE),
    )


def to_course(scene: LatentScene, moves: JointMoves) -> Course:
    """The course that moves along a joint have become."""
    axis, origin = (np.asarray(each, np.float64) for each in _place_axis(scene, moves))
    kind, unit = (REVOLUTE, 1.0) if moves.turning else (PRISMATIC, float(scene.size))
    values = np.concatenate([[0.0], np.asarray(moves.values, np.float64) * unit])
    return Course(kind, axis / np.linalg.norm(axis), origin, values)


def _place_axis(scene: LatentScene, moves: JointMoves) -> tuple[Array, Array]:
    """Axis [3] and a point of it [3]."""
    frame, origin = jax.lax.stop_gradient((moves.frame, moves.origin))
    axis = quaternion.rotate(quaternion.from_axis_angle(moves.tilts @ frame[:2]), frame[2])
    return axis, origin + scene.size * moves.slips @ frame[:2]


def to_rigid(scene: LatentScene, moves: RigidMoves | JointMoves) -> RigidMoves:
    """The same moves as turns and shifts of the part."""
    if isinstance(moves, RigidMoves):
        return moves
    axis, origin = _place_axis(scene, moves)
    along, turning = moves.values[:, None] * axis, jax.lax.stop_gradient(moves.turning)
    turns, arm = turning * along, _middle(scene) - origin
    swing = (quaternion.rotate(quaternion.from_axis_angle(turns), arm) - arm) / scene.size
    return RigidMoves(turns, turning * swing + (1 - turning) * along)


def pose_moves(scene: LatentScene, poses: np.ndarray) -> RigidMoves:
    """Matrices [K,4,4] that move the part from rest, as moves of K + 1 frames."""
    middle, poses = np.asarray(_middle(scene), np.float64), np.asarray(poses, np.float64)
    turns = Rotation.from_matrix(poses[:, :3, :3]).as_rotvec()
    shifts = poses[:, :3, :3] @ middle + poses[:, :3, 3] - middle
    return RigidMoves(jnp.asarray(turns, jnp.float32), jnp.asarray(shifts, jnp.float32) / scene.size)


def _middle(scene: LatentScene) -> Array:
    """Mean [3] of the part's points at rest."""
    return scene.gaussians.means[-scene.num_moving :].mean(axis=0)


def part_clouds(scene: LatentScene, moves: Moves) -> Array:
    """The part's points in every frame [F,P,3], the clouds that a joint is sought in."""
    rest = scene.gaussians.means[-scene.num_moving :]
    if isinstance(moves, FreeMoves):
        later = rest + moves.offsets * scene.size
    else:
        moves, middle = to_rigid(scene, moves), _middle(scene)
        turns = quaternion.from_axis_angle(moves.turns)[:, None]
        later = quaternion.rotate(turns, rest - middle) + middle + moves.shifts[:, None] * scene.size
    return jnp.concatenate([rest[None], later])


def draw_latents(
    gaussians: Gaussians,
    features: Array,
    background: Array,
    camera: Camera,
    *,
    size: Array,
    blend: Blend = composite,
) -> Array:
    """One picture of Gaussians [N] with features [N,C], C up to 7: [H,W,C], the background [C] behind them."""
    channels = features.shape[-1]
    padded = jnp.pad(features, ((0, 0), (0, NUM_FEATURES - channels)))
    splats = project(gaussians, camera).replace(features=padded)
    drawn, clear = blend(splats, height=camera.height, width=camera.width, size=size)
    return drawn[..., :channels] + clear[..., None] * background


def draw_video(scene: LatentScene, moves: Moves, cameras: Camera, *, blend: Blend = composite) -> Array:
    """Latents [V,F,H,W,C] of all frames from V views, whose arrays are stacked."""
    clouds, still = part_clouds(scene, moves), scene.gaussians
    turns = jnp.zeros((len(clouds) - 1, 3)) if isinstance(moves, FreeMoves) else to_rigid(scene, moves).turns
    quats = quaternion.from_axis_angle(jnp.concatenate([jnp.zeros((1, 3)), turns]))
    start = len(still.means) - scene.num_moving

    def draw_frame(row: tuple[Array, Array]) -> Array:
        cloud, quat = row
        turned = quaternion.multiply(quat, still.quats[start:])
        moved = still.replace(means=still.means.at[start:].set(cloud), quats=still.quats.at[start:].set(turned))
        draw = partial(draw_latents, moved, scene.features, scene.background, size=scene.size, blend=blend)
        return jax.lax.map(draw, cameras)

    return jnp.moveaxis(jax.lax.map(draw_frame, (clouds, quats)), 0, 1)


def shape_video(scene: LatentScene, moves: Moves, cameras: Camera) -> jax.ShapeDtypeStruct:
    """Shape and type of what `draw_video` draws, without drawing it."""
    shape: jax.ShapeDtypeStruct = jax.eval_shape(partial(draw_video, cameras=cameras), scene, moves)
    return shape


def distill(
    predict: Predict,
    key: Array,
    scene: LatentScene,
    moves: M,
    cameras: Camera,
    *,
    steps: int,
    rate: float = LEARNING_RATE,
    weight: str = "sigma2",
    prediction: Prediction = "epsilon",
    stiffness: float = STIFFNESS,
    paired: bool = True,
    blend: Blend = composite,
) -> M:
    """Moves that a frozen model finds likely (Eq. 7), by Adam, with timesteps that narrow (`distillation.anneal`).

    Args:
      predict: the model with its condition, guided or not: noisy latents [V,F,H,W,C], timestep [] -> [V,F,H,W,C].
      key: of noise and timesteps.
      scene: with a look, see `look.fit_look`.
      moves: to begin with.
      cameras: the V views, at the size of the latents.
      steps: of Adam.
      rate: of it to begin with, from which it falls to `FINAL_RATE` of it; lengths are in object sizes.
      weight: w(t), one of `distillation.WEIGHTS`.
      prediction: what the model predicts.
      stiffness: how much free points keep the distances of their neighbours; the paper has 0, with which those that
        hardly show wander off.
      paired: whether a step takes its noise with either sign, two predictions, of which most of the noise goes.
      blend: what draws the Gaussians.
    """
    options: Any = dict(
        rate=rate, weight=weight, prediction=prediction, stiffness=stiffness, paired=paired, blend=blend
    )
    return distill_each(predict, key, scene, [moves], cameras, steps=steps, **options)[0]


def distill_each(
    predict: Predict,
    key: Array,
    scene: LatentScene,
    starts: Sequence[M],
    cameras: Camera,
    *,
    steps: int,
    rate: float = LEARNING_RATE,
    weight: str = "sigma2",
    prediction: Prediction = "epsilon",
    stiffness: float = STIFFNESS,
    paired: bool = True,
    blend: Blend = composite,
) -> list[M]:
    """`distill` from several starts of one kind, under the same noise."""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps, FINAL_RATE))
    near = None
    if isinstance(starts[0], FreeMoves) and stiffness:
        near = find_neighbors(np.asarray(scene.gaussians.means[-scene.num_moving :]))
    call, arrays = separate(predict, shape_video(scene, starts[0], cameras))
    options: Any = dict(weight=weight, prediction=prediction)
    given = (scene, cameras, arrays, near)  # handed to the program, which so is the same for all objects

    def loss(moves: M, given: Any, keys: Array, progress: Array) -> Array:
        scene, cameras, arrays, near = given
        drawn = draw_video(scene, moves, cameras, blend=blend)
        timestep = draw_timestep(keys[0], *anneal(progress))
        noise = jax.random.normal(keys[1], drawn.shape)
        signs = (noise, -noise) if paired else (noise,)
        model = partial(call, arrays)
        found = [distillation_gradient(model, drawn, each, timestep, **options) for each in signs]
        total = distillation_loss(drawn, jnp.mean(jnp.stack(found), axis=0))
        if near is None:
            return total
        rest = scene.gaussians.means[-scene.num_moving :]
        pull = jax.vmap(lambda places: stretch(places, neighbors=near, rest=rest, size=scene.size))
        return total + stiffness * jnp.mean(pull(part_clouds(scene, moves)[1:]))

    @jax.jit
    def run(moves: M, given: Any, rows: tuple[Array, Array]) -> M:
        def step(carry: tuple[M, Any], row: tuple[Array, Array]) -> tuple[tuple[M, Any], None]:
            moves, state = carry
            slopes = jax.grad(loss)(moves, given, jax.random.split(row[0]), row[1])
            changes, state = optimizer.update(slopes, state, moves)
            return (optax.apply_updates(moves, changes), state), None

        ended: M = jax.lax.scan(step, (moves, optimizer.init(moves)), rows)[0][0]
        return ended

    rows = (jax.random.split(key, steps), jnp.linspace(0, 1, steps))
    return [run(moves, given, rows) for moves in starts]
