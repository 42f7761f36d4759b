"""A trained run in a few lines: its motions, new ones, and their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array, Camera
from dimo_jax.runs.codes import draw_codes
from dimo_jax.runs.restore import Restored, restore
from dimo_jax.systems.dimo.player import Clip
from dimo_jax.systems.dimo.stages import frame_times


class Run:
    """A trained motion space of DIMO.

    Attributes:
      model: what the run's checkpoint holds, and how to play it.
    """

    def __init__(self, model: Restored) -> None:
        self.model = model

    @property
    def motions(self) -> tuple[str, ...]:
        """Names of the motions that it was trained on."""
        return tuple(str(self.model.facts["names"][index]) for index in self.model.trained_motions)

    @property
    def num_frames(self) -> int:
        """Frames of a training video."""
        return self.model.num_frames

    def code(self, motion: str) -> Array:
        """The latent code [D] of a training motion; raises UserError where none has that name."""
        return self.model.player.latent(self.model.find_motion(motion, flag="motion"))

    def sample(self, *, seed: int = 0, prior: str = "data", around: str = "", spread: float = 0.5) -> Array:
        """A new code [D].

        Args:
          seed: of the draw.
          prior: "data", a Gaussian fitted to the training codes, or "standard", N(0, I) as in the paper.
          around: the training motion to vary; empty: none.
          spread: width of the draw around it, 1 being the prior's.

        Raises:
          UserError: no training motion of that name.
        """
        return draw_codes(self.model, seed=seed, num_samples=1, prior=prior, around=around, spread=spread)[0]

    def play(self, code: Array, *, num_frames: int = 0) -> Clip:
        """The motion of a code [D] at evenly spaced times: Gaussians with a leading axis T, key points [T,K,3].

        `num_frames` is T; 0: as many as a training video has.
        """
        return self.model.player.play(code, frame_times(num_frames or self.num_frames))

    def render(self, clip: Clip, camera: Camera | None = None) -> np.ndarray:
        """A clip seen by one camera, by default one of the data: RGB [T,H,W,3] in 0..1."""
        return self.model.player.film(clip.gaussians, self.camera() if camera is None else camera)

    def camera(self, size: int = 0) -> Camera:
        """A camera of the data, its picture `size` pixels high; 0: as in the data."""
        return self.model.camera(size)

    def blend(self, motions: Sequence[str], weights: Sequence[float]) -> Array:
        """The code [D] at a weighted mean of training motions."""
        codes = jnp.stack([self.code(motion) for motion in motions])
        shares = jnp.asarray(weights, jnp.float32)
        return jnp.tensordot(shares / jnp.sum(shares), codes, axes=1)


def load_run(workdir: str | Path, *, checkpoint: str = "last") -> Run:
    """The motion space that was trained in a workdir, or that a model file holds.

    Args:
      workdir: a run's folder, or a file of `--app=export --format=checkpoint`.
      checkpoint: "last", or "best" as training batches went.

    Raises:
      UserError: no finished run there.
    """
    return Run(restore(Path(workdir), checkpoint=checkpoint))
