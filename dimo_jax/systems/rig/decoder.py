"""From a code to a curve of pose vectors: D(z, t) = center + sum_r c_r(z, t) b_r, as DIMO's basis decoder has it.

Joints are few and always the same, so their basis b is a table and not a network; and the shares c_r(z, t) are sums of
cosines and sines of t whose coefficients depend on the code alone, so that a clip costs one pass whatever its frames.
Most of a code's numbers begin as one coefficient each, of those in which the clips differ most: a clip that nobody
trained on then has a code, which codes that are mere names of clips do not give it (docs/rigs.md has the figures).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array

GAIN = 0.05  # of what is learnt: Adam moves hundreds of a code's numbers at once, and each by a full step
_RIDGE = 0.05  # of the least squares for coefficients, growing with their frequency
_LEAST = 1e-2  # of the largest spread of a coefficient: what no clip uses stays reachable


def phase(times: Array | np.ndarray, loop: Any, *, num_harmonics: int, xp: Any = jnp) -> Any:
    """The functions of time [T,B] with B = 1 + 3 num_harmonics: 1, and of each k cos and sin of 2 pi k t, and another.

    That one is cos of pi (2k - 1) t, whose ends differ, and it is absent where `loop` is 1: every curve of the others
    goes round, value, speed and all. With it, curves from 0 to 1 may end anywhere.

    Args:
      times: [T], 0 to 1 from beginning to end.
      loop: [], 0 or 1.
      num_harmonics: K.
      xp: jax.numpy, or numpy for float64.
    """
    k = np.arange(1, num_harmonics + 1)
    angles = 2 * np.pi * times[:, None] * k
    open_ends = (1 - loop) * xp.cos(np.pi * times[:, None] * (2 * k - 1))
    waves = xp.stack([xp.cos(angles), xp.sin(angles), open_ends], axis=-1)
    return xp.concatenate([xp.ones((len(times), 1)), waves.reshape(len(times), -1)], axis=-1)


@dataclass(frozen=True)
class Start:
    """What a decoder begins with, from the clips that train."""

    vectors: np.ndarray  # [M,T,C] pose vectors of the clips
    times: list[np.ndarray]  # [M][T] of their instants
    loops: np.ndarray  # [M] bool
    weights: np.ndarray  # [C] how far a channel moves what is drawn


class CurveDecoder(nn.Module):
    """See the module's head. `settle` gives its linear part a start."""

    num_channels: int
    rank: int = 64
    num_harmonics: int = 12
    width: int = 256
    depth: int = 2

    @nn.compact
    def __call__(self, z: Array, times: Array, loop: Array) -> Array:
        """z [D], times [T] in 0..1, loop [] -> pose vectors [T,C]."""
        size, zeros = (1 + 3 * self.num_harmonics, self.rank), nn.initializers.zeros
        center = self.param("center", zeros, (self.num_channels,))
        basis = self.param("basis", zeros, (self.rank, self.num_channels))
        mean = self.param("mean", zeros, size)
        spread = self.param("spread", zeros, size)
        lift = self.param("lift", zeros, (z.shape[-1], size[0] * size[1]))
        hidden = z
        for layer in range(self.depth):
            hidden = nn.gelu(nn.Dense(self.width, name=f"layer_{layer}")(hidden))
        bent = nn.Dense(size[0] * size[1], kernel_init=zeros, name="last")(hidden)
        center, mean, spread = jax.lax.stop_gradient((center, mean, spread))  # what the clips are measured in
        shares = mean + spread * (GAIN * (z @ lift + bent)).reshape(size)
        return center + phase(times, loop, num_harmonics=self.num_harmonics) @ shares @ basis

    def settle(self, variables: Any, start: Start, dim: int) -> tuple[Any, np.ndarray]:
        """Variables whose linear part is the clips' principal poses and coefficients, and the clips' codes [M,D]."""
        shares, center, basis = self._fit(start)
        flat = shares.reshape(len(shares), -1)
        mean, spread = flat.mean(axis=0), _shrink(shares.std(axis=0)).reshape(-1)
        chosen = np.argsort(-spread, kind="stable")[:dim]
        spread = np.maximum(spread, _LEAST * max(float(spread.max()), 1e-12))
        lift = np.zeros((dim, flat.shape[1]))
        lift[np.arange(len(chosen)), chosen] = 1 / GAIN
        codes = np.zeros((len(flat), dim))
        codes[:, : len(chosen)] = ((flat - mean) / spread)[:, chosen]
        size = shares.shape[1:]
        linear = dict(center=center, basis=basis, mean=mean.reshape(size), spread=spread.reshape(size), lift=lift)
        params = {**variables["params"], **{name: jnp.asarray(x, jnp.float32) for name, x in linear.items()}}
        return {"params": params}, codes

    def _fit(self, start: Start) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coefficients [M,B,R] of the clips, the mean pose [C], and the principal ones [R,C], weighted."""
        count = start.vectors.shape[-1]
        center = start.vectors.reshape(-1, count).mean(axis=0)
        away = (start.vectors - center) * start.weights
        axes = np.linalg.svd(away.reshape(-1, count), full_matrices=False)[2][: self.rank]
        basis = np.zeros((self.rank, count))
        basis[: len(axes)] = axes
        k = np.concatenate([[0.1], np.repeat(np.arange(1, self.num_harmonics + 1), 3)])
        ridge = np.diag(_RIDGE * np.sqrt(k))
        shares = []
        for curve, times, loop in zip(away @ basis.T, start.times, start.loops):
            waves = phase(times, float(loop), num_harmonics=self.num_harmonics, xp=np)
            target = np.concatenate([curve, np.zeros((len(k), self.rank))])
            shares.append(np.linalg.lstsq(np.concatenate([waves, ridge]), target, rcond=None)[0])
        return np.array(shares), center, basis / start.weights


def _shrink(spread: np.ndarray) -> np.ndarray:
    """Spreads [B,R] of coefficients, a tenth of each variance as if times and poses varied apart from each other.

    A turn that no training clip makes, at a speed that others have, is then not out of reach.
    """
    squares = spread**2
    apart = squares.mean(axis=1, keepdims=True) * squares.mean(axis=0) / max(float(squares.mean()), 1e-12)
    shrunk: np.ndarray = np.sqrt(0.9 * squares + 0.1 * apart)
    return shrunk


def curve_decoder(
    *, num_channels: int, rank: int = 64, num_harmonics: int = 12, width: int = 256, depth: int = 2
) -> nn.Module:
    """A component for `config.decoder` of configs/rig.py.

    Any function that returns a flax module with `__call__(z [D], times [T], loop []) -> vectors [T,C]` can stand in
    its place; one that has no `settle` begins with codes drawn by `config.latent_init`.

    Args:
      num_channels: C, given by the rig.
      rank: basis poses.
      num_harmonics: waves of a clip; the last is that many times as fast as the clip.
      width, depth: of the network beside the linear part.
    """
    return CurveDecoder(num_channels, rank, num_harmonics, width, depth)
