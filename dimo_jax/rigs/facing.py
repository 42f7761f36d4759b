"""Which triangles of a posed glTF scene are turned over, and models that are inside out.

A transform that mirrors makes the corners of a triangle turn the other way, and glTF 2.0 (section 3.7.4) has its front
stay in front: where the determinant is negative, corners turn clockwise there.
"""

from __future__ import annotations

import numpy as np

from dimo_jax.rigs.posing import Poses, pose_nodes, pose_scene
from dimo_jax.rigs.scene import Part, Scene
from dimo_jax.rigs.skeleton import Clip

INSIDE_OUT = 0.5  # share of a solid's volume; an outline shell around a body is far from it


def find_mirrored(scene: Scene, clip: Clip | None, times: np.ndarray) -> np.ndarray | None:
    """Triangles that their node or joints mirror at `times` [T] of a clip -> bool [T,F].

    None where none are, or where all surfaces are double-sided so that it does not matter. A skinned vertex is mirrored
    by the joint that moves it most, and a triangle where two of its corners are.
    """
    if all(material.double_sided for material in scene.mesh.materials):
        return None
    poses = pose_nodes(scene, clip, times)
    if not any(_part_mirrored(scene, part, poses).any() for part in scene.parts):
        return None
    corners = np.concatenate([_part_mirrored(scene, part, poses) for part in scene.parts], axis=1)
    return corners[:, scene.mesh.triangles].sum(axis=-1) >= 2


def _part_mirrored(scene: Scene, part: Part, poses: Poses) -> np.ndarray:
    """Whether each vertex of a part is mirrored -> bool [T,p]."""
    if part.skin < 0:
        mirrored = np.linalg.det(poses.matrices[:, part.node, :3, :3]) < 0
        return np.broadcast_to(mirrored[:, None], (len(mirrored), len(part.positions)))
    skin = scene.skins[part.skin]
    joints = np.linalg.det((poses.matrices[:, skin.joints] @ skin.inverse_bind)[..., :3, :3]) < 0
    strongest = np.take_along_axis(part.joints, part.weights.argmax(axis=1)[:, None], axis=1)[:, 0]
    return joints[:, strongest]


def describe_inside_out(scene: Scene) -> tuple[str, ...]:
    """A line where the surfaces of which one side is drawn enclose a model from the wrong side; else none."""
    single = np.array([not material.double_sided for material in scene.mesh.materials], bool)
    triangles = scene.mesh.triangles[single[scene.mesh.triangle_materials]]
    if not len(triangles):
        return ()
    with np.errstate(all="ignore"):  # what overflows is refused elsewhere
        mirrored = find_mirrored(scene, None, np.zeros(1))
        corners = pose_scene(scene, None, 0.0)[triangles]
        volumes = np.linalg.det(corners - corners.mean(axis=(0, 1)))
        if mirrored is not None:
            volumes = np.where(mirrored[0][single[scene.mesh.triangle_materials]], -volumes, volumes)
        solid = np.abs(volumes).sum()
        if not (solid > 0 and volumes.sum() < -INSIDE_OUT * solid):
            return ()
    return ("its surfaces face inwards, so that their far sides are drawn: --double_sided draws both sides",)
