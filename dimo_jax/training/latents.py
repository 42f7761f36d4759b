"""The motion latent space: a Gaussian per motion (paper Eq. 5)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dimo_jax.core.types import Array, Latents


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


def number_codes(
    key: Array, *, num_motions: int, dim: int = 32, mu_std: float = 1.0, log_sigma: float = -20.0
) -> Latents:
    """No latent space: each motion is told apart by its number alone, as a time is by its value.

    The number m / M in 0..1 is encoded by sines and cosines of rising frequency (as positions and times are), so that
    the decoder can tell neighbours apart; nothing is learned, nothing arranges alike motions side by side, and a code
    between two numbers means nothing. For the ablation of paper Table 5, with a learning rate of 0.

    Args:
      key: random key; numbers are dealt out by it, because datasets list motions by name, alike ones side by side.
      num_motions: M.
      dim: D; an odd one repeats no column.
      mu_std: factor of the codes, whose entries lie in -1..1.
      log_sigma: log of every standard deviation.
    """
    numbers = (jax.random.permutation(key, num_motions) + 0.5) / num_motions
    angles = jnp.pi * numbers[:, None] * 2.0 ** (jnp.arange((dim + 1) // 2) % 8)
    mu = mu_std * jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)[:, :dim]
    return Latents(mu=mu, log_sigma=jnp.full((num_motions, dim), log_sigma, jnp.float32))


def zero_codes(
    key: Array, *, num_motions: int, dim: int = 32, mu_std: float = 0.0, log_sigma: float = -20.0
) -> Latents:
    """No code at all: the decoder cannot tell motions apart and learns their mean. `key` and `mu_std` are not used."""
    del key, mu_std
    return Latents(mu=jnp.zeros((num_motions, dim)), log_sigma=jnp.full((num_motions, dim), log_sigma, jnp.float32))


def reparameterize(mu: Array, log_sigma: Array, key: Array) -> Array:
    """Eq. 5: z = mu + sigma * eps with eps ~ N(0, I); mu and log_sigma [D] of one motion -> z [D].

    The caller draws once per motion and step, so that all frames of a motion share one z.
    """
    return mu + jnp.exp(log_sigma) * jax.random.normal(key, mu.shape, mu.dtype)


def plain_code(mu: Array, log_sigma: Array, key: Array) -> Array:
    """The authors' default: the latent is a plain learned code; `log_sigma` and `key` are not used."""
    del log_sigma, key
    return mu


def draw_fitted(key: Array, codes: Array, *, num_samples: int, spread: float = 1.0) -> Array:
    """Draws [num_samples,D] with the mean and the covariance of `codes` [M,D], near them or everywhere between.

    A smoothed bootstrap that keeps the covariance (Silverman and Young 1987): a draw is one of the codes, drawn back to
    the mean by sqrt(1 - spread^2), and `spread` times noise of the codes' covariance. That has rank M - 1 at most, so
    the noise is a random mixture of the codes' deviations. One code alone is drawn again and again.

    Args:
      key: of the draw.
      codes: [M,D].
      num_samples: draws.
      spread: 0 (the codes themselves) to 1 (the Gaussian fitted to them).
    """
    mean = jnp.mean(codes, axis=0)
    chosen, noise = draw_parts(key, codes, num_samples=num_samples)
    return mean + jnp.sqrt(1 - spread**2) * (codes[chosen] - mean) + spread * noise


def draw_parts(key: Array, codes: Array, *, num_samples: int) -> tuple[Array, Array]:
    """What `draw_fitted` mixes, whatever the spread: indices [num_samples] of codes, and noise [num_samples,D]."""
    pick, mix = jax.random.split(key)
    weights = jax.random.normal(mix, (num_samples, codes.shape[0])) / jnp.sqrt(max(codes.shape[0] - 1, 1))
    return jax.random.randint(pick, (num_samples,), 0, codes.shape[0]), weights @ (codes - jnp.mean(codes, axis=0))


def interpolate_linear(first: Array, last: Array, share: Array | float) -> Array:
    """The point of the straight line at `share` [] from code `first` [D] (0, exactly) to `last` [D] (1, exactly)."""
    return (1 - share) * first + share * last


def interpolate_spherical(first: Array, last: Array, share: Array | float) -> Array:
    """Turns the direction of `first` [D] into that of `last` [D] at an even rate, and its length linearly.

    Draws of a Gaussian in many dimensions lie near a sphere around the origin, whose middle the straight line crosses
    (White 2016, Sampling Generative Networks). Both ends are exact. Parallel codes give the straight line; opposite
    ones turn about the axis that they have least of; a code of length 0 takes the other's direction.

    Args:
      first, last: [D] with D at least 2.
      share: [] 0 at `first`, 1 at `last`.
    """
    lengths = jnp.linalg.norm(first), jnp.linalg.norm(last)
    axis = jnp.zeros_like(first).at[0].set(1.0)
    second = jnp.where(lengths[1] > 0, last / jnp.maximum(lengths[1], 1e-30), axis)
    begin = jnp.where(lengths[0] > 0, first / jnp.maximum(lengths[0], 1e-30), second)
    end = jnp.where(lengths[1] > 0, second, begin)
    cosine = begin @ end
    aside = end - cosine * begin
    sine = jnp.linalg.norm(aside)
    least = jnp.argmin(jnp.abs(begin))
    spare = jnp.zeros_like(begin).at[least].set(1.0) - begin[least] * begin
    aside = jnp.where(sine > 1e-6, aside / jnp.maximum(sine, 1e-30), spare / jnp.linalg.norm(spare))
    angle = share * jnp.arctan2(sine, cosine)
    turned = ((1 - share) * lengths[0] + share * lengths[1]) * (jnp.cos(angle) * begin + jnp.sin(angle) * aside)
    return jnp.where(share == 0, first, jnp.where(share == 1, last, turned))


def walk(codes: Array, shares: Array, *, interpolate: Callable[[Array, Array, Array], Array]) -> Array:
    """Codes along a path through several.

    Args:
      codes: [C,D], C at least 2.
      shares: [S] in 0..1 of the whole path; every leg takes an equal part of it.
      interpolate: `interpolate_linear`, `interpolate_spherical` or another function of two codes and a share.

    Returns:
      [S,D]; 0 gives the first code and 1 the last, and the codes between lie at equal shares.
    """
    num_legs = codes.shape[0] - 1
    along = jnp.asarray(shares) * num_legs
    leg = jnp.clip(jnp.floor(along).astype(jnp.int32), 0, num_legs - 1)
    return jax.vmap(interpolate)(codes[leg], codes[leg + 1], along - leg)
