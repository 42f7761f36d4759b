"""Gaussians on surface points of body and part (paper Sec. 4.3.1), drawn by a `Blend`.

They serve twice: as a backend that draws the rigid part (`draw_splats`, `draw_metaballs`), and freed from each other,
frame by frame, as the paper's way from videos to a point cloud per frame (`recover_clouds`). What draws them is the
package's rasterizer (`composite`), or the paper's fuzzy metaballs (`render.metaballs.blend`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dimo_jax.cameras.orbits import resize
from dimo_jax.core.types import Array, Camera, Gaussians, Splats
from dimo_jax.geometry import quaternion
from dimo_jax.meshes.objects import ObjectMesh, join_objects
from dimo_jax.meshes.renderer import render_mesh
from dimo_jax.render import metaballs
from dimo_jax.render.project import project
from dimo_jax.render.rasterize.api import rasterize
from dimo_jax.systems.atop.seen.clouds import Surface, surface_of
from dimo_jax.systems.atop.seen.layers import Draw, Layers, MakeDraw, draw_mesh, premultiply, split_cameras

COUNT = 2048  # Gaussians on the body, and as many on the part
WIDTH = 0.7  # standard deviation in the plane, in spacings of the points
FLAT = 0.2  # that across the plane, of that in it
COLOR_STEPS, COLOR_RATE = 60, 0.05
MOVE_STEPS, MOVE_RATE = 40, 5e-3  # of the paper's Adam, lengths in object diagonals
NEIGHBORS, STIFFNESS = 6, 30.0  # edges of the cloud keep their length


class Blend(Protocol):
    """Draws projected Gaussians."""

    def __call__(self, splats: Splats, *, height: int, width: int, size: Array) -> tuple[Array, Array]:
        """Features [H,W,7] times alpha and transmittance [H,W]; `size` is the object's, in the unit of depths."""
        ...


def composite(splats: Splats, *, height: int, width: int, size: Array) -> tuple[Array, Array]:
    """The package's rasterizer as a `Blend`: what is in front hides what is behind it."""
    features, clear, _ = rasterize(splats, height=height, width=width)
    return features, clear


def draw_splats(
    body: ObjectMesh, part: ObjectMesh, cameras: Camera, *, count: int = COUNT, blend: Blend = composite
) -> Draw:
    """A `layers.Draw` by Gaussians, whose look is fitted to pictures of the rest state.

    Args:
      body, part: in the coordinates of the cameras.
      cameras: V views, arrays stacked.
      count: Gaussians on either.
      blend: what draws them.
    """
    surface = surface_of(part, count)
    gaussians = fit_look(body, part, cameras, count=count, blend=blend)
    size = _measure(gaussians)
    views = [jax.tree.map(jnp.asarray, view) for view in split_cameras(cameras)]
    places = jnp.asarray(surface.points - surface.center, jnp.float32)

    def draw(pose: np.ndarray, with_places: bool) -> Layers:
        here = jnp.asarray(pose, jnp.float32)
        drawn = [_draw(gaussians, here, places, view, size, blend, with_places) for view in views]
        colors, where, share, alone = (np.stack([np.asarray(each[i]) for each in drawn]) for i in range(4))
        seen = share > 0.5
        where = where / np.maximum(share, 1e-3)[..., None] + surface.center
        return Layers(colors, where.astype(np.float32), seen, (alone > 0.5) & ~seen)

    return draw


draw_metaballs = partial(draw_splats, blend=metaballs.blend)  # the paper's renderer
DRAWS: dict[str, MakeDraw] = {"mesh": draw_mesh, "splats": draw_splats, "metaballs": draw_metaballs}  # of `--draw`


def _measure(gaussians: Gaussians) -> Array:
    """The diagonal of the object."""
    return jnp.linalg.norm(jnp.ptp(gaussians.means, axis=0))


