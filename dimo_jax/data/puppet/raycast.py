"""Analytic ray casting of textured round cones: pictures whose truth is known and that no splat took part in.

A round cone is the convex hull of two spheres on its local +Y axis; a scaling per local axis turns it into a capsule,
an ellipsoid or a flattened limb, so one intersection formula draws a whole figure. A ray keeps its parameter under the
affine map into the local frame, and camera rays are not normalized but have z = 1, so the parameter is camera depth.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array, Camera

TILE = 8  # pixels; small tiles see few primitives each
_CHUNK = 64  # tiles in one call of the compiled function
# Rays of a pixel: five places on distinct rows and columns, symmetric about the centre, draw edges nearly as finely
# as a 5x5 grid at a fifth of its cost.
_OFFSETS = np.asarray([(0.1, 0.7), (0.3, 0.1), (0.5, 0.5), (0.7, 0.9), (0.9, 0.3)], np.float32)

AMBIENT = 0.55
DIFFUSE = 0.5
LIGHT = np.asarray([0.42, 0.76, 0.5]) / np.linalg.norm([0.42, 0.76, 0.5])  # towards the light, world axes


@dataclasses.dataclass(frozen=True, eq=False)
class RoundCones:
    """P primitives with their texture. Lengths in world units, colours in 0..1.

    Texture coordinates are positions in the primitive's frame after scaling. Stripes come first, then decals:
    ellipsoids of D colours, the last one that contains the point wins; a centre that is not finite is no decal.
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


Components = tuple[Array, Array, Array]  # x, y, z as separate arrays: XLA vectorizes them, not a trailing axis of 3


def intersect(origin: Components, direction: Components, radii: tuple[Array, Array], length: Array) -> Array:
    """Parameter of a ray's first entry into a round cone in its local, unscaled frame; inf where it misses.

    The solid is the union of two spheres and the cone that touches both; the entry into a union is the smallest of
    the entries. On the cone the distance from the axis is A - B y, between the two circles where it touches.

    Args:
      origin: x, y, z [...], outside the solid.
      direction: x, y, z [...], any length.
      radii: [...] at y = 0 and at y = length.
      length: [...]; 0 is a sphere of the first radius.

    Returns:
      [...] t such that origin + t direction lies on the surface, t > 0.
    """
    (ox, oy, oz), (dx, dy, dz), (low, high) = origin, direction, radii
    across = dx * dx + dz * dz
    full = across + dy * dy

    def sphere(height: Array | float, radius: Array) -> Array:
        b = ox * dx + (oy - height) * dy + oz * dz
        c = ox * ox + (oy - height) ** 2 + oz * oz - radius * radius
        discriminant = b * b - full * c
        t = (-b - jnp.sqrt(jnp.maximum(discriminant, 0.0))) / full
        return jnp.where((discriminant > 0) & (t > 0), t, jnp.inf)

    sine = (low - high) / jnp.where(length > 0, length, jnp.inf)
    cosine = jnp.sqrt(1.0 - sine * sine)
    tangent = sine / cosine
    base = low / cosine - tangent * oy
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
    return jnp.minimum(cone, jnp.minimum(sphere(0.0, low), sphere(length, high)))


def _texture(part: dict[str, Array], points: Components) -> Components:
    """Colours [B,R] each of texture coordinates [B,R] on one primitive of every tile."""
    x, y, z = points
    wave = part["stripe_waves"][..., None]
    phase = x * wave[:, 0] + y * wave[:, 1] + z * wave[:, 2]
    striped = jnp.any(wave != 0, axis=1) & (phase - jnp.floor(phase) < 0.5)
    color = [jnp.where(striped, part["stripe_colors"][:, i, None], part["colors"][:, i, None]) for i in range(3)]
    for number in range(part["decal_centers"].shape[1]):
        center, scale = part["decal_centers"][:, number, :, None], part["decal_scales"][:, number, :, None]
        offset = [(value - center[:, i]) * scale[:, i] for i, value in enumerate(points)]
        painted = sum(value * value for value in offset) < 1  # never where the centre is NaN: no decal
        color = [jnp.where(painted, part["decal_colors"][:, number, i, None], color[i]) for i in range(3)]
    return color[0], color[1], color[2]


