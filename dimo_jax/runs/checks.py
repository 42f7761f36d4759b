"""What must be right before a run writes anything: the config by itself, the workdir, the data that it meets."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from dimo_jax.core.config_fields import check_finite, get
from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import check_folder
from dimo_jax.data.dataset import Dataset, motions_in, train_frames, views_in
from dimo_jax.data.sampler import find_reference
from dimo_jax.losses.perceptual import load_lpips
from dimo_jax.runs.build import check_system
from dimo_jax.runtime import lock
from dimo_jax.runtime.files import is_temporary
from dimo_jax.runtime.status import STATUS_FILE
from dimo_jax.training.checks import check_engine
from dimo_jax.training.config_file import config_sha256, load_config
from dimo_jax.training.system import System

# What says on which devices a run computes, and not what.
MACHINE = ("num_devices", "batch.accumulate", "batch.memory_gib", "data.store", "data.device_gib")
OTHERS = ("preset", "preset_chosen_by", "data", "render")
# What a run that is killed at its very beginning leaves.
OWN_FILES = (lock.LOCK_FILE, "train.log", STATUS_FILE)
SMALLEST_SIDE = 16  # pixels, for the network that scores the pictures


def check_config(config: Mapping[str, Any]) -> None:
    """Checks all of a config that needs no data: the engine's part, and its system's.

    Raises:
      UserError: what is wrong, by its config key.
    """
    for key in OTHERS:
        get(config, key)
    check_finite(config, "config")
    check_engine(config)
    check_system(config)


def check_same(values: Mapping[str, str]) -> None:
    """Checks that all processes of a run were started with the same; to be called by every one of them.

    Raises:
      UserError: a value that differs between processes.
    """
    if jax.process_count() == 1:
        return
    for name, value in values.items():
        digest = np.frombuffer(hashlib.sha256(value.encode()).digest()[:4], np.uint32)
        found = np.asarray(multihost_utils.process_allgather(digest)).ravel()
        different = np.flatnonzero(found != found[0])
        if len(different):
            raise UserError(f"{name}: processes {different.tolist()} have another than process 0, expected the same")


def check_workdir(config: ConfigDict, folder: Path) -> None:
    """Checks that `folder` is new, empty, or holds a run of this very config, and that nothing runs there.

    Raises:
      UserError: it is a file, holds other files, a run of another config, or one that is going on.
    """
    check_folder(folder, "workdir")
    if jax.process_index() == 0:  # which is the one to hold the lock
        lock.check_free(folder)
    if (folder / "checkpoints").is_dir() and (folder / "config.json").exists():
        before, now = without_machine(load_config(folder)), without_machine(config)
        if config_sha256(before) != config_sha256(now):
            raise UserError(
                f"--workdir={folder}: holds a run with another config ({_first_difference(before, now)}); "
                "expected the same config, or another --workdir"
            )
    elif folder.is_dir() and not (folder / "config.json").exists():
        names = sorted(path.name for path in folder.iterdir())
        others = [name for name in names if name not in OWN_FILES and not is_temporary(name)]
        if others:
            raise UserError(
                f"--workdir={folder}: holds other files ({others[0]}), expected a run or an empty or new folder"
            )


def without_machine(config: ConfigDict) -> ConfigDict:
    """The config without what a run may change between two starts: on how many devices, and where frames are kept."""
    copy = ConfigDict(config.to_dict())
    copy.unlock()
    for key in MACHINE:
        *parents, name = key.split(".")
        at = functools.reduce(lambda part, parent: part.get(parent, {}), parents, copy)
        if name in at:
            del at[name]
    return copy


def _first_difference(before: Any, after: Any, path: str = "config") -> str:
    if isinstance(before, (dict, ConfigDict)) and isinstance(after, (dict, ConfigDict)):
        for key in sorted({*before, *after}):
            if key not in before or key not in after:
                return f"{path}.{key}"
            found = _first_difference(before[key], after[key], f"{path}.{key}")
            if found:
                return found
        return ""
    same = json.dumps(before, default=str) == json.dumps(after, default=str)
    return "" if same else f"{path}: {before} there, {after} here"


def check_dataset(config: Mapping[str, Any], dataset: Dataset) -> None:
    """Checks that a dataset has what the config asks of it.

    Raises:
      UserError: no motion to train on, fewer views or frames than a batch takes, no such view, or pictures too small.
    """
    name, num_motions = dataset.object_name, len(motions_in(dataset, "train"))
    if num_motions == 0:
        raise UserError(f"config.data: no motion of {name} has the split 'train', expected at least 1")
    if not dataset.num_views:
        return
    if config["batch"]["motions"] > num_motions:
        logging.info("a batch of %d motions draws some of %d twice", config["batch"]["motions"], num_motions)
    num_views = len(views_in(dataset, "train"))
    num_frames = len(train_frames(dataset, config["data"]["held_out_every"]))
    for key, available in (("views", num_views), ("frames", num_frames)):
        wanted = config["batch"][key]
        if wanted > available:
            raise UserError(
                f"config.batch.{key}: found {wanted}, expected at most {available} ({key} of {name} that train)"
            )
    find_reference(dataset, config["data"].get("reference_view", ""))
    height, width = dataset.cameras.height, dataset.cameras.width
    if min(height, width) < SMALLEST_SIDE:
        raise UserError(
            f"config.data: pictures of {width}x{height}, expected at least {SMALLEST_SIDE} pixels a side ({name})"
        )


def check_weights(system: System) -> None:
    """Reads the networks that training and evaluation use, so that a missing one is not found hours later.

    Raises:
      UserError: weights that are not installed or not what they should be.
    """
    for stage in system.stages:
        system.fixed(stage)
    if system.sees_pictures:
        load_lpips("vgg")
