"""Projects 3D Gaussians to 2D splats: elliptical weighted averaging (Zwicker et al., EWA Splatting, TVCG 2002).

Everything is written on scalar components, one array [N] each: under `vmap` XLA turns that into a few vectorized
loops, where 3x3 matrix products would become many tiny calls.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax, nn

from dimo_jax.core.types import Array, Camera, Gaussians, Splats
from dimo_jax.geometry import harmonics, quaternion
from dimo_jax.render.rasterize import api

NEAR = 0.01  # camera z, world units
DILATION = 0.3  # pixel^2 added to the diagonal of the 2D covariance, that of 3DGS and of programs for its files
MIN_ALPHA = 1 / 255
IMAGE_MARGIN = 0.15  # share of the image's size by which the Jacobian's clamp widens it on every side
# Beyond this size (world units) positions, scales and their squares leave float32's range: such Gaussians count as bad.
MAX_LENGTH = 1e12

Vector = tuple[Array, Array, Array]


def project(
    gaussians: Gaussians, camera: Camera, *, implementation: str | None = None, dilation: float = DILATION
) -> Splats:
    """Projects N Gaussians into one image.

    Differentiable in the Gaussians and in the camera's pose, focal length and centre; `depths` and `extents` carry no
    gradient. A Gaussian with a parameter that is not finite (a log scale may be -inf, a logit opacity infinite), with a
    position or scale beyond 1e12, not beyond the near plane, with an opacity under 1/255 or outside the image gets
    opacity 0, extents 0, finite placeholders, and a gradient of zero; it does not touch the others.

    Args:
      gaussians: N Gaussians without batch axes; N may be 0.
      camera: `focal` [2] or [], `center` [2].
      implementation: a backend by name (`api.BACKENDS`), or None for the fastest one on this device. A backend without
        a projection of its own takes XLA's, and so do float64 inputs. `native` has reverse-mode derivatives only.
      dilation: static; pixel^2 added to the diagonal of the 2D covariance, above 0, by which no Gaussian is thinner
        than the space between two pixels. A box of a pixel has 1/12.

    Returns:
      Splats of N. Features are rgb = max(0, 0.5 + SH), camera z, and the shortest axis turned towards the camera in
      world axes.

    Raises:
      dimo_jax.core.errors.UserError: the named backend does not exist or cannot run here.
    """
    backend = api.load_backend(api.choose_backend(implementation))
    of_backend: Callable[[Gaussians, Camera, float], Splats] | None = getattr(backend, "project", None)
    if of_backend is None or jnp.result_type(*jax.tree.leaves((gaussians, camera))) == jnp.float64:
        return project_in_xla(gaussians, camera, dilation)
    return of_backend(gaussians, camera, dilation)


@functools.partial(jax.jit, static_argnames="dilation")
def project_in_xla(gaussians: Gaussians, camera: Camera, dilation: float = DILATION) -> Splats:
    """`project` as XLA compiles and differentiates it; the readable reference."""
    rotation = [[camera.world_to_camera[i, j] for j in range(3)] for i in range(3)]
    shift = [camera.world_to_camera[i, 3] for i in range(3)]
    focal = jnp.broadcast_to(camera.focal, (2,))
    sane = _find_sane(gaussians)
    gaussians = _replace_insane(gaussians, sane)
    mean: Vector = (gaussians.means[:, 0], gaussians.means[:, 1], gaussians.means[:, 2])
    x, y, z = (_dot(rotation[i], mean) + shift[i] for i in range(3))
    usable = sane & (z > NEAR) & (jnp.maximum(jnp.maximum(jnp.abs(x), jnp.abs(y)), z) < MAX_LENGTH)
    # Unusable ones continue as a harmless Gaussian on the optical axis, so that no derivative is infinite or NaN.
    x, y, z = jnp.where(usable, x, 0.0), jnp.where(usable, y, 0.0), jnp.where(usable, z, 1.0)
    mean2d = jnp.stack([focal[0] * x / z + camera.center[0], focal[1] * y / z + camera.center[1]], axis=-1)

    own = quaternion.to_matrix(gaussians.quats)
    axes: list[Vector] = [(own[:, 0, k], own[:, 1, k], own[:, 2, k]) for k in range(3)]
    slope_x = _clamp_slope(x / z, focal[0], camera.center[0], camera.width)
    slope_y = _clamp_slope(y / z, focal[1], camera.center[1], camera.height)
    scales = jnp.exp(gaussians.log_scales)
    u, v = [], []
    for k in range(3):
        cx, cy, cz = (_dot(rotation[i], axes[k]) for i in range(3))
        u.append(focal[0] / z * (cx - slope_x * cz) * scales[:, k])
        v.append(focal[1] / z * (cy - slope_y * cz) * scales[:, k])
    conic, spread, regular = _invert_covariance((u[0], u[1], u[2]), (v[0], v[1], v[2]), dilation)

    opacity = nn.sigmoid(gaussians.logit_opacities)
    features = _compute_features(gaussians, axes, mean, z, _find_centre(rotation, shift))
    reach = jnp.sqrt(2.0 * jnp.log(jnp.maximum(opacity / MIN_ALPHA, 1.0)))
    extent = reach[:, None] * spread
    drawn = usable & regular & (opacity >= MIN_ALPHA)
    for axis, size in ((0, camera.width), (1, camera.height)):
        drawn &= (mean2d[:, axis] + extent[:, axis] >= 0.5) & (mean2d[:, axis] - extent[:, axis] <= size - 0.5)
    return Splats(
        means2d=jnp.where(drawn[:, None], mean2d, 0.0),
        conics=jnp.where(drawn[:, None], conic, jnp.array([1.0, 0.0, 1.0], conic.dtype)),
        opacities=jnp.where(drawn, opacity, 0.0),
        depths=lax.stop_gradient(jnp.where(drawn, z, 1.0)),
        extents=lax.stop_gradient(jnp.where(drawn[:, None], extent, 0.0)),
        features=jnp.where(drawn[:, None], features, 0.0),
    )


def _find_sane(gaussians: Gaussians) -> Array:
    """[N] bool: every parameter is in the range that the projection can work with."""
    return (
        jnp.all(jnp.abs(gaussians.means) < MAX_LENGTH, axis=-1)
        & jnp.all(gaussians.log_scales < math.log(MAX_LENGTH), axis=-1)
        & jnp.all(jnp.isfinite(gaussians.quats), axis=-1)
        & jnp.all(jnp.isfinite(gaussians.sh), axis=(-1, -2))
        & ~jnp.isnan(gaussians.logit_opacities)
    )


def _replace_insane(gaussians: Gaussians, sane: Array) -> Gaussians:
    """Finite parameters everywhere: a NaN behind a mask would still reach others' gradients as 0 x NaN."""
    column = sane[:, None]
    return Gaussians(
        means=jnp.where(column, gaussians.means, 0.0),
        log_scales=jnp.where(column, gaussians.log_scales, 0.0),
        quats=jnp.where(column, gaussians.quats, 1.0),
        logit_opacities=jnp.where(sane, gaussians.logit_opacities, 0.0),
        sh=jnp.where(column[..., None], gaussians.sh, 0.0),
    )


