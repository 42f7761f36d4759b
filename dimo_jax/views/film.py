"""Pictures of a motion in layers: colour, depth, normals and key points, each with alpha, from one camera path."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

from dimo_jax.core.types import Array, Camera, Gaussians, Rendering
from dimo_jax.io.images import to_uint8
from dimo_jax.io.motion import Motion
from dimo_jax.io.video import write_gif, write_png_sequence, write_video
from dimo_jax.render import render
from dimo_jax.runtime.progress import track
from dimo_jax.systems.dimo.player import Player
from dimo_jax.views.trajectories import draw_trajectories, draw_trajectory_overlay

TAIL = 8  # positions of a key point's path that are drawn


@functools.partial(jax.jit, static_argnames=("implementation", "dilation", "capacity"))
def _render(
    gaussians: Gaussians, camera: Camera, implementation: str | None, dilation: float, capacity: int | None
) -> tuple[Rendering, Array]:
    options: dict[str, Any] = dict(implementation=implementation, dilation=dilation, capacity=capacity)
    rendering = render(gaussians, camera, jnp.zeros(3), **options)
    return rendering, rendering.overflow


def expose(player: Player, motion: Motion, cameras: list[Camera]) -> dict[str, np.ndarray]:
    """Renders every frame over nothing.

    Args:
      player: chooses the backend; its buffers grow where they prove too small.
      motion: T frames.
      cameras: T of them.

    Returns:
      float32 `color` [T,H,W,3] (not multiplied by alpha), `alpha` [T,H,W], `depth` [T,H,W] camera z (0 where alpha is
      0), `normals` [T,H,W,3] unit vectors in camera axes (x right, y up, z towards the viewer; 0 where alpha is 0).
    """
    frames: dict[str, list[np.ndarray]] = {name: [] for name in ("color", "alpha", "depth", "normals")}
    for frame in track(range(motion.num_frames), motion.name, unit="frame"):
        camera = cameras[frame]
        gaussians = jax.tree.map(jnp.asarray, motion.at(frame))
        draw = functools.partial(_render, gaussians, camera, player.implementation, player.dilation)
        drawn = player.with_buffers(draw)
        alpha = np.asarray(drawn.alpha)
        divisor = np.maximum(alpha, 1e-6)
        to_viewer = np.asarray(camera.world_to_camera)[:3, :3] * np.array([[1.0], [-1.0], [-1.0]])
        normals = np.asarray(drawn.normal) @ to_viewer.T
        frames["color"].append(np.asarray(drawn.rgb) / divisor[..., None])
        frames["alpha"].append(alpha)
        frames["depth"].append(np.asarray(drawn.depth) / divisor)
        frames["normals"].append(normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6))
    return {name: np.stack(each).astype(np.float32) for name, each in frames.items()}


def draw_layers(
    player: Player, motion: Motion, cameras: list[Camera], *, layers: tuple[str, ...], background: np.ndarray | None
) -> np.ndarray:
    """The layers side by side.

    Args:
      player, motion, cameras: as in `expose`.
      layers: some of `LAYERS`. "depth" is coloured from near (red) to far (blue) over the whole motion, "normals" are
        (n + 1) / 2 in camera axes, and "key_points" are drawn over the colours with the tail of their paths.
      background: [3] in 0..1, or None for pictures with alpha.

    Returns:
      uint8 [T,H,W',3], or [T,H,W',4] with straight alpha where there is no background.
    """
    exposed = expose(player, motion, cameras)
    alpha = np.clip(exposed["alpha"], 0, 1)[..., None]
    tiles = []
    for layer in layers:
        if layer == "depth":
            pictures = _color_depth(exposed["depth"], alpha[..., 0])
        elif layer == "normals":
            pictures = 0.5 + 0.5 * exposed["normals"]
        else:
            pictures = exposed["color"]
        pictures = np.clip(pictures, 0, 1)
        if background is None:
            tile = to_uint8(np.concatenate([pictures * (alpha > 0), alpha], axis=-1))
        else:
            tile = to_uint8(pictures * alpha + background * (1 - alpha))
        tiles.append(_draw_key_points(motion, cameras, tile, background) if layer == "key_points" else tile)
    return np.concatenate(tiles, axis=2)


def _color_depth(depth: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    seen = depth[alpha > 0.5]
    near, far = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 1.0)
    share = np.clip((far - depth) / max(far - near, 1e-6), 0, 1)
    colors: np.ndarray = matplotlib.colormaps["turbo"](0.05 + 0.9 * share)[..., :3]
    return colors


def _draw_key_points(
    motion: Motion, cameras: list[Camera], tile: np.ndarray, background: np.ndarray | None
) -> np.ndarray:
    drawn = []
    for frame, (picture, camera) in enumerate(zip(tile, cameras)):
        tracks = motion.tracks[: frame + 1]
        if background is None:
            drawn.append(draw_trajectory_overlay(tracks, camera, picture, num_tail=TAIL))
        else:
            drawn.append(draw_trajectories(tracks, camera, picture, num_tail=TAIL, dim_to=background))
    return np.stack(drawn)


def write_frames(frames: np.ndarray, stem: Path, container: str, *, frame_rate: float) -> Path:
    """Writes `stem`.mp4, `stem`.gif, or a folder `stem`_png of numbered pictures; frames uint8 [T,H,W,3 or 4]."""
    if container == "png":
        folder = stem.with_name(f"{stem.name}_png")
        write_png_sequence(frames, folder)
        return folder
    if container == "gif":
        return write_gif(frames, stem.with_name(f"{stem.name}.gif"), frame_rate=frame_rate)
    return write_video(frames, stem.with_name(f"{stem.name}.mp4"), frame_rate=frame_rate)
