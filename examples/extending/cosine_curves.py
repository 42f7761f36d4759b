"""Another motion representation: each key point's curve is a sum of a few cosines of time."""

import flax.linen as nn
import jax.numpy as jnp

from dimo_jax.systems.dimo.decoder import encode


class CosineCurves(nn.Module):
    """Asks an MLP once per key point and motion for the coefficients of a cosine series, and evaluates it at a time.

    Translations and rotations are sum_f c_f (cos(pi f t) - 1), f = 1..num_cosines, so that every motion starts from the
    canonical pose at t = 0 and nothing repeats before t = 1. The curves are smooth in time by construction.
    """

    num_cosines: int
    width: int
    depth: int
    num_position_bands: int

    @nn.compact
    def __call__(self, z, positions, time):
        """z [D], positions [K,3], time [] in 0..1 -> translations [K,3], rotations [K,4] (wxyz, need not be unit)."""
        codes = jnp.broadcast_to(z, (positions.shape[0], z.shape[0]))
        hidden = jnp.concatenate([encode(positions, num_bands=self.num_position_bands), codes], axis=-1)
        for _ in range(self.depth):
            hidden = nn.relu(nn.Dense(self.width)(hidden))
        # Zeros, so that training starts from the canonical pose at every time.
        coefficients = nn.Dense(7 * self.num_cosines, kernel_init=nn.initializers.zeros)(hidden)
        curves = jnp.cos(jnp.pi * time * jnp.arange(1, self.num_cosines + 1)) - 1
        values = coefficients.reshape(-1, 7, self.num_cosines) @ curves
        return values[:, :3], values[:, 3:] + jnp.array([1.0, 0.0, 0.0, 0.0])


def cosine_curves(*, num_cosines=8, width=256, depth=8, num_position_bands=10, **options_of_the_default):
    """For `config.decoder`: a function that returns a flax module. The default decoder's other options are not used."""
    del options_of_the_default
    return CosineCurves(num_cosines, width, depth, num_position_bands)