@partial(jax.jit, static_argnames=("blend", "with_alone"))
def _draw(
    gaussians: Gaussians, pose: Array, places: Array, camera: Camera, size: Array, blend: Blend, with_alone: bool
) -> tuple[Array, Array, Array, Array]:
    """Premultiplied RGBA [H,W,4], weighted places [H,W,3], the part's weight [H,W], and its alpha alone [H,W] or 0."""
    count = len(places)
    splats = project(_move_last(gaussians, pose, count), camera)
    still = len(gaussians.means) - count
    marks = jnp.concatenate([places, jnp.ones((count, 1))], axis=-1)
    features = jnp.concatenate([splats.features[:, :3], jnp.pad(marks, ((still, 0), (0, 0)))], axis=-1)
    draw = partial(blend, height=camera.height, width=camera.width, size=size)
    whole, clear = draw(splats.replace(features=features))
    rgba = jnp.concatenate([whole[..., :3], 1 - clear[..., None]], axis=-1)
    if not with_alone:
        return rgba, whole[..., 3:6], whole[..., 6], jnp.zeros_like(clear)
    lone = splats.replace(opacities=splats.opacities.at[:still].set(0.0), extents=splats.extents.at[:still].set(0.0))
    _, clear_alone = draw(lone)
    return rgba, whole[..., 3:6], whole[..., 6], 1 - clear_alone


def _move_last(gaussians: Gaussians, pose: Array, count: int) -> Gaussians:
    """The last `count` Gaussians moved by a pose [4,4]."""
    turn = quaternion.from_matrix(pose[:3, :3])
    means = gaussians.means[-count:] @ pose[:3, :3].T + pose[:3, 3]
    quats = quaternion.multiply(turn, gaussians.quats[-count:])
    return gaussians.replace(means=gaussians.means.at[-count:].set(means), quats=gaussians.quats.at[-count:].set(quats))


def place_gaussians(surface: Surface) -> Gaussians:
    """Flat grey Gaussians on surface points, as wide as their spacing."""
    count = len(surface.points)
    width = WIDTH * np.sqrt(surface.area / count)
    normals = jnp.asarray(surface.normals, jnp.float32)
    up = jnp.array([0.0, 0.0, 1.0])
    half = normals + jnp.where(normals[:, 2:] < -0.999, jnp.array([1.0, 0.0, 0.0]), up)  # turns z to the normal
    half = half / jnp.linalg.norm(half, axis=-1, keepdims=True)
    quats = jnp.concatenate([half @ up[:, None], jnp.cross(up, half)], axis=-1)
    return Gaussians(
        means=jnp.asarray(surface.points, jnp.float32),
        log_scales=jnp.tile(jnp.log(width * jnp.array([1.0, 1.0, FLAT])), (count, 1)),
        quats=quats,
        logit_opacities=jnp.full(count, 2.0),
        sh=jnp.zeros((count, 1, 3)),
    )


def fit_look(
    body: ObjectMesh, part: ObjectMesh, cameras: Camera, *, count: int = COUNT, blend: Blend = composite
) -> Gaussians:
    """Gaussians of body, then part, whose colours, sizes and opacities show the rest state as the mesh looks."""
    pieces = [place_gaussians(surface_of(thing, count)) for thing in (body, part)]
    gaussians = jax.tree.map(lambda *each: jnp.concatenate(each), *pieces)
    whole, views = join_objects([body, part]), split_cameras(cameras)
    pictures = [premultiply(render_mesh(whole.vertices, whole.mesh, view)) for view in views]
    look = {name: getattr(gaussians, name) for name in ("sh", "log_scales", "logit_opacities")}
    optimizer, size = optax.adam(COLOR_RATE), _measure(gaussians)

    @jax.jit
    def improve(look: dict[str, Array], state: optax.OptState, camera: Camera, picture: Array) -> tuple:
        slopes = jax.grad(lambda look: _difference(gaussians.replace(**look), camera, picture, size, blend))(look)
        moves, state = optimizer.update(slopes, state)
        return optax.apply_updates(look, moves), state

    state = optimizer.init(look)
    for number in range(COLOR_STEPS):
        view = number % len(views)
        look, state = improve(look, state, jax.tree.map(jnp.asarray, views[view]), jnp.asarray(pictures[view]))
    return gaussians.replace(**look)


