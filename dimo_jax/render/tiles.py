"""Which Gaussian reaches which tile of the image, in drawing order: the lists that the compositing kernels read.

Pairs are emitted in order of depth and sorted by (tile, depth rank) packed into one uint32, which XLA sorts several
times faster than a key with a payload. All buffers are O(N + capacity + tiles).
"""

from __future__ import annotations

import math

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax

from dimo_jax.core.types import Array, Splats
from dimo_jax.runtime.platforms import current_platform

# Counts saturate here instead of wrapping around; it leaves room for one addition in int32.
COUNT_LIMIT = 2**30


class Bins(flax.struct.PyTreeNode):
    """Gaussian-tile pairs sorted by tile (row-major) and, within a tile, front to back."""

    ids: Array  # [capacity] int32 Gaussian index; N where the slot is unused
    starts: Array  # [tiles+1] int32, tile t owns ids[starts[t]:starts[t+1]]
    overflow: Array  # [] int32 pairs beyond the capacity, the farthest Gaussians' ones


def count_tiles(height: int, width: int, *, tile: int) -> tuple[int, int]:
    """Rows and columns of tiles of side `tile` pixels that cover the image."""
    return -(-height // tile), -(-width // tile)


def bound_tiles(splats: Splats, *, height: int, width: int, tile: int) -> tuple[Array, Array, Array, Array]:
    """First column, first row, number of columns and rows of the tiles whose pixel centres a Gaussian can reach.

    All [N] int32; both numbers are 0 for a Gaussian that reaches no pixel centre.
    """
    drawn = (splats.extents[:, 0] > 0) & (splats.extents[:, 1] > 0) & (splats.opacities > 0)

    def bound(axis: int, size: int) -> tuple[Array, Array]:
        mean, extent = splats.means2d[:, axis], splats.extents[:, axis]
        # Clipped as floats: a huge Gaussian's box does not fit int32.
        low = jnp.clip(jnp.ceil(mean - extent - 0.5), 0, size).astype(jnp.int32)
        high = jnp.clip(jnp.floor(mean + extent - 0.5), -1, size - 1).astype(jnp.int32)
        first = low // tile
        return first, jnp.where(drawn & (high >= low), high // tile - first + 1, 0)

    first_column, num_columns = bound(0, width)
    first_row, num_rows = bound(1, height)
    empty = (num_columns == 0) | (num_rows == 0)
    return first_column, first_row, jnp.where(empty, 0, num_columns), jnp.where(empty, 0, num_rows)


def count_pairs(splats: Splats, *, height: int, width: int, tile: int) -> Array:
    """Number of Gaussian-tile pairs of one image, [] int32, saturating at `COUNT_LIMIT`."""
    _, _, num_columns, num_rows = bound_tiles(splats, height=height, width=width, tile=tile)
    if num_columns.shape[0] == 0:
        return jnp.zeros((), jnp.int32)
    return accumulate_counts(num_columns * num_rows)[-1]


def accumulate_counts(counts: Array) -> Array:
    """Inclusive running sum of non-negative int32 [N] that saturates at `COUNT_LIMIT`."""
    return lax.associative_scan(lambda a, b: jnp.minimum(a + b, COUNT_LIMIT), jnp.minimum(counts, COUNT_LIMIT))


def round_capacity(num_pairs: int) -> int:
    """A capacity with a quarter of headroom, in coarse steps so that nearby counts share one compiled program."""
    wanted = max(int(num_pairs * 1.25), 1024)
    step = 2 ** max(math.floor(math.log2(wanted)) - 2, 10)
    return -(-wanted // step) * step


def guess_capacity(num_gaussians: int) -> int:
    """Where to begin when nothing is known about the picture: 8 tiles per Gaussian, at least 65,536 pairs."""
    return max(65_536, 8 * num_gaussians)


def default_capacity(num_gaussians: int, num_tiles: int) -> int:
    """Capacity where nothing is known about the data: `guess_capacity`, at most every pair."""
    return max(min(num_gaussians * num_tiles, guess_capacity(num_gaussians)), 1)


def order_by_depth(depths: Array, drawn: Array) -> Array:
    """Indices [N] int32 that sort `depths` [N] ascending, ties by index, Gaussians that are not `drawn` last.

    On CPUs a radix sort: each pass sorts one uint32 that packs some bits of the depth with the Gaussian's rank after
    the pass before, because XLA sorts a single uint32 operand much faster there than a key with a payload. Elsewhere
    one stable sort with a payload, the same order in a third of the sorts (docs/hardware.md).
    """
    num = depths.shape[0]
    # With these flips the bit patterns of floats order like the floats.
    bits = lax.bitcast_convert_type(depths, jnp.uint32)
    key = jnp.where(bits >> 31, ~bits, bits | jnp.uint32(1 << 31))
    key = jnp.where(drawn, key, jnp.uint32(0xFFFFFFFF))
    rank_bits = max((num - 1).bit_length(), 1)
    digit_bits = 32 - rank_bits
    iota = lax.iota(jnp.uint32, num)
    if digit_bits < 8 or current_platform() != "cpu":
        return lax.sort((key, lax.iota(jnp.int32, num)), num_keys=1, is_stable=True)[1]
    order = iota
    for shift in range(0, 32, digit_bits):
        digit = (key[order] >> shift) & jnp.uint32(2**digit_bits - 1)
        packed = lax.sort((digit << rank_bits) | iota, is_stable=False)
        order = order[packed & jnp.uint32(2**rank_bits - 1)]
    return order.astype(jnp.int32)


def bin_splats(splats: Splats, *, height: int, width: int, tile: int, capacity: int) -> Bins:
    """Lists, for every tile, the Gaussians that reach it, front to back.

    Carries no gradient. Pairs beyond `capacity` (> 0) are counted in `overflow`; they are those of the farthest
    Gaussians. Deterministic; depth ties resolve by index.
    """
    rows, columns = count_tiles(height, width, tile=tile)
    num_tiles, num = rows * columns, splats.depths.shape[0]
    if num == 0:
        ids = jnp.zeros((capacity,), jnp.int32)
        return Bins(ids=ids, starts=jnp.zeros((num_tiles + 1,), jnp.int32), overflow=jnp.zeros((), jnp.int32))
    splats = jax.tree.map(lax.stop_gradient, splats)
    first_column, first_row, num_columns, num_rows = bound_tiles(splats, height=height, width=width, tile=tile)
    counts = num_columns * num_rows
    order = order_by_depth(splats.depths, counts > 0)
    ends = accumulate_counts(counts[order])
    total = ends[-1]
    rank, within = _expand(ends, counts[order], capacity)
    used = lax.iota(jnp.int32, capacity) < total
    owner = order[rank]
    per_row = jnp.maximum(num_columns[owner], 1)
    row = within // per_row
    tile_id = (first_row[owner] + row) * columns + first_column[owner] + within - row * per_row
    tile_id = jnp.where(used, tile_id, num_tiles)
    tile_sorted, rank_sorted = sort_pairs(tile_id, rank, num_tiles=num_tiles, num_ranks=num)
    starts = jnp.searchsorted(tile_sorted, lax.iota(jnp.int32, num_tiles + 1), side="left", method="scan")
    return Bins(
        ids=jnp.where(tile_sorted < num_tiles, order[rank_sorted], num),
        starts=starts.astype(jnp.int32),
        overflow=jnp.maximum(total - capacity, 0),
    )


def _expand(ends: Array, counts: Array, capacity: int) -> tuple[Array, Array]:
    """Pair slot -> depth rank of its Gaussian and number of the pair within that Gaussian, both [capacity] int32."""
    num = ends.shape[0]
    starts = ends - counts
    # Gaussians without pairs share their start with the next one: the highest rank must win. Adding one per Gaussian
    # after the first at its start, then summing, counts the Gaussians that started at or before a slot.
    marks = jnp.zeros((capacity,), jnp.int32).at[starts[1:]].add(1, mode="drop", indices_are_sorted=True)
    rank = jnp.minimum(jnp.cumsum(marks), num - 1)
    return rank, lax.iota(jnp.int32, capacity) - starts[rank]


def sort_pairs(tile_id: Array, rank: Array, *, num_tiles: int, num_ranks: int) -> tuple[Array, Array]:
    """Sorts pairs by (tile, rank). Pairs come in order of rank, so a stable sort by tile alone is the same."""
    rank_bits = max((num_ranks - 1).bit_length(), 1)
    if (num_tiles + 1) << rank_bits > 2**32:
        tile_sorted, rank_sorted = lax.sort((tile_id, rank), num_keys=1, is_stable=True)
        return tile_sorted, rank_sorted
    packed = (tile_id.astype(jnp.uint32) << rank_bits) | rank.astype(jnp.uint32)
    packed = lax.sort(packed, is_stable=False)
    rank_sorted = (packed & jnp.uint32(2**rank_bits - 1)).astype(jnp.int32)
    return (packed >> rank_bits).astype(jnp.int32), rank_sorted
