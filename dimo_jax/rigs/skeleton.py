"""The moving part of an animated model: nodes, skins and animation clips, as glTF has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEP, LINEAR, CUBIC = "STEP", "LINEAR", "CUBICSPLINE"


@dataclass(frozen=True)
class Node:
    """A node of the hierarchy; its transform is `matrix` where that is given, else translation, rotation and scale."""

    name: str
    parent: int  # -1 for a root
    translation: np.ndarray  # [3]
    rotation: np.ndarray  # [4] xyzw, as glTF stores it
    scale: np.ndarray  # [3]
    matrix: np.ndarray | None  # [4,4]
    mesh: int  # -1 for none
    skin: int  # -1 for none
    weights: np.ndarray | None  # of morph targets, over those of the mesh


@dataclass(frozen=True)
class Skin:
    """Joints that deform a mesh."""

    joints: np.ndarray  # [J] node indices
    inverse_bind: np.ndarray  # [J,4,4] mesh to joint
    damaged: np.ndarray  # [J] whether the file has no finite matrix, in whose place stands the identity


@dataclass(frozen=True)
class Channel:
    """One animated property of one node."""

    node: int
    path: str  # "translation", "rotation", "scale" or "weights"
    interpolation: str
    times: np.ndarray  # [S] seconds, rising
    values: np.ndarray  # [S,C]; for CUBICSPLINE [S,3,C]: in-tangent, value, out-tangent


@dataclass(frozen=True)
class Clip:
    """One animation. It lasts from its earliest to its latest key, in seconds."""

    name: str
    start: float
    end: float
    channels: tuple[Channel, ...]
    problem: str = ""  # why it cannot be posed: an error for who wants it, and nobody else
