"""What is done to every clip of an animated model: posing, measuring and rendering it, over several processes.

Two passes make a dataset, each clip its own task. The first poses the clips and measures how far they reach, from which
one framing for all motions follows; the second renders. Of a pose little is kept between the two, so any number of
clips needs the memory of one.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.cameras.framing import Framing, support
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera
from dimo_jax.data.formats.native import write_view
from dimo_jax.data.formats.rigged.stillness import Sway, measure_sway
from dimo_jax.meshes.renderer import render_mesh
from dimo_jax.rigs.facing import find_mirrored
from dimo_jax.rigs.posing import pose_joints, pose_nodes, pose_vertices
from dimo_jax.rigs.scene import Scene
from dimo_jax.rigs.skeleton import Clip
from dimo_jax.runtime.progress import track

MAX_COORDINATE = 1e9  # of a vertex, in the source's units


@dataclass(frozen=True)
class Timing:
    """Which times of a clip become frames, and whether its travel over the ground stays.

    `root_motion="remove"` keeps a walk in place: one that covers ground would make the figure small in every motion, as
    one framing serves all. The default leaves a clip as its author made it.
    """

    num_frames: int = 21  # sampled evenly, whatever the clip lasts
    loop: bool = False  # the last frame lies one step before the clip's end, so that playing repeats smoothly
    root_motion: str = "keep"  # or "remove", see `pose_clip`

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
          UserError: an option is out of range.
        """
        if self.num_frames < 2:
            raise UserError(f"num_frames: found {self.num_frames}, expected 2 or more")
        if self.root_motion not in ("keep", "remove"):
            raise UserError(f"root_motion: found {self.root_motion!r}, expected 'keep' or 'remove'")

    def times(self, clip: Clip) -> np.ndarray:
        """Seconds [T]: the whole clip with both ends, or without its end where it loops."""
        return np.linspace(clip.start, clip.end, self.num_frames, endpoint=not self.loop)


@dataclass(frozen=True)
class Attachment:
    """Points fixed on a mesh: each a weighted mean of three of its vertices."""

    corners: np.ndarray  # [P,3] int
    weights: np.ndarray  # [P,3], rows summing to 1

    def follow(self, vertices: np.ndarray) -> np.ndarray:
        """Positions [T,P,3] of the points on posed vertices [T,n,3]."""
        return np.einsum("pc,tpci->tpi", self.weights, vertices[:, self.corners])


@dataclass(frozen=True)
class Measure:
    """What the first pass learns of a clip, in the source's units."""

    reach: np.ndarray  # [n] support along the border planes
    low: np.ndarray  # [3]
    high: np.ndarray  # [3]
    body: float  # the largest extent in any one frame
    sway: Sway  # of its curves, whatever the frames show of them
    travel: float  # horizontal distance between the centroids of the first and last frame, before any is removed
    roam: float  # the furthest that the centroid comes from its first place, likewise horizontal, after it is removed
    surface: np.ndarray  # [T,P,3]
    joints: np.ndarray  # [T,J,3]


def pose_clip(scene: Scene, clip: Clip, *, timing: Timing) -> tuple[np.ndarray, np.ndarray, float]:
    """Poses a clip.

    With `root_motion="remove"`, the straight horizontal line that leads the vertices' centroid from its first to its
    last place is subtracted; sway, turns and jumps stay.

    Returns:
      vertices [T,P,3] and joints [T,J,3] in the source's units, float64, and the length of that line.
    """
    times = timing.times(clip)
    poses = pose_nodes(scene, clip, times)
    vertices = np.stack([pose_vertices(scene, poses, frame) for frame in range(len(times))])
    joints = pose_joints(scene, poses)
    drift = (vertices[-1].mean(axis=0) - vertices[0].mean(axis=0)) * np.array([1.0, 0.0, 1.0])
    if timing.root_motion == "remove":
        path = np.linspace(0, 1, len(times))[:, None, None] * drift
        vertices, joints = vertices - path, joints - path
    return vertices, joints, float(np.linalg.norm(drift))


def check_coordinates(scene: Scene, what: str, *points: np.ndarray) -> None:
    """Raises UserError where coordinates are not finite, or so large that even float64 has too few digits."""
    if not all((np.abs(values) < MAX_COORDINATE).all() for values in points):
        raise UserError(f"{scene.path}: {what} has coordinates beyond {MAX_COORDINATE:g}, expected less")


