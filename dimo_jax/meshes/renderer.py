"""A z-buffer renderer of textured triangle meshes in NumPy: the truth that imported models are trained against.

It needs neither OpenGL nor a display. Each triangle becomes the horizontal spans it covers, each span its fragments,
and the nearest fragment of a sample is found by one `maximum.at` over keys that pack inverse depth and fragment number,
so the same input gives the same picture every time. Attributes are perspective-correct. Light is fixed in the world;
colours are computed in linear light and leave as sRGB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dimo_jax.core.types import Camera
from dimo_jax.meshes.textures import Texture, choose_levels, encode_srgb, sample_mipmaps

NEAR = 0.01
AMBIENT, SKY, SUN = 0.32, 0.10, 0.58  # light of a surface: everywhere, from above, and from the sun; they sum to 1
SUN_DIRECTION = np.array([0.42, 0.74, 0.53]) / np.linalg.norm([0.42, 0.74, 0.53])


@dataclass(frozen=True)
class Material:
    """How triangles are coloured. `cutoff` is the least alpha that is drawn; `blend` lets what lies behind through."""

    base_color: np.ndarray  # [4] linear RGBA, multiplies texture and vertex colour
    texture: Texture | None = None
    cutoff: float = 0.0
    blend: bool = False
    unlit: bool = False  # its colour is shown as it is
    double_sided: bool = True  # else only the side is drawn from which corners turn counter-clockwise
    emission: np.ndarray | None = None  # [3] linear RGB, multiplies its texture; added to the lit colour
    emission_texture: Texture | None = None
    name: str = ""

    @property
    def opaque(self) -> bool:
        """Whether alpha is ignored, as glTF's alphaMode OPAQUE asks."""
        return self.cutoff <= 0 and not self.blend


@dataclass(frozen=True)
class Mesh:
    """What is drawn, apart from where its vertices are."""

    triangles: np.ndarray  # [F,3] int32 vertex indices
    triangle_materials: np.ndarray  # [F] int32
    materials: tuple[Material, ...]
    texcoords: np.ndarray  # [P,2], (0, 0) is the upper left corner of the texture
    colors: np.ndarray  # [P,4] linear RGBA
    smooth_groups: np.ndarray  # [P] int32: vertices of one group share a normal
    emissive_texcoords: np.ndarray | None = None  # [P,2] of emission textures; None: those of the others


@dataclass(frozen=True)
class _Fragments:
    """One entry per triangle and sample it covers."""

    pixels: np.ndarray  # [Q] int32, flat index into the grid of samples
    inverse_depths: np.ndarray  # [Q] float32
    spans: np.ndarray  # [Q] int32
    span_triangles: np.ndarray  # [spans] int64

    def triangles(self, chosen: np.ndarray) -> np.ndarray:
        """Triangles of the `chosen` fragments."""
        return self.span_triangles[self.spans[chosen]]


@dataclass(frozen=True)
class _Planes:
    """What is needed to colour fragments, per triangle."""

    attributes: dict[str, np.ndarray]  # planes [3,F], each divided by depth, see `_attribute_planes`
    levels: np.ndarray  # [F] which mipmap
    emissive_levels: np.ndarray  # [F] the same of emission textures


