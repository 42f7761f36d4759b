"""A decoder and codes that give wanted poses of key points: regression, without a picture."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from dimo_jax.core.types import Array, Params
from dimo_jax.geometry import quaternion
from dimo_jax.systems.dimo import model
from dimo_jax.systems.dimo.model import Components
from dimo_jax.training.gaussians import mean_spacing


def pose_error(
    translations: Array, rotations: Array, wanted_translations: Array, wanted_rotations: Array, reach: Array
) -> Array:
    """Mean square distance [] from where poses [...,K,3], [...,K,4] carry what lies `reach` [K] away from key points.

    A rotation by an angle a, small, moves it by a times `reach`, and unit quaternions differ by half of a.
    """
    off = jnp.sum((translations - wanted_translations) ** 2, axis=-1)
    turned, wanted = quaternion.normalize(rotations), quaternion.normalize(wanted_rotations)
    # A quaternion and its negative are one rotation.
    wanted = jnp.where(jnp.sum(turned * wanted, axis=-1, keepdims=True) < 0, -wanted, wanted)
    return jnp.mean(off + (2 * reach) ** 2 * jnp.sum((turned - wanted) ** 2, axis=-1))


def fit_decoder(
    components: Components,
    params: Params,
    key: Array,
    *,
    motions: Array,
    times: Array,
    translations: Array,
    rotations: Array,
    num_steps: int,
    decoder_rate: float,
    code_rate: float,
    num_moments: int,
) -> tuple[Params, Array]:
    """Fits decoder and codes to poses with Adam, whose rates fall to 0 as a cosine.

    Codes are drawn around their means in every step, as in training, so that what lies between them stays smooth.

    Args:
      components, params: the model; its key points and Gaussians stay.
      key: of the draws.
      motions, times: M motions and T times in 0..1 that the poses are of.
      translations, rotations: [M,T,K,3], [M,T,K,4] wanted poses.
      num_steps: of Adam.
      decoder_rate, code_rate: learning rates at first.
      num_moments: so many of the M x T moments a step, at most all.

    Returns:
      The parameters, and the loss [num_steps]: `pose_error`, its reach the key points' spacing, world units squared.
    """
    positions = params.key_points.positions
    reach = mean_spacing(positions)
    num_times = times.shape[0]
    all_moments = motions.shape[0] * num_times
    count = min(num_moments, all_moments)
    codes, sigma = params.latents.mu, params.latents.log_sigma
    rates = {"decoder": decoder_rate, "codes": code_rate}
    optimizer = optax.multi_transform(
        {name: optax.adam(optax.cosine_decay_schedule(rate, num_steps), b2=0.99) for name, rate in rates.items()},
        {"decoder": "decoder", "codes": "codes"},
    )

    def loss(variables: dict[str, Array], key: Array) -> Array:
        draw_key, order_key = jax.random.split(key)
        moments = jax.random.permutation(order_key, all_moments)[:count]
        place, time = moments // num_times, moments % num_times
        keys = jax.random.split(draw_key, motions.shape[0])
        z = jax.vmap(components.draw)(variables["codes"][motions], sigma[motions], keys)
        fitted = params.replace(decoder=variables["decoder"])
        found = jax.vmap(lambda code, t: model.decode(components, fitted, code, positions, t))(z[place], times[time])
        return pose_error(*found, translations[place, time], rotations[place, time], reach)

    def step(carry: tuple[dict[str, Array], optax.OptState], key: Array) -> tuple[tuple[dict, optax.OptState], Array]:
        variables, state = carry
        value, gradients = jax.value_and_grad(loss)(variables, key)
        updates, state = optimizer.update(gradients, state, variables)
        return (optax.apply_updates(variables, updates), state), value

    variables = {"decoder": params.decoder, "codes": codes}
    (variables, _), losses = jax.lax.scan(
        step, (variables, optimizer.init(variables)), jax.random.split(key, num_steps)
    )
    latents = params.latents.replace(mu=variables["codes"])
    return params.replace(decoder=variables["decoder"], latents=latents), losses
