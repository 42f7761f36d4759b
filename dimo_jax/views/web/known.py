"""Which components of a model the page's own code can compute, and how it is told which."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from dimo_jax.core.errors import UserError
from dimo_jax.runs.restore import Restored
from dimo_jax.skinning.blending import linear_blend
from dimo_jax.skinning.weights import rbf_weights, rbf_weights_authors
from dimo_jax.systems.dimo.basis_decoder import BasisDecoder
from dimo_jax.systems.dimo.decoder import MotionDecoder
from dimo_jax.systems.dimo.graph import canonical_neighbors, trajectory_neighbors
from dimo_jax.systems.dimo.model import move_by_key_points

# By the name that `model.js` has for each.
DECODERS: dict[str, type[nn.Module]] = {"basis": BasisDecoder, "mlp": MotionDecoder}
GRAPHS: dict[str, Callable[..., Any]] = {"trajectory": trajectory_neighbors, "canonical": canonical_neighbors}
SKINNINGS: dict[str, Callable[..., Any]] = {"squared": rbf_weights, "authors": rbf_weights_authors}
MOST_KEY_POINTS = 1 << 16  # their indices have 16 bits


def describe_model(model: Restored) -> dict[str, Any]:
    """What `model.js` needs to know of a model beside its arrays.

    Raises:
      UserError: a component that it cannot compute; the message names its config key.
    """
    components, config = model.player.components, model.config
    if len(model.player.params.key_points.positions) > MOST_KEY_POINTS:
        raise UserError(
            f"config.num_key_points: found {config.num_key_points}, expected at most {MOST_KEY_POINTS} for "
            "--format=html"
        )
    graph, graph_options = _find(components.graph, GRAPHS, config, "graph")
    skinning, skinning_options = _find(components.skinning, SKINNINGS, config, "skinning")
    _, deform = _find(components.deform, {"linear": linear_blend}, config, "deform")
    _find(model.player.move, {"key points": move_by_key_points}, config, "stage2.move")
    if deform["align"]:
        raise UserError("config.deform.align: found True, expected False for --format=html")
    return dict(
        decoder=_describe_decoder(components.decoder, config),
        graph=dict(kind=graph, num_neighbors=graph_options["num_neighbors"]),
        skinning=dict(kind=skinning, floor=skinning_options.get("floor", 0.0)),
        unit=bool(deform["unit"]),
        dilation=model.player.dilation,
        num_frames=model.num_frames,
    )


def _find(
    component: Any, known: dict[str, Callable[..., Any]], config: ConfigDict, key: str
) -> tuple[str, dict[str, Any]]:
    """The page's name of a function, and the function's options."""
    bound = component if isinstance(component, functools.partial) else functools.partial(component)
    for name, function in known.items():
        if bound.func is function:
            return name, (function.__kwdefaults__ or {}) | bound.keywords
    raise _refuse(config, key, [function.__name__ for function in known.values()])


def _describe_decoder(decoder: nn.Module, config: ConfigDict) -> dict[str, Any]:
    kind = next((name for name, module in DECODERS.items() if type(decoder) is module), None)
    if kind is None:
        raise _refuse(config, "decoder", ["basis_decoder", "motion_decoder"])
    names = ("width", "lowest_frequency", "num_position_bands", "num_time_bands")
    width, lowest, position_bands, time_bands = (getattr(decoder, name) for name in names)
    if jnp.dtype(decoder.dtype) != jnp.float32:
        found = jnp.dtype(decoder.dtype).name
        raise UserError(f"config.decoder.dtype: found {found}, expected float32 for --format=html")
    told = dict(kind=kind, width=width, lowest=lowest, position_bands=position_bands, time_bands=time_bands)
    if isinstance(decoder, BasisDecoder):
        branch = [*(f"branch_{layer}" for layer in range(decoder.branch_depth)), "shares"]
        return told | dict(rank=decoder.rank, scale=decoder.scale, branch=branch, activation=decoder.branch_activation)
    assert isinstance(decoder, MotionDecoder)
    if decoder.skip == 0:
        raise UserError("config.decoder.skip: found 0, expected at least 1 for --format=html")
    return told | dict(depth=decoder.depth, skip=decoder.skip, head_width=decoder.head_width)


def _refuse(config: ConfigDict, key: str, known: list[str]) -> UserError:
    spec: Any = config
    for part in key.split("."):
        spec = spec[part]
    return UserError(
        f"config.{key}.fn: found {spec['fn']!r}, expected {' or '.join(known)} for --format=html, whose page computes "
        "no other"
    )
