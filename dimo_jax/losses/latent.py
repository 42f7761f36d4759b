"""Regularization of the motion latents (paper Eq. 10)."""

from __future__ import annotations

import jax.numpy as jnp

from dimo_jax.errors import UserError
from dimo_jax.types import Array, Latents


def kl(latents: Latents, *, reduction: str = "sum") -> Array:
    """KL divergence of the motions' Gaussians from N(0, I) (Eq. 10); 0 exactly at mu = 0, log_sigma = 0.

    Per motion, summed over the latent dimensions:
        -1/2 sum_d (log sigma_d^2 - sigma_d^2 - mu_d^2 + 1),   log sigma^2 = 2 log_sigma
    The paper adds the motions; pass the latents of a batch's motions, or of all.

    Args:
      latents: mu and log_sigma [M,D].
      reduction: "sum" over motions (the paper's) or "mean" over motions, which does not depend on the batch size.

    Returns:
      [] nats, >= 0. Overflows to inf for log_sigma above 44; nothing is clipped.

    Raises:
      UserError: an unknown reduction.
    """
    # expm1 keeps the precision near sigma = 1, where sigma^2 - 1 cancels.
    terms = latents.mu**2 + jnp.expm1(2.0 * latents.log_sigma) - 2.0 * latents.log_sigma
    per_motion = 0.5 * jnp.sum(terms, axis=-1)
    if reduction == "sum":
        return jnp.sum(per_motion)
    if reduction == "mean":
        return jnp.mean(per_motion)
    raise UserError(f"kl reduction: found {reduction!r}, expected 'sum' or 'mean'")
