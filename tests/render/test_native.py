"""What only the native backend promises; what all backends promise is in test_contract.py."""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.core.types import Array, Splats
from dimo_jax.native import library
from dimo_jax.render.rasterize import native

HEIGHT, WIDTH = 53, 70  # no multiple of a tile or a vector
LEVELS = ("baseline", "avx2", "avx512")
needs_library = pytest.mark.skipif(
    native.why_unavailable() is not None, reason=f"no native backend: {native.why_unavailable()}"
)


def make_splats(num_gaussians: int, seed: int = 0, *, largest: float = 6.0) -> Splats:
    """Random anisotropic splats all over the image and a little beyond it."""
    rng = np.random.default_rng(seed)
    means = rng.uniform(-5, 75, size=(num_gaussians, 2))
    angles = rng.uniform(0, np.pi, size=num_gaussians)
    spreads = rng.uniform(0.6, largest, size=(num_gaussians, 2)) ** 2
    c, s = np.cos(angles), np.sin(angles)
    covariance_xx = c * c * spreads[:, 0] + s * s * spreads[:, 1]
    covariance_yy = s * s * spreads[:, 0] + c * c * spreads[:, 1]
    covariance_xy = c * s * (spreads[:, 0] - spreads[:, 1])
    determinant = spreads[:, 0] * spreads[:, 1]
    opacities = rng.uniform(0.02, 1.0, size=num_gaussians)
    reach = np.sqrt(2 * np.log(255 * opacities))
    arrays = Splats(
        means2d=means,
        conics=np.stack([covariance_yy, -covariance_xy, covariance_xx], axis=-1) / determinant[:, None],
        opacities=opacities,
        depths=rng.uniform(1, 3, size=num_gaussians),
        extents=reach[:, None] * np.sqrt(np.stack([covariance_xx, covariance_yy], axis=-1)),
        features=rng.normal(size=(num_gaussians, 7)),
    )
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), arrays)


def render_and_differentiate(splats: Splats) -> tuple[tuple[Array, Array], Splats]:
    """Images, and gradients for fixed random cotangents."""
    rng = np.random.default_rng(7)
    d_features = jnp.asarray(rng.normal(size=(HEIGHT, WIDTH, 7)), jnp.float32)
    d_transmittance = jnp.asarray(rng.normal(size=(HEIGHT, WIDTH)), jnp.float32)
    images, pull_back = jax.vjp(lambda s: native.rasterize(s, height=HEIGHT, width=WIDTH, capacity=None)[:2], splats)
    return images, pull_back((d_features, d_transmittance))[0]


def assert_bitwise_equal(actual: object, expected: object) -> None:
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(a).view(np.uint32), np.asarray(b).view(np.uint32))


@needs_library
def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    splats = make_splats(3000)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(make_splats(500, seed) for seed in range(5)))
    results = []
    for threads in ("1", "2", "3", "64", ""):
        monkeypatch.setenv("DIMO_JAX_NUM_THREADS", threads)
        results.append((render_and_differentiate(splats), jax.vmap(render_and_differentiate)(stacked)))
    for result in results[1:]:
        assert_bitwise_equal(result, results[0])


