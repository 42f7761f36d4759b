"""Looks for mistakes in data, file by file, and keeps the first frames to look at."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dimo_jax.cameras.upright import choose_turn, note_upright
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera
from dimo_jax.data import extent
from dimo_jax.data.captions import FILE, TEST_FILE, read_captions
from dimo_jax.data.formats.authors import WHITE, describe_authors
from dimo_jax.data.formats.camera_file import describe_videos
from dimo_jax.data.formats.native import find_sources, read_truths, stream_video
from dimo_jax.data.formats.native_schema import read_description
from dimo_jax.data.formats.recording import Recording, build_cameras, collect
from dimo_jax.data.formats.sv4d import describe_sv4d
from dimo_jax.data.formats.transforms import choose_matte, describe_transforms
from dimo_jax.data.sources import detect
from dimo_jax.data.world import describe_world, place_cameras
from dimo_jax.geometry.world import World
from dimo_jax.io.cutting import Shares, cut_frames
from dimo_jax.io.matte import Matte
from dimo_jax.runtime.jobs import run_all


@dataclass
class Findings:
    """What an inspection found; the first frames of views that could be read, by motion and view."""

    names: tuple[str, ...]
    view_names: tuple[str, ...]
    view_splits: tuple[str, ...]
    cameras: Camera  # [V]
    num_files: int = 0
    problems: list[str] = field(default_factory=list)  # the data cannot be used with these
    notes: list[str] = field(default_factory=list)  # it can, but look
    first_frames: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)  # [H,W,4] uint8
    boxes: dict[tuple[int, int], list[np.ndarray | None]] = field(default_factory=dict)  # of three frames of each view
    world: World | None = None  # that the dataset records
    stand: str = ""  # one line: how large the object is, and where it and the cameras are
    focus: np.ndarray = field(default_factory=lambda: np.zeros(3))  # [3] what the cameras look at


def inspect_folder(folder: Path) -> Findings:
    """Reads everything in a dataset folder, or in a folder that can be imported.

    Args:
      folder: native, in the authors' layout, videos with a camera file, with a `transforms.json`, or of SV4D.

    Raises:
      UserError: it is none of them, or the file that describes it is so wrong that nothing else can be looked at.
    """
    kind = detect(folder)
    if kind == "native":
        return _inspect_native(folder)
    readers = {"authors": describe_authors, "videos": describe_videos, "transforms": describe_transforms}
    describe = (readers | {"sv4d": describe_sv4d}).get(kind)
    if describe is None:
        raise UserError(f"{folder}: no dataset, expected a folder with videos or images")
    problems: list[str] = []
    recording = describe(folder, problems=problems)
    mattes = {"authors": WHITE, "videos": Matte(), "sv4d": Matte(how="key", color=(255, 255, 255))}
    matte = mattes.get(kind) or choose_matte(recording)
    return _inspect_recording(recording, matte, problems)


def _inspect_native(root: Path) -> Findings:
    description = read_description(root)
    cameras, num_frames = description.cameras, description.num_frames
    findings = Findings(description.names, description.view_names, description.view_splits, cameras)
    for file in (FILE, TEST_FILE):
        with collect(findings.problems):
            read_captions(root, description.names, tuple((caption,) for caption in description.captions), file=file)
    with collect(findings.problems):
        read_truths(root, description)

    def look(m: int, v: int) -> int:
        name, view = description.names[m], description.view_names[v]
        shares, before = Shares(), len(findings.problems)
        boxes: list[np.ndarray | None] = []
        with collect(findings.problems):
            for read, path, where in find_sources(root / name, view, num_frames):
                findings.num_files += 1
                with collect(findings.problems):
                    if isinstance(where, slice):
                        each = stream_video(path, (num_frames, cameras.height, cameras.width))
                    else:
                        frame = np.zeros((cameras.height, cameras.width, 4), np.uint8)
                        read(path, frame)
                        each = iter([frame])
                    for frame in each:
                        findings.first_frames.setdefault((m, v), frame)
                        shares.add(frame)
                        boxes.append(extent.find_box(frame[..., 3]))
            if len(findings.problems) == before:
                findings.boxes[m, v] = _few(boxes)
                _note_pictures(findings, shares, f"{name}/{view}", has_ground=shares.has_ground)
            else:
                findings.first_frames.pop((m, v), None)
        return 1

    findings.world = description.world
    _look_at_all(findings, look, root.name)
    findings.notes += note_upright(np.asarray(cameras.world_to_camera), list(findings.view_names))
    _note_size(findings, cameras)
    return findings


def _few(boxes: list[np.ndarray | None]) -> list[np.ndarray | None]:
    """The first, the middle and the last of a clip's."""
    return [boxes[0], boxes[len(boxes) // 2], boxes[-1]]


def _inspect_recording(recording: Recording, matte: Matte, problems: list[str]) -> Findings:
    sizes = [(clip.height, clip.width) for clip in recording.clips.values()]
    height, width = sizes[0] if sizes else (1, 1)
    cameras = build_cameras(recording.lenses, height, width)
    findings = Findings(recording.names, recording.view_names, recording.view_splits, cameras, problems=problems)
    findings.notes += recording.notes
    lengths: dict[tuple[int, int], int] = {}

    def look(m: int, v: int) -> int:
        clip = recording.clips.get((m, v))
        if clip is None:
            return 1  # said already
        findings.num_files += max(1, len(clip.files))
        shares, mask = Shares(), recording.masks.get((m, v))
        boxes: list[np.ndarray | None] = []
        with collect(findings.problems):
            clock = clip.read_clock()
            for frame in cut_frames(clip, mask, matte, clip.height, clip.width):
                if not shares.of_all:
                    first = frame
                shares.add(frame)
                boxes.append(extent.find_box(frame[..., 3]))
            lengths[m, v] = len(shares.of_all)
            findings.first_frames[m, v] = first
            findings.boxes[m, v] = _few(boxes)
            if not isinstance(clock, int) and not clock.is_steady:
                findings.notes.append(f"{clip.path}: its frames are not evenly spaced; importing needs --frame_rate")
            has_ground = shares.has_ground or not recording.may_fill
            _note_pictures(findings, shares, str((mask or clip).path), has_ground=has_ground)
        return 1

    _look_at_all(findings, look, recording.object_name)
    with collect(findings.problems):
        poses = np.asarray(cameras.world_to_camera)
        turn = choose_turn(poses, recording.up, where=f"{recording.source}: up")
        findings.notes += [turn.said] if turn.said else note_upright(poses, list(recording.view_names))
        _note_size(findings, place_cameras(cameras, World(rotation=turn.rotation)))
    if len(set(sizes)) > 1:
        found = ", ".join(f"{w}x{h}" for h, w in sorted(set(sizes)))
        findings.problems.append(f"{recording.source}: pictures of {found}, expected one size (or import with --size)")
    if len(set(lengths.values())) > 1:
        found = ", ".join(str(count) for count in sorted(set(lengths.values())))
        findings.notes.append(f"{recording.source}: clips of {found} frames; importing needs --num_frames")
    return findings


def _look_at_all(findings: Findings, look: Callable[[int, int], int], name: str) -> None:
    keys = [(m, v) for m in range(len(findings.names)) for v in range(len(findings.view_names))]
    run_all([functools.partial(look, *key) for key in keys], len(keys), f"looking at {name}", max_workers=4)
    findings.problems.sort()  # threads end in any order
    findings.notes.sort()


def _note_size(findings: Findings, cameras: Camera) -> None:
    """Says how large the object is by the pictures that could be read, and what training makes of it."""
    unseen: list[np.ndarray | None] = [None] * 3
    views = range(len(findings.view_names))
    boxes = [
        [findings.boxes.get((m, v), unseen)[time] for v in views]
        for m in range(len(findings.names))
        for time in range(3)
    ]
    sight = extent.look(cameras, boxes)
    world = extent.find_world(sight)
    findings.stand = extent.describe(sight, world)
    if findings.world is not None and not findings.world.is_identity:
        findings.stand += f"; {describe_world(findings.world)}"
    findings.focus = extent.find_focus(findings.cameras)[0]
    findings.notes += _note_cameras(findings, place_cameras(cameras, world))


def _note_pictures(findings: Findings, shares: Shares, where: str, *, has_ground: bool) -> None:
    """Notes what is unusual in the pictures of a view: no background, hardly an object, one cut by the border.

    Raises:
      UserError: no object in any of them, or nothing else where there must be a ground.
    """
    findings.notes += shares.check(where, kept_ground=not has_ground)
    if not has_ground:
        findings.notes.append(f"{where}: opaque everywhere, so that the background is learned as part of the object")
        return
    cut = sum(share > 0 for share in shares.of_border)
    if cut:
        findings.notes.append(f"{where}: the object touches the border in {cut} of {len(shares.of_border)} frames")


def _note_cameras(findings: Findings, cameras: Camera) -> list[str]:
    """Notes cameras, as training places them, that do not see the origin, and two that stand at one place."""
    notes = []
    poses = np.asarray(cameras.world_to_camera, np.float64)
    for name, pose, focal, center in zip(findings.view_names, poses, cameras.focal, cameras.center):
        x, y, z = pose[:3, 3]
        inside = z > 0 and 0 <= focal[0] * x / z + center[0] <= cameras.width
        if not (inside and 0 <= focal[1] * y / z + center[1] <= cameras.height):
            notes.append(f"view {name}: its camera does not see the origin, where the object stands")
    for index, name in enumerate(findings.view_names):
        same = next((other for other in range(index) if np.abs(poses[other] - poses[index]).max() < 1e-6), None)
        if same is not None:
            notes.append(f"view {name}: stands where view {findings.view_names[same]} stands")
    return notes
