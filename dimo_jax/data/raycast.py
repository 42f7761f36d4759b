"""Analytic ray casting of textured round cones: pictures whose truth is known and that no splat took part in.

A round cone is the convex hull of two spheres on its local +Y axis; a scaling per local axis turns it into a capsule,
an ellipsoid or a flattened limb, so one intersection formula draws a whole figure. A ray keeps its parameter under the
affine map into the local frame, and camera rays are not normalized but have z = 1, so the parameter is camera depth.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.types import Array, Camera

TILE = 8  # pixels; small tiles see few primitives each
_CHUNK = 128  # tiles in one call of the compiled function
_BUCKETS = (1, 2, 4, 6, 10, 16)  # primitives per tile; tiles are grouped by the next larger number
_SAMPLES = 3  # rays per pixel and axis

AMBIENT = 0.55
DIFFUSE = 0.5
LIGHT = np.asarray([0.42, 0.76, 0.5]) / np.linalg.norm([0.42, 0.76, 0.5])  # towards the light, world axes


@dataclasses.dataclass(frozen=True, eq=False)
class RoundCones:
    """P primitives with their texture. Lengths in world units, colours in 0..1.

    Texture coordinates are positions in the primitive's frame after scaling. Stripes come first, then decals:
    ellipsoids of D colours, the last one that contains the point wins.
    """

    scale: np.ndarray  # [P,3] per local axis
    radii: np.ndarray  # [P,2] before scaling: at y = 0 and at y = length
    length: np.ndarray  # [P] before scaling
    colors: np.ndarray  # [P,3]
    stripe_colors: np.ndarray  # [P,3]
    stripe_waves: np.ndarray  # [P,3] cycles per world unit along each local axis; 0 draws no stripes
    decal_centers: np.ndarray  # [P,D,3]
    decal_radii: np.ndarray  # [P,D,3]
    decal_colors: np.ndarray  # [P,D,3]

    def __post_init__(self) -> None:
        """A sphere inside the other leaves no cone: that is a mistake of the figure's author."""
        if np.any(np.abs(self.radii[:, 0] - self.radii[:, 1]) >= np.where(self.length > 0, self.length, np.inf)):
            raise ValueError("a round cone's radii differ by more than its length")


def _smallest_positive(first: Array, second: Array) -> Array:
    return jnp.minimum(jnp.where(first > 0, first, jnp.inf), jnp.where(second > 0, second, jnp.inf))


def intersect(origin: Array, direction: Array, radii: Array, length: Array) -> Array:
    """Parameter of a ray's first entry into a round cone in its local, unscaled frame; inf where it misses.

    The solid is the union of two spheres and the cone that touches both; the entry into a union is the smallest of
    the entries. On the cone the distance from the axis is A - B y, between the two circles where it touches.

    Args:
      origin: [...,3], outside the solid.
      direction: [...,3], any length.
      radii: [...,2] at y = 0 and y = length.
      length: [...]; 0 is a sphere of the first radius.

    Returns:
      [...] t such that origin + t direction lies on the surface, t > 0.
    """
    ox, oy, oz = origin[..., 0], origin[..., 1], origin[..., 2]
    dx, dy, dz = direction[..., 0], direction[..., 1], direction[..., 2]
    across = dx * dx + dz * dz
    full = across + dy * dy

    def sphere(height: Array | float, radius: Array) -> Array:
        b = ox * dx + (oy - height) * dy + oz * dz
        c = ox * ox + (oy - height) ** 2 + oz * oz - radius * radius
        discriminant = b * b - full * c
        t = (-b - jnp.sqrt(jnp.maximum(discriminant, 0.0))) / full
        return jnp.where((discriminant > 0) & (t > 0), t, jnp.inf)

    sine = (radii[..., 0] - radii[..., 1]) / jnp.where(length > 0, length, jnp.inf)
    cosine = jnp.sqrt(1.0 - sine * sine)
    tangent = sine / cosine
    base = radii[..., 0] / cosine - tangent * oy
    a = across - (tangent * dy) ** 2
    a = jnp.where(jnp.abs(a) < 1e-12, 1e-12, a)
    b = ox * dx + oz * dz + base * tangent * dy
    c = ox * ox + oz * oz - base * base
    discriminant = b * b - a * c
    root = jnp.sqrt(jnp.maximum(discriminant, 0.0))

    def side(t: Array) -> Array:
        y = oy + t * dy
        distance = base - tangent * t * dy
        along = y * cosine - distance * sine
        valid = (discriminant > 0) & (distance > 0) & (along > 0) & (along < length * cosine)
        return jnp.where(valid, t, jnp.inf)

    cone = _smallest_positive(side((-b - root) / a), side((-b + root) / a))
    return jnp.minimum(cone, jnp.minimum(sphere(0.0, radii[..., 0]), sphere(length, radii[..., 1])))


