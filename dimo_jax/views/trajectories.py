"""Key point trajectories: drawn over a picture, and as arrays in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import chex
import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera
from dimo_jax.io.images import check_frames
from dimo_jax.io.npz import read_npz
from dimo_jax.runtime.files import replace_file

_NEAR = 0.01
_FORMAT_VERSION = 1
_SUPERSAMPLE = 4


def project_points(points: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Projects world points to pixels (OpenCV pinhole, pixel centres at +0.5).

    Args:
      points: [...,3] world units.
      camera: one camera, without batch axes.

    Returns:
      Pixels [...,2] (x right, y down) and camera z [...]. Pixels of points with z under 0.01 mean nothing.
    """
    pose = np.asarray(camera.world_to_camera, np.float32)
    chex.assert_shape(pose, (4, 4))
    local = np.asarray(points, np.float32) @ pose[:3, :3].T + pose[:3, 3]
    depth = local[..., 2]
    focal = np.broadcast_to(np.asarray(camera.focal, np.float32), (2,))
    pixels = local[..., :2] / np.maximum(depth, _NEAR)[..., None] * focal + np.asarray(camera.center, np.float32)
    return pixels, depth


def _rank_along_main_axis(points: np.ndarray) -> np.ndarray:
    # Neighbours in space get neighbouring colours, whatever the order of the key points.
    centered = points - points.mean(axis=0)
    axis = np.linalg.svd(centered, full_matrices=False)[2][0]
    axis = axis * np.sign(axis[np.abs(axis).argmax()])  # else two pictures of one object may have opposite colours
    order = np.argsort(centered @ axis, kind="stable")
    ranks = np.empty(len(points), np.float32)
    ranks[order] = np.linspace(0, 1, len(points)) if len(points) > 1 else 0.5
    return ranks


def color_points(points: np.ndarray) -> np.ndarray:
    """Colours [K,3] uint8 by which points [K,3] are told apart: neighbours along their main axis are alike."""
    values = 0.08 + 0.84 * _rank_along_main_axis(points)  # without the ends of the map, which are nearly black
    return (matplotlib.colormaps["turbo"](values)[..., :3] * 255).round().astype(np.uint8)


def _segment_colors(trajectories: np.ndarray, color_by: str) -> np.ndarray:
    """Colours [T,K,3] in 0..255, one per key point and time."""
    num_times, num_points = trajectories.shape[:2]
    if color_by == "key_point":
        return np.broadcast_to(color_points(trajectories[0]), trajectories.shape)
    # The ends of these maps, nearly black or pale yellow, are left out: they vanish on the object or the background.
    if color_by == "time":
        values, name = 0.88 * np.linspace(0, 1, num_times)[:, None], "plasma"
    elif color_by == "length":
        length = np.linalg.norm(np.diff(trajectories, axis=0), axis=-1).sum(axis=0)
        values, name = 0.85 * length / max(float(length.max()), 1e-12), "viridis"
    else:
        raise ValueError(f"color_by is {color_by!r}, expected 'key_point', 'time' or 'length'")
    return (
        (matplotlib.colormaps[name](np.broadcast_to(values, (num_times, num_points)))[..., :3] * 255)
        .round()
        .astype(np.uint8)
    )


def _draw_overlay(
    pixels: np.ndarray, depth: np.ndarray, colors: np.ndarray, fade: np.ndarray, size: tuple[int, int], width: float
) -> Image.Image:
    """Lines and end points on a transparent picture, drawn large and shrunk, which smooths their edges."""
    scale = _SUPERSAMPLE
    overlay = Image.new("RGBA", (size[0] * scale, size[1] * scale))
    draw = ImageDraw.Draw(overlay)
    points, radius = pixels * scale, width * scale / 2
    visible = depth >= _NEAR

    def disk(t: int, k: int, r: float, alpha: int) -> None:
        x, y = points[t, k]
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(*colors[t, k].tolist(), alpha))

    last = len(points) - 1
    for k in np.argsort(-depth[last], kind="stable"):  # far trajectories first, so that near ones cover them
        for t in range(last):
            if not (visible[t, k] and visible[t + 1, k]):
                continue
            alpha = round(255 * float(fade[t + 1]))
            ends = (*points[t, k].tolist(), *points[t + 1, k].tolist())
            draw.line(ends, fill=(*colors[t + 1, k].tolist(), alpha), width=max(1, round(2 * radius)))
            disk(t + 1, k, radius, alpha)  # rounds the joint
        if visible[last, k]:
            disk(last, k, 2.2 * radius, 255)
    return overlay.resize(size, Image.Resampling.BOX)