def render_mesh(
    vertices: np.ndarray, mesh: Mesh, camera: Camera, *, samples: int = 2, mirrored: np.ndarray | None = None
) -> np.ndarray:
    """Renders a mesh over nothing.

    Of materials that are not double-sided, triangles seen from behind are left out. Of the others both sides are lit.
    Vertex normals are recomputed from the posed triangles.

    Args:
      vertices: [P,3] world.
      mesh: topology, colours and materials of those vertices.
      camera: OpenCV world-to-camera, one view, numpy arrays.
      samples: samples a pixel along each axis; the mean of their premultiplied linear colours is the pixel.
      mirrored: [F] bool, the triangles whose pose turned them over, so that their corners turn clockwise in front.

    Returns:
      uint8 [H,W,4], sRGB with straight alpha; a pixel that nothing covers is (0, 0, 0, 0).

    Raises:
      ValueError: a vertex that a triangle uses is nearer to the camera's plane than `NEAR`.
    """
    pose = np.asarray(camera.world_to_camera, np.float64)
    eye = -pose[:3, :3].T @ pose[:3, 3]
    if mirrored is not None:
        mesh = replace(mesh, triangles=np.where(mirrored[:, None], mesh.triangles[:, [0, 2, 1]], mesh.triangles))
    mesh, light = _drop_back_faces(vertices, mesh, _light_corners(vertices, mesh, eye=eye), eye=eye)
    points, depths = _project(vertices, mesh, camera, samples)
    height, width = camera.height * samples, camera.width * samples
    fragments = _rasterize(points, 1.0 / depths, height=height, width=width)
    planes = _attribute_planes(points, 1.0 / depths, mesh, light)
    image = _composite(fragments, mesh, planes, height=height, width=width)
    return _downsample(image.reshape(4, camera.height, samples, camera.width, samples))


def find_seen(vertices: np.ndarray, mesh: Mesh, camera: Camera, *, samples: int = 2) -> np.ndarray:
    """[F] bool: triangles without which `render_mesh` would draw another picture.

    These are the nearest ones of some sample, all that are not opaque, and all that share a normal with one of them.
    """
    eye = -np.asarray(camera.world_to_camera, np.float64)[:3, :3].T @ np.asarray(camera.world_to_camera)[:3, 3]
    opaque = np.array([material.opaque for material in mesh.materials])[mesh.triangle_materials]
    numbered, rows = _drop_back_faces(vertices, mesh, np.arange(len(mesh.triangles))[:, None], eye=eye)
    rows = rows[:, 0]
    points, depths = _project(vertices, numbered, camera, samples)
    fragments = _rasterize(points, 1.0 / depths, height=camera.height * samples, width=camera.width * samples)
    occluders = np.flatnonzero(opaque[rows][fragments.triangles(np.arange(len(fragments.pixels)))])
    nearest = _find_nearest(fragments, occluders, camera.height * samples * camera.width * samples)
    winners = (nearest[nearest > 0] & np.uint64(0xFFFFFFFF)).astype(np.int64) - 1
    seen = ~opaque
    seen[rows[fragments.triangles(winners)]] = True
    groups = mesh.smooth_groups[mesh.triangles]
    return np.asarray(np.isin(groups, groups[seen]).any(axis=1))


