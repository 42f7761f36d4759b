"""The training objective: a weighted sum of terms, each one a slot of the config.

`config.<stage>.losses.<name> = dict(fn="module:function", weight=..., start=..., stop=..., **options)`. A term's
function takes `LossInputs` and returns one number; an extension adds an entry.
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
from dimo_jax.core.types import Array, Turns


class LossInputs(flax.struct.PyTreeNode):
    """What a term may look at. B = motions * frames * views images; P control points."""

    rgb: Array  # [B,H,W,3] rendered over the background
    alpha: Array  # [B,H,W]
    depth: Array  # [B,H,W] unnormalized
    normal: Array  # [B,H,W,3] unnormalized
    true_rgb: Array  # [B,H,W,3] truth over the same background
    true_alpha: Array  # [B,H,W]
    novel: Array  # [B] bool: images of neither the reference view nor the first frame
    controls: Array  # [M,F,P,3] control points at the batch's times
    rotations: Array  # [M,F,P,4] of the control points, as decoded: not normalized
    canonical: Array  # [P,3]
    control_alive: Array  # [P] bool
    edges: Array  # [M,P,J] int32 motion graph
    edge_weights: Array  # [M,P,J] Eq. 1 along them (`skinning.weigh_edges`): 0 for a point itself and for dead ones
    reference: Array  # [M,F,K,3] first-stage key points at the same times (second stage)
    opacities: Array  # [N] in 0..1, 0 for dead slots
    latents: Any  # types.Latents of the batch's motions, [M,D]
    frozen: Mapping[str, Any]  # weights that are not trained: "lpips_vgg", "lpips_alex"
    random_controls: Array | None = None  # [M,R,P,3] at R random times, where a term has the option `num_times`
    turns: Turns | None = None  # of the batch's motions [M] and times [M,F], where they are searched for
    sentences: Any = None  # losses.latent.ProjectedSentences, where the text projector is trained with the latents


@dataclass(frozen=True)
class Term:
    """One weighted term; it counts from step `start` of its stage on, and fades linearly until step `stop`."""

    name: str
    function: Callable[[LossInputs], Array]
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


def evaluate(terms: tuple[Term, ...], inputs: LossInputs, step: Array) -> tuple[Array, dict[str, Array]]:
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
