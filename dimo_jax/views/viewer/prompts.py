"""Sentences to motions for the viewer: encoder and projector are read, or trained, when the first sentence comes."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.networks.bert import load_encoder
from dimo_jax.runs import captions
from dimo_jax.runs.captions import Speaker
from dimo_jax.runs.restore import Restored
from dimo_jax.systems.dimo.sentences import Sentences, text_options
from dimo_jax.training.config_file import load_config
from dimo_jax.views.viewer.session import Source


class Prompts:
    """Makes motions from sentences, as `--app=text` does."""

    def __init__(self, model: Restored, workdir: Path, *, bert: str = "") -> None:
        """`bert` is the folder of a Hugging Face BERT; default as for `--app=text`."""
        self._model, self._workdir, self._bert = model, workdir, bert
        self._loaded: tuple[Speaker, Sentences] | None = None
        self._lock = threading.Lock()

    def _load(self) -> tuple[Speaker, Sentences]:
        with self._lock:  # two visitors may ask at once
            if self._loaded is None:
                options = text_options(load_config(self._workdir), bert=self._bert)
                encoder = load_encoder(options["bert"], pooling=options["pooling"])
                self._loaded = captions.speak_for(self._model, self._workdir, options, encoder)
            return self._loaded

    def make(self, prompt: str) -> Source:
        """The motion that a sentence describes.

        Raises:
          UserError: no words, a sentence that is too long, or what `load_encoder` and `load_speaker` raise; among it
            that the packages of the extra `text` are missing.
        """
        words = " ".join(prompt.split())
        if not words:
            raise UserError("prompt: found no words, expected what the object shall do")
        speaker, sentences = self._load()
        embedding = speaker.encoder.embed([words])
        doubt = speaker.doubt(embedding[0])
        cosine, motion, sentence = speaker.nearest(embedding[0], num=1)[0]
        likeness = f"most like “{sentence}” ({sentences.names[motion]}, similarity {cosine:.2f})"
        likeness += f": {doubt}" if doubt else ""
        label = words if len(words) <= 40 else f"{words[:39]}…"
        return Source(f"“{label}”", np.asarray(speaker.codes(embedding)[0]), likeness)
