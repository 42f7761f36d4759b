"""Evidence from multi-view videos: the rigid part is rendered and compared with what every camera saw.

How a picture changes with the part's pose follows from the picture itself: where a pixel looks at the part, the drawn
picture moves along with the projected surface. So one drawing per view and pose gives the Gauss-Newton system, whatever
backend draws. Both sides are blurred a little, which makes outlines count and widens the reach.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter

from dimo_jax.cameras.orbits import resize
from dimo_jax.core.types import Camera
from dimo_jax.systems.atop.seen.evidence import Slopes
from dimo_jax.systems.atop.seen.layers import Draw, Layers, premultiply

REACH = 3  # pixels around the part that still tell where it is
ALIKE = 16.0  # values that err together: the blur ties pixels, the surface ties channels
HUBER = 3.0  # standard deviations from which a residual counts linearly


@dataclass(frozen=True, eq=False)
class Pictures:
    """Videos of a part by V cameras; see `evidence.Evidence`."""

    draw: Draw
    images: np.ndarray  # [T,V,H,W,4] float32 premultiplied, blurred
    cameras: Camera  # of these pictures
    pivot: np.ndarray  # [3] of the part at rest
    noise: float  # standard deviation of a channel, 0..1
    blur: float = 1.0  # pixels
    temper: float = ALIKE  # how many values that err together count as one

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self.images)

    @property
    def pixel(self) -> float:
        """Length of a pixel where the part rests."""
        poses = np.asarray(self.cameras.world_to_camera, np.float64)
        depths = poses[:, 2, :3] @ self.pivot + poses[:, 2, 3]
        focal = np.broadcast_to(np.asarray(self.cameras.focal, np.float64), (len(poses), 2)).mean(axis=1)
        return float(np.median(depths / focal))

    def look(self, pose: np.ndarray) -> np.ndarray:
        """The pictures [V,H,W,4] of a pose [4,4], blurred as those that were seen."""
        return blur_pictures(self.draw(pose, False).colors, self.blur)

    def measure(self, poses: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """See `Evidence`."""
        return np.array([self.cost(self._residual(pose, frame)[0]) for pose, frame in zip(poses, frames)])

    def compare(self, pose: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Costs [F] of one pose [4,4] in several frames, which is drawn once."""
        drawn = self.look(pose)
        return np.array([self.cost(drawn - self.images[frame]) for frame in frames])

    def linearize(self, poses: np.ndarray, frames: np.ndarray) -> Slopes:
        """See `Evidence`."""
        each = [self._linearize(pose, int(frame)) for pose, frame in zip(poses, frames)]
        cost, gradient, curvature = (np.stack(list(column)) for column in zip(*each))
        return Slopes(cost, gradient, curvature)

    def estimate_noise(self, poses: np.ndarray) -> float:
        """Root mean square residual where the part is, at poses [T,4,4]; at least half a step of eight bits."""
        squares = []
        for frame, pose in enumerate(poses):
            residual, _, layers = self._residual(pose, frame, with_places=True)
            near = np.stack([binary_dilation(seen, iterations=REACH) for seen in layers.seen])
            squares.append((residual[near] ** 2).mean() if near.any() else 0.0)
        return float(max(np.sqrt(np.mean(squares)), 0.5 / 255))

    def _residual(
        self, pose: np.ndarray, frame: int, *, with_places: bool = False
    ) -> tuple[np.ndarray, np.ndarray, Layers]:
        layers = self.draw(pose, with_places)
        drawn = blur_pictures(layers.colors, self.blur)
        return drawn - self.images[frame], drawn, layers

    def cost(self, residual: np.ndarray) -> float:
        """Of residuals of any shape."""
        size = np.abs(residual) / self.noise
        costs = np.where(size < HUBER, 0.5 * size**2, HUBER * (size - 0.5 * HUBER))
        return float(costs.sum(dtype=np.float64) / self.temper)

    def _linearize(self, pose: np.ndarray, frame: int) -> tuple[float, np.ndarray, np.ndarray]:
        residual, drawn, layers = self._residual(pose, frame, with_places=True)
        gradient, curvature = np.zeros(6), np.zeros((6, 6))
        for view in range(len(drawn)):
            rows, columns, places = _look_at_part(layers, view)
            if not len(rows):
                continue
            slope_v, slope_u = np.gradient(drawn[view], axis=(0, 1))
            slopes = np.stack([slope_u[rows, columns], slope_v[rows, columns]], axis=-1)  # [N,4,2]
            levers = self._levers(pose, view, places)  # [N,2,6]
            jacobian = -(slopes @ levers)  # the picture at a pixel came from where it was before
            error = residual[view][rows, columns] / self.noise
            weight = np.minimum(1.0, HUBER / np.maximum(np.abs(error), 1e-9))
            flat = jacobian.reshape(-1, 6) / self.noise
            gradient += flat.T @ (weight * error).reshape(-1)
            curvature += (flat * weight.reshape(-1, 1)).T @ flat
        return self.cost(residual), gradient / self.temper, curvature / self.temper

    def _levers(self, pose: np.ndarray, view: int, places: np.ndarray) -> np.ndarray:
        """How image points of places [N,3] of the part at rest move with a twist, pixels -> [N,2,6]."""
        moved = places @ pose[:3, :3].T + pose[:3, 3]
        arms = moved - (pose[:3, :3] @ self.pivot + pose[:3, 3])
        camera = np.asarray(self.cameras.world_to_camera[view], np.float64)
        focal = np.broadcast_to(np.asarray(self.cameras.focal[view], np.float64), (2,))
        x, y, z = (moved @ camera[:3, :3].T + camera[:3, 3]).T
        zero = np.zeros_like(z)
        project = np.stack(
            [focal[0] / z, zero, -focal[0] * x / z**2, zero, focal[1] / z, -focal[1] * y / z**2], axis=-1
        )
        shift = project.reshape(-1, 2, 3) @ camera[:3, :3]  # [N,2,3] per unit of length in the world
        return np.concatenate([np.cross(arms[:, None], shift), shift], axis=-1)