def _project(vertices: np.ndarray, mesh: Mesh, camera: Camera, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners in samples [F,3,2] and their depths [F,3]."""
    pose = np.asarray(camera.world_to_camera, np.float64)
    corners = (vertices @ pose[:3, :3].T + pose[:3, 3])[mesh.triangles]
    if len(corners) and corners[..., 2].min() < NEAR:
        raise ValueError(f"a vertex lies at camera depth {corners[..., 2].min():.4g}, expected at least {NEAR}")
    focal = np.broadcast_to(np.asarray(camera.focal, np.float64), (2,))
    points = (corners[..., :2] / corners[..., 2:] * focal + np.asarray(camera.center, np.float64)) * samples
    return points, corners[..., 2]


def _make_keys(fragments: _Fragments) -> np.ndarray:
    """[Q] uint64 that rise with inverse depth, then with the number of the fragment, which they hold."""
    keys = fragments.inverse_depths.view(np.uint32).astype(np.uint64)  # bits of a positive float rise with it
    keys <<= np.uint64(32)
    keys |= np.arange(1, len(keys) + 1, dtype=np.uint64)
    return keys


def _find_nearest(fragments: _Fragments, occluders: np.ndarray, count: int) -> np.ndarray:
    """The largest key of `occluders` at each of `count` samples; 0 where there is none."""
    nearest = np.zeros(count, np.uint64)
    np.maximum.at(nearest, fragments.pixels[occluders], _make_keys(fragments)[occluders])
    return nearest


def _rasterize(points: np.ndarray, inverse_depths: np.ndarray, *, height: int, width: int) -> _Fragments:
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
    return _fill_spans(rows, triangles, left, right, _plane(points, inverse_depths), width=width)


def _fill_spans(
    rows: np.ndarray, triangles: np.ndarray, left: np.ndarray, right: np.ndarray, depth: np.ndarray, *, width: int
) -> _Fragments:
    """Spans [left, right) of rows -> fragments, with inverse depth from its plane `depth` [F,3] over (u, v, 1)."""
    counts = np.maximum(right - left, 0)
    spans = np.repeat(np.arange(len(rows), dtype=np.int32), counts)
    pixels = _ranges(rows * width + left, counts)
    slope, across, offset = depth[triangles].T
    base = across * (rows + 0.5) + offset + slope * (0.5 - rows * width)  # so that slope * pixel is all that is left
    inverse = np.take(slope, spans)
    inverse *= pixels
    inverse += np.take(base, spans)
    return _Fragments(pixels, np.maximum(inverse, 0).astype(np.float32), spans, triangles)


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Concatenation of arange(start, start + count) over all entries, int32."""
    offsets = (starts - (np.cumsum(counts) - counts)).astype(np.int32)
    ranges = np.repeat(offsets, counts)
    ranges += np.arange(len(ranges), dtype=np.int32)
    return ranges


def _plane(points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The plane a u + b v + c through `values` [F,3] at `points` [F,3,2] -> [F,3]; 0 for a triangle seen edge on."""
    e1, e2 = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    d1, d2 = values[:, 1] - values[:, 0], values[:, 2] - values[:, 0]
    area = e1[:, 0] * e2[:, 1] - e1[:, 1] * e2[:, 0]
    inverse = np.divide(1.0, area, out=np.zeros_like(area), where=np.abs(area) > 1e-9)
    a = (d1 * e2[:, 1] - d2 * e1[:, 1]) * inverse
    b = (d2 * e1[:, 0] - d1 * e2[:, 0]) * inverse
    return np.stack([a, b, values[:, 0] - a * points[:, 0, 0] - b * points[:, 0, 1]], axis=1)


def _attribute_planes(points: np.ndarray, inverse_depths: np.ndarray, mesh: Mesh, light: np.ndarray) -> _Planes:
    """What varies over triangles: "one", "light", texture "u" and "v", vertex colours "0" to "3" and "eu", "ev"."""
    attributes = {"one": np.ones_like(light), "light": light}
    attributes |= zip("uv", np.moveaxis(mesh.texcoords[mesh.triangles], -1, 0))
    if (mesh.colors != 1).any():
        attributes |= zip("0123", np.moveaxis(mesh.colors[mesh.triangles], -1, 0))
    if mesh.emissive_texcoords is not None and any(each.emission_texture is not None for each in mesh.materials):
        attributes |= zip(("eu", "ev"), np.moveaxis(mesh.emissive_texcoords[mesh.triangles], -1, 0))
    planes = {
        name: np.ascontiguousarray(_plane(points, values * inverse_depths).T) for name, values in attributes.items()
    }
    own = mesh.texcoords if mesh.emissive_texcoords is None else mesh.emissive_texcoords
    return _Planes(
        planes,
        _choose_levels(points, mesh, [material.texture for material in mesh.materials], mesh.texcoords),
        _choose_levels(points, mesh, [material.emission_texture for material in mesh.materials], own),
    )


def _choose_levels(points: np.ndarray, mesh: Mesh, textures: list[Texture | None], texcoords: np.ndarray) -> np.ndarray:
    """Which mipmap of its material's texture each triangle is drawn with -> [F]."""
    if not any(texture is not None and texture.smaller for texture in textures):
        return np.zeros(len(mesh.triangles), np.int64)
    sides = np.array([texture.pixels.shape[1::-1] if texture is not None else (1, 1) for texture in textures])
    texels = texcoords[mesh.triangles] * sides[mesh.triangle_materials][:, None]
    return choose_levels(texels, points)


def _drop_back_faces(
    vertices: np.ndarray, mesh: Mesh, light: np.ndarray, *, eye: np.ndarray
) -> tuple[Mesh, np.ndarray]:
    """The mesh and the light at its corners [F,3] without the triangles that show a side which is not drawn."""
    single = np.array([not material.double_sided for material in mesh.materials], bool)[mesh.triangle_materials]
    if not single.any():
        return mesh, light
    a, b, c = (vertices[mesh.triangles[:, corner]] for corner in range(3))
    front = ((eye - a) * np.cross(b - a, c - a)).sum(1) > 0
    kept = np.flatnonzero(front | ~single)
    drawn = replace(mesh, triangles=mesh.triangles[kept], triangle_materials=mesh.triangle_materials[kept])
    return drawn, light[kept]


def _light_corners(vertices: np.ndarray, mesh: Mesh, *, eye: np.ndarray) -> np.ndarray:
    """Light received at each triangle's corners, in 0..1, on the side that the camera sees -> [F,3]."""
    corners = vertices[mesh.triangles]
    faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])  # length: twice the area
    groups = mesh.smooth_groups[mesh.triangles].reshape(-1)
    num_groups = int(mesh.smooth_groups.max(initial=-1)) + 1
    sums = [np.bincount(groups, np.repeat(faces[:, axis], 3), num_groups) for axis in range(3)]
    normals = np.stack(sums, axis=1)
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    seen_from_behind = ((eye - corners[:, 0]) * faces).sum(1) < 0
    normals = normals[groups].reshape(-1, 3, 3) * np.where(seen_from_behind, -1.0, 1.0)[:, None, None]
    return AMBIENT + SKY * (0.5 + 0.5 * normals[..., 1]) + SUN * np.maximum(normals @ SUN_DIRECTION, 0)


