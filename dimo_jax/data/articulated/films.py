"""Films of made objects as data that trains without files: `config.data.reader` of configs/atop.py."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.core.config_fields import check_count
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.store import open_frames
from dimo_jax.runtime.caches import cache_root
from dimo_jax.runtime.progress import Progress

from . import categories, shapes, videos
from .categories import CATEGORIES, SHOWN, make_shape

OTHERS = 100_000  # the first seed of objects of which there are pictures alone: neither shown nor held out
NO_SIDE = 16  # of the pictures that a dataset of films has not
_SOURCES = (categories, shapes, videos)


@dataclasses.dataclass(frozen=True, eq=False)
class Films:
    """Objects seen from `videos.AZIMUTHS`, N of them with F frames each."""

    frames: np.ndarray  # [N,V,F,H,W,5] uint8: colours with straight alpha, and 255 where the part is what is seen
    categories: tuple[str, ...]  # [N]
    sentences: tuple[str, ...]  # [N]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def pictures(self) -> np.ndarray:
        """[N,V,F,H,W,4] uint8."""
        return self.frames[..., :4]

    @property
    def masks(self) -> np.ndarray:
        """[N,V,F,H,W] uint8."""
        return self.frames[..., 4]


@dataclasses.dataclass(frozen=True, eq=False)
class FilmDataset(Dataset):
    """Objects by name: a dataset without any view, whose pictures stand in two sets of films."""

    motions: Films = None  # type: ignore[assignment]  # after fields that have defaults; rest to the end of the range
    stills: Films | None = None  # at rest first, then anywhere in the range; no frame follows from another


def read_films(data: Mapping[str, Any]) -> FilmDataset:
    """Films of the objects to learn from of all categories, and pictures of others; made once, then kept.

    Args:
      data: `config.data`: `num_frames` and `side` of all, `shapes` of a category that there are pictures of, at
        `num_frames - 1` places of the joint each.

    Raises:
      UserError: an option out of range, or no room for them.
    """
    for name, least in (("num_frames", 2), ("side", 8), ("shapes", 0)):
        check_count(data.get(name), least, f"data.{name}")
    num_frames, side, others = int(data["num_frames"]), int(data["side"]), int(data["shapes"])
    names = [(category, seed) for category in CATEGORIES for seed in range(SHOWN)]
    motions = film_all(names, num_frames, side, still=False)
    stills = None
    if others:
        drawn = [(category, OTHERS + index) for category in CATEGORIES for index in range(others)]
        stills = film_all(drawn, num_frames, side, still=True)
    no_view: Any = np.zeros((0, 4, 4), np.float32)
    return FilmDataset(
        frames=np.zeros((len(names), 0, num_frames, NO_SIDE, NO_SIDE, 4), np.uint8),
        cameras=Camera(no_view, no_view[:, 0, :2], no_view[:, 0, :2], height=NO_SIDE, width=NO_SIDE),
        names=tuple(f"{category}_{seed}" for category, seed in names),
        captions=motions.sentences,
        splits=("train",) * len(names),
        view_names=(),
        view_splits=(),
        frame_rate=float(num_frames - 1),  # a second from rest to the end
        object_name="made objects",
        motions=motions,
        stills=stills,
    )


def film_all(names: Iterable[tuple[str, int]], num_frames: int, side: int, *, still: bool) -> Films:
    """Films of objects by category and seed, from the cache where they are there.

    Args:
      names: of N objects.
      num_frames: F.
      side: height and width in pixels.
      still: whether frames but the first stand at random places of the joint, not at an even pace.
    """
    chosen = [(str(category), int(seed)) for category, seed in names]
    shape = (len(chosen), len(videos.AZIMUTHS), num_frames, side, side, 5)
    made = [make_shape(*each) for each in chosen]

    def fill(frames: np.ndarray) -> None:
        with Progress(len(made), "filming made objects", unit="object") as progress:
            for index, thing in enumerate(made):
                rng = np.random.default_rng([chosen[index][1], *chosen[index][0].encode()])
                shares = np.concatenate([[0.0], np.sort(rng.uniform(size=num_frames - 1))]) if still else None
                found = videos.film(thing, num_frames=num_frames, side=side, shares=shares)
                frames[index, ..., :4], frames[index, ..., 4] = found.frames, found.masks
                progress.update(1)

    frames = open_frames(_folder(chosen, shape, still), shape, fill, what="films")
    return Films(frames, tuple(category for category, _ in chosen), tuple(thing.sentence for thing in made))


def _folder(chosen: list[tuple[str, int]], shape: tuple[int, ...], still: bool) -> Path:
    """Where these films are kept: the name hashes them with the source of what makes them."""
    digest = hashlib.sha256(json.dumps([chosen, shape, still]).encode())
    for module in _SOURCES:
        digest.update(Path(str(module.__file__)).read_bytes())
    return cache_root() / f"films-{digest.hexdigest()[:16]}"


def select_films(films: Films, category: str, most: int) -> list[int]:
    """The first `most` of a category, or of every one where it is "all".

    Raises:
      UserError: there is no such category.
    """
    if category != "all" and category not in CATEGORIES:
        raise UserError(f"config.atop.category: found {category!r}, expected all or one of {', '.join(CATEGORIES)}")
    wanted = CATEGORIES if category == "all" else (category,)
    return [index for each in wanted for index in [i for i, name in enumerate(films.categories) if name == each][:most]]