def _clamp_slope(slope: Array, focal: Array, center: Array, size: int) -> Array:
    """x/z or y/z limited to the image widened by a margin, where the linearization is not yet absurd."""
    margin = IMAGE_MARGIN * size
    return jnp.clip(slope, (-margin - center) / focal, (size + margin - center) / focal)


def _invert_covariance(u: Vector, v: Vector, dilation: float) -> tuple[Array, Array, Array]:
    """Conic [N,3], standard deviations along x and y [N,2], and where both are regular [N].

    The covariance is [[u.u, u.v], [u.v, v.v]] + dilation * I for the rows u, v of Jacobian x rotation x scales. Its
    determinant is |u x v|^2 + dilation (u.u + v.v) + dilation^2: a sum of positive terms, so a thin Gaussian loses no
    digits. All of it is computed relative to the largest component, so a huge Gaussian does not overflow.
    """
    largest = jnp.maximum(jnp.max(jnp.abs(jnp.stack(u)), axis=0), jnp.max(jnp.abs(jnp.stack(v)), axis=0))
    unit = lax.stop_gradient(jnp.maximum(largest, 1.0))
    u, v = (u[0] / unit, u[1] / unit, u[2] / unit), (v[0] / unit, v[1] / unit, v[2] / unit)
    own = dilation / unit / unit
    uu, uv, vv = _dot(u, u), _dot(u, v), _dot(v, v)
    cross = (u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0])
    determinant = _dot(cross, cross) + own * (uu + vv) + own * own
    regular = determinant > 0
    # A square of a quotient, because the derivative of 1 / determinant overflows where the determinant is tiny.
    inverse = jnp.square(1.0 / unit / jnp.sqrt(jnp.where(regular, determinant, 1.0)))
    conic = jnp.stack([(vv + own) * inverse, -uv * inverse, (uu + own) * inverse], axis=-1)
    spread = unit[:, None] * jnp.sqrt(jnp.stack([uu + own, vv + own], axis=-1))
    return conic, lax.stop_gradient(spread), regular & jnp.all(jnp.isfinite(conic), axis=-1)


def _find_centre(rotation: list[list[Array]], shift: list[Array]) -> Vector:
    """The camera's position in the world, -R^T t."""
    columns = [(rotation[0][j], rotation[1][j], rotation[2][j]) for j in range(3)]
    x, y, z = (-_dot(columns[j], (shift[0], shift[1], shift[2])) for j in range(3))
    return x, y, z


def _compute_features(gaussians: Gaussians, axes: list[Vector], mean: Vector, z: Array, centre: Vector) -> Array:
    """rgb, camera z and normal of every Gaussian, [N,7]."""
    view = (mean[0] - centre[0], mean[1] - centre[1], mean[2] - centre[2])
    # Only a Gaussian at the camera's own position, hence never a drawn one, has no direction.
    squared = _dot(view, view)
    inverse = lax.rsqrt(jnp.where(squared > 0, squared, 1.0))
    direction = jnp.stack([component * inverse for component in view], axis=-1)
    rgb = jnp.maximum(harmonics.evaluate(gaussians.sh, direction) + 0.5, 0.0)
    shortest = jnp.argmin(gaussians.log_scales, axis=-1)
    nx, ny, nz = (
        jnp.where(shortest == 0, axes[0][i], jnp.where(shortest == 1, axes[1][i], axes[2][i])) for i in range(3)
    )
    sign = jnp.where(_dot((nx, ny, nz), view) > 0, -1.0, 1.0)
    return jnp.concatenate([rgb, jnp.stack([z, sign * nx, sign * ny, sign * nz], axis=-1)], axis=-1)


def _dot(a: Vector | list[Array], b: Vector | list[Array]) -> Array:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
