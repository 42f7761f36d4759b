"""Random scenes for the renderer's tests."""

from __future__ import annotations

import numpy as np
import oracle


def make_scene(
    seed: int, *, height: int = 40, width: int = 56, num: int = 60, degree: int = 1, opaque: bool = False
) -> oracle.Scene:
    """A camera at a random pose about two units from the origin, `num` Gaussians around the origin, a few of them
    behind the camera, out of the picture or too faint to draw; `opaque` ones make most pixels stop early."""
    rng = np.random.default_rng(seed)
    world_to_camera = np.eye(4)
    world_to_camera[:3, :3] = make_rotation(rng)
    world_to_camera[:3, 3] = rng.normal(size=3) * [0.1, 0.1, 0.2] + [0, 0, 2]
    means = rng.normal(size=(num, 3)) * 0.35
    means[: num // 10] *= 8
    gaussians = {
        "means": means,
        "log_scales": np.log(10 ** rng.uniform(-2.5, -0.4, size=(num, 3))),
        "quats": rng.normal(size=(num, 4)) * 10 ** rng.uniform(-2, 1, size=(num, 1)),
        "logit_opacities": rng.uniform(1, 8, size=num) if opaque else rng.uniform(-7, 5, size=num),
        "sh": rng.normal(size=(num, (degree + 1) ** 2, 3)) * 0.5,
    }
    focal = width * rng.uniform(0.7, 1.6) * np.array([1, rng.uniform(0.8, 1.2)])
    return oracle.Scene(
        gaussians={name: value.astype(np.float32) for name, value in gaussians.items()},
        world_to_camera=world_to_camera.astype(np.float32),
        focal=focal.astype(np.float32),
        center=(np.array([width, height]) * rng.uniform(0.4, 0.6, size=2)).astype(np.float32),
        background=rng.uniform(size=3).astype(np.float32),
        height=height,
        width=width,
    )


def make_rotation(rng: np.random.Generator) -> np.ndarray:
    """A random rotation matrix [3,3]."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def make_cotangents(seed: int, height: int, width: int) -> dict[str, np.ndarray]:
    """Random weights of rgb, alpha, depth and normal in a scalar loss."""
    rng = np.random.default_rng(seed)
    shapes = {
        "rgb": (height, width, 3),
        "alpha": (height, width),
        "depth": (height, width),
        "normal": (height, width, 3),
    }
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def append(scene: oracle.Scene, **fields: object) -> oracle.Scene:
    """The scene with one more Gaussian in its middle, visible, round and grey where `fields` does not say otherwise."""
    extra = {
        "means": -scene.world_to_camera[:3, :3].T @ (scene.world_to_camera[:3, 3] - [0.05, 0.1, 2]),
        "log_scales": np.full(3, -2.5),
        "quats": np.array([1.0, 0, 0, 0]),
        "logit_opacities": np.array(0.5),
        "sh": np.full(scene.gaussians["sh"].shape[1:], 0.1),
    }
    extra |= {name: np.broadcast_to(value, extra[name].shape) for name, value in fields.items()}
    gaussians = {
        name: np.concatenate([scene.gaussians[name], np.asarray(extra[name], np.float32)[None]]) for name in extra
    }
    return oracle.Scene(**{**vars(scene), "gaussians": gaussians})
