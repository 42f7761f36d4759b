"""Whether the disk has room for a run, asked before it begins."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import jax
from ml_collections import ConfigDict

from dimo_jax.core.errors import UserError
from dimo_jax.training.system import System

OTHER_BYTES = 64 * 2**20  # metrics, TensorBoard, videos, report: the demo's take 10 MB


def checkpoint_bytes(system: System) -> int:
    """Bytes of the largest of the stages' states; on disk orbax compresses them a little."""
    states = [system.template(stage.first_step) for stage in system.stages]
    return max(sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) for state in states)


def needed_bytes(config: ConfigDict, system: System) -> int:
    """What a whole run writes: the checkpoints kept, the best, the one being written, and all else."""
    return checkpoint_bytes(system) * (config.keep_checkpoints + 2) + OTHER_BYTES


def check_disk_space(config: ConfigDict, system: System, folder: Path) -> None:
    """Checks that the disk of `folder` holds what the run has still to write.

    Raises:
      UserError: it does not.
    """
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
    missing = needed_bytes(config, system) - written
    nearest = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(nearest).free
    if free < missing:
        raise UserError(
            f"--workdir={folder}: {free / 2**20:.0f} MiB are free there, expected {missing / 2**20:.0f} MiB, for "
            f"{config.keep_checkpoints + 2} checkpoints and what is drawn (config.keep_checkpoints keeps fewer)"
        )
