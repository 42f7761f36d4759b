"""Binning against a plain count, pixel by pixel."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.core.types import Splats
from dimo_jax.render import tiles
from dimo_jax.runtime.platforms import building_for


def make_splats(seed: int, num: int, *, side: float = 50.0, ties: bool = False) -> Splats:
    """Boxes all over the picture and around it; a fifth reaches nothing, some are wider than the picture."""
    rng = np.random.default_rng(seed)
    extents = 10 ** rng.uniform(-1, 2.5, size=(num, 2)) * (rng.uniform(size=(num, 1)) > 0.2)
    depths = rng.integers(1, 5, size=num) if ties else rng.uniform(0.1, 9, size=num)
    return Splats(
        means2d=jnp.asarray(rng.uniform(-20, side + 20, size=(num, 2)), jnp.float32),
        conics=jnp.ones((num, 3), jnp.float32),
        opacities=jnp.full(num, 0.5, jnp.float32),
        depths=jnp.asarray(depths, jnp.float32),
        extents=jnp.asarray(extents, jnp.float32),
        features=jnp.zeros((num, 7), jnp.float32),
    )


def list_tiles(splats: Splats, *, height: int, width: int, tile: int) -> list[list[int]]:
    """For every tile the Gaussians whose box holds one of its pixel centres, by depth, then index."""
    means, extents = np.asarray(splats.means2d), np.asarray(splats.extents)
    order = np.argsort(np.asarray(splats.depths), kind="stable")
    lists = []
    for row in range(-(-height // tile)):
        for column in range(-(-width // tile)):
            x = np.arange(column * tile, min((column + 1) * tile, width)) + np.float32(0.5)
            y = np.arange(row * tile, min((row + 1) * tile, height)) + np.float32(0.5)
            hit = (np.abs(x - means[:, :1]) <= extents[:, :1]).any(1) & (
                np.abs(y - means[:, 1:]) <= extents[:, 1:]
            ).any(1)
            lists.append([int(i) for i in order if hit[i] and (extents[i] > 0).all()])
    return lists


@pytest.mark.parametrize(("height", "width", "tile"), [(40, 56, 16), (17, 33, 8), (1, 1, 16)])
@pytest.mark.parametrize("ties", [False, True])
def test_bins_equal_a_plain_count(height, width, tile, ties):
    splats = make_splats(height, 80, ties=ties)
    expected = list_tiles(splats, height=height, width=width, tile=tile)
    bins = tiles.bin_splats(splats, height=height, width=width, tile=tile, capacity=4000)
    starts = np.asarray(bins.starts)
    assert [np.asarray(bins.ids[a:b]).tolist() for a, b in itertools.pairwise(starts)] == expected
    assert int(bins.overflow) == 0
    assert (np.asarray(bins.ids[starts[-1] :]) == 80).all()
    assert int(tiles.count_pairs(splats, height=height, width=width, tile=tile)) == sum(map(len, expected))


def test_overflow_drops_the_farthest_and_counts_them():
    splats = make_splats(0, 80)
    full = tiles.bin_splats(splats, height=40, width=56, tile=16, capacity=4000)
    total = int(full.starts[-1])
    bins = tiles.bin_splats(splats, height=40, width=56, tile=16, capacity=50)
    assert int(bins.overflow) == total - 50
    assert int(bins.starts[-1]) == 50
    depths = np.asarray(splats.depths)
    kept, everything = np.asarray(bins.ids), np.asarray(full.ids[:total])
    dropped = set(everything) - set(kept)
    assert dropped
    assert depths[list(dropped)].min() >= depths[kept].max()


def test_counts_saturate_instead_of_wrapping():
    counts = jnp.full(10, 2**29, jnp.int32)
    assert np.asarray(tiles.accumulate_counts(counts))[-1] == tiles.COUNT_LIMIT
    assert (np.diff(np.asarray(tiles.accumulate_counts(counts))) >= 0).all()


def test_keys_beyond_32_bits_sort_the_same():
    rng = np.random.default_rng(0)
    rank = np.sort(rng.integers(0, 1000, size=500)).astype(np.int32)
    tile_id = rng.integers(0, 100, size=500).astype(np.int32)
    packed = tiles.sort_pairs(tile_id, rank, num_tiles=100, num_ranks=1000)
    wide = tiles.sort_pairs(tile_id, rank, num_tiles=100, num_ranks=2**30)
    for a, b in zip(packed, wide):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("num", [1, 2, 1000, 70_000])
def test_order_by_depth_is_a_stable_sort(num, platform):
    rng = np.random.default_rng(num)
    depths = rng.choice([-1.5, 0.01, 2.0, 2.0000002, 1e12, *rng.uniform(0.01, 9, size=50)], size=num).astype(np.float32)
    drawn = rng.uniform(size=num) > 0.3
    with building_for(platform):  # in another way, which the CPU can run, too
        order = np.asarray(tiles.order_by_depth(jnp.asarray(depths), jnp.asarray(drawn)))
    expected = np.argsort(np.where(drawn, depths, np.inf), kind="stable")
    np.testing.assert_array_equal(order, expected)


def test_vmap_equals_loop():
    splats = [make_splats(seed, 80) for seed in range(3)]

    @jax.jit
    def bin_one(splats: Splats) -> tiles.Bins:
        return tiles.bin_splats(splats, height=40, width=56, tile=16, capacity=4000)

    batched = jax.jit(jax.vmap(bin_one))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *splats))
    for i, one in enumerate(splats):
        for value, expected in zip(jax.tree.leaves(batched), jax.tree.leaves(bin_one(one))):
            np.testing.assert_array_equal(value[i], expected)


def test_capacities():
    assert tiles.default_capacity(0, 12) == 1
    assert tiles.default_capacity(60, 12) == 720
    assert tiles.default_capacity(100_000, 4096) == 800_000
    for num_pairs in (0, 1, 5000, 123_456, 10_000_000):
        capacity = tiles.round_capacity(num_pairs)
        assert num_pairs * 1.25 <= capacity <= max(num_pairs * 1.6, 1024)
