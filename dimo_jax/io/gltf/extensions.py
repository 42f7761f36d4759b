"""Which extensions of glTF are drawn, which change nothing that is drawn here, and what is said of all others.

A file that requires an extension which is neither is refused; one that merely uses it is read, and `describe_left_out`
has one line for what is missing of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from dimo_jax.io.gltf.document import Document

DRAWN = frozenset(
    {
        *("KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression", "KHR_mesh_quantization"),
        *("EXT_mesh_gpu_instancing", "KHR_node_visibility", "KHR_animation_pointer"),
        *("KHR_texture_transform", "KHR_texture_basisu", "EXT_texture_webp", "EXT_texture_avif"),
        *("KHR_materials_unlit", "KHR_materials_emissive_strength", "KHR_materials_pbrSpecularGlossiness"),
    }
)
# Lights (one light of ours serves all models), data about the model, and sound.
WITHOUT_EFFECT = frozenset(
    {
        *("KHR_lights_punctual", "KHR_lights", "EXT_lights_image_based", "EXT_lights_ies", "MSFT_lod"),
        *("KHR_xmp", "KHR_xmp_json_ld", "EXT_mesh_features", "EXT_instance_features", "EXT_structural_metadata"),
        *("EXT_feature_metadata", "EXT_mesh_manifold", "FB_geometry_metadata", "AGI_stk_metadata"),
        *("KHR_audio", "KHR_audio_emitter", "MSFT_audio_emitter", "KHR_node_selectability", "KHR_node_hoverability"),
    }
)
SHINE = frozenset(
    f"KHR_materials_{name}"
    for name in ("anisotropy", "clearcoat", "dispersion", "ior", "iridescence", "sheen", "specular")
)
GLASS = frozenset(
    f"KHR_materials_{name}"
    for name in ("diffuse_transmission", "subsurface", "transmission", "volume", "volume_scatter")
)
VARIANTS, POINTER = "KHR_materials_variants", "KHR_animation_pointer"
# Files give these a picture beside the plain one, or instead of it.
TEXTURES = ("EXT_texture_webp", "EXT_texture_avif", "KHR_texture_basisu")
_PLAIN_PATHS = ("translation", "rotation", "scale", "weights")
_MOST_NAMES = 5  # in one line


def check_required(document: Document) -> None:
    """Raises UserError where the file requires an extension of which nothing is known here."""
    required = document.json.get("extensionsRequired", [])
    for name in required if isinstance(required, list) else [required]:
        known = str(name) in DRAWN | WITHOUT_EFFECT or str(name).startswith("KHR_materials_")
        if not known:
            raise document.fail(f"needs the extension {name!r}, which is not supported; export without it")


def describe_left_out(document: Document) -> tuple[str, ...]:
    """One line for each kind of thing in the file that an extension brings and that is not drawn.

    Args:
      document: as `make_plain` returns it, so that what it has undone is no longer there.
    """
    names = set(find_extensions(document.json))
    lines = list(describe_pointers(document))
    if VARIANTS in names:
        lines.append(f"drawn in its default colours: the file's other ones ({VARIANTS}) are left out")
    for group, what in ((GLASS, "drawn without light that goes through"), (SHINE, "drawn without shine")):
        if names & group:
            lines.append(f"{what}: {_list(sorted(names & group))}")
    unknown = names - DRAWN - WITHOUT_EFFECT - GLASS - SHINE - {VARIANTS}
    if unknown:
        lines.append(f"not read, and what they bring is left out: the extensions {_list(sorted(unknown))}")
    return tuple(lines)


def find_extensions(content: Any) -> Iterator[str]:
    """Names of all extensions that stand in the JSON; what is merely listed as used brings nothing."""
    stack = [content]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            extensions = value.get("extensions")
            if isinstance(extensions, dict):
                yield from extensions
            stack.extend(each for key, each in value.items() if key != "extras")
        elif isinstance(value, list):
            stack.extend(value)


def describe_pointers(document: Document) -> Iterator[str]:
    """A line for each clip with channels that move nothing here."""
    for index, animation in enumerate(document.entries("animations")):
        targets = [channel["target"] for channel in animation.get("channels", [])]
        others = [target for target in targets if target.get("path") not in _PLAIN_PATHS]
        if others:
            name = animation.get("name") or f"animation_{index}"
            yield f"clip {name!r} moves what is not drawn as moving: {_list([_aim(each) for each in others])}"


def _aim(target: dict[str, Any]) -> str:
    """What a channel that is not plain moves."""
    pointer = target.get("extensions", {}).get(POINTER, {}).get("pointer")
    return f"{target.get('path')!r} of a node" if pointer is None else f"{pointer} ({POINTER})"


def _list(names: list[str]) -> str:
    """The first few of some names of a file, as one line."""
    shown = [re.sub(r"\s+", " ", name)[:80] for name in names[:_MOST_NAMES]]
    return ", ".join(shown) + (f" and {len(names) - len(shown)} more" if len(names) > len(shown) else "")
