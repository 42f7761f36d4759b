"""What the engine reads of a config, checked before a run begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dimo_jax.core.config_fields import check_count, check_positive, get
from dimo_jax.core.errors import UserError
from dimo_jax.render import choose_backend
from dimo_jax.training.images import find_dilation
from dimo_jax.training.parallel import choose_layout

# Integers that the engine reads, and the least that each may be; 0 turns off what happens every so many steps.
COUNTS = {
    "seed": 0,
    "batch.motions": 1,
    "batch.views": 1,
    "batch.frames": 1,
    "num_devices": 0,
    "data.held_out_every": 0,
    "log_every": 1,
    "image_every": 0,
    "checkpoint_every": 1,
    "keep_checkpoints": 1,
}


def check_engine(config: Mapping[str, Any]) -> None:
    """Checks counts, the renderer, and that the batch can be dealt out to the devices.

    Raises:
      UserError: what is wrong, by its config key.
    """
    for key, least in COUNTS.items():
        check_count(get(config, key), least, key)
    if config["data"]["held_out_every"] == 1:
        raise UserError("config.data.held_out_every: found 1, expected 0 (every frame trains) or at least 2")
    if get(config, "checkpoint_minutes") != 0:
        check_positive(config["checkpoint_minutes"], None, "checkpoint_minutes")
    check_render(config)
    check_count(config["batch"].get("accumulate", 1), 1, "batch.accumulate")
    for group, name in (("data", "device_gib"), ("batch", "memory_gib")):
        gib = config[group].get(name, 0.0)
        if not isinstance(gib, (int, float)) or not gib >= 0:
            raise UserError(f"config.{group}.{name}: found {gib!r}, expected a number of at least 0")
    choose_layout(config)


def check_render(config: Mapping[str, Any]) -> None:
    """Raises UserError where `config.render` asks for what the renderer cannot do here."""
    background = get(config, "render.background")
    if not (
        isinstance(background, (tuple, list))
        and len(background) == 3
        and all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in background)
    ):
        raise UserError(f"config.render.background: found {background!r}, expected three numbers from 0 to 1")
    check_positive(find_dilation(config), None, "render.dilation")
    capacity = get(config, "render.capacity")
    if capacity is not None:
        check_count(capacity, 1, "render.capacity")
    try:
        choose_backend(get(config, "render.implementation"))
    except UserError as error:
        message = str(error).removeprefix("render implementation: ")
        raise UserError(f"config.render.implementation: {message}") from error