def _composite(fragments: _Fragments, mesh: Mesh, planes: _Planes, *, height: int, width: int) -> np.ndarray:
    """The nearest opaque fragment of each sample, then the blended ones before it -> premultiplied [4,H*W] float32."""
    keys = _make_keys(fragments)
    blended = np.array([material.blend for material in mesh.materials])[mesh.triangle_materials]
    tested = np.array([material.cutoff > 0 for material in mesh.materials])[mesh.triangle_materials]
    occluders = np.arange(len(keys))
    if blended.any() or tested.any():
        triangles = fragments.triangles(occluders)
        behind_glass, cut_out = blended[triangles], tested[triangles]
        colors = _shade(fragments, np.flatnonzero(cut_out), mesh, planes, width=width)
        cut_out[cut_out] = colors[3] <= 0
        occluders = np.flatnonzero(~(behind_glass | cut_out))
    nearest = _find_nearest(fragments, occluders, height * width)
    covered = np.flatnonzero(nearest)
    winners = (nearest[covered] & np.uint64(0xFFFFFFFF)).astype(np.int64) - 1
    image = np.zeros((4, height * width), np.float32)
    for channel, values in zip(image, _shade(fragments, winners, mesh, planes, width=width)):
        channel[covered] = values
    if blended.any():
        seen = np.flatnonzero(behind_glass & (keys > nearest[fragments.pixels]))
        seen = seen[np.lexsort((keys[seen], fragments.pixels[seen]))]  # within a sample from far to near
        _blend_over(image, fragments.pixels[seen], _shade(fragments, seen, mesh, planes, width=width))
    return image


def _blend_over(image: np.ndarray, pixels: np.ndarray, colors: np.ndarray) -> None:
    """Lays premultiplied `colors` over `image` in place, one layer a pass; equal `pixels` are adjacent, far first."""
    first = np.r_[True, pixels[1:] != pixels[:-1]] if len(pixels) else np.zeros(0, bool)
    starts = np.flatnonzero(first)
    layers = np.arange(len(pixels)) - np.repeat(starts, np.diff(np.r_[starts, len(pixels)]))
    for layer in range(int(layers.max(initial=-1)) + 1):
        now = layers == layer
        image[:, pixels[now]] = colors[:, now] + image[:, pixels[now]] * (1 - colors[3:, now])


