"""`render`: Gaussians and a camera to an image, the whole way."""

from __future__ import annotations

import chex
import jax.numpy as jnp

from dimo_jax.core.types import Array, Camera, Gaussians, Rendering, Splats
from dimo_jax.geometry import harmonics
from dimo_jax.render.project import DILATION, project
from dimo_jax.render.rasterize import api

WHITE = (1.0, 1.0, 1.0)


def render(
    gaussians: Gaussians,
    camera: Camera,
    background: Array | tuple[float, float, float] = WHITE,
    *,
    implementation: str | None = None,
    capacity: int | None = None,
    dilation: float = DILATION,
) -> Rendering:
    """Renders N Gaussians into one image.

    Differentiable in every Gaussian parameter, the camera's pose, focal length and centre, and the background; composes
    with `jit`, `grad` and `vmap` over Gaussians, cameras or both. Gaussians that cannot be drawn (see `project`) are
    left out and get a gradient of zero. The clamp of alpha at 0.99 and the order of depth carry no gradient.

    Args:
      gaussians: means [N,3], log_scales [N,3], quats [N,4], logit_opacities [N], sh [N,(degree+1)^2,3]; N may be 0.
      camera: world_to_camera [4,4], focal [2] or [] in pixels, center [2] in pixels.
      background: [3] colour behind the Gaussians.
      implementation: a backend by name (`api.BACKENDS`), or None for the fastest one on this device.
      capacity: room for Gaussian-tile pairs in backends with static buffers; `api.measure_capacity` gives a fitting
        one. None counts them where nothing is traced; under jit, grad or vmap it takes `tiles.default_capacity`, and a
        picture for which that is too small says so in a warning on the host.
      dilation: of `project`, pixel^2: how far pixels blur what they see.

    Returns:
      A Rendering. Depth and normal are sums over weights; `overflow` above 0 says that Gaussians are missing because
      the capacity was too small; who passes one looks at it.

    Raises:
      AssertionError: an array of another shape.
      dimo_jax.core.errors.UserError: the named backend does not exist or cannot run here.
    """
    background = jnp.asarray(background, jnp.float32)
    _check_shapes(gaussians, camera, background)
    return composite(
        project(gaussians, camera, implementation=implementation, dilation=dilation),
        background,
        height=camera.height,
        width=camera.width,
        implementation=implementation,
        capacity=capacity,
    )


def composite(
    splats: Splats,
    background: Array,
    *,
    height: int,
    width: int,
    implementation: str | None = None,
    capacity: int | None = None,
) -> Rendering:
    """The second half of `render`: projected Gaussians over a background [3]; arguments as there."""
    features, transmittance, overflow = api.rasterize(
        splats, height=height, width=width, capacity=capacity, implementation=implementation
    )
    return Rendering(
        rgb=features[..., 0:3] + transmittance[..., None] * background,
        alpha=1.0 - transmittance,
        depth=features[..., 3],
        normal=features[..., 4:7],
        overflow=overflow,
    )


def _check_shapes(gaussians: Gaussians, camera: Camera, background: Array) -> None:
    num = gaussians.means.shape[0]
    chex.assert_shape([gaussians.means, gaussians.log_scales], (num, 3))
    chex.assert_shape(gaussians.quats, (num, 4))
    chex.assert_shape(gaussians.logit_opacities, (num,))
    chex.assert_shape(gaussians.sh, (num, (harmonics.degree_of(gaussians.sh) + 1) ** 2, 3))
    chex.assert_shape(camera.world_to_camera, (4, 4))
    chex.assert_shape(camera.center, (2,))
    if jnp.ndim(camera.focal) != 0:
        chex.assert_shape(camera.focal, (2,))
    chex.assert_shape(background, (3,))
