"""The C++ form of linear blend skinning against the XLA form, which test_deform.py holds to a slow one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.skinning import blending, native

needs_library = pytest.mark.skipif(not native.is_available(), reason="the skinning extension is not compiled")
IN_XLA = jax.jit(lambda *arguments: blending._blend_in_xla(arguments[0], arguments[1], None, *arguments[2:]))


def make_operands(batch=(), num=57, key_points=11, neighbors=5, seed=0):
    """Random poses and weights, not normalized; repeats of a neighbour included."""
    rng = np.random.default_rng(seed)
    floats = [rng.normal(size=(*batch, *shape)) for shape in ((num, 3), (num, 4), (key_points, 16), (num, neighbors))]
    means, quats, poses, weights = (jnp.asarray(x, jnp.float32) for x in floats)
    chosen = jnp.asarray(rng.integers(0, key_points, size=(*batch, num, neighbors)), jnp.int32)
    return means, quats, poses, chosen, weights


def differentiate(function, operands, seed=1):
    """Values and derivatives by everything but the neighbours."""
    floats = (*operands[:3], operands[4])
    outputs, pull = jax.vjp(lambda m, q, p, w: function(m, q, p, operands[3], w), *floats)
    rng = np.random.default_rng(seed)
    return outputs, pull(tuple(jnp.asarray(rng.normal(size=x.shape), jnp.float32) for x in outputs))


def assert_close(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        scale = np.abs(b).max()
        np.testing.assert_allclose(a / scale, b / scale, atol=3e-6)


@needs_library
@pytest.mark.parametrize("num", [1, 57, 9_001])  # one, one block, three blocks
def test_equals_xla_in_values_and_gradients(num):
    operands = make_operands(num=num)
    assert_close(differentiate(jax.jit(native.blend_poses), operands), differentiate(IN_XLA, operands))


@needs_library
@pytest.mark.parametrize("shared", ["nothing", "canonical", "poses"])
def test_vmap_equals_a_loop_whatever_is_shared(shared):
    operands = make_operands(batch=(2, 3))
    axes = {"nothing": (0,) * 5, "canonical": (None, None, 0, None, None), "poses": (0, 0, None, 0, 0)}[shared]
    operands = tuple(x if axis == 0 else x[0, 0] for x, axis in zip(operands, axes))
    inner = jax.vmap(native.blend_poses, in_axes=axes)
    mapped = differentiate(jax.vmap(inner, in_axes=axes), operands)

    def loop(*arguments):
        each = [
            [IN_XLA(*(x[i, j] if axis == 0 else x for x, axis in zip(arguments, axes))) for j in range(3)]
            for i in range(2)
        ]
        return jax.tree.map(lambda *xs: jnp.stack(xs).reshape(2, 3, *xs[0].shape), *[y for row in each for y in row])

    assert_close(mapped, differentiate(loop, operands))


@needs_library
def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch):
    operands, results = make_operands(batch=(3,), num=9_001), []
    for threads in ("1", "2", "64"):
        monkeypatch.setenv("DIMO_JAX_NUM_THREADS", threads)
        results.append(differentiate(jax.vmap(native.blend_poses), operands))
    for other in results[1:]:
        jax.tree.map(np.testing.assert_array_equal, results[0], other)


@needs_library
def test_a_quaternion_of_zero_becomes_the_identity_without_gradient():
    means, quats, poses, chosen, weights = make_operands()
    outputs, gradients = differentiate(native.blend_poses, (means, quats * 0, poses, chosen, weights))
    np.testing.assert_array_equal(outputs[1], np.tile([1, 0, 0, 0], (len(means), 1)))
    assert not np.asarray(gradients[1]).any()
    assert all(np.isfinite(x).all() for x in gradients)


@needs_library
@pytest.mark.parametrize("count", ["0", "-1", "x"])
def test_a_bad_number_of_threads_is_refused(count, monkeypatch):
    monkeypatch.setenv("DIMO_JAX_NUM_THREADS", count)
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match="DIMO_JAX_NUM_THREADS: found"):
        jax.block_until_ready(native.blend_poses(*make_operands()))


def test_deform_takes_the_extension_where_it_is_there(monkeypatch):
    taken = []
    monkeypatch.setattr(native, "is_available", lambda: True)
    monkeypatch.setattr(native, "blend_poses", lambda *operands: taken.append(operands) or operands[:2])
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.normal(size=(7, n)), jnp.float32) for n in (3, 4, 3, 3, 4)]
    neighbors, weights = jnp.zeros((7, 2), jnp.int32), jnp.ones((7, 2))
    blending.linear_blend(*arrays, neighbors, weights)
    assert len(taken) == 1
    blending.linear_blend(*arrays, neighbors, weights, align=True)
    assert len(taken) == 1
