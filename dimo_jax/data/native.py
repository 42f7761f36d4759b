"""The native dataset folder: `dataset.json`, and per motion a folder of numbered images or one video per view.

dataset.json
<motion>/<view>/00000.png ...   8-bit RGBA, straight alpha (RGB and grey read as opaque), or
<motion>/<view>.mp4|.webm|.gif  opaque, whatever the background (a GIF keeps its transparency)
<motion>/truth.npz              optional: surface [T,P,3], joints [T,Jn,3], world units
captions.txt                    optional: sentences that replace those of dataset.json, see `data.captions`
test_captions.txt               optional: likewise those that are kept from training `--app=text`
"""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from dimo_jax.caches import cache_root
from dimo_jax.data.captions import TEST_FILE, read_captions, write_captions
from dimo_jax.data.clips import open_clip, read_image
from dimo_jax.data.dataset import Dataset, surface_height
from dimo_jax.data.frame_store import name_store, open_frames
from dimo_jax.data.jobs import one_line, run_all
from dimo_jax.data.native_schema import FILE, Description, describe, read_description
from dimo_jax.data.npz import read_npz
from dimo_jax.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".webm", ".gif")
MIN_STORED_BYTES = 1 << 30  # of frames, from which on they are kept on disk
MAX_TRUTH_BYTES = 2 << 30  # of one motion, after decompression
Source = tuple[Callable[[Path, np.ndarray], int], Path, int | slice]  # reader, file, which frames of the view


def _read_image(path: Path, out: np.ndarray) -> int:
    """Decodes one image into out [H,W,4]; the size in its header is checked before anything is decoded."""
    out[...] = read_image(path, (out.shape[1], out.shape[0]), source=f"({FILE})")
    return 1


def _read_video(path: Path, out: np.ndarray) -> int:
    """Decodes a video, opaque, or a GIF into out [T,H,W,4]; the size in its header is checked before it is decoded."""
    clip = open_clip(path)
    if (clip.height, clip.width) != out.shape[1:3]:
        expected = f"{out.shape[2]}x{out.shape[1]} ({FILE})"
        raise UserError(f"{path}: video of {clip.width}x{clip.height}, expected {expected}")
    count = 0
    for frame in clip.frames():
        count += 1
        if count > len(out):
            break
        out[count - 1] = frame
    if clip.kind == "video":
        out[..., 3] = 255
    if count != len(out):
        more = "more" if count > len(out) else str(count)
        raise UserError(f"{path}: {more} frames, expected {len(out)} ({FILE})")
    return count


def find_sources(motion: Path, view: str, num_frames: int) -> list[Source]:
    """What holds one view's frames: its images or its video.

    Args:
      motion: the motion's folder.
      view: the view's name.
      num_frames: how many frames it must have.

    Returns:
      Readers, each with its file and the frames of the view that it fills.

    Raises:
      UserError: there is neither, or the images are not numbered 0 to num_frames - 1.
    """
    folder = motion / view
    if not folder.is_dir():
        for suffix in VIDEO_SUFFIXES:
            if (motion / f"{view}{suffix}").is_file():
                return [(_read_video, motion / f"{view}{suffix}", slice(None))]
        raise UserError(f"{folder}: no such folder, expected numbered PNGs there or {view}.mp4, .webm or .gif")
    numbered = {int(path.stem): path for path in folder.glob("*.png") if path.stem.isascii() and path.stem.isdigit()}
    if len(numbered) != num_frames or max(numbered, default=0) >= num_frames:
        absent = next((f", {index:05d}.png is missing" for index in range(num_frames) if index not in numbered), "")
        raise UserError(f"{folder}: {len(numbered)} numbered PNGs, expected {num_frames} ({FILE}){absent}")
    return [(_read_image, numbered[index], index) for index in range(num_frames)]