def measure_clip(
    scene: Scene, clip: Clip, *, timing: Timing, normals: np.ndarray, points: Attachment, probes: Scene
) -> Measure:
    """The first pass over one clip; the trajectories of `points` are kept, and `probes` (see there) tell what moves."""
    with np.errstate(all="ignore"):  # what overflows is said in one line by the next
        vertices, joints, travel = pose_clip(scene, clip, timing=timing)
    check_coordinates(scene, f"clip {clip.name!r}", vertices, joints)
    used = vertices[:, np.unique(scene.mesh.triangles)]
    path = used.mean(axis=1)[:, [0, 2]]
    return Measure(
        reach=support(used, normals),
        low=used.min(axis=(0, 1)),
        high=used.max(axis=(0, 1)),
        body=float(np.ptp(used, axis=1).max()),
        sway=measure_sway(probes, clip, timing.times(clip), in_place=timing.root_motion == "remove"),
        travel=travel,
        roam=float(np.linalg.norm(path - path[0], axis=-1).max()),
        surface=points.follow(vertices),
        joints=joints,
    )


def render_view(
    vertices: np.ndarray,
    scene: Scene,
    cameras: Camera,
    view: int,
    *,
    samples: int,
    mirrored: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """One camera's video of posed vertices [T,P,3], world units -> T times uint8 [H,W,4], one by one.

    `mirrored` is as `find_mirrored` has it.
    """
    camera = replace(
        cameras,
        world_to_camera=cameras.world_to_camera[view],
        focal=cameras.focal[view],
        center=cameras.center[view],
    )
    turned = [None] * len(vertices) if mirrored is None else list(mirrored)
    for frame, over in zip(vertices, turned, strict=True):
        yield render_mesh(frame, scene.mesh, camera, samples=samples, mirrored=over)


def render_clip(
    scene: Scene, clip: Clip, *, timing: Timing, cameras: Camera, framing: Framing, samples: int
) -> np.ndarray:
    """The second pass over one clip, kept in memory -> uint8 [V,T,H,W,4]."""
    vertices = framing.apply(pose_clip(scene, clip, timing=timing)[0])
    mirrored = find_mirrored(scene, clip, timing.times(clip))
    views = range(len(cameras.world_to_camera))
    shown = partial(render_view, vertices, scene, cameras, samples=samples, mirrored=mirrored)
    return np.stack([np.stack(list(shown(view))) for view in views])


def write_clip(
    scene: Scene,
    clip: Clip,
    *,
    timing: Timing,
    cameras: Camera,
    framing: Framing,
    samples: int,
    folders: Mapping[str, Path],
    view_names: Sequence[str],
) -> None:
    """The second pass over one clip, written view by view; a view that is there is left as it is.

    A view appears under its name only when it is complete.

    Args:
      folders: the folder of every clip, by the clip's name.
      view_names: the folders of its views.
    """
    missing = [view for view, name in enumerate(view_names) if not (folders[clip.name] / name).is_dir()]
    if not missing:
        return
    vertices = framing.apply(pose_clip(scene, clip, timing=timing)[0])
    mirrored = find_mirrored(scene, clip, timing.times(clip))
    for view in missing:
        target = folders[clip.name] / view_names[view]
        partial_folder = target.with_name(f".{target.name}")
        shutil.rmtree(partial_folder, ignore_errors=True)
        video = render_view(vertices, scene, cameras, view, samples=samples, mirrored=mirrored)
        write_view(partial_folder, video)
        partial_folder.rename(target)


_task: Callable[[int], Any] | None = None  # a worker process's own: set once, so that the scene is sent once


def each_clip(
    function: Callable[[Scene, Clip], Any], scene: Scene, clips: Sequence[Clip], *, num_workers: int, label: str
) -> Iterator[Any]:
    """Runs one pass over all clips.

    Args:
      function: takes the scene and a clip; it and its results can be pickled.
      scene: the model.
      clips: its clips, one task each.
      num_workers: processes; 1 does the work in this one.
      label: stands before the progress bar.

    Yields:
      The results, in the order of the clips.
    """
    bar = partial(track, description=label, unit="clip", total=len(clips))
    workers = min(num_workers, len(clips))
    if workers <= 1:
        yield from bar(function(scene, clip) for clip in clips)
        return
    context = multiprocessing.get_context("spawn")  # forking a process in which JAX has started threads can hang
    with ProcessPoolExecutor(workers, context, _start_worker, (function, scene, tuple(clips))) as pool:
        yield from bar(pool.map(_run_task, range(len(clips))))


def _start_worker(function: Callable[[Scene, Clip], Any], scene: Scene, clips: tuple[Clip, ...]) -> None:
    global _task
    _task = lambda index: function(scene, clips[index])  # noqa: E731
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed cannot stop its workers, which would go on, and then wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_task(index: int) -> Any:
    assert _task is not None
    return _task(index)