def _hit_tile(tile: dict[str, Array], samples: int) -> tuple[Array, Array, Array]:
    """First hit of every ray of one tile: depth [R] (inf: none), which of the J primitives [R], local point [R,3]."""
    steps = (jnp.arange(TILE * samples, dtype=jnp.float32) + 0.5) / samples
    rows, columns = jnp.meshgrid(steps, steps, indexing="ij")
    x = (columns.ravel() + tile["corner"][0] - tile["center"][0]) / tile["focal"][0]
    y = (rows.ravel() + tile["corner"][1] - tile["center"][1]) / tile["focal"][1]
    # Column by column instead of a matrix product, so that XLA fuses everything from the rays to the depths.
    maps = tile["maps"][:, None]
    directions = maps[..., 0] * x[:, None] + maps[..., 1] * y[:, None] + maps[..., 2]
    hits = intersect(tile["origins"][:, None], directions, tile["radii"][:, None], tile["length"][:, None])
    hits = jnp.where(tile["ids"][:, None] >= 0, hits, jnp.inf)
    nearest = jnp.argmin(hits, axis=0)
    depth = jnp.min(hits, axis=0)
    # A masked sum over the few primitives is cheaper on a CPU than a gather per ray.
    chosen = (jnp.arange(hits.shape[0])[:, None] == nearest)[..., None]
    points = tile["origins"][:, None] + jnp.where(jnp.isfinite(depth), depth, 0.0)[:, None] * directions
    return depth, nearest.astype(jnp.uint8), jnp.sum(jnp.where(chosen, points, 0.0), axis=0)


@functools.partial(jax.jit, static_argnames="samples")
def _hit_tiles(tiles: dict[str, Array], *, samples: int) -> tuple[Array, Array, Array]:
    return jax.vmap(lambda tile: _hit_tile(tile, samples))(tiles)


def _texture(cones: RoundCones, index: int, points: np.ndarray) -> np.ndarray:
    """Colours [n,3] of texture coordinates [n,3] on one primitive."""
    color = np.broadcast_to(cones.colors[index], points.shape).astype(np.float32)
    wave = cones.stripe_waves[index].astype(np.float32)
    if wave.any():
        color[(points @ wave) % 1.0 < 0.5] = cones.stripe_colors[index]
    for center, radii, decal in zip(cones.decal_centers[index], cones.decal_radii[index], cones.decal_colors[index]):
        offset = points * (1 / radii).astype(np.float32) - (center / radii).astype(np.float32)
        color[np.einsum("ni,ni->n", offset, offset) < 1] = decal
    return color


def _shade(cones: RoundCones, index: int, points: np.ndarray, lights: np.ndarray) -> np.ndarray:
    """Lit colours [n,3] in 0..1 of local, unscaled surface points [n,3]; lights [n,3] in the primitive's frame.

    The normal points away from the centre of the sphere of the hull that touches the surface there.
    """
    radii, length, scale = cones.radii[index], cones.length[index], cones.scale[index].astype(np.float32)
    normals = points.copy()
    if length > 0:
        sine = (radii[0] - radii[1]) / length
        distance = np.sqrt(points[:, 0] ** 2 + points[:, 2] ** 2)
        normals[:, 1] -= np.clip(points[:, 1] - distance * np.float32(sine / np.sqrt(1 - sine**2)), 0, length)
    normals /= scale
    facing = np.einsum("ni,ni->n", normals, lights) / np.sqrt(np.einsum("ni,ni->n", normals, normals))
    shade = np.float32(AMBIENT) + np.float32(0.5 * DIFFUSE) * (1 + facing)
    return np.minimum(_texture(cones, index, points * scale) * shade[:, None], 1.0)


