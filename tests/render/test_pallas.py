"""What only the Pallas backend promises; what all backends promise is in test_contract.py."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scenes
from jax.sharding import AbstractDevice, AbstractMesh

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array, Camera, Gaussians, Splats
from dimo_jax.render import tiles
from dimo_jax.render.project import project
from dimo_jax.render.rasterize import api, pallas
from dimo_jax.render.rasterize.pallas import kernels
from dimo_jax.render.rasterize.pallas import plan as plans
from dimo_jax.render.rasterize.vjp import Plan
from dimo_jax.runtime.platforms import building_for

HEIGHT, WIDTH = 40, 56
NUM_TILES = 3 * 4
COMPILED = plans.choose_plan(interpret=False)
INTERPRETED = plans.choose_plan(interpret=True)


@pytest.fixture
def mosaic(monkeypatch):
    """The plan that Mosaic GPU's own interpreter runs, which jax before 0.12 keeps to itself."""
    from jax.experimental.pallas import mosaic_gpu

    if not hasattr(mosaic_gpu, "InterpretGPUParams"):
        name = "jax._src.pallas.mosaic_gpu.interpret.interpret_pallas_call"
        monkeypatch.setattr(mosaic_gpu, "InterpretGPUParams", importlib.import_module(name).InterpretGPUParams, False)
    return plans.choose_plan(interpret=True, compiler="mosaic")


def make_splats(seed: int) -> Splats:
    scene = scenes.make_scene(seed, height=HEIGHT, width=WIDTH)
    camera = Camera(*map(jnp.asarray, (scene.world_to_camera, scene.focal, scene.center)), height=HEIGHT, width=WIDTH)
    return project(Gaussians(**jax.tree.map(jnp.asarray, scene.gaussians)), camera)


def describe_splats(*leading: int) -> Splats:
    """Shapes and types alone."""
    shapes = {"means2d": (2,), "conics": (3,), "opacities": (), "depths": (), "extents": (2,), "features": (7,)}
    return Splats(**{name: jax.ShapeDtypeStruct((*leading, 60, *shape), jnp.float32) for name, shape in shapes.items()})


def compute_loss(splats: Splats, *, kernel_plan: plans.KernelPlan) -> Array:
    features, transmittance, _ = pallas.rasterize(splats, height=HEIGHT, width=WIDTH, kernel_plan=kernel_plan)
    return jnp.sum(features**2) + jnp.sum(transmittance)


def lower_for_cuda(function, *args) -> dict[str, str]:
    """Lowers for a GPU that need not be there; the names of the kernels in the program, and their Triton code."""
    mesh = AbstractMesh((), (), abstract_device=AbstractDevice("NVIDIA H100", None, "gpu"))  # jax 0.11 wants to know
    with jax.sharding.use_abstract_mesh(mesh):
        lines = jax.jit(function).trace(*args).lower(lowering_platforms=("cuda",)).as_text().splitlines()
    calls = [line for line in lines if "custom_call @__gpu$xla.gpu.triton" in line or "custom_call @mosaic_gpu" in line]
    return {re.search(r"rasterize_\w+?ward", call)[0]: call for call in calls}


@pytest.mark.parametrize("num_images", [None, 3])
@pytest.mark.parametrize(
    "compiler",
    [
        "triton",
        pytest.param(
            "mosaic",
            marks=pytest.mark.skipif(
                jax.__version_info__ < plans.FIRST_MOSAIC,
                reason="jax before 0.12 does not lower them by Mosaic GPU (test_compile.py compiles them by 0.12)",
            ),
        ),
    ],
)
def test_both_kernels_lower_for_cuda(compiler, num_images):
    splats = describe_splats() if num_images is None else describe_splats(num_images)
    plan = plans.choose_plan(interpret=False, compiler=compiler)
    forward = functools.partial(compute_loss, kernel_plan=plan)
    backward = jax.grad(forward)
    if num_images is not None:
        forward, backward = jax.vmap(forward), jax.vmap(backward)
    assert set(lower_for_cuda(forward, splats)) == {"rasterize_forward"}
    calls = lower_for_cuda(backward, splats)
    assert set(calls) == {"rasterize_forward", "rasterize_backward"}
    for call in calls.values() if compiler == "triton" else ():
        assert f"grid_x = {NUM_TILES * (num_images or 1)} " in call  # all images in one launch
        assert f"num_warps = {COMPILED.num_warps} " in call
        # MLIR bytecode, in which the operations' names can be read. `scf.condition` belongs to a while loop, on which
        # XLA's Triton compiler crashed.
        assert r"\00for\00" in call
        assert r"\00condition\00" not in call
        assert "atomic" not in call


