"""Pose maps or tracked joints of several views, with a file `cameras.json` beside them; docs/rigs.md describes it.

    {"schema_version": 1, "frame_rate": 24, "image": {"width": 480, "height": 480},
     "views": [{"name": "front", "world_to_camera": [4 x 4], "focal": [fx, fy], "center": [cx, cy]}, ...],
     "markers": [{"name": "Head", "color": [255, 128, 0]}, ...]}

`views` are those of `cameras.json` of plain videos (`camera_file`), in the world and the unit of the model. Each view
has one file: `<view>.mp4` (or another video, or a folder of images), or `<view>.json` or `<view>.npz` with tracks in
2D. Several clips lie in a folder each. `markers` tells colours that are not `pose_markers.make_markers`' own.

Tracks: {"joints": [K names], "pixels": [T][K][2] or null where a joint is not seen, "confidence": [T][K] of 0..1}; in
an npz arrays of these names, with NaN for what is not seen. Pixels are those of `image`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera
from dimo_jax.data.formats.camera_file import FILE, SCHEMA_VERSION, parse_lens
from dimo_jax.data.formats.recording import Lens, build_cameras, is_same_shape
from dimo_jax.io.clips import Clip, find_clip, open_clip
from dimo_jax.io.json_fields import check_distinct, check_name, get_array, get_count, get_field, load_json
from dimo_jax.io.npz import read_npz
from dimo_jax.io.video import write_video
from dimo_jax.rigs.localise import Sightings
from dimo_jax.rigs.pose_maps import draw_pose_maps
from dimo_jax.rigs.pose_markers import PoseMarkers
from dimo_jax.runtime.files import write_json

MAX_SIDE = 8192
MAX_BYTES = 4 << 30  # of all pictures of a clip
FRAME_RATE = 24.0
_TRACKS = (".json", ".npz")
_OUTSIDE = 4.0  # times the picture's size; tracks of other pixels than of `image` lie far out


@dataclass(frozen=True)
class PoseFolder:
    """What `cameras.json` of such a folder says, and where its clips lie."""

    path: Path
    lenses: tuple[Lens, ...]
    view_names: tuple[str, ...]
    image: tuple[int, int] | None  # width, height
    frame_rate: float
    colors: dict[str, np.ndarray]  # marker -> [3] uint8, where the file gives them
    clips: tuple[tuple[str, Path], ...]  # names, and the folders with the views' files


@dataclass(frozen=True)
class PoseClip:
    """One motion, seen by V cameras at T times."""

    name: str
    cameras: Camera
    frame_rate: float
    frames: np.ndarray | None  # [V,T,H,W,3] uint8 pose maps
    tracks: Sightings | None  # instead: markers [V,T,K]


def open_pose_folder(folder: str | Path) -> PoseFolder:
    """Reads `cameras.json` and finds the clips.

    Raises:
      UserError: anything missing or malformed.
    """
    root = Path(folder)
    path = root / FILE
    if not root.is_dir():
        raise UserError(f"--poses={root}: no such folder, expected one with {FILE} and a video for each view")
    if not path.is_file():
        raise UserError(f"--poses={root}: found no {FILE}, expected one beside the videos")
    table, where = load_json(path), str(path)
    version = get_field(table, "schema_version", int, where)
    if version != SCHEMA_VERSION:
        raise UserError(f"{path}: schema_version is {version}, expected {SCHEMA_VERSION}")
    image = None
    if "image" in table:
        width, height = (get_count(table["image"], key, MAX_SIDE, f"{where}: image") for key in ("width", "height"))
        image = (width, height)
    views = get_field(table, "views", list, where)
    if len(views) < 2:
        raise UserError(f"{path}: views has {len(views)} entries, expected at least 2: one view has no depth")
    names, lenses = [], []
    for index, view in enumerate(views):
        names.append(check_name(get_field(view, "name", str, f"{where}: views[{index}]"), f"{where}: views[{index}]"))
        lenses.append(parse_lens(view, image, f"{where}: view {names[-1]}"))
    check_distinct(names, "view", path)
    rate = float(get_field(table, "frame_rate", (int, float), where, default=FRAME_RATE))
    if not 1e-3 <= rate <= 1000:
        raise UserError(f"{path}: frame_rate is {rate:g}, expected 0.001 to 1000")
    return PoseFolder(
        path=root,
        lenses=tuple(lenses),
        view_names=tuple(names),
        image=image,
        frame_rate=rate,
        colors=_read_colors(table, where),
        clips=_find_clips(root, names),
    )


def _read_colors(table: Any, where: str) -> dict[str, np.ndarray]:
    colors = {}
    for index, marker in enumerate(get_field(table, "markers", list, where, default=[])):
        here = f"{where}: markers[{index}]"
        color = get_array(marker, "color", (3,), here)
        if color.min() < 0 or color.max() > 255:
            raise UserError(f"{here}: color is {color.tolist()}, expected three numbers of 0 to 255")
        colors[get_field(marker, "name", str, here)] = np.round(color).astype(np.uint8)
    return colors


def _find_clips(root: Path, views: Sequence[str]) -> tuple[tuple[str, Path], ...]:
    if _find_file(root, views[0]) is not None:
        return ((root.resolve().name, root),)
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and _find_file(entry, views[0]) is not None)
    if not folders:
        expected = (
            f"{views[0]}.mp4, another video, {views[0]}.json or {views[0]}.npz, there or in a folder for each clip"
        )
        raise UserError(f"--poses={root}: found no file of view {views[0]}, expected {expected}")
    return tuple((entry.name, entry) for entry in folders)


def _find_file(folder: Path, view: str) -> Path | None:
    """What holds a view: tracks where there are some, else a clip."""
    tracks = (folder / f"{view}{suffix}" for suffix in _TRACKS)
    return next((path for path in tracks if path.is_file()), None) or find_clip(folder / view)


def color_markers(folder: PoseFolder, markers: PoseMarkers) -> PoseMarkers:
    """Markers in the colours that the folder says.

    Raises:
      UserError: it names what the model has not, or leaves out what it has.
    """
    if not folder.colors:
        return markers
    where = folder.path / FILE
    unknown = next((name for name in folder.colors if name not in markers.names), None)
    if unknown is not None:
        raise UserError(f"{where}: markers has {unknown!r}, expected some of {_some(markers.names)}")
    missing = next((name for name in markers.names if name not in folder.colors), None)
    if missing is not None:
        raise UserError(f"{where}: markers lacks {missing!r}, expected all of {_some(markers.names)}")
    return dataclasses.replace(markers, colors=np.array([folder.colors[name] for name in markers.names]))


def read_pose_clip(folder: PoseFolder, name: str, place: Path, markers: PoseMarkers) -> PoseClip:
    """Decodes one clip of a folder.

    Raises:
      UserError: a view without a file, videos beside tracks, or views of different sizes or lengths.
    """
    files = []
    for view in folder.view_names:
        file = _find_file(place, view)
        if file is None:
            expected = f"{view}.mp4, another video, {view}.json or {view}.npz, as {FILE} names the view"
            raise UserError(f"{place}: found no file of view {view}, expected {expected}")
        files.append(file)
    kinds = [file.suffix.lower() in _TRACKS and file.is_file() for file in files]
    if any(kinds) and not all(kinds):
        raise UserError(f"{files[kinds.index(False)]}: a video, expected tracks as of the other views of {place}")
    if all(kinds):
        width, height = folder.image or (0, 0)
        if folder.image is None:
            raise UserError(
                f"{folder.path / FILE}: key 'image' is missing, expected width and height that tracks are for"
            )
        tracks = [_read_tracks(file, markers, folder.image) for file in files]
        _check_lengths(files, [len(pixels) for pixels, _ in tracks])
        seen = Sightings(np.stack([pixels for pixels, _ in tracks]), np.stack([shares for _, shares in tracks]))
        return PoseClip(name, build_cameras(folder.lenses, height, width), folder.frame_rate, None, seen)
    frames = _read_videos(files, folder.image, folder.path / FILE)
    cameras = build_cameras(folder.lenses, *frames.shape[2:4])
    return PoseClip(name, cameras, folder.frame_rate, frames, None)


def _read_videos(files: Sequence[Path], image: tuple[int, int] | None, where: Path) -> np.ndarray:
    clips = [open_clip(file) for file in files]
    width, height = clips[0].width, clips[0].height
    if image is not None and not is_same_shape((width, height), image):
        found = f"pictures of {width}x{height}"
        raise UserError(f"{files[0]}: {found}, expected the shape of image in {where}, {image[0]}x{image[1]}")
    for clip in clips:
        if (clip.width, clip.height) != (width, height):
            found = f"pictures of {clip.width}x{clip.height}"
            raise UserError(f"{clip.path}: {found}, expected {width}x{height} as of {files[0].name}")
    videos = [_decode(clip, MAX_BYTES // len(clips)) for clip in clips]
    _check_lengths(files, [len(video) for video in videos])
    return np.stack(videos)


def _decode(clip: Clip, most: int) -> np.ndarray:
    frames: list[np.ndarray] = []
    for frame in clip.frames():
        if (len(frames) + 1) * clip.width * clip.height * 3 > most:
            size = f"more than {len(frames)} frames of {clip.width}x{clip.height}"
            raise UserError(f"{clip.path}: {size}, expected {most >> 20} MiB of pictures a view at most")
        frames.append(frame[..., :3].copy())
    return np.stack(frames)


def _check_lengths(files: Sequence[Path], lengths: Sequence[int]) -> None:
    for file, length in zip(files, lengths):
        if length != lengths[0]:
            raise UserError(f"{file}: {length} frames, expected {lengths[0]} as of {files[0].name}")


def _read_tracks(path: Path, markers: PoseMarkers, image: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [T,K,2] and confidence [T,K] of all markers; NaN and 0 of those that a file leaves out."""
    if path.suffix.lower() == ".npz":
        table: Any = read_npz(path, "an npz with joints and pixels")
        names = [str(each) for each in np.ravel(table.get("joints", []))]
        rows, confidence = table.get("pixels"), table.get("confidence")
    else:
        table = load_json(path)
        names = [str(each) for each in get_field(table, "joints", list, str(path))]
        rows, confidence = get_field(table, "pixels", list, str(path)), table.get("confidence")
    pixels = _to_array(rows, path, "pixels")
    if not names or pixels.ndim != 3 or pixels.shape[1:] != (len(names), 2) or not len(pixels):
        found = f"joints of {len(names)} names and pixels {list(pixels.shape)}"
        raise UserError(f"{path}: {found}, expected K names and [T,K,2]")
    shares = np.ones(pixels.shape[:2]) if confidence is None else _to_array(confidence, path, "confidence")
    if shares.shape != pixels.shape[:2] or not ((shares >= 0) & (shares <= 1)).all():
        raise UserError(f"{path}: confidence {list(shares.shape)}, expected {list(pixels.shape[:2])} of 0 to 1")
    seen = np.isfinite(pixels).all(axis=-1)
    if not seen.any():
        raise UserError(f"{path}: no joint is seen in it, expected some")
    limit = _OUTSIDE * np.array(image)
    if (np.abs(pixels[seen]) > limit).any():
        raise UserError(f"{path}: pixels reach {np.abs(pixels[seen]).max():g}, expected those of {image[0]}x{image[1]}")
    return _spread(path, names, np.where(seen[..., None], pixels, np.nan), np.where(seen, shares, 0.0), markers)