def _find_all_sources(
    root: Path, description: Description
) -> list[tuple[Callable[[Path, np.ndarray], int], Path, tuple[int, int, int | slice]]]:
    """Readers and files of all motions and views, each with the part of the frames [M,V,T] that it fills."""
    for name in description.names:
        if not (root / name).is_dir():
            raise UserError(f"{root / name}: no such folder, expected the views of motion {name!r}")
    return [
        (reader, path, (m, v, which))
        for m, name in enumerate(description.names)
        for v, view in enumerate(description.view_names)
        for reader, path, which in find_sources(root / name, view, description.num_frames)
    ]


def read_truth(path: Path, num_frames: int) -> dict[str, np.ndarray]:
    """Arrays of one truth.npz; sizes are checked before decompression and nothing is unpickled."""
    arrays = read_npz(path, "surface and joints", max_bytes=MAX_TRUTH_BYTES)
    truth = {name: value for name, value in arrays.items() if name in ("surface", "joints")}
    for name, value in truth.items():
        if value.ndim != 3 or value.shape[0] != num_frames or value.shape[2] != 3 or value.dtype.kind != "f":
            raise UserError(
                f"{path}: {name} is {value.dtype} {list(value.shape)}, expected float [{num_frames},points,3]"
            )
        if not np.isfinite(value).all():
            raise UserError(f"{path}: {name} has values that are not finite")
    return truth


def read_truths(folder: Path, description: Description) -> dict[str, np.ndarray | None]:
    """surface [M,T,P,3] and joints [M,T,Jn,3], each None where no motion has it."""
    paths = [folder / name / "truth.npz" for name in description.names]
    read = [read_truth(path, description.num_frames) if path.exists() else {} for path in paths]
    result: dict[str, np.ndarray | None] = {}
    for name in ("surface", "joints"):
        shapes = [truth[name].shape if name in truth else None for truth in read]
        for path, shape in zip(paths, shapes):
            if shape != shapes[0]:
                raise UserError(f"{path}: {name} is {shape}, expected {shapes[0]} as in {paths[0]}")
        result[name] = np.stack([truth[name] for truth in read]).astype(np.float32) if shapes[0] else None
    return result


