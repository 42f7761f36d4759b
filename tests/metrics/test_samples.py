"""Precision and recall of drawn motions, distances between motions, and choosing some that lie far apart."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from dimo_jax.metrics.motion import pick_farthest, trajectory_distances, trajectory_diversity
from dimo_jax.metrics.samples import precision_recall


def compare(drawn, known, **options):
    return precision_recall(cdist(drawn, known), cdist(drawn, drawn), cdist(known, known), **options)


def test_precision_and_recall_tell_what_is_missing_from_what_is_wrong():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(200, 4)), rng.normal(size=(200, 4)) + 20
    both = np.concatenate([left, right])
    again = rng.normal(size=(200, 4))
    assert min(compare(again, left)) > 0.85
    precision, recall = compare(again, both)  # half of what is known is never drawn
    assert precision > 0.85
    assert 0.4 < recall < 0.5
    precision, recall = compare(both, left)  # half of what is drawn is unknown
    assert 0.4 < precision < 0.55
    assert recall > 0.85
    assert compare(left, right) == (0, 0)
    with pytest.raises(ValueError, match="expected fewer"):
        compare(left[:3], right)


def test_distances_agree_with_the_diversity_and_the_farthest_are_taken():
    motions = np.random.default_rng(1).normal(size=(5, 4, 6, 3))
    distances = trajectory_distances(motions, motions)
    assert distances.shape == (5, 5)
    np.testing.assert_allclose(distances[np.triu_indices(5, 1)].mean(), trajectory_diversity(motions))
    line = np.asarray([0.0, 1.0, 10.0, 4.0, 9.0])[:, None, None, None] * np.ones((1, 2, 3, 3))
    assert pick_farthest(line, 4).tolist() == [0, 2, 3, 1]
    assert pick_farthest(line, 1).tolist() == [0]
