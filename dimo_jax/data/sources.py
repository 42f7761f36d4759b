"""Where a run's data comes from: a folder on disk, or a function named in the config."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from dimo_jax.cameras.upright import note_upright
from dimo_jax.core.errors import UserError
from dimo_jax.core.resolve import resolve
from dimo_jax.data.dataset import Dataset, select_motions
from dimo_jax.data.extent import normalize
from dimo_jax.data.formats import authors, camera_file, native_schema
from dimo_jax.data.formats.authors import read_authors
from dimo_jax.data.formats.native import read_dataset
from dimo_jax.data.formats.sv4d import is_sv4d
from dimo_jax.data.formats.transforms import is_transforms, read_transforms
from dimo_jax.geometry.world import World
from dimo_jax.io.gltf.document import GLB_MAGIC

GLTF_SUFFIXES = (".glb", ".gltf")
STORES = ("auto", "memory", "disk")


def detect(source: Path) -> str:
    """What kind of data a path holds, by its files' names.

    Returns:
      "gltf", "native", "authors" (their data), "authors_model", "videos" (with a camera file), "transforms"
      (of NeRF) or "sv4d".

    Raises:
      UserError: none of them.
    """
    if not source.exists():
        raise UserError(f"{source}: no such file or folder, expected data to read")
    if source.is_file():
        if source.suffix.lower() in GLTF_SUFFIXES:
            return "gltf"
        with source.open("rb") as file:
            if file.read(len(GLB_MAGIC)) == GLB_MAGIC:  # such as the .vrm of an avatar
                return "gltf"
        raise UserError(f"{source}: a file that is no glTF model, expected .glb, .gltf, or the folder with the data")
    files = {
        "native": native_schema.FILE,
        "videos": camera_file.FILE,
        "authors": authors.FILE,
    }
    for kind, name in files.items():
        if (source / name).is_file():
            return kind
    if any(path for folder in (source, source / "s2") for path in folder.glob("timenet*.pth")):
        return "authors_model"
    if is_transforms(source):
        return "transforms"
    if is_sv4d(source):
        return "sv4d"
    raise UserError(
        f"{source}: found none of {', '.join(files.values())}, transforms.json, timenet.pth and NNNNNN_vVVV.mp4, "
        "expected one of the kinds of data that docs/data.md lists"
    )


def load_dataset(folder: str | os.PathLike[str], *, store: str = "memory") -> Dataset:
    """Reads a native dataset folder, one in the authors' layout, or one with a `transforms.json`, as it is.

    `store` is where the frames are kept, see `read_dataset`.

    Raises:
      UserError: it is none of them, or damaged.
    """
    if (Path(folder) / authors.FILE).is_file() and not (Path(folder) / native_schema.FILE).exists():
        return read_authors(Path(folder), store=store)
    if is_transforms(Path(folder)) and not (Path(folder) / native_schema.FILE).exists():
        return read_transforms(Path(folder), store=store)
    return read_dataset(folder, store=store)


def load(config: Mapping[str, Any], *, move: Callable[[Dataset], Dataset] | None = None) -> Dataset:
    """Loads the dataset of `config.data` and brings it to the method's size and place, see `data.extent`.

    Args:
      config: `reader`, where there is one, is a component that reads all of `config` and returns the Dataset. Else
        `path`, a dataset folder (native, in the authors' layout, or with a `transforms.json`), wins where it
        is not empty (`store`: see `read_dataset`); otherwise `source`, a component such as
        `dict(fn="dimo_jax.data.puppet.dataset:make_puppet", num_motions=16)`, is called and returns the Dataset.
        `motions`, where it is given, are the indices of the motions to keep.
      move: where the data goes instead, as for a run that was trained on it before; default: `place`.

    Raises:
      UserError: neither is given, the folder is not a dataset, or the source cannot be resolved.
    """
    found = _load_all(config)
    dataset = (move or place)(found) if found.num_views else found
    motions = config.get("motions")
    if not motions:
        return dataset
    for motion in motions:
        if not isinstance(motion, int) or not 0 <= motion < dataset.num_motions:
            raise UserError(f"config.data.motions: found {motion!r}, expected 0 to {dataset.num_motions - 1}")
    return select_motions(dataset, tuple(motions))


def place(dataset: Dataset) -> Dataset:
    """A dataset at the method's size and place; says in one line what is moved, or what stands across the world."""
    for note in note_upright(np.asarray(dataset.cameras.world_to_camera), list(dataset.view_names)):
        logging.warning("%s: %s; see docs/data.md", dataset.object_name, note)
    placed, said = normalize(dataset)
    before, after = dataset.world or World(), placed.world or World()
    if not before.same_place(after):
        logging.info("%s: %s", dataset.object_name, said)
    return placed


def load_placed(folder: str | os.PathLike[str], *, store: str = "memory") -> Dataset:
    """Reads a dataset folder: native, in the authors' layout, or with a `transforms.json`; ready to be trained on.

    What stands elsewhere than the method expects it, or is of another size, is moved; `world` of the result says how.

    Args:
      folder: of the data.
      store: where frames are kept: "memory", "disk" (mapped, shared by processes), or "auto", disk from 1 GiB.

    Raises:
      UserError: it is none of them, or damaged.
    """
    return place(load_dataset(folder, store=store))


def _load_all(config: Mapping[str, Any]) -> Dataset:
    if config.get("reader"):
        read: Dataset = resolve(config["reader"], key="data.reader")(config)
        return read
    path = config.get("path")
    if path:
        store = config.get("store", "auto")
        if store not in STORES:
            raise UserError(f"config.data.store: found {store!r}, expected one of {', '.join(STORES)}")
        return load_dataset(path, store=store)
    source = config.get("source")
    if not source:
        raise UserError("config.data: found neither path nor source, expected a dataset folder or dict(fn=...)")
    dataset = resolve(source, key="data.source")()
    if not isinstance(dataset, Dataset):
        raise UserError(f"config.data.source: {source['fn']} returned {type(dataset).__name__}, expected a Dataset")
    return dataset