def _difference(gaussians: Gaussians, camera: Camera, picture: Array, size: Array, blend: Blend) -> Array:
    """Mean squared difference to a premultiplied picture [H,W,4]."""
    features, clear = blend(project(gaussians, camera), height=camera.height, width=camera.width, size=size)
    drawn = jnp.concatenate([features[..., :3], 1 - clear[..., None]], axis=-1)
    return jnp.mean((drawn - picture) ** 2)


def recover_clouds(
    body: ObjectMesh,
    part: ObjectMesh,
    frames: np.ndarray,
    cameras: Camera,
    *,
    side: int = 128,
    count: int = COUNT,
    steps: int = MOVE_STEPS,
    blend: Blend = composite,
) -> tuple[np.ndarray, ...]:
    """The paper's first half: a point cloud per frame, whose points move freely but keep their neighbours' distances.

    Args:
      body, part: in the coordinates of the cameras.
      frames: [V,T,H,W,4] uint8, straight alpha.
      cameras: V views of them.
      side: height in pixels to work at.
      count: points on the part, and as many on the body, which stands still.
      steps: of Adam a frame, each on all views; a frame starts where the one before ended.
      blend: what draws the Gaussians.

    Returns:
      T clouds [count,3].
    """
    factor = max(frames.shape[2] // side, 1)
    height, width = frames.shape[2] // factor, frames.shape[3] // factor
    cut = premultiply(frames[:, :, : height * factor, : width * factor])
    small = cut.reshape(*cut.shape[:2], height, factor, width, factor, 4).mean(axis=(3, 5))
    cropped = replace(cameras, height=height * factor, width=width * factor)
    sized = resize(cropped, height, width)
    gaussians = fit_look(body, part, sized, count=count, blend=blend)
    views = jax.tree.map(jnp.asarray, split_cameras(sized))
    rest = gaussians.means[-count:]
    size = _measure(gaussians)
    pull = partial(stretch, neighbors=find_neighbors(np.asarray(rest)), rest=rest, size=size)
    follow = _make_follow(gaussians, views, pull, size, steps, blend)
    places, clouds = rest, []
    for frame in range(frames.shape[1]):
        places = follow(places, jnp.asarray(small[:, frame]))
        clouds.append(np.asarray(places, np.float64))
    return tuple(clouds)


def find_neighbors(points: np.ndarray) -> Array:
    """The nearest other points of each of [N,3]: [N,NEIGHBORS] indices."""
    from scipy.spatial import cKDTree

    return jnp.asarray(cKDTree(points).query(points, k=NEIGHBORS + 1)[1][:, 1:])


def stretch(places: Array, *, neighbors: Array, rest: Array, size: Array) -> Array:
    """Mean squared change of edges, in object diagonals."""
    before, now = rest[neighbors] - rest[:, None], places[neighbors] - places[:, None]
    lengths = jnp.linalg.norm(now, axis=-1) - jnp.linalg.norm(before, axis=-1)
    return jnp.mean((lengths / size) ** 2)


def _make_follow(
    gaussians: Gaussians, views: list[Camera], pull: Callable[[Array], Array], size: Array, steps: int, blend: Blend
) -> Callable[[Array, Array], Array]:
    """(places [N,3], pictures [V,H,W,4]) -> places that show them."""
    optimizer = optax.adam(MOVE_RATE * float(size))
    count = len(pull.keywords["rest"])  # type: ignore[attr-defined]

    def loss(places: Array, pictures: Array) -> Array:
        moved = gaussians.replace(means=gaussians.means.at[-count:].set(places))
        shown = sum(_difference(moved, view, picture, size, blend) for view, picture in zip(views, pictures))
        return shown / len(views) + STIFFNESS * pull(places)

    @jax.jit
    def improve(places: Array, state: optax.OptState, pictures: Array) -> tuple[Array, optax.OptState]:
        moves, state = optimizer.update(jax.grad(loss)(places, pictures), state)
        return optax.apply_updates(places, moves), state

    def follow(places: Array, pictures: Array) -> Array:
        state = optimizer.init(places)
        for _ in range(steps):
            places, state = improve(places, state, pictures)
        return places

    return follow
