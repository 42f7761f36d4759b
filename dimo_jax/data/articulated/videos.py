"""Videos of made objects as ATOP learns from (Sec. 4.4.3, 5.1): 4 views x 10 frames of 256 pixels, with masks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.types import Camera
from dimo_jax.geometry.joint import Joint, move_joint, transform
from dimo_jax.meshes.objects import ObjectMesh, bounds, move_object
from dimo_jax.meshes.renderer import Material, Mesh, render_mesh

from .shapes import PART, MadeObject

AZIMUTHS = (45.0, 135.0, 225.0, 315.0)
ELEVATION = 30.0  # the paper has 10 for some categories and 30 for the others
NUM_FRAMES, SIDE = 10, 256
RADIUS, FOV = 2.8, 40.0  # object diagonals and degrees: no door of 200 objects leaves the picture


@dataclass(frozen=True)
class PartVideos:
    """What is seen of a part that moves from rest to the end of its range."""

    frames: np.ndarray  # [V,F,H,W,4] uint8, straight alpha
    masks: np.ndarray  # [V,F,H,W] uint8, 255 where the part is what is seen
    values: np.ndarray  # [F] of the joint
    cameras: Camera  # V views
    thing: ObjectMesh  # at rest, in the cameras' coordinates: its box's middle at the origin, its diagonal 1
    joint: Joint  # in the same


def settle(made: MadeObject) -> tuple[ObjectMesh, Joint]:
    """The object and its joint with the box's middle at the origin and a diagonal of 1."""
    matrix = settle_matrix(made.thing.vertices)
    return move_object(made.thing, matrix), move_joint(made.joint, matrix)


def settle_matrix(vertices: np.ndarray) -> np.ndarray:
    """[4,4], which brings the middle of the box of [P,3] to the origin, and its diagonal to 1."""
    low, high, diagonal = bounds(vertices)
    matrix = np.diag([1 / diagonal] * 3 + [1.0])
    matrix[:3, 3] = -(low + high) / 2 / diagonal
    return matrix


def mark_part(mesh: Mesh, moves: np.ndarray) -> Mesh:
    """A mesh whose triangles [F] are white where they move, and black elsewhere."""
    flat = tuple(Material(np.array([share] * 3 + [1.0]), unlit=True, double_sided=False) for share in (0.0, 1.0))
    return replace(mesh, materials=flat, triangle_materials=moves.astype(np.int32))


def film(
    made: MadeObject,
    *,
    num_frames: int = NUM_FRAMES,
    side: int = SIDE,
    azimuths: tuple[float, ...] = AZIMUTHS,
    elevation: float = ELEVATION,
    shares: np.ndarray | None = None,
) -> PartVideos:
    """The part's motion at an even pace, from all views.

    Args:
      made: the object.
      num_frames: F, at least 2.
      side: height and width in pixels.
      azimuths: of the views, degrees.
      elevation: of all of them, degrees.
      shares: [F] of the range at which frames stand, in the place of `num_frames` even ones.
    """
    thing, joint = settle(made)
    cameras = orbit(azimuths, elevation, radius=RADIUS, fov_deg=FOV, height=side, width=side)
    low, high = joint.range
    values = low + (high - low) * (np.linspace(0, 1, num_frames) if shares is None else np.asarray(shares))
    moves = np.isin(thing.triangle_nodes, thing.node_names.index(PART))
    of_part = np.unique(thing.triangles[moves])
    marked = mark_part(thing.mesh, moves)
    frames = np.zeros((len(azimuths), len(values), side, side, 4), np.uint8)
    masks = np.zeros(frames.shape[:-1], np.uint8)
    for index, matrix in enumerate(transform(joint, values)):
        vertices = thing.vertices.copy()
        vertices[of_part] = vertices[of_part] @ matrix[:3, :3].T + matrix[:3, 3]
        for view in range(len(azimuths)):
            frames[view, index] = render_mesh(vertices, thing.mesh, cameras[view])
            shown = render_mesh(vertices, marked, cameras[view])
            masks[view, index] = np.where(shown[..., 3] > 0, shown[..., 0], 0)
    masks = np.where(masks >= 128, 255, 0).astype(np.uint8)
    return PartVideos(frames, masks, values, cameras, thing, joint)
