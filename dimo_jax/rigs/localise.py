"""Where the markers of pose maps are, by their colours, to a fraction of a pixel.

First every pixel is given to the colour that it is nearest to, and a marker is where most pixels of its colour lie in
the size of a disc (AnimaX clusters colours by k-means++; the colours are known, so nothing needs to be clustered).
Then, once it is known which marker stands in front of which, the picture is compared with what `pose_maps` would draw
and all discs are moved by Gauss-Newton until the two agree: what is seen of a disc places all of it, and what is hidden
counts for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimo_jax.rigs.palette import BACKGROUND, LINE, color_distances
from dimo_jax.rigs.pose_maps import disc_radius, draw_lines, line_thickness

_DARK = 48.0  # of 255: pixels whose largest channel is below are background
_TOLERANCE = 60.0  # distance of colours beyond which a pixel is nobody's
_LEAST_SHARE = 0.15  # of a disc's pixels that must be found
_MAX_SEARCHED = 100  # pixels of one colour that are looked at; more are thinned
_MAX_STEP = 1.0  # pixels a Gauss-Newton step
_CHUNK = 16  # pictures that are fitted at once: bounds the memory


@dataclass(frozen=True)
class Sightings:
    """K markers in V views at T times."""

    pixels: np.ndarray  # [V,T,K,2]; NaN where a marker was not found
    shares: np.ndarray  # [V,T,K] 0..1, of a disc's area that was seen in its colour


def find_discs(image: np.ndarray, colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of discs in one pose map, by colour alone.

    Args:
      image: [H,W,3] uint8.
      colors: [K,3] uint8.

    Returns:
      Pixels [K,2], NaN where a colour was not found, and shares [K] 0..1 of a disc's area that was.
    """
    radius = disc_radius(image.shape[0])
    brightest = np.maximum(np.maximum(image[..., 0], image[..., 1]), image[..., 2])
    rows, columns = np.nonzero(brightest >= _DARK)
    known = np.concatenate([colors, [BACKGROUND, LINE]]).astype(np.float64)
    distances = color_distances(image[rows, columns], known)
    labels = distances.argmin(axis=1)
    labels[distances[np.arange(len(labels)), labels] > _TOLERANCE] = len(known)
    places = np.stack([columns + 0.5, rows + 0.5], axis=-1)
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(len(colors) + 1))
    pixels, shares = np.full((len(colors), 2), np.nan), np.zeros(len(colors))
    for index in range(len(colors)):
        own = places[order[bounds[index] : bounds[index + 1]]]
        if len(own):
            pixels[index], count = _find_crowd(own, radius)
            shares[index] = min(count / (np.pi * radius**2), 1.0)
    missing = shares < _LEAST_SHARE
    pixels[missing], shares[missing] = np.nan, 0.0
    return pixels, shares


