"""Materials of a glTF file: colour, emission, transparency and facing, with their textures."""

from __future__ import annotations

from typing import Any

import numpy as np

from dimo_jax.core.names import to_text
from dimo_jax.io.gltf.document import Document
from dimo_jax.io.gltf.extensions import TEXTURES
from dimo_jax.io.gltf.images import read_image
from dimo_jax.meshes.renderer import Material
from dimo_jax.meshes.textures import CLAMP, MIRROR, REPEAT, Texture, make_texture

_WRAPS: dict[Any, str] = {10497: REPEAT, 33071: CLAMP, 33648: MIRROR}
_NEAREST, _LINEAR = 9728, 9729  # filters; as minFilter, those without mipmaps


def read_material(document: Document, index: int, textures: dict[int, Texture]) -> Material:
    """Reads a material.

    Args:
      document: the opened file.
      index: the material's; negative for glTF's default one.
      textures: those read before, by index, which are shared; what is read is added.

    Raises:
      UserError: a colour that is not finite numbers, or a texture that cannot be read.
    """
    if index < 0:
        return Material(np.ones(4), double_sided=False)
    entry = document.entry("materials", index)
    extensions = entry.get("extensions", {})
    unlit = "KHR_materials_unlit" in extensions
    emission = np.zeros(3) if unlit else _read_emission(document, index, entry)
    shines = bool((emission != 0).any())
    mode = entry.get("alphaMode", "OPAQUE")
    return Material(
        _numbers(document, index, _read_surface(entry)[0], 4),
        _share_texture(document, color_texture(entry), textures),
        cutoff=float(entry.get("alphaCutoff", 0.5)) if mode == "MASK" else 0.0,
        blend=mode == "BLEND",
        unlit=unlit,
        double_sided=bool(entry.get("doubleSided", False)),
        emission=emission if shines else None,
        emission_texture=_share_texture(document, emissive_texture(entry), textures) if shines else None,
        name=to_text(str(entry.get("name", ""))),
    )


def _read_emission(document: Document, index: int, entry: dict[str, Any]) -> np.ndarray:
    """Linear RGB [3] of the light that a surface sends out where its emissive texture is white."""
    strength = entry.get("extensions", {}).get("KHR_materials_emissive_strength", {}).get("emissiveStrength", 1.0)
    factor = _numbers(document, index, entry.get("emissiveFactor", [0, 0, 0]), 3)
    return np.maximum(factor * _numbers(document, index, [strength], 1), 0)


def _numbers(document: Document, index: int, values: Any, count: int) -> np.ndarray:
    numbers = np.asarray(values, np.float64)
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise document.fail(f"materials[{index}] has the colour {str(values)[:80]}, expected {count} finite numbers")
    return numbers


def color_texture(material: dict[str, Any]) -> dict[str, Any] | None:
    """The reference to a material's base colour texture."""
    return _read_surface(material)[1]


def emissive_texture(material: dict[str, Any]) -> dict[str, Any] | None:
    """The reference to a material's emissive texture."""
    return material.get("emissiveTexture")


def _read_surface(material: dict[str, Any]) -> tuple[Any, dict[str, Any] | None]:
    """A material's colour factor and colour texture, of the older specular-glossiness model where the file has that."""
    older = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness")
    if older is not None:
        return older.get("diffuseFactor", [1, 1, 1, 1]), older.get("diffuseTexture")
    surface = material.get("pbrMetallicRoughness", {})
    return surface.get("baseColorFactor", [1, 1, 1, 1]), surface.get("baseColorTexture")


def transform_texcoords(coordinates: np.ndarray, transform: dict[str, Any]) -> np.ndarray:
    """Texture coordinates [p,2] after a KHR_texture_transform: scaled, turned, then moved."""
    scaled = coordinates * np.asarray(transform.get("scale", [1, 1]), np.float64)
    cosine, sine = np.cos(transform.get("rotation", 0.0)), np.sin(transform.get("rotation", 0.0))
    turned = scaled @ np.array([[cosine, -sine], [sine, cosine]])
    return turned + np.asarray(transform.get("offset", [0, 0]), np.float64)


def _share_texture(document: Document, info: dict[str, Any] | None, textures: dict[int, Texture]) -> Texture | None:
    if info is None:
        return None
    number: Any = info.get("index")
    if number not in textures:
        textures[number] = _read_texture(document, number)
    return textures[number]


def _read_texture(document: Document, index: Any) -> Texture:
    entry = document.entry("textures", index)
    sampler = document.entry("samplers", entry["sampler"]) if "sampler" in entry else {}
    wrap = (_WRAPS.get(sampler.get("wrapS"), REPEAT), _WRAPS.get(sampler.get("wrapT"), REPEAT))
    return make_texture(
        read_image(document, _find_source(document, index, entry)),
        wrap=wrap,
        nearest=sampler.get("magFilter") == _NEAREST,
        mipmaps=sampler.get("minFilter") not in (_NEAREST, _LINEAR),
    )


def _find_source(document: Document, index: Any, entry: dict[str, Any]) -> Any:
    """The image of a texture: the plain one, which every reader knows, or that of an extension."""
    extensions = entry.get("extensions", {})
    sources = [entry.get("source"), *(extensions.get(name, {}).get("source") for name in TEXTURES)]
    found = next((source for source in sources if source is not None), None)
    if found is None:
        names = ", ".join(map(str, extensions)) or "no extension"
        raise document.fail(
            f"textures[{index}] has no picture that can be read, found {names}; export with PNG or WebP"
        )
    return found
