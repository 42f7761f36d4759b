"""A rigged, animated glTF model as a dataset: every clip a motion, seen from an orbit, with its true surface."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from dimo_jax.data.cameras import orbit
from dimo_jax.data.clip_passes import Attachment, Measure, Timing, each_clip, measure_clip, render_clip
from dimo_jax.data.dataset import Dataset, surface_height
from dimo_jax.data.framing import Framing, border_planes, fit_framing
from dimo_jax.data.gltf import Scene, load_scene, select_clips
from dimo_jax.data.gltf_animation import pose_scene
from dimo_jax.data.gltf_rig import Clip
from dimo_jax.errors import UserError
from dimo_jax.geometry.neighbors import farthest_points
from dimo_jax.types import Camera

STILL = 0.005  # share of the model's size that no vertex of a still pose moves


@dataclass(frozen=True)
class Studio:
    """The cameras and the quality of the pictures."""

    azimuths_deg: tuple[float, ...] = (0.0, 30.0, 75.0, 120.0, 165.0, 210.0, 255.0, 300.0, 330.0)  # views that train
    test_azimuths_deg: tuple[float, ...] = (50.0, 190.0)  # views held out
    elevation_deg: float = 10.0  # of all cameras, above the horizon
    radius: float = 2.0  # distance of the cameras from the origin, world units
    fov_deg: float = 33.9
    size: int = 128  # image height and width in pixels
    margin: float = 0.04  # share of the picture that stays free at each border
    samples: int = 2  # samples a pixel along each axis

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
          UserError: an option is out of range.
        """
        checks = (
            ("azimuths_deg", len(self.azimuths_deg) >= 1, "at least one view"),
            ("elevation_deg", -90 <= self.elevation_deg <= 90, "-90..90"),
            ("radius", self.radius >= 0.1, "0.1 or more"),
            ("fov_deg", 1 <= self.fov_deg <= 120, "1..120"),
            ("size", 8 <= self.size <= 4096, "8..4096"),
            ("margin", 0 <= self.margin < 0.4, "0..0.4"),
            ("samples", 1 <= self.samples <= 8, "1..8"),
        )
        for name, valid, expected in checks:
            if not valid:
                raise UserError(f"{name}: found {getattr(self, name)!r}, expected {expected}")

    def cameras(self) -> Camera:
        """All views, those that train first."""
        azimuths = (*self.azimuths_deg, *self.test_azimuths_deg)
        return orbit(
            azimuths,
            (self.elevation_deg,),
            radius=self.radius,
            fov_deg=self.fov_deg,
            height=self.size,
            width=self.size,
        )


