"""The motion latent space: a Gaussian per motion (paper Eq. 5)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dimo_jax.types import Array, Latents


def init_latents(
    key: Array, *, num_motions: int, dim: int = 32, mu_std: float = 0.1, log_sigma: float = -3.0
) -> Latents:
    """Latents at the start of training.

    Args:
      key: random key.
      num_motions: M.
      dim: D, 32 in the paper (Sec. 4.1).
      mu_std: standard deviation of the initial means. The authors' VAE mode starts at 0.
      log_sigma: log of every initial standard deviation. The authors' VAE mode starts at 0 (sigma 1).
    """
    mu = mu_std * jax.random.normal(key, (num_motions, dim))
    return Latents(mu=mu, log_sigma=jnp.full((num_motions, dim), log_sigma, jnp.float32))


def reparameterize(mu: Array, log_sigma: Array, key: Array) -> Array:
    """Eq. 5: z = mu + sigma * eps with eps ~ N(0, I); mu and log_sigma [D] of one motion -> z [D].

    The caller draws once per motion and step, so that all frames of a motion share one z.
    """
    return mu + jnp.exp(log_sigma) * jax.random.normal(key, mu.shape, mu.dtype)


def plain_code(mu: Array, log_sigma: Array, key: Array) -> Array:
    """The authors' default: the latent is a plain learned code; `log_sigma` and `key` are not used."""
    del log_sigma, key
    return mu
