"""What float16 costs a page: the pictures of its model with rounded numbers beside those of the model itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array
from dimo_jax.runs.restore import Restored
from dimo_jax.systems.dimo import model as dimo
from dimo_jax.systems.dimo.basis_decoder import BasisDecoder, encode_points
from dimo_jax.systems.dimo.stages import frame_times

SIZE = 256  # pixels
NUM_MOTIONS = 3
LEAST_ERROR = 1e-12  # a hundred decibels and more


@dataclasses.dataclass(frozen=True)
class _Rounded:
    """A decoder in the place of one with weights in float32."""

    decoder: Any

    def apply(self, variables: Any, z: Array, positions: Array, time: Array) -> tuple[Array, Array]:
        rounded = jax.tree.map(_round, variables)
        if not isinstance(self.decoder, BasisDecoder):
            moved: tuple[Array, Array] = self.decoder.apply(rounded, z, positions, time)
            return moved
        # The page has the points' basis in the place of the layers that make it, and rounds that.
        basis = _round(encode_points(self.decoder, variables, positions))
        kept = self.decoder.apply(
            *(rounded, z, positions[:1], time),
            capture_intermediates=lambda layer, _: layer.name == "shares",
            mutable=["intermediates"],
        )[1]
        shares = kept["intermediates"]["shares"]["__call__"][0]
        pose = self.decoder.scale * jnp.einsum("kpr,r->kp", basis, shares)
        return pose[:, :3], pose[:, 3:] + jnp.array([1.0, 0.0, 0.0, 0.0])


def _round(x: Array) -> Array:
    return jnp.asarray(x, jnp.float16).astype(jnp.float32)


def measure_half(model: Restored) -> float:
    """The PSNR (dB) of a page with `half` against the model, over pictures of a few training motions."""
    player = model.player
    gaussians = jax.tree.map(_round, player.params.gaussians)
    params = player.params.replace(gaussians=gaussians)
    decoder: Any = _Rounded(player.components.decoder)
    components = dataclasses.replace(player.components, decoder=decoder)
    times, camera = frame_times(model.num_frames), model.camera(SIZE)
    chosen = times[:: max(1, model.num_frames // 3)]
    errors = []
    for motion in model.trained_motions[:NUM_MOTIONS]:
        z = player.latent(int(motion))
        rounded, _ = dimo.animate(components, params, z, chosen, times, move=player.move)
        truth = player.film(player.play(z, chosen).gaussians, camera)
        errors.append(np.mean(np.square(player.film(rounded, camera) - truth)))
    return float(-10 * np.log10(max(float(np.mean(errors)), LEAST_ERROR)))
