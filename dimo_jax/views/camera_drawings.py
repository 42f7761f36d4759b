"""Drawings of a dataset: where its cameras stand, and what each of them sees first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Line3DCollection
from mpl_toolkits.mplot3d.axes3d import Axes3D

from dimo_jax.core.types import Camera
from dimo_jax.data.world import place_cameras
from dimo_jax.geometry.world import World
from dimo_jax.io.images import grid, write_png
from dimo_jax.io.matte import resize
from dimo_jax.runtime.files import replace_file

_COLORS = {"train": "#2563eb", "test": "#dc2626"}
_INK, _MUTED = "#20242c", "#6b7280"
_TILE = 96  # pixels of a picture's height in the contact sheet
_MAX_ROWS, _MAX_COLUMNS = 64, 40


def draw_rig(
    cameras: Camera,
    names: Sequence[str],
    splits: Sequence[str],
    path: Path | str,
    *,
    middle: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0),
) -> Path:
    """Draws cameras as pyramids over a ground plan of the world, y up; those of split "test" in red. Atomic.

    Args:
      cameras: world_to_camera [V,4,4], focal [V,2], center [V,2].
      names: [V].
      splits: [V] "train" or "test".
      path: the PNG to write.
      middle: [3] what stands in the middle of the drawing, where its axes are.
    """
    cameras = place_cameras(cameras, World(center=np.asarray(middle, np.float64)))
    poses = np.asarray(cameras.world_to_camera, np.float64)
    eyes = -np.einsum("vji,vj->vi", poses[:, :3, :3], poses[:, :3, 3])
    reach = max(float(np.linalg.norm(eyes, axis=1).max()), 1e-6)
    figure = Figure(figsize=(8, 6.5), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    axes = Axes3D(figure, rect=(0, 0, 1, 0.96))
    figure.add_axes(axes)
    for index, (name, split) in enumerate(zip(names, splits)):
        lines = _pyramid(cameras, index, 0.18 * reach)
        color = _COLORS.get(split, _INK)
        axes.add_collection3d(Line3DCollection(_to_plot(lines), colors=color, linewidths=1.2))
        outward = eyes[index] * 1.1
        axes.text(*_to_plot(outward), name, fontsize=8, color=color, ha="center", parse_math=False)
    for axis, label in zip(0.25 * reach * np.eye(3), "xyz"):
        axes.plot(*_to_plot(np.stack([np.zeros(3), axis])).T, color=_MUTED, linewidth=2)
        axes.text(*_to_plot(axis * 1.15), label, fontsize=9, color=_MUTED)
    ring = np.linspace(0, 2 * np.pi, 97)
    ground = reach * np.stack([np.sin(ring), 0 * ring, np.cos(ring)], axis=-1)
    axes.plot(*_to_plot(ground).T, color=_MUTED, linewidth=0.6, linestyle=":")
    limits = (-1.05 * reach, 1.05 * reach)
    axes.set(xlim=limits, ylim=limits, zlim=limits)
    axes.set_box_aspect((1, 1, 1), zoom=1.4)
    axes.set_axis_off()
    axes.view_init(elev=28, azim=35)
    where = "the origin" if not np.any(middle) else "(" + ", ".join(f"{x:.3g}" for x in middle) + ")"
    figure.suptitle(f"{len(names)} cameras, the farthest {reach:.3g} from {where} (red: held out)", color=_INK)
    with replace_file(path) as temporary:
        figure.savefig(temporary, format="png")
    return Path(path)


def _to_plot(points: np.ndarray) -> np.ndarray:
    """World coordinates [...,3], y up, as those of matplotlib, z up: (z, x, y)."""
    return points[..., [2, 0, 1]]


def _pyramid(cameras: Camera, index: int, depth: float) -> np.ndarray:
    """The eight edges [8,2,3] of what a camera sees up to a depth."""
    pose = np.asarray(cameras.world_to_camera[index], np.float64)
    focal, center = np.asarray(cameras.focal[index]), np.asarray(cameras.center[index])
    pixels = np.array([[0, 0], [cameras.width, 0], [cameras.width, cameras.height], [0, cameras.height]], np.float64)
    rays = np.concatenate([(pixels - center) / focal, np.ones((4, 1))], axis=-1)
    corners = (depth * rays - pose[:3, 3]) @ pose[:3, :3]
    eye = -pose[:3, 3] @ pose[:3, :3]
    sides = [(eye, corner) for corner in corners]
    return np.array(sides + [(corners[i], corners[(i + 1) % 4]) for i in range(4)])


def draw_contact_sheet(
    first_frames: Mapping[tuple[int, int], np.ndarray], names: Sequence[str], views: Sequence[str], path: Path | str
) -> tuple[int, int]:
    """Tiles the first frame of every motion (rows) and view (columns) over a chequered ground. Atomic.

    Args:
      first_frames: by motion and view, [H,W,4] uint8; one that is not there becomes a crossed-out tile.
      names: M motions.
      views: V views.
      path: the PNG to write.

    Returns:
      How many motions and views are shown: large sets are thinned evenly to 64 by 40.
    """
    rows, columns = _thin(len(names), _MAX_ROWS), _thin(len(views), _MAX_COLUMNS)
    sample = next(iter(first_frames.values()), np.zeros((1, 1, 4), np.uint8))
    width = min(4 * _TILE, max(_TILE // 4, round(_TILE * sample.shape[1] / sample.shape[0])))
    tiles = np.stack([
        np.stack([_tile(first_frames.get((m, v)), _TILE, width) for v in columns]) for m in rows
    ])  # fmt: skip
    sheet = grid(tiles, row_labels=[names[m] for m in rows], column_labels=[views[v] for v in columns])
    write_png(sheet, path)
    return len(rows), len(columns)


def _thin(count: int, most: int) -> list[int]:
    return list(range(count)) if count <= most else [round(x) for x in np.linspace(0, count - 1, most)]


def _tile(frame: np.ndarray | None, height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    if frame is None:
        crossed = np.abs(y * (width - 1) - x * (height - 1)) < height * 1.5
        crossed |= np.abs(y * (width - 1) - (width - 1 - x) * (height - 1)) < height * 1.5
        return np.where(crossed[..., None], [220, 38, 38], 240).astype(np.uint8)
    ground = np.where((y // 8 + x // 8) % 2, 216, 240)[..., None]
    small = resize(frame, height, width).astype(np.float32)
    alpha = small[..., 3:] / 255
    return np.round(small[..., :3] * alpha + ground * (1 - alpha)).astype(np.uint8)
