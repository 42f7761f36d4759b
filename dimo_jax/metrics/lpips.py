"""LPIPS as a figure of merit: full precision, in chunks of bounded memory."""

from __future__ import annotations

import functools
import math

import chex
import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array
from dimo_jax.losses import perceptual

# Pixels of pred that go through the network at once: 8 images of 256 x 256, which take 0.6 GB with VGG.
_CHUNK_PIXELS = 8 * 256 * 256


def lpips(pred: Array, truth: Array, *, network: str = "vgg") -> Array:
    """LPIPS distance of each image, 0 for equal ones (Zhang et al. 2018, version 0.1).

    Not to be called under jit: it jits itself, with the weights as an argument.

    Args:
      pred: [...,H,W,3] in 0..1.
      truth: [...,H,W,3] in 0..1.
      network: "vgg" or "alex"; figures in papers differ in which one they give.

    Returns:
      [...] one distance per image.

    Raises:
      UserError: an unknown network, missing weights, or images too small for the network.
    """
    chex.assert_equal_shape([pred, truth])
    params = perceptual.load_lpips(network)
    batch = pred.shape[:-3]
    count = math.prod(batch)
    pred, truth = (jnp.reshape(x, (count, *x.shape[-3:])) for x in (pred, truth))
    size = max(1, min(count, _CHUNK_PIXELS // math.prod(pred.shape[1:3])))
    missing = -count % size
    # The last chunk is filled up, because another shape would be compiled anew.
    pred, truth = (jnp.pad(x, ((0, missing), (0, 0), (0, 0), (0, 0))) for x in (pred, truth))
    chunks = [
        _evaluate(params, pred[i : i + size], truth[i : i + size], network=network) for i in range(0, count, size)
    ]
    return jnp.concatenate([*chunks, jnp.zeros(0)])[:count].reshape(batch)


@functools.partial(jax.jit, static_argnames="network")
def _evaluate(params: perceptual.LpipsParams, pred: Array, truth: Array, *, network: str) -> Array:
    # Accelerators would otherwise round the convolutions' inputs to 10 bits of mantissa.
    with jax.default_matmul_precision("float32"):
        return perceptual.lpips(params, pred, truth, network=network)
