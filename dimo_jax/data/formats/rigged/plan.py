"""A rigged, animated glTF model as a dataset: every clip a motion, seen from an orbit, with its true surface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from dimo_jax.cameras.framing import Framing, border_planes, fit_framing
from dimo_jax.cameras.turntable import Turntable
from dimo_jax.core.errors import UserError
from dimo_jax.core.names import make_distinct, to_file_name, words_of
from dimo_jax.data.dataset import Dataset, surface_height
from dimo_jax.data.formats.rigged.passes import (
    Attachment,
    Measure,
    Timing,
    check_coordinates,
    each_clip,
    measure_clip,
    render_clip,
)
from dimo_jax.data.formats.rigged.stillness import choose_probes
from dimo_jax.geometry.neighbors import farthest_points
from dimo_jax.geometry.world import World
from dimo_jax.io.gltf.scene import load_scene, select_clips
from dimo_jax.rigs.facing import describe_inside_out
from dimo_jax.rigs.posing import pose_scene
from dimo_jax.rigs.scene import Scene, check_clips
from dimo_jax.rigs.skeleton import Clip
from dimo_jax.runtime.capacity_checks import check_memory, in_bytes

_POSED_BYTES = 4 * 24  # of a vertex: posed, without its travel, those that are drawn, and framed
_TRUTH_BYTES = 24 + 24 + 24 + 12  # of a point: as it was measured, stacked, framed, and as float32
OWN_FILES = ("dataset.json", "captions.txt", "test_captions.txt")  # beside the motions' folders
STILL = 1e-3  # share of a part's own size that none of its vertices moves in a still pose: the noise of a capture
COARSE = 0.25  # share of a clip's movement that its frames may miss
FAR = 1.5  # times the body's size


def choose_surface(scene: Scene, *, num_points: int) -> Attachment:
    """Points that stand for the visible surface: its vertices at rest, then places spread over its triangles by area.

    A low-poly model's vertices alone leave wide gaps. Vertices that share a place count once; where there are more of
    them than half of `num_points`, farthest point sampling thins them to that.

    Raises:
      UserError: the rest pose reaches beyond `MAX_COORDINATE`.
    """
    with np.errstate(all="ignore"):  # what overflows is said in one line by the next
        rest, triangles = pose_scene(scene, None, 0.0), scene.mesh.triangles
    check_coordinates(scene, "the rest pose", rest)
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
    return " ".join(words_of(name.rsplit("|", 1)[-1])).lower() or " ".join(name.split()) or "motion"


def name_motions(clips: Sequence[Clip]) -> tuple[str, ...]:
    """Folder names for clips: see `to_file_name`; distinct even where case is not kept."""
    return make_distinct([to_file_name(clip.name, default="motion") for clip in clips], taken=OWN_FILES)


@dataclass(frozen=True)
class Options:
    """What an import is asked for."""

    # Names or patterns, as a sequence or as a text in which commas separate them, see `choose_names`.
    clips: str | tuple[str, ...] = ()  # none takes every clip that moves
    hide: str | tuple[str, ...] = ()  # nodes to leave out, see `load_scene`
    test_clips: str | tuple[str, ...] = ()  # those whose split is "test"
    timing: Timing = field(default_factory=Timing)
    turntable: Turntable = field(default_factory=Turntable)
    repair: bool = False  # settles NaN that something drawn needs, see `load_scene`
    num_surface_points: int = 8192  # whose trajectories are kept as `surface`, see `choose_surface`
    double_sided: bool = False  # draws both sides of every surface, whatever the file says
    framing: tuple[float, ...] | None = None  # scale and centre [4] of another import; None: the largest that fits

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
          UserError: an option is out of range.
        """
        if self.num_surface_points < 1:
            raise UserError(f"num_surface_points: found {self.num_surface_points}, expected 1 or more")


@dataclass(frozen=True)
class Plan:
    """What the first pass settles: which clips become motions, and where the model stands in the pictures."""

    clips: tuple[Clip, ...]
    framing: Framing