def draw_trajectories(
    trajectories: np.ndarray,
    camera: Camera,
    background: np.ndarray,
    *,
    color_by: str = "key_point",
    num_tail: int | None = None,
    line_width: float = 2.0,
    dim: float = 0.35,
    dim_to: Sequence[float] | np.ndarray = (1.0, 1.0, 1.0),
) -> np.ndarray:
    """Draws the path of every key point up to its last position: a polyline that fades with age, and a dot at its end.

    Segments with an end nearer than 0.01 in front of the camera, or behind it, are not drawn. Nothing is hidden by
    the object: paths lie over the picture, nearer ones over farther ones.

    Args:
      trajectories: [T,K,3] world units, in order of time; T = 1 draws dots only. Must be finite.
      camera: one camera, whose height and width may differ from the background's: pixels are scaled to it.
      background: [H,W,3] uint8, by custom the picture of the last time.
      color_by: "key_point" (neighbours along the object's main axis at the first time are alike), "time" (dark to
        bright), or "length" (of the path, relative to the longest).
      num_tail: only the last so many positions; None for all.
      line_width: pixels of the result.
      dim: how far the background is blended to `dim_to`, 0..1, so that lines stand out.
      dim_to: [3] in 0..1, what lies behind the object: white, or a dark ground that shall stay dark.

    Returns:
      [H,W,3] uint8.
    """
    background = check_frames(background, rank=3)
    overlay = _make_overlay(trajectories, camera, background.shape[:2], color_by, num_tail, line_width)
    faint = background.astype(np.float32) * (1 - dim) + 255 * dim * np.asarray(dim_to, np.float32)
    base = Image.fromarray(faint.round().astype(np.uint8)).convert("RGBA")
    return np.asarray(Image.alpha_composite(base, overlay).convert("RGB"))


def draw_trajectory_overlay(
    trajectories: np.ndarray,
    camera: Camera,
    picture: np.ndarray,
    *,
    color_by: str = "key_point",
    num_tail: int | None = None,
    line_width: float = 2.0,
) -> np.ndarray:
    """`draw_trajectories` over a picture [H,W,4] with straight alpha, which is not blended to white: [H,W,4] uint8."""
    picture = check_frames(picture, rank=3, channels=(4,))
    overlay = _make_overlay(trajectories, camera, picture.shape[:2], color_by, num_tail, line_width)
    return np.asarray(Image.alpha_composite(Image.fromarray(np.ascontiguousarray(picture)), overlay))


def _make_overlay(
    trajectories: np.ndarray,
    camera: Camera,
    size: tuple[int, ...],
    color_by: str,
    num_tail: int | None,
    line_width: float,
) -> Image.Image:
    """The paths on a transparent picture of `size` (height, width)."""
    trajectories = np.asarray(trajectories, np.float32)
    chex.assert_shape(trajectories, (None, None, 3))
    if not np.isfinite(trajectories).all() or not trajectories.size:
        raise ValueError(f"trajectories of shape {trajectories.shape} are empty or not finite")
    colors = _segment_colors(trajectories, color_by)
    if num_tail is not None:
        trajectories, colors = trajectories[-num_tail:], colors[-num_tail:]
    pixels, depth = project_points(trajectories, camera)
    height, width = size
    pixels = pixels * np.array([width / camera.width, height / camera.height], np.float32)
    # Far outside the picture a line looks the same; bounded coordinates keep the drawing program's integers valid.
    pixels = np.clip(pixels, -8.0 * max(height, width), 8.0 * max(height, width))
    fade = np.linspace(0.15, 1, len(trajectories)) ** 1.5 if len(trajectories) > 1 else np.ones(1)
    return _draw_overlay(pixels, depth, colors, fade, (width, height), line_width)


