"""The joint of a part from its shape and a sentence alone: candidates, scored, ranked, with calibrated confidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dimo_jax.geometry.joint import PRISMATIC, REVOLUTE, Joint, make_joint
from dimo_jax.meshes.objects import ObjectMesh
from dimo_jax.systems.atop.candidates import Candidate, propose
from dimo_jax.systems.atop.evidence import Evidence, collide, find_handle, gather, select
from dimo_jax.systems.atop.limits import find_range
from dimo_jax.systems.atop.scores import View, score_all, trust
from dimo_jax.systems.atop.sentence import KINDS, TURNING, read_sentence
from dimo_jax.systems.atop.setting import Setting, make_setting

TEMPERATURE = 0.75  # the one number that was fitted, to the confidences of docs/articulate.md
NOTHING = -6.0  # score of "no plausible joint"
FLOATS, CONTRADICTS = 0.03, 4.0  # a gap that is said, in diagonals; a difference of scores that is said
UNLIKELY = 0.05  # chance that a verb gives to the type that was found, below which that is said
MOST, MOST_OF_KIND = 50, 4  # candidates that are tried for collisions, at least so many of each kind
SAME_ANGLE, SAME_LINE = 0.25, 0.05  # radians, of the diagonal: joints that count as one


def find_joints(
    body: ObjectMesh,
    part: ObjectMesh,
    sentence: str = "",
    up: np.ndarray | None = None,
    *,
    encode: Callable[[Sequence[str]], np.ndarray] | None = None,
    most: int = 10,
) -> list[Joint]:
    """Ranked joints, the best first, in the coordinates of the meshes.

    Args:
      body: what stands still.
      part: what moves, at rest.
      sentence: what shall happen, such as "open the door"; may be empty.
      up: [3] the direction against gravity, where it is known.
      encode: a sentence encoder, used where no word of the sentence is known.
      most: length of the list.

    Returns:
      Joints with the chance that each is right; empty where nothing is plausible (see `explain` for why).

    Raises:
      UserError: body or part has no area or numbers that are not finite.
    """
    return explain(body, part, sentence, up, encode=encode, most=most).joints


@dataclass(frozen=True)
class Finding:
    """What was found, and what is doubtful about it."""

    joints: list[Joint]  # the best first; empty: no plausible joint
    doubts: tuple[str, ...]  # lines for the user


def explain(
    body: ObjectMesh,
    part: ObjectMesh,
    sentence: str = "",
    up: np.ndarray | None = None,
    *,
    encode: Callable[[Sequence[str]], np.ndarray] | None = None,
    most: int = 10,
) -> Finding:
    """The same as `find_joints`, with lines about a part that floats, and a sentence that the shape contradicts."""
    view, found = look(body, part, sentence, up, encode=encode)
    setting, evidence = view.setting, view.evidence
    scores = score_all(view)
    ranked = rank(view, scores)[:most]
    joints = [
        make_joint(
            REVOLUTE if evidence.turns[each.row] else PRISMATIC,
            (1 - 2 * each.side) * evidence.axes[each.row],
            setting.center + setting.scale * evidence.origins[each.row],
            find_range(view, each.row, each.side, KINDS[each.kind]),
            confidence=each.confidence,
            source=f"{KINDS[each.kind]}: {found[each.row].source}",
        )
        for each in ranked
    ]
    plausible = ranked[0].score > NOTHING
    return Finding(joints if plausible else [], tuple(find_doubts(view, scores, ranked[0])))


def find_doubts(view: View, scores: np.ndarray, first: Ranked) -> list[str]:
    """Lines about what speaks against the best joint."""
    lines = []
    if first.score <= NOTHING:
        lines.append("no plausible joint: every motion collides, floats or fits no kind; the part may be the wrong one")
    gap = float(view.setting.gap.min())
    if gap > FLOATS:
        lines.append(f"the part does not touch the body: the gap is {100 * gap:.1f} % of the diagonal")
    chances = np.log([view.meaning.chances[kind] for kind in KINDS])
    shape = (scores - chances).max(axis=(0, 1))  # what each kind would score without the sentence
    best = int(np.argmax(shape))
    if shape[best] - shape[first.kind] > CONTRADICTS:
        lines.append(
            f"the sentence asks for {KINDS[first.kind]} (score {shape[first.kind]:.1f} by shape alone), "
            f"the shape speaks for {KINDS[best]} ({shape[best]:.1f})"
        )
    turns = KINDS[first.kind] in TURNING
    if (view.meaning.verb_turns if turns else 1 - view.meaning.verb_turns) < UNLIKELY:
        told, found = ("slides", "turns") if turns else ("turns", "slides")
        lines.append(
            f"the sentence says {view.meaning.verb!r}, which {told}, but the best joint {found} ({KINDS[first.kind]})"
        )
    return lines


def look(
    body: ObjectMesh,
    part: ObjectMesh,
    sentence: str,
    up: np.ndarray | None,
    *,
    encode: Callable[[Sequence[str]], np.ndarray] | None = None,
) -> tuple[View, list[Candidate]]:
    """The candidates that are worth a look, with all evidence: the best if nothing stood in the way."""
    setting = make_setting(body, part, up)
    found = propose(setting)
    view = View(setting, gather(setting, found), find_handle(setting), read_sentence(sentence, encode), trust(found))
    best = score_all(view).max(axis=1)  # [C,kinds]
    first = np.argsort(-best.max(axis=1), kind="stable")[:MOST]
    each = np.argsort(-best, axis=0, kind="stable")[:MOST_OF_KIND]
    rows = np.unique(np.concatenate([first, each.reshape(-1)]))
    found = [found[row] for row in rows]
    evidence = collide(setting, select(view.evidence, rows))
    return replace(view, evidence=evidence, exact=trust(found)), found


@dataclass(frozen=True)
class Ranked:
    """One entry of the ranking."""

    row: int  # of the candidates
    side: int  # 0 along its axis, 1 against it
    kind: int  # of KINDS
    score: float
    confidence: float


def rank(view: View, scores: np.ndarray | None = None) -> list[Ranked]:
    """The best motion of each group of joints that count as one, and its chance against all others and none."""
    scores = score_all(view) if scores is None else scores
    flat = np.argsort(-scores, axis=None)
    order = np.stack(np.unravel_index(flat, scores.shape), axis=1)
    values = scores.reshape(-1)[flat]
    keep = values > values[0] - 12
    order, values = order[keep], values[keep]
    weights = np.exp((values - values[0]) / TEMPERATURE)
    ranked: list[Ranked] = []
    taken = np.zeros(len(order), bool)
    while not taken.all() and len(ranked) < 20:
        lead = int((~taken).argmax())
        row, side, kind = (int(each) for each in order[lead])
        same = ~taken & alike(view.setting, view.evidence, row, order[:, 0])
        taken |= same
        ranked.append(Ranked(row, side, kind, float(values[lead]), float(weights[same].max())))
    total = sum(each.confidence for each in ranked) + float(np.exp((NOTHING - values[0]) / TEMPERATURE))
    return [Ranked(each.row, each.side, each.kind, each.score, each.confidence / total) for each in ranked]


def alike(setting: Setting, evidence: Evidence, row: int, rows: np.ndarray) -> np.ndarray:
    """[n] bool: which candidates `rows` [n] are the same joint as `row`, within the tolerances of success."""
    e = evidence
    same = (e.turns[rows] == e.turns[row]) & (np.abs(e.axes[rows] @ e.axes[row]) > np.cos(SAME_ANGLE))
    if e.turns[row]:
        same &= np.linalg.norm(e.origins[rows] - e.origins[row], axis=1) < SAME_LINE
    return same
