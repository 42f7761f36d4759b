"""Attention piece by piece is attention, and rotary positions depend on distances alone."""

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.networks.wan.layers import attend_to, rotary_table, rotate


def test_attention_in_chunks_is_attention_and_so_are_its_gradients():
    query, key, value = (jax.random.normal(each, (2, 11, 3, 4)) for each in jax.random.split(jax.random.key(0), 3))

    def total(query, key, value, **how):
        return jnp.sum(jnp.sin(attend_to(query, key, value, **how)))

    find = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)), static_argnames=("attend", "chunk"))
    found, expected = (find(query, key, value, attend=how, chunk=4) for how in ("chunks", "xla"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


def test_scores_depend_on_how_far_apart_places_are():
    """R(p)^T R(q) = R(q - p) (AnimaX Eq. 1): moving both places leaves their score as it is."""
    cos, sin = rotary_table(range(4), 5, 6, 16)
    query, key = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float32)
    turned = [
        np.asarray(rotate(jnp.broadcast_to(each, (1, 120, 1, 16)), (cos, sin))).reshape(4, 5, 6, 16)
        for each in (query, key)
    ]
    score = turned[0][0, 1, 2] @ turned[1][2, 3, 1]
    np.testing.assert_allclose(turned[0][1, 2, 4] @ turned[1][3, 4, 3], score, rtol=1e-4)
    others = [turned[0][0, 1, 2] @ turned[1][place] for place in ((1, 3, 1), (2, 2, 1), (2, 3, 2))]
    assert np.all(np.abs(np.array(others) - score) > 1e-3)
