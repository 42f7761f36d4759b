"""The training objective: a weighted sum of terms, each one a slot of the config.

`config.<stage>.losses.<name> = dict(fn="module:function", weight=..., start=..., stop=..., **options)`. A term's
function takes the system's inputs (`ImageInputs` or more) and returns one number; an extension adds an entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from dimo_jax.core.errors import UserError
from dimo_jax.core.resolve import resolve
from dimo_jax.core.types import Array


class ImageInputs(flax.struct.PyTreeNode):
    """What a term may look at of any system: B images, and what rendered them."""

    rgb: Array  # [B,H,W,3] rendered over the background
    alpha: Array  # [B,H,W]
    depth: Array  # [B,H,W] unnormalized
    normal: Array  # [B,H,W,3] unnormalized
    true_rgb: Array  # [B,H,W,3] truth over the same background
    true_alpha: Array  # [B,H,W]
    novel: Array  # [B] bool: images of neither the reference view nor the first frame
    opacities: Array  # [N] in 0..1, 0 for dead slots
    fixed: Mapping[str, Any]  # weights that are not trained: "lpips_vgg", "lpips_alex"


@dataclass(frozen=True)
class Term:
    """One weighted term; it counts from step `start` of its stage on, and fades linearly until step `stop`."""

    name: str
    function: Callable[[Any], Array]
    weight: float
    start: int
    stop: int | None  # None: as long as the stage lasts, without fading
    options: Mapping[str, Any]


def build_terms(specs: Mapping[str, Any], *, key: str) -> tuple[Term, ...]:
    """Terms of a stage from its config; those of weight 0 are left out.

    Raises:
      UserError: a term without weight, whose function cannot be resolved, or which stops before it starts.
    """
    terms = []
    for name, spec in sorted(specs.items()):
        options = {option: value for option, value in spec.items() if option not in ("weight", "start", "stop")}
        if "weight" not in spec:
            raise UserError(f"config.{key}.{name}: found no weight, expected a number")
        if spec["weight"]:
            function = resolve(options, key=f"{key}.{name}")
            start, stop = int(spec.get("start", 0)), spec.get("stop")
            if stop is not None and stop <= start:
                raise UserError(f"config.{key}.{name}.stop: found {stop}, expected more than its start, {start}")
            terms.append(Term(name, function, float(spec["weight"]), start, stop, options))
    return tuple(terms)


def evaluate(terms: tuple[Term, ...], inputs: ImageInputs, step: Array) -> tuple[Array, dict[str, Array]]:
    """The weighted sum [], and each term's unweighted value.

    A term that has not started, or has stopped, costs nothing: it stands behind a `lax.cond` on the step of its stage.
    """
    values: dict[str, Array] = {}
    for term in terms:
        if term.start > 0 or term.stop is not None:
            counts, _ = _weigh(term, step)
            values[term.name] = jax.lax.cond(counts, term.function, lambda _: jnp.zeros([]), inputs)
        else:
            values[term.name] = term.function(inputs)
    return combine(terms, values, step), values


def combine(terms: tuple[Term, ...], values: Mapping[str, Array], step: Array) -> Array:
    """The weighted sum [] of terms' values at a step of their stage."""
    total = jnp.zeros([])
    for term in terms:
        # The barrier keeps the product apart: fused with the sum in one program and not in another, it rounds anew.
        total = total + jax.lax.optimization_barrier(_weigh(term, step)[1] * values[term.name])
    return total


def _weigh(term: Term, step: Array) -> tuple[Array, Any]:
    """Whether a term counts at a step of its stage, and how much."""
    counts = step >= term.start
    if term.stop is None:
        return counts, term.weight
    return counts & (step < term.stop), term.weight * jnp.clip((term.stop - step) / (term.stop - term.start), 0.0, 1.0)
