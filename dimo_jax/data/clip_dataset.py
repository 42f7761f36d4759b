"""Shards of clips as data that trains without pictures of motions: `config.data.reader` of configs/animax.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera
from dimo_jax.data.clips import ClipShards
from dimo_jax.data.dataset import Dataset

SIDE = 16  # of the pictures that it does not have


@dataclasses.dataclass(frozen=True, eq=False)
class ShardDataset(Dataset):
    """Clips of rigs by name: a dataset without any view, whose pictures are read from shards when a step needs them."""

    shards: ClipShards = None  # type: ignore[assignment]  # after fields that have defaults


def read_clip_shards(data: Mapping[str, Any]) -> ShardDataset:
    """The clips in a folder of shards.

    Args:
      data: `config.data`: `path`, a folder that `--app=import_data --pose_maps` wrote.

    Raises:
      UserError: no folder is given, or it is not one of shards, or damaged, or nothing of it trains.
    """
    if not data["path"]:
        raise UserError("config.data.path: not given, expected a folder of --app=import_data --pose_maps")
    shards = ClipShards(data["path"])
    if not shards.select("train"):
        raise UserError(f"{shards.folder}: has no sample of split 'train', expected some")
    splits = {sample.name: "train" if sample.split == "train" else "test" for sample in shards.samples}
    seconds = [sample.seconds for sample in shards.samples if sample.seconds > 0]
    no_view: Any = np.zeros((0, 4, 4), np.float32)
    return ShardDataset(
        frames=np.zeros((len(splits), 0, shards.num_frames, SIDE, SIDE, 4), np.uint8),
        cameras=Camera(no_view, no_view[:, 0, :2], no_view[:, 0, :2], height=SIDE, width=SIDE),
        names=tuple(splits),
        captions=tuple(shards.captions[name] for name in splits),
        splits=tuple(splits.values()),
        view_names=(),
        view_splits=(),
        frame_rate=(shards.num_frames - 1) / float(np.median(seconds)) if seconds else 1.0,
        object_name=shards.folder.resolve().name,
        shards=shards,
    )
