"""LoRA (Hu et al. 2021): dense layers that are trained by a change of low rank, which starts at zero."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.networks.wan.layers import Dense, Lora

Tree = TypeVar("Tree")


def _map_dense(change: Callable[[str, Dense], Dense], tree: Tree) -> Tree:
    def visit(path: Any, leaf: Any) -> Any:
        return change(jax.tree_util.keystr(path), leaf) if isinstance(leaf, Dense) else leaf

    found: Tree = jax.tree_util.tree_map_with_path(visit, tree, is_leaf=lambda leaf: isinstance(leaf, Dense))
    return found


def add_lora(tree: Tree, key: Array, *, rank: int, alpha: float, where: Callable[[str], bool]) -> Tree:
    """Dense layers with a LoRA, which change nothing yet: what leads up from the low rank is 0.

    Args:
      tree: a network's arrays; kernels [...,in,out] may be stacked over blocks.
      key: of the matrices that lead down, normal over the root of their inputs.
      rank: of the change.
      alpha: the change is scaled by alpha / rank.
      where: whether a layer gets one, by its path in `tree`, such as ".blocks.attention.query".

    Raises:
      ValueError: no layer is chosen, or a rank below 1.
    """
    chosen: list[str] = []

    def change(path: str, layer: Dense) -> Dense:
        if not where(path):
            return layer
        chosen.append(path)
        *stack, inputs, outputs = layer.kernel.shape
        drawn = jax.random.normal(jax.random.fold_in(key, len(chosen)), (*stack, inputs, rank)) / math.sqrt(inputs)
        return layer.replace(lora=Lora(down=drawn, up=jnp.zeros((*stack, rank, outputs)), scale=alpha / rank))

    if rank < 1:
        raise ValueError(f"rank is {rank}, expected at least 1")
    changed = _map_dense(change, tree)
    if not chosen:
        raise ValueError("no dense layer is chosen, expected some")
    return changed


def merge_lora(tree: Tree) -> Tree:
    """The network with every LoRA added to its kernel, which computes the same."""

    def change(path: str, layer: Dense) -> Dense:
        if layer.lora is None:
            return layer
        whole = layer.kernel + (layer.lora.down @ layer.lora.up) * layer.lora.scale
        return layer.replace(kernel=whole.astype(layer.kernel.dtype), lora=None)

    return _map_dense(change, tree)
