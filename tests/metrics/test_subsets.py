"""Subsets hit every index as evenly as counts allow, at any size."""

import itertools

import numpy as np
import pytest

from dimo_jax.metrics.subsets import draw_evenly, draw_evenly_from

GRIDS = [(16, 2, 17), (16, 9, 4), (50, 2, 17), (3, 2, 17), (4, 4, 4), (12, 6, 8), (1, 1, 5), (7, 1, 1), (16, 2), (9,)]


def spread(rows, sizes):
    """Most minus least hits of an index, by axis."""
    return [int(np.ptp(np.bincount(rows[:, axis], minlength=size))) for axis, size in enumerate(sizes)]


@pytest.mark.parametrize("sizes", GRIDS, ids=str)
def test_every_index_is_hit_as_evenly_as_counts_allow(sizes):
    total = int(np.prod(sizes))
    for count in {1, 2, 3, 12, 16, 32, 50, total // 2, total - 1, total}:
        rows = draw_evenly(sizes, count)
        assert len(rows) == min(count or total, total)
        assert len({tuple(row) for row in rows.tolist()}) == len(rows)
        assert np.all(rows >= 0)
        assert np.all(rows < sizes)
        assert max(spread(rows, sizes)) <= 1, (count, spread(rows, sizes))


@pytest.mark.parametrize("sizes", GRIDS, ids=str)
def test_none_and_too_many_take_all(sizes):
    every = list(itertools.product(*map(range, sizes)))
    for count in (0, int(np.prod(sizes)), 10**6):
        assert [tuple(row) for row in draw_evenly(sizes, count).tolist()] == every


def test_the_demos_pictures_are_no_single_pose():
    """A stride of 34 = 2 views x 17 frames saw view 0 and frame 0 of each of the 16 motions."""
    rows = draw_evenly((16, 2, 17), 16)
    assert sorted(rows[:, 0]) == list(range(16))
    assert sorted(rows[:, 1]) == [0] * 8 + [1] * 8
    assert len(set(rows[:, 2])) == 16


def test_grids_of_several_sizes_share_evenly():
    sizes = [(2, 5), (3, 4), (2, 5), (1, 2), (3, 4)]
    for count in (1, 3, 4, 7, 12, 20, 30, 45, 46, 0):
        rows = draw_evenly_from(sizes, count)
        total = sum(a * b for a, b in sizes)
        assert len({tuple(row) for row in rows.tolist()}) == len(rows) == (count or total)
        hits = np.bincount(rows[:, 0], minlength=5)
        assert all(np.all(rows[rows[:, 0] == index, 1:] < size) for index, size in enumerate(sizes))
        assert np.all(hits <= [10, 12, 10, 2, 12])
        unfilled = [n for n, limit in zip(hits, (10, 12, 10, 2, 12)) if n < limit]
        assert not unfilled or max(hits) - min(unfilled) <= 1
    alike = draw_evenly_from([(2, 6)] * 4, 12)
    np.testing.assert_array_equal(alike, draw_evenly((4, 2, 6), 12))
    with_a_stranger = draw_evenly_from([(2, 6)] * 4 + [(1, 1)], 13)
    np.testing.assert_array_equal(with_a_stranger[:-1], alike)


def test_draws_are_seeded_and_axes_do_not_go_together():
    sizes = (16, 4, 16)
    np.testing.assert_array_equal(draw_evenly(sizes, 64, seed=1), draw_evenly(sizes, 64, seed=1))
    assert not np.array_equal(draw_evenly(sizes, 64, seed=1), draw_evenly(sizes, 64, seed=2))
    rows = np.concatenate([draw_evenly(sizes, 64, seed=seed) for seed in range(200)])
    pairs = np.zeros((16, 16))
    np.add.at(pairs, (rows[:, 0], rows[:, 2]), 1)
    assert pairs.min() > 25  # 50 on average
    assert pairs.max() < 80
