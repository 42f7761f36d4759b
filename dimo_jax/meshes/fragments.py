"""Which triangles cover which samples of a picture, and which of them is nearest there (NumPy).

Each triangle becomes the horizontal spans it covers, each span its fragments, and the nearest fragment of a sample is
found by one `maximum.at` over keys that pack inverse depth and fragment number, so the same input gives the same
picture every time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NUMBERS = np.uint64(0xFFFFFFFF)  # the bits of a key that hold a fragment's number


@dataclass(frozen=True)
class Fragments:
    """One entry per triangle and sample it covers."""

    pixels: np.ndarray  # [Q] int32, flat index into the grid of samples
    inverse_depths: np.ndarray  # [Q] float32
    spans: np.ndarray  # [Q] int32
    span_triangles: np.ndarray  # [spans] int64

    def triangles(self, chosen: np.ndarray) -> np.ndarray:
        """Triangles of the `chosen` fragments."""
        return self.span_triangles[self.spans[chosen]]


def make_keys(fragments: Fragments) -> np.ndarray:
    """[Q] uint64 that rise with inverse depth, then with the number of the fragment, which they hold."""
    keys = fragments.inverse_depths.view(np.uint32).astype(np.uint64)  # bits of a positive float rise with it
    keys <<= np.uint64(32)
    keys |= np.arange(1, len(keys) + 1, dtype=np.uint64)
    return keys


def find_nearest(
    fragments: Fragments, occluders: np.ndarray, count: int, behind: np.ndarray | None = None
) -> np.ndarray:
    """The largest key of `occluders` at each of `count` samples, or that of `behind`; 0 where there is none."""
    nearest = np.zeros(count, np.uint64) if behind is None else behind.copy()
    np.maximum.at(nearest, fragments.pixels[occluders], make_keys(fragments)[occluders])
    return nearest


def find_winners(nearest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Samples at which a fragment is nearest, and these fragments."""
    numbers = (nearest & NUMBERS).astype(np.int64)
    covered = np.flatnonzero(numbers)
    return covered, numbers[covered] - 1


def rasterize(points: np.ndarray, inverse_depths: np.ndarray, *, height: int, width: int) -> Fragments:
    """Triangles with corners `points` [F,3,2], in samples -> their fragments. Sample centres lie at +0.5.

    A triangle is cut at its middle corner into an upper and a lower half; in each, every row's span lies between the
    long edge and one short edge, both straight lines u(v).
    """
    order = np.argsort(points[..., 1], axis=1)
    (top, mid, low) = (np.take_along_axis(points, order[:, i, None, None], axis=1)[:, 0] for i in range(3))
    starts = np.concatenate([top, mid])  # of the short edges: upper halves, then lower halves
    ends = np.concatenate([mid, low])
    first = np.clip(np.ceil(starts[:, 1] - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(ends[:, 1] - 0.5), 0, height).astype(np.int64)
    outside = (points[..., 0].max(1) < 0) | (points[..., 0].min(1) > width)
    counts = np.where(np.tile(outside, 2), 0, last - first)
    half = np.repeat(np.arange(len(starts)), counts)
    rows = _ranges(first, counts)
    triangles = half % max(len(points), 1)
    v = rows + 0.5
    with np.errstate(divide="ignore", invalid="ignore"):  # a flat edge spans no row, so its slope is never used
        short = (ends[:, 0] - starts[:, 0]) / (ends[:, 1] - starts[:, 1])
        long = (low[:, 0] - top[:, 0]) / (low[:, 1] - top[:, 1])
    u_short = starts[half, 0] + (v - starts[half, 1]) * short[half]
    u_long = top[triangles, 0] + (v - top[triangles, 1]) * long[triangles]
    left = np.clip(np.ceil(np.minimum(u_short, u_long) - 0.5), 0, width).astype(np.int64)
    right = np.clip(np.ceil(np.maximum(u_short, u_long) - 0.5), 0, width).astype(np.int64)
    return _fill_spans(rows, triangles, left, right, plane(points, inverse_depths), width=width)


def _fill_spans(
    rows: np.ndarray, triangles: np.ndarray, left: np.ndarray, right: np.ndarray, depth: np.ndarray, *, width: int
) -> Fragments:
    """Spans [left, right) of rows -> fragments, with inverse depth from its plane `depth` [F,3] over (u, v, 1)."""
    counts = np.maximum(right - left, 0)
    spans = np.repeat(np.arange(len(rows), dtype=np.int32), counts)
    pixels = _ranges(rows * width + left, counts)
    slope, across, offset = depth[triangles].T
    base = across * (rows + 0.5) + offset + slope * (0.5 - rows * width)  # so that slope * pixel is all that is left
    inverse = np.take(slope, spans)
    inverse *= pixels
    inverse += np.take(base, spans)
    return Fragments(pixels, np.maximum(inverse, 0).astype(np.float32), spans, triangles)


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Concatenation of arange(start, start + count) over all entries, int32."""
    offsets = (starts - (np.cumsum(counts) - counts)).astype(np.int32)
    ranges = np.repeat(offsets, counts)
    ranges += np.arange(len(ranges), dtype=np.int32)
    return ranges


def plane(points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The plane a u + b v + c through `values` [F,3] at `points` [F,3,2] -> [F,3]; 0 for a triangle seen edge on."""
    e1, e2 = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    d1, d2 = values[:, 1] - values[:, 0], values[:, 2] - values[:, 0]
    area = e1[:, 0] * e2[:, 1] - e1[:, 1] * e2[:, 0]
    inverse = np.divide(1.0, area, out=np.zeros_like(area), where=np.abs(area) > 1e-9)
    a = (d1 * e2[:, 1] - d2 * e1[:, 1]) * inverse
    b = (d2 * e1[:, 0] - d1 * e2[:, 0]) * inverse
    return np.stack([a, b, values[:, 0] - a * points[:, 0, 0] - b * points[:, 0, 1]], axis=1)
