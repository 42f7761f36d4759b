"""Fixtures that the geometry tests share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

QUICK = {"xla_backend_optimization_level": 0}  # formulas are under test here, not speed: half the time to compile


def _check_jacobian(function, points, *, step=1e-6, tolerance=1e-6):
    points = jnp.asarray(points)
    assert points.dtype == jnp.float64, "finite differences need jax.enable_x64"

    def flat(x):
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(function(x))])

    values = jax.jit(jax.vmap(jax.vmap(jax.vmap(flat))), compiler_options=QUICK)
    offsets = step * np.stack([np.eye(points.shape[-1]), -np.eye(points.shape[-1])])
    above, below = values(points + offsets[:, :, None, :])
    expected = np.moveaxis((above - below) / (2 * step), 0, -1)
    # Reverse mode is the transpose of forward mode, custom rules included, so it checks both.
    found = jax.jit(jax.vmap(jax.jacrev(flat)), compiler_options=QUICK)(points)
    np.testing.assert_allclose(found, expected, atol=tolerance, rtol=tolerance)


@pytest.fixture
def check_jacobian():
    """check(function, points [B,D]): reverse mode against central differences, in float64."""
    with jax.enable_x64(True):
        yield _check_jacobian
