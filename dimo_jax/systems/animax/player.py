"""A trained joint model: templates, cameras and sentences in, videos and pose maps out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.resolve import resolve
from dimo_jax.core.types import Array, Camera
from dimo_jax.data.clips import Embed

from .batches import encode_stills, make_rays
from .model import AnimaxParams
from .parts import Backbone, Codec
from .sampling import draw


class AnimaxPlayer:
    """Draws as `config.animax.sampling` says."""

    def __init__(
        self, options: Mapping[str, Any], codec: Codec, backbone: Backbone, params: AnimaxParams, *, num_frames: int
    ) -> None:
        """Args:
        options: `config.animax`.
        codec, backbone: of it.
        params: with the averaged weights.
        num_frames: T, of a video.
        """
        self.options, self.codec, self.backbone, self.params = options, codec, backbone, params
        self.num_frames = num_frames
        self._embed: Embed | None = None
        self._arrays: Any = None

    def embed(self, sentences: Sequence[str]) -> np.ndarray:
        """Features [S,N,D] of sentences."""
        if self._embed is None:
            self._embed = resolve(self.options["text"], key="animax.text")()
        found = self._embed(sentences)
        return found.reshape(len(found), -1, found.shape[-1])

    def draw(
        self, key: Array, stills: Array | np.ndarray, words: Array | np.ndarray, cameras: Camera, **changes: Any
    ) -> np.ndarray:
        """Videos of B samples.

        Args:
          key: of the noise.
          stills: [B,V,2,H,W,3] uint8 templates and their pose maps.
          words: [B,N,D] of `embed`.
          cameras: [B,V], the figure at the origin.
          changes: of `config.animax.sampling`, such as `guidance`.

        Returns:
          [B,V,2,T,H,W,3] uint8.
        """
        at = dict(self.options["sampling"]) | changes
        if self._arrays is None:
            self._arrays = self.codec.load()
        height, width = stills.shape[-3:-1]
        latents = draw(
            self.params,
            key,
            encode_stills(jnp.asarray(stills), self.codec, self._arrays),
            jnp.asarray(words),
            make_rays(cameras, height // self.codec.factor, width // self.codec.factor),
            config=self.backbone.config,
            num_latents=1 + (self.num_frames - 1) // self.codec.time_factor,
            num_steps=int(at["num_steps"]),
            guidance=float(at["guidance"]),
            shift=float(at["shift"]),
            sampler=at["sampler"],
            attend=self.options["attend"],
            predicts=self.options["predicts"],
        )
        batch, views, halves = latents.shape[:3]
        video = self.codec.decode(self._arrays, latents.reshape(-1, *latents.shape[3:]))
        return np.asarray(jax.device_get(video)).reshape(batch, views, halves, *video.shape[1:])
