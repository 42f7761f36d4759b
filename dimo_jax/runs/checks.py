"""What must be right before a run writes anything: the config by itself, the workdir, the data that it meets."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import check_folder
from dimo_jax.core.resolve import resolve
from dimo_jax.data.dataset import Dataset, motions_in, train_frames, views_in
from dimo_jax.data.sampler import find_reference
from dimo_jax.losses.perceptual import load_lpips
from dimo_jax.render import choose_backend
from dimo_jax.runtime import lock
from dimo_jax.runtime.files import is_temporary
from dimo_jax.runtime.status import STATUS_FILE
from dimo_jax.skinning.weights import RADIUS_POWERS
from dimo_jax.systems.dimo import stages
from dimo_jax.systems.dimo.fixed_inputs import load_fixed
from dimo_jax.systems.dimo.model import build_components
from dimo_jax.training.checkpoints import config_sha256, load_config
from dimo_jax.training.parallel import choose_layout

# Integers that a run reads, and the least that each may be; 0 turns off what happens every so many steps.
COUNTS = {
    "seed": 0,
    "batch.motions": 1,
    "batch.views": 1,
    "batch.frames": 1,
    "num_devices": 0,
    "data.held_out_every": 0,
    "latent_init.dim": 1,
    "num_key_points": 1,
    "stage1.num_steps": 0,
    "stage1.capacity": 1,
    "stage1.num_points": 1,
    "stage1.densify_from": 0,
    "stage1.densify_until": 0,
    "stage1.densify_every": 0,
    "stage1.anneal_every": 0,
    "stage1.refresh_every": 0,
    "stage2.num_steps": 1,
    "stage2.num_per_key_point": 1,
    "stage2.sh_degree": 0,
    "stage2.prune_every": 0,
    "stage2.prune_until": 0,
    "stage2.refresh_every": 0,
    "log_every": 1,
    "image_every": 0,
    "checkpoint_every": 1,
    "keep_checkpoints": 1,
    "evaluation.baseline_steps": 0,
    "evaluation.num_lpips_images": 0,
    "evaluation.surface_points": 1,
    "evaluation.num_samples": 1,
    "evaluation.num_videos": 0,
}
# Real numbers that must be above 0; the second is the bound that they must stay under.
POSITIVE = {
    "radius_power": None,
    "radius_scale": None,
    "stage1.ball_radius": None,
    "stage1.opacity": 1,
    "stage1.scale": None,
    "stage2.ball_scale": None,
    "stage2.opacity": 1,
}
MAX_SH_DEGREE = 3
# Slots that training resolves on the way; the others are resolved when its parts are built.
LATE_SLOTS = ("stage1.densify", "stage1.prune", "stage2.prune")
# What says on which devices a run computes, and not what.
MACHINE = ("num_devices", "batch.accumulate", "data.store", "data.device_gib")
OTHERS = ("preset", "preset_chosen_by", "data", "render")
# What a run that is killed at its very beginning leaves.
OWN_FILES = (lock.LOCK_FILE, "train.log", STATUS_FILE)
SMALLEST_SIDE = 16  # pixels, for the network that scores the pictures


def check_config(config: Mapping[str, Any]) -> None:
    """Checks all of a config that needs no data: numbers in range, phases in order, every slot resolvable.

    Raises:
      UserError: what is wrong, by its config key.
    """
    for key in OTHERS:
        _get(config, key)
    _check_finite(config, "config")
    for key, least in COUNTS.items():
        _check_count(_get(config, key), least, key)
    if config["data"]["held_out_every"] == 1:
        raise UserError("config.data.held_out_every: found 1, expected 0 (every frame trains) or at least 2")
    for key, bound in POSITIVE.items():
        _check_positive(_get(config, key), bound, key)
    if _get(config, "checkpoint_minutes") != 0:
        _check_positive(config["checkpoint_minutes"], None, "checkpoint_minutes")
    if config["stage2"]["sh_degree"] > MAX_SH_DEGREE:
        raise UserError(
            f"config.stage2.sh_degree: found {config['stage2']['sh_degree']}, expected 0 to {MAX_SH_DEGREE}"
        )
    for name in ("stage1", "stage2"):
        _check_phases(_get(config, f"{name}.phases"), f"{name}.phases")
    _check_capacity(config)
    _check_render(config)
    for key in ("decoder", "latent", "skinning", "graph", "deform", "text.projector", "text.fit", "turns", *LATE_SLOTS):
        _check_slot(_get(config, key), key)
    _check_radius_power(config)
    build_components(config)
    stages.resolve_latent_init(config)
    stages.build_stages(config)
    _check_count(config["batch"].get("accumulate", 1), 1, "batch.accumulate")
    room = config["data"].get("device_gib", 0.0)
    if not isinstance(room, (int, float)) or not room >= 0:
        raise UserError(f"config.data.device_gib: found {room!r}, expected a number of at least 0")
    choose_layout(config)


def _check_finite(value: Any, key: str) -> None:
    """JSON, in which a run keeps its config, has neither NaN nor infinity."""
    if isinstance(value, (Mapping, ConfigDict)):
        for name, each in value.items():
            _check_finite(each, f"{key}.{name}")
    elif isinstance(value, (tuple, list)):
        for index, each in enumerate(value):
            _check_finite(each, f"{key}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}: found {value}, expected a finite number")


def _get(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, (Mapping, ConfigDict)) or part not in value:
            raise UserError(f"config.{key}: not found in the config, expected as in configs/dimo.py")
        value = value[part]
    return value


def _check_count(value: Any, least: int, key: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"config.{key}: found {value!r}, expected an integer of at least {least}")


def _check_positive(value: Any, bound: float | None, key: str) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value < (float("inf") if bound is None else bound):
        expected = "a number above 0" + (f" and below {bound}" if bound else "")
        raise UserError(f"config.{key}: found {value!r}, expected {expected}")


def _check_phases(phases: Any, key: str) -> None:
    def is_pair(phase: Any) -> bool:
        return isinstance(phase, (tuple, list)) and len(phase) == 2 and all(type(number) is int for number in phase)

    valid = isinstance(phases, (tuple, list)) and len(phases) > 0 and all(is_pair(phase) for phase in phases)
    if valid:
        steps, sizes = zip(*phases)
        valid = steps[0] == 0 and list(steps) == sorted(set(steps)) and min(sizes) > 0
    if not valid:
        raise UserError(
            f"config.{key}: found {phases!r}, expected pairs ((first step, pixels), ...), the first at step 0 and the "
            "steps ascending"
        )


def _check_capacity(config: Mapping[str, Any]) -> None:
    stage = config["stage1"]
    if max(config["num_key_points"], stage["num_points"]) > stage["capacity"]:
        raise UserError(
            f"config.stage1.capacity: found {stage['capacity']}, expected at least stage1.num_points "
            f"({stage['num_points']}) and num_key_points ({config['num_key_points']})"
        )


def _check_render(config: Mapping[str, Any]) -> None:
    background = _get(config, "render.background")
    if not (
        isinstance(background, (tuple, list))
        and len(background) == 3
        and all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in background)
    ):
        raise UserError(f"config.render.background: found {background!r}, expected three numbers from 0 to 1")
    capacity = _get(config, "render.capacity")
    if capacity is not None:
        _check_count(capacity, 1, "render.capacity")
    try:
        choose_backend(_get(config, "render.implementation"))
    except UserError as error:
        message = str(error).removeprefix("render implementation: ")
        raise UserError(f"config.render.implementation: {message}") from error


def _check_slot(spec: Any, key: str) -> None:
    if not isinstance(spec, (Mapping, ConfigDict)):
        raise UserError(f'config.{key}: found {spec!r}, expected dict(fn="module:function", ...)')
    resolve(spec, key=key)


def _check_radius_power(config: Mapping[str, Any]) -> None:
    """Radii of another meaning than the weights take them for would leave key points without neighbours."""
    skinning = resolve(config["skinning"], key="skinning")
    expected = RADIUS_POWERS.get(getattr(skinning, "func", skinning))
    if expected is not None and config["radius_power"] != expected:
        kind = "a squared length" if expected == 2 else "a length"
        raise UserError(
            f"config.radius_power: found {config['radius_power']:g}, expected {expected:g}: the radius of "
            f"{config['skinning']['fn']} is {kind}"
        )


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


def check_data(config: Mapping[str, Any], dataset: Dataset) -> None:
    """Checks that a dataset has what the config asks of it.

    Raises:
      UserError: no motion to train on, fewer views or frames than a batch takes, no such view, or pictures too small.
    """
    name, num_motions = dataset.object_name, len(motions_in(dataset, "train"))
    if num_motions == 0:
        raise UserError(f"config.data: no motion of {name} has the split 'train', expected at least 1")
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


def check_weights(config: Mapping[str, Any]) -> None:
    """Reads the perceptual networks that training and evaluation use, so that a missing one is not found hours later.

    Raises:
      UserError: weights that are not installed or not what they should be.
    """
    for stage in stages.build_stages(config):
        load_fixed(stage.options.terms)
    load_lpips("vgg")
