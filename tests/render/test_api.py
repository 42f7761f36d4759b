"""Choice of the backend, and the errors of the renderer's entry."""

from __future__ import annotations

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scenes

import dimo_jax.render
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera, Gaussians
from dimo_jax.render.rasterize import api, rows, xla


def make_arguments() -> tuple[Gaussians, Camera, jax.Array]:
    scene = scenes.make_scene(0, num=3)
    camera = Camera(*map(jnp.asarray, (scene.world_to_camera, scene.focal, scene.center)), height=40, width=56)
    return Gaussians(**jax.tree.map(jnp.asarray, scene.gaussians)), camera, jnp.ones(3)


def test_render_is_the_function():
    assert isinstance(dimo_jax.render.render, types.FunctionType)


def test_unknown_backend():
    with pytest.raises(UserError, match="found 'metal', expected one of xla, native, pallas"):
        dimo_jax.render.render(*make_arguments(), implementation="metal")


def test_named_backend_that_cannot_run_is_an_error(monkeypatch):
    monkeypatch.setattr(xla, "why_unavailable", lambda: "no wheels, install some")
    with pytest.raises(UserError, match="'xla' cannot run: no wheels, install some"):
        dimo_jax.render.render(*make_arguments(), implementation="xla")


def test_missing_backend_module_is_an_error(monkeypatch):
    monkeypatch.setitem(api.BACKENDS, "pallas", "dimo_jax.render.rasterize.absent")
    with pytest.raises(UserError, match=r"'pallas' cannot run: module dimo_jax\.render\.rasterize\.absent is not part"):
        api.choose_backend("pallas")


def test_none_takes_the_first_that_can_run(monkeypatch):
    monkeypatch.setitem(api.PREFERENCE, jax.default_backend(), ("native", "xla"))
    monkeypatch.setattr(api, "why_unavailable", lambda name: "not built" if name == "native" else None)
    assert api.choose_backend() == "xla"


@pytest.mark.parametrize(
    ("field", "shape"),
    [("means", (3, 2)), ("log_scales", (2, 3)), ("quats", (3, 3)), ("logit_opacities", (3, 1)), ("sh", (3, 4, 1))],
)
def test_gaussians_of_another_shape(field, shape):
    gaussians, camera, background = make_arguments()
    with pytest.raises(AssertionError):
        dimo_jax.render.render(gaussians.replace(**{field: jnp.zeros(shape)}), camera, background)


@pytest.mark.parametrize(("field", "shape"), [("world_to_camera", (3, 4)), ("focal", (3,)), ("center", ())])
def test_cameras_of_another_shape(field, shape):
    gaussians, camera, background = make_arguments()
    with pytest.raises(AssertionError):
        dimo_jax.render.render(gaussians, camera.replace(**{field: jnp.zeros(shape)}), background)


def test_background_of_another_shape():
    gaussians, camera, _ = make_arguments()
    with pytest.raises(AssertionError):
        dimo_jax.render.render(gaussians, camera, jnp.ones(4))


def test_both_ways_of_summing_rows_agree():
    """The way for devices whose scatter is not deterministic, run here too."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 13)).astype(np.float32)
    ids = rng.integers(0, 40, size=500).astype(np.int32)
    expected = np.zeros((50, 13))
    np.add.at(expected, ids, values)
    for sum_rows in (rows.scatter_rows, rows.scan_rows):
        np.testing.assert_allclose(jax.jit(sum_rows, static_argnames="num")(values, ids, num=50), expected, atol=1e-5)


def test_rows_are_scattered_on_a_tpu_and_scanned_on_a_gpu():
    """The scan of half a million rows kept a TPU's compiler busy for more than ten minutes."""
    arguments = jnp.zeros((4096, 13)), jnp.zeros(4096, jnp.int32)
    traced = jax.jit(functools.partial(rows.sum_rows, num=64)).trace(*arguments)
    text = {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("tpu", "cuda")}
    assert "stablehlo.sort" in text["cuda"]
    assert "stablehlo.sort" not in text["tpu"]
    assert "stablehlo.scatter" in text["tpu"]
