"""The native dataset folder: `dataset.json`, and per motion a folder of numbered images or one video per view.

dataset.json
<motion>/<view>/00000.png ...   8-bit RGBA, straight alpha (RGB and grey read as opaque), or
<motion>/<view>.mp4|.webm|.gif  opaque, whatever the background (a GIF keeps its transparency)
<motion>/truth.npz              optional: surface [T,P,3], joints [T,Jn,3], world units
captions.txt                    optional: sentences that replace those of dataset.json, see `data.captions`
test_captions.txt               optional: likewise those that are kept from training `--app=text`
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dimo_jax.core.errors import UserError
from dimo_jax.data.captions import TEST_FILE, read_captions, write_captions
from dimo_jax.data.dataset import Dataset, surface_height
from dimo_jax.data.formats.native_schema import FILE, Description, describe, read_description
from dimo_jax.data.store import name_store, open_frames
from dimo_jax.io.clips import open_clip
from dimo_jax.io.npz import read_npz
from dimo_jax.io.pictures import read_image
from dimo_jax.runtime.caches import cache_root
from dimo_jax.runtime.capacity_checks import check_memory, in_bytes
from dimo_jax.runtime.jobs import one_line, run_all

VIDEO_SUFFIXES = (".mp4", ".webm", ".gif")
MIN_STORED_BYTES = 1 << 30  # of frames, from which on they are kept on disk
MAX_TRUTH_BYTES = 2 << 30  # of one motion, after decompression
_COMPRESSION = 4  # of PNGs, of 0..9
Source = tuple[Callable[[Path, np.ndarray], int], Path, int | slice]  # reader, file, which frames of the view


def _read_image(path: Path, out: np.ndarray) -> int:
    """Decodes one image into out [H,W,4]; the size in its header is checked before anything is decoded."""
    out[...] = read_image(path, (out.shape[1], out.shape[0]), source=f"({FILE})")
    return 1


def stream_video(path: Path, shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """Decodes a video, opaque, or a GIF frame by frame, [H,W,4] uint8.

    Args:
      path: of the file.
      shape: [T,H,W] of the frames that it must have, evenly spaced; headers are checked before anything is decoded.

    Raises:
      UserError: it is damaged, or has another shape.
    """
    clip = open_clip(path)
    if (clip.height, clip.width) != shape[1:]:
        raise UserError(f"{path}: video of {clip.width}x{clip.height}, expected {shape[2]}x{shape[1]} ({FILE})")
    clock = clip.read_clock()
    if not isinstance(clock, int) and not clock.is_steady:
        raise UserError(f"{path}: its frames are not evenly spaced, expected them to be (--app=import_data sees to it)")
    count = clock if isinstance(clock, int) else clock.count
    if count != shape[0]:
        raise UserError(f"{path}: {count} frames, expected {shape[0]} ({FILE})")
    for frame in clip.frames():
        if clip.kind == "video":
            frame = np.dstack([frame[..., :3], np.full(shape[1:], 255, np.uint8)])
        yield frame


def _read_video(path: Path, out: np.ndarray) -> int:
    """Decodes a video or a GIF into out [T,H,W,4]."""
    for index, frame in enumerate(stream_video(path, out.shape[:3])):
        out[index] = frame
    return len(out)


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


def allocate(shape: tuple[int, ...], where: str) -> np.ndarray:
    """Memory for frames, uint8.

    Raises:
      UserError: there is not so much; `where` names the data.
    """
    size = math.prod(shape)
    check_memory(size, f"{where}: {in_bytes(size)} of frames", otherwise="config.data.store=disk maps them instead")
    return np.empty(shape, np.uint8)


def store_frames(
    root: Path, files: Sequence[Path], shape: tuple[int, ...], decode: Callable[[np.ndarray], None], *, store: str
) -> np.ndarray:
    """The frames of a folder, in memory or mapped from the disk.

    Args:
      root: the folder.
      files: those that the frames depend on.
      shape: of the frames.
      decode: writes them into an array of that shape.
      store: see `read_dataset`.

    Raises:
      UserError: memory or disk do not hold them.
    """
    if store == "disk" or (store == "auto" and math.prod(shape) >= MIN_STORED_BYTES):
        return open_frames(cache_root() / name_store(root, files), shape, decode, what=root.name)
    frames = allocate(shape, str(root))
    decode(frames)
    return frames


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

    frames = store_frames(root, [root / FILE, *(path for _, path, _ in sources)], shape, decode, store=store)
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
        world=description.world,
    )


def save_frame(frame: np.ndarray, path: Path) -> None:
    """Writes one frame uint8 [H,W,4] as PNG."""
    Image.fromarray(np.ascontiguousarray(frame)).save(path, compress_level=_COMPRESSION)


def png_bytes(frame: np.ndarray) -> int:
    """How many bytes `save_frame` would write."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame)).save(file, "PNG", compress_level=_COMPRESSION)
    return file.tell()


def write_view(folder: Path, frames: Iterable[np.ndarray]) -> int:
    """Writes one view's frames uint8 [H,W,4], one by one, as numbered PNGs of a new folder; returns how many."""
    folder.mkdir()
    count = 0
    for count, frame in enumerate(frames, start=1):
        save_frame(frame, folder / f"{count - 1:05d}.png")
    return count


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
    (folder / FILE).write_text(json.dumps(describe(dataset), indent=1, allow_nan=False), encoding="utf-8")


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
    describe(dataset)
    with new_folder(Path(folder), overwrite=overwrite) as new:
        _write_into(new, dataset)


@contextlib.contextmanager
def new_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A hidden folder beside `target` to write a dataset into, which takes its place when the block is through.

    Args:
      target: the folder; its parents are created.
      overwrite: as for `write_dataset`.

    Raises:
      UserError: the folder exists and is not to be replaced, or the disk does not take what the block writes.
    """
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
        yield temporary / "new"
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