@needs_library
@pytest.mark.parametrize("level", LEVELS)
def test_instruction_sets_agree(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if LEVELS.index(level) > LEVELS.index(native.best_simd()):
        pytest.skip(f"this processor has no {level}")
    splats = make_splats(1500)
    monkeypatch.setenv("DIMO_JAX_SIMD", "baseline")
    (features, transmittance), gradients = render_and_differentiate(splats)
    monkeypatch.setenv("DIMO_JAX_SIMD", level)
    (other_features, other_transmittance), other_gradients = render_and_differentiate(splats)
    np.testing.assert_allclose(other_features, features, rtol=0, atol=1e-5)
    np.testing.assert_allclose(other_transmittance, transmittance, rtol=0, atol=1e-5)
    for a, b in zip(jax.tree.leaves(other_gradients), jax.tree.leaves(gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(b).max()))


@needs_library
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DIMO_JAX_SIMD", "sse9", "DIMO_JAX_SIMD: found 'sse9', expected baseline, avx2 or avx512"),
        ("DIMO_JAX_NUM_THREADS", "0", "DIMO_JAX_NUM_THREADS: found '0', expected a positive whole number"),
        ("DIMO_JAX_NUM_THREADS", "two", "DIMO_JAX_NUM_THREADS: found 'two', expected a positive whole number"),
    ],
)
def test_bad_settings_are_errors(name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(jax.errors.JaxRuntimeError, match=expected):
        jax.block_until_ready(native.rasterize(make_splats(3), height=8, width=8, capacity=None))


@needs_library
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("field", ["means2d", "conics", "opacities", "depths", "extents", "features"])
def test_splats_that_are_not_finite_are_not_drawn(field: str, bad: float) -> None:
    splats = make_splats(200)
    broken = np.arange(0, 200, 3)
    values = getattr(splats, field)
    poisoned = splats.replace(**{field: values.at[(broken, 0) if values.ndim == 2 else broken].set(bad)})
    images, gradients = render_and_differentiate(poisoned)
    without = splats.replace(opacities=splats.opacities.at[broken].set(0.0))
    expected_images, expected_gradients = render_and_differentiate(without)
    assert_bitwise_equal((images, gradients), (expected_images, expected_gradients))
    for gradient in jax.tree.leaves(gradients):
        np.testing.assert_array_equal(np.asarray(gradient)[broken], 0)


@needs_library
def test_extreme_numbers_neither_crash_nor_leak() -> None:
    rng = np.random.default_rng(3)
    scales = np.array([0.0, 1e-38, 1e-20, 1e-3, 1.0, 1e3, 1e20, 3e38, -1.0, -1e20, -3e38])
    splats = make_splats(2000)
    extreme = jax.tree.map(lambda x: jnp.asarray(rng.choice(scales, size=x.shape), jnp.float32), splats)
    for mixed in (extreme, *(splats.replace(**{f: getattr(extreme, f)}) for f in vars(splats))):
        mixed = mixed.replace(features=jnp.clip(mixed.features, -1, 1))
        (features, transmittance), _ = render_and_differentiate(mixed)
        assert np.isfinite(features).all()
        assert ((np.asarray(transmittance) >= 0) & (np.asarray(transmittance) <= 1)).all()


@needs_library
@pytest.mark.parametrize(("num_gaussians", "largest"), [(600, 3.0), (150, 12.0), (80, 40.0), (60, 400.0)])
def test_splats_reach_every_pixel_of_a_dense_sum(num_gaussians: int, largest: float) -> None:
    # Long thin splats strain the exact outline: compare with the plain formula at every pixel.
    splats = make_splats(num_gaussians, largest=largest)
    (features, transmittance), _ = render_and_differentiate(splats)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    left, colour = np.ones((HEIGHT, WIDTH)), np.zeros((HEIGHT, WIDTH, 7))
    s = jax.tree.map(lambda v: np.asarray(v, np.float64), splats)
    going = np.ones((HEIGHT, WIDTH), bool)
    for i in np.argsort(s.depths, kind="stable"):
        dx, dy = s.means2d[i, 0] - x, s.means2d[i, 1] - y
        a, b, c = s.conics[i]
        power = -0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy
        alpha = np.minimum(0.99, s.opacities[i] * np.exp(np.minimum(power, 0)))
        visible = going & (power <= 0) & (alpha >= 1 / 255)
        going &= ~(visible & (left * (1 - alpha) < 1e-4))
        alpha = np.where(visible & going, alpha, 0)
        colour += (left * alpha)[..., None] * s.features[i]
        left *= 1 - alpha
    np.testing.assert_allclose(transmittance, left, rtol=0, atol=2e-5)
    np.testing.assert_allclose(features, colour, rtol=0, atol=1e-4)


@needs_library
def test_shared_operands_of_nested_vmaps_are_broadcast() -> None:
    splats = make_splats(300)
    shifts = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 2)), jnp.float32)
    fades = jnp.asarray([1.0, 0.5], jnp.float32)

    def loss(shift: Array, fade: Array, features: Array) -> Array:
        moved = splats.replace(means2d=splats.means2d + shift, opacities=splats.opacities * fade, features=features)
        image, transmittance, _ = native.rasterize(moved, height=HEIGHT, width=WIDTH, capacity=None)
        return (image**2).sum() + transmittance.sum()

    differentiate = jax.grad(loss, argnums=(0, 1, 2))
    inner = jax.vmap(differentiate, in_axes=(0, None, None))
    d_shift, d_fade, d_features = jax.vmap(inner, in_axes=(0, 0, None))(shifts, fades, splats.features)
    for i in range(2):
        for j in range(3):
            one = differentiate(shifts[i, j], fades[i], splats.features)
            for a, b in zip((d_shift[i, j], d_fade[i, j], d_features[i, j]), one, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * float(jnp.abs(b).max()))


def test_a_missing_library_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    library.load_library.cache_clear()
    monkeypatch.setattr(library, "PATH", pathlib.Path("nowhere/_native.so"))
    try:
        reason = native.why_unavailable()
        assert reason is not None
        assert "\n" not in reason
        assert "install a C++17 compiler" in reason
        with pytest.raises(RuntimeError, match=r"install a C\+\+17 compiler"):
            native.rasterize(make_splats(3), height=8, width=8, capacity=None)
    finally:
        library.load_library.cache_clear()


def test_a_library_of_another_checkout_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    library.load_library.cache_clear()
    monkeypatch.setattr(library, "CONTRACT", library.CONTRACT + 1)
    try:
        assert "is of another version" in (native.why_unavailable() or "")
    finally:
        library.load_library.cache_clear()


def test_a_library_that_does_not_load_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    (tmp_path / "_native.so").write_bytes(b"not a library")
    library.load_library.cache_clear()
    monkeypatch.setattr(library, "PATH", tmp_path / "_native.so")
    try:
        assert "does not load" in (native.why_unavailable() or "")
    finally:
        library.load_library.cache_clear()
