"""A trained joint model of videos and pose maps, restored from the workdir of configs/animax.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dimo_jax.core.errors import UserError
from dimo_jax.io.json_fields import get_count, get_field
from dimo_jax.runs.restore import FACTS_FILE, read_facts
from dimo_jax.systems.animax.player import AnimaxPlayer
from dimo_jax.systems.animax.stages import trained
from dimo_jax.systems.animax.system import build_backbone, build_codec, list_stages, make_template
from dimo_jax.training.checkpoints import Checkpoints
from dimo_jax.training.config_file import find_trained, is_of, load_config
from dimo_jax.training.partial import PartialState, averaged

SYSTEM = "dimo_jax.systems.animax.system:Animax"


@dataclass(frozen=True)
class RestoredAnimax:
    """A trained model, and what is known of the clips that it learnt from."""

    player: AnimaxPlayer
    facts: Mapping[str, Any]
    step: int
    config: ConfigDict
    size: int  # of its pictures, pixels a side

    @property
    def frame_rate(self) -> float:
        """Frames a second of a training video, the median."""
        return float(self.facts["frame_rate"])


def is_animax(config: ConfigDict) -> bool:
    """Whether a config is one of configs/animax.py."""
    return is_of(config, SYSTEM)


def find_run(config: ConfigDict) -> str:
    """The workdir that a config for drawing names; raises UserError as `find_trained` does."""
    return find_trained(config, SYSTEM, "animax")


def restore_animax(workdir: str | Path, *, checkpoint: str = "last") -> RestoredAnimax:
    """The model in a workdir, with the average of its weights.

    Args:
      workdir: of a run of configs/animax.py.
      checkpoint: "last" or "best".

    Raises:
      UserError: no such run there, none that has saved anything, or a damaged one.
    """
    folder = Path(workdir)
    config, facts = load_config(folder), read_facts(folder)
    if not is_animax(config):
        raise UserError(f"--workdir={workdir}: holds no run of configs/animax.py, expected one")
    where = str(folder / FACTS_FILE)
    size, num_frames = (get_count(facts, key, most, where) for key, most in (("size", 8192), ("num_frames", 999)))
    azimuths = get_field(facts, "azimuths", list, where)
    if len(azimuths) < 2 or not all(isinstance(each, (int, float)) for each in azimuths):
        raise UserError(f"{where}: azimuths is {str(azimuths)[:60]}, expected two numbers or more")
    get_field(facts, "elevation", (int, float), where)
    if not 0 < get_field(facts, "frame_rate", (int, float), where) <= 1e6:
        raise UserError(f"{where}: frame_rate is {facts['frame_rate']}, expected frames a second above 0")
    checkpoints = Checkpoints(folder)
    if not checkpoints.steps():
        raise UserError(f"--workdir={workdir}: no checkpoint in it, expected a training run that has saved one")
    best = checkpoints.best() if checkpoint == "best" else None
    if checkpoint == "best" and best is None:
        raise UserError(f"--checkpoint=best: found no scores in {checkpoints.folder}, expected a longer run")
    backbone = build_backbone(config)
    found = checkpoints.restore_latest(
        lambda step: make_template(config.animax, backbone, step), before=None if best is None else best + 1
    )
    assert found is not None  # there is at least one, and one that cannot be read is an error
    player = make_player(config, jax.tree.map(jnp.asarray, found[1]), found[0], num_frames=num_frames)
    return RestoredAnimax(player, facts, found[0], config, size)


def make_player(config: ConfigDict, state: PartialState, step: int, *, num_frames: int) -> AnimaxPlayer:
    """What draws with the averaged weights of a state after `step` steps."""
    stages = list_stages(config.animax)
    stage = next((each for each in stages if step < each.last_step), stages[-1])
    params = averaged(state, trained(state.params, stage.name))
    return AnimaxPlayer(config.animax, build_codec(config), build_backbone(config), params, num_frames=num_frames)
