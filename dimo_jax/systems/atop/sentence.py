"""What a sentence says about a motion: which kind it is and which way it goes. Words alone, no weights.

A kind is more than a type of joint: a door and a knob both turn, but about other lines. Every word that is known votes
with the chances of the kinds (a verb and the noun of the part weigh alike); words are those of everyday things, of no
data set. With `encode`, a sentence without any known word is compared with a phrase for each kind.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

KINDS = ("hinge", "spin", "crank", "lever", "pull", "slide", "press")
TURNING = ("hinge", "spin", "crank", "lever")  # the others are prismatic
_FLOOR = 0.01  # chance of a kind that a word does not name

# Verbs, by the kinds that they fit. "open" and "close" fit whatever opens.
_VERBS = {
    "open close shut": {"hinge": 0.55, "pull": 0.25, "slide": 0.15, "lever": 0.03, "spin": 0.02},
    "pull draw": {"pull": 0.5, "lever": 0.3, "hinge": 0.12, "slide": 0.05},
    "push": {"press": 0.4, "hinge": 0.2, "slide": 0.2, "lever": 0.1, "pull": 0.1},
    "press depress click": {"press": 0.85, "lever": 0.1},
    "squeeze": {"lever": 0.6, "press": 0.35},
    "slide": {"slide": 0.8, "pull": 0.2},
    "extend retract extrude insert eject remove": {"pull": 0.75, "slide": 0.2},
    "turn rotate": {"spin": 0.45, "crank": 0.4, "lever": 0.08, "hinge": 0.06},
    "twist screw unscrew spin roll wind swivel revolve dial": {"spin": 0.75, "crank": 0.2, "lever": 0.02},
    "flip toggle switch": {"lever": 0.6, "hinge": 0.25, "press": 0.1, "slide": 0.05},
    "fold unfold swing": {"hinge": 0.9, "lever": 0.08},
    "tilt tip lean": {"hinge": 0.5, "lever": 0.45},
    "lift raise lower": {"hinge": 0.5, "slide": 0.25, "lever": 0.15, "pull": 0.1},
    "lock unlock": {"crank": 0.5, "spin": 0.3, "slide": 0.1, "lever": 0.08},
}
# Nouns of the part.
_NOUNS = {
    "door gate hatch shutter": {"hinge": 0.85, "slide": 0.14},
    "flap lid cover visor trunk hood bonnet laptop screen display tailgate clamshell": {"hinge": 0.9, "slide": 0.05},
    "cap": {"hinge": 0.3, "spin": 0.4, "pull": 0.25},
    "page leaf book blade wing arm jaw leg seat": {"hinge": 0.7, "lever": 0.25},
    "drawer tray rack shelf crate bin": {"pull": 0.92, "hinge": 0.05, "slide": 0.03},
    "basket plunger piston bolt pin plug": {"pull": 0.75, "press": 0.12, "slide": 0.12},
    "window panel sash pane": {"slide": 0.55, "hinge": 0.42},
    "slider latch slide zipper": {"slide": 0.7, "lever": 0.2, "pull": 0.08},
    "bar rod beam hand pointer needle": {"crank": 0.3, "slide": 0.25, "pull": 0.2, "lever": 0.2},
    "button key keycap": {"press": 0.95, "spin": 0.01},
    "touchpad trackpad pad": {"press": 0.8, "lever": 0.1},
    "pedal": {"lever": 0.95, "press": 0.04},
    "trigger": {"lever": 0.95},
    "grip bumper": {"lever": 0.5, "press": 0.4},
    "joystick thumbstick stick throttle": {"lever": 0.85, "spin": 0.05, "press": 0.05},
    "lever switch toggle rocker breaker brake hammer": {"lever": 0.85, "crank": 0.08, "hinge": 0.04},
    "handle": {"crank": 0.45, "lever": 0.3, "spin": 0.05, "press": 0.08, "pull": 0.08},
    "faucet tap spout crank": {"crank": 0.65, "spin": 0.2, "lever": 0.14},
    "lock": {"crank": 0.6, "spin": 0.3, "slide": 0.05},
    "knob dial wheel valve ring disc disk propeller fan rotor gear pulley turntable roller bulb hub screw nut "
    "steering globe": {"spin": 0.9, "crank": 0.06},
}  # fmt: skip
# Whole phrases that outweigh the single words.
_PHRASES = {
    r"\bslid(e|ing)\b.*\b(door|window|panel|lid|drawer)s?\b": {"slide": 0.8, "pull": 0.18},
    r"\bdoor (handle|knob|latch|lever)\b|\b(latch|handle) of the door\b": {"crank": 0.75, "spin": 0.15, "lever": 0.08},
    r"\bpress\b.*\b(handle|lever|bar|lid)\b": {"press": 0.65, "lever": 0.35},
    r"\bpush\b.*\b(button|key)\b|\bpush in\b": {"press": 0.95},
    r"\bpull out\b|\bout of\b": {"pull": 0.9},
    r"\bswivel\b|\bseat of the (chair|stool)\b": {"spin": 0.8, "hinge": 0.15},
    r"\b(jar|bottle|thermos)( s)?( cap| lid)? $|\bunscrew\b": {"spin": 0.9},
    r"\b(grip|trigger|squeeze) button\b": {"lever": 0.7, "press": 0.3},
}
# Where the hinge of a panel lies, by the thing that it belongs to.
_HINGES = {
    "bottom": "dishwasher oven mailbox stove range toaster tailgate",
    "top": "laptop lid hood bonnet trunk toilet chest piano awning flap cover bin hatch trash",
    "side": "door fridge refrigerator microwave cabinet wardrobe closet cupboard gate safe freezer washer dryer locker "
    "shutter book machine",
}
_DIRECTIONS = ("up", "down", "left", "right", "in", "out", "forward", "back", "clockwise", "counterclockwise")
_VERTICAL = {"lift": "up", "raise": "up", "lower": "down"}
# What lets gas, water or a thread go is opened against the clock, everywhere: right-handed threads.
_THREADS = "stove burner hob cooktop gas valve tap faucet spigot hydrant cap bottle jar unscrew loosen"
_TIGHTENS = "close shut tighten fasten screw"
_PHRASE_OF = {
    "hinge": "swing the door or lid open around its hinge",
    "spin": "rotate the round knob or wheel around its own axis",
    "crank": "turn the handle, tap or lock on its shaft",
    "lever": "tilt the lever, switch or trigger about its pivot",
    "pull": "pull the drawer straight out",
    "slide": "slide the panel sideways along its rail",
    "press": "press the button in",
}


@dataclass(frozen=True)
class Meaning:
    """What was understood."""

    chances: dict[str, float]  # of KINDS, sum 1
    hinge: str = ""  # "bottom", "top", "side", or "" where nothing tells
    directions: frozenset[str] = field(default_factory=frozenset)  # of _DIRECTIONS, named or meant
    closes: bool = False  # the sentence asks for the way that closes
    words: tuple[str, ...] = ()  # those that were known
    verb: str = ""  # the first that was known
    verb_turns: float = 0.5  # chance that this verb alone gives to TURNING kinds


def read_sentence(sentence: str, encode: Callable[[Sequence[str]], np.ndarray] | None = None) -> Meaning:
    """The kinds of motion that a sentence may mean.

    Args:
      sentence: any text; unknown words say nothing.
      encode: maps texts to vectors [n,D], used where no word is known (see `networks.bert`).
    """
    text = " " + " ".join(re.findall(r"[a-z]+", sentence.lower().replace("anti-clockwise", "counterclockwise"))) + " "
    text = text.replace(" anticlockwise ", " counterclockwise ").replace(" counter clockwise ", " counterclockwise ")
    words = [_stem(word) for word in text.split()]
    votes: list[dict[str, float]] = []
    verb = next((word for word in words if _look_up(_VERBS, word)), None)
    noun = _part_noun(words)
    phrase = next((chances for pattern, chances in _PHRASES.items() if re.search(pattern, text)), None)
    if phrase is not None:
        votes = [phrase]  # it says more than its words
    else:
        for word, table in ((verb, _VERBS), (noun, _NOUNS)):
            if word is not None:
                votes.append(_look_up(table, word) or {})
    if votes:
        chances = _multiply(votes)
    else:
        chances = _compare(sentence, encode) if encode is not None else {kind: 1 / len(KINDS) for kind in KINDS}
    return Meaning(
        chances=chances,
        hinge=_find_hinge(words),
        directions=_find_ways(words),
        closes=bool({"close", "shut"} & set(words)),
        words=tuple(word for word in words if _look_up(_VERBS, word) or _look_up(_NOUNS, word)),
        verb=verb or "",
        verb_turns=_share_turning(_look_up(_VERBS, verb) or {}) if verb else 0.5,
    )


def _share_turning(chances: dict[str, float]) -> float:
    return sum(chances.get(kind, 0.0) for kind in TURNING) / sum(chances.values())


def _stem(word: str) -> str:
    for ending, instead in (("sliding", "slide"), ("upwards", "up"), ("downwards", "down"), ("inwards", "in")):
        if word == ending:
            return instead
    for known in (*_all_words(_VERBS), *_all_words(_NOUNS)):
        if word in (known, known + "s", known + "ed", known + "ing", known + "es"):
            return known
    return {"outwards": "out", "upward": "up", "downward": "down", "backward": "back", "forwards": "forward"}.get(
        word, word
    )


def _all_words(table: dict[str, dict[str, float]]) -> list[str]:
    return [word for words in table for word in words.split()]


def _look_up(table: dict[str, dict[str, float]], word: str) -> dict[str, float] | None:
    return next((chances for words, chances in table.items() if word in words.split()), None)


def _part_noun(words: Sequence[str]) -> str | None:
    """The noun of the part: the last known one before a preposition, else the first known one."""
    breaks = {"of", "on", "at", "below", "above", "under", "from", "by", "with", "behind", "beside", "near", "inside"}
    end = next((index for index, word in enumerate(words) if word in breaks), len(words))
    start = 1 if words and _look_up(_VERBS, words[0]) else 0  # "switch the light on": the first word is the verb
    before = [word for word in words[start:end] if _look_up(_NOUNS, word)]
    after = [word for word in words[end:] if _look_up(_NOUNS, word)]
    return before[-1] if before else (after[0] if after else None)


def _multiply(votes: Sequence[dict[str, float]]) -> dict[str, float]:
    """The product of the votes, each with a floor, to sum 1."""
    logs = {kind: sum(math.log(max(vote.get(kind, 0.0), _FLOOR)) for vote in votes) for kind in KINDS}
    top = max(logs.values())
    scores = {kind: math.exp(value - top) for kind, value in logs.items()}
    total = sum(scores.values())
    return {kind: max(score / total, 1e-4) for kind, score in scores.items()}


def _compare(sentence: str, encode: Callable[[Sequence[str]], np.ndarray]) -> dict[str, float]:
    vectors = np.asarray(encode([sentence, *(_PHRASE_OF[kind] for kind in KINDS)]), np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    scores = np.exp((vectors[1:] @ vectors[0]) / 0.1)
    return {kind: float(score) for kind, score in zip(KINDS, scores / scores.sum())}


def _find_ways(words: Sequence[str]) -> frozenset[str]:
    """The directions that are named or that a verb means, and the way that threads open."""
    ways = {word for word in words if word in _DIRECTIONS}
    verb = next((word for word in words if _look_up(_VERBS, word)), "")
    if verb in _VERTICAL:
        ways.add(_VERTICAL[verb])
    known, clock = set(words), {"clockwise", "counterclockwise"} & ways
    if known & set(_THREADS.split()) and not known & set(_TIGHTENS.split()) and not clock:
        ways.add("counterclockwise")
    return frozenset(ways)


def _find_hinge(words: Sequence[str]) -> str:
    """The place of the hinge: that of the more special word, so a dishwasher's door is a dishwasher's."""
    return next((place for place, known in _HINGES.items() if set(known.split()) & set(words)), "")
