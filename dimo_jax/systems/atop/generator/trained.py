"""A trained generator, restored from the workdir of configs/atop.py: what `generator.Generator` asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dimo_jax.core.config_fields import check_path
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array, Camera
from dimo_jax.data.articulated.videos import AZIMUTHS, ELEVATION
from dimo_jax.diffusion.ddim import Predict
from dimo_jax.diffusion.noise import Prediction
from dimo_jax.networks.imagedream.unet import UNetParams
from dimo_jax.training.checkpoints import Checkpoints
from dimo_jax.training.config_file import find_trained, is_of, load_config
from dimo_jax.training.partial import PartialState, averaged

from .generator import Generator
from .model import Condition, GeneratorParams
from .parts import Backbone
from .reference import make_condition
from .sampling import draw, guided_prediction
from .slots import build_backbone, build_parts
from .stages import make_template, stage_at
from .training import PICTURES, trained

SYSTEM = "dimo_jax.systems.atop.generator.system:Atop"


class TrainedGenerator(Generator):
    """Fulfils the protocol with the parts that a config names."""

    def __init__(self, config: Mapping[str, Any], params: GeneratorParams) -> None:
        """Args:
        config: whole, of a run.
        params: with the averaged weights.
        """
        self.params, self.options = params, config["atop"]
        self.backbone: Backbone = build_backbone(config)
        self.parts = build_parts(config)
        self.num_frames, self.side = int(config["data"]["num_frames"]), int(config["data"]["side"])
        self.size, self.channels = self.side // self.parts.codec.factor, self.parts.codec.channels
        self.azimuths, self.elevation = AZIMUTHS, ELEVATION
        self.prediction: Prediction = self.backbone.form.prediction
        # Now, because `predict` may first be called inside a program that is being traced.
        self.empty_text = jnp.asarray(self.parts.embed([""])[0])

    @property
    def how(self) -> dict[str, Any]:
        """How the network is asked."""
        return dict(config=self.backbone.config, form=self.backbone.form, attend=self.options["attend"])

    def encode(self, frames: np.ndarray) -> Array:
        """See `Generator`."""
        return jnp.asarray(self.parts.codec.encode(frames))

    def decode(self, latents: Array) -> np.ndarray:
        """See `Generator`."""
        return self.parts.codec.decode(latents)

    def condition(self, rest: np.ndarray, masks: np.ndarray, cameras: Camera, sentence: str) -> Condition:
        """See `Generator`.

        Raises:
          UserError: no view sees the part.
        """
        text = self.parts.embed([sentence])[0]
        return make_condition(rest, masks, cameras, text, look=self.parts.look)

    def predict(self, condition: Condition, *, guidance: float) -> Predict:
        """See `Generator`."""

        def predict(noisy: Array, timestep: Array) -> Array:
            found = guided_prediction(
                self.params, noisy[None], timestep, condition, self.empty_text, guidance=guidance, **self.how
            )
            return found[0]

        return predict

    def draw(self, key: Array, condition: Condition, *, num_steps: int, guidance: float) -> Array:
        """See `Generator`."""
        shape = (self.num_frames, self.size, self.size)
        how: Any = dict(shape=shape, num_steps=num_steps, guidance=guidance, **self.how)
        return draw(self.params, key, condition, self.empty_text, **how)[0]


def load_generator(source: str | Path | ConfigDict) -> Generator:
    """The model that a run of configs/atop.py trained, with the average of its weights, as it last was saved.

    Args:
      source: the workdir, or a config of configs/atop.py whose `config.atop.trained` names it.

    Raises:
      UserError: no such run, one that has saved nothing, or a damaged one.
    """
    given = source if isinstance(source, ConfigDict) else None
    config, step, state = _restore(Path(source if given is None else find_trained(given, SYSTEM, "atop")))
    return make_generator(config, jax.tree.map(jnp.asarray, state), step)


def check_image_model(workdir: str, backbone: Backbone) -> None:
    """Looks whether `load_image_model` can bring the image model of a run, without reading it.

    Args:
      workdir: of that run.
      backbone: of the run that is to begin with it.

    Raises:
      UserError: no such run, one that has not passed its stage pictures, or one whose image model is of other sizes.
    """
    path = check_path(workdir, "atop.start", "the workdir of a run of configs/atop.py")
    try:
        config, checkpoints = _open(path)
    except UserError as error:
        raise UserError(f"config.atop.start: {error}") from error
    step = max(checkpoints.steps())
    if stage_at(config.atop, step).name == PICTURES:
        raise UserError(f"config.atop.start: {path} is at step {step} of stage pictures, expected a run after it")
    theirs = build_backbone(config)
    if (theirs.config, theirs.form) != (backbone.config, backbone.form):
        raise UserError(f"config.atop.start: {path} has another config.atop.backbone, expected one of the same sizes")


def load_image_model(workdir: str) -> UNetParams:
    """The image model of a run that has passed its stage pictures, for another run to begin with.

    Raises:
      UserError: a damaged checkpoint, besides what `check_image_model` finds.
    """
    found: UNetParams = jax.tree.map(jnp.asarray, _restore(Path(workdir))[2].params.backbone)
    return found


def _open(workdir: Path) -> tuple[ConfigDict, Checkpoints]:
    """A run's config, and its checkpoints, of which there is one at least."""
    config = load_config(workdir)
    if not is_of(config, SYSTEM):
        raise UserError(f"--workdir={workdir}: holds no run of configs/atop.py, expected one")
    checkpoints = Checkpoints(workdir)
    if not checkpoints.steps():
        raise UserError(f"--workdir={workdir}: no checkpoint in it, expected a training run that has saved one")
    return config, checkpoints


def _restore(workdir: Path) -> tuple[ConfigDict, int, PartialState]:
    """A run's config, steps taken, and state, as it last was saved."""
    config, checkpoints = _open(workdir)
    backbone = build_backbone(config)
    found = checkpoints.restore_latest(lambda step: make_template(config.atop, backbone, step))
    assert found is not None  # there is at least one, and one that cannot be read is an error
    return config, *found


def make_generator(config: Mapping[str, Any], state: Any, step: int) -> TrainedGenerator:
    """What draws with the averaged weights of a state after `step` steps."""
    stage = stage_at(config["atop"], step)
    return TrainedGenerator(config, averaged(state, trained(state.params, stage.name)))
