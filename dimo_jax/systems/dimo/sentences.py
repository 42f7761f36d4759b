"""What is said of the motions of a run, and how it reaches a model that learns from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from dimo_jax.core.errors import UserError
from dimo_jax.data.dataset import Dataset
from dimo_jax.networks.bert import load_encoder
from dimo_jax.systems.dimo import caption_checks
from dimo_jax.systems.dimo.projector import SentenceInputs, stack_sentences

# For runs whose config knows nothing of `text` yet.
DEFAULTS = dict(
    bert="",
    pooling="auto",
    projector=dict(fn="dimo_jax.systems.dimo.projector:mlp"),
    fit=dict(fn="dimo_jax.systems.dimo.fit_projector:fit_projector"),
)


@dataclass(frozen=True)
class Sentences:
    """What is said of the N motions that were trained."""

    motions: tuple[int, ...]  # [N] indices of the motions among the run's
    names: tuple[str, ...]  # [N]
    train: tuple[tuple[str, ...], ...]  # [N] the caption first
    test: tuple[tuple[str, ...], ...]  # [N] kept from training; empty where there are none


def read_sentences(facts: Mapping[str, Any]) -> Sentences:
    """The sentences in a run's facts; a run made before there were paraphrases has its captions alone.

    Raises:
      UserError: no motion of split "train", or a motion of it without words.
    """
    names, captions = facts["names"], facts["captions"]
    splits = facts.get("splits") or ["train"] * len(names)
    train = facts.get("paraphrases") or [[caption] for caption in captions]
    test = facts.get("test_paraphrases") or [[] for _ in names]
    motions = [index for index, split in enumerate(splits) if split == "train"]
    if not motions:
        raise UserError("text: no motion of the run has the split 'train', expected at least 1")
    spoken = {index: tuple(sentence for sentence in train[index] if sentence.strip()) for index in motions}
    for index in motions:
        if not spoken[index]:
            raise UserError(
                f"text: motion {names[index]!r} has no caption, expected one (dataset.json, then train anew)"
            )
    return Sentences(
        motions=tuple(motions),
        names=tuple(names[index] for index in motions),
        train=tuple(spoken[index] for index in motions),
        test=tuple(tuple(test[index]) for index in motions),
    )


def read_joint_sentences(config: ConfigDict, dataset: Dataset) -> SentenceInputs:
    """The training sentences of a dataset as `config.text.joint` wants them.

    Raises:
      UserError: a motion without words, or what `load_encoder` raises.
    """
    options = text_options(config)
    sentences = read_sentences(
        dict(names=dataset.names, captions=dataset.captions, splits=dataset.splits, paraphrases=dataset.sentences)
    )
    encoder = load_encoder(options["bert"], pooling=options["pooling"])
    embeddings = [encoder.embed(each) for each in sentences.train]
    doubt = caption_checks.doubt_captions(sentences.names, sentences.train, caption_checks.captions_file(config))
    if doubt:
        logging.warning("%s", doubt)
    return stack_sentences(embeddings, sentences.motions, num_motions=dataset.num_motions)


def text_options(config: ConfigDict, *, bert: str = "") -> dict[str, Any]:
    """`config.text` with what it leaves out, and the encoder's folder from the command line."""
    options: dict[str, Any] = DEFAULTS | (config.text.to_dict() if "text" in config else {})
    return options | (dict(bert=bert) if bert else {})