def reserve_frames(root: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Room for frames of any values; raises UserError where the memory has none."""
    try:
        return np.empty(shape, np.uint8)
    except (MemoryError, ValueError) as error:
        raise UserError(
            f"{root}: {np.prod(shape, dtype=float) / 2**30:.0f} GiB of frames do not fit in memory"
        ) from error


def read_dataset(folder: str | os.PathLike[str], *, store: str = "auto") -> Dataset:
    """Reads a native dataset folder, decoding every frame once into uint8.

    Args:
      folder: the dataset.
      store: "memory" decodes into memory; "disk" decodes once into the cache (`caches.cache_root`), from which all
        processes and later runs map what they need; "auto" takes the disk for sets of 1 GiB and more.

    Raises:
      UserError: one line that names the file and says what was found and expected: a missing or empty folder, broken
        or incomplete `dataset.json`, a name that leaves the folder, a camera that is missing or not rigid, a missing
        motion or view, a wrong number of frames, an image that cannot be read or has another size, a broken truth.
    """
    root = Path(folder)
    description = read_description(root)
    cameras, num_frames = description.cameras, description.num_frames
    shape = (len(description.names), len(description.view_names), num_frames, cameras.height, cameras.width, 4)
    sources = _find_all_sources(root, description)  # before memory is taken: a false count fails on absent files
    truth = read_truths(root, description)
    given = description.paraphrases or tuple((caption,) for caption in description.captions)
    sentences = read_captions(root, description.names, given)
    nothing: tuple[tuple[str, ...], ...] = ((),) * len(description.names)
    kept = read_captions(root, description.names, description.test_paraphrases or nothing, file=TEST_FILE)
    changed = [after is not before for before, after in zip(given, sentences)]

    def decode(frames: np.ndarray) -> None:
        jobs = [functools.partial(reader, path, frames[where]) for reader, path, where in sources]
        run_all(jobs, len(frames) * shape[1] * num_frames, f"reading {root.name}")

    if store == "disk" or (store == "auto" and math.prod(shape) >= MIN_STORED_BYTES):
        files = [root / FILE, *(path for _, path, _ in sources)]
        frames = open_frames(cache_root() / name_store(root, files), shape, decode, what=root.name)
    else:
        frames = reserve_frames(root, shape)
        decode(frames)
    surface = truth["surface"]
    return Dataset(
        frames=frames,
        cameras=cameras,
        names=description.names,
        captions=tuple(
            group[0] if new else caption for new, group, caption in zip(changed, sentences, description.captions)
        ),
        splits=description.splits,
        view_names=description.view_names,
        view_splits=description.view_splits,
        frame_rate=description.frame_rate,
        object_name=description.object_name,
        surface=surface,
        joints=truth["joints"],
        height=None if surface is None else surface_height(surface),
        paraphrases=tuple(sentences) if any(len(group) > 1 for group in sentences) else (),
        test_paraphrases=tuple(kept) if any(kept) else (),
    )


def write_view(folder: Path, frames: np.ndarray) -> int:
    """Writes one view's frames uint8 [T,H,W,4] as numbered PNGs of a new folder; returns how many."""
    folder.mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(np.ascontiguousarray(frame)).save(folder / f"{index:05d}.png", compress_level=4)
    return len(frames)


def _write_into(folder: Path, dataset: Dataset) -> None:
    jobs: list[Callable[[], int]] = []
    for m, name in enumerate(dataset.names):
        motion = folder / name
        motion.mkdir()
        jobs += [
            functools.partial(write_view, motion / view, dataset.frames[m, v])
            for v, view in enumerate(dataset.view_names)
        ]
        truth = {"surface": dataset.surface, "joints": dataset.joints}
        known = {key: value[m] for key, value in truth.items() if value is not None}
        if known:
            np.savez(motion / "truth.npz", **known)
    run_all(jobs, dataset.num_motions * dataset.num_views * dataset.num_frames, f"writing {dataset.object_name}")
    write_index(folder, dataset)


def write_index(folder: Path, dataset: Dataset) -> None:
    """Writes what makes a folder of motions a dataset: everything beside their frames and truth."""
    write_captions(folder, dataset.names, dataset.sentences)
    (folder / FILE).write_text(json.dumps(describe(dataset), indent=1), encoding="utf-8")


def write_dataset(dataset: Dataset, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Writes a dataset as a native folder, lossless: reading it gives the same arrays bit by bit.

    Everything goes to a temporary folder beside the target, which is renamed when complete, so that a stopped run
    leaves no half dataset.

    Args:
      dataset: what to write.
      folder: where; its parents are created.
      overwrite: replace an existing dataset. A non-empty folder that is no dataset is never replaced.

    Raises:
      UserError: the folder exists and is not to be replaced, cannot be written, or a name cannot be a folder's.
    """
    target = Path(folder)
    describe(dataset)
    if target.exists():
        if not target.is_dir():
            raise UserError(f"{target}: a file of that name exists, expected a folder or nothing")
        if any(target.iterdir()) and not (overwrite and (target / FILE).is_file()):
            expected = "an existing dataset to replace" if overwrite else "no such folder (or overwrite)"
            raise UserError(f"{target}: the folder is not empty, expected {expected}")
    temporary = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        (temporary / "new").mkdir()
        _write_into(temporary / "new", dataset)
        if target.exists():
            target.rename(temporary / "old")
        (temporary / "new").rename(target)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or one_line(error)})") from error
    finally:
        if temporary is not None:
            if (temporary / "old").exists() and not target.exists():
                (temporary / "old").rename(target)
            shutil.rmtree(temporary, ignore_errors=True)
