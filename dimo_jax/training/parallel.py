"""The mapping of the training step onto devices and processes: the only file that knows about `pmap`.

A step's batch is cut into equal parts along its motions, then its views, then its frames; every device of every process
computes the same number of them, one after the other. What the parts yield is summed in one fixed order, a balanced
binary tree over the parts. So the sum depends on how many parts there are, not on which device computed which, and runs
with the same number of parts agree to the last bit where the compiler gives every part the same program.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array, Batch
from dimo_jax.data import device_frames
from dimo_jax.data.sampler import Grid

AXIS = "devices"


@dataclasses.dataclass(frozen=True)
class Layout:
    """How many parts a batch has and who computes them, in the order processes, their devices, one after the other."""

    num_devices: int = 1  # of every process
    num_processes: int = 1
    accumulate: int = 1  # parts that a device computes in a step
    grid: Grid = (1, 1, 1)  # blocks along motions, views and frames; their product is the number of parts

    @property
    def is_mapped(self) -> bool:
        """Whether there is more than one device."""
        return self.num_devices * self.num_processes > 1

    @property
    def own_parts(self) -> range:
        """Indices of this process's parts."""
        count = self.num_devices * self.accumulate
        return range(jax.process_index() * count, (jax.process_index() + 1) * count)

    @property
    def sharding(self) -> NamedSharding:
        """That of arrays whose leading axis goes over this process's devices."""
        devices = np.asarray(jax.local_devices()[: self.num_devices])
        return NamedSharding(Mesh(devices, (AXIS,)), PartitionSpec(AXIS))


def choose_grid(sizes: Sequence[int], num_parts: int) -> Grid | None:
    """Cuts a batch of `sizes` (motions, views, frames) into so many equal parts; None where that is impossible.

    Along motions as far as possible, then views: parts that share a motion pose its Gaussians once each.
    """
    blocks = [[count for count in range(size, 0, -1) if size % count == 0] for size in sizes]
    for motions, views, frames in itertools.product(*blocks):
        if motions * views * frames == num_parts:
            return motions, views, frames
    return None


def choose_layout(config: Mapping[str, Any]) -> Layout:
    """As configured; without `num_devices`, as many local devices as the batch can be dealt out to evenly.

    Raises:
      UserError: there are fewer devices, or the batch cannot be cut into as many parts.
    """
    sizes = [int(config["batch"][name]) for name in ("motions", "views", "frames")]
    accumulate, wanted = int(config["batch"].get("accumulate", 1)), int(config["num_devices"])
    local, num_processes = jax.local_device_count(), jax.process_count()
    if wanted > local:
        raise UserError(f"config.num_devices: found {wanted}, expected at most {local} (devices here)")
    for num_devices in [wanted] if wanted else range(local, 0, -1):
        grid = choose_grid(sizes, num_processes * num_devices * accumulate)
        if grid is not None:
            return Layout(num_devices, num_processes, accumulate, grid)
    key, found = ("num_devices", wanted) if wanted > 1 else ("batch.accumulate", accumulate)
    raise UserError(
        f"config.{key}: found {found}; {num_processes} processes x {max(wanted, 1)} devices x {accumulate} parts "
        f"cannot share a batch of {' x '.join(map(str, sizes))} (motions, views, frames) evenly"
    )