def _find_crowd(places: np.ndarray, radius: float) -> tuple[np.ndarray, int]:
    """Middle and number of the places [n,2] within `radius` of where most of them are."""
    some = places[:: -(-len(places) // _MAX_SEARCHED)]
    counts = (((some[:, None] - some[None]) ** 2).sum(axis=-1) <= radius**2).sum(axis=1)
    middle = some[counts == counts.max()].mean(axis=0) if counts.max() > len(some) / 2 else some[counts.argmax()]
    for _ in range(3):
        near = ((places - middle) ** 2).sum(axis=-1) <= (radius + 0.5) ** 2
        if not near.any():
            return some[counts.argmax()], int(counts.max())
        middle = places[near].mean(axis=0)
    return middle, int(near.sum())


def fit_discs(
    images: np.ndarray,
    pixels: np.ndarray,
    depths: np.ndarray,
    parents: np.ndarray,
    colors: np.ndarray,
    *,
    num_steps: int = 5,
) -> tuple[np.ndarray, np.ndarray]:
    """Moves discs so that what `pose_maps` draws is what pictures show.

    Args:
      images: [N,H,W,3] uint8 pose maps.
      pixels: [N,K,2] where the discs are, within about a disc's radius; NaN leaves one out.
      depths: [N,K] camera z: who is in front.
      parents, colors: of `draw_pose_map`.
      num_steps: of Gauss-Newton.

    Returns:
      Pixels [N,K,2], and shares [N,K] 0..1 of a disc's area that is not hidden by others and has its colour.
    """
    fitted, shares = np.array(pixels, np.float64), np.zeros(pixels.shape[:2])
    for start in range(0, len(images), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        fitted[chunk], shares[chunk] = _fit_chunk(
            images[chunk], fitted[chunk], depths[chunk], parents, colors.astype(np.float32), num_steps
        )
    return fitted, shares


def _fit_chunk(
    images: np.ndarray,
    pixels: np.ndarray,
    depths: np.ndarray,
    parents: np.ndarray,
    colors: np.ndarray,
    num_steps: int,
) -> tuple[np.ndarray, np.ndarray]:
    height, width = images.shape[1:3]
    radius = disc_radius(height)
    reach = int(np.ceil(radius)) + 2
    valid = np.isfinite(pixels).all(axis=-1) & (depths > 0)
    valid &= ((pixels > -reach) & (pixels < np.array([width, height]) + reach)).all(axis=-1)
    if not valid.any():
        return pixels, np.zeros(valid.shape)
    corner, truth, canvas = _crop(images, pixels, valid, parents, 2 * reach + 2)
    start = centers = np.where(valid[..., None], pixels - corner, 2.0 * reach)
    clear = np.ones(canvas.shape[:3], np.float32)
    order = np.argsort(-depths, axis=1, kind="stable")
    for step in range(num_steps + 1):
        windows = _Windows.around(centers, reach)
        drawn = _draw(canvas, clear, centers, windows, valid, order, colors, radius)
        observed = windows.read(truth).astype(np.float32)
        if step == num_steps:
            break
        move = _step(observed, drawn, colors)
        move *= valid[..., None] / np.maximum(1.0, np.linalg.norm(move, axis=-1, keepdims=True) / _MAX_STEP)
        centers = np.clip(centers + move, start - reach, start + reach)
        if step == num_steps // 2:  # by now the lines' ends are known well enough
            _draw_lines(canvas, centers, valid, parents, height)
    centers = centers + corner
    inside = drawn.coverage * drawn.shown
    near = np.linalg.norm(observed - colors[:, None, None], axis=-1) < _TOLERANCE
    shares = (inside * near).sum(axis=(-2, -1)) / (np.pi * radius**2) * valid
    return np.where(np.isfinite(pixels), centers, np.nan), np.minimum(shares, 1.0)


def _crop(
    images: np.ndarray, pixels: np.ndarray, valid: np.ndarray, parents: np.ndarray, margin: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The part of N pictures that holds all discs: its corner [2], the pictures, and a canvas with lines alone."""
    height, width = images.shape[1:3]
    low = np.clip(np.floor(pixels[valid].min(axis=0)).astype(int), 0, [width, height])
    high = np.clip(np.ceil(pixels[valid].max(axis=0)).astype(int) + 1, 0, [width, height])
    pad = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    truth = np.pad(images[:, low[1] : high[1], low[0] : high[0]], pad)
    canvas = np.empty(truth.shape, np.float32)
    _draw_lines(canvas, pixels - (low - margin), valid, parents, height)
    return low - margin, truth, canvas


def _draw_lines(canvas: np.ndarray, pixels: np.ndarray, valid: np.ndarray, parents: np.ndarray, height: int) -> None:
    """Draws the lines of N pictures, and nothing else, into a canvas [N,H,W,3]."""
    canvas[:] = BACKGROUND
    for picture, ends, drawn in zip(canvas, pixels, valid):
        draw_lines(picture, np.where(drawn[:, None], ends, np.nan), parents, line_thickness(height))


@dataclass(frozen=True)
class _Windows:
    """Square patches [N,K,S,S] of N pictures."""

    rows: np.ndarray  # [N,K,S,1]
    columns: np.ndarray  # [N,K,1,S]

    @staticmethod
    def around(centers: np.ndarray, reach: int) -> _Windows:
        corner = np.floor(centers).astype(int)[..., None] + np.arange(-reach, reach + 1)
        return _Windows(corner[..., 1, :, None], corner[..., 0, None, :])

    def read(self, images: np.ndarray) -> np.ndarray:
        return images[np.arange(len(images))[:, None, None, None], self.rows, self.columns]


@dataclass(frozen=True)
class _Drawn:
    """What is drawn in the windows of K discs of N pictures."""

    picture: np.ndarray  # [N,K,S,S,3]
    below: np.ndarray  # [N,K,S,S,3] before the disc was drawn
    coverage: np.ndarray  # [N,K,S,S]
    shown: np.ndarray  # [N,K,S,S] share that no disc in front covers
    slopes: np.ndarray  # [N,K,S,S,2] of the coverage by the disc's middle


def _draw(
    canvas: np.ndarray,
    clear: np.ndarray,
    centers: np.ndarray,
    windows: _Windows,
    valid: np.ndarray,
    order: np.ndarray,
    colors: np.ndarray,
    radius: float,
) -> _Drawn:
    """Draws all discs of N pictures, one rank of depth after the other.

    `canvas` [N,H,W,3] and `clear` [N,H,W] (ones) are drawn into and then put back as they were.
    """
    x = windows.columns + 0.5 - centers[..., 0, None, None]
    y = windows.rows + 0.5 - centers[..., 1, None, None]
    distance = np.sqrt(x**2 + y**2)
    edge = radius + 0.5 - distance
    coverage = (np.clip(edge, 0, 1) * valid[..., None, None]).astype(np.float32)
    rim = ((edge > 0) & (edge < 1) & valid[..., None, None]) / np.maximum(distance, 1e-6)
    slopes = np.stack([np.broadcast_to(x, rim.shape) * rim, np.broadcast_to(y, rim.shape) * rim], axis=-1)
    below = np.empty((*coverage.shape, 3), np.float32)
    shown = np.empty_like(coverage)
    which = np.arange(len(canvas))
    for index in order.T:
        place = which[:, None, None], windows.rows[which, index], windows.columns[which, index]
        under = canvas[place]
        below[which, index] = under
        canvas[place] = under + coverage[which, index][..., None] * (colors[index][:, None, None] - under)
    for index in order.T[::-1]:
        place = which[:, None, None], windows.rows[which, index], windows.columns[which, index]
        shown[which, index] = clear[place]
        clear[place] *= 1 - coverage[which, index]
    picture = windows.read(canvas)
    for index in order.T[::-1]:
        place = which[:, None, None], windows.rows[which, index], windows.columns[which, index]
        canvas[place], clear[place] = below[which, index], 1
    return _Drawn(picture, below, coverage, shown, slopes.astype(np.float32))


def _step(observed: np.ndarray, drawn: _Drawn, colors: np.ndarray) -> np.ndarray:
    """One Gauss-Newton step of every disc by itself -> [N,K,2] pixels; differences beyond noise count less."""
    residual = observed - drawn.picture
    weight = 1 / (1 + (residual**2).sum(axis=-1) / _TOLERANCE**2)
    contrast = (colors[:, None, None] - drawn.below) * drawn.shown[..., None]
    strength = weight * (contrast**2).sum(axis=-1)
    normal = np.einsum("nkij,nkija,nkijb->nkab", strength, drawn.slopes, drawn.slopes)
    pull = np.einsum("nkij,nkijc,nkijc,nkija->nka", weight, contrast, residual, drawn.slopes)
    damping = 1e3 + 1e-3 * np.trace(normal, axis1=-2, axis2=-1)
    return np.linalg.solve(normal + damping[..., None, None] * np.eye(2), pull[..., None])[..., 0]
