"""What is asked of the motion latents: Eq. 10, and agreement with sentences."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array, Latents


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


class ProjectedSentences(flax.struct.PyTreeNode):
    """What a text projector makes of the sentences of a batch's motions, beside the codes of all motions."""

    outputs: Array  # [B,S,D]
    weights: Array  # [B,S], of each motion summing to 1; 0 where there is no sentence
    motions: Array  # [B] int32, which of the M motions
    codes: Array  # [M,D]
    known: Array  # [M] bool: motions that have sentences; the others' codes mean nothing


def sentence_loss(sentences: ProjectedSentences, *, contrast: float) -> Array:
    """How far projected sentences are from the codes of their motions; carries gradient to both.

    Args:
      sentences: of a batch's motions.
      contrast: weight of telling a sentence's motion from all others, by the distance to their codes.

    Returns:
      [] mean over the batch's motions of the mean squared error plus `contrast` times a cross entropy in nats.
    """
    distances = jnp.mean((sentences.outputs[:, :, None] - sentences.codes) ** 2, axis=-1)  # [B,S,M]
    row = jnp.arange(sentences.motions.shape[0])
    error = distances[row, :, sentences.motions]
    # Independent codes of variance 1 differ by 2 in this measure, so that 4 makes a clear choice.
    logits = jnp.where(sentences.known, -4.0 * distances, -jnp.inf)
    right = -jax.nn.log_softmax(logits, axis=-1)[row, :, sentences.motions]
    per_sentence = jnp.where(sentences.weights > 0, error + contrast * right, 0.0)
    return jnp.mean(jnp.sum(sentences.weights * per_sentence, axis=-1))