def refine(layout: Layout, sizes: Sequence[int], *, least: int) -> Layout | None:
    """The same devices with more parts of a batch of `sizes` each: `least` of them or the next number that is possible.

    Returns:
      The finest cut where `least` is beyond it; None where `layout` is that cut.
    """
    num_devices = layout.num_devices * layout.num_processes
    found = None
    for accumulate in range(layout.accumulate + 1, int(np.prod(sizes)) // num_devices + 1):
        grid = choose_grid(sizes, num_devices * accumulate)
        if grid is not None:
            found = dataclasses.replace(layout, accumulate=accumulate, grid=grid)
            if accumulate >= least:
                break
    return found


def parallelize(
    build: Callable[..., Callable[..., Any]], layout: Layout, devices: Sequence[jax.Device] | None = None
) -> Callable[..., Any]:
    """Compiles a step for one device (`jit`) or several (`pmap`).

    Args:
      build: takes `axis_name` and `accumulate` and returns the step (state, batch, fixed, key) -> (state, metrics).
      layout: with more than one device, state and fixed weights are replicated (`replicate`) and every array of the
        batch has a leading device axis (`place`).
      devices: of all processes, that `pmap` maps over; None: those that are here.

    Returns:
      The compiled step; the state that is passed in is donated.
    """
    if not layout.is_mapped:
        return jax.jit(build(axis_name=None, accumulate=layout.accumulate), donate_argnums=0)
    return jax.pmap(
        build(axis_name=AXIS, accumulate=layout.accumulate),
        axis_name=AXIS,
        in_axes=(0, 0, 0, None),
        donate_argnums=0,
        devices=_all_devices(layout) if devices is None else devices,
    )


def _all_devices(layout: Layout) -> list[jax.Device]:
    by_process: dict[int, list[jax.Device]] = {}
    for device in jax.devices():
        by_process.setdefault(device.process_index, []).append(device)
    return [device for _, own in sorted(by_process.items()) for device in own[: layout.num_devices]]


def replicate(tree: Any, layout: Layout) -> Any:
    """One copy per local device, with a leading device axis; without that axis on a single device."""
    if not layout.is_mapped:
        return jax.device_put(tree)

    def copy(x: Any) -> Array:
        each = [jax.device_put(x[None], device) for device in jax.local_devices()[: layout.num_devices]]
        return jax.make_array_from_single_device_arrays((len(each), *x.shape), layout.sharding, each)

    return jax.tree.map(copy, tree)


def unreplicate(tree: Any, layout: Layout) -> Any:
    """This process's first copy, on its first device."""
    if not layout.is_mapped:
        return tree
    return jax.tree.map(lambda x: x.addressable_shards[0].data[0], tree)


def place(batch: Any, layout: Layout) -> Any:
    """Puts this process's parts of a batch (leading axis: parts) where they are computed.

    Returns:
      Arrays with leading axes [devices] where there are several, then [accumulate] where that is more than 1.
    """
    return jax.device_put(shape_parts(batch, layout), layout.sharding if layout.is_mapped else None)


def shape_parts(batch: Any, layout: Layout) -> Any:
    """Gives the parts of a batch (leading axis: parts) the leading axes that `place` says."""
    leading = (layout.num_devices,) * layout.is_mapped + (layout.accumulate,) * (layout.accumulate > 1)
    return jax.tree.map(lambda x: x.reshape(*leading, *x.shape[1:]), batch)


def build_transfer(layout: Layout, frames: Array | None) -> Callable[[Batch], Batch]:
    """What `prefetch` does with the parts of a batch: `place`, and look up the images where the devices keep all.

    Args:
      layout: of the run.
      frames: `flatten_frames`, replicated, where the sampler gives indices; None where it gives images.
    """
    if frames is None:
        return lambda batch: place(batch, layout)
    if layout.is_mapped:
        look_up: Any = jax.pmap(device_frames.look_up, axis_name=AXIS, devices=_all_devices(layout))
    else:
        look_up = jax.jit(device_frames.look_up)
    return lambda batch: look_up(frames, place(batch, layout))


def sum_parts(tree: Any, axis_name: str | None) -> Any:
    """Sums arrays [parts,...] over the parts, then over the devices of `axis_name`, in the order of a binary tree.

    All of one type travel as one vector. Called inside the step.
    """
    local = jax.tree.map(_sum_in_order, tree)
    if axis_name is None:
        return local
    leaves, structure = jax.tree.flatten(local)
    for dtype in sorted({leaf.dtype for leaf in leaves}, key=str):
        chosen = [i for i, leaf in enumerate(leaves) if leaf.dtype == dtype]
        flat, restore = ravel_pytree([leaves[i] for i in chosen])
        for i, leaf in zip(chosen, restore(_sum_over_devices(flat, axis_name)), strict=True):
            leaves[i] = leaf
    return jax.tree.unflatten(structure, leaves)


def _sum_in_order(x: Array) -> Array:
    half = x.shape[0] // 2
    return _sum_in_order(x[:half]) + _sum_in_order(x[half:]) if half else x[0]


def _sum_over_devices(x: Array, axis_name: str) -> Array:
    """Recursive doubling: log2(devices) exchanges, after which all devices hold the same bits (a + b = b + a)."""
    num_devices = jax.lax.axis_size(axis_name)
    if num_devices & (num_devices - 1):
        return _sum_in_order(jax.lax.all_gather(x, axis_name))
    distance = 1
    while distance < num_devices:
        pairs = [(device, device ^ distance) for device in range(num_devices)]
        x = x + jax.lax.ppermute(x, axis_name, pairs)
        distance *= 2
    return x


def _fingerprint(tree: Any) -> Array:
    """A number [] uint32 that all bits of the arrays enter, with their places."""
    total = jnp.zeros([], jnp.uint32)
    for leaf in jax.tree.leaves(tree):
        bits = leaf.astype(jnp.uint32) if leaf.dtype == bool else jax.lax.bitcast_convert_type(leaf, jnp.uint32)
        odd = 2 * jax.lax.iota(jnp.uint32, bits.size) + 1
        total = 31 * total + jnp.sum(bits.reshape(-1) * odd, dtype=jnp.uint32)
    return total


@functools.cache
def _compile_fingerprints(layout: Layout) -> Callable[[Any], Array]:
    return jax.pmap(
        lambda tree: jax.lax.all_gather(_fingerprint(tree), AXIS), axis_name=AXIS, devices=_all_devices(layout)
    )


def check_equal(state: Any, layout: Layout, *, step: int) -> None:
    """Checks that all devices of all processes hold the same replicated state, bit for bit.

    Raises:
      UserError: they do not; the run must go on from a checkpoint before that.
    """
    if not layout.is_mapped:
        return
    found = np.asarray(_compile_fingerprints(layout)(state).addressable_shards[0].data[0])
    different = np.flatnonzero(found != found[0])
    if len(different):
        raise UserError(
            f"step {step}: devices {different.tolist()} hold another state than device 0, expected the same on all "
            f"{len(found)}; start again to go on from the last checkpoint"
        )
