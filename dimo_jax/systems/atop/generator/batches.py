"""Batches of films for a step, dealt out in parts, through the frozen encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import flax.struct
import jax
import numpy as np

from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.types import Array, Camera
from dimo_jax.data.articulated.films import Films
from dimo_jax.data.articulated.videos import AZIMUTHS, ELEVATION, FOV, RADIUS

from .reference import Encode, Look, make_batch
from .training import MotionBatch


class Drawn(flax.struct.PyTreeNode):
    """Samples, and a number for each from which its noise is drawn, wherever it is computed."""

    batch: MotionBatch
    seeds: Array  # [B] uint32


@dataclass(frozen=True, eq=False)
class Source:
    """What the batches of a stage are drawn from."""

    films: Films
    chosen: Sequence[int]  # objects
    stop: int  # the step of the run at which the stage ends
    places: int | None  # frames of a film that a sample has; None: all, in their order


@dataclass(frozen=True, eq=False)
class FilmParts:
    """The parts of every batch that one process works on; `sample` depends on the seed and the step alone."""

    sources: Sequence[Source]  # of the stages, one after the other
    words: np.ndarray  # [S,T,D] of `sentences`
    sentences: Sequence[str]
    encode: Encode
    look: Look
    cameras: Camera  # V views
    batch_size: int
    num_parts: int  # of a batch, over all processes
    own: range  # those of this process
    seed: int
    augment: bool
    _kept: dict[tuple[int, int], MotionBatch] = field(default_factory=dict)  # encoded, where nothing is augmented

    def sample(self, step: int) -> Drawn:
        """The own parts of the batch of `step`, every array with a leading axis over them."""
        parts = [self._take(step, range(self.batch_size)[part :: self.num_parts]) for part in self.own]
        numbers = np.arange(self.batch_size, dtype=np.uint32)
        seeds = np.stack([numbers[part :: self.num_parts] for part in self.own])
        return Drawn(jax.tree.map(lambda *arrays: np.stack(arrays), *parts), seeds)  # type: ignore[arg-type]

    def _take(self, step: int, places: range) -> MotionBatch:
        samples = [self._draw(step, place) for place in places]
        joined: MotionBatch = jax.tree.map(lambda *arrays: np.concatenate(arrays), *samples)
        return joined

    def _draw(self, step: int, place: int) -> MotionBatch:
        index = next((i for i, each in enumerate(self.sources) if step < each.stop), len(self.sources) - 1)
        source, rng = self.sources[index], np.random.default_rng([self.seed, step, place])
        number = source.chosen[int(rng.integers(len(source.chosen)))]
        if not self.augment and source.places is None and (index, number) in self._kept:
            return self._kept[index, number]
        frames, masks = source.films.pictures[number], source.films.masks[number, :, 0]
        if self.augment:
            frames, masks = augment(frames, masks, rng)
        rest = frames[:, 0]
        if source.places is not None:
            frames = frames[:, rng.choice(frames.shape[1], source.places, replace=False)]
        words = self.words[self.sentences.index(source.films.sentences[number])]
        made: MotionBatch = jax.tree.map(
            np.asarray,
            make_batch(frames, masks, self.cameras, words, encode=self.encode, look=self.look, rest=rest),
        )
        if not self.augment and source.places is None:
            self._kept[index, number] = made
        return made


def film_cameras(side: int) -> Camera:
    """The views from which objects are filmed, at a size in pixels."""
    return orbit(AZIMUTHS, ELEVATION, radius=RADIUS, fov_deg=FOV, height=side, width=side)


def augment(frames: np.ndarray, masks: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Another object that is as likely: turned by quarters, mirrored, with its colours changed for each other.

    The views stand at quarters of a circle, as far from the mirror as others behind it.

    Args:
      frames: [V,F,H,W,4] uint8 from `AZIMUTHS`.
      masks: [V,H,W] uint8.
      rng: random numbers.
    """
    frames = frames[..., [*rng.permutation(3), 3]]
    if rng.random() < 0.5:
        frames, masks = frames[::-1, :, :, ::-1], masks[::-1, :, ::-1]
    turn = int(rng.integers(len(frames)))
    return np.roll(frames, turn, axis=0), np.roll(masks, turn, axis=0)