def paint(cones: RoundCones, points: np.ndarray) -> np.ndarray:
    """Colours [P,R,3], 0..1, without light, of points [P,R,3] in the frames of the P primitives, after scaling."""
    part = {
        name: jnp.asarray(value, jnp.float32)
        for name, value in (vars(cones) | {"decal_scales": 1 / cones.decal_radii}).items()
    }
    x, y, z = jnp.moveaxis(jnp.asarray(points, jnp.float32), -1, 0)
    return np.stack([np.asarray(channel) for channel in _texture(part, (x, y, z))], axis=-1)


def _shade(part: dict[str, Array], points: Components) -> Components:
    """Lit colours [B,R] each, 0..1, of local, unscaled surface points [B,R]; part["lights"] [B,3] are in local frames.

    The normal points away from the centre of the sphere of the hull that touches the surface there.
    """
    x, y, z = points
    radii, length = part["radii"][..., None], part["length"][:, None]
    scale, light = part["scale"][..., None], part["lights"][..., None]
    sine = (radii[:, 0] - radii[:, 1]) / jnp.where(length > 0, length, jnp.inf)
    distance = jnp.sqrt(x * x + z * z)
    along = jnp.clip(y - distance * (sine / jnp.sqrt(1 - sine * sine)), 0, length)
    normal = (x / scale[:, 0], (y - along) / scale[:, 1], z / scale[:, 2])
    size = jnp.sqrt(sum(value * value for value in normal))
    facing = sum(value * light[:, i] for i, value in enumerate(normal)) / size
    shade = AMBIENT + 0.5 * DIFFUSE * (1 + facing)
    colors = _texture(part, (x * scale[:, 0], y * scale[:, 1], z * scale[:, 2]))
    return tuple(jnp.minimum(color * shade, 1.0) for color in colors)  # type: ignore[return-value]


@jax.jit
def _draw_tiles(places: dict[str, Array], parts: dict[str, Array], count: Array) -> tuple[Array, Array]:
    """The pixels of B tiles [B,TILE,TILE,4] uint8, straight alpha, and the least depth of their rays (inf: none hits).

    `places` [B,...] say where the tiles are, `parts` [P,B,...] what each may see, of which the first `count` [] are
    drawn, one after the other: a loop over primitives vectorizes over rays, where XLA reduces an axis of primitives
    ray by ray on a CPU, and is compiled once for all numbers of them. The R rays of a tile run over
    [offset,TILE,TILE], so that a pixel's average is a sum of contiguous blocks.
    """
    pixel = jnp.arange(TILE, dtype=jnp.float32)
    shape = (len(_OFFSETS), TILE, TILE)
    columns = jnp.broadcast_to(_OFFSETS[:, 0, None, None] + pixel, shape).ravel()
    rows = jnp.broadcast_to(_OFFSETS[:, 1, None, None] + pixel[:, None], shape).ravel()
    corner, center, focal = (places[name][..., None] for name in ("corner", "center", "focal"))
    x = (columns + corner[:, 0] - center[:, 0]) / focal[:, 0]
    y = (rows + corner[:, 1] - center[:, 1]) / focal[:, 1]

    def draw(index: Array, seen: tuple[Array, ...]) -> tuple[Array, ...]:
        part = {name: jax.lax.dynamic_index_in_dim(value, index, keepdims=False) for name, value in parts.items()}
        maps, origins = part["maps"][..., None], part["origins"][..., None]
        direction = tuple(maps[:, i, 0] * x + maps[:, i, 1] * y + maps[:, i, 2] for i in range(3))
        origin = tuple(origins[:, i] for i in range(3))
        radii = (part["radii"][:, 0, None], part["radii"][:, 1, None])
        entry = intersect(origin, direction, radii, part["length"][:, None])
        depth, *colors = seen
        nearer = part["present"][:, None] & (entry < depth)
        reach = jnp.where(nearer, entry, 0.0)
        shaded = _shade(part, tuple(o + reach * d for o, d in zip(origin, direction)))
        return jnp.where(nearer, entry, depth), *(jnp.where(nearer, *pair) for pair in zip(shaded, colors))

    nothing = jnp.zeros_like(x)
    depth, *colors = jax.lax.fori_loop(0, count, draw, (nothing + jnp.inf, nothing, nothing, nothing))
    hit = jnp.isfinite(depth).astype(jnp.float32)
    blocks = (value.reshape(-1, *shape) for value in (*colors, hit))
    red, green, blue, alpha = (sum(block[:, i] for i in range(shape[0])) for block in blocks)
    covered = jnp.maximum(alpha, 1.0)
    pixels = jnp.stack([red / covered, green / covered, blue / covered, alpha / len(_OFFSETS)], axis=-1)
    return jnp.rint(255 * pixels).astype(jnp.uint8), jnp.min(depth.reshape(-1, *shape), axis=1)


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
    """Groups busy tiles, those that see few primitives first: rows (view, frame, tile) [n,3], primitive ids [n,P].

    The ids of a row that are -1, where there is none, come last.
    """
    counts = reach.sum(axis=-1)
    where = np.argwhere(counts)
    where = where[np.argsort(counts[tuple(where.T)], kind="stable")]
    for start in range(0, len(where), _CHUNK):
        rows = where[start : start + _CHUNK]
        masks = reach[tuple(rows.T)]
        ids = np.argsort(~masks, axis=-1, kind="stable")
        yield rows, np.where(np.take_along_axis(masks, ids, axis=-1), ids, -1)


