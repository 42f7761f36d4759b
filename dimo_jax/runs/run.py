"""A trained run in a few lines: its motions, new ones, and their pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array, Camera
from dimo_jax.io.gltf.skinned import write_skinned_glb
from dimo_jax.io.images import to_uint8
from dimo_jax.io.motion import Motion
from dimo_jax.io.place import place_motion
from dimo_jax.io.video import write_video
from dimo_jax.runs.choice import SPREAD
from dimo_jax.runs.codes import draw_codes
from dimo_jax.runs.motions import MotionRecorder, check_skin
from dimo_jax.runs.restore import Restored, check_motion_space, describe, restore
from dimo_jax.systems.dimo.player import Clip, Player
from dimo_jax.systems.dimo.stages import frame_times
from dimo_jax.training.config_file import to_plain
from dimo_jax.training.model_file import write_model
from dimo_jax.training.trainer import Trainer


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

    def sample(self, *, seed: int = 0, prior: str = "data", around: str = "", spread: float = SPREAD) -> Array:
        """A new code [D].

        Args:
          seed: of the draw.
          prior: "data", near the training motions' codes, or "standard", N(0, I) as in the paper.
          around: the training motion to vary; empty: none.
          spread: 0 gives a training motion, 1 a draw of the Gaussian fitted to all; around one, of the prior's width.

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

    def record(self, code: Array, *, name: str = "motion", num_frames: int = 0, frame_rate: float = 0.0) -> Motion:
        """The motion of a code [D] as plain arrays, with the key points' poses and the weights of what they move.

        Args:
          code: [D].
          name: of the motion.
          num_frames: T; 0: as many as a training video has.
          frame_rate: frames a second; 0: so that it takes as long as in training.
        """
        count = num_frames or self.num_frames
        rate = frame_rate or self.model.frame_rate * count / self.num_frames
        return MotionRecorder(self.model).record(name, code, frame_times(count), frame_rate=rate)

    def write_glb(self, motion: Motion, path: str | Path, *, geometry: str = "ellipsoids") -> Path:
        """Writes a recorded motion as an animated glTF file: key points are joints, Gaussians their skin.

        It has the units and the place of the data's own world; +Y is up. `geometry` is "ellipsoids" or "points".

        Raises:
          UserError: its Gaussians are not moved by its key points, as in some ablations, or none is opaque enough.
        """
        check_skin(motion, geometry=geometry)
        write_skinned_glb(place_motion(motion, self.model.world.upright()), path, geometry=geometry)
        return Path(path)

    def write_video(self, clip: Clip, path: str | Path, camera: Camera | None = None) -> Path:
        """Films a clip as `render` does and writes an mp4 that takes as long as a training video."""
        frames = to_uint8(self.render(clip, camera))
        return write_video(frames, path, frame_rate=self.model.frame_rate * len(frames) / self.num_frames)

    def save(self, path: str | Path) -> Path:
        """Writes the model as one file ending in `.npz`, which `load_run` reads and every app as its `--workdir`.

        A file whose config names functions of your own is refused when it is read, see docs/extending.md.
        """
        model = self.model
        how: Any = dict(config=to_plain(model.config), facts=model.facts, step=model.step)
        return write_model(model.player.params, model.player.alive, path, **how)


def make_run(trainer: Trainer, state: Any) -> Run:
    """The motion space that a trainer has arrived at, in memory.

    Args:
      trainer: of DIMO, in its second stage or at its end; in the third stage it gives what the second ended with.
      state: its present state.

    Raises:
      UserError: it trains another system, or is still in the first stage, which has no key points yet.
    """
    config: Any = trainer.config
    check_motion_space(config, "config.system")
    first_stage = trainer.system.stages[0].last_step
    if trainer.count < first_stage:
        raise UserError(f"found a trainer at step {trainer.count}, expected one past its first stage ({first_stage})")
    # As a file would hold them, so that a run is the same whether it was saved between or not.
    facts = json.loads(json.dumps(describe(trainer.dataset, system=trainer.system.facts())))
    components = trainer.system.components  # type: ignore[attr-defined]
    copied = jax.device_get(trainer.on_host(state))  # the next step would consume it
    player = Player(config, components, copied, num_frames=trainer.dataset.num_frames)
    return Run(Restored(player, facts, trainer.count, config))


def load_run(workdir: str | Path, *, checkpoint: str = "last") -> Run:
    """The motion space that was trained in a workdir, or that a model file holds.

    Args:
      workdir: a run's folder, or a file of `--app=export --format=checkpoint`.
      checkpoint: "last", or "best" as training batches went.

    Raises:
      UserError: no finished run there.
    """
    return Run(restore(Path(workdir), checkpoint=checkpoint))
