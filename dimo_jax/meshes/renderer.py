"""A z-buffer renderer of textured triangle meshes in NumPy: the truth that imported models are trained against.

It needs neither OpenGL nor a display. What covers a sample and is nearest there, `fragments` tells. Attributes are
perspective-correct. Light is fixed in the world; colours are computed in linear light and leave as sRGB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dimo_jax.core.types import Camera
from dimo_jax.meshes.fragments import (
    NUMBERS,
    Fragments,
    find_nearest,
    find_winners,
    make_keys,
    plane,
    rasterize,
)
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
class Backdrop:
    """The nearest surface at every sample, of what stands still while something else moves before and behind it."""

    keys: np.ndarray  # [S] uint64, as `make_keys` gives them, without the number; 0 where there is nothing
    image: np.ndarray  # [4,S] float32, premultiplied linear


@dataclass(frozen=True)
class _Planes:
    """What is needed to colour fragments, per triangle."""

    attributes: dict[str, np.ndarray]  # planes [3,F], each divided by depth, see `_attribute_planes`
    levels: np.ndarray  # [F] which mipmap
    emissive_levels: np.ndarray  # [F] the same of emission textures


def render_mesh(
    vertices: np.ndarray,
    mesh: Mesh,
    camera: Camera,
    *,
    samples: int = 2,
    mirrored: np.ndarray | None = None,
    backdrop: Backdrop | None = None,
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
      backdrop: what else is seen, drawn for the same camera and samples.

    Returns:
      uint8 [H,W,4], sRGB with straight alpha; a pixel that nothing covers is (0, 0, 0, 0).

    Raises:
      ValueError: a vertex that a triangle uses is nearer to the camera's plane than `NEAR`.
    """
    if mirrored is not None:
        mesh = replace(mesh, triangles=np.where(mirrored[:, None], mesh.triangles[:, [0, 2, 1]], mesh.triangles))
    image = _draw(vertices, mesh, camera, samples, backdrop).image
    return _downsample(image.reshape(4, camera.height, samples, camera.width, samples))


def draw_backdrop(vertices: np.ndarray, mesh: Mesh, camera: Camera, *, samples: int = 2) -> Backdrop:
    """A mesh that `render_mesh` then draws others before and behind at the cost of those alone; see there.

    Raises:
      ValueError: a vertex is too near, or a material blends: what moves may be seen through it.
    """
    if any(mesh.materials[index].blend for index in np.unique(mesh.triangle_materials)):
        raise ValueError("a backdrop has a material that blends, expected none")
    drawn = _draw(vertices, mesh, camera, samples, None)
    return replace(drawn, keys=drawn.keys & ~NUMBERS)


