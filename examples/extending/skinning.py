"""Another skinning function: inverse distances instead of Eq. 1's radial basis functions."""

import jax
import jax.numpy as jnp


def inverse_distance_weights(points, positions, log_radii, *, power=4.0):
    """Shepard's weights: 1 / d^power, with the distance d measured in control radii.

    points [N,3], positions [N,J,3] and log_radii [N,J] of each point's key points -> weights [N,J] that sum to 1.
    """
    squared = jnp.sum((points[:, None] - positions) ** 2, axis=-1) * jnp.exp(-log_radii)
    # 1 / d^power is exp(-power/2 log d^2): a softmax of that is normalized, and 1e-6 keeps d = 0 finite.
    return jax.nn.softmax(-0.5 * power * jnp.log(squared + 1e-6), axis=-1)
