"""Clips of a rigged model as strips of pictures: moments from left to right, from two sides."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.cameras.surround import surround
from dimo_jax.io.images import grid
from dimo_jax.meshes.renderer import render_mesh
from dimo_jax.rigs.forward import Pose, Rig
from dimo_jax.rigs.scene import Scene
from dimo_jax.rigs.skinned import make_surface, pose_surface

NUM_MOMENTS, SIZE = 8, 140
AZIMUTHS = (30.0, 120.0)
PAPER = 246.0


def draw_strip(
    scene: Scene, rig: Rig, poses: Sequence[Pose], names: Sequence[str], *, azimuths: Sequence[float] = AZIMUTHS,
    size: int = SIZE, num_moments: int = NUM_MOMENTS,
) -> np.ndarray:  # fmt: skip
    """A picture [H,W,3] uint8 with a row for each clip and side, each clip framed alone.

    Args:
      scene: of the model.
      rig: of it.
      poses: of the clips, leading axis T.
      names: of the clips.
      azimuths: of the cameras.
      size: of a moment, in pixels.
      num_moments: of a clip, evenly from its first to its last frame.
    """
    surface, rows = make_surface(scene, rig), []
    for pose in poses:
        count = len(pose.translations)
        moments = np.linspace(0, count - 1, num_moments).round().astype(int)
        some = jax.tree.map(lambda x, moments=moments: jnp.asarray(x)[moments], pose)
        vertices = np.asarray(pose_surface(rig, surface, some), np.float64)
        cameras = surround(vertices, height=size, width=size, azimuths_deg=tuple(azimuths))
        for view in range(len(azimuths)):
            camera = jax.tree.map(lambda x, view=view: np.asarray(x)[view], cameras)
            images = np.stack([render_mesh(each, scene.mesh, camera) for each in vertices])
            alpha = images[..., 3:].astype(np.float32) / 255
            rows.append(np.rint(images[..., :3] * alpha + PAPER * (1 - alpha)).astype(np.uint8))
    labels = [name for name in names for _ in azimuths]
    return grid(np.stack(rows), row_labels=labels)