def test_interpreted_kernels_do_not_lower_for_cuda():
    """The assertions above can fail."""
    call = functools.partial(compute_loss, kernel_plan=INTERPRETED)
    assert not lower_for_cuda(call, describe_splats())


@pytest.mark.parametrize("num_images", [None, 2])
@pytest.mark.parametrize("compiler", ["mosaic", "tpu"])
def test_kernels_of_other_compilers_draw_the_same(compiler, mosaic, num_images):
    """Values and gradients, in scenes whose tiles lie in the image by half, of an image or of two in one launch."""
    plan = mosaic if compiler == "mosaic" else plans.choose_plan(interpret=True, compiler="tpu")
    seeds = [4] if num_images is None else [4, 5]
    splats = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(make_splats, seeds))
    splats = jax.tree.map(lambda x: x[0], splats) if num_images is None else splats

    def run(plan):
        loss = functools.partial(compute_loss, kernel_plan=plan)
        total = loss if num_images is None else lambda each: jnp.sum(jax.vmap(loss)(each))
        return jax.jit(jax.value_and_grad(total))(splats)

    (value, gradient), (expected, other) = run(plan), run(INTERPRETED)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert all(np.abs(getattr(other, name)).max() > 0 for name in ("means2d", "conics", "opacities", "features"))
    for one, same in zip(jax.tree.leaves(gradient), jax.tree.leaves(other)):
        np.testing.assert_allclose(one, same, atol=1e-5 * np.abs(same).max())


