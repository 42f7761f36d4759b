"""Figures of whole videos, prediction beside truth: FVD, CLIP-I, CLIP-F and motion amplitude."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dimo_jax.io.images import to_uint8
from dimo_jax.metrics.clip import ClipVision, clip_f, clip_i, embed_images
from dimo_jax.metrics.fvd import frechet_distance, video_features
from dimo_jax.metrics.means import summarize
from dimo_jax.metrics.motion import SMALLEST_SIDE, load_opencv, measure_flow, motion_amplitude
from dimo_jax.networks.i3d import MIN_FRAMES, load_i3d


def check_packages() -> None:
    """Loads what the scores need.

    Raises:
      UserError: a package of the extra `evaluate` is not installed.
    """
    load_opencv()
    load_i3d()


class VideoScores:
    """Collects videos, one group (a motion, an object) at a time, and forgets their pixels."""

    def __init__(self, *, clip: ClipVision | None) -> None:
        """None for `clip` leaves CLIP out."""
        self._clip, self._num_videos = clip, 0
        self._fvd_videos: list[list[int]] = []
        self._features: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        self._values: dict[str, list[float]] = {
            name: [] for name in ("clip_i", "clip_f", "motion_amplitude", "motion_amplitude_truth")
        }
        self.missing: dict[str, str] = {}
        if clip is None:
            reason = "no weights given, expected --clip=FOLDER (config.json and model.safetensors of a CLIP model)"
            self.missing |= {"clip_i": reason, "clip_f": reason}

    def add(
        self,
        pred: np.ndarray,
        truth: np.ndarray,
        pred_mask: np.ndarray,
        truth_mask: np.ndarray,
        *,
        chosen: np.ndarray,
        seen: Sequence[Sequence[int]],
    ) -> dict[str, float | int | None]:
        """Adds V videos [V,T,H,W,3] float in 0..1 and the masks [V,T,H,W] bool of the object in them.

        FVD, which is slow, takes the videos of indices `chosen` [n]; `seen` [n,3] has their motion, view, first frame.

        Returns:
          This group's own means of clip_i, clip_f and the motion amplitudes, as `summarize` gives them.
        """
        before = {name: len(values) for name, values in self._values.items()}
        self._num_videos += len(pred)
        self._add_features(pred, truth, chosen, seen)
        pred, truth = to_uint8(pred), to_uint8(truth)
        if self._clip is not None:
            embedded = embed_images(self._clip, pred)
            self._values["clip_i"] += clip_i(embedded, embed_images(self._clip, truth)).ravel().tolist()
            self._values["clip_f"] += clip_f(embedded).ravel().tolist()
        if min(pred.shape[2:4]) < SMALLEST_SIDE:
            self.missing["motion_amplitude"] = f"pictures are under {SMALLEST_SIDE} pixels a side"
        else:
            for name, videos, masks in (
                ("motion_amplitude", pred, pred_mask),
                ("motion_amplitude_truth", truth, truth_mask),
            ):
                self._values[name] += [motion_amplitude(measure_flow(v), m) for v, m in zip(videos, masks)]
        return summarize({name: values[before[name] :] for name, values in self._values.items()})

    def _add_features(
        self, pred: np.ndarray, truth: np.ndarray, chosen: np.ndarray, seen: Sequence[Sequence[int]]
    ) -> None:
        if pred.shape[1] < MIN_FRAMES:
            self.missing["fvd"] = f"videos of {pred.shape[1]} frames, I3D takes at least {MIN_FRAMES}"
        elif len(chosen):
            self._fvd_videos += [[int(index) for index in row] for row in seen]
            for rows, videos in zip(self._features, (pred, truth)):
                rows.append(video_features(videos[chosen]))

    def summary(self) -> dict[str, Any]:
        """`fvd`, over how many videos of each side and, as `fvd_videos`, over which: motion, view and first frame.

        Beside it means of clip_i, clip_f and the motion amplitudes, and as `<name>_undefined` how many frames or videos
        have no such figure. What could not be computed is None, and `missing` says why.
        """
        count = len(self._fvd_videos)
        if count < 2:
            self.missing.setdefault("fvd", f"{count} videos, a covariance takes at least 2")
        fvd = frechet_distance(*map(np.concatenate, self._features)) if count > 1 else None
        sizes = dict(num_fvd_videos=count, fvd_videos=self._fvd_videos, num_videos=self._num_videos)
        return dict(fvd=fvd, **summarize(self._values), **sizes)
