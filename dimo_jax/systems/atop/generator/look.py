"""The look of a scene of Gaussians, fitted to latents of the mesh with its part in many places.

What only a motion shows (the inside of a drawer, the screen of a laptop) has no look where pictures of the rest state
alone are fitted, and a model's score then prefers what is wrong. The object is a mesh that can be drawn with the part
anywhere, so it is fitted there, whatever encoder made the latents.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dimo_jax.core.types import Array, Camera
from dimo_jax.geometry.joint import REVOLUTE
from dimo_jax.meshes.boxes import smallest_box
from dimo_jax.meshes.objects import ObjectMesh, bounds, join_objects
from dimo_jax.meshes.renderer import render_mesh
from dimo_jax.systems.atop.seen.course import to_poses
from dimo_jax.systems.atop.seen.layers import split_cameras
from dimo_jax.systems.atop.seen.paper import propose_lines
from dimo_jax.systems.atop.seen.splats import Blend, composite

from .latents import LatentScene, RigidMoves, draw_video

TURN, SLIDE = np.pi / 3, 0.3  # how far the part goes along each line of its box: radians, object diagonals
STEPS, RATE = 300, 0.05
POSES = 2  # that a step looks at
PULL = 1e-3  # towards the mean look: else Adam drives features that hardly show as far as any


def spread_poses(body: ObjectMesh, part: ObjectMesh) -> np.ndarray:
    """Matrices [K,4,4] of the part at rest, then both ways along the lines of its box (`paper.propose_lines`)."""
    size = bounds(join_objects([body, part]).vertices)[2]
    poses = [np.eye(4)[None]]
    for line in propose_lines(smallest_box(part.vertices), 2):
        far = TURN if line.type == REVOLUTE else SLIDE * size
        poses.append(to_poses(replace(line, values=np.array([-far, far]))))
    return np.concatenate(poses)


def show_poses(body: ObjectMesh, part: ObjectMesh, poses: np.ndarray, cameras: Camera) -> np.ndarray:
    """Pictures [V,K,H,W,4] uint8 of the object with its part moved by matrices [K,4,4]."""
    whole, still = join_objects([body, part]), len(body.vertices)
    views = split_cameras(cameras)
    shown = []
    for pose in poses:
        vertices = whole.vertices.copy()
        vertices[still:] = vertices[still:] @ pose[:3, :3].T + pose[:3, 3]
        shown.append([render_mesh(vertices, whole.mesh, view) for view in views])
    return np.stack(shown, axis=1)


def fit_look(
    scene: LatentScene,
    latents: Array,
    moves: RigidMoves,
    cameras: Camera,
    *,
    steps: int = STEPS,
    seed: int = 0,
    blend: Blend = composite,
) -> LatentScene:
    """The scene with the look of pictures: its features, and sizes and opacities of its Gaussians.

    Args:
      scene: at rest.
      latents: [V,K,H,W,C] of pictures with the part in K poses; their corners are taken for the background.
      moves: the K poses, as `latents.pose_moves` has them.
      cameras: the V views, at the size of the latents.
      steps: of Adam, each on `POSES` of the poses.
      seed: of which.
      blend: what draws the Gaussians.
    """
    corners = latents[..., jnp.array([0, 0, -1, -1]), jnp.array([0, -1, 0, -1]), :]
    scene = scene.replace(background=jnp.median(corners.reshape(-1, latents.shape[-1]), axis=0))
    mean = jnp.mean(latents, axis=(0, 1, 2, 3))
    start = {name: getattr(scene.gaussians, name) for name in ("log_scales", "logit_opacities")}
    start["features"] = jnp.tile(mean, (len(scene.features), 1))
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, steps))

    given = (scene, latents, moves, cameras)  # handed to the program, which so is the same for all objects

    def put(look: dict[str, Array], scene: LatentScene) -> LatentScene:
        shape = {name: value for name, value in look.items() if name != "features"}
        return scene.replace(features=look["features"], gaussians=scene.gaussians.replace(**shape))

    def loss(look: dict[str, Array], given: Any, rows: Array) -> Array:
        scene, latents, moves, cameras = given
        some = jax.tree.map(lambda each: each[rows], moves)
        drawn = draw_video(put(look, scene), some, cameras, blend=blend)[:, 1:]
        pull = jnp.mean((look["features"] - jnp.mean(latents, axis=(0, 1, 2, 3))) ** 2)
        return jnp.mean((drawn - latents[:, rows]) ** 2) + PULL * pull

    @jax.jit
    def run(look: dict[str, Array], given: Any, keys: Array) -> dict[str, Array]:
        def step(carry: tuple[dict[str, Array], Any], key: Array) -> tuple[tuple[dict[str, Array], Any], None]:
            look, state = carry
            rows = jax.random.randint(key, (POSES,), 0, latents.shape[1])
            changes, state = optimizer.update(jax.grad(loss)(look, given, rows), state)
            return (optax.apply_updates(look, changes), state), None

        fitted: dict[str, Array] = jax.lax.scan(step, (look, optimizer.init(look)), keys)[0][0]
        return fitted

    return put(run(start, given, jax.random.split(jax.random.key(seed), steps)), scene)
