"""A small textured model with a skin, a mirrored node and two clips, for tests of exports."""

import io

import numpy as np
from PIL import Image
from support.gltf_writer import Writer


def textured_model(path, *, strip=False, first_normal=(0, 0, 1)):
    """A skinned square with a texture, normals and a bent second joint, and an unskinned one that its node mirrors.

    `first_normal` is that of the squares' first vertices. With `strip` the mirrored square is a triangle strip.
    """
    writer = Writer()
    picture = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(picture, format="PNG")
    image = writer.add("images", {"bufferView": writer.view(picture.getvalue()), "mimeType": "image/png"})
    texture = writer.add("textures", {"source": image, "sampler": writer.add("samplers", {"wrapS": 33071})})
    surface = {"baseColorTexture": {"index": texture}, "baseColorFactor": [0.5, 1, 1, 1]}
    material = writer.add("materials", {"name": "cloth", "pbrMetallicRoughness": surface, "doubleSided": True})
    extra = {
        "NORMAL": writer.accessor(np.float32([first_normal, *[(0, 0, 1)] * 3])),
        "TEXCOORD_0": writer.accessor(np.float32([[0, 1], [1, 1], [1, 0], [0, 0]])),
        "JOINTS_0": writer.accessor(np.tile(np.uint8([0, 1, 0, 0]), (4, 1))),
        "WEIGHTS_0": writer.accessor(np.float32([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 1, 0, 0], [0.5, 0.5, 0, 0]])),
    }
    skinned = writer.square(extra=extra, material=material)
    plain = writer.square(extra={"NORMAL": extra["NORMAL"]})
    if strip:
        order = dict(mode=5, indices=writer.accessor(np.uint16([0, 1, 3, 2])))
        writer.json["meshes"][plain]["primitives"][0] |= order
    writer.add("nodes", {"name": "hip", "children": [1, 3]})
    writer.add("nodes", {"name": "knee", "translation": [1, 0, 0]})
    bind = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    bind[1, 3, 0] = -1  # columns
    skin = writer.add("skins", {"joints": [0, 1], "inverseBindMatrices": writer.accessor(bind)})
    writer.add("nodes", {"name": "body", "mesh": skinned, "skin": skin})
    writer.add("nodes", {"name": "shield", "mesh": plain, "scale": [-1, 2, 1], "translation": [0, 3, 0]})
    writer.add("scenes", {"nodes": [0, 2]})
    half = np.sqrt(0.5)
    writer.clip("Bend", 1, "rotation", [0.0, 1.0], np.array([[0, 0, 0, 1], [0, 0, half, half]]))
    writer.clip("Fly", 0, "translation", [0.0, 1.0], np.array([[0, 0, 0], [0, 2, 1]]))
    return writer.write(path)
