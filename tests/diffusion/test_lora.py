"""Changes of low rank: zero at first, merged without a difference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dimo_jax.diffusion.lora import add_lora, merge_lora
from dimo_jax.networks.wan.layers import Dense


def make_layers():
    kernels = jax.random.normal(jax.random.key(0), (3, 6, 5))
    return {"query": Dense(kernels, jnp.ones((3, 5))), "other": Dense(kernels[0])}


def test_a_lora_changes_nothing_until_it_is_trained_and_can_be_merged():
    layers = make_layers()
    changed = add_lora(layers, jax.random.key(1), rank=2, alpha=4.0, where=lambda path: "query" in path)
    assert changed["other"].lora is None
    assert changed["query"].lora.down.shape == (3, 6, 2)
    x = jax.random.normal(jax.random.key(2), (3, 4, 6))
    apply = jax.vmap(lambda layer, x: layer(x))
    np.testing.assert_array_equal(apply(changed["query"], x), apply(layers["query"], x))
    up = jax.random.normal(jax.random.key(3), (3, 2, 5))
    lora = changed["query"].lora.replace(up=up)
    changed["query"] = changed["query"].replace(lora=lora)
    expected = x @ layers["query"].kernel + 1 + 2.0 * (x @ lora.down) @ up
    np.testing.assert_allclose(apply(changed["query"], x), expected, rtol=1e-5, atol=1e-5)
    merged = merge_lora(changed)
    assert merged["query"].lora is None
    np.testing.assert_allclose(apply(merged["query"], x), expected, rtol=1e-5, atol=1e-5)


def test_a_lora_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no dense layer is chosen"):
        add_lora(make_layers(), jax.random.key(0), rank=2, alpha=2.0, where=lambda path: False)
    with pytest.raises(ValueError, match="rank is 0"):
        add_lora(make_layers(), jax.random.key(0), rank=0, alpha=2.0, where=lambda path: True)
