"""Whether the disk has room for a run, asked before it begins."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import jax
from ml_collections import ConfigDict

from dimo_jax.core.errors import UserError
from dimo_jax.data.dataset import Dataset
from dimo_jax.systems.dimo import stages
from dimo_jax.systems.dimo.model import build_components

OTHER_BYTES = 64 * 2**20  # metrics, TensorBoard, videos, report: the demo's take 10 MB


def checkpoint_bytes(config: ConfigDict, dataset: Dataset, *, num_text_features: int = 0) -> int:
    """Bytes of the larger of the two stages' states; on disk orbax compresses them a little.

    `num_text_features` is the length of a sentence's embedding, where the state holds a projector.
    """
    sizes = dict(num_motions=dataset.num_motions, num_frames=dataset.num_frames, num_text_features=num_text_features)
    components = build_components(config)
    last = stages.build_stages(config)[1].last_step
    states = [stages.template(config, components, step=step, **sizes) for step in (0, last)]
    return max(sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)) for state in states)


def needed_bytes(config: ConfigDict, dataset: Dataset, *, num_text_features: int = 0) -> int:
    """What a whole run writes: the checkpoints kept, the best, the one being written, and all else."""
    return (
        checkpoint_bytes(config, dataset, num_text_features=num_text_features) * (config.keep_checkpoints + 2)
        + OTHER_BYTES
    )


def check_room(config: ConfigDict, dataset: Dataset, folder: Path, *, num_text_features: int = 0) -> None:
    """Checks that the disk of `folder` holds what the run has still to write.

    Raises:
      UserError: it does not.
    """
    written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
    missing = needed_bytes(config, dataset, num_text_features=num_text_features) - written
    nearest = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(nearest).free
    if free < missing:
        raise UserError(
            f"--workdir={folder}: {free / 2**20:.0f} MiB are free there, expected {missing / 2**20:.0f} MiB, for "
            f"{config.keep_checkpoints + 2} checkpoints and what is drawn (config.keep_checkpoints keeps fewer)"
        )
