"""Linear blend skinning by SE(3) poses (paper Eq. 7).

Poses are turned into affine maps once per key point; a Gaussian then sums the maps of its neighbours, 16 numbers each,
and no rotation is needed per pair.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array
from dimo_jax.geometry import quaternion, rigid
from dimo_jax.skinning import native
from dimo_jax.skinning.weighted_sums import blend

IMPLEMENTATIONS = ("xla", "native")


def linear_blend(
    means: Array,
    quats: Array,
    positions: Array,
    translations: Array,
    rotations: Array,
    neighbors: Array,
    weights: Array,
    *,
    align: bool = False,
    unit: bool = True,
    implementation: str | None = None,
) -> tuple[Array, Array]:
    """Eq. 7: mu^t = sum_k w_k [R_k (mu - p_k) + p_k + T_k], R^t = normalize(sum_k w_k q_k) R.

    Args:
      means, quats: [N,3], [N,4] canonical.
      positions, translations: [K,3] canonical position p_k and translation T_k of the key points.
      rotations: [K,4] wxyz, need not be unit.
      neighbors: [N,J] int32, the key points that move each Gaussian.
      weights: [N,J] of these, summing to 1.
      align: brings the quaternions into the hemisphere of the first neighbour's before the sum, so that q and -q blend
        alike. Not needed, and slower, with a decoder that is continuous in the key point's position.
      unit: normalizes q_k before the sum; False takes them as the decoder gives them, so that longer ones count more
        (the authors' way). Means are moved by rotations, which have no length, in both.
      implementation: "xla" (any device, forward- and reverse-mode derivatives), "native" (C++ on CPUs, reverse mode
        alone), or None for native where it can run. `build_components` gives it that of `config.render`.

    Returns:
      means [N,3] and unit quats [N,4] at that time.

    Raises:
      UserError: another implementation, or native where it cannot run: no extension, `align`, or not float32.
    """
    fits = not align and means.dtype == jnp.float32
    in_native = _choose_native(implementation, fits=fits)
    normal = quaternion.normalize(rotations)
    matrices = quaternion.to_matrix(normal)
    shifts = positions + translations - jnp.sum(matrices * positions[:, None, :], axis=-1)
    blended = normal if unit else rotations
    poses = jnp.concatenate([matrices.reshape(-1, 9), shifts, blended], axis=-1)
    if in_native:
        moved, turned = native.blend_poses(means, quats, poses, neighbors, weights)
        return moved, turned
    return _blend_in_xla(means, quats, blended if align else None, poses, neighbors, weights)


def _choose_native(implementation: str | None, *, fits: bool) -> bool:
    if implementation not in (None, *IMPLEMENTATIONS):
        raise UserError(
            f"config.deform.implementation: found {implementation!r}, expected {' or '.join(IMPLEMENTATIONS)}"
        )
    if implementation == "xla":
        return False
    if implementation == "native" and not (fits and native.is_available()):
        reason = (
            "it neither aligns quaternions nor computes in other types than float32" if not fits else "it is not there"
        )
        raise UserError(f"config.deform.implementation: 'native' cannot run: {reason}; use xla")
    return fits and native.is_available()


def _blend_in_xla(
    means: Array, quats: Array, aligned: Array | None, poses: Array, neighbors: Array, weights: Array
) -> tuple[Array, Array]:
    """`native.blend_poses` on any device; `aligned` [K,4], if given, are quaternions to align before their sum."""
    blended = blend(poses, neighbors, weights)
    if aligned is not None:
        gathered = aligned[neighbors]
        turned = jnp.sum((weights * _signs(gathered))[..., None] * gathered, axis=1)
    else:
        turned = blended[:, 12:]
    x, y, z = means[:, 0], means[:, 1], means[:, 2]
    rows = [
        blended[:, 3 * row] * x + blended[:, 3 * row + 1] * y + blended[:, 3 * row + 2] * z + blended[:, 9 + row]
        for row in range(3)
    ]
    return jnp.stack(rows, axis=-1), quaternion.normalize(quaternion.multiply(turned, quats))


def dual_quaternion_blend(
    means: Array,
    quats: Array,
    positions: Array,
    translations: Array,
    rotations: Array,
    neighbors: Array,
    weights: Array,
) -> tuple[Array, Array]:
    """Blends the poses as unit dual quaternions (Kavan et al. 2008): a rigid motion, without the volume loss of Eq. 7.

    Arguments and results as in `linear_blend`.
    """
    unit = quaternion.normalize(rotations)
    shifts = positions + translations - quaternion.rotate(unit, positions)
    duals = rigid.to_dual_quaternion(unit, shifts)[neighbors]
    signed = weights * _signs(duals[..., :4])
    rotation, shift = rigid.from_dual_quaternion(jnp.sum(signed[..., None] * duals, axis=1))
    moved = quaternion.rotate(rotation, means) + shift
    return moved, quaternion.normalize(quaternion.multiply(rotation, quats))


def _signs(quats: Array) -> Array:
    """Signs [N,J] that bring quats [N,J,4] into the hemisphere of the first of each row."""
    dots = jnp.sum(quats * quats[:, :1], axis=-1)
    return jax.lax.stop_gradient(jnp.where(dots < 0, -1.0, 1.0).astype(quats.dtype))
