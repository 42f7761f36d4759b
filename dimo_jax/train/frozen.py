"""Weights that training uses but does not move."""

from __future__ import annotations

from typing import Any

from dimo_jax.losses.perceptual import load_lpips
from dimo_jax.losses.total import Term


def load_frozen(terms: tuple[Term, ...]) -> dict[str, Any]:
    """Weights of the perceptual networks of a stage's terms, by the names that `losses.terms.lpips` looks for."""
    networks = {term.options.get("network", "vgg") for term in terms if term.name == "lpips"}
    return {f"lpips_{network}": load_lpips(network) for network in networks}