def _to_array(rows: Any, path: Path, key: str) -> np.ndarray:
    if isinstance(rows, list):
        unseen = [np.nan, np.nan]
        rows = [[unseen if each is None else each for each in row] if isinstance(row, list) else row for row in rows]
    try:
        return np.asarray(rows, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: {key} is no array of numbers, expected rows of one length") from error


def _spread(
    path: Path, names: list[str], pixels: np.ndarray, shares: np.ndarray, markers: PoseMarkers
) -> tuple[np.ndarray, np.ndarray]:
    """Tracks in the order of the markers."""
    check_distinct(names, "joint", path)
    places = {name: index for index, name in enumerate(markers.names)}
    unknown = next((name for name in names if name not in places), None)
    if unknown is not None:
        raise UserError(f"{path}: joints has {unknown!r}, expected some of {_some(markers.names)}")
    twice = next((name for name in names if f"{name}#2" in places), None)
    if twice is not None:
        raise UserError(f"{path}: the model has two joints named {twice!r}, expected names that tell joints apart")
    columns = [places[name] for name in names]
    all_pixels = np.full((len(pixels), len(places), 2), np.nan)
    all_shares = np.zeros((len(pixels), len(places)))
    all_pixels[:, columns], all_shares[:, columns] = pixels, shares
    return all_pixels, all_shares


def _some(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def write_pose_folder(
    folder: str | Path,
    points: np.ndarray | Mapping[str, np.ndarray],
    cameras: Camera,
    markers: PoseMarkers,
    *,
    frame_rate: float = FRAME_RATE,
    crf: int = 23,
) -> Path:
    """Writes pose maps of moving markers as videos, one a view, and `cameras.json`: what `open_pose_folder` reads.

    Args:
      folder: made where it does not exist.
      points: [T,K,3] world; of several clips by name, each of which gets a folder of that name.
      cameras: V of them, stacked; even sizes.
      markers: of the model.
      frame_rate: frames a second.
      crf: of `write_video`.

    Returns:
      `folder`.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    names = [f"view_{index}" for index in range(len(np.asarray(cameras.focal)))]
    clips = {root / name: each for name, each in points.items()} if isinstance(points, Mapping) else {root: points}
    for place, each in clips.items():
        place.mkdir(exist_ok=True)
        for name, frames in zip(names, draw_pose_maps(each, cameras, markers.parents, markers.colors)):
            write_video(frames, place / f"{name}.mp4", frame_rate=frame_rate, crf=crf)
    columns = (cameras.world_to_camera, cameras.focal, cameras.center)
    views = [
        {"name": name, "world_to_camera": pose.tolist(), "focal": focal.tolist(), "center": center.tolist()}
        for name, pose, focal, center in zip(names, *(np.asarray(column, np.float64) for column in columns))
    ]
    content = {
        "schema_version": SCHEMA_VERSION,
        "frame_rate": frame_rate,
        "image": {"width": cameras.width, "height": cameras.height},
        "views": views,
        "markers": [{"name": n, "color": c} for n, c in zip(markers.names, markers.colors.tolist())],
    }
    write_json(content, root / FILE)
    return root
