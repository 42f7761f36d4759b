"""The folder in which a run works: its config, its manifest, and how a step goes through its items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from PIL import Image

from dimo_jax.core.errors import UserError
from dimo_jax.core.resolve import resolve
from dimo_jax.priors.client import Endpoint
from dimo_jax.priors.failures import Failure
from dimo_jax.priors.manifest import Manifest, Record, digest_of
from dimo_jax.runtime.progress import track

# What changes where and how fast something is made, but not what is made.
_NEUTRAL = {"device", "offload", "tile_vae", "timeout", "python", "checkout", "encoding_t", "decoding_t"}


@dataclass(frozen=True)
class Job:
    """One item of a step."""

    item: str
    key: str
    make: Callable[[], tuple[dict[str, Any], tuple[str, ...]]]  # the record's fields, and the files that were made


@dataclass
class Work:
    """What all steps share."""

    config: Mapping[str, Any]  # see configs/distill.py
    manifest: Manifest
    image: Path
    prompts: Path | None = None

    @property
    def folder(self) -> Path:
        """Where everything is written."""
        return self.manifest.folder

    def slot(self, name: str) -> Callable[..., Any]:
        """The function in a slot of the config."""
        return resolve(self.config[name], key=name)

    def options(self, name: str) -> dict[str, Any]:
        """Of a slot, what its results depend on."""
        return {key: value for key, value in self.config[name].items() if key not in _NEUTRAL and value is not None}

    @cached_property
    def endpoint(self) -> Endpoint:
        """The language model's."""
        endpoint: Endpoint = self.slot("client")()
        return endpoint

    def each(self, step: str, jobs: Sequence[Job]) -> dict[str, Record]:
        """Does what is not done yet, item by item.

        Returns:
          The finished records by item, in the order of the jobs.

        Raises:
          UserError: an item failed and `config.skip_failed` is False, or so many in a row that the others are not
            tried. The manifest has every failure, and what was finished stays finished.
        """
        records: dict[str, Record] = {}
        failures: list[tuple[str, Failure]] = []
        in_a_row = 0
        for job in track(jobs, step, unit="item"):
            record = self.manifest.find(step, job.item, job.key)
            if record is None:
                try:
                    fields, files = job.make()
                except Failure as failure:
                    self.manifest.failed(step, job.item, job.key, failure, **failure.fields)
                    logging.warning("%s %s failed: %s", step, job.item, failure)
                    failures.append((job.item, failure))
                    in_a_row += 1
                    if failure.fatal or in_a_row >= self.config["max_failures"]:
                        break
                    continue
                record = self.manifest.done(step, job.item, job.key, files=files, **fields)
            in_a_row = 0
            records[job.item] = record
        stopped = len(records) + len(failures) < len(jobs)
        if failures and (stopped or not records or failures[-1][1].fatal or not self.config["skip_failed"]):
            raise UserError(self._explain(step, failures, len(jobs), stopped=stopped))
        return records

    def _explain(self, step: str, failures: Sequence[tuple[str, Failure]], total: int, *, stopped: bool) -> str:
        item, failure = failures[-1]
        end = "the same command tries again and keeps what is finished"
        if not stopped and total > len(failures):
            end += "; --config.skip_failed goes on without"
        return f"{step} {item}: {failure} ({len(failures)} of {total} failed, see {self.manifest.path}; {end})"


def key_of(**parts: Any) -> str:
    """The digest of what a record depends on."""
    return digest_of(parts)


def read_frames(folder: Path) -> np.ndarray:
    """Numbered images of one size and kind: [T,H,W,C] uint8."""
    frames = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            frames.append(np.asarray(image))
    return np.stack(frames)
