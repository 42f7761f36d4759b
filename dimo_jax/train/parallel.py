"""The mapping of the training step onto devices: the only file that knows about `pmap`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

AXIS = "devices"


def parallelize(build: Callable[..., Callable[..., Any]], num_devices: int) -> Callable[..., Any]:
    """Compiles a step for one device (`jit`) or several (`pmap`).

    Args:
      build: takes `axis_name` and returns the step (state, batch, frozen, key) -> (state, metrics).
      num_devices: local devices to use. With more than one, the state is replicated and every array of the batch has
        a leading device axis (`split`).

    Returns:
      The compiled step; the state that is passed in is donated.
    """
    if num_devices == 1:
        return jax.jit(build(axis_name=None), donate_argnums=0)
    return jax.pmap(
        build(axis_name=AXIS),
        axis_name=AXIS,
        in_axes=(0, 0, None, None),
        donate_argnums=0,
        devices=jax.local_devices()[:num_devices],
    )


def replicate(tree: Any, num_devices: int) -> Any:
    """One copy per device, with a leading device axis; unchanged for one device."""
    if num_devices == 1:
        return tree
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_devices, *jnp.shape(x))), tree)


def unreplicate(tree: Any, num_devices: int) -> Any:
    """The first device's copy."""
    return tree if num_devices == 1 else jax.tree.map(lambda x: x[0], tree)


def split(batch: Any, num_devices: int) -> Any:
    """Deals the motions of a batch out to the devices: [M,...] -> [devices, M / devices, ...]."""
    if num_devices == 1:
        return batch
    return jax.tree.map(lambda x: x.reshape(num_devices, x.shape[0] // num_devices, *x.shape[1:]), batch)
