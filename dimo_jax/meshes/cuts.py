"""Cuts a part off an object and closes the holes that the cut opens in both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dimo_jax.meshes.objects import ObjectMesh, split_object
from dimo_jax.meshes.parts import weld_vertices


def cut_object(thing: ObjectMesh, part: np.ndarray) -> tuple[ObjectMesh, ObjectMesh]:
    """(body, part) with caps over the holes of the cut.

    A cut runs along edges that a triangle of the part shares with one of the body. Each closed loop of them gets a fan
    of triangles around its middle, in the part and, turned over, in the body, in the material beside it. Nodes that
    never touched give no such edge, and nothing is added.

    Args:
      thing: the object.
      part: [F] bool, its triangles of the part.
    """
    mask = np.asarray(part, bool)
    body, moved = split_object(thing, mask)
    loops = cut_loops(thing, mask)
    if not loops:
        return body, moved
    group = weld_vertices(thing.vertices)
    return _close(body, thing, group, [loop[::-1] for loop in loops]), _close(moved, thing, group, loops)


def cut_loops(thing: ObjectMesh, mask: np.ndarray) -> list[np.ndarray]:
    """Closed loops of the cut as vertices of `thing`, in the order in which a cap of the part has its corners."""
    group = weld_vertices(thing.vertices)
    edges = {side: _edges(thing.triangles[mask == side]) for side in (True, False)}
    keys = {side: {(int(a), int(b)) for a, b in group[pairs]} for side, pairs in edges.items()}
    follow: dict[int, list[int]] = {}
    vertex: dict[int, int] = {}
    for a, b in edges[True]:
        start, end = int(group[a]), int(group[b])
        if (end, start) in keys[False] and (end, start) not in keys[True]:
            follow.setdefault(end, []).append(start)  # a cap runs along its edges the other way than its neighbours
            vertex[start], vertex[end] = int(a), int(b)
    loops = []
    while follow:
        loop = [next(iter(follow))]
        while loop[-1] in follow:
            ends = follow[loop[-1]]
            after = ends.pop()
            if not ends:
                del follow[loop[-1]]
            if after == loop[0]:
                if len(loop) > 2:
                    loops.append(np.array([vertex[each] for each in loop]))
                break
            loop.append(after)
    return loops


def _edges(triangles: np.ndarray) -> np.ndarray:
    return np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])


def _close(piece: ObjectMesh, thing: ObjectMesh, group: np.ndarray, loops: list[np.ndarray]) -> ObjectMesh:
    """`piece` of `thing` with a fan of triangles over each loop; its vertices are its own, so that edges stay sharp."""
    mesh = thing.mesh
    owner = {int(group[v]): index for index, corners in enumerate(mesh.triangles) for v in corners}
    start, smooth = len(piece.vertices), int(piece.mesh.smooth_groups.max(initial=-1)) + 1
    places, texcoords, colors, triangles, materials, nodes = [], [], [], [], [], []
    for loop in loops:
        count = len(loop)
        places += [*thing.vertices[loop], thing.vertices[loop].mean(axis=0)]
        texcoords += [*mesh.texcoords[loop], mesh.texcoords[loop].mean(axis=0)]
        colors += [*mesh.colors[loop], mesh.colors[loop].mean(axis=0)]
        first = np.arange(count)
        triangles.append(start + np.stack([first, (first + 1) % count, np.full(count, count)], axis=1))
        beside = owner[int(group[loop[0]])]
        materials += [mesh.triangle_materials[beside]] * count
        nodes += [thing.triangle_nodes[beside]] * count
        start += count + 1
    old = piece.mesh
    closed = replace(
        old,
        triangles=np.concatenate([old.triangles, *triangles]).astype(np.int32),
        triangle_materials=np.concatenate([old.triangle_materials, materials]).astype(np.int32),
        texcoords=np.concatenate([old.texcoords, texcoords]),
        colors=np.concatenate([old.colors, colors]),
        smooth_groups=np.concatenate([old.smooth_groups, smooth + np.arange(len(places))]).astype(np.int32),
        emissive_texcoords=None
        if old.emissive_texcoords is None
        else np.concatenate([old.emissive_texcoords, np.zeros((len(places), 2))]),
    )
    return replace(
        piece,
        vertices=np.concatenate([piece.vertices, places]),
        mesh=closed,
        triangle_nodes=np.concatenate([piece.triangle_nodes, nodes]).astype(np.int32),
    )
