"""Looks for mistakes in data, file by file, and keeps the first frames to look at."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dimo_jax.data.authors import WHITE, describe_authors
from dimo_jax.data.camera_file import describe_videos
from dimo_jax.data.captions import FILE, TEST_FILE, read_captions
from dimo_jax.data.jobs import run_all
from dimo_jax.data.matte import Matte
from dimo_jax.data.native import find_sources, read_truths, reserve_frames
from dimo_jax.data.native_schema import read_description
from dimo_jax.data.recording import Recording, build_cameras, collect, read_clip
from dimo_jax.data.sources import detect
from dimo_jax.data.sv4d import describe_sv4d
from dimo_jax.errors import UserError
from dimo_jax.types import Camera

_OPAQUE = 128  # of 255, from which on a pixel counts as the object's


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


def inspect_folder(folder: Path) -> Findings:
    """Reads everything in a dataset folder, or in a folder that can be imported.

    Args:
      folder: native, in the authors' layout, videos with a camera file, or of SV4D.

    Raises:
      UserError: it is none of them, or the file that describes it is so wrong that nothing else can be looked at.
    """
    kind = detect(folder)
    if kind == "native":
        return _inspect_native(folder)
    describe = {"authors": describe_authors, "videos": describe_videos, "sv4d": describe_sv4d}.get(kind)
    if describe is None:
        raise UserError(f"{folder}: no dataset, expected a folder with videos or images")
    problems: list[str] = []
    recording = describe(folder, problems=problems)
    matte = {"authors": WHITE, "videos": Matte(), "sv4d": Matte(how="key", color=(255, 255, 255))}[kind]
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
        before = len(findings.problems)
        with collect(findings.problems):
            sources = find_sources(root / name, view, num_frames)  # before memory is taken for as many as they say
            frames = reserve_frames(root, (num_frames, cameras.height, cameras.width, 4))
            for reader, path, where in sources:
                findings.num_files += 1
                with collect(findings.problems):
                    reader(path, frames[where])
        if len(findings.problems) == before:
            findings.first_frames[m, v] = frames[0]
            _note_pictures(findings, frames, f"{name}/{view}")
        return 1

    _look_at_all(findings, look, root.name)
    return findings


def _inspect_recording(recording: Recording, matte: Matte, problems: list[str]) -> Findings:
    sizes = [(clip.height, clip.width) for clip in recording.clips.values()]
    height, width = sizes[0] if sizes else (1, 1)
    cameras = build_cameras(recording.lenses, height, width)
    findings = Findings(recording.names, recording.view_names, recording.view_splits, cameras, problems=problems)
    lengths: dict[tuple[int, int], int] = {}

    def look(m: int, v: int) -> int:
        clip = recording.clips.get((m, v))
        if clip is None:
            return 1  # said already
        findings.num_files += max(1, len(clip.files))
        with collect(findings.problems):
            frames = read_clip(clip, recording.masks.get((m, v)), matte, clip.height, clip.width)
            lengths[m, v] = len(frames)
            findings.first_frames[m, v] = frames[0]
            _note_pictures(findings, frames, str(clip.path))
        return 1

    _look_at_all(findings, look, recording.object_name)
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
    findings.notes += _note_cameras(findings)


def _note_pictures(findings: Findings, frames: np.ndarray, where: str) -> None:
    """Notes what is unusual in the pictures of a view: no object, no background, an object cut by the border."""
    opaque = frames[..., 3] >= _OPAQUE
    shows = opaque.any(axis=(1, 2))
    if frames[..., 3].min() == 255:
        findings.notes.append(f"{where}: opaque everywhere, so that the background is learned as part of the object")
        return
    if not shows.all():
        findings.notes.append(f"{where}: nothing to see in {int((~shows).sum())} of {len(frames)} frames")
    borders = (opaque[:, 0], opaque[:, -1], opaque[:, :, 0], opaque[:, :, -1])
    cut = np.any([border.any(axis=1) for border in borders], axis=0)
    if cut.any():
        findings.notes.append(f"{where}: the object touches the border in {int(cut.sum())} of {len(frames)} frames")


def _note_cameras(findings: Findings) -> list[str]:
    """Notes cameras that do not see the world's origin, where objects stand, and two that stand at one place."""
    cameras, notes = findings.cameras, []
    poses = np.asarray(cameras.world_to_camera, np.float64)
    for name, pose, focal, center in zip(findings.view_names, poses, cameras.focal, cameras.center):
        x, y, z = pose[:3, 3]
        inside = z > 0 and 0 <= focal[0] * x / z + center[0] <= cameras.width
        if not (inside and 0 <= focal[1] * y / z + center[1] <= cameras.height):
            notes.append(f"view {name}: its camera does not see the world's origin")
    for index, name in enumerate(findings.view_names):
        same = next((other for other in range(index) if np.abs(poses[other] - poses[index]).max() < 1e-6), None)
        if same is not None:
            notes.append(f"view {name}: stands where view {findings.view_names[same]} stands")
    return notes