def choose_surface(scene: Scene, *, num_points: int) -> Attachment:
    """Points that stand for the visible surface: its vertices at rest, then places spread over its triangles by area.

    A low-poly model's vertices alone leave wide gaps. Vertices that share a place count once; where there are more of
    them than half of `num_points`, farthest point sampling thins them to that.
    """
    rest, triangles = pose_scene(scene, None, 0.0), scene.mesh.triangles
    used = np.unique(triangles)
    used = used[np.unique(rest[used].astype(np.float32), axis=0, return_index=True)[1]]
    picked = farthest_points(jnp.asarray(rest[used], jnp.float32), num_points=min(-(-num_points // 2), len(used)))
    vertices = np.sort(used[np.asarray(picked)])
    a, b, c = (rest[triangles[:, corner]] for corner in range(3))
    areas = np.cumsum(np.linalg.norm(np.cross(b - a, c - a), axis=-1))
    rng = np.random.default_rng(0)
    count = num_points - len(vertices)
    # One place in each of `count` equal shares of the area, which covers the surface more evenly than free choice.
    shares = (np.arange(count) + rng.uniform(size=count)) / count * areas[-1]
    corners = triangles[np.minimum(np.searchsorted(areas, shares, side="right"), len(triangles) - 1)]
    across = rng.uniform(size=(count, 2))
    across = np.where(across.sum(axis=-1, keepdims=True) > 1, 1 - across, across)
    return Attachment(
        corners=np.concatenate([np.repeat(vertices[:, None], 3, axis=1), corners]),
        weights=np.concatenate(
            [np.tile([1.0, 0.0, 0.0], (len(vertices), 1)), np.column_stack([1 - across.sum(axis=-1), across])]
        ),
    )


def humanize(name: str) -> str:
    """A caption from a clip's name: "Armature|Walking_A" -> "walking a", "RunFast" -> "run fast"."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])|[\W_]+", " ", name.rsplit("|", 1)[-1])
    return " ".join(words.lower().split()) or name


def name_motions(clips: Sequence[Clip]) -> tuple[str, ...]:
    """Folder names for clips: letters, digits, dot, dash and underscore, distinct even where case is not kept."""
    names: list[str] = []
    for clip in clips:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", clip.name).strip("._")[:80] or "motion"
        name, number = stem, 2
        while name.lower() in {other.lower() for other in names}:
            name, number = f"{stem}_{number}", number + 1
        names.append(name)
    return tuple(names)


def import_gltf(
    source: str | Path,
    *,
    clips: Sequence[str] = (),
    hide: Sequence[str] = (),
    test_clips: Sequence[str] = (),
    timing: Timing | None = None,
    studio: Studio | None = None,
    num_surface_points: int = 8192,
    num_workers: int = 1,
    report: Callable[[str], None] = lambda line: None,
) -> Dataset:
    """Renders a model's clips as a dataset.

    Args:
      source: a .glb or .gltf file.
      clips: patterns of clip names; none takes every clip that moves, and the still poses left out are reported.
      hide: patterns of node names to leave out, see `load_scene`.
      test_clips: patterns of clips whose split is "test".
      timing: how many frames a clip has, and what becomes of its travel.
      studio: cameras and picture size.
      num_surface_points: points whose trajectories are kept as `surface`, see `choose_surface`.
      num_workers: processes. With more than one, the calling script must be importable (`if __name__ == "__main__"`).
      report: takes one line at a time about what is found and left out.

    Returns:
      The dataset. Positions are in world units, in which the model is scaled and moved as a whole; `frame_rate` is that
      of the clip of median length, as every clip has the same number of frames.

    Raises:
      UserError: the model is malformed, a pattern matches nothing, or an option is out of range.
    """
    timing, studio = timing or Timing(), studio or Studio()
    if num_surface_points < 1 or num_workers < 1:
        raise UserError(
            f"num_surface_points, num_workers: found {num_surface_points}, {num_workers}, expected 1 or more"
        )
    scene = load_scene(source, hide=hide)
    chosen = select_clips(scene, clips) if clips else scene.clips
    held_out = {clip.name for clip in select_clips(scene, test_clips)} if test_clips else set()
    _report_scene(scene, report)
    cameras = studio.cameras()
    normals, offsets = border_planes(cameras, margin=studio.margin)
    points = choose_surface(scene, num_points=num_surface_points)
    measure = partial(measure_clip, timing=timing, normals=normals, points=points)
    measures = list(each_clip(measure, scene, chosen, num_workers=num_workers, label="posing"))
    chosen, measures = _drop_still(scene, chosen, measures, report, keep=bool(clips))
    _report_travel(chosen, measures, timing, report)
    framing = _frame_all(scene, measures, normals, offsets)
    render = partial(render_clip, timing=timing, cameras=cameras, framing=framing, samples=studio.samples)
    frames = _stack(each_clip(render, scene, chosen, num_workers=num_workers, label="rendering"), len(chosen))
    surface = framing.apply(np.stack([entry.surface for entry in measures])).astype(np.float32)
    return Dataset(
        frames=frames,
        cameras=cameras,
        names=name_motions(chosen),
        captions=tuple(humanize(clip.name) for clip in chosen),
        splits=tuple("test" if clip.name in held_out else "train" for clip in chosen),
        view_names=tuple(f"view_{index:02d}" for index in range(frames.shape[1])),
        view_splits=("train",) * len(studio.azimuths_deg) + ("test",) * len(studio.test_azimuths_deg),
        frame_rate=_frame_rate(chosen, timing),
        object_name=Path(source).stem,
        surface=surface,
        joints=framing.apply(np.stack([entry.joints for entry in measures])).astype(np.float32),
        height=surface_height(surface),
    )


def _stack(parts: Iterable[np.ndarray], count: int) -> np.ndarray:
    """Stacks `count` arrays of one shape as they come, so that they are not all held twice."""
    stacked = None
    for index, part in enumerate(parts):
        if stacked is None:
            stacked = np.empty((count, *part.shape), part.dtype)
        stacked[index] = part
    if stacked is None:
        raise ValueError("no clips to stack")
    return stacked


def _report_scene(scene: Scene, report: Callable[[str], None]) -> None:
    report(
        f"{scene.path}: {len(scene.clips)} clips, {len(scene.joints)} joints, {scene.num_vertices} vertices, "
        f"{len(scene.mesh.triangles)} triangles"
    )
    report(f"drawn: {', '.join(scene.part_names)}")
    if scene.hidden:
        report(f"left out, hidden: {', '.join(scene.hidden)}")


def _drop_still(
    scene: Scene,
    clips: Sequence[Clip],
    measures: list[Measure],
    report: Callable[[str], None],
    *,
    keep: bool,
) -> tuple[tuple[Clip, ...], list[Measure]]:
    """Leaves out the clips in which nothing moves, unless the user chose them (`keep`) beside others that move."""
    size = max(float((measure.high - measure.low).max()) for measure in measures)
    moving = [measure.movement > STILL * size for measure in measures]
    still = [clip.name for clip, moves in zip(clips, moving) if not moves]
    if len(still) == len(clips):
        raise UserError(f"{scene.path}: nothing moves in any of its clips ({', '.join(still)[:200]}), expected motion")
    if keep or not still:
        return tuple(clips), measures
    report(f"left out, still poses: {', '.join(still)}")
    kept = tuple(clip for clip, moves in zip(clips, moving) if moves)
    return kept, [measure for measure, moves in zip(measures, moving) if moves]


def _report_travel(
    clips: Sequence[Clip], measures: Sequence[Measure], timing: Timing, report: Callable[[str], None]
) -> None:
    far = [clip.name for clip, entry in zip(clips, measures) if entry.travel > 1.5 * (entry.high - entry.low)[1]]
    if far and timing.root_motion == "keep":
        report(f"these clips travel far and make the figure small, see root_motion='remove': {', '.join(far)}")


def _frame_all(scene: Scene, measures: Sequence[Measure], normals: np.ndarray, offsets: np.ndarray) -> Framing:
    """One framing for all clips."""
    low, high = (np.min([m.low for m in measures], axis=0), np.max([m.high for m in measures], axis=0))
    if (high - low).max() <= 1e-9:
        raise UserError(f"{scene.path}: the model has no extent, found all vertices at one point")
    return fit_framing(np.max([m.reach for m in measures], axis=0), normals, offsets, (low + high) / 2)


def _frame_rate(clips: Sequence[Clip], timing: Timing) -> float:
    """Frames a second of the clip of median length; 24 where that one is a still pose."""
    seconds = float(np.median([clip.end - clip.start for clip in clips]))
    steps = timing.num_frames if timing.loop else timing.num_frames - 1
    return round(steps / seconds, 3) if seconds > 0 else 24.0
