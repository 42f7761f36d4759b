"""A dense float64 renderer, written from the contract alone: every Gaussian at every pixel, matrices, no tiles.

It shares no code with the package. Gradients are those of `jax.grad` in float64. Gaussians that the contract leaves out
are replaced by invisible ones before anything is computed, so they cannot spoil the rest.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

FIELDS = ("means", "log_scales", "quats", "logit_opacities", "sh")
# A pixel within these relative distances of a jump of the contract may round to either side of it.
ALPHA_BAND = 5e-5
TRANSMITTANCE_BAND = 1e-3
CLAMP_BAND = 2e-5


@dataclasses.dataclass
class Scene:
    """One image's input; the arrays are float32 NumPy, what the implementation gets."""

    gaussians: dict[str, np.ndarray]
    world_to_camera: np.ndarray
    focal: np.ndarray
    center: np.ndarray
    background: np.ndarray
    height: int
    width: int
    dilation: float = 0.3


def find_drawable(scene: Scene) -> np.ndarray:
    """[N] bool: the Gaussians that the contract draws if they reach a pixel."""
    g = scene.gaussians
    with np.errstate(all="ignore"):
        z = (g["means"].astype(np.float64) @ scene.world_to_camera[2, :3].astype(np.float64)) + scene.world_to_camera[
            2, 3
        ]
        ok = np.isfinite(g["means"]).all(-1) & (np.abs(g["means"]) < 1e12).all(-1)
        ok &= (g["log_scales"] < np.log(1e12)).all(-1) & np.isfinite(g["quats"]).all(-1)
        ok &= np.isfinite(g["sh"]).all((-1, -2)) & ~np.isnan(g["logit_opacities"]) & (z > 0.01)
        ok &= 1 / (1 + np.exp(-g["logit_opacities"].astype(np.float64))) >= 1 / 255
    return ok


def render(scene: Scene) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Images rgb, alpha, depth, normal in float64, and a mask [H,W] of pixels at a jump."""
    with jax.enable_x64(True):
        images, at_jump = _render_jit(_to_float64(scene), scene.height, scene.width)
        return {name: np.asarray(image) for name, image in images.items()}, np.asarray(at_jump)


def differentiate(scene: Scene, cotangents: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gradient of sum(images * cotangents) by every array of the scene; zero for Gaussians that are not drawn."""

    with jax.enable_x64(True):
        cotangents = {name: jnp.asarray(value, jnp.float64) for name, value in cotangents.items()}
        grads = _differentiate_jit(_to_float64(scene), cotangents, scene.height, scene.width)
        grads = jax.tree.map(np.array, grads)
    drawable = find_drawable(scene)
    for name in FIELDS:
        grads[name][~drawable] = 0
    # A rotation without an axis stands for none, with no gradient; a scale of zero cannot shrink.
    grads["quats"][~scene.gaussians["quats"].any(-1)] = 0
    grads["log_scales"][np.isneginf(scene.gaussians["log_scales"])] = 0
    return grads


def _to_float64(scene: Scene) -> dict[str, jax.Array]:
    # The others become a Gaussian with an opacity of zero, right in front of the camera.
    drawable = find_drawable(scene)
    shown = scene.world_to_camera.astype(np.float64)
    blank = {
        "means": shown[:3, :3].T @ (np.array([0, 0, 1]) - shown[:3, 3]),
        "log_scales": -3.0,
        "quats": 1.0,
        "logit_opacities": -np.inf,
        "sh": 0.0,
    }
    arrays = {}
    for name in FIELDS:
        value = scene.gaussians[name]
        arrays[name] = np.where(drawable.reshape(-1, *[1] * (value.ndim - 1)), value, blank[name])
    arrays["quats"] = np.where(arrays["quats"].any(-1, keepdims=True), arrays["quats"], [1.0, 0, 0, 0])
    # Past these ends float64 sees the same Gaussian, with finite derivatives.
    arrays["log_scales"] = np.maximum(arrays["log_scales"], -300.0)
    arrays["logit_opacities"] = np.minimum(arrays["logit_opacities"], 300.0)
    arrays |= {name: getattr(scene, name) for name in ("world_to_camera", "focal", "center", "background", "dilation")}
    return {name: jnp.asarray(value, jnp.float64) for name, value in arrays.items()}


def _rotation_matrices(quats):
    w, x, y, z = (quats / jnp.linalg.norm(quats, axis=-1, keepdims=True)).T
    cross = jnp.stack([0 * x, -z, y, z, 0 * x, -x, -y, x, 0 * x], -1).reshape(-1, 3, 3)
    return jnp.eye(3) + 2 * w[:, None, None] * cross + 2 * cross @ cross