def _shade_rays(
    cones: RoundCones, ids: np.ndarray, points: np.ndarray, frame: np.ndarray, lights: np.ndarray
) -> np.ndarray:
    """RGB and hit [n,R,4] float32 of rays; ids [n,R] int8 (-1: no hit), points [n,R,3], frame [n], lights [F,P,3]."""
    num_rays = ids.shape[1]
    flat, flat_points = ids.ravel(), points.reshape(-1, 3)
    order = np.argsort(flat, kind="stable")
    bounds = np.searchsorted(flat[order], np.arange(len(cones.length) + 1))
    colors = np.zeros((flat.size, 4), np.float32)
    for index in range(len(cones.length)):
        rays = order[bounds[index] : bounds[index + 1]]
        if len(rays):
            lit = lights[frame[rays // num_rays], index].astype(np.float32)
            colors[rays, :3] = _shade(cones, index, flat_points[rays], lit)
            colors[rays, 3] = 1.0
    return colors.reshape(*ids.shape, 4)


def _pixels(colors: np.ndarray) -> np.ndarray:
    """Averages rays [n,R,4] to pixels [n,TILE,TILE,4] uint8, straight alpha."""
    sums = colors.reshape(-1, TILE, _SAMPLES, TILE, _SAMPLES, 4).sum(axis=(2, 4))
    sums[..., :3] /= np.maximum(sums[..., 3:], 1.0)
    sums[..., 3] /= _SAMPLES**2
    return np.rint(255 * sums).astype(np.uint8)


def _local_maps(
    cones: RoundCones, positions: np.ndarray, rotations: np.ndarray, cameras: Camera
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Camera rays in local frames: origins [V,F,P,3], maps [V,F,P,3,3] of ray to local direction, lights [F,P,3]."""
    pose = np.asarray(cameras.world_to_camera, np.float64)
    eyes = -np.einsum("vji,vj->vi", pose[:, :3, :3], pose[:, :3, 3])
    to_local = np.swapaxes(rotations, -1, -2) / cones.scale[:, :, None]
    maps = np.einsum("fpij,vkj->vfpik", to_local, pose[:, :3, :3])
    origins = np.einsum("fpij,vfpj->vfpi", to_local, eyes[:, None, None] - positions)
    lights = np.einsum("fpji,j->fpi", rotations, LIGHT)
    return origins, maps, lights


def _reach(cones: RoundCones, positions: np.ndarray, rotations: np.ndarray, cameras: Camera) -> np.ndarray:
    """Which primitive may touch which tile: bool [V,F,tiles,P], conservative, from the projected axis and radius."""
    ends = np.stack([np.zeros_like(cones.length), cones.length], axis=-1)
    offsets = np.einsum("fpi,pe->fpei", rotations[..., 1], ends * cones.scale[:, 1:2])
    world = positions[:, :, None] + offsets
    pose = np.asarray(cameras.world_to_camera, np.float64)
    local = np.einsum("vij,fpej->vfpei", pose[:, :3, :3], world) + pose[:, None, None, None, :3, 3]
    focal = np.asarray(cameras.focal, np.float64)[:, None, None, None]
    center = np.asarray(cameras.center, np.float64)[:, None, None, None]
    pixels = local[..., :2] / local[..., 2:] * focal + center
    radius = cones.radii.max(axis=-1) * cones.scale.max(axis=-1)
    nearest = local[..., 2].min(axis=-1) - radius
    # A sphere's outline off the axis is wider than f r / z; 1.1 covers it at fields of view under 50 degrees.
    radius = 1.1 * focal.max(axis=(-1, -2)) * radius / np.maximum(nearest, 1e-3)
    columns, rows = -(-cameras.width // TILE), -(-cameras.height // TILE)
    tiles = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2) * TILE + TILE / 2
    start, end = pixels[..., None, :, 0, :], pixels[..., None, :, 1, :]
    axis = end - start
    along = np.sum((tiles[:, None] - start) * axis, axis=-1) / np.maximum(np.sum(axis * axis, axis=-1), 1e-9)
    gap = tiles[:, None] - start - np.clip(along, 0, 1)[..., None] * axis
    return np.sum(gap * gap, axis=-1) < (radius[..., None, :] + TILE * 0.7072) ** 2


def _chunks(reach: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Groups busy tiles: index rows (view, frame, tile) [n,3] and primitive ids [n,J], -1 where there is none."""
    counts = reach.sum(axis=-1)
    widths = (*(width for width in _BUCKETS if width < reach.shape[-1]), reach.shape[-1])
    low = 0
    for width in widths:
        where = np.argwhere((counts > low) & (counts <= width))
        low = width
        for start in range(0, len(where), _CHUNK):
            rows = where[start : start + _CHUNK]
            masks = reach[tuple(rows.T)]
            ids = np.argsort(~masks, axis=-1, kind="stable")[:, :width]
            yield rows, np.where(np.take_along_axis(masks, ids, axis=-1), ids, -1)


def cast(
    cones: RoundCones,
    positions: np.ndarray,
    rotations: np.ndarray,
    cameras: Camera,
    *,
    with_depth: bool = False,
    on_progress: Callable[[], None] | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Pictures of moving round cones, lit by one light fixed in the world, with 3x3 rays a pixel.

    Args:
      cones: P primitives.
      positions: [F,P,3] origin of every primitive's frame, world units.
      rotations: [F,P,3,3] its axes in the world.
      cameras: [V] outside all primitives.
      with_depth: also return the depth of the nearest of each pixel's rays.
      on_progress: called a few times while working.

    Returns:
      frames [V,F,H,W,4] uint8, straight alpha, colour 0 where nothing is hit; depth [V,F,H,W] float32 camera z, inf
      where nothing is hit, or None.
    """
    origins, maps, lights = _local_maps(cones, positions, rotations, cameras)
    reach = _reach(cones, positions, rotations, cameras)
    columns, rows = -(-cameras.width // TILE), -(-cameras.height // TILE)
    num_views, num_frames = reach.shape[:2]
    frames = np.zeros((num_views, num_frames, rows, TILE, columns, TILE, 4), np.uint8)
    depths = np.full(frames.shape[:-1], np.inf, np.float32) if with_depth else None
    for where, ids in _chunks(reach):
        view, frame, tile = where.T
        row, column = np.divmod(tile, columns)
        tiles = {
            "ids": ids,
            "origins": origins[view[:, None], frame[:, None], ids],
            "maps": maps[view[:, None], frame[:, None], ids],
            "radii": cones.radii[ids],
            "length": cones.length[ids],
            "corner": np.stack([column, row], axis=-1) * TILE,
            "focal": cameras.focal[view],
            "center": cameras.center[view],
        }
        padded = {name: np.resize(value, (_CHUNK, *value.shape[1:])) for name, value in tiles.items()}
        padded = {name: value.astype(np.int32 if name == "ids" else np.float32) for name, value in padded.items()}
        depth, nearest, points = (np.asarray(value)[: len(where)] for value in _hit_tiles(padded, samples=_SAMPLES))
        hit_ids = np.where(np.isfinite(depth), np.take_along_axis(ids, nearest, axis=-1), -1).astype(np.int8)
        frames[view, frame, row, :, column] = _pixels(_shade_rays(cones, hit_ids, points, frame, lights))
        if depths is not None:
            rays = depth.reshape(-1, TILE, _SAMPLES, TILE, _SAMPLES)
            depths[view, frame, row, :, column] = rays.min(axis=(2, 4))
        if on_progress is not None:
            on_progress()
    shape = (num_views, num_frames, rows * TILE, columns * TILE)
    frames = frames.reshape(*shape, 4)[:, :, : cameras.height, : cameras.width]
    if depths is not None:
        depths = depths.reshape(shape)[:, :, : cameras.height, : cameras.width]
    return frames, depths
