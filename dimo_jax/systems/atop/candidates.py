"""Candidate joints of a part, from its shape and its contact with the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimo_jax.geometry.joint import JointType
from dimo_jax.meshes.objects import ObjectMesh


@dataclass(frozen=True)
class Candidate:
    """A joint that is possible: its line, not yet which way is positive nor how far it goes."""

    type: JointType
    axis: np.ndarray  # [3] unit
    origin: np.ndarray  # [3]
    source: str  # what proposed it


def candidates(body: ObjectMesh, part: ObjectMesh, up: np.ndarray | None = None) -> list[Candidate]:
    """All candidates, the likely sources first."""
    raise NotImplementedError
