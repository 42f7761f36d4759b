"""Sentences from clips' names: "Walking_Backwards" -> "it walks backwards".

Names of clips are verbs with what goes with them, in any order. Verbs become third persons, other known words phrases
after them, and what is not known stays as it is at the end, so that no two names become one sentence unless they mean
one thing. People edit the result (`captions.txt`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dimo_jax.core.names import words_of

VERBS = {
    "attack": "attacks", "bark": "barks", "bite": "bites", "block": "blocks", "blocking": "holds a block",
    "bow": "bows", "cast": "casts a spell", "chase": "chases", "cheer": "cheers", "chop": "chops", "climb": "climbs",
    "crawl": "crawls", "crouch": "crouches", "dance": "dances", "death": "dies and falls", "die": "dies and falls",
    "dodge": "dodges", "drink": "drinks", "duck": "ducks", "eat": "eats", "eating": "eats", "fall": "falls",
    "fetch": "fetches something", "flap": "flaps its wings", "fly": "flies", "flying": "flies", "gallop": "gallops",
    "glide": "glides", "hello": "waves hello", "hit": "is hit", "howl": "howls", "idle": "stands idle",
    "interact": "reaches out and uses something", "jump": "jumps", "kick": "kicks", "land": "lands", "lie": "lies",
    "look": "looks around", "no": "shakes its head", "off": "is switched off", "on": "is switched on", "open": "opens",
    "close": "closes", "pickup": "picks something up", "point": "points", "punch": "punches", "raise": "raises a hand",
    "reload": "reloads", "rest": "rests", "roar": "roars", "roll": "rolls", "run": "runs", "running": "runs",
    "shoot": "shoots", "shooting": "keeps shooting", "sit": "sits", "slash": "slashes", "slice": "slices",
    "sneak": "sneaks", "spellcast": "casts a spell", "spellcasting": "keeps casting a spell", "spin": "spins around",
    "spinning": "keeps spinning around", "stab": "stabs", "standup": "stands up", "strafe": "steps sideways",
    "survey": "looks around", "swim": "swims", "swimming": "swims", "throw": "throws", "trot": "trots", "turn": "turns",
    "use": "uses an item", "walk": "walks", "walking": "walks", "wave": "waves", "yes": "nods", "aiming": "aims",
    "aim": "aims",
}  # fmt: skip
PHRASES = {
    "1h": "with one hand", "2h": "with both hands", "alert": "on the alert", "backward": "backwards",
    "backwards": "backwards", "chair": "on a chair", "diagonal": "across", "down": "down",
    "dualwield": "with two weapons",
    "fast": "fast", "floor": "on the floor", "forward": "forwards", "forwards": "forwards", "gun": "with a gun",
    "headlow": "with its head low", "holding": "holding something", "horizontal": "from side to side",
    "left": "to the left", "long": "for long", "melee": "", "normal": "", "full": "", "item": "", "motion": "",
    "pose": "without moving", "ranged": "with a crossbow", "react": "", "recieve": "", "receive": "",
    "right": "to the right", "short": "shortly", "slow": "slowly", "start": "as a start", "sword": "with a sword",
    "tall": "upright", "unarmed": "with bare hands", "up": "up", "impulse": "in bursts", "out": "out", "of": "of",
    "water": "water", "to": "",
}  # fmt: skip
BESIDE = ("down", "up")  # stand next to the verb
TOGETHER = ("stand up", "pick up", "head low")  # words that a name may write apart
SUBJECT = "it"


def make_sentence(name: str, *, known: Sequence[str] = ()) -> str:
    """A sentence from a clip's name.

    Args:
      name: such as "Armature|Walk_Fwd"; what stands before a bar is left out.
      known: words that are the rig's own name, which clips repeat ("Snake_Attack" of snake.glb).
    """
    text = " ".join(words_of(name.rsplit("|", 1)[-1])).lower()
    text = re.sub(r"\b(\d) h\b", r"\1h", text)
    for pair in TOGETHER:
        text = text.replace(pair, pair.replace(" ", ""))
    text = re.sub(r"\bfwd\b", "forwards", re.sub(r"\bbwd\b", "backwards", text))
    words = [word for word in text.split() if word not in known]
    verbs = [VERBS[word] for word in words if word in VERBS]
    if "idle" in words[1:] and len(verbs) > 1:  # after what brought it there: "Sit_Idle"
        verbs[-1 if words[-1] == "idle" else verbs.index(VERBS["idle"])] = "stays so"
    phrases = [PHRASES[word] for word in sorted(words, key=lambda w: w not in BESIDE) if word in PHRASES]
    versions = [word for word in words if re.fullmatch(r"[a-z]|\d+", word)]
    others = [w for w in words if w not in VERBS and w not in PHRASES and w not in versions]
    if not verbs:
        return f"{SUBJECT} moves: {' '.join(words)}" if words else f"{SUBJECT} moves"
    sentence = " ".join(filter(None, (SUBJECT, " and ".join(dict.fromkeys(verbs)), *phrases, *others)))
    return f"{sentence}, version {' '.join(versions)}" if versions else sentence
