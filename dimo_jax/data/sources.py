"""Where a run's data comes from: a folder on disk, or a function named in the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dimo_jax.data.dataset import Dataset, select_motions
from dimo_jax.data.native import read_dataset
from dimo_jax.errors import UserError
from dimo_jax.resolve import resolve

STORES = ("auto", "memory", "disk")


def load(config: Mapping[str, Any]) -> Dataset:
    """Loads the dataset of `config.data`.

    Args:
      config: `path`, a native dataset folder, wins where it is not empty (`store`: see `read_dataset`);
        otherwise `source`, a component such as `dict(fn="dimo_jax.data.puppet:make_puppet", num_motions=16)`, is called
        and returns the Dataset. `motions`, where it is given, are the indices of the motions to keep.

    Raises:
      UserError: neither is given, the folder is not a dataset, or the source cannot be resolved.
    """
    dataset = _load_all(config)
    motions = config.get("motions")
    if not motions:
        return dataset
    for motion in motions:
        if not isinstance(motion, int) or not 0 <= motion < dataset.num_motions:
            raise UserError(f"config.data.motions: found {motion!r}, expected 0 to {dataset.num_motions - 1}")
    return select_motions(dataset, tuple(motions))


def _load_all(config: Mapping[str, Any]) -> Dataset:
    path = config.get("path")
    if path:
        store = config.get("store", "auto")
        if store not in STORES:
            raise UserError(f"config.data.store: found {store!r}, expected one of {', '.join(STORES)}")
        return read_dataset(path, store=store)
    source = config.get("source")
    if not source:
        raise UserError("config.data: found neither path nor source, expected a dataset folder or dict(fn=...)")
    dataset = resolve(source, key="data.source")()
    if not isinstance(dataset, Dataset):
        raise UserError(f"config.data.source: {source['fn']} returned {type(dataset).__name__}, expected a Dataset")
    return dataset
