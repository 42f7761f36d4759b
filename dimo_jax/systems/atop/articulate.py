"""Several parts of one object, each with a sentence: which joint every one has, and the object in links.

Parts may hang on parts (a knob on a door). The joint of a part is looked for with everything that hangs on it, against
all the rest of the object where it hangs on the body, and against its parent where that is a part.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.names import make_distinct
from dimo_jax.geometry.joint import Joint, from_json
from dimo_jax.meshes.articulation import Articulation, Link
from dimo_jax.meshes.cuts import cut_object
from dimo_jax.meshes.objects import ObjectMesh, select_faces
from dimo_jax.meshes.parts import find_part, list_parts
from dimo_jax.systems.atop.rank import Finding

BODY = "body"
_KEYS = ("part", "parent", "sentence", "name", "candidate", "joint")


class Find(Protocol):
    """Ranks the joints of a part, as `rank.explain` does."""

    def __call__(self, body: ObjectMesh, part: ObjectMesh, sentence: str, up: np.ndarray | None) -> Finding:
        """What stands still, what moves, what shall happen, and what is up where it is known."""
        ...


@dataclass(frozen=True)
class Request:
    """A part that shall move."""

    part: str  # as `find_part` takes it
    sentence: str
    parent: str = ""  # the part (or name) of another request; empty: the body, which is what no request takes
    name: str = ""  # of the link; empty: made of `part`
    candidate: int = 0  # which of the ranked joints to take, from 0
    joint: Joint | None = None  # taken instead of one that is looked for


@dataclass(frozen=True)
class Found:
    """The object in links, and for each of its parts what was found."""

    articulation: Articulation  # the body, then parts, parents first
    requests: tuple[Request, ...]  # in the order of the links after the first
    ranked: tuple[tuple[Joint, ...], ...]  # of every part, the best first
    doubts: tuple[tuple[str, ...], ...]  # of every part, lines for the user


def read_requests(entries: Any, path: Path) -> tuple[Request, ...]:
    """Requests from the JSON of a file: a list of objects with part and sentence, or an object whose `parts` that is.

    Raises:
      UserError: something else, an unknown key, a missing one, or a joint that is none.
    """
    if isinstance(entries, Mapping):
        entries = entries.get("parts")
    if not isinstance(entries, list) or not entries or not all(isinstance(each, dict) for each in entries):
        raise UserError(f'{path}: found no list of parts, expected [{{"part": ..., "sentence": ...}}, ...]')
    return tuple(_read_request(entry, f"{path}: part {number}") for number, entry in enumerate(entries, 1))


def _read_request(entry: dict[str, Any], where: str) -> Request:
    for key in entry:
        if key not in _KEYS:
            raise UserError(f"{where}: has a key {key!r}, expected some of {', '.join(_KEYS)}")
    texts = {key: entry.get(key, "") for key in ("part", "parent", "sentence", "name")}
    for key, value in texts.items():
        if not isinstance(value, str) or (key == "part" and not value.strip()):
            raise UserError(f"{where}: {key} is {value!r}, expected text")
    candidate = entry.get("candidate", 0)
    if not isinstance(candidate, int) or isinstance(candidate, bool) or candidate < 0:
        raise UserError(f"{where}: candidate is {candidate!r}, expected a whole number from 0 on")
    joint = None
    if "joint" in entry:
        try:
            joint = from_json(entry["joint"])
        except (KeyError, TypeError, ValueError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:100]
            raise UserError(f"{where}: joint: found {reason}; expected type, axis, origin and range") from None
    elif not texts["sentence"].strip():
        raise UserError(f'{where} ({texts["part"]}): no sentence, expected one such as "open the door"')
    return Request(**texts, candidate=candidate, joint=joint)


def articulate(thing: ObjectMesh, requests: Sequence[Request], find: Find, *, up: np.ndarray | None) -> Found:
    """Finds the joints of parts and cuts the object into links.

    Args:
      thing: the object.
      requests: at least one.
      find: ranks the joints of a part, such as `rank.explain`.
      up: [3] what is up, or None.

    Raises:
      UserError: a part, parent or candidate that does not exist, parts that overlap or leave no body, parents in a
        ring, or a part for which no joint is plausible.
    """
    parents = _find_parents(requests)
    masks = _find_masks(thing, requests)
    order = _sort(requests, parents)
    below = [_add_children(index, parents, masks) for index in range(len(requests))]
    if np.logical_or.reduce(masks).all():
        raise UserError(f"{thing.path}: the parts are the whole object, expected something left that they move against")
    found = [_find(thing, requests[index], masks, below[index], parents[index], find, up) for index in order]
    ranked = [tuple(each.joints) for each in found]
    return Found(
        _cut(thing, requests, order, parents, masks, ranked),
        tuple(requests[index] for index in order),
        tuple(ranked),
        tuple(each.doubts for each in found),
    )


def _find(
    thing: ObjectMesh,
    request: Request,
    masks: Sequence[np.ndarray],
    below: np.ndarray,
    parent: int,
    find: Find,
    up: np.ndarray | None,
) -> Finding:
    """The joints of one part, with what hangs on it (`below` [F]), against its parent or, on the body, all the rest."""
    if request.joint is not None:
        found = Finding([request.joint], ())
    else:
        seen = np.ones_like(below) if parent < 0 else below | masks[parent]
        body, part = cut_object(select_faces(thing, seen), below[seen])
        found = find(body, part, request.sentence, up)
    if not found.joints:
        reason = "; ".join(found.doubts) or "no plausible joint"
        raise UserError(f"{thing.path}: {request.part!r}: {reason}, expected a part that touches its body and can move")
    if request.candidate >= len(found.joints):
        raise UserError(
            f"candidate {request.candidate} of {request.part!r} does not exist, expected 0 to {len(found.joints) - 1}"
        )
    return found


def _cut(
    thing: ObjectMesh,
    requests: Sequence[Request],
    order: Sequence[int],
    parents: Sequence[int],
    masks: Sequence[np.ndarray],
    ranked: Sequence[tuple[Joint, ...]],
) -> Articulation:
    """Links, the holes between them closed."""
    given = [requests[index].name or requests[index].part for index in order]
    names = make_distinct(
        [BODY, *(_to_link_name(name, number) for number, name in enumerate(given, 1))], taken=["world"]
    )
    places = {index: place for place, index in enumerate(order, 1)} | {-1: 0}
    owner = np.zeros(len(thing.triangles), np.int64)  # which link each triangle of what is left belongs to
    for index in order:
        owner[masks[index]] = places[index]
    left, pieces = thing, {}
    for index in reversed(order):
        mine = owner == places[index]
        left, pieces[index] = cut_object(left, mine)
        caps = len(left.triangles) - int((~mine).sum())
        owner = np.r_[owner[~mine], np.full(caps, places[parents[index]])]
    links = [Link(names[0], left.vertices, left.mesh)]
    for index, name, joints in zip(order, names[1:], ranked):
        part = pieces[index]
        joint = joints[requests[index].candidate]
        if not joint.span > 0:
            raise UserError(
                f"{thing.path}: the joint of {requests[index].part!r} has no range, expected one that moves"
            )
        links.append(Link(name, part.vertices, part.mesh, places[parents[index]], joint))
    return Articulation(tuple(links))


def _to_link_name(text: str, number: int) -> str:
    """A name for files and XML elements: plain letters, digits, "_", "." and "-"."""
    kind, colon, rest = text.partition(":")
    plain = unicodedata.normalize("NFKD", rest if colon and kind in ("node", "material") else text)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", plain.encode("ascii", "ignore").decode()).strip("_.-")[:40]
    return name if name and name[0].isalpha() else f"part_{name or number}"


def _find_parents(requests: Sequence[Request]) -> list[int]:
    """Index of the request that each one hangs on; -1: the body."""
    known = {request.part: index for index, request in enumerate(requests)}
    if len(known) < len(requests):
        twice = next(each.part for index, each in enumerate(requests) if known[each.part] != index)
        raise UserError(f"the part {twice!r} is asked for twice, expected once")
    for index, request in enumerate(requests):
        if request.name and known.setdefault(request.name, index) != index:
            raise UserError(f"two parts go by {request.name!r}, expected another name for {request.part!r}")
    parents = []
    for request in requests:
        if request.parent in ("", BODY) and request.parent not in known:
            parents.append(-1)
        elif request.parent in known:
            parents.append(known[request.parent])
        else:
            near = difflib.get_close_matches(request.parent, [BODY, *known], n=1)
            expected = f"{near[0]!r}?" if near else f"{BODY}, or one of the parts {', '.join(known)}"
            raise UserError(f"the parent of {request.part!r} is {request.parent!r}, expected {expected}")
    return parents


def _find_masks(thing: ObjectMesh, requests: Sequence[Request]) -> list[np.ndarray]:
    """Triangles [F] of each part without those of parts inside it (a knob that is part of a door's node)."""
    whole = [find_part_or_suggest(thing, request.part) for request in requests]
    masks = []
    for index, mask in enumerate(whole):
        own = mask.copy()
        for other, inner in enumerate(whole):
            both = mask & inner
            if other == index or not both.any():
                continue
            if np.array_equal(mask, inner) or not ((both == inner).all() or (both == mask).all()):
                raise UserError(
                    f"{thing.path}: {requests[index].part!r} and {requests[other].part!r} share {both.sum()} faces, "
                    "expected parts apart or one inside the other"
                )
            if (both == inner).all():
                own &= ~inner
        if not own.any():
            raise UserError(f"{thing.path}: nothing is left of {requests[index].part!r} without the parts inside it")
        masks.append(own)
    return masks


def find_part_or_suggest(thing: ObjectMesh, part: str) -> np.ndarray:
    """`find_part`, whose error names the nearest part where one is near."""
    try:
        return find_part(thing, part)
    except UserError as error:
        choices = list_parts(thing)
        near = difflib.get_close_matches(part, [c.name for c in choices] + [c.label for c in choices], n=1)
        if "no part " not in str(error) or not near:
            raise
        raise UserError(f"{error}; did you mean {near[0]!r}?") from None


def _sort(requests: Sequence[Request], parents: Sequence[int]) -> list[int]:
    """Parents before their children, else as given."""
    order: list[int] = []
    while len(order) < len(requests):
        ready = [
            index for index, parent in enumerate(parents) if index not in order and (parent < 0 or parent in order)
        ]
        if not ready:
            ring = [requests[index].part for index in range(len(requests)) if index not in order]
            raise UserError(f"the parts {', '.join(ring)} hang on each other in a ring, expected one on the body")
        order.append(ready[0])
    return order


def _add_children(index: int, parents: Sequence[int], masks: Sequence[np.ndarray]) -> np.ndarray:
    """Triangles [F] of a part and of all that hang on it."""
    mask = masks[index].copy()
    for child, parent in enumerate(parents):
        if parent == index:
            mask |= _add_children(child, parents, masks)
    return mask
