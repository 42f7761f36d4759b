"""What DIMO reads of a config, checked before a run begins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dimo_jax.core.config_fields import check_count, check_fields, check_phases, check_slot, get
from dimo_jax.core.errors import UserError
from dimo_jax.core.resolve import resolve
from dimo_jax.skinning.weights import RADIUS_POWERS
from dimo_jax.systems.dimo import stages
from dimo_jax.systems.dimo.model import build_components
from dimo_jax.training.optimizer import ADAM_B2

# Integers, and the least that each may be; 0 turns off what happens every so many steps.
COUNTS = {
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
FIT = "dimo_jax.systems.dimo.fit_decoder:fit_decoder"
FREED = "dimo_jax.systems.dimo.model:move_by_key_points"  # what the third stage's free poses move
# Slots that training resolves on the way; the others are resolved when its parts are built.
LATE_SLOTS = ("stage1.densify", "stage1.prune", "stage2.prune")


def check(config: Mapping[str, Any]) -> None:
    """Checks all of a config that needs no data: numbers in range, phases in order, every slot resolvable.

    Raises:
      UserError: what is wrong, by its config key.
    """
    check_fields(config, "", counts=COUNTS, positive=POSITIVE)
    if config["stage2"]["sh_degree"] > MAX_SH_DEGREE:
        raise UserError(
            f"config.stage2.sh_degree: found {config['stage2']['sh_degree']}, expected 0 to {MAX_SH_DEGREE}"
        )
    _check_light(config["stage2"])
    for name in ("stage1", "stage2", "stage3") if "stage3" in config else ("stage1", "stage2"):
        b2 = config[name].get("adam_b2", ADAM_B2)
        if not isinstance(b2, int | float) or not 0 < b2 < 1:
            raise UserError(f"config.{name}.adam_b2: found {b2!r}, expected a number above 0 and below 1")
    for name in ("stage1", "stage2"):
        check_phases(get(config, f"{name}.phases"), f"{name}.phases")
    if "stage3" in config:
        check_count(config["stage3"]["num_steps"], 0, "stage3.num_steps")
    if stages.frees_poses(config):
        _check_third(config)
    _check_capacity(config)
    for key in ("decoder", "latent", "skinning", "graph", "deform", "text.projector", "text.fit", "turns", *LATE_SLOTS):
        check_slot(get(config, key), key)
    _check_radius_power(config)
    build_components(config)
    stages.resolve_latent_init(config)
    stages.build_stages(config)


def _check_third(config: Mapping[str, Any]) -> None:
    check_phases(get(config, "stage3.phases"), "stage3.phases")
    check_slot(get(config, "stage3.fit"), "stage3.fit")
    if config["stage3"]["fit"]["fn"] == FIT:
        counts = {"num_steps": 1, "num_moments": 1}
        check_fields(config, "stage3.fit", counts=counts, positive={"decoder_rate": None})
        rate = config["stage3"]["fit"]["code_rate"]
        if not isinstance(rate, int | float) or not 0 <= rate < math.inf:
            raise UserError(f"config.stage3.fit.code_rate: found {rate!r}, expected a number, at least 0")
    move = config["stage2"]["move"]["fn"]
    if move != FREED:
        raise UserError(f"config.stage2.move: found {move} beside stage3, expected {FREED}, or stage3.num_steps=0")


def _check_light(stage: Mapping[str, Any]) -> None:
    light = stage.get("light")
    if light is None:
        return
    numbers = [float(x) for x in light if isinstance(x, int | float) and not isinstance(x, bool)]
    if len(light) != 3 or len(numbers) != 3 or not 0 < math.hypot(*numbers) < math.inf:
        raise UserError(f"config.stage2.light: found {light!r}, expected three numbers that are not all 0, or none")
    if stage["sh_degree"]:
        raise UserError(
            f"config.stage2.sh_degree: found {stage['sh_degree']} beside stage2.light, expected 0: colours follow the "
            "light, or the view"
        )


def _check_capacity(config: Mapping[str, Any]) -> None:
    stage = config["stage1"]
    if max(config["num_key_points"], stage["num_points"]) > stage["capacity"]:
        raise UserError(
            f"config.stage1.capacity: found {stage['capacity']}, expected at least stage1.num_points "
            f"({stage['num_points']}) and num_key_points ({config['num_key_points']})"
        )


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
