"""What the object could do: a description of the picture, and many distinct motions that start from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.names import make_distinct, to_file_name, words_of
from dimo_jax.networks.bert import load_encoder
from dimo_jax.priors.client import Endpoint, ask, picture_part, text_part

Embed = Callable[[Sequence[str]], np.ndarray]
MAX_LINE = 1000  # characters of a line of a prompts file

_SENTENCE = {"type": "string", "minLength": 3, "maxLength": 600}
META_SCHEMA = {
    "type": "object",
    "properties": {
        "object": {"type": "string", "minLength": 2, "maxLength": 80},
        "appearance": _SENTENCE,
        "expression": _SENTENCE,
        "initial_state": _SENTENCE,
    },
    "required": ["object", "appearance", "expression", "initial_state"],
}
MOTIONS_SCHEMA = {
    "type": "object",
    "properties": {
        "motions": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {
                    "caption": {"type": "string", "minLength": 3, "maxLength": 80},
                    "motion": {"type": "string", "minLength": 3, "maxLength": 400},
                },
                "required": ["caption", "motion"],
            },
        }
    },
    "required": ["motions"],
}
DESCRIBE = (
    "You describe the single object in a picture for a video model. Give `object` (its name in a few words), "
    "`appearance` (shape, colours, materials, clothing, what it holds), `expression` (of its face, or its general mood "
    "or condition where it has none) and `initial_state` (the pose or state that it is in now, limb by limb where it "
    "has any). Describe only what is visible."
)
PROPOSE = (
    "You think of motions that an object could perform, starting exactly from its present state. Each motion takes "
    "about three seconds, moves parts of the object itself in place, needs no other object, and can be seen by a "
    "camera that does not move. Let them differ: single limbs and whole body, left and right, slow and fast, everyday "
    "gestures, sports, moods, transformations of posture. `caption` is a short third-person phrase such as 'lifts the "
    "right hand'; `motion` is one sentence that tells a video model how the motion goes from beginning to end."
)
# Words that a text embedding hardly feels, though they make another motion.
DIRECTIONS = {
    "left": "left", "right": "right", "both": "both", "up": "up", "upward": "up", "upwards": "up", "down": "down",
    "downward": "down", "downwards": "down", "forward": "forward", "forwards": "forward", "backward": "backward",
    "backwards": "backward", "back": "backward", "clockwise": "clockwise", "counterclockwise": "counterclockwise",
    "anticlockwise": "counterclockwise", "counter-clockwise": "counterclockwise", "anti-clockwise": "counterclockwise",
    "open": "open", "opens": "open", "close": "close", "closes": "close",
}  # fmt: skip


@dataclass(frozen=True)
class Motion:
    """One motion to make videos of."""

    name: str  # a folder's name
    caption: str  # "lifts the right hand"
    motion: str  # how it goes, one sentence


def describe_image(endpoint: Endpoint, image: np.ndarray) -> dict[str, str]:
    """The paper's structured "meta" prompt: object, appearance, expression, initial action state.

    Args:
      endpoint: of a model that sees pictures.
      image: [H,W,3] uint8.

    Raises:
      Failure: see `client.ask`.
    """
    parts = [text_part("The picture:"), picture_part(image)]
    answer = ask(endpoint, DESCRIBE, parts, schema=META_SCHEMA, name="description")
    return {key: " ".join(str(answer[key]).split()) for key in META_SCHEMA["required"]}


def propose_motions(
    endpoint: Endpoint, image: np.ndarray, meta: Mapping[str, str], known: Sequence[str], *, count: int
) -> list[dict[str, str]]:
    """Motions that could follow the picture: caption and sentence of each.

    Args:
      endpoint: of a model that sees pictures.
      image: [H,W,3] uint8.
      meta: from `describe_image`.
      known: captions that there are already.
      count: how many to ask for; the answer may have fewer or more.

    Raises:
      Failure: see `client.ask`.
    """
    lines = [f"{name}: {text}" for name, text in meta.items()]
    lines.append(f"Give {count} motions of it.")
    if known:
        lines.append("There are these already; all yours must differ from them: " + "; ".join(known))
    parts = [text_part("\n".join(lines)), picture_part(image)]
    answer = ask(endpoint, PROPOSE, parts, schema=MOTIONS_SCHEMA, name="motions")
    return [{key: " ".join(str(entry[key]).split()) for key in ("caption", "motion")} for entry in answer["motions"]]


def read_prompts(path: str | Path) -> list[dict[str, str]]:
    """Motions from a text file: one a line, "caption" or "caption | sentence"; empty lines and # lines are skipped.

    Raises:
      UserError: no such file, no text, an empty caption, or a line that is too long.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--prompts={path}: cannot be read ({error}), expected a text file, one motion a line"
        ) from error
    motions = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        caption, bar, sentence = (part.strip() for part in line.partition("|"))
        if not caption or (bar and not sentence) or len(line) > MAX_LINE:
            raise UserError(
                f"--prompts={path}: line {number} is {line[:40]!r}, expected 'caption' or 'caption | sentence' of at "
                f"most {MAX_LINE} characters"
            )
        motions.append({"caption": caption, "motion": sentence or caption})
    if not motions:
        raise UserError(f"--prompts={path}: found no motions, expected one a line")
    return motions


