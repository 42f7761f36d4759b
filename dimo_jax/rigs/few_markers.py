"""Fewer markers than a rig has, for small pictures: far enough apart to be told from each other at 64 pixels.

Those that stay are spread over the figure at rest; each keeps its place, and lines go to the next one above that stays.
Inverse kinematics counts the others as not seen, so bones between markers turn as little as they can.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dimo_jax.rigs.palette import assign_colors
from dimo_jax.rigs.pose_markers import PoseMarkers

MOST = 16
APART = 0.05  # of the diagonal, at rest: about a disc's radius where the figure fills 64 pixels


def spread_markers(markers: PoseMarkers, *, most: int = MOST, apart: float = APART) -> PoseMarkers:
    """At most `most` of the markers, no two of them nearer than `apart` diagonals at rest, in colours of their own.

    Farthest points one after the other, the first the marker above most others, as the whole model hangs on it.
    """
    above = _find_above(markers.parents)
    chosen = [int(above.sum(axis=0).argmax())]
    away = np.linalg.norm(markers.rest - markers.rest[chosen[0]], axis=-1)
    while len(chosen) < most and away.max() >= apart * markers.diagonal:
        chosen.append(int(away.argmax()))
        away = np.minimum(away, np.linalg.norm(markers.rest - markers.rest[chosen[-1]], axis=-1))
    kept = sorted(chosen)
    return replace(keep_markers(markers, kept), colors=assign_colors(markers.rest[kept]))


def keep_markers(markers: PoseMarkers, kept: list[int]) -> PoseMarkers:
    """Some of the markers, in their colours; points of the others belong to none (-1 in `marker_of`)."""
    places = np.full(len(markers.names), -1)
    places[kept] = np.arange(len(kept))
    return replace(
        markers,
        names=tuple(markers.names[index] for index in kept),
        marker_of=np.where(markers.marker_of >= 0, places[markers.marker_of], -1),
        parents=link_parents(markers.parents, kept),
        rest=markers.rest[kept],
        colors=markers.colors[kept],
    )


def link_parents(parents: np.ndarray, kept: list[int]) -> np.ndarray:
    """Of each marker that is kept the next one above that is kept too, counted among the kept; -1 for none."""
    places = {index: place for place, index in enumerate(kept)}
    found = []
    for index in kept:
        parent = int(parents[index])
        while parent >= 0 and parent not in places:
            parent = int(parents[parent])
        found.append(places.get(parent, -1))
    return np.array(found)


def _find_above(parents: np.ndarray) -> np.ndarray:
    """[K,K] bool: whether the column is the row or above it."""
    above = np.eye(len(parents), dtype=bool)
    for index in range(len(parents)):
        parent = int(parents[index])
        while parent >= 0 and not above[index, parent]:
            above[index, parent] = True
            parent = int(parents[parent])
    return above
