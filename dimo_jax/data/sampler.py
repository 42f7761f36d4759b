"""Training batches: a pure function of (seed, step), gathered from the uint8 store ahead of the step."""

from __future__ import annotations

import dataclasses
import functools
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from dimo_jax.cameras.orbits import resize
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Batch
from dimo_jax.data.dataset import Dataset, motions_in, train_frames, views_in

DEPTH = 2  # batches that are kept ready


def area_weights(size: int, target: int) -> np.ndarray:
    """Weights [target,size] float32, rows summing to 1: the share of every source pixel in every target pixel."""
    edges = np.arange(target + 1) * (size / target)
    low, high = edges[:-1, None], edges[1:, None]
    source = np.arange(size)[None]
    overlap = np.clip(np.minimum(high, source + 1) - np.maximum(low, source), 0.0, None)
    return (overlap * (target / size)).astype(np.float32)


def downsample(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area-averages straight RGBA images, with premultiplied alpha while averaging.

    A target pixel's colour is the mean of the source colours weighted by their alpha, so that the unseen colour of
    transparent pixels never bleeds into an edge; colour is 0 where alpha averages to 0.

    Args:
      images: [...,H,W,4] uint8, straight alpha.
      height: target height, at most H.
      width: target width, at most W.

    Returns:
      [...,height,width,4] uint8, straight alpha, rounded to nearest.
    """
    full_height, full_width = images.shape[-3:-1]
    if (full_height, full_width) == (height, width):
        return images
    # One plane per channel: arithmetic over a trailing axis of 3 or 4 is many times slower.
    alpha = images[..., 3].astype(np.float32)
    small_alpha = _shrink(alpha, height, width)
    small = np.empty((*images.shape[:-3], height, width, 4), np.uint8)
    small[..., 3] = _to_uint8(small_alpha)
    unseen = small_alpha <= 0
    divisor = np.where(unseen, np.float32(1), small_alpha)
    for channel in range(3):
        color = _shrink(images[..., channel] * alpha, height, width) / divisor
        color[unseen] = 0
        small[..., channel] = _to_uint8(color)
    return small


def _shrink(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area means of [...,H,W] float32, [...,height,width]."""
    full_height, full_width = plane.shape[-2:]
    if full_height % height == 0 and full_width % width == 0:
        rows, columns = full_height // height, full_width // width
        # Strided sums are several times faster than a mean over the axes of a reshaped array.
        lines = functools.reduce(np.add, [plane[..., i::rows, :] for i in range(rows)])
        total: np.ndarray = functools.reduce(np.add, [lines[..., j::columns] for j in range(columns)])
        return total / np.float32(rows * columns)
    lines = np.einsum("hi,...iw->...hw", area_weights(full_height, height), plane, optimize=True)
    means: np.ndarray = np.einsum("wj,...hj->...hw", area_weights(full_width, width), lines, optimize=True)
    return means


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def batch_sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords of `Sampler` that `config.batch` and `config.data.reference_view` give."""
    sizes: dict[str, Any] = {f"batch_{name}": int(config["batch"][name]) for name in ("motions", "views", "frames")}
    return sizes | {"reference_view": str(config["data"].get("reference_view", ""))}


def find_reference(dataset: Dataset, name: str) -> int:
    """The index of the view that was filmed, by its name; of the first where that is empty.

    Raises:
      UserError: there is no such view.
    """
    if name and name not in dataset.view_names:
        views = ", ".join(dataset.view_names)
        raise UserError(
            f"config.data.reference_view: found {name!r}, expected a view of {dataset.object_name}: {views}"
        )
    return dataset.view_names.index(name) if name else 0


class Draw(NamedTuple):
    """Which images a batch consists of: indices into the dataset's motions, views and frames."""

    motions: np.ndarray  # [M] int32
    views: np.ndarray  # [M,V] int32
    frames: np.ndarray  # [M,F] int32


class Batches(Protocol):
    """What `prefetch` reads: a batch for every step."""

    def sample(self, step: int) -> Any:
        """The batch of `step`, a pytree of arrays."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
    """Draws training batches; `sample(step)` depends on nothing but (seed, step), so a resumed run repeats.

    Test motions, test views and every `held_out_every`-th frame are never drawn. Fields after `dataset` are keywords;
    `dataclasses.replace(sampler, resolution=256)` is the same sampler at another resolution.
    """

    dataset: Dataset
    _: dataclasses.KW_ONLY
    batch_motions: int = 4
    batch_views: int = 3
    batch_frames: int = 2
    resolution: int | None = None  # image height in pixels, width follows the aspect; None keeps the dataset's
    held_out_every: int = 5  # 0 trains on every frame
    seed: int = 0
    reference_view: str = ""  # name of the view that was filmed, not made from it; empty: the first
    motion_ids: Sequence[int] | None = None  # motions to draw from instead of the train split
    as_indices: bool = False  # `images` are indices into the frames as [M*V*T,...], for frames kept on the device

    def __post_init__(self) -> None:
        """Raises UserError where the dataset has fewer views or frames than a batch takes, or lacks what is asked."""
        find_reference(self.dataset, self.reference_view)
        if self.resolution is not None and not 0 < self.resolution <= self.dataset.cameras.height:
            largest = self.dataset.cameras.height
            raise UserError(f"resolution: found {self.resolution}, expected 1 to {largest} (the dataset's height)")
        if len(self._motions) == 0:
            raise UserError(f"dataset {self.dataset.object_name}: no motion of split 'train', expected at least 1")
        for what, wanted, available in (
            ("views", self.batch_views, len(views_in(self.dataset, "train"))),
            ("frames", self.batch_frames, len(train_frames(self.dataset, self.held_out_every))),
        ):
            if not 0 < wanted <= available:
                raise UserError(f"batch_{what}: found {wanted}, expected 1 to {available} (those that train)")

    @property
    def _motions(self) -> np.ndarray:
        if self.motion_ids is not None:
            return np.asarray(self.motion_ids, np.int32)
        return motions_in(self.dataset, "train")

    def draw(self, step: int) -> Draw:
        """The images of `step`.

        Motions are drawn without replacement (with, only if there are fewer than `batch_motions`); every motion has
        its own distinct views and distinct frames.
        """
        rng = np.random.default_rng([self.seed, step, 0])
        candidates, views = self._motions, views_in(self.dataset, "train")
        frames = train_frames(self.dataset, self.held_out_every)
        motions = rng.choice(candidates, self.batch_motions, replace=len(candidates) < self.batch_motions)
        view_ids = np.stack([rng.choice(views, self.batch_views, replace=False) for _ in motions])
        frame_ids = np.stack([rng.choice(frames, self.batch_frames, replace=False) for _ in motions])
        return Draw(motions.astype(np.int32), view_ids, frame_ids)

    def sample(self, step: int) -> Batch:
        """The batch of `step`, with NumPy arrays. `times` is frame / T."""
        return self.gather(self.draw(step), np.arange(self.batch_frames, dtype=np.int32))

    def gather(self, draw: Draw, columns: np.ndarray) -> Batch:
        """The batch of a draw with the images of some of its frames, `columns` [S] int32 of `draw.frames`."""
        dataset = self.dataset
        ids = draw.motions[:, None, None], draw.views[:, :, None], draw.frames[:, None, columns]
        height = self.resolution or dataset.cameras.height
        width = max(1, round(height * dataset.cameras.width / dataset.cameras.height))
        cameras = jax.tree.map(lambda array: np.asarray(array)[draw.views], resize(dataset.cameras, height, width))
        if self.as_indices:
            images = np.ravel_multi_index(np.broadcast_arrays(*ids), dataset.frames.shape[:3]).astype(np.int32)
        else:
            images = downsample(np.asarray(dataset.frames[ids]), height, width)
        return Batch(
            motions=draw.motions,  # type: ignore[arg-type]
            times=dataset.times[draw.frames],
            shown=np.tile(columns, (len(draw.motions), 1)),  # type: ignore[arg-type]
            cameras=cameras,
            images=images,  # type: ignore[arg-type]
            novel=(ids[1] != find_reference(dataset, self.reference_view)) & (ids[2] != 0),
        )


Grid = tuple[int, int, int]  # into how many blocks a batch is cut along its motions, views and frames


@dataclasses.dataclass(frozen=True, eq=False)
class Share:
    """Some parts of every batch of a sampler: those that this process's devices work on. No other frame is read."""

    sampler: Sampler
    grid: Grid
    parts: range  # indices of the parts, frames fastest, of motions x views x frames

    def sample(self, step: int) -> Batch:
        """The parts of the batch of `step`, every array with a leading axis over them."""
        draw = self.sampler.draw(step)
        pieces = []
        for part in self.parts:
            motions, views, frames = (
                np.split(np.arange(size, dtype=np.int32), count)[index]
                for size, count, index in zip(
                    (*draw.views.shape, draw.frames.shape[1]), self.grid, np.unravel_index(part, self.grid), strict=True
                )
            )
            piece = Draw(draw.motions[motions], draw.views[np.ix_(motions, views)], draw.frames[motions])
            pieces.append(self.sampler.gather(piece, frames))
        return jax.tree.map(lambda *arrays: np.stack(arrays), *pieces)


def prefetch(
    sampler: Batches, start_step: int, *, depth: int = DEPTH, transfer: Callable[[Batch], Any] = jax.device_put
) -> Iterator[Any]:
    """Yields the batches of start_step, start_step + 1, ... without end, made by a thread ahead of the consumer.

    Args:
      sampler: anything with `sample(step)`.
      start_step: the first step.
      depth: batches kept ready.
      transfer: applied to each batch in the thread; by default it moves the batch to the default device.

    Raises:
      Whatever the sampler or the transfer raises, at the step where it happened. Closing the generator (or dropping
      it) stops the thread.
    """
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: tuple[Any, BaseException | None]) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        step = start_step
        while not stop.is_set():
            try:
                batch = transfer(sampler.sample(step))
            except Exception as error:
                put((None, error))
                return
            put((batch, None))
            step += 1

    thread = threading.Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            batch, error = ready.get()
            if error is not None:
                raise error
            yield batch
    finally:
        stop.set()
        thread.join()
