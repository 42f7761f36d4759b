"""Surfaces of links as files that simulators read: Wavefront OBJ with MTL and PNG, one file for each material.

One material a file because MuJoCo gives a geom one material; other loaders do not mind. Colours of vertices, which OBJ
has no agreed place for, become a palette: a small texture with a texel for every colour that a face has on average.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dimo_jax.core.names import make_distinct
from dimo_jax.io.images import write_png
from dimo_jax.meshes.articulation import Link
from dimo_jax.meshes.convex import Piece
from dimo_jax.meshes.renderer import Material, Mesh
from dimo_jax.meshes.textures import Texture, decode_srgb, encode_srgb

FOLDER = "meshes"
MAX_PALETTE = 512  # texels along a side


@dataclass(frozen=True)
class Surface:
    """One written file: what a link shows in one material."""

    file: str  # inside `FOLDER`
    material: str  # its name, one of its own in the whole object
    rgba: tuple[float, ...]  # [4] sRGB, multiplies the texture
    linear: tuple[float, ...]  # [4] the same in linear light
    texture: str | None  # PNG inside `FOLDER`
    index: int  # of the material in the link's mesh
    texcoords: np.ndarray  # [f,3,2] of the corners of its triangles, in their order; v points down


@dataclass
class MeshFolder:
    """Writes meshes and textures into a folder, each texture once."""

    folder: Path
    # By identity of the pixels, which are held so that no later ones get the same.
    _textures: dict[int, tuple[np.ndarray, str]] = field(default_factory=dict)
    _names: list[str] = field(default_factory=list)  # of files, without their endings

    def write_link(self, link: Link) -> list[Surface]:
        """Writes what a link shows, in the object's frame at rest; a file for each material that it uses."""
        surfaces = []
        used = np.unique(link.mesh.triangle_materials)
        for index in used:
            name = self._claim(link.name if len(used) == 1 else f"{link.name}_{index}")
            surfaces.append(self._write_surface(link, int(index), name))
        return surfaces

    def write_pieces(self, name: str, pieces: Iterable[Piece]) -> list[str]:
        """Writes convex pieces, in the object's frame at rest. Returns the names of the files."""
        files = []
        for index, (vertices, triangles) in enumerate(pieces):
            own = self._claim(f"{name}_collision_{index}")
            files.append(f"{own}.obj")
            lines = [f"o {own}", *_rows("v", vertices), *(_face(*row) for row in triangles + 1)]
            self._write_text(files[-1], lines)
        return files

    def _claim(self, name: str) -> str:
        """The name, numbered where a file has it: `drawer_1` is a link, or what a drawer shows in its material 1."""
        self._names += make_distinct([name], taken=self._names)
        return self._names[-1]

    def _write_surface(self, link: Link, index: int, name: str) -> Surface:
        mesh, material = link.mesh, link.mesh.materials[index]
        faces = np.flatnonzero(mesh.triangle_materials == index)
        factor, texture = np.asarray(material.base_color, np.float64), material.texture
        colors = mesh.colors[mesh.triangles[faces]].mean(axis=1)  # [f,4] linear
        texcoords, corners = mesh.texcoords, mesh.triangles[faces]
        if texture is not None or np.ptp(colors, axis=0).max() < 1 / 512:
            factor = factor * colors.mean(axis=0)
        else:
            palette, texcoords, rows = _make_palette(colors * factor)
            corners, factor = np.repeat(rows[:, None], 3, axis=1), np.ones(4)
            texture = Texture(palette)
        if not material.opaque and material.cutoff > 0:
            factor[3] = 1.0  # cut-outs are drawn whole where a simulator knows no cutoff
        rgba = (*(encode_srgb(factor[:3]) / 255).tolist(), float(np.clip(factor[3] if material.blend else 1.0, 0, 1)))
        picture = None if texture is None else self._write_texture(texture)
        label = f"{name}_material"
        self._write_text(f"{name}.mtl", _material_lines(label, rgba, picture, material))
        self._write_text(f"{name}.obj", _obj_lines(link, faces, name, label, texcoords, corners))
        linear = (*np.clip(factor[:3], 0, 1).tolist(), rgba[3])
        return Surface(f"{name}.obj", label, rgba, linear, picture, index, texcoords[corners])

    def _write_texture(self, texture: Texture) -> str:
        key = id(texture.pixels)
        if key not in self._textures:
            name = f"texture_{len(self._textures)}.png"
            self._textures[key] = texture.pixels, name
            write_png(to_image(texture), self.folder / name)
        return self._textures[key][1]

    def _write_text(self, name: str, lines: Iterable[str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def to_image(texture: Texture) -> np.ndarray:
    """The sRGB picture [H,W,4] uint8 that a texture was made of."""
    pixels = texture.pixels
    alpha = np.rint(np.clip(pixels[..., 3:], 0, 1) * 255)
    return np.concatenate([encode_srgb(pixels[..., :3]), alpha], axis=-1).astype(np.uint8)


def vertex_normals(vertices: np.ndarray, mesh: Mesh) -> np.ndarray:
    """Unit normals [P,3]: by area over the triangles of a vertex's smooth group; (0, 1, 0) where there is none."""
    corners = vertices[mesh.triangles]
    faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    groups = mesh.smooth_groups[mesh.triangles].reshape(-1)
    count = int(mesh.smooth_groups.max(initial=-1)) + 1
    sums = np.stack([np.bincount(groups, np.repeat(faces[:, axis], 3), count) for axis in range(3)], axis=1)
    normals = sums[mesh.smooth_groups]
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(lengths > 1e-30, normals / np.maximum(lengths, 1e-30), [0.0, 1.0, 0.0])


def _make_palette(colors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours [f,4] linear -> texels [S,S,4] linear, their places [n,2] (v down), and the place of each colour [f]."""
    bytes_ = np.concatenate([encode_srgb(colors[:, :3]), np.rint(np.clip(colors[:, 3:], 0, 1) * 255)], axis=1)
    step = 1
    while True:
        distinct, which = np.unique(np.rint(bytes_ / step).astype(np.int64), axis=0, return_inverse=True)
        side = int(np.ceil(np.sqrt(len(distinct))))
        if side <= MAX_PALETTE:
            break
        step *= 2
    texels = np.ones((side * side, 4), np.float32)
    shown = np.minimum(distinct * step, 255) / 255
    texels[: len(distinct), :3], texels[: len(distinct), 3] = decode_srgb(shown[:, :3]), shown[:, 3]
    rows, columns = np.divmod(np.arange(len(distinct)), side)
    places = (np.stack([columns, rows], axis=1) + 0.5) / side
    return texels.reshape(side, side, 4), places, which.reshape(-1)


def _material_lines(label: str, rgba: tuple[float, ...], picture: str | None, material: Material) -> list[str]:
    red, green, blue, alpha = rgba
    lines = [f"newmtl {label}", f"Kd {red:.6g} {green:.6g} {blue:.6g}", "Ka 0 0 0", "Ks 0 0 0", "illum 1"]
    if alpha < 1:
        lines.append(f"d {alpha:.6g}")
    if material.emission is not None:
        lines.append("Ke {:.6g} {:.6g} {:.6g}".format(*np.clip(material.emission, 0, 1)))
    return lines + ([f"map_Kd {picture}"] if picture else [])


def _obj_lines(
    link: Link, faces: np.ndarray, name: str, label: str, texcoords: np.ndarray, texture_corners: np.ndarray
) -> list[str]:
    """The file of some triangles; `texture_corners` [f,3] index `texcoords` [n,2], whose v points down."""
    corners = link.mesh.triangles[faces]
    used, local = np.unique(corners, return_inverse=True)
    used_places, places = np.unique(texture_corners, return_inverse=True)
    local, places = local.reshape(-1, 3) + 1, places.reshape(-1, 3) + 1
    normals = vertex_normals(link.vertices, link.mesh)[used]
    flipped = texcoords[used_places] * [1, -1] + [0, 1]
    spare = [used[0]] * (4 - len(used))  # MuJoCo takes no mesh of three vertices, but one that no face uses
    return [
        f"mtllib {name}.mtl",
        f"o {name}",
        *_rows("v", link.vertices[[*used, *spare]]),
        *_rows("vt", flipped),
        *_rows("vn", normals),
        f"usemtl {label}",
        *(f"f {a}/{u}/{a} {b}/{v}/{b} {c}/{w}/{c}" for (a, b, c), (u, v, w) in zip(local.tolist(), places.tolist())),
    ]


def _rows(key: str, values: np.ndarray) -> list[str]:
    return [f"{key} " + " ".join(f"{number:.9g}" for number in row) for row in values.tolist()]


def _face(a: int, b: int, c: int) -> str:
    return f"f {a} {b} {c}"