def _shade(fragments: _Fragments, chosen: np.ndarray, mesh: Mesh, planes: _Planes, *, width: int) -> np.ndarray:
    """Premultiplied linear colours of the `chosen` fragments -> [4,C] float32; 0 where alpha is below the cutoff."""
    triangles = fragments.triangles(chosen)
    values = _interpolate(fragments, chosen, planes, width=width)
    rgba = [values[name] for name in "0123" if name in values]
    colors = np.clip(np.stack(rgba), 0, 1).astype(np.float32) if rgba else np.ones((4, len(chosen)), np.float32)
    materials, levels = mesh.triangle_materials[triangles], planes.levels[triangles]
    emissive_levels = planes.emissive_levels[triangles]
    light = np.clip(values["light"], 0, 1).astype(np.float32)
    for index in np.flatnonzero(np.bincount(materials)):
        material = mesh.materials[index]
        mine = slice(None) if len(mesh.materials) == 1 else np.flatnonzero(materials == index)
        factor = colors[:, mine] * np.asarray(material.base_color, np.float32)[:, None]
        if material.texture is not None:
            factor *= sample_mipmaps(material.texture, values["u"][mine], values["v"][mine], levels[mine])
        alpha = np.ones_like(factor[3]) if material.opaque else factor[3]
        if material.cutoff > 0:
            alpha = (alpha >= material.cutoff).astype(np.float32)
        shade = factor[:3] if material.unlit else factor[:3] * light[mine]
        if material.emission is not None:
            shade = np.minimum(shade + _emit(material, values, mine, emissive_levels), 1)
        colors[:3, mine] = shade * alpha
        colors[3, mine] = alpha
    return colors


def _interpolate(fragments: _Fragments, chosen: np.ndarray, planes: _Planes, *, width: int) -> dict[str, np.ndarray]:
    """What varies over triangles, at the `chosen` fragments [C]; the names are those of `_attribute_planes`."""
    triangles = fragments.triangles(chosen)
    rows, columns = np.divmod(fragments.pixels[chosen], np.int32(width))
    rows, columns = rows + 0.5, columns + 0.5
    values = {
        name: np.take(a, triangles) * columns + np.take(b, triangles) * rows + np.take(c, triangles)
        for name, (a, b, c) in planes.attributes.items()
    }
    inverse_depth = values.pop("one")
    depth = 1 / np.where(inverse_depth > 0, inverse_depth, 1)  # a sliver's plane may round to 0
    return {name: value * depth for name, value in values.items()}


def _emit(
    material: Material, values: dict[str, np.ndarray], mine: slice | np.ndarray, levels: np.ndarray
) -> np.ndarray:
    """Linear RGB that a surface sends out by itself, at the fragments `mine` -> [3,n]; more than 1 where it glares."""
    glow = np.asarray(material.emission, np.float32)[:, None]
    if material.emission_texture is None:
        return glow
    u, v = (values.get(own, values[other])[mine] for own, other in (("eu", "u"), ("ev", "v")))
    return glow * sample_mipmaps(material.emission_texture, u, v, levels[mine])[:3]


def _downsample(image: np.ndarray) -> np.ndarray:
    """Premultiplied linear samples [4,H,s,W,s] -> uint8 sRGB [H,W,4] with straight alpha."""
    samples = image.shape[2]
    total = np.zeros((4, image.shape[1], image.shape[3]), np.float32)
    for i in range(samples):
        for j in range(samples):
            total += image[:, :, i, :, j]
    alpha = np.rint(np.clip(total[3] / samples**2, 0, 1) * 255)
    drawn = np.flatnonzero(alpha)
    result = np.zeros((*alpha.shape, 4), np.uint8)
    flat = result.reshape(-1, 4)
    for channel in range(3):
        flat[drawn, channel] = encode_srgb(total[channel].reshape(-1)[drawn] / total[3].reshape(-1)[drawn])
    result[..., 3] = alpha
    return result
