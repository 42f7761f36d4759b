"""Weights that training uses but does not move."""

from __future__ import annotations

from typing import Any

from dimo_jax.core.types import Turns
from dimo_jax.losses.terms import load_networks
from dimo_jax.losses.total import Term
from dimo_jax.systems.dimo.projector import SentenceInputs


def load_fixed(
    terms: tuple[Term, ...], sentences: SentenceInputs | None = None, turns: Turns | None = None
) -> dict[str, Any]:
    """Weights of the perceptual networks of a stage's terms, by the names that `losses.terms.lpips` looks for.

    `sentences` join them where the text projector is trained with the latents, and `turns`, which the term `turn` looks
    at, where they are searched for.
    """
    weights = load_networks(terms)
    others = {"sentences": sentences, "turns": turns}
    return weights | {name: known for name, known in others.items() if known is not None}
