"""Recordings as datasets: the authors' layout, SV4D's output, videos with a camera file, NeRF's posed pictures."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np

from dimo_jax.cameras.upright import choose_turn
from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import parse_numbers
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.extent import Boxes, describe, look, normalize
from dimo_jax.data.formats.assembly import plan_recording, write_recording
from dimo_jax.data.formats.authors import describe_authors
from dimo_jax.data.formats.camera_file import describe_videos
from dimo_jax.data.formats.native_schema import read_framing
from dimo_jax.data.formats.recording import Recording
from dimo_jax.data.formats.sv4d import FOV_DEG, RADIUS, describe_sv4d
from dimo_jax.data.formats.transforms import choose_matte, describe_transforms
from dimo_jax.data.world import bring_into, place_dataset
from dimo_jax.geometry.world import World
from dimo_jax.io.clocks import Sampling
from dimo_jax.io.matte import Matte, parse_color


def import_videos(
    source: str,
    target: Path,
    *,
    num_frames: int | None = None,
    frame_rate: float | None = None,
    size: int | None = None,
    matte: str = "auto",
    key_color: str = "auto",
    key_tolerance: float = 12.0,
    key_enclosed: bool = False,
    up: str = "",
    framing: str = "",
) -> Dataset:
    """Writes a dataset of videos beside a `cameras.json`.

    Args:
      source: the folder.
      target: the folder to write.
      num_frames: frames of every motion, spread evenly over its clips; default: all, which must be as many in each.
      frame_rate: takes frames at this pace (a second) from the beginning of each clip instead.
      size: height of the pictures in pixels, which the intrinsics follow; default: that of the videos.
      matte: "auto", "alpha", "masks", "key" or "none", see `data.matte.Matte`.
      key_color: the background's colour; "auto" takes that of the pictures' border.
      key_tolerance: of 255, how far the background may be from it.
      key_enclosed: whether areas of that colour inside the object go, too.
      up: what is up in the world of the cameras, see `data.upright.choose_turn`; default: as the file says.
      framing: a dataset folder of the same cameras' world, whose scale, turn and centre are taken.

    Returns:
      What was written, with blank frames.

    Raises:
      UserError: bad input.
    """
    chosen = Matte(how=matte, color=parse_color(key_color), tolerance=key_tolerance, enclosed=key_enclosed)
    recording = describe_videos(source)
    if up and framing:
        raise UserError(f"--up: found {up} beside --framing={framing}, which tells what is up; expected one of them")
    if up not in ("", "y", "auto") and recording.up == "y":
        raise UserError(f"--up: found {up}, but the cameras of {source} stand in a world with +Y up, expected y")
    known, sampling = _known_framing(framing), Sampling(num_frames, frame_rate, size)
    return _write(recording, target, sampling, chosen, up=up or recording.up, framing=known)


def import_sv4d(
    source: str,
    target: Path,
    *,
    azimuths: str = "",
    test_azimuths: str = "",
    elevation: float = 0.0,
    radius: float = RADIUS,
    fov_deg: float = FOV_DEG,
    num_frames: int | None = None,
    frame_rate: float | None = None,
    size: int | None = None,
    matte: str = "key",
    key_color: str = "white",
    key_tolerance: float = 12.0,
    key_enclosed: bool = False,
    framing: str = "",
) -> Dataset:
    """An output folder of SV4D or SV4D 2.0; cameras as in `data.sv4d.describe_sv4d`, the rest as in `import_videos`.

    Raises:
      UserError: bad input.
    """
    recording = describe_sv4d(
        source,
        azimuths_deg=parse_numbers("azimuths", azimuths),
        test_azimuths_deg=parse_numbers("test_azimuths", test_azimuths),
        elevation_deg=elevation,
        radius=radius,
        fov_deg=fov_deg,
    )
    chosen = Matte(how=matte, color=parse_color(key_color), tolerance=key_tolerance, enclosed=key_enclosed)
    sampling = Sampling(num_frames, frame_rate, size)
    return _write(recording, target, sampling, chosen, framing=_known_framing(framing))


def import_authors(
    source: str,
    target: Path,
    *,
    num_frames: int | None = None,
    size: int | None = None,
    matte: str = "auto",
    key_color: str = "white",
    key_tolerance: float = 12.0,
    key_enclosed: bool = False,
    frame_rate: float | None = None,
    framing: str = "",
) -> Dataset:
    """A folder in the authors' layout; arguments as in `import_videos`, but `frame_rate` is only noted.

    The layout has no frame rate, so there is nothing to sample by.

    Raises:
      UserError: bad input.
    """
    recording = describe_authors(source)
    sampling = Sampling(num_frames, frame_rate, size)
    if frame_rate is not None:
        recording, sampling = replace(recording, frame_rate=frame_rate), replace(sampling, frame_rate=None)
    print("positive elevations of info.json are below the horizon, as in the authors' code")
    chosen = Matte(how=matte, color=parse_color(key_color), tolerance=key_tolerance, enclosed=key_enclosed)
    return _write(recording, target, sampling, chosen, framing=_known_framing(framing))


def import_transforms(
    source: str,
    target: Path,
    *,
    size: int | None = None,
    matte: str = "",
    key_color: str = "auto",
    key_tolerance: float = 12.0,
    key_enclosed: bool = False,
    up: str = "",
    framing: str = "",
) -> Dataset:
    """Posed pictures with a `transforms.json`, a motion of one frame; arguments as in `import_videos`.

    `matte` is by default "masks" where the file names masks, else "alpha", which leaves pictures without it opaque.

    Raises:
      UserError: bad input.
    """
    recording = describe_transforms(source)
    chosen = choose_matte(recording)
    if matte:
        chosen = Matte(how=matte, color=parse_color(key_color), tolerance=key_tolerance, enclosed=key_enclosed)
    if up and framing:
        raise UserError(f"--up: found {up} beside --framing={framing}, which tells what is up; expected one of them")
    known = _known_framing(framing)
    return _write(recording, target, Sampling(size=size), chosen, up=up or recording.up, framing=known)


def _known_framing(folder: str) -> World | None:
    return read_framing(folder, of="cameras") if folder else None


def _write(
    recording: Recording,
    target: Path,
    sampling: Sampling,
    matte: Matte,
    *,
    up: str = "y",
    framing: World | None = None,
) -> Dataset:
    sizes = sorted({(clip.width, clip.height) for clip in recording.clips.values()})
    print(
        f"found {len(recording.names)} motions ({', '.join(recording.names)}), {len(recording.view_names)} views, "
        f"masks for {len(recording.masks)} of {len(recording.clips)} clips, pictures of "
        + ", ".join(f"{width}x{height}" for width, height in sizes)
    )
    place = functools.partial(_place, up=up, framing=framing)
    return write_recording(plan_recording(recording, sampling=sampling, matte=matte), target, place, report=print)


def _place(dataset: Dataset, boxes: Boxes, *, up: str, framing: World | None) -> Dataset:
    """A recording upright and at the method's size, or where `framing` puts it; says so."""
    if framing is not None:
        placed = bring_into(dataset, framing)
        print(f"framed as asked: scaled by {framing.scale:.4g}; {describe(look(placed.cameras, boxes), World())}")
        return placed
    turn = choose_turn(np.asarray(dataset.cameras.world_to_camera), up, where="--up")
    if turn.said:
        print(turn.said)
    placed, said = normalize(place_dataset(dataset, World(rotation=turn.rotation)), boxes)
    print(said)
    return placed
