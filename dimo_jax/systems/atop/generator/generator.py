"""What a trained video model is asked by what makes joints of it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from dimo_jax.core.types import Array, Camera
from dimo_jax.diffusion.ddim import Predict
from dimo_jax.diffusion.noise import Prediction

from .model import Condition


class Generator(Protocol):
    """A frozen model of multi-view part motions with its encoders.

    Objects stand as `data.articulated.videos.settle` puts them: the box's middle at the origin, a diagonal of 1, +Y up.
    """

    num_frames: int  # F of its videos; the first is the rest state
    size: int  # h and w of its latents
    channels: int  # C of them
    side: int  # height and width in pixels of the pictures that it is asked with
    azimuths: tuple[float, ...]  # of its V views, degrees
    elevation: float  # of all of them, degrees
    prediction: Prediction  # what the network predicts

    def encode(self, frames: np.ndarray) -> Array:
        """Latents [N,h,w,C] of pictures with straight alpha [N,side,side,4] uint8."""
        ...

    def decode(self, latents: Array) -> np.ndarray:
        """Pictures with straight alpha [N,H,W,4] uint8 of latents [N,h,w,C]."""
        ...

    def condition(self, rest: np.ndarray, masks: np.ndarray, cameras: Camera, sentence: str) -> Condition:
        """What one video (B = 1) is drawn from: pictures [V,side,side,4] uint8 of the rest state, the part's masks
        [V,side,side] uint8, V cameras, and a sentence."""
        ...

    def predict(self, condition: Condition, *, guidance: float) -> Predict:
        """The network with its condition, guided: noisy latents [V,F,h,w,C] and a timestep [] -> [V,F,h,w,C]."""
        ...

    def draw(self, key: Array, condition: Condition, *, num_steps: int, guidance: float) -> Array:
        """Latents [V,F,h,w,C] of a video drawn from noise."""
        ...