@pytest.mark.parametrize("blocks", [0, 1, 2, 5])
def test_a_tpu_copies_every_block_once_there_and_back(blocks):
    """Lists without a block, of one, and of more than the two that there is room for; rows of no tile stay apart."""
    plan = plans.choose_plan(interpret=True, compiler="tpu")
    rng = np.random.default_rng(blocks)
    starts = jnp.array([0, blocks, blocks + 1], jnp.int32)
    table = np.zeros(((blocks + 1) * plan.block, plans.ROW), np.float32)
    table[:, :2] = rng.normal(0, 9, (len(table), 2))
    table[:, 2:5] = 0.05, 0.01, 0.06
    table[:, 5:13] = rng.uniform(0.01, 0.2, (len(table), 8))
    image = kernels.Image(height=30, width=60, rows=1, columns=2)
    d_pixels = jnp.asarray(rng.normal(size=(2, plans.CHANNELS, plan.num_pixels)), jnp.float32)
    small = dataclasses.replace(INTERPRETED, tile=plan.tile)
    found, expected = (
        (
            kernels.composite(begins, jnp.asarray(table), image, each),
            kernels.differentiate(begins, jnp.asarray(table), d_pixels, image, each),
        )
        for each, begins in ((plan, starts), (small, starts * (plan.block // small.block)))
    )
    for one, same in zip(found, expected):
        np.testing.assert_allclose(one, same, atol=1e-5 * np.abs(same).max())


def test_the_compiler_is_the_one_for_the_card(monkeypatch):
    def choose(capability, version):
        monkeypatch.setattr(jax, "__version_info__", version)
        with building_for("gpu", capability):
            return plans.choose_plan(interpret=False)

    assert choose((9, 0), (0, 12, 0)).compiler == choose((10, 0), (0, 12, 1)).compiler == "mosaic"
    assert choose((8, 0), (0, 12, 0)).compiler == choose((9, 0), (0, 11, 2)).compiler == "triton"
    assert choose((9, 0), (0, 12, 0)).num_warps == 4
    assert plans.choose_plan(interpret=True).compiler == "triton"
    with building_for("tpu"):
        assert (plans.choose_plan(interpret=False).compiler, pallas.tile_size()) == ("tpu", 32)
    monkeypatch.setenv("DIMO_JAX_PALLAS", "triton")
    assert choose((9, 0), (0, 12, 0)).compiler == "triton"
    monkeypatch.setenv("DIMO_JAX_PALLAS", "cuda")
    with pytest.raises(UserError, match=r"\$DIMO_JAX_PALLAS: found cuda, expected one of triton, mosaic"):
        choose((9, 0), (0, 12, 0))


@pytest.mark.parametrize("block", [1, 16])
def test_results_do_not_depend_on_the_block(block):
    """Smaller and larger ones than those of the other tests, which a GPU gets too."""
    splats = make_splats(1)
    plan = plans.KernelPlan(tile=16, block=block, num_warps=8, interpret=True)
    value, gradient = jax.jit(jax.value_and_grad(functools.partial(compute_loss, kernel_plan=plan)))(splats)
    expected = jax.jit(jax.value_and_grad(functools.partial(compute_loss, kernel_plan=INTERPRETED)))(splats)
    np.testing.assert_allclose(value, expected[0], rtol=1e-5)
    for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected[1])):
        np.testing.assert_allclose(one, other, atol=1e-5 * max(1, np.abs(other).max()))


def test_blocks_hold_the_lists_of_the_tiles():
    splats = jax.tree.map(lambda *leaves: jnp.stack(leaves), make_splats(2), make_splats(3))

    @jax.jit
    def list_both(splats: Splats) -> tuple[tiles.Bins, pallas._Blocks]:
        plan = Plan(height=HEIGHT, width=WIDTH, capacity=400)
        bins = jax.vmap(lambda s: tiles.bin_splats(s, height=HEIGHT, width=WIDTH, tile=16, capacity=400))(splats)
        return bins, pallas._list_blocks(splats, pallas._Residuals(bins.ids, bins.starts), plan, COMPILED)

    bins, blocks = list_both(splats)
    starts, table = np.asarray(blocks.starts) * COMPILED.block, np.asarray(blocks.table)
    num, ids = splats.depths.shape[1], np.asarray(blocks.ids)
    listed = np.zeros(ids.shape, bool)
    for image in range(2):
        for tile in range(NUM_TILES):
            first, last = np.asarray(bins.starts)[image, tile : tile + 2]
            expected = np.asarray(bins.ids)[image, first:last] + image * num
            number = image * NUM_TILES + tile
            span = slice(starts[number], starts[number + 1])
            assert ids[span][: len(expected)].tolist() == expected.tolist()
            assert (ids[span][len(expected) :] == 2 * num).all()
            assert len(ids[span]) - len(expected) < COMPILED.block
            listed[span] = True
    assert (ids[~listed] == 2 * num).all()
    assert not table[ids == 2 * num, 2:].any()


def test_work_ends_where_every_pixel_has_stopped():
    """What is behind a wall is never read, or its NaN would show; its rows of gradients are zeros."""
    block = INTERPRETED.block
    wall = np.zeros((block, plans.ROW), np.float32)
    wall[:, 5] = 0.99
    wall[:, 6:13] = 1.0
    table = jnp.asarray(np.concatenate([wall, np.full_like(wall, np.nan), np.full_like(wall, np.nan)]))
    starts = jnp.array([0, 3], jnp.int32)
    image = kernels.Image(height=16, width=16, rows=1, columns=1)
    pixels = jax.jit(kernels.composite, static_argnums=(2, 3))(starts, table, image, INTERPRETED)
    np.testing.assert_allclose(pixels[0, :7], 0.99, rtol=1e-5)
    np.testing.assert_allclose(pixels[0, 7], 0.01, rtol=1e-5)
    differentiate = jax.jit(kernels.differentiate, static_argnums=(3, 4))
    rows = np.asarray(differentiate(starts, table, jnp.ones_like(pixels), image, INTERPRETED))
    assert np.isfinite(rows[:block]).all()
    assert rows[0, 6:13].all()
    assert not rows[block:].any()


def test_never_the_default_on_a_cpu_and_says_why_not_elsewhere(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert api.choose_backend() != "pallas"
    assert api.choose_backend("pallas") == "pallas"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert api.choose_backend() == "pallas"
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert api.choose_backend() == "pallas"
    monkeypatch.setattr(jax, "default_backend", lambda: "other")
    assert "the default device is a other" in api.why_unavailable("pallas")
    assert api.choose_backend() == "xla"
