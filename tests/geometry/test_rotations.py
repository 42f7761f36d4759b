"""Rotations in NumPy, against SciPy's."""

import numpy as np
from scipy.spatial.transform import Rotation

from dimo_jax.geometry import rotations


def test_products_apply_the_second_first_and_broadcast():
    a, b = (Rotation.random(5, rng=seed) for seed in (0, 1))
    first, second = (np.roll(each.as_quat(), 1, axis=-1) for each in (a, b))
    found = rotations.multiply(first, second)
    np.testing.assert_allclose(rotations.to_matrix(found), (a * b).as_matrix(), atol=1e-14)
    np.testing.assert_allclose(rotations.multiply(first[0], second)[3], rotations.multiply(first[0], second[3]))
