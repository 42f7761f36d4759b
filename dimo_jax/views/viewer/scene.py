"""Draws frames as nodes of a viser scene, each updated in place.

Colours are those of the spherical harmonics' degree 0: viser's splats have one colour each, seen from everywhere.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dimo_jax.core.types import Camera
from dimo_jax.views.trajectories import color_points
from dimo_jax.views.viewer.session import FINER, LAYERS, Choices, Frame, Motion, Session
from dimo_jax.views.viewer.through import draw_through

# Covariances travel as half floats, whose steps near 0 are 6e-8: those of small Gaussians, 1e-6 and less, would be cut
# to a few steps. So splats are sent this much larger, and shown at the inverse scale.
MAGNIFICATION = 64.0
_LARGEST_HALF = 65_504.0
_EDGE_COLOR = (90, 90, 100)


class Scene:
    """The nodes of one model: splats, key points, their trajectories, and the motion graph."""

    def __init__(self, server: Any, session: Session) -> None:
        """`server` is a `viser.ViserServer`."""
        positions = np.asarray(session.model.player.params.key_points.positions)
        count, num_key_points = len(session.opacities), len(positions)
        self._opacities = session.opacities[:, None]
        # The median, because some key points stray far from the object.
        unit = 0.01 * float(np.median(np.linalg.norm(positions - np.median(positions, axis=0), axis=-1)))
        add = server.scene
        add.set_up_direction("+y")
        background = (255 * np.asarray(session.model.player.background)).round().astype(np.uint8)
        add.set_background_image(np.tile(background, (2, 2, 1)), format="png")
        _look_through(server, session.model.camera())
        draw_through(server)
        self._splats = add.add_gaussian_splats(
            "/gaussians",
            centers=np.zeros((count, 3), np.float32),
            covariances=np.zeros((count, 3, 3), np.float32),
            rgbs=np.zeros((count, 3), np.float32),
            opacities=self._opacities,
            scale=1 / MAGNIFICATION,
        )
        rainbow = color_points(positions)
        style: dict[str, Any] = dict(point_size=4 * unit, point_shape="circle", precision="float32")
        self._points = add.add_point_cloud("/key_points", np.zeros_like(positions), rainbow, **style)
        num_steps = FINER * (session.num_frames - 1)
        trails = np.zeros((num_steps * num_key_points, 2, 3), np.float32)
        # Colours at the ends of lines are taken as linear light, those of points as they are.
        light = (255 * (rainbow / 255) ** 2.2).round().astype(np.uint8)
        colors = np.broadcast_to(light[:, None], (num_steps, num_key_points, 2, 3))
        self._trails = add.add_line_segments(
            "/trajectories", trails, colors.reshape(trails.shape), thickness=0.8 * unit
        )
        self._graph = add.add_line_segments("/graph", trails[:1], _EDGE_COLOR, thickness=0.6 * unit)
        self._nodes = dict(zip(LAYERS, (self._splats, self._points, self._trails, self._graph), strict=True))

    def show(self, motion: Motion, frame: Frame, choices: Choices) -> None:
        """Sends what has changed of the chosen layers; the others are hidden and cost nothing."""
        for layer, node in self._nodes.items():
            node.visible = layer in choices.layers
        if self._splats.visible:
            self._splats.set_gaussians(
                MAGNIFICATION * frame.means,
                np.clip(MAGNIFICATION**2 * frame.covariances, -_LARGEST_HALF, _LARGEST_HALF),
                frame.colors,
                choices.opacity * self._opacities,
            )
        if self._points.visible:
            self._points.points = frame.key_points
        if self._trails.visible:
            ends = np.stack([motion.paths[:-1], motion.paths[1:]], axis=2)  # [S-1,K,2,3]
            self._trails.points = ends.reshape(-1, 2, 3)
        if self._graph.visible:
            self._graph.points = frame.key_points[motion.edges]


def _look_through(server: Any, camera: Camera) -> None:
    """Lets every visitor begin where a camera stands, with its field of view."""
    pose = np.asarray(camera.world_to_camera, np.float64)
    eye, forward = -pose[:3, :3].T @ pose[:3, 3], pose[2, :3]
    server.initial_camera.position = tuple(eye)
    server.initial_camera.look_at = tuple(eye + max(0.1, -float(eye @ forward)) * forward)
    server.initial_camera.fov = 2 * math.atan(0.5 * camera.height / float(np.ravel(camera.focal)[-1]))
