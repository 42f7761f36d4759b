"""A motion decoder that is a linear motion basis: D(z, p, t) = sum_r c_r(z, t) b_r(p) (another form of paper Eq. 4).

The paper calls its key points a low-rank motion basis; here what moves them is one too. Wide layers run on the points
once and on codes and times once, instead of on every point at every time: of the demo's step 152 rows, not 3,072.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array
from dimo_jax.systems.dimo.decoder import encode

POSE = 7  # translation and rotation
ACTIVATIONS = {"relu": nn.relu, "silu": nn.silu}


class BasisDecoder(nn.Module):
    """A trunk gives every point `rank` poses, a branch gives code and time their shares; a pose is their product.

    Training starts near the canonical pose: a point moves by about a tenth of the object's size.
    """

    rank: int = 96
    width: int = 256
    trunk_depth: int = 3
    branch_depth: int = 4
    scale: float = 0.05
    num_position_bands: int = 10
    num_time_bands: int = 6
    lowest_frequency: float = math.pi
    branch_activation: str = "relu"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: Array, positions: Array, time: Array) -> tuple[Array, Array]:
        """z [D], canonical positions [K,3], time [] in 0..1 -> translations [K,3], rotations [K,4] (wxyz, not unit)."""
        lowest = self.lowest_frequency
        time_code = encode(jnp.reshape(time, (1,)), num_bands=self.num_time_bands, lowest_frequency=lowest)
        place_code = encode(positions, num_bands=self.num_position_bands, lowest_frequency=lowest)
        points = self._hidden(place_code, self.trunk_depth, "trunk", "relu")
        moment = self._hidden(jnp.concatenate([time_code, z]), self.branch_depth, "branch", self.branch_activation)
        basis = nn.Dense(self.rank * POSE, dtype=self.dtype, name="basis")(points)
        shares = nn.Dense(self.rank, dtype=self.dtype, name="shares")(moment)
        by_rank = basis.reshape(*positions.shape[:-1], POSE, self.rank)
        pose = self.scale * jnp.einsum("kpr,r->kp", by_rank, shares).astype(jnp.float32)
        return pose[:, :3], pose[:, 3:] + jnp.array([1.0, 0.0, 0.0, 0.0])

    def _hidden(self, x: Array, depth: int, name: str, activation: str) -> Array:
        for layer in range(depth):
            x = ACTIVATIONS[activation](nn.Dense(self.width, dtype=self.dtype, name=f"{name}_{layer}")(x))
        return x


def encode_points(decoder: BasisDecoder, variables: Any, positions: Array) -> Array:
    """What of a decoder depends on points alone: the poses [K,7,rank] that the trunk gives canonical positions [K,3].

    `scale` times their product with the shares [rank] of a code and a time is what the decoder adds to the identity.
    """
    layers = variables["params"]
    hidden = encode(positions, num_bands=decoder.num_position_bands, lowest_frequency=decoder.lowest_frequency)
    for layer in range(decoder.trunk_depth):
        dense = layers[f"trunk_{layer}"]
        hidden = nn.relu(hidden @ dense["kernel"] + dense["bias"])
    basis = hidden @ layers["basis"]["kernel"] + layers["basis"]["bias"]
    return basis.reshape(*positions.shape[:-1], POSE, decoder.rank)


def basis_decoder(
    *,
    rank: int = 96,
    width: int = 256,
    trunk_depth: int = 3,
    branch_depth: int = 4,
    scale: float = 0.05,
    num_position_bands: int = 10,
    num_time_bands: int = 6,
    lowest_frequency: float = math.pi,
    branch_activation: str = "relu",
    dtype: str = "float32",
) -> nn.Module:
    """A component for `config.decoder`, see `decoder.motion_decoder`.

    Args:
      rank: basis poses a point.
      width: of all layers.
      trunk_depth, branch_depth: layers before the basis, and before its shares.
      scale: of the product, which sets how far Adam's first steps move a point.
      num_position_bands, num_time_bands, lowest_frequency: of the encodings.
      branch_activation: "relu", or "silu", with which a motion has no kinks in time (docs/results.md).
      dtype: of the layers.

    Raises:
      UserError: another activation.
    """
    if branch_activation not in ACTIVATIONS:
        raise UserError(
            f"config.decoder.branch_activation: found {branch_activation!r}, expected one of {', '.join(ACTIVATIONS)}"
        )
    return BasisDecoder(
        rank=rank,
        width=width,
        trunk_depth=trunk_depth,
        branch_depth=branch_depth,
        scale=scale,
        num_position_bands=num_position_bands,
        num_time_bands=num_time_bands,
        lowest_frequency=lowest_frequency,
        branch_activation=branch_activation,
        dtype=jnp.dtype(dtype),
    )
