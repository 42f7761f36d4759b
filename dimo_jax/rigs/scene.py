"""An animated model: what is drawn, and how it moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.meshes.renderer import Mesh
from dimo_jax.rigs.skeleton import Clip, Node, Skin


@dataclass(frozen=True)
class Part:
    """One primitive of one node; its vertices are `start`, `start + 1`, ... of the scene's."""

    node: int
    skin: int  # -1: moves with its node
    start: int
    positions: np.ndarray  # [p,3] float64, at rest
    joints: np.ndarray  # [p,S] indices into the skin's joints; S is 0 without a skin
    weights: np.ndarray  # [p,S] float64, sum 1
    morph_targets: np.ndarray  # [targets,p,3] float64 offsets
    morph_weights: np.ndarray  # [targets] at rest
    bound: bool = True  # whether the file gives any of its vertices a weight


@dataclass(frozen=True)
class Scene:
    """A model: what is drawn (`mesh`, whose vertices the parts hold) and how it moves."""

    path: Path
    nodes: tuple[Node, ...]
    order: np.ndarray  # [nodes] parents before children
    skins: tuple[Skin, ...]
    clips: tuple[Clip, ...]
    parts: tuple[Part, ...]
    mesh: Mesh
    joints: np.ndarray  # [J] nodes that are joints of a skin that is drawn, else the nodes of the parts
    hidden: tuple[str, ...]  # names of the nodes with a mesh that were left out
    digest: str  # of the file, see `Document.digest`
    notes: tuple[str, ...] = ()  # lines about what of the file is left out, drawn otherwise, or repaired

    @property
    def num_vertices(self) -> int:
        """Number of vertices of all parts."""
        return sum(len(part.positions) for part in self.parts)

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the nodes that are drawn, each once, in the file's order."""
        return tuple(dict.fromkeys(self.nodes[part.node].name for part in self.parts))


def check_clips(clips: Sequence[Clip]) -> None:
    """Raises UserError for the first clip that cannot be posed."""
    for clip in clips:
        if clip.problem:
            raise UserError(f"{clip.problem} (or --clips without {clip.name!r})")
