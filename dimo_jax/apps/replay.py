"""`--app=replay`: runs again up to a step that ended training with NaN, to find the first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dimo_jax.core.errors import UserError
from dimo_jax.data.dataset import Dataset
from dimo_jax.io.npz import read_npz
from dimo_jax.runs.build import build_system
from dimo_jax.runs.lifecycle import FAILURES, named_arrays
from dimo_jax.runs.restore import load_data, read_facts
from dimo_jax.runtime.files import read_json
from dimo_jax.training.checkpoints import Checkpoints
from dimo_jax.training.config_file import load_config
from dimo_jax.training.loop import fit
from dimo_jax.training.system import State
from dimo_jax.training.tracker import LossNotFinite


class _Reached(Exception):
    """The bad step was taken, and nothing was bad."""


class _Replayed:
    """A store and a watcher that keep nothing, and end the run at a step."""

    def __init__(self, checkpoints: Checkpoints, last: int) -> None:
        self._checkpoints, self._last = checkpoints, last
        self.first = 0

    def restore_latest(self, template_at: Callable[[int], State]) -> tuple[int, State] | None:
        """The last checkpoint before the bad step."""
        found = self._checkpoints.restore_latest(template_at, before=self._last)
        self.first = found[0] if found else 0
        return found

    def notes(self, step: int) -> Mapping[str, Any]:
        """Those of the checkpoint."""
        return self._checkpoints.notes(step)

    def save(self, step: int, state: State, *, notes: Mapping[str, Any]) -> None:
        """Comes after every step that was found good."""
        if step >= self._last:
            raise _Reached

    def wait(self) -> None:
        """Nothing is under way."""

    def scalars(self, step: int, stage: str, values: Mapping[str, float]) -> None:
        """Training recorded them already."""

    def images(self, step: int, stage: str, histograms: Mapping[str, Any], preview: Any) -> None:
        """Likewise."""

    def resumed(self, step: int) -> None:
        """Nothing is recorded here."""


def run(*, workdir: str, step: int = 0) -> None:
    """Prints the first step at which a loss or a number of the state is NaN, and what its batch was.

    Args:
      workdir: folder of a run that ended with NaN.
      step: whose batch was saved; default: the last such.

    Example:
      python launch.py --app=replay --workdir=runs/dimo

    Raises:
      UserError: no batch of that step was saved.
    """
    folder = Path(workdir)
    config = load_config(folder)
    path = _find(folder, step)
    told = read_json(path.with_suffix(".json")) or {}
    bad = int(path.stem.removeprefix("step_"))
    dataset = load_data(config, read_facts(folder))
    print(f"training said:   {told.get('message', 'nothing')}")
    found, first = replay(config, dataset, Checkpoints(folder), bad)
    print(f"replayed:        steps {first + 1} to {found.step if found else bad}, from {_origin(first)}")
    print(f"first bad:       {found or 'none; training on other devices, or other data, differs from this'}")
    arrays = read_npz(path, "the batch of a run that ended with NaN")
    print("\n".join(_describe(arrays, dataset, found)))


def replay(
    config: ConfigDict, dataset: Dataset, checkpoints: Checkpoints, last: int
) -> tuple[LossNotFinite | None, int]:
    """Takes the steps from the last checkpoint before `last` up to it, and looks at losses and state after each.

    Returns:
      What was found bad first (None: nothing), and the step of the checkpoint (0: from the beginning).
    """
    config = ConfigDict(config.to_dict())
    config.update(checkpoint_every=1, checkpoint_minutes=0.0, image_every=0)
    replayed = _Replayed(checkpoints, last)
    try:
        fit(config, build_system(config, dataset), dataset, replayed, replayed)
    except LossNotFinite as error:
        return error, replayed.first
    except _Reached:
        pass
    return None, replayed.first


def _find(folder: Path, step: int) -> Path:
    saved = sorted((folder / FAILURES).glob("step_*.npz"))
    if not saved:
        raise UserError(f"--workdir={folder}: no batch in {FAILURES}/, expected a run that ended with NaN")
    if not step:
        return saved[-1]
    for path in saved:
        if int(path.stem.removeprefix("step_")) == step:
            return path
    steps = ", ".join(str(int(path.stem.removeprefix("step_"))) for path in saved)
    raise UserError(f"--step: found {step}, expected one of {steps} (batches in {folder / FAILURES})")


def _origin(first: int) -> str:
    return f"checkpoint {first}" if first else "the beginning"


def _describe(saved: Mapping[str, np.ndarray], dataset: Dataset, found: LossNotFinite | None) -> list[str]:
    if "motions" not in saved:
        return ["batch:           none, a step of this run sees all clips"]
    motions, times = saved["motions"].ravel(), saved["times"].reshape(saved["motions"].size, -1)
    lines = []
    for motion, row in zip(motions, times, strict=True):
        frames = ", ".join(str(round(float(time) * dataset.num_frames)) for time in row)
        lines.append(f"motion of batch: {dataset.names[motion]}, frames {frames}")
    height, width = saved["images"].shape[-3:-1]
    lines.append(f"pictures:        {width}x{height}, opaque share {saved['images'][..., 3].mean() / 255:.3f}")
    if found is not None and found.batch is not None:
        now = named_arrays(found.batch)
        same = now.keys() == saved.keys() and all(np.array_equal(now[name], saved[name]) for name in saved)
        lines.append(f"the data gives   {'the same batch' if same else 'another batch'} for that step now")
    return lines
