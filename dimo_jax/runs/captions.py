"""The text side of a trained run: its sentences, the encoder, and the projector that is trained once and kept."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dimo_jax.core.errors import UserError
from dimo_jax.core.resolve import resolve
from dimo_jax.networks.bert import TextEncoder
from dimo_jax.runs.restore import Restored, run_folder
from dimo_jax.runtime.files import replace_file
from dimo_jax.systems.dimo import caption_checks
from dimo_jax.systems.dimo.projector import (
    Projector,
    Scaling,
    build_projector,
    find_scaling,
    project,
    unit,
)
from dimo_jax.systems.dimo.sentences import Sentences, read_sentences, text_options
from dimo_jax.training.config_file import CONFIG_FILE, load_config

FILE = "text_projector.npz"


@dataclass(frozen=True)
class Speaker:
    """Turns sentences into latent codes."""

    encoder: TextEncoder
    module: nn.Module
    projector: Projector
    sentences: tuple[str, ...]  # [S] all that trained it
    owners: np.ndarray  # [S] which of the N motions each belongs to
    embeddings: np.ndarray  # [S,E]
    file: Path | None = None  # where users edit the sentences

    def codes(self, embeddings: np.ndarray) -> jax.Array:
        """Latent codes [n,D] of embeddings [n,E]."""
        return _project(self.projector, jnp.asarray(embeddings), module=self.module)

    def nearest(self, embedding: np.ndarray, *, num: int) -> list[tuple[float, int, str]]:
        """The training sentences most like one embedding [E], at most one a motion: cosine, motion, sentence."""
        cosines = np.asarray(unit(jnp.asarray(self.embeddings))) @ np.asarray(unit(jnp.asarray(embedding)))
        found: dict[int, tuple[float, int, str]] = {}
        for index in np.argsort(-cosines, kind="stable"):
            motion = int(self.owners[index])
            found.setdefault(motion, (float(cosines[index]), motion, self.sentences[index]))
        return list(found.values())[:num]

    def doubt(self, embedding: np.ndarray) -> str:
        """What speaks against the motion of a sentence with this embedding [E]; "" where nothing does."""
        cosine, _, nearest = self.nearest(embedding, num=1)[0]
        least = caption_checks.find_least_likeness(self.embeddings, self.owners)
        return caption_checks.doubt_sentence(cosine, least, nearest, len(set(self.owners)), self.file)

    def ask(self, prompt: str) -> np.ndarray:
        """The embedding [1,E] of a prompt; what speaks against its motion is logged."""
        embedding = self.encoder.embed([prompt])
        _warn(self.doubt(embedding[0]))
        return embedding


@functools.partial(jax.jit, static_argnames="module")
def _project(projector: Projector, embeddings: jax.Array, *, module: nn.Module) -> jax.Array:
    return project(module, projector, embeddings)


def fit(options: Mapping[str, Any], embeddings: Sequence[np.ndarray], codes: np.ndarray) -> tuple[nn.Module, Projector]:
    """Trains a projector as `config.text` says, on sentences [s,E] of each of N motions with codes [N,D]."""
    module = build_projector(options["projector"], num_features=codes.shape[1])
    train = resolve(options["fit"], key="text.fit")
    return module, jax.block_until_ready(train(module, embeddings, codes))


def sentence_codes(model: Restored, sentences: Sentences) -> np.ndarray:
    """Latent codes [N,D] of the motions that sentences are about."""
    return np.asarray(model.player.params.latents.mu)[list(sentences.motions)]


def speak_for(
    model: Restored, workdir: str | Path, options: Mapping[str, Any], encoder: TextEncoder
) -> tuple[Speaker, Sentences]:
    """The text side of a run: its projector as the run has trained it, or as `load_speaker` finds or trains it.

    Sentences are those of the dataset's `captions.txt` where it can be seen from here, so that edits count at once.

    Raises:
      UserError: what `read_sentences` and `load_speaker` raise.
    """
    is_run = (Path(workdir) / CONFIG_FILE).is_file()  # a model file that somebody sends names no file of ours
    file = caption_checks.captions_file(load_config(Path(workdir))) if is_run else None
    trained = getattr(model.player.params, "projector", None)
    # A projector that was trained with the latents knows the sentences of then.
    sentences = read_sentences(model.facts if trained else caption_checks.refresh_captions(model.facts, file))
    _warn(caption_checks.doubt_captions(sentences.names, sentences.train, file))
    codes = sentence_codes(model, sentences)
    speaker = load_speaker(options, encoder, sentences, codes, run_folder(workdir), trained=trained)
    return dataclasses.replace(speaker, file=file), sentences


def _warn(doubt: str) -> None:
    if doubt:
        logging.warning("%s", doubt)


def load_speaker(
    options: Mapping[str, Any],
    encoder: TextEncoder,
    sentences: Sentences,
    codes: np.ndarray,
    workdir: Path,
    *,
    trained: Any = None,
) -> Speaker:
    """The projector of a run: from `workdir`, where it was trained on just these sentences and codes, or trained now.

    Args:
      options: see `sentences.text_options`.
      encoder: as the options ask for.
      sentences: of the run.
      codes: [N,D] latent codes of the N motions.
      workdir: of the run; the projector is kept there.
      trained: variables of the projector of a run that has trained it with its latents (`config.text.joint`).

    Raises:
      UserError: a slot that cannot be resolved.
    """
    module = build_projector(options["projector"], num_features=codes.shape[1])
    key = _key(options, encoder, sentences, codes, joint=trained is not None)
    flat = tuple(sentence for each in sentences.train for sentence in each)
    owners = np.repeat(np.arange(len(sentences.train)), [len(each) for each in sentences.train])
    found = _read(workdir / FILE, key)
    if found is None:
        start = time.perf_counter()
        logging.info("%s the text projector on %d sentences (once)", "reading" if trained else "training", len(flat))
        embeddings = encoder.embed(flat)
        if trained is None:
            module, projector = fit(options, np.split(embeddings, np.flatnonzero(np.diff(owners)) + 1), codes)
        else:
            projector = join_projector(trained, embeddings, num_features=codes.shape[1])
        logging.info("done in %.1f s", time.perf_counter() - start)
        try:
            _write(workdir / FILE, key, projector, embeddings)
        except OSError as error:  # as in somebody else's run
            logging.warning("%s cannot be written (%s); the next prompt needs it anew", workdir / FILE, error.strerror)
    else:
        projector, embeddings = found
    return Speaker(encoder, module, projector, flat, owners, embeddings)


def _key(
    options: Mapping[str, Any], encoder: TextEncoder, sentences: Sentences, codes: np.ndarray, *, joint: bool
) -> str:
    """A hash of everything that a projector depends on."""
    told = dict(
        joint=joint, projector=options["projector"], fit=options["fit"], pooling=encoder.pooling, bert=encoder.sha256
    )
    words = json.dumps([told, sentences.motions, sentences.train], sort_keys=True, default=dict)
    return hashlib.sha256(words.encode() + np.ascontiguousarray(codes, np.float32).tobytes()).hexdigest()


def join_projector(variables: Any, embeddings: np.ndarray, *, num_features: int) -> Projector:
    """The projector of a run that has trained it with its latents: one network, codes in their own unit.

    Args:
      variables: of the network.
      embeddings: [S,E] of all training sentences, in the order of the motions.
      num_features: D, the length of a code.
    """
    scaling = find_scaling(jnp.asarray(embeddings), jnp.zeros((1, num_features)))
    scaling = scaling.replace(code_scale=jnp.ones([]))
    return Projector(members=jax.tree.map(lambda x: jnp.asarray(x)[None], variables), scaling=scaling)


def _write(path: Path, key: str, projector: Projector, embeddings: np.ndarray) -> None:
    members = flax.traverse_util.flatten_dict(projector.members, sep="/")
    arrays = {f"members/{name}": np.asarray(value) for name, value in members.items()}
    scaling = projector.scaling
    for name in ("input_mean", "input_scale", "code_mean", "code_scale"):
        arrays[f"scaling/{name}"] = np.asarray(getattr(scaling, name))
    with replace_file(path) as temporary:
        np.savez(temporary, key=np.asarray(key), embeddings=embeddings, **arrays)  # type: ignore[arg-type]


def _read(path: Path, key: str) -> tuple[Projector, np.ndarray] | None:
    """What `_write` wrote; None where there is nothing, or it was trained on something else."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if str(arrays.pop("key")) != key:
            logging.info("the text projector of this run was trained on something else")
            return None
        embeddings = arrays.pop("embeddings")
        scaling = {name: jnp.asarray(arrays.pop(f"scaling/{name}")) for name in Scaling.__dataclass_fields__}
        members = {name.removeprefix("members/"): jnp.asarray(value) for name, value in arrays.items()}
        unflat = flax.traverse_util.unflatten_dict(members, sep="/")
    except Exception as error:  # a damaged archive fails with nearly any exception
        logging.warning("%s cannot be read (%s); training it again", path, type(error).__name__)
        return None
    return Projector(members=unflat, scaling=Scaling(**scaling)), embeddings