def look_at(
    vertices: np.ndarray, mesh: Mesh, camera: Camera, places: np.ndarray, *, backdrop: Backdrop | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What on a mesh every pixel's centre looks at; all materials hide what is behind them.

    Args:
      vertices, mesh, camera: see `render_mesh`.
      places: [P,C], of the vertices.
      backdrop: what may hide the mesh, with one sample a pixel.

    Returns:
      `places` at the pixels [H,W,C] float32, 0 where the mesh is not seen; where it is seen [H,W] bool, and where it is
      at all, seen or hidden [H,W] bool.
    """
    mesh, _ = _drop_back_faces(vertices, mesh, np.zeros((len(mesh.triangles), 3)), eye=_find_eye(camera))
    points, depths = _project(vertices, mesh, camera, 1)
    fragments = rasterize(points, 1.0 / depths, height=camera.height, width=camera.width)
    count = camera.height * camera.width
    nearest = find_nearest(
        fragments, np.arange(len(fragments.pixels)), count, None if backdrop is None else backdrop.keys
    )
    covered, winners = find_winners(nearest)
    corners = {"one": np.ones_like(depths)} | {
        str(i): column for i, column in enumerate(np.moveaxis(places[mesh.triangles], -1, 0))
    }
    values = _interpolate(fragments, winners, _make_planes(points, 1.0 / depths, corners), width=camera.width)
    seen, there = np.zeros((2, count), bool)
    seen[covered], there[fragments.pixels] = True, True
    looked = np.zeros((count, places.shape[1]), np.float32)
    looked[covered] = np.stack(list(values.values()), axis=-1)
    shape = camera.height, camera.width
    return looked.reshape(*shape, -1), seen.reshape(shape), there.reshape(shape)


def _draw(vertices: np.ndarray, mesh: Mesh, camera: Camera, samples: int, backdrop: Backdrop | None) -> Backdrop:
    eye = _find_eye(camera)
    mesh, light = _drop_back_faces(vertices, mesh, _light_corners(vertices, mesh, eye=eye), eye=eye)
    points, depths = _project(vertices, mesh, camera, samples)
    height, width = camera.height * samples, camera.width * samples
    fragments = rasterize(points, 1.0 / depths, height=height, width=width)
    planes = _attribute_planes(points, 1.0 / depths, mesh, light)
    image, nearest = _composite(fragments, mesh, planes, backdrop, height=height, width=width)
    return Backdrop(nearest, image)


def _find_eye(camera: Camera) -> np.ndarray:
    pose = np.asarray(camera.world_to_camera, np.float64)
    return np.asarray(-pose[:3, :3].T @ pose[:3, 3])


def _project(vertices: np.ndarray, mesh: Mesh, camera: Camera, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners in samples [F,3,2] and their depths [F,3]."""
    pose = np.asarray(camera.world_to_camera, np.float64)
    corners = (vertices @ pose[:3, :3].T + pose[:3, 3])[mesh.triangles]
    if len(corners) and corners[..., 2].min() < NEAR:
        raise ValueError(f"a vertex lies at camera depth {corners[..., 2].min():.4g}, expected at least {NEAR}")
    focal = np.broadcast_to(np.asarray(camera.focal, np.float64), (2,))
    points = (corners[..., :2] / corners[..., 2:] * focal + np.asarray(camera.center, np.float64)) * samples
    return points, corners[..., 2]


def _attribute_planes(points: np.ndarray, inverse_depths: np.ndarray, mesh: Mesh, light: np.ndarray) -> _Planes:
    """What varies over triangles: "one", "light", texture "u" and "v", vertex colours "0" to "3" and "eu", "ev"."""
    attributes = {"one": np.ones_like(light), "light": light}
    attributes |= zip("uv", np.moveaxis(mesh.texcoords[mesh.triangles], -1, 0))
    if (mesh.colors != 1).any():
        attributes |= zip("0123", np.moveaxis(mesh.colors[mesh.triangles], -1, 0))
    if mesh.emissive_texcoords is not None and any(each.emission_texture is not None for each in mesh.materials):
        attributes |= zip(("eu", "ev"), np.moveaxis(mesh.emissive_texcoords[mesh.triangles], -1, 0))
    planes = _make_planes(points, inverse_depths, attributes)
    own = mesh.texcoords if mesh.emissive_texcoords is None else mesh.emissive_texcoords
    return _Planes(
        planes,
        _choose_levels(points, mesh, [material.texture for material in mesh.materials], mesh.texcoords),
        _choose_levels(points, mesh, [material.emission_texture for material in mesh.materials], own),
    )


def _make_planes(
    points: np.ndarray, inverse_depths: np.ndarray, attributes: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Planes [3,F] of what has the values [F,3] at corners, each divided by depth."""
    return {name: np.ascontiguousarray(plane(points, each * inverse_depths).T) for name, each in attributes.items()}


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


def _composite(
    fragments: Fragments, mesh: Mesh, planes: _Planes, backdrop: Backdrop | None, *, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest opaque fragment of each sample, then the blended ones before it.

    Returns:
      Premultiplied [4,H*W] float32, and the keys of the nearest [H*W].
    """
    keys = make_keys(fragments)
    blended = np.array([material.blend for material in mesh.materials])[mesh.triangle_materials]
    tested = np.array([material.cutoff > 0 for material in mesh.materials])[mesh.triangle_materials]
    occluders = np.arange(len(keys))
    if blended.any() or tested.any():
        triangles = fragments.triangles(occluders)
        behind_glass, cut_out = blended[triangles], tested[triangles]
        colors = _shade(fragments, np.flatnonzero(cut_out), mesh, planes, width=width)
        cut_out[cut_out] = colors[3] <= 0
        occluders = np.flatnonzero(~(behind_glass | cut_out))
    nearest = find_nearest(fragments, occluders, height * width, None if backdrop is None else backdrop.keys)
    covered, winners = find_winners(nearest)
    image = np.zeros((4, height * width), np.float32) if backdrop is None else backdrop.image.copy()
    for channel, values in zip(image, _shade(fragments, winners, mesh, planes, width=width)):
        channel[covered] = values
    if blended.any():
        seen = np.flatnonzero(behind_glass & (keys > nearest[fragments.pixels]))
        seen = seen[np.lexsort((keys[seen], fragments.pixels[seen]))]  # within a sample from far to near
        _blend_over(image, fragments.pixels[seen], _shade(fragments, seen, mesh, planes, width=width))
    return image, nearest


def _blend_over(image: np.ndarray, pixels: np.ndarray, colors: np.ndarray) -> None:
    """Lays premultiplied `colors` over `image` in place, one layer a pass; equal `pixels` are adjacent, far first."""
    first = np.r_[True, pixels[1:] != pixels[:-1]] if len(pixels) else np.zeros(0, bool)
    starts = np.flatnonzero(first)
    layers = np.arange(len(pixels)) - np.repeat(starts, np.diff(np.r_[starts, len(pixels)]))
    for layer in range(int(layers.max(initial=-1)) + 1):
        now = layers == layer
        image[:, pixels[now]] = colors[:, now] + image[:, pixels[now]] * (1 - colors[3:, now])


def _shade(fragments: Fragments, chosen: np.ndarray, mesh: Mesh, planes: _Planes, *, width: int) -> np.ndarray:
    """Premultiplied linear colours of the `chosen` fragments -> [4,C] float32; 0 where alpha is below the cutoff."""
    triangles = fragments.triangles(chosen)
    values = _interpolate(fragments, chosen, planes.attributes, width=width)
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


def _interpolate(
    fragments: Fragments, chosen: np.ndarray, planes: dict[str, np.ndarray], *, width: int
) -> dict[str, np.ndarray]:
    """What varies over triangles, at the `chosen` fragments [C], by its name; planes are those of `_make_planes`."""
    triangles = fragments.triangles(chosen)
    rows, columns = np.divmod(fragments.pixels[chosen], np.int32(width))
    rows, columns = rows + 0.5, columns + 0.5
    values = {
        name: np.take(a, triangles) * columns + np.take(b, triangles) * rows + np.take(c, triangles)
        for name, (a, b, c) in planes.items()
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
