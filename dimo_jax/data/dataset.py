"""A multi-view, multi-motion recording of one object in memory, and which part of it trains and which part tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from dimo_jax.core.types import SPLITS, Camera
from dimo_jax.geometry.world import World


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Every motion of one object, seen by the same cameras for the same number of frames.

    Axes: M motions, V views, T frames, P surface points, Jn joints. `frames` may be a read-only `np.memmap`, so that a
    set larger than memory costs only the frames that are gathered. The truth (`surface`, `joints`, `height`) is None
    where the source does not know it.
    """

    frames: np.ndarray  # [M,V,T,H,W,4] uint8, straight alpha
    # NumPy float32 arrays: world_to_camera [V,4,4] (float64 until placed, see `data.world`), focal [V,2], center [V,2]
    cameras: Camera
    names: tuple[str, ...]  # [M] distinct
    captions: tuple[str, ...]  # [M]
    splits: tuple[str, ...]  # [M] "train" or "test"
    view_names: tuple[str, ...]  # [V] distinct
    view_splits: tuple[str, ...]  # [V] "train" or "test"
    frame_rate: float  # frames per second
    object_name: str
    surface: np.ndarray | None = None  # [M,T,P,3] float32 world positions of P points fixed on the surface
    joints: np.ndarray | None = None  # [M,T,Jn,3] float32 world positions
    height: float | None = None  # extent along +Y of the surface in the first frame of the first motion, world units
    paraphrases: tuple[tuple[str, ...], ...] = ()  # [M] sentences of the same meaning, the caption first; () if none
    test_paraphrases: tuple[tuple[str, ...], ...] = ()  # [M] likewise, kept from training `text`; () if none
    world: World | None = None  # how the user's coordinates became those of the cameras; None where it is not known

    def __post_init__(self) -> None:
        """Checks that the parts agree in size; a mistake here is the calling program's, not the user's."""
        if self.frames.ndim != 6 or self.frames.shape[-1] != 4 or self.frames.dtype != np.uint8:
            raise ValueError(f"frames: {self.frames.dtype} {self.frames.shape}, expected uint8 [M,V,T,H,W,4]")
        num_motions, num_views, num_frames, height, width, _ = self.frames.shape
        per_motion = {"names": self.names, "captions": self.captions, "splits": self.splits}
        for name in ("paraphrases", "test_paraphrases"):
            if getattr(self, name):
                per_motion[name] = getattr(self, name)
        per_view = {"view_names": self.view_names, "view_splits": self.view_splits}
        for fields, count in ((per_motion, num_motions), (per_view, num_views)):
            for name, values in fields.items():
                if len(values) != count:
                    raise ValueError(f"{name}: {len(values)} entries, frames have {count}")
        for name, split in (("splits", self.splits), ("view_splits", self.view_splits)):
            if not set(split) <= set(SPLITS):
                raise ValueError(f"{name}: {sorted(set(split))}, expected {SPLITS}")
        if (self.cameras.height, self.cameras.width) != (height, width):
            raise ValueError(f"cameras of {self.cameras.height}x{self.cameras.width}, frames of {height}x{width}")
        shapes = {"world_to_camera": (num_views, 4, 4), "focal": (num_views, 2), "center": (num_views, 2)}
        for name, shape in shapes.items():
            if getattr(self.cameras, name).shape != shape:
                raise ValueError(f"cameras.{name}: {getattr(self.cameras, name).shape}, expected {shape}")
        for name in ("surface", "joints"):
            value = getattr(self, name)
            if value is not None and (value.ndim != 4 or value.shape[:2] != (num_motions, num_frames)):
                raise ValueError(f"{name}: {value.shape}, expected [{num_motions},{num_frames},points,3]")

    @property
    def sentences(self) -> tuple[tuple[str, ...], ...]:
        """Per motion the sentences that train `text`: its paraphrases, or the caption where there are none."""
        return self.paraphrases or tuple((caption,) for caption in self.captions)

    @property
    def num_motions(self) -> int:
        """Number of motions M."""
        return self.frames.shape[0]

    @property
    def num_views(self) -> int:
        """Number of views V."""
        return self.frames.shape[1]

    @property
    def num_frames(self) -> int:
        """Number of frames T of every video."""
        return self.frames.shape[2]

    @property
    def times(self) -> np.ndarray:
        """Time of every frame, [T] float32 in [0,1): frame / T, as the authors' code has it (i / 21)."""
        return (np.arange(self.num_frames) / self.num_frames).astype(np.float32)


def surface_height(surface: np.ndarray) -> float:
    """The object's height: extent along +Y of `surface` [M,T,P,3] in the first frame of the first motion."""
    first = surface[0, 0, :, 1]
    return float(first.max() - first.min())


def select_motions(dataset: Dataset, motions: Sequence[int]) -> Dataset:
    """The same recording with some of its motions only, in the order of their indices `motions`; `height` stays."""
    first, count = motions[0], len(motions)
    in_a_row = tuple(motions) == tuple(range(first, first + count))
    rows = slice(first, first + count) if in_a_row else np.asarray(motions)  # a slice leaves a memmap on the disk

    def pick(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array[rows]

    return dataclasses.replace(
        dataset,
        frames=dataset.frames[rows],
        names=tuple(dataset.names[i] for i in motions),
        captions=tuple(dataset.captions[i] for i in motions),
        splits=tuple(dataset.splits[i] for i in motions),
        paraphrases=tuple(dataset.paraphrases[i] for i in motions) if dataset.paraphrases else (),
        test_paraphrases=tuple(dataset.test_paraphrases[i] for i in motions) if dataset.test_paraphrases else (),
        surface=pick(dataset.surface),
        joints=pick(dataset.joints),
    )


def motions_in(dataset: Dataset, split: str) -> np.ndarray:
    """Indices [n] int32 of the motions whose split is `split` ("train" or "test")."""
    return np.flatnonzero(np.asarray(dataset.splits) == split).astype(np.int32)


def views_in(dataset: Dataset, split: str) -> np.ndarray:
    """Indices [n] int32 of the views whose split is `split` ("train" or "test")."""
    return np.flatnonzero(np.asarray(dataset.view_splits) == split).astype(np.int32)


def held_out_frames(dataset: Dataset, every: int) -> np.ndarray:
    """Indices [n] int32 of the frames kept from training: the last of every `every` (4, 9, 14, 19 for 5).

    `every` = 0 holds out none. The first frame, the common initial state, and the last always train, so that what is
    held out lies between frames that train.
    """
    frames = np.arange(dataset.num_frames, dtype=np.int32)
    inner = (frames > 0) & (frames < dataset.num_frames - 1)
    return frames[inner & (frames % every == every - 1)] if every else frames[:0]


def train_frames(dataset: Dataset, every: int) -> np.ndarray:
    """Indices [n] int32 of the frames that train: all but `held_out_frames`."""
    return np.setdiff1d(np.arange(dataset.num_frames, dtype=np.int32), held_out_frames(dataset, every))
