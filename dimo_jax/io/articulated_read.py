"""What `--app=articulate` wrote, read again: the object in links, and the joints that each part may have."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimo_jax.core.errors import UserError
from dimo_jax.geometry.joint import Joint, from_json
from dimo_jax.io.articulated import GLB
from dimo_jax.io.objects import load_object
from dimo_jax.meshes.articulation import Articulation, Link
from dimo_jax.meshes.objects import select_faces

JOINTS = "joint.json"


@dataclass(frozen=True)
class Written:
    """An articulated object with the ranked joints of its parts."""

    articulation: Articulation
    ranked: tuple[tuple[Joint, ...], ...]  # of every link after the first, the most probable first
    taken: tuple[int, ...]  # which of them its link has


def is_articulated(folder: Path) -> bool:
    """Whether `--app=articulate` wrote this folder."""
    return (folder / JOINTS).is_file() and (folder / GLB).is_file()


def read_articulated(folder: Path) -> Written:
    """Reads joint.json and object.glb.

    Raises:
      UserError: one of them is damaged, or they do not belong together.
    """
    path = folder / JOINTS
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        names = [str(link["name"]) for link in fields["links"]]
        entries = fields.get("joints", [fields])
        ranked = tuple(_rank(entry) for entry in entries)
        taken = tuple(int(entry.get("candidate", 0)) for entry in entries)
        parents = [names.index(entry["parent"]) for entry in entries]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:100]
        raise UserError(f"{path}: found {reason}, expected what --app=articulate writes") from None
    thing = load_object(folder / GLB)
    if len(names) != len(entries) + 1 or set(names) - set(thing.node_names):
        raise UserError(f"{path}: names the links {', '.join(names)}, expected those of {GLB} beside it")
    links = []
    for index, name in enumerate(names):
        own = select_faces(thing, thing.triangle_nodes == thing.node_names.index(name))
        entry = (-1, None) if index == 0 else (parents[index - 1], ranked[index - 1][taken[index - 1]])
        links.append(Link(name, own.vertices, own.mesh, *entry))
    return Written(Articulation(tuple(links)), ranked, taken)


def _rank(entry: dict[str, Any]) -> tuple[Joint, ...]:
    joints = [from_json(each) for each in entry["runners_up"]]
    place = int(entry.get("candidate", 0))
    if not 0 <= place <= len(joints):
        raise ValueError(f"candidate {place} of {len(joints) + 1}")
    joints.insert(place, from_json(entry))
    return tuple(joints)
