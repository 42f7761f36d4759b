import numpy as np

from dimo_jax.systems.atop.seen.scan import choose_values


def test_what_looks_alike_at_several_values_goes_on_from_the_frame_before():
    walked = np.deg2rad(np.concatenate([np.arange(0, 181, 10), -np.arange(10, 181, 10)]))
    shown = np.deg2rad(np.arange(0, 181, 20))
    rng = np.random.default_rng(0)
    costs = 500 * (1 - np.cos(3 * (walked[:, None] - shown))) + 0.5 * rng.random((len(walked), len(shown)))
    best = walked[costs.argmin(axis=0)]
    assert np.abs(best - shown).max() > 1  # three arms: the lowest cost alone jumps between them
    np.testing.assert_allclose(choose_values(walked, costs), shown, atol=1e-9)


def test_the_best_value_is_taken_where_it_is_clear():
    walked = np.array([0.0, 1.0, 2.0, -1.0])
    costs = np.array([[0.0, 90.0, 90.0], [50.0, 10.0, 90.0], [90.0, 60.0, 5.0], [60.0, 60.0, 95.0]])
    np.testing.assert_array_equal(choose_values(walked, costs), [0, 1, 2])
