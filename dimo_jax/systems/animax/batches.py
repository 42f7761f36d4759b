"""Batches of clips for a step, dealt out in parts; and what the network is given of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array, Camera
from dimo_jax.data.clips import ClipBatch, ClipShards

from . import rays
from .loss import JointBatch
from .parts import Codec


class Drawn(flax.struct.PyTreeNode):
    """Samples, and a number for each from which its noise is drawn, wherever it is computed."""

    clips: ClipBatch
    seeds: Array  # [B] uint32


@dataclass(frozen=True, eq=False)
class ClipParts:
    """The parts of every batch that one process works on; `sample` depends on the seed and the step alone."""

    shards: ClipShards
    batch_size: int
    num_parts: int  # of a batch, over all processes
    own: range  # those of this process
    seed: int
    augment: bool

    def sample(self, step: int) -> Drawn:
        """The own parts of the batch of `step`, every array with a leading axis over them."""
        parts = [self._take(step, part) for part in self.own]
        numbers = np.arange(self.batch_size, dtype=np.uint32)
        seeds = np.stack([numbers[part :: self.num_parts] for part in self.own])  # as `ClipShards.batch` deals out
        return Drawn(jax.tree.map(lambda *arrays: np.stack(arrays), *parts), seeds)  # type: ignore[arg-type]

    def _take(self, step: int, part: int) -> ClipBatch:
        how: Any = dict(seed=self.seed, step=step, augment=self.augment)
        return self.shards.batch("train", self.batch_size, host=part, hosts=self.num_parts, **how)[0]


def encode_batch(clips: ClipBatch, codec: Codec, arrays: object) -> JointBatch:
    """Pictures, cameras and words [B,...] -> latents, rays and text."""
    batch, views, halves, frames, height, width, _ = clips.videos.shape
    video = codec.encode(arrays, clips.videos.reshape(-1, frames, height, width, 3))
    return JointBatch(
        condition=encode_stills(clips.stills, codec, arrays),
        video=video.reshape(batch, views, halves, *video.shape[1:]),
        text=clips.words.reshape(batch, -1, clips.words.shape[-1]),
        ray_maps=make_rays(clips.cameras, height // codec.factor, width // codec.factor),
    )


def encode_stills(stills: Array, codec: Codec, arrays: object) -> Array:
    """The condition: [B,V,2,H,W,3] uint8 -> [B,V,2,h,w,C]."""
    still = codec.encode(arrays, stills.reshape(-1, 1, *stills.shape[3:]))[:, 0]
    return still.reshape(*stills.shape[:3], *still.shape[1:])


def make_rays(cameras: Camera, height: int, width: int) -> Array:
    """Ray maps [B,V,height,width,6] of cameras [B,V]."""
    found: Array = jax.vmap(lambda each: rays.plucker_rays(each, height, width))(jax.tree.map(jnp.asarray, cameras))
    return found
