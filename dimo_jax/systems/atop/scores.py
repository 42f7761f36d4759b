"""How well a signed candidate fits each kind of motion: sums of penalties, in units of log probability.

Each term is 0 where the evidence is as it should be and falls to minus its weight. The weights were set by hand, by
how often the thing that a term asks for is true of furniture, appliances and tools, not fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimo_jax.systems.atop.candidates import Candidate
from dimo_jax.systems.atop.evidence import ANGLES, SLIDES, Evidence, Handle
from dimo_jax.systems.atop.sentence import KINDS, TURNING, Meaning
from dimo_jax.systems.atop.setting import Setting

SIGNS = np.array([1.0, -1.0])


@dataclass(frozen=True)
class View:
    """What the scores look at together."""

    setting: Setting
    evidence: Evidence
    handle: Handle
    meaning: Meaning
    exact: np.ndarray  # [C] log chance of the sources of the candidates' directions, see `trust`


def score_all(view: View) -> np.ndarray:
    """Log scores [C,2,kinds] of both ways of all candidates, in the order of KINDS; -inf where the type is another."""
    functions = {
        "hinge": hinge,
        "spin": spin,
        "crank": crank,
        "lever": lever,
        "pull": pull,
        "slide": slide,
        "press": press,
    }
    turns = view.evidence.turns
    scores = np.full((len(turns), 2, len(KINDS)), -np.inf)
    for index, kind in enumerate(KINDS):
        mine = turns if kind in TURNING else ~turns
        values = functions[kind](view) + view.exact[:, None] + np.log(view.meaning.chances[kind])
        scores[mine, :, index] = values[mine]
    return scores


def trust(found: Sequence[Candidate]) -> np.ndarray:
    """[C] how exact the sources of directions are: faces and gravity are meant, principal axes just happen."""
    costs = {"principal": 1.2, "box": 0.4, "level": 0.5, "round": 0.2, "mirror": 0.1}
    return np.array([-costs.get(each.source.split()[0], 0.0) for each in found])


def over(values: Any, low: float, high: float) -> Any:
    """0 up to `low`, 1 from `high` on, a straight line between."""
    return np.clip((values - low) / (high - low), 0, 1)


def _up_share(view: View) -> np.ndarray | None:
    """[C] |cosine| between axes and up."""
    up = view.setting.up
    return None if up is None else np.abs(view.evidence.axes @ up)


def _blocked_at(view: View, angle: float, slide: np.ndarray) -> np.ndarray:
    """[C,2] blocked share when turned by `angle`, or moved by `slide` [C]."""
    evidence = view.evidence
    at_angle = np.searchsorted(ANGLES, angle)
    at_slide = np.minimum(np.searchsorted(SLIDES, slide), len(SLIDES) - 1)
    index = np.where(evidence.turns, at_angle, at_slide)
    return np.take_along_axis(evidence.blocked, index[:, None, None], axis=2)[..., 0]


def _velocity(view: View) -> np.ndarray:
    """[C,2,3] direction in which the middle of the part starts to move."""
    evidence = view.evidence
    turn = np.cross(evidence.axes, view.setting.part_center - evidence.origins)
    turn = turn / np.maximum(np.linalg.norm(turn, axis=1, keepdims=True), 1e-9)
    start = np.where(evidence.turns[:, None], turn, evidence.axes)
    return SIGNS[None, :, None] * start[:, None]


def _directions(view: View) -> np.ndarray:
    """[C,2] what "up" and "down" say about the way."""
    up, meaning = view.setting.up, view.meaning
    total = np.zeros((len(view.evidence.turns), 2))
    velocity = _velocity(view)
    if up is not None:
        total += 2.0 * ("up" in meaning.directions) * (velocity @ up)
        total -= 2.0 * ("down" in meaning.directions) * (velocity @ up)
    return total


def hinge(view: View) -> np.ndarray:
    """A panel that turns about one of its edges, away from the body."""
    e, setting, handle = view.evidence, view.setting, view.handle
    score = -3.0 * over(np.abs(e.axes @ handle.outward), 0.1, 0.6)
    score = score - 3.0 * over(-e.eccentric, -0.42, -0.15)
    apart = 3.0 * over(e.outside, 0.1, 0.4) + 2.5 * over(e.near_contact, 0.06, 0.3)
    score = score - np.where(e.post, 0.5 * apart - 1.5, apart)  # a post holds the hinge beside the part
    score = score + _hinge_place(view) + _opposite_handle(view) + 1.0 * e.shaft
    # What touches along a line alone, as a lid that stands ajar, is held there; of places alike the nearest holds it.
    score = score - 2.0 * _touch(setting) * _thin_contact(setting) * over(e.contact_off, 0.1, 0.4)
    score = score - 0.4 * over(e.near_contact, 0.0, 0.1)
    total = score[:, None] - 4.0 * over(_blocked_at(view, np.deg2rad(20), e.length), 0.01, 0.15)
    total = total - 2.0 * over(-e.free, -np.deg2rad(70), -np.deg2rad(15)) - 1.5 * over(e.kept, 0.01, 0.06)
    opens = _velocity(view) @ handle.outward
    if view.meaning.closes:
        opens = -(_velocity(view) @ _from_body(setting))
    other = _blocked_at(view, np.deg2rad(20), e.length)[:, ::-1]
    return total + 1.0 * np.clip(opens, -1, 1) + 1.0 * over(other, 0.02, 0.15) + _directions(view)


def _from_body(setting: Setting) -> np.ndarray:
    away = setting.part_center - setting.body.points.mean(axis=0)
    return away / max(float(np.linalg.norm(away)), 1e-9)


def _hinge_place(view: View) -> np.ndarray:
    """[C] upright, at the bottom, or level, as the thing asks for; without up, along the longer side."""
    e, setting, meaning = view.evidence, view.setting, view.meaning
    share = _up_share(view)
    across = np.maximum(e.reach, 1e-6)
    if share is None or setting.up is None:
        return -0.8 * over(across / np.maximum(e.length, 1e-6), 1.1, 2.0)
    below = (setting.part_center - e.origins) @ setting.up / across
    if meaning.hinge == "bottom":
        return -2.5 * over(share, 0.2, 0.7) - 2.0 * over(-below, -0.25, 0.2)
    if meaning.hinge == "top":
        return -2.0 * over(share, 0.2, 0.7)
    if meaning.hinge == "side":
        return -2.5 * over(-share, -0.9, -0.4)
    return -0.5 * over(across / np.maximum(e.length, 1e-6), 1.1, 2.0)


def _opposite_handle(view: View) -> np.ndarray:
    """[C] whether the axis lies on the other side of the panel than the handle, and along it."""
    e, handle = view.evidence, view.handle
    size = float(np.linalg.norm(handle.offset))
    arm = e.origins - view.setting.part_center
    arm = arm - np.einsum("cd,cd->c", arm, e.axes)[:, None] * e.axes
    cosine = arm @ handle.offset / np.maximum(np.linalg.norm(arm, axis=1) * size, 1e-9)
    across = float(np.linalg.norm(handle.bar)) - np.abs(e.axes @ handle.bar)  # bars run along the hinge
    return -1.8 * min(1.0, size / 0.06) * over(cosine, -0.3, 0.7) - 0.8 * across


def spin(view: View) -> np.ndarray:
    """A knob, wheel or valve that turns about its own axis, which goes through its contact with the body."""
    e, setting = view.evidence, view.setting
    away = setting.part_center - setting.contact.mean(axis=0)
    size = float(np.linalg.norm(away))
    along = np.abs(e.axes @ away) / max(size, 1e-9)
    # What sits on a post turns about it, whatever its shape.
    score = (1 - 0.8 * e.post) * (-3.0 * over(e.asymmetry, 0.03, 0.4) - 2.0 * over(e.eccentric, 0.15, 0.6))
    place = 2.0 * over(e.contact_off, 0.1, 0.6) + 1.5 * min(1.0, size / 0.04) * over(-along, -0.9, -0.3)
    score = score - _touch(setting) * place
    share = _up_share(view)
    if share is not None and {"faucet", "tap", "spout", "valve"} & set(view.meaning.words):
        score = score - 0.8 * over(-share, -0.9, -0.3)
    both = _blocked_at(view, np.deg2rad(20), e.length).max(axis=1)
    total = (score - 3.0 * over(both, 0.02, 0.2))[:, None] - 1.0 * over(e.kept, 0.01, 0.06)
    return total + 0.3 * over(e.free, np.deg2rad(20), np.deg2rad(90)) + 0.3 * _clockwise(view) + _directions(view)


def _touch(setting: Setting) -> float:
    """1 where the part touches the body, 0 where it floats and its nearest points tell nothing of a bearing."""
    return 1 - float(over(setting.gap.min(), 0.005, 0.02))


def _thin_contact(setting: Setting) -> float:
    """1 where the contact is a line or a spot against the part, 0 where it is spread like the part itself."""
    if len(setting.contact) < 4:
        return 0.0
    spread, whole = (np.linalg.eigvalsh(np.cov(points.T))[1] for points in (setting.contact, setting.part.points))
    return 1 - float(over(np.sqrt(max(spread, 0.0) / max(whole, 1e-12)), 0.1, 0.4))


def crank(view: View) -> np.ndarray:
    """A handle, tap or lock on a shaft that stands out of the body."""
    e, setting = view.evidence, view.setting
    along = np.abs(e.axes @ setting.contact_normal)
    score = -2.5 * over(-np.where(e.shaft, 1, along), -0.92, -0.5)  # what turns in the body tells more than the body
    score = score - 2.0 * _touch(setting) * over(e.contact_off, 0.15, 0.6)
    score = score - 1.5 * over(e.pivot, 0.1, 0.5) - 1.5 * over(e.outside, 0.08, 0.3)
    blocked = _blocked_at(view, np.deg2rad(20), e.length)
    total = score[:, None] - 2.0 * over(blocked, 0.03, 0.25) - 1.0 * over(e.kept, 0.01, 0.06)
    share = _up_share(view)
    if share is not None and {"faucet", "tap", "spout", "valve"} & set(view.meaning.words):
        total = total - 0.8 * over(-share, -0.9, -0.3)[:, None]
    return total + _weight(view) + 0.3 * _clockwise(view) + _directions(view)


def _weight(view: View) -> np.ndarray:
    """[C,2] handles and levers whose arm lies level go down, with the weight of the hand."""
    up = view.setting.up
    if up is None or not {"handle", "lever"} & set(view.meaning.words):
        return np.zeros((len(view.evidence.turns), 2))
    return np.asarray(-0.6 * (_velocity(view) @ up))


def _clockwise(view: View) -> np.ndarray:
    """[C,2] 1 where positive values turn clockwise as seen from outside of the body, -1 where the other way.

    The other way round where the sentence asks for it.
    """
    away = view.evidence.axes @ _from_near(view.setting)
    asked = 1 if "counterclockwise" in view.meaning.directions else -1
    return asked * SIGNS * np.clip(3 * away, -1, 1)[:, None]


def lever(view: View) -> np.ndarray:
    """A lever, switch, handle or trigger that turns about the end by which it is held."""
    e, setting = view.evidence, view.setting
    half = np.sort(setting.box.half)
    long = float(np.clip(half[2] / max(half[1], 1e-6) - 1.2, 0, 1))
    sunk = float(over(setting.touching.mean(), 0.1, 0.35))  # held all around: its deep end tells more than its contact
    stands = float(over(abs(setting.principal[0] @ setting.contact_normal), 0.3, 0.8))
    flat = stands * np.abs(e.axes @ setting.contact_normal)  # what stands out of a surface tilts about a line in it
    score = -2.5 * (1 - sunk) * over(e.contact_off, 0.2, 0.7) - 0.6 * sunk * over(e.root_off, 0.2, 0.7)
    score = score - 1.5 * over(e.near_contact, 0.1, 0.3)
    score = score - 1.8 * ~(e.shaft | e.post) * over(-e.eccentric, -0.45, -0.15) - 2.5 * over(e.outside, 0.1, 0.4)
    score = score - 1.5 * long * over(np.abs(e.axes @ setting.principal[0]), 0.2, 0.7)
    score = score - 1.6 * (1 - sunk) * over(e.pivot, 0.08, 0.5) - 1.0 * over(flat, 0.25, 0.75)
    score = score - 0.6 * over(e.mirror, 0.02, 0.12) - 1.5 * over(-e.tip, -0.8, -0.4)
    blocked = _blocked_at(view, np.deg2rad(10), e.length)
    total = score[:, None] - 1.0 * over(e.kept, 0.01, 0.06) + _weight(view) + _directions(view)
    if {"trigger", "squeeze", "grip", "pedal"} & set(view.meaning.words):  # sinks into the mass that holds it
        velocity = _velocity(view)
        total = total - 0.8 * over(blocked, 0.03, 0.25) - 0.6 * over(velocity @ _from_body(setting), -0.8, 0.3)
        return total - 2.0 * over(velocity @ _from_near(setting), -0.8, 0.2)
    total = total + 0.3 * over(e.free.min(axis=1), np.deg2rad(10), np.deg2rad(45))[:, None]  # levers swing both ways
    return total - 2.5 * over(blocked, 0.03, 0.25) + 0.5 * over(e.free, np.deg2rad(10), np.deg2rad(80))


def pull(view: View) -> np.ndarray:
    """A drawer: out of the body, by the way that is free, with its front at the front of the body."""
    e, setting = view.evidence, view.setting
    blocked = _blocked_at(view, 0.0, 0.4 * e.length)
    total = -4.0 * over(blocked, 0.01, 0.15) + 1.2 * over(blocked[:, ::-1], 0.02, 0.15)
    behind = np.stack([e.body_span[:, 1] - e.part_span[:, 1], e.part_span[:, 0] - e.body_span[:, 0]], axis=1)
    total = total - 2.5 * over(behind, 0.02, 0.12) - 1.0 * over(e.kept, 0.01, 0.06)
    total = total - 1.5 * over(-e.length / max(2 * setting.box.half.max(), 1e-6), -0.4, -0.05)[:, None]
    share = _up_share(view)
    if share is not None:
        total = total - 1.5 * over(share, 0.2, 0.7)[:, None]
    total = total + 1.0 * np.clip(e.grip - e.grip[:, ::-1], -1, 1)
    return total + _directions(view)


def slide(view: View) -> np.ndarray:
    """A sliding door or window: in its own plane, along the body and inside its extent."""
    e, handle = view.evidence, view.handle
    blocked = _blocked_at(view, 0.0, 0.5 * e.length)
    ahead = np.stack([e.body_span[:, 1] - e.part_span[:, 1], e.part_span[:, 0] - e.body_span[:, 0]], axis=1)
    room = ahead / np.maximum(e.length, 1e-6)[:, None]
    total = -3.5 * over(blocked, 0.01, 0.15) - 2.5 * over(-room, -0.5, 0.0) - 1.0 * over(e.kept, 0.01, 0.06)
    total = total - 3.0 * over(np.abs(e.axes @ handle.outward), 0.2, 0.7)[:, None]
    share = _up_share(view)
    if share is not None and not {"up", "down"} & view.meaning.directions:
        total = total - 1.0 * over(share, 0.3, 0.8)[:, None]
    return total + _directions(view)


def press(view: View) -> np.ndarray:
    """A button: a short way into the body, along its own axis."""
    e, setting = view.evidence, view.setting
    into = -_from_near(setting)
    toward = _velocity(view) @ into
    asked = _directions(view)
    toward = np.where(np.abs(asked) > 1.5, np.sign(asked), toward)  # words outweigh the guess
    total = 1.5 * np.clip(toward, -1, 1) - 2.0 * over(_blocked_at(view, 0.0, 0.02 + 0 * e.length)[:, ::-1], 0.02, 0.2)
    total = total - 1.5 * over(-np.abs(toward), -0.9, -0.4)
    best = np.full(len(e.turns), 1.0)
    for row in np.flatnonzero(~e.turns):
        same = e.turns & (np.abs(e.axes @ e.axes[row]) > 0.999) & (e.eccentric < 0.2)
        best[row] = e.asymmetry[same].min(initial=1.0)
    return total - 1.5 * over(best, 0.03, 0.4)[:, None] + asked


def _from_near(setting: Setting) -> np.ndarray:
    """[3] unit: from the part of the body around the contact to the part."""
    size = float(np.linalg.norm(setting.box.half)) * 2
    middle = setting.contact.mean(axis=0)
    near = setting.body.points[np.linalg.norm(setting.body.points - middle, axis=1) < size]
    base = near.mean(axis=0) if len(near) > 10 else setting.body.points.mean(axis=0)
    away = setting.part_center - base
    return away / max(float(np.linalg.norm(away)), 1e-9)