def _padded(value: np.ndarray, *, axis: int) -> np.ndarray:
    """As float32, with its last tile repeated until there are as many as the compiled function takes."""
    rows = np.minimum(np.arange(_CHUNK), value.shape[axis] - 1)
    return np.take(value, rows, axis=axis).astype(np.float32)


def cast(
    cones: RoundCones,
    positions: np.ndarray,
    rotations: np.ndarray,
    cameras: Camera,
    *,
    with_depth: bool = False,
    on_progress: Callable[[], None] | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Pictures of moving round cones, lit by one light fixed in the world, with five rays a pixel.

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
    constants: dict[str, np.ndarray] = vars(cones) | {"decal_scales": 1 / cones.decal_radii}
    for where, ids in _chunks(reach):
        view, frame, tile = where.T
        row, column = np.divmod(tile, columns)
        count = np.max(np.sum(ids >= 0, axis=-1))
        seen = ids.T
        places: dict[str, np.ndarray] = {
            "corner": np.stack([column, row], axis=-1) * TILE,
            "focal": np.asarray(cameras.focal)[view],
            "center": np.asarray(cameras.center)[view],
        }
        parts = {
            "origins": origins[view, frame, seen],
            "maps": maps[view, frame, seen],
            "lights": lights[frame, seen],
            **{name: value[seen] for name, value in constants.items()},
        }
        places = {name: _padded(value, axis=0) for name, value in places.items()}
        parts = {name: _padded(value, axis=1) for name, value in parts.items()}
        parts["present"] = _padded(seen >= 0, axis=1) > 0
        pixels, depth = (np.asarray(value)[: len(where)] for value in _draw_tiles(places, parts, count))
        frames[view, frame, row, :, column] = pixels
        if depths is not None:
            depths[view, frame, row, :, column] = depth
        if on_progress is not None:
            on_progress()
    shape = (num_views, num_frames, rows * TILE, columns * TILE)
    frames = frames.reshape(*shape, 4)[:, :, : cameras.height, : cameras.width]
    if depths is not None:
        depths = depths.reshape(shape)[:, :, : cameras.height, : cameras.width]
    return frames, depths
