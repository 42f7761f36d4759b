"""The pictures that a step compares: truth over the background, and a rendering whose pixel positions can be felt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from dimo_jax.core.types import Array, Batch, Camera, Gaussians, Rendering
from dimo_jax.losses.total import ImageInputs
from dimo_jax.render import composite, project
from dimo_jax.render.project import DILATION
from dimo_jax.training.system import Metrics


def find_dilation(config: Mapping[str, Any]) -> float:
    """`config.render.dilation`; of a config that is older than this field, what all pictures had then."""
    found: float = config["render"].get("dilation", DILATION)
    return found


def composite_truth(images: Array, background: Array) -> tuple[Array, Array]:
    """uint8 straight RGBA [...,4] -> RGB over `background` [3] and alpha, float32 in 0..1."""
    values = images.astype(jnp.float32) / 255.0
    alpha = values[..., 3]
    return values[..., :3] * alpha[..., None] + background * (1 - alpha[..., None]), alpha


def compare(
    rendering: Rendering, batch: Batch, background: Array, opacities: Array, fixed: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of `ImageInputs`: a rendering [M,V,S] beside the truth of a batch.

    `opacities` [N] are those of the Gaussians, 0 for dead slots; `fixed` the weights that are not trained.
    """

    def flat(x: Array) -> Array:
        return x.reshape(-1, *x.shape[3:])

    true_rgb, true_alpha = composite_truth(batch.images, background)
    return dict(
        rgb=flat(rendering.rgb),
        alpha=flat(rendering.alpha),
        depth=flat(rendering.depth),
        normal=flat(rendering.normal),
        true_rgb=flat(true_rgb),
        true_alpha=flat(true_alpha),
        novel=batch.novel.reshape(-1),
        opacities=opacities,
        fixed=fixed,
    )


def report(inputs: ImageInputs, total: Array, values: dict[str, Array], overflow: Array) -> Metrics:
    """What a step says of its images beside the value of its terms: their mean PSNR, and the first of them."""
    mse = jnp.mean((inputs.rgb - inputs.true_rgb) ** 2, axis=(1, 2, 3))
    psnr = jnp.mean(-10 * jnp.log10(jnp.maximum(mse, 1e-10)))
    preview = jnp.stack([inputs.true_rgb[0], inputs.rgb[0]])
    return Metrics(loss=total, terms=values, psnr=psnr, overflow=overflow, preview=preview)


def render_probed(
    gaussians: Gaussians,
    camera: Camera,
    probe: Array,
    *,
    background: Array,
    implementation: str | None,
    capacity: int | None,
    dilation: float,
) -> Rendering:
    """Gaussians [N] seen by one camera.

    Args:
      gaussians, camera: as for `render`.
      probe: [N,2] added to the pixel positions; its gradient is what density control looks at.
      background: [3].
      implementation, capacity, dilation: as for `render`.
    """
    splats = project(gaussians, camera, implementation=implementation, dilation=dilation)
    splats = splats.replace(means2d=splats.means2d + probe)
    return composite(
        splats,
        background,
        height=camera.height,
        width=camera.width,
        implementation=implementation,
        capacity=capacity,
    )
