"""Our own meshes as glTF primitives: a primitive for each material, with normals, texture, vertex colours, emission."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from dimo_jax.io.gltf.write import INDICES, VERTICES, GlbBuilder
from dimo_jax.io.mesh_files import to_image, vertex_normals
from dimo_jax.meshes.renderer import Material, Mesh
from dimo_jax.meshes.textures import CLAMP, MIRROR, REPEAT, Texture

_WRAPS = {REPEAT: 10497, CLAMP: 33071, MIRROR: 33648}
_NEAREST, _LINEAR, _MIPMAPS = 9728, 9729, 9987


class LooksWriter:
    """Adds meshes, materials and textures to a file, each material and texture once."""

    def __init__(self, builder: GlbBuilder) -> None:
        self._builder = builder
        self._materials: dict[int, int] = {}
        self._textures: dict[int, int] = {}
        self._kept: list[Any] = []  # ids are only different while what they name is alive

    def add_mesh(self, name: str, vertices: np.ndarray, mesh: Mesh) -> int:
        """Index of a mesh entry for vertices [P,3]; at least one triangle."""
        normals = vertex_normals(vertices, mesh)
        primitives = [
            self._add_primitive(vertices, normals, mesh, int(index)) for index in np.unique(mesh.triangle_materials)
        ]
        return self._builder.add("meshes", {"name": name, "primitives": primitives})

    def _add_primitive(self, vertices: np.ndarray, normals: np.ndarray, mesh: Mesh, index: int) -> dict[str, Any]:
        used, corners = np.unique(mesh.triangles[mesh.triangle_materials == index], return_inverse=True)
        material, add = mesh.materials[index], self._builder.add_array
        attributes = {
            "POSITION": add(vertices[used].astype(np.float32), target=VERTICES, bounds=True),
            "NORMAL": add(normals[used].astype(np.float32), target=VERTICES),
        }
        if material.texture is not None:
            attributes["TEXCOORD_0"] = add(mesh.texcoords[used].astype(np.float32), target=VERTICES)
        if material.emission_texture is not None:
            own = mesh.texcoords if mesh.emissive_texcoords is None else mesh.emissive_texcoords
            key = "TEXCOORD_1" if material.texture is not None else "TEXCOORD_0"
            attributes[key] = add(own[used].astype(np.float32), target=VERTICES)
        if (mesh.colors[used] != 1).any():
            attributes["COLOR_0"] = add(np.clip(mesh.colors[used], 0, 1).astype(np.float32), target=VERTICES)
        small = np.uint16 if len(used) < 65535 else np.uint32
        indices = add(corners.reshape(-1).astype(small), target=INDICES)
        return {"attributes": attributes, "indices": indices, "material": self._add_material(material)}

    def _add_material(self, material: Material) -> int:
        if id(material) in self._materials:
            return self._materials[id(material)]
        surface: dict[str, Any] = {
            "baseColorFactor": np.clip(material.base_color, 0, 1).tolist(),
            "metallicFactor": 0.0,
            "roughnessFactor": 0.8,
        }
        if material.texture is not None:
            surface["baseColorTexture"] = {"index": self._add_texture(material.texture)}
        entry: dict[str, Any] = {"pbrMetallicRoughness": surface, "doubleSided": material.double_sided}
        if material.name:
            entry["name"] = material.name
        if material.blend:
            entry["alphaMode"] = "BLEND"
        elif material.cutoff > 0:
            entry |= {"alphaMode": "MASK", "alphaCutoff": material.cutoff}
        if material.unlit:
            entry["extensions"] = {"KHR_materials_unlit": {}}
            self._builder.use_extension("KHR_materials_unlit")
        if material.emission is not None:
            self._add_emission(entry, material)
        self._kept.append(material)
        self._materials[id(material)] = self._builder.add("materials", entry)
        return self._materials[id(material)]

    def _add_emission(self, entry: dict[str, Any], material: Material) -> None:
        glow = np.maximum(np.asarray(material.emission, np.float64), 0)
        strength = max(1.0, float(glow.max()))
        entry["emissiveFactor"] = (glow / strength).tolist()
        if strength > 1:
            name = "KHR_materials_emissive_strength"
            entry.setdefault("extensions", {})[name] = {"emissiveStrength": strength}
            self._builder.use_extension(name)
        if material.emission_texture is not None:
            index = self._add_texture(material.emission_texture)
            entry["emissiveTexture"] = {"index": index, "texCoord": 1 if material.texture is not None else 0}

    def _add_texture(self, texture: Texture) -> int:
        key = id(texture)
        if key not in self._textures:
            data = io.BytesIO()
            image = to_image(texture)
            Image.fromarray(image if (image[..., 3] < 255).any() else image[..., :3]).save(data, format="PNG")
            view = self._builder.add_bytes(data.getvalue())
            source = self._builder.add("images", {"mimeType": "image/png", "bufferView": view})
            wraps = {"wrapS": _WRAPS[texture.wrap[0]], "wrapT": _WRAPS[texture.wrap[1]]}
            filters = {"magFilter": _NEAREST if texture.nearest else _LINEAR}
            filters["minFilter"] = _MIPMAPS if texture.smaller else _LINEAR
            sampler = self._builder.add("samplers", wraps | filters)
            self._textures[key] = self._builder.add("textures", {"source": source, "sampler": sampler})
            self._kept.append(texture)
        return self._textures[key]