def plan_import(
    scene: Scene,
    options: Options,
    *,
    num_workers: int = 1,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[Plan, np.ndarray, np.ndarray]:
    """Poses all chosen clips, leaves out still poses and finds one framing for the rest.

    Args:
      scene: the model.
      options: see there.
      num_workers: processes. With more than one, the calling script must be importable (`if __name__ == "__main__"`).
      report: takes one line at a time about what is found and left out.

    Returns:
      The plan for M clips, and their truth in world units: surface [M,T,P,3] and joints [M,T,J,3], float32.

    Raises:
      UserError: a pattern matches nothing, nothing moves, or the model has no extent.
    """
    if num_workers < 1:
        raise UserError(f"num_workers: found {num_workers}, expected 1 or more")
    chosen = select_clips(scene, options.clips) if options.clips else scene.clips
    check_clips(chosen)
    if options.test_clips:
        select_clips(
            scene, options.test_clips, flag="test_clips"
        )  # a pattern that matches nothing is said before the work
    _report_scene(scene, report)
    _check_memory(scene, chosen, options, num_workers=num_workers)
    normals, offsets = border_planes(options.turntable.cameras(), margin=options.turntable.margin)
    points = choose_surface(scene, num_points=options.num_surface_points)
    measure = partial(measure_clip, timing=options.timing, normals=normals, points=points, probes=choose_probes(scene))
    measures = list(each_clip(measure, scene, chosen, num_workers=num_workers, label="posing"))
    chosen, measures = _drop_still(scene, chosen, measures, report, keep=bool(options.clips))
    _report_coarse(chosen, measures, options.timing, report)
    _report_travel(chosen, measures, options.timing, report)
    if options.framing is None:
        framing = _frame_all(scene, measures, normals, offsets)
    else:
        framing = Framing(np.asarray(options.framing[1:]), options.framing[0])
        _report_framing(chosen, measures, framing, normals, offsets, report)
    surface = framing.apply(np.stack([entry.surface for entry in measures])).astype(np.float32)
    joints = framing.apply(np.stack([entry.joints for entry in measures])).astype(np.float32)
    return Plan(chosen, framing), surface, joints


def describe_motions(scene: Scene, clips: Sequence[Clip], options: Options, framing: Framing) -> Dataset:
    """The dataset of an import but for its truth and its pictures: its frames are blank and take no memory."""
    cameras, turntable = options.turntable.cameras(), options.turntable
    num_views = len(cameras.world_to_camera)
    # Of all clips, so that a motion has the same name whichever others are chosen.
    names = dict(zip((clip.name for clip in scene.clips), name_motions(scene.clips)))
    shape = (len(clips), num_views, options.timing.num_frames, turntable.size, turntable.size, 4)
    held_out = {clip.name for clip in select_clips(scene, options.test_clips)} if options.test_clips else set()
    return Dataset(
        frames=np.broadcast_to(np.uint8(0), shape),
        cameras=cameras,
        names=tuple(names[clip.name] for clip in clips),
        captions=tuple(humanize(clip.name) for clip in clips),
        splits=tuple("test" if clip.name in held_out else "train" for clip in clips),
        view_names=tuple(f"view_{index:02d}" for index in range(num_views)),
        view_splits=("train",) * len(turntable.azimuths_deg) + ("test",) * len(turntable.test_azimuths_deg),
        frame_rate=_frame_rate(clips, options.timing),
        object_name=scene.path.stem,
        world=World(scale=framing.scale, center=framing.center, of="model"),
    )


def import_gltf(
    source: str | Path,
    options: Options | None = None,
    *,
    num_workers: int = 1,
    report: Callable[[str], None] = lambda line: None,
) -> Dataset:
    """Renders a model's clips as a dataset in memory. `import_folder` writes a folder and can go on after a stop.

    Args:
      source: a .glb or .gltf file.
      options: see there.
      num_workers: processes, see `plan_import`.
      report: takes one line at a time about what is found and left out.

    Returns:
      The dataset. Positions are in world units, in which the model is scaled and moved as a whole; `frame_rate` is that
      of the clip of median length, as every clip has the same number of frames.

    Raises:
      UserError: the model is malformed, a pattern matches nothing, or an option is out of range.
    """
    options = options or Options()
    scene = load_scene(source, hide=options.hide, double_sided=options.double_sided, repair=options.repair)
    plan, surface, joints = plan_import(scene, options, num_workers=num_workers, report=report)
    blank = describe_motions(scene, plan.clips, options, plan.framing)
    render = partial(
        render_clip,
        timing=options.timing,
        cameras=blank.cameras,
        framing=plan.framing,
        samples=options.turntable.samples,
    )
    size = blank.frames.size
    check_memory(size, f"{scene.path}: {in_bytes(size)} of pictures", otherwise="or import to a folder")
    frames = np.empty(blank.frames.shape, np.uint8)
    videos = each_clip(render, scene, plan.clips, num_workers=num_workers, label="rendering")
    for index, video in enumerate(videos):
        frames[index] = video
    return replace(blank, frames=frames, surface=surface, joints=joints, height=surface_height(surface))


def _check_memory(scene: Scene, clips: Sequence[Clip], options: Options, *, num_workers: int) -> None:
    """Checks that memory holds the vertices that are posed at once, and the truth of all clips."""
    num_frames, workers = options.timing.num_frames, min(num_workers, len(clips))
    posed = workers * num_frames * scene.num_vertices * _POSED_BYTES
    truth = len(clips) * num_frames * (options.num_surface_points + len(scene.joints)) * _TRUTH_BYTES
    check_memory(
        posed + truth,
        f"{scene.path}: {len(clips)} clips of {num_frames} frames of {scene.num_vertices} vertices",
        otherwise="fewer --num_workers, --num_frames, --num_surface_points or --clips",
    )


def _report_scene(scene: Scene, report: Callable[[str], None]) -> None:
    report(
        f"{scene.path}: {len(scene.clips)} clips, {len(scene.joints)} joints, {scene.num_vertices} vertices, "
        f"{len(scene.mesh.triangles)} triangles"
    )
    report(f"drawn: {', '.join(scene.part_names)}")
    if scene.hidden:
        report(f"left out, hidden: {', '.join(scene.hidden)}")
    for note in (*scene.notes, *describe_inside_out(scene)):
        report(note)


def _drop_still(
    scene: Scene,
    clips: Sequence[Clip],
    measures: list[Measure],
    report: Callable[[str], None],
    *,
    keep: bool,
) -> tuple[tuple[Clip, ...], list[Measure]]:
    """Leaves out the clips in which nothing moves, unless the user chose them (`keep`) beside others that move."""
    moving = [measure.sway.moved > STILL for measure in measures]
    slid = [clip.name for clip, entry in zip(clips, measures) if entry.sway.moved <= STILL < entry.sway.moved_at_all]
    still = [clip.name for clip, moves in zip(clips, moving) if not moves and clip.name not in slid]
    if not any(moving):
        why = "nothing but travel, which root_motion='remove' takes away, is" if slid and not still else "nothing moves"
        names = ", ".join(still + slid)[:200]
        raise UserError(f"{scene.path}: {why} in any of its clips ({names}), expected motion")
    what = "taken, as they were chosen" if keep else "left out"
    if still:
        report(f"{what}, still poses: {', '.join(still)}")
    if slid:
        report(f"{what}, nothing but travel, which root_motion='remove' takes away: {', '.join(slid)}")
    if keep:
        return tuple(clips), measures
    kept = tuple(clip for clip, moves in zip(clips, moving) if moves)
    return kept, [measure for measure, moves in zip(measures, moving) if moves]


def _report_coarse(
    clips: Sequence[Clip], measures: Sequence[Measure], timing: Timing, report: Callable[[str], None]
) -> None:
    coarse = []
    for clip, entry in zip(clips, measures):
        if entry.sway.moved > STILL and entry.sway.missed > COARSE:
            enough = f", {entry.sway.enough} would show it" if entry.sway.enough else ""
            coarse.append(f"{clip.name} ({entry.sway.missed:.0%} of its movement lies between the frames{enough})")
    if coarse:
        report(f"sampled too coarsely by {timing.num_frames} frames, see --num_frames: {', '.join(coarse)}")


def _report_travel(
    clips: Sequence[Clip], measures: Sequence[Measure], timing: Timing, report: Callable[[str], None]
) -> None:
    """Says which clips go far for the size of the body, in the one frame in which it is largest."""
    far = [(clip.name, entry) for clip, entry in zip(clips, measures) if entry.roam > FAR * entry.body]
    straight = [name for name, entry in far if timing.root_motion == "keep" and entry.travel > entry.roam / 2]
    others = [name for name, _ in far if name not in straight]
    if straight:
        report(f"these clips travel far and make the figure small, see root_motion='remove': {', '.join(straight)}")
    if others:
        report(
            "these clips roam far and make the figure small, expected --clips without them, or clips in place: "
            f"{', '.join(others)}"
        )


def _report_framing(
    clips: Sequence[Clip],
    measures: Sequence[Measure],
    framing: Framing,
    normals: np.ndarray,
    offsets: np.ndarray,
    report: Callable[[str], None],
) -> None:
    """Says which clips leave the pictures under a framing that was not made for them."""
    bounds = framing.scale * (np.stack([entry.reach for entry in measures]) - normals @ framing.center)
    out = [clip.name for clip, bound in zip(clips, bounds) if (bound > offsets * (1 + 1e-6)).any()]
    report(f"framed as asked: scaled by {framing.scale:.4g}")
    if out:
        report(f"these clips reach into the margin or out of the pictures in that framing: {', '.join(out)}")


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
    if seconds <= 0:
        return 24.0
    return round(steps / seconds, 3) or steps / seconds  # of a clip of hours, which must not come to 0