def bert_embeddings(sentences: Sequence[str], *, folder: str = "", pooling: str = "auto") -> np.ndarray:
    """Embeddings [S,E] float32 of sentences by the project's BERT (`model.bert.load_encoder`; default MiniLM)."""
    return load_encoder(folder, pooling=pooling).embed(sentences)


def find_duplicates(captions: Sequence[str], *, embed: Embed, threshold: float = 0.75) -> list[str]:
    """Which captions say the same as one before them.

    Two captions are the same where their embeddings' cosine reaches the threshold, unless both name directions that
    differ ("left", "right"), which embeddings hardly tell apart: of all-MiniLM-L6-v2 "lifts the right hand" has 0.98
    with the left hand, and 0.80 with "raises the right hand".

    Args:
      captions: in the order of preference.
      embed: sentences to [S,E].
      threshold: cosine, 0..1.

    Returns:
      Per caption "" where it is new, else the reason.
    """
    plain = [" ".join(words_of(caption.lower())) for caption in captions]
    vectors = np.asarray(embed(list(captions)), np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    ways = [{DIRECTIONS[word] for word in text.split() if word in DIRECTIONS} for text in plain]
    reasons: list[str] = []
    for index in range(len(captions)):
        kept = [i for i in range(index) if not reasons[i]]
        same = next((i for i in kept if plain[i] == plain[index]), None)
        near = [i for i in kept if not (ways[i] and ways[index] and ways[i] != ways[index])]
        best = max(near, key=lambda i: vectors[i] @ vectors[index], default=None)
        if same is not None:
            reasons.append(f"the same as {captions[same]!r}")
        elif best is not None and vectors[best] @ vectors[index] >= threshold:
            reasons.append(f"like {captions[best]!r} (cosine {vectors[best] @ vectors[index]:.2f})")
        else:
            reasons.append("")
    return reasons


def find_repeated(captions: Sequence[str]) -> list[str]:
    """Like `find_duplicates` for captions that a person wrote: only the very same words count."""
    seen: dict[str, str] = {}
    reasons = []
    for caption in captions:
        plain = " ".join(words_of(caption.lower()))
        reasons.append(f"the same as {seen[plain]!r}" if plain in seen else "")
        seen.setdefault(plain, caption)
    return reasons


def name_motion(caption: str, taken: Sequence[str]) -> str:
    """A folder's name for a caption: "lifts the right hand" -> lifts_the_right_hand, with a number if it is taken."""
    plain = to_file_name(caption.lower(), default="motion", keep="", longest=60)
    return make_distinct([plain], taken=taken)[0]


def compose(motion: Motion, meta: Mapping[str, str], *, style: str) -> str:
    """The video model's prompt: what the object looks like, its state, what it does, and how it is filmed."""
    known = [meta[key] for key in ("object", "appearance", "expression", "initial_state") if meta.get(key)]
    sentences = [text.strip().rstrip(".") for text in (*known, motion.motion, style)]
    return ". ".join(text[:1].upper() + text[1:] for text in sentences if text) + "."


def seed_of(name: str, take: int, *, seed: int) -> int:
    """The seed of a video, the same whatever other videos there are: 0 to 2^31 - 1."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}/{take}".encode()).digest()[:4], "big") >> 1


def motions_of(records: Sequence[Mapping[str, Any]]) -> list[Motion]:
    """The kept motions of the manifest's records of step "prompt"."""
    kept = [record for record in records if record["decision"] == "keep"]
    return [Motion(record["item"], record["caption"], record["motion"]) for record in kept]
