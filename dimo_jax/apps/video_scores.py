"""Figures of whole videos, prediction beside truth: FVD, CLIP-I, CLIP-F and motion amplitude."""

from __future__ import annotations

from typing import Any

import numpy as np

from dimo_jax.export.images import to_uint8
from dimo_jax.metrics.clip import ClipVision, clip_f, clip_i, embed_images
from dimo_jax.metrics.fvd import frechet_distance, video_features
from dimo_jax.metrics.i3d import MIN_FRAMES, load_i3d
from dimo_jax.metrics.motion import SMALLEST_SIDE, load_opencv, measure_flow, motion_amplitude


def check_packages() -> None:
    """Loads what the scores need.

    Raises:
      UserError: a package of the extra `evaluate` is not installed.
    """
    load_opencv()
    load_i3d()


class VideoScores:
    """Collects videos, one group (a motion, an object) at a time, and forgets their pixels."""

    def __init__(self, *, clip: ClipVision | None, stride: int = 1) -> None:
        """`stride`: every so many-th video counts for FVD, which is slow; None for `clip` leaves CLIP out."""
        self._clip, self._stride, self._seen = clip, stride, 0
        self._features: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        self._values: dict[str, list[float]] = {
            name: [] for name in ("clip_i", "clip_f", "motion_amplitude", "motion_amplitude_truth")
        }
        self.missing: dict[str, str] = {}
        if clip is None:
            reason = "no weights given, expected --clip=FOLDER (config.json and model.safetensors of a CLIP model)"
            self.missing |= {"clip_i": reason, "clip_f": reason}

    def add(
        self, pred: np.ndarray, truth: np.ndarray, pred_mask: np.ndarray, truth_mask: np.ndarray
    ) -> dict[str, float | None]:
        """Adds V videos [V,T,H,W,3] float in 0..1 and the masks [V,T,H,W] bool of the object in them.

        Returns:
          This group's own means of clip_i, clip_f and the motion amplitudes.
        """
        before = {name: len(values) for name, values in self._values.items()}
        self._add_features(pred, truth)
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
        return {name: _mean(values[before[name] :]) for name, values in self._values.items()}

    def _add_features(self, pred: np.ndarray, truth: np.ndarray) -> None:
        chosen = np.arange(-self._seen % self._stride, len(pred), self._stride)
        self._seen += len(pred)
        if pred.shape[1] < MIN_FRAMES:
            self.missing["fvd"] = f"videos of {pred.shape[1]} frames, I3D takes at least {MIN_FRAMES}"
        elif len(chosen):
            for rows, videos in zip(self._features, (pred, truth)):
                rows.append(video_features(videos[chosen]))

    def summary(self) -> dict[str, Any]:
        """`fvd` and over how many videos of each side; means of clip_i, clip_f and the motion amplitudes.

        What could not be computed is None, and `missing` says why.
        """
        num_videos = sum(len(rows) for rows in self._features[0])
        if num_videos < 2:
            self.missing.setdefault("fvd", f"{num_videos} videos, a covariance takes at least 2")
        fvd = frechet_distance(*map(np.concatenate, self._features)) if num_videos > 1 else None
        means = {name: _mean(values) for name, values in self._values.items()}
        return dict(fvd=fvd, num_fvd_videos=num_videos, **means, num_videos=self._seen)


def _mean(values: list[float]) -> float | None:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else None