def _basis(d, count):
    x, y, z = d.T
    values = [
        0 * x + 0.28209479177387814,
        -0.4886025119029199 * y,
        0.4886025119029199 * z,
        -0.4886025119029199 * x,
        1.0925484305920792 * x * y,
        -1.0925484305920792 * y * z,
        0.31539156525252005 * (2 * z * z - x * x - y * y),
        -1.0925484305920792 * x * z,
        0.5462742152960396 * (x * x - y * y),
        -0.5900435899266435 * y * (3 * x * x - y * y),
        2.890611442640554 * x * y * z,
        -0.4570457994644658 * y * (4 * z * z - x * x - y * y),
        0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y),
        -0.4570457994644658 * x * (4 * z * z - x * x - y * y),
        1.445305721320277 * z * (x * x - y * y),
        -0.5900435899266435 * x * (x * x - 3 * y * y),
    ]
    return jnp.stack(values[:count], -1)


def _render_dense(a, height, width):
    rotation, translation = a["world_to_camera"][:3, :3], a["world_to_camera"][:3, 3]
    local = a["means"] @ rotation.T + translation
    z = local[:, 2]
    focal = jnp.broadcast_to(a["focal"], (2,))
    mean2d = focal * local[:, :2] / z[:, None] + a["center"]
    size = jnp.array([width, height], jnp.float64)
    low, high = (-0.15 * size - a["center"]) / focal, (1.15 * size - a["center"]) / focal
    slope = jnp.clip(local[:, :2] / z[:, None], low, high)
    zero = jnp.zeros_like(z)
    jacobian = jnp.stack(
        [focal[0] / z, zero, -focal[0] * slope[:, 0] / z, zero, focal[1] / z, -focal[1] * slope[:, 1] / z], -1
    ).reshape(-1, 2, 3)
    axes = _rotation_matrices(a["quats"])
    half = axes * jnp.exp(a["log_scales"])[:, None, :]
    projected = jacobian @ rotation @ half
    covariance = projected @ projected.transpose(0, 2, 1) + a["dilation"] * jnp.eye(2)
    conic = jnp.linalg.inv(covariance)

    center = -rotation.T @ translation
    view = a["means"] - center
    direction = view / jnp.linalg.norm(view, axis=-1, keepdims=True)
    rgb = jnp.maximum(0.5 + jnp.einsum("nk,nkc->nc", _basis(direction, a["sh"].shape[1]), a["sh"]), 0)
    normal = jnp.take_along_axis(axes, jnp.argmin(a["log_scales"], -1)[:, None, None], 2)[..., 0]
    normal = normal * jnp.where(jnp.sum(normal * view, -1, keepdims=True) > 0, -1, 1)
    features = jnp.concatenate([rgb, z[:, None], normal], -1)

    order = jnp.argsort(z, stable=True)
    ys, xs = jnp.meshgrid(jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij")
    offset = jnp.stack([xs, ys], -1)[None] - mean2d[order][:, None, None]
    power = -0.5 * jnp.einsum("nhwi,nij,nhwj->nhw", offset, conic[order], offset)
    raw = jax.nn.sigmoid(a["logit_opacities"][order])[:, None, None] * jnp.exp(power)
    alpha = jnp.where(raw >= 1 / 255, jnp.minimum(raw, 0.99), 0)

    def draw(carry, inputs):
        transmittance, stopped, total = carry
        alpha, feature = inputs
        after = transmittance * (1 - alpha)
        stops = stopped | (after < 1e-4)
        weight = jnp.where(stops, 0, transmittance * alpha)
        # A pixel that has stopped cannot stop again.
        near = ~stopped & (jnp.abs(after / 1e-4 - 1) < TRANSMITTANCE_BAND)
        return (jnp.where(stops, transmittance, after), stops, total + weight[..., None] * feature), near

    start = (jnp.ones((height, width)), jnp.zeros((height, width), bool), jnp.zeros((height, width, 7)))
    (transmittance, _, total), near_stop = jax.lax.scan(draw, start, (alpha, features[order]))
    at_jump = jnp.any((jnp.abs(raw * 255 - 1) < ALPHA_BAND) | (jnp.abs(raw / 0.99 - 1) < CLAMP_BAND) | near_stop, 0)
    images = {
        "rgb": total[..., :3] + transmittance[..., None] * a["background"],
        "alpha": 1 - transmittance,
        "depth": total[..., 3],
        "normal": total[..., 4:],
    }
    return images, at_jump


def _compute_loss(arrays, cotangents, height, width):
    images, _ = _render_dense(arrays, height, width)
    return sum(jnp.sum(images[name] * cotangents[name]) for name in cotangents)


_render_jit = jax.jit(_render_dense, static_argnums=(1, 2))
_differentiate_jit = jax.jit(jax.grad(_compute_loss), static_argnums=(2, 3))
