"""What speaks against a motion that was found for a sentence, said before anybody believes it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dimo_jax.data.captions import FILE, read_captions
from dimo_jax.systems.dimo.projector import unit

# Cosine to the nearest caption: the puppet's held-out sentences have 0.53 or more, what it does not do 0.36 or less.
LEAST_LIKE = 0.4


def captions_file(config: ConfigDict) -> Path | None:
    """The file in which users edit the captions of a run; None where its data come from no folder."""
    path = config.data.get("path") if "data" in config else ""
    return Path(path) / FILE if path and not config.data.get("reader") else None


def refresh_captions(facts: Mapping[str, Any], file: Path | None) -> Mapping[str, Any]:
    """A run's facts with the sentences that its dataset has now, where its folder can be seen from here.

    Raises:
      UserError: the file is damaged.
    """
    if file is None or not file.is_file():
        return facts
    given = facts.get("paraphrases") or [[caption] for caption in facts["captions"]]
    found = read_captions(file.parent, facts["names"], [tuple(sentences) for sentences in given])
    return {**facts, "captions": [sentences[0] for sentences in found], "paraphrases": found}


def doubt_captions(names: Sequence[str], sentences: Sequence[Sequence[str]], file: Path | None) -> str:
    """That captions of motions are the mere names of their clips, and which file mends that; "" where none is.

    Args:
      names: N motions.
      sentences: of each, that train.
      file: see `captions_file`.
    """
    bare = [each[0] for name, each in zip(names, sentences, strict=True) if all(_is_name(s, name) for s in each)]
    if not bare:
        return ""
    where = file or f"the dataset's {FILE}"
    return (
        f"the captions of {len(bare)} of {len(names)} motions are mere names of clips, such as {bare[0]!r}, of which "
        f"sentences are hard to learn: say in {where} what they show"
    )


def _is_name(sentence: str, name: str) -> bool:
    # An importer leaves out a prefix such as "Armature|", or adds a number.
    said, called = ("".join(re.findall(r"[^\W_]", text.lower())) for text in (sentence, name))
    return said in called


def find_least_likeness(embeddings: np.ndarray, owners: np.ndarray) -> float:
    """The cosine below which a sentence is unlike all others: what sentences of different motions have on average.

    So encoders to which all sentences are alike (BERT without fine-tuning) are not taken at their word.

    Args:
      embeddings: [S,E] of the training sentences.
      owners: [S] the motion of each.
    """
    units = np.asarray(unit(jnp.asarray(embeddings)))
    others = owners[:, None] != owners[None]
    cosines = (units @ units.T)[others]
    return max(LEAST_LIKE, float(cosines.mean()) if cosines.size else LEAST_LIKE)


def doubt_sentence(cosine: float, least: float, nearest: str, num_motions: int, file: Path | None) -> str:
    """That a sentence is unlike everything that training said, and what helps; "" where it is not.

    Args:
      cosine: to the nearest training sentence.
      least: of `find_least_likeness`.
      nearest: that sentence.
      num_motions: how many motions there are.
      file: see `captions_file`.
    """
    if cosine >= least:
        return ""
    where = f"the captions are in {file}" if file else "--app=status lists the captions"
    return (
        f"nothing that training said of its {num_motions} motions is like this sentence: the nearest, {nearest!r}, has "
        f"a similarity of {cosine:.2f}, expected {least:.2f} or more; what is shown means little ({where})"
    )
