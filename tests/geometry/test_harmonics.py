"""The basis against scipy's complex harmonics, by quadrature, and by the signs that 3DGS files are written with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y

from dimo_jax.geometry import harmonics

BASIS3 = jax.jit(functools.partial(harmonics.basis, degree=3))


def sphere_quadrature():
    """Directions and weights that integrate polynomials up to degree 15 over the sphere exactly."""
    z, weights = np.polynomial.legendre.leggauss(8)
    azimuth = 2 * np.pi * np.arange(16) / 16
    radius = np.sqrt(1 - z**2)[:, None]
    directions = np.stack(
        [radius * np.cos(azimuth), radius * np.sin(azimuth), np.broadcast_to(z[:, None], (8, 16))], axis=-1
    )
    return directions.reshape(-1, 3), np.repeat(weights * 2 * np.pi / 16, 16)


def scipy_basis(directions):
    """Real harmonics with the Condon-Shortley phase, degree by degree, order -l..l."""
    polar, azimuth = np.arccos(directions[:, 2]), np.arctan2(directions[:, 1], directions[:, 0])
    columns = []
    for l in range(4):
        for m in range(-l, l + 1):
            complex_value = sph_harm_y(l, abs(m), polar, azimuth)
            part = complex_value.imag if m < 0 else complex_value.real
            columns.append(part if m == 0 else np.sqrt(2) * part)
    return np.stack(columns, axis=-1)


def test_basis_agrees_with_scipy():
    directions, _ = sphere_quadrature()
    found = harmonics.basis(jnp.asarray(directions, jnp.float32), degree=3)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, scipy_basis(directions), atol=1e-6)


def test_basis_is_orthonormal():
    directions, weights = sphere_quadrature()
    with jax.enable_x64(True):
        values = np.asarray(harmonics.basis(jnp.asarray(directions), degree=3))
    np.testing.assert_allclose(np.einsum("q,qi,qj->ij", weights, values, values), np.eye(16), atol=1e-12)


def test_degree_one_is_minus_y_z_minus_x():
    found = harmonics.basis(jnp.eye(3), degree=1)[:, 1:] / 0.4886025119029199
    np.testing.assert_allclose(found, [[0, 0, -1], [-1, 0, 0], [0, 1, 0]], atol=1e-6)


@pytest.mark.parametrize(
    ("index", "direction", "expected"),
    [
        (0, (0, 0, 1), 0.28209479177387814),
        (4, (0.6, 0.8, 0), 1.0925484305920792 * 0.48),
        (5, (0, 0.6, 0.8), -1.0925484305920792 * 0.48),
        (6, (0, 0, 1), 0.31539156525252005 * 2),
        (7, (0.6, 0, 0.8), -1.0925484305920792 * 0.48),
        (8, (1, 0, 0), 0.5462742152960396),
        (9, (0, 1, 0), 0.5900435899266435),
        (10, (0.36, 0.48, 0.8), 2.890611442640554 * 0.13824),
        (11, (0, 1, 0), 0.4570457994644658),
        (12, (0, 0, 1), 0.3731763325901154 * 2),
        (13, (1, 0, 0), 0.4570457994644658),
        (14, (0.6, 0, 0.8), 1.445305721320277 * 0.288),
        (15, (1, 0, 0), -0.5900435899266435),
    ],
)
def test_values_of_the_3dgs_basis(index, direction, expected):
    # The constants as the 3DGS paper's supplement and every splat viewer have them.
    found = BASIS3(jnp.array(direction, jnp.float32))[index]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("degree", "batch"), [(0, ()), (1, (1,)), (2, (3, 1, 2)), (3, ()), (3, (1,)), (3, (3, 1, 2))], ids=str
)
def test_evaluate_sums_the_basis_of_its_degree(degree, batch):
    rng = np.random.default_rng(degree)
    sh = rng.normal(size=(*batch, (degree + 1) ** 2, 3)).astype(np.float32)
    directions = rng.normal(size=(*batch, 3)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    basis = scipy_basis(directions.reshape(-1, 3).astype(np.float64))[:, : (degree + 1) ** 2]
    expected = np.einsum("ni,nic->nc", basis, sh.reshape(-1, (degree + 1) ** 2, 3)).reshape(*batch, 3)
    found = jax.jit(harmonics.evaluate)(sh, directions)
    assert found.shape == (*batch, 3)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_leading_axes_broadcast():
    sh, directions = jnp.ones((5, 9, 3)), jnp.broadcast_to(jnp.array([0.0, 0.6, 0.8]), (4, 1, 3))
    found = jax.jit(harmonics.evaluate)(sh, directions)
    assert found.shape == (4, 5, 3)
    np.testing.assert_allclose(found[2, 3], jax.jit(harmonics.evaluate)(sh[3], directions[2, 0]), atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 3), (2, 3), (3, 3), (25, 3), (3,)])
def test_other_counts_are_refused(shape):
    with pytest.raises(ValueError, match="spherical harmonics: found"):
        harmonics.evaluate(jnp.zeros(shape), jnp.array([0.0, 0.0, 1.0]))


def test_degree_outside_range_is_refused():
    with pytest.raises(ValueError, match="found degree 4"):
        harmonics.basis(jnp.array([0.0, 0.0, 1.0]), degree=4)


def test_colour_round_trip():
    rgb = np.random.default_rng(0).uniform(size=(7, 3)).astype(np.float32)
    sh = harmonics.from_rgb(rgb)
    np.testing.assert_allclose(harmonics.to_rgb(sh), rgb, atol=1e-6)
    seen = 0.5 + harmonics.evaluate(sh[:, None, :], jnp.array([0.0, 0.6, 0.8]))
    np.testing.assert_allclose(seen, rgb, atol=1e-6)


def test_derivatives(check_jacobian):
    def evaluate(x):
        return harmonics.evaluate(x[3:].reshape(16, 1), x[:3])

    check_jacobian(evaluate, np.random.default_rng(0).normal(size=(2, 19)))


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_rotated_coefficients_are_those_of_the_turned_function(degree):
    rng = np.random.default_rng(degree)
    sh = rng.normal(size=(20, (degree + 1) ** 2, 3)).astype(np.float32)
    turns = Rotation.random(20, random_state=degree)
    quats = (3.0 * turns.as_quat(scalar_first=True)).astype(np.float32)  # of any length
    directions = rng.normal(size=(20, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    turned = jax.jit(harmonics.rotate)(sh, quats)
    expected = harmonics.evaluate(jnp.asarray(sh), jnp.asarray(directions, jnp.float32))
    seen = harmonics.evaluate(turned, jnp.asarray(turns.apply(directions), jnp.float32))
    np.testing.assert_allclose(seen, expected, atol=1e-5)
    assert float(jnp.max(jnp.abs(turned - sh))) > 0.5
    back = harmonics.rotate(turned, quats * np.asarray([1, -1, -1, -1], np.float32))
    np.testing.assert_allclose(back, sh, atol=1e-5)
    np.testing.assert_array_equal(turned[:, 0], sh[:, 0])


def test_rotation_of_coefficients_is_differentiable_in_the_rotation():
    sh = jnp.asarray(np.random.default_rng(0).normal(size=(16, 3)), jnp.float32)
    quat, step = jnp.asarray([0.9, 0.1, -0.3, 0.2]), jnp.asarray([0.3, -0.2, 0.1, 0.4])
    look = lambda q: harmonics.evaluate(harmonics.rotate(sh, q), jnp.asarray([0.6, 0.0, 0.8]))[1]  # noqa: E731
    numerical = (look(quat + 1e-2 * step) - look(quat - 1e-2 * step)) / 2e-2
    assert abs(float(numerical)) > 0.05
    np.testing.assert_allclose(jnp.sum(jax.grad(look)(quat) * step), numerical, rtol=2e-2)


def test_colours_without_a_direction_are_left_alone():
    sh = jnp.ones((4, 1, 3))
    assert harmonics.rotate(sh, jnp.ones((4, 4))) is sh
