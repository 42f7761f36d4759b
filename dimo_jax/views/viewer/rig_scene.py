"""Draws a posed rig as nodes of a viser scene: the body in the colours of its faces, the skeleton through it.

viser moves the vertices of meshes of one colour each, and takes textures only in meshes that stand still. So a body is
a mesh for each of its colours, of which the most alike are one where there are many.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.cluster.vq import kmeans2

from dimo_jax.meshes.renderer import Mesh
from dimo_jax.meshes.textures import encode_srgb, sample_texture
from dimo_jax.views.viewer.rig_session import LAYERS, RigChoices, RigFrame, RigSession

MOST_COLORS = 24
BEHIND = 0.4  # opacity of a body with its skeleton in it
_BONE_COLOR, _JOINT_COLOR = (214, 39, 40), (255, 200, 60)
_CORNERS = np.array([[1, 1, 1], [4, 1, 1], [1, 4, 1], [1, 1, 4]]) / np.array(
    [[3], [6], [6], [6]]
)  # of a face, looked at


def color_faces(mesh: Mesh) -> np.ndarray:
    """A colour [F,3] uint8 sRGB of each face: the mean of a few places on it, textures and emission included."""
    colors = np.zeros((len(mesh.triangles), 3))
    corners = mesh.colors[mesh.triangles]  # [F,3,4]
    for number, material in enumerate(mesh.materials):
        faces = np.flatnonzero(mesh.triangle_materials == number)
        if not len(faces):
            continue
        light = (_CORNERS @ corners[faces])[..., :3] * material.base_color[:3]  # [f,4,3]
        light = light * _look_up(material.texture, mesh.texcoords, mesh.triangles[faces])
        if material.emission is not None:
            places = mesh.texcoords if mesh.emissive_texcoords is None else mesh.emissive_texcoords
            light = light + material.emission * _look_up(material.emission_texture, places, mesh.triangles[faces])
        colors[faces] = light.mean(axis=1)
    return encode_srgb(colors).astype(np.uint8)


def _look_up(texture: Any, texcoords: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Colours of a texture at places on faces: [f,4,3] linear; white without one."""
    if texture is None:
        return np.ones((len(triangles), 1, 3))
    u, v = np.moveaxis(_CORNERS @ texcoords[triangles], -1, 0)
    return sample_texture(texture, u.ravel(), v.ravel())[:3].T.reshape(*u.shape, 3)


def group_faces(mesh: Mesh) -> list[tuple[tuple[int, int, int], bool, np.ndarray]]:
    """Faces by colour, at most `MOST_COLORS` of them: the colour, whether both sides are drawn, and triangles [f,3]."""
    known, which = np.unique(color_faces(mesh), axis=0, return_inverse=True)
    which = which.reshape(-1)
    if len(known) > MOST_COLORS:
        start = known[np.linspace(0, len(known) - 1, MOST_COLORS).astype(int)].astype(float)
        centers, labels = kmeans2(known.astype(float), start, minit="matrix", missing="warn")
        known, which = np.clip(np.rint(centers), 0, 255), labels[which]
    both = np.array([material.double_sided for material in mesh.materials], bool)[mesh.triangle_materials]
    groups = []
    for number, color in enumerate(known):
        for side in (False, True):
            faces = np.flatnonzero((which == number) & (both == side))
            if len(faces):
                red, green, blue = (int(value) for value in color)
                groups.append(((red, green, blue), side, mesh.triangles[faces]))
    return groups


class RigScene:
    """The nodes of one rig: the body's meshes, its bones, and its joints."""

    def __init__(self, server: Any, session: RigSession) -> None:
        """`server` is a `viser.ViserServer`."""
        self._bones = session.bones
        rest = session.rest
        low, high = rest.min(axis=0), rest.max(axis=0)
        self._middle, size = (low + high) / 2, float(np.linalg.norm(high - low))
        add = server.scene
        add.set_up_direction("+y")
        add.add_grid(
            "/ground", plane="xz", width=4 * size, height=4 * size, cell_size=size / 4, section_size=size,
            position=(float(self._middle[0]), min(float(low[1]), 0.0), float(self._middle[2])),
        )  # fmt: skip
        server.initial_camera.position = tuple(self._middle + 1.05 * size * np.array([0.45, 0.2, 0.85]))
        server.initial_camera.look_at = tuple(self._middle)
        self._meshes = []
        for number, (color, both, triangles) in enumerate(group_faces(session.model.scene.mesh)):
            used, faces = np.unique(triangles, return_inverse=True)
            node = add.add_mesh_simple(
                f"/body/{number}",
                rest[used],
                faces.reshape(-1, 3).astype(np.uint32),
                color=color,
                side="double" if both else "front",
                cast_shadow=False,
                receive_shadow=False,
            )
            self._meshes.append((used, node))
        ends = np.zeros((max(len(self._bones), 1), 2, 3), np.float32)
        self._lines = add.add_line_segments("/bones", ends, _BONE_COLOR, thickness=0.009 * size)
        heads = np.zeros((len(session.rigged.markers.joints.nodes), 3), np.float32)
        style: dict[str, Any] = dict(point_size=0.016 * size, point_shape="circle", precision="float32")
        self._heads = add.add_point_cloud(
            "/joints", heads, np.tile(np.asarray(_JOINT_COLOR, np.uint8), (len(heads), 1)), **style
        )

    def show(self, frame: RigFrame, choices: RigChoices) -> None:
        """Sends what has changed of the chosen layers; the others are hidden and cost nothing."""
        body, skeleton = (layer in choices.layers for layer in LAYERS)
        for used, node in self._meshes:
            node.visible = body
            if body:
                node.opacity = BEHIND if skeleton else None
                node.vertices = frame.vertices[used]
        self._lines.visible = skeleton and len(self._bones) > 0
        self._heads.visible = skeleton
        if skeleton:
            self._heads.points = frame.joints
            if len(self._bones):
                self._lines.points = frame.joints[self._bones]