def _look_at_part(layers: Layers, view: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows [N], columns [N] and places [N,3] of pixels on the part or beside it, none beside what hides it."""
    seen = layers.seen[view]
    if not seen.any():
        return np.zeros(0, int), np.zeros(0, int), np.zeros((0, 3))
    distance, (near_rows, near_columns) = distance_transform_edt(~seen, return_indices=True)
    told = distance <= REACH
    if layers.hidden[view].any():
        told &= ~binary_dilation(layers.hidden[view], iterations=REACH)
    rows, columns = np.nonzero(told)
    places = layers.places[view][near_rows[rows, columns], near_columns[rows, columns]]
    return rows, columns, places.astype(np.float64)


def blur_pictures(pictures: np.ndarray, blur: float) -> np.ndarray:
    """Pictures [...,H,W,C] blurred by a Gaussian of `blur` pixels."""
    sigma = [0.0] * (pictures.ndim - 3) + [blur, blur, 0.0]
    return np.asarray(gaussian_filter(pictures, sigma, truncate=3.0)) if blur > 0 else pictures


def make_pictures(
    frames: np.ndarray,
    cameras: Camera,
    make_draw: Callable[[Camera], Draw],
    pivot: np.ndarray,
    *,
    side: int,
    noise: float = 0.03,
    blur: float = 1.0,
) -> Pictures:
    """Videos at a smaller size, ready to compare with.

    Args:
      frames: [V,T,H,W,4] uint8, straight alpha.
      cameras: V views of these pictures.
      make_draw: gives the function that draws for cameras, see `layers`.
      pivot: [3], the middle of the part at rest.
      side: height in pixels to work at; a whole fraction of H, or the next smaller one.
      noise: a first guess, of a channel in 0..1.
      blur: pixels at the size worked at.
    """
    factor = max(frames.shape[2] // side, 1)
    height, width = frames.shape[2] // factor, frames.shape[3] // factor
    cut = frames[:, :, : height * factor, : width * factor]
    small = premultiply(cut).reshape(*cut.shape[:2], height, factor, width, factor, 4).mean(axis=(3, 5))
    cropped = replace(cameras, height=height * factor, width=width * factor)
    resized = resize(cropped, height, width)
    images = blur_pictures(small.swapaxes(0, 1), blur)
    return Pictures(make_draw(resized), images, resized, pivot, noise, blur)


def with_noise(pictures: Pictures, noise: float) -> Pictures:
    """The same with another noise."""
    return replace(pictures, noise=noise)