def draw_trajectory_video(
    trajectories: np.ndarray,
    camera: Camera,
    backgrounds: np.ndarray,
    *,
    num_tail: int | None = None,
    **options: Any,
) -> np.ndarray:
    """Draws `draw_trajectories` for every time: frame t shows the paths from the start, or a tail, up to t.

    Args:
      trajectories: [T,K,3] world units.
      camera: one camera for all frames.
      backgrounds: [T,H,W,3] uint8.
      num_tail: only the last so many positions; None for all.
      options: those of `draw_trajectories`. Colours by "time" and "length" are relative to what a frame shows.

    Returns:
      [T,H,W,3] uint8.
    """
    backgrounds = check_frames(backgrounds, rank=4)
    if len(backgrounds) != len(trajectories):
        raise ValueError(f"{len(backgrounds)} backgrounds for {len(trajectories)} times")
    frames = [
        draw_trajectories(trajectories[: t + 1], camera, background, num_tail=num_tail, **options)
        for t, background in enumerate(backgrounds)
    ]
    return np.stack(frames)


def write_trajectories(
    trajectories: np.ndarray,
    path: Path | str,
    *,
    names: Sequence[str],
    times: np.ndarray,
    positions: np.ndarray,
    radii: np.ndarray,
) -> Path:
    """Writes key point trajectories as a compressed npz that needs no pickle to read. Atomic.

    Fields: `version` int32 (1); `trajectories` float32 [M,T,K,3] world units, +Y up; `names` unicode [M]; `times`
    float32 [T] in 0..1; `positions` float32 [K,3], canonical; `radii` float32 [K], control radii in world units.

    Args:
      trajectories: [M,T,K,3].
      path: the file to write, ending in `.npz`.
      names: M names of motions.
      times: [T].
      positions: [K,3].
      radii: [K].

    Returns:
      `path`.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"{path}: expected a name ending in .npz")
    fields: dict[str, Any] = {
        "trajectories": np.asarray(trajectories, np.float32),
        "times": np.asarray(times, np.float32),
        "positions": np.asarray(positions, np.float32),
        "radii": np.asarray(radii, np.float32),
    }
    num_motions, num_times, num_points = fields["trajectories"].shape[:3]
    expected = [(num_motions, num_times, num_points, 3), (num_times,), (num_points, 3), (num_points,)]
    chex.assert_shape(list(fields.values()), expected)
    if len(names) != num_motions:
        raise ValueError(f"{len(names)} names for {num_motions} motions")
    with replace_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, version=np.int32(_FORMAT_VERSION), names=np.array(list(names), np.str_), **fields)
    return path


def read_trajectories(path: Path | str) -> dict[str, np.ndarray]:
    """Reads what `write_trajectories` wrote: its fields by name. Nothing is unpickled.

    Raises:
      UserError: no such file, or not one of this version.
    """
    fields = read_npz(path, "trajectories as npz")
    version = fields.get("version", np.zeros(0))
    if version.shape != () or version != _FORMAT_VERSION:
        said = str(version)[:40] if version.size else "none"
        raise UserError(f"{path}: found version {said}, expected trajectories of version {_FORMAT_VERSION}")
    tracks = fields.get("trajectories", version)
    motions, times, points = tracks.shape[:3] if tracks.ndim == 4 else (0, 0, 0)
    shapes = {"trajectories": (motions, times, points, 3), "names": (motions,), "times": (times,)}
    for name, shape in (shapes | {"positions": (points, 3), "radii": (points,)}).items():
        if name not in fields:
            raise UserError(f"{path}: {name} is missing, expected {list(shape)}")
        found = fields[name]
        if found.shape != shape or found.dtype.kind != ("U" if name == "names" else "f"):
            raise UserError(f"{path}: {name} is {found.dtype} {list(found.shape)}, expected {list(shape)}")
    return fields
