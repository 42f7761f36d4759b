"""Figures of images, collected and averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dimo_jax.core.types import Array
from dimo_jax.metrics.lpips import lpips
from dimo_jax.metrics.means import summarize
from dimo_jax.metrics.psnr import psnr, psnr_foreground
from dimo_jax.metrics.ssim import ssim


class Scores:
    """Figures of images, collected to be averaged."""

    def __init__(self, networks: Sequence[str] = ("vgg",)) -> None:
        """`networks` are those of LPIPS."""
        self._networks = tuple(networks)
        names = ("psnr", "psnr_foreground", "ssim", *(f"lpips_{network}" for network in networks))
        self._values: dict[str, list[np.ndarray]] = {name: [] for name in names}
        self._lpips_images: list[list[int]] = []

    def add(self, images: Array, truth: Array, mask: Array, chosen: np.ndarray, seen: Sequence[Sequence[int]]) -> None:
        """Scores images [B,H,W,3] in 0..1 against the truth and its mask [B,H,W].

        LPIPS is taken for the indices `chosen` [n], whose motion, view and frame are `seen` [n,3].
        """
        self._values["psnr"].append(np.asarray(psnr(images, truth)))
        self._values["psnr_foreground"].append(np.asarray(psnr_foreground(images, truth, mask)))
        self._values["ssim"].append(np.asarray(ssim(images, truth)))
        self._lpips_images += [[int(index) for index in row] for row in seen]
        for network in self._networks if len(chosen) else ():
            self._values[f"lpips_{network}"].append(np.asarray(lpips(images[chosen], truth[chosen], network=network)))

    def last(self) -> dict[str, float | int | None]:
        """Means of `psnr` and `psnr_foreground` over the images of the last `add`, as in `summary`."""
        return summarize({name: self._values[name][-1] for name in ("psnr", "psnr_foreground")})

    def summary(self) -> dict[str, Any]:
        """Means over the images that have a figure, `<name>_undefined` of those that have none, and what was seen."""
        figures = summarize({name: np.concatenate([*values, np.zeros(0)]) for name, values in self._values.items()})
        sizes = dict(num_images=sum(len(x) for x in self._values["psnr"]), num_lpips_images=len(self._lpips_images))
        return figures | sizes | dict(lpips_images=self._lpips_images)