def check_codes_know_no_sentence(config: ConfigDict, workdir: Path | str) -> None:
    """Checks that sentences can be left out of a run: with `text.joint` its codes were trained with all of them.

    Raises:
      UserError: they were.
    """
    if text_options(config).get("joint", False):
        raise UserError(
            f"--evaluate_captions=leave_one_out: the codes of --workdir={workdir} were trained together with every "
            "sentence (config.text.joint=True), so none can be left out now; expected --evaluate_captions=held_out"
        )


def leave_one_out(
    options: Mapping[str, Any], sentences: Sentences, embeddings: Sequence[np.ndarray], codes: np.ndarray
) -> list[tuple[int, str, np.ndarray]]:
    """What a projector says of training sentences that it was not trained on.

    For every place k after the caption, one is trained without the k-th sentence of each motion, and asked for it. That
    says something only of `codes` that were trained without sentences (`check_codes_know_no_sentence`).

    Returns:
      Motion (0..N-1), sentence, and code [D].

    Raises:
      UserError: a motion with only one sentence.
    """
    fewest = min(len(each) for each in sentences.train)
    if fewest < 2:
        name = sentences.names[[len(each) for each in sentences.train].index(fewest)]
        raise UserError(
            f"--evaluate_captions=leave_one_out: motion {name!r} has one sentence, expected at least 2 each"
        )
    answers = []
    for place in range(1, fewest):
        rest = [np.delete(rows, place, axis=0) for rows in embeddings]
        module, projector = fit(options, rest, codes)
        asked = np.stack([rows[place] for rows in embeddings])
        found = np.asarray(_project(projector, jnp.asarray(asked), module=module))
        answers += [(m, sentences.train[m][place], code) for m, code in enumerate(found)]
    return answers
