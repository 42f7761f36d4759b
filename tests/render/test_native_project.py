"""The C++ projection against XLA's, which test_project.py and the oracle of test_contract.py hold to the contract."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import scenes
from test_contract import DEGENERATE, DRAWN, stack, to_arguments

from dimo_jax.core.types import Camera, Gaussians, Splats
from dimo_jax.render.project import DILATION, project_in_xla
from dimo_jax.render.rasterize import native

LEVELS = ("baseline", "avx2", "avx512")
VALUE_TOLERANCE = 3e-6  # of the largest entry of the array
GRADIENT_TOLERANCE = 5e-6
ROW_TOLERANCE = 5e-5  # of the largest entry of a Gaussian's row, or of a thousandth of the array's where it is less
pytestmark = pytest.mark.skipif(
    native.why_unavailable() is not None, reason=f"no native backend: {native.why_unavailable()}"
)


def differentiate(function, gaussians: Gaussians, camera: Camera) -> tuple[Splats, tuple[Gaussians, Camera]]:
    """Splats, and gradients for fixed random cotangents."""
    splats, pull_back = jax.vjp(function, gaussians, camera)
    rng = np.random.default_rng(7)
    return splats, pull_back(jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), splats))


project_native = functools.partial(native.project, dilation=DILATION)
differentiate_native = jax.jit(functools.partial(differentiate, project_native))
differentiate_in_xla = jax.jit(functools.partial(differentiate, project_in_xla))


def assert_rows_close(actual: object, expected: object, *, atol: float) -> None:
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        name = jax.tree_util.keystr(path)
        a, b = (np.asarray(x, np.float64).reshape(np.shape(x)[0] if np.ndim(x) else 1, -1) for x in (a, b))
        scale = np.abs(b).max(initial=1e-30)
        np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=atol, err_msg=name)
        rows = np.abs(b).max(axis=1, keepdims=True) + 1e-3 * scale
        np.testing.assert_allclose(a / rows, b / rows, rtol=0, atol=ROW_TOLERANCE, err_msg=name)


def assert_matches_float64(scene: oracle.Scene) -> Splats:
    gaussians, camera, _ = to_arguments(scene)
    splats, gradients = differentiate_native(gaussians, camera)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), (gaussians, camera))
        expected, expected_gradients = jax.tree.map(np.asarray, differentiate_in_xla(*wide))
    assert expected.means2d.dtype == np.float64
    np.testing.assert_array_equal(splats.opacities > 0, expected.opacities > 0)
    # Squares, because the root in an extent is infinitely steep where an opacity is just 1/255.
    squares = (splats.replace(extents=splats.extents**2), expected.replace(extents=expected.extents**2))
    assert_rows_close(*squares, atol=VALUE_TOLERANCE)
    assert_rows_close(gradients, expected_gradients, atol=GRADIENT_TOLERANCE)
    left_out = np.asarray(splats.opacities) == 0
    for leaf in jax.tree.leaves(gradients[0]):
        assert not np.asarray(leaf)[left_out].any()
    return splats


def assert_bitwise_equal(actual: object, expected: object) -> None:
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(a).view(np.uint32), np.asarray(b).view(np.uint32))


# A part of a vector, one of two groups, two blocks; every degree.
@pytest.mark.parametrize(("num", "degree"), [(1, 0), (77, 1), (77, 2), (1_500, 3)])
def test_random_scenes(num, degree):
    splats = assert_matches_float64(scenes.make_scene(degree, num=num, degree=degree))
    if num > 1:
        assert 0.2 < np.mean(splats.opacities > 0) < 0.95, "some drawn, some not"


@pytest.mark.parametrize("case", [*DEGENERATE, *DRAWN])
def test_extreme_gaussians(case):
    scene = scenes.append(scenes.make_scene(2, num=59), **(DEGENERATE | DRAWN)[case])
    splats = assert_matches_float64(scene)
    assert bool(splats.opacities[-1] > 0) == (case in DRAWN)


def test_slopes_beyond_the_margin_differentiate_the_limit():
    """Wide Gaussians outside the picture that reach into it."""
    scene = scenes.make_scene(4, num=40)
    scene.world_to_camera = np.eye(4, dtype=np.float32)
    side = np.repeat([[1, 0.1], [-1, 0.2], [0.1, 1], [0.2, -1]], 10, axis=0) * np.linspace(1.5, 3, 40)[:, None]
    scene.gaussians["means"] = np.concatenate([side, np.ones((40, 1))], axis=1).astype(np.float32)
    scene.gaussians["log_scales"] += 2
    scene.gaussians["logit_opacities"][:] = 1
    splats = assert_matches_float64(scene)
    outside = (splats.means2d < -0.2 * 40) | (splats.means2d > 1.2 * 56)
    assert int(jnp.sum(jnp.any(outside, axis=1) & (splats.opacities > 0))) > 10


def test_scalar_focal():
    scene = scenes.make_scene(5)
    scene.focal = np.float32(50.0)
    assert_matches_float64(scene)


def test_black_gaussians_get_the_gradient_of_the_maximum_at_its_corner():
    scene = scenes.make_scene(6, degree=0)
    scene.gaussians["sh"][:] = np.float32(-0.5) / np.float32(0.28209479)
    gaussians, camera, _ = to_arguments(scene)
    splats, gradients = differentiate(project_native, gaussians, camera)
    _, expected = differentiate(project_in_xla, gaussians, camera)
    assert not np.asarray(splats.features[:, :3]).any()
    np.testing.assert_allclose(gradients[0].sh, expected[0].sh, rtol=1e-5)


def test_no_gaussians():
    gaussians, camera, _ = to_arguments(scenes.make_scene(0, num=0))
    splats, (d_gaussians, d_camera) = differentiate(project_native, gaussians, camera)
    assert splats.features.shape == (0, 7)
    assert d_gaussians.sh.shape == gaussians.sh.shape
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(d_camera))


def test_a_camera_that_is_not_finite_draws_nothing():
    gaussians, camera, _ = to_arguments(scenes.make_scene(0))
    for field in ("world_to_camera", "focal", "center"):
        broken = camera.replace(**{field: getattr(camera, field).at[(0,) * getattr(camera, field).ndim].set(jnp.nan)})
        splats = project_native(gaussians, broken)
        assert not np.asarray(splats.opacities).any()
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(splats))


@pytest.mark.parametrize("over", ["cameras", "gaussians", "both", "means", "nested"])
def test_vmap_equals_a_loop_whatever_is_shared(over):
    """In values, and in gradients summed over what is shared."""
    arguments = [to_arguments(scenes.make_scene(seed, num=77)) for seed in range(6)]
    all_gaussians, all_cameras = [a[0] for a in arguments], [a[1] for a in arguments]
    if over == "means":  # as in training: the rest of the Gaussians is shared
        moved = Gaussians(means=0, log_scales=None, quats=0, logit_opacities=None, sh=None)
        values = {name: stack([getattr(g, name) for g in all_gaussians]) for name in ("means", "quats")}
        gaussians, cameras, axes = all_gaussians[0].replace(**values), all_cameras[0], (moved, None)
        mapped, num = jax.vmap(project_native, in_axes=axes), 6
    elif over == "nested":
        gaussians, cameras, num = stack(all_gaussians[:2]), stack(all_cameras[:3]), 6
        mapped = jax.vmap(jax.vmap(project_native, in_axes=(None, 0)), in_axes=(0, None))
    else:
        axes = (None if over == "cameras" else 0, None if over == "gaussians" else 0)
        gaussians, cameras = (
            stack(column) if axis == 0 else column[0] for axis, column in zip(axes, (all_gaussians, all_cameras))
        )
        mapped, num = jax.vmap(project_native, in_axes=axes), 6

    def pick(tree, axes, i):
        if axes is None or isinstance(axes, int):
            return jax.tree.map(lambda x: x if axes is None else x[i], tree)
        return tree.replace(**{f: x if getattr(axes, f) is None else x[i] for f, x in vars(tree).items()})

    def loop(gaussians, cameras):
        if over == "nested":
            pairs = [(pick(gaussians, 0, i), pick(cameras, 0, j)) for i in range(2) for j in range(3)]
        else:
            pairs = [(pick(gaussians, axes[0], i), pick(cameras, axes[1], i)) for i in range(num)]
        splats = stack([project_in_xla(*pair) for pair in pairs])
        return jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), splats) if over == "nested" else splats

    actual = differentiate(jax.jit(mapped), gaussians, cameras)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(differentiate(loop, gaussians, cameras)), strict=True):
        scale = np.abs(b).max()
        np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=2e-6)


def test_bits_repeat_and_do_not_depend_on_the_number_of_threads(monkeypatch):
    """Three blocks of Gaussians, seen by five cameras."""
    arguments = [to_arguments(scenes.make_scene(seed, num=2_500)) for seed in range(5)]
    cameras = stack([a[1] for a in arguments])
    mapped = jax.vmap(project_native, in_axes=(None, 0))
    results = []
    for threads in ("1", "1", "2", "3", "64", ""):
        monkeypatch.setenv("DIMO_JAX_NUM_THREADS", threads)
        results.append(differentiate(mapped, arguments[0][0], cameras))
    for result in results[1:]:
        assert_bitwise_equal(result, results[0])


@pytest.mark.parametrize("level", LEVELS)
def test_every_instruction_set_matches(level, monkeypatch):
    if LEVELS.index(level) > LEVELS.index(native.best_simd()):
        pytest.skip(f"this processor has no {level}")
    monkeypatch.setenv("DIMO_JAX_SIMD", level)
    scene = scenes.make_scene(8, num=500, degree=3)
    for fields in (*DRAWN.values(), *DEGENERATE.values()):
        scene = scenes.append(scene, **fields)
    assert_matches_float64(scene)


def test_another_number_of_harmonics_is_an_error():
    gaussians, camera, _ = to_arguments(scenes.make_scene(0, num=3))
    with pytest.raises(jax.errors.JaxRuntimeError, match="unexpected shape of sh"):
        jax.block_until_ready(project_native(gaussians.replace(sh=jnp.zeros((3, 5, 3))), camera))
