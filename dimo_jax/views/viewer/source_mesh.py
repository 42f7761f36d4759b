"""The mesh that a run's dataset was imported from, bound to the key points when it is first exported."""

from __future__ import annotations

import threading
from pathlib import Path

from dimo_jax.core.errors import UserError
from dimo_jax.io.motion import Motion
from dimo_jax.runs import retarget
from dimo_jax.runs.motions import MotionRecorder
from dimo_jax.runs.restore import Restored


class SourceMesh:
    """Writes the mesh as `--app=export --format=mesh` does."""

    def __init__(
        self, model: Restored, workdir: Path, *, source: str, hide: str = "", repair: bool = False, dataset: str = ""
    ) -> None:
        """`source` is the model file, or empty; others as in `retarget.prepare`."""
        self._model, self._workdir = model, workdir
        self._source, self._hide, self._repair, self._dataset = source, hide, repair, dataset
        self._bound: retarget.BoundMesh | None = None
        self._lock = threading.Lock()

    def write(self, clip: Motion, path: Path) -> Path:
        """Writes a motion of the mesh.

        Raises:
          UserError: no source, or one that does not belong to the run's dataset.
        """
        if not self._source:
            raise UserError(
                "--source: not given, expected the .glb or .gltf that the run's dataset was imported from: start the "
                "viewer with it"
            )
        with self._lock:  # two visitors may ask at once
            if self._bound is None:
                dataset = self._dataset or retarget.find_dataset(self._workdir)
                how = dict(source=self._source, hide=self._hide, repair=self._repair, dataset=dataset)
                self._bound = retarget.prepare(self._model, MotionRecorder(self._model), **how)  # type: ignore[arg-type]
        return self._bound.write_as([clip], path)
