"""Gaussians with features of their own, drawn as latents (ATOP Sec. 4.3.1, 4.4.3), and moved by a model's score.

Features are the latents' channels instead of colours. Body and first frame stand still; in every later frame the part's
points move freely, as in the paper, or as one rigid part.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dimo_jax.core.types import Array, Camera, Gaussians
from dimo_jax.diffusion.ddim import Predict
from dimo_jax.diffusion.distillation import anneal, distillation_gradient, distillation_loss, draw_timestep
from dimo_jax.diffusion.noise import Prediction
from dimo_jax.geometry import quaternion
from dimo_jax.meshes.objects import ObjectMesh
from dimo_jax.render.project import project
from dimo_jax.render.rasterize.api import NUM_FEATURES
from dimo_jax.systems.atop.seen.clouds import surface_of
from dimo_jax.systems.atop.seen.splats import COUNT, Blend, composite, find_neighbors, place_gaussians, stretch

SIZE = 32  # rows and columns of latents
LEARNING_RATE = 5e-3  # of the paper's Adam, lengths in object diagonals
LOOK_STEPS, LOOK_RATE = 200, 0.05
LOOK_PULL = 1e-3  # towards the mean look: else Adam drives features that hardly show as far as any
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


Moves = FreeMoves | RigidMoves


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


def part_clouds(scene: LatentScene, moves: Moves) -> Array:
    """The part's points in every frame [F,P,3], the clouds that a joint is sought in."""
    rest = scene.gaussians.means[-scene.num_moving :]
    if isinstance(moves, FreeMoves):
        later = rest + moves.offsets * scene.size
    else:
        middle = rest.mean(axis=0)
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
    turns = jnp.zeros((len(clouds) - 1, 3)) if isinstance(moves, FreeMoves) else moves.turns
    quats = quaternion.from_axis_angle(jnp.concatenate([jnp.zeros((1, 3)), turns]))
    start = len(still.means) - scene.num_moving

    def draw_frame(row: tuple[Array, Array]) -> Array:
        cloud, quat = row
        turned = quaternion.multiply(quat, still.quats[start:])
        moved = still.replace(means=still.means.at[start:].set(cloud), quats=still.quats.at[start:].set(turned))
        draw = partial(draw_latents, moved, scene.features, scene.background, size=scene.size, blend=blend)
        return jax.lax.map(draw, cameras)

    return jnp.moveaxis(jax.lax.map(draw_frame, (clouds, quats)), 0, 1)


def fit_features(
    scene: LatentScene, latents: Array, cameras: Camera, *, steps: int = LOOK_STEPS, blend: Blend = composite
) -> LatentScene:
    """The scene with the look of the rest state.

    Args:
      scene: at rest.
      latents: [V,H,W,C] of its pictures; their corners are taken for the background.
      cameras: the V views of them, at the size of the latents.
      steps: of Adam.
      blend: what draws the Gaussians.
    """
    corners = latents[:, jnp.array([0, 0, -1, -1]), jnp.array([0, -1, 0, -1])]
    scene = scene.replace(background=jnp.median(corners.reshape(-1, latents.shape[-1]), axis=0))
    optimizer, still = optax.adam(LOOK_RATE), rigid_moves(1)
    start = jnp.tile(jnp.mean(latents, axis=(0, 1, 2)), (len(scene.features), 1))

    def loss(features: Array) -> Array:
        drawn = draw_video(scene.replace(features=features), still, cameras, blend=blend)[:, 0]
        return jnp.mean((drawn - latents) ** 2) + LOOK_PULL * jnp.mean((features - start) ** 2)

    def step(carry: tuple[Array, Any], _: None) -> tuple[tuple[Array, Any], None]:
        features, state = carry
        slopes, state = optimizer.update(jax.grad(loss)(features), state)
        return (optax.apply_updates(features, slopes), state), None

    features = jax.jit(lambda x: jax.lax.scan(step, (x, optimizer.init(x)), None, length=steps)[0][0])(start)
    return scene.replace(features=features)


def distill(
    predict: Predict,
    key: Array,
    scene: LatentScene,
    moves: Moves,
    cameras: Camera,
    *,
    steps: int,
    rate: float = LEARNING_RATE,
    weight: str = "sigma2",
    prediction: Prediction = "epsilon",
    stiffness: float = STIFFNESS,
    blend: Blend = composite,
) -> Moves:
    """Moves that a frozen model finds likely (Eq. 7), by Adam, with timesteps that narrow (`distillation.anneal`).

    Args:
      predict: the model with its condition, guided or not: noisy latents [V,F,H,W,C], timestep [] -> [V,F,H,W,C].
      key: of noise and timesteps.
      scene: with a look, see `fit_features`.
      moves: to begin with.
      cameras: the V views, at the size of the latents.
      steps: of Adam.
      rate: of it; lengths are in object sizes.
      weight: w(t), one of `distillation.WEIGHTS`.
      prediction: what the model predicts.
      stiffness: how much free points keep the distances of their neighbours; the paper has 0, with which those that
        hardly show wander off.
      blend: what draws the Gaussians.
    """
    optimizer = optax.adam(rate)
    rest = scene.gaussians.means[-scene.num_moving :]
    near = find_neighbors(np.asarray(rest)) if isinstance(moves, FreeMoves) and stiffness else None

    def loss(moves: Moves, keys: Array, progress: Array) -> Array:
        drawn = draw_video(scene, moves, cameras, blend=blend)
        timestep = draw_timestep(keys[0], *anneal(progress))
        noise = jax.random.normal(keys[1], drawn.shape)
        found = distillation_gradient(predict, drawn, noise, timestep, weight=weight, prediction=prediction)
        total = distillation_loss(drawn, found)
        if near is None:
            return total
        pull = jax.vmap(lambda places: stretch(places, neighbors=near, rest=rest, size=scene.size))
        return total + stiffness * jnp.mean(pull(part_clouds(scene, moves)[1:]))

    def step(carry: tuple[Moves, Any], row: tuple[Array, Array]) -> tuple[tuple[Moves, Any], None]:
        moves, state = carry
        slopes = jax.grad(loss)(moves, jax.random.split(row[0]), row[1])
        changes, state = optimizer.update(slopes, state, moves)
        return (optax.apply_updates(moves, changes), state), None

    rows = (jax.random.split(key, steps), jnp.linspace(0, 1, steps))
    run = jax.jit(lambda moves, rows: jax.lax.scan(step, (moves, optimizer.init(moves)), rows)[0][0])
    found: Moves = run(moves, rows)
    return found
