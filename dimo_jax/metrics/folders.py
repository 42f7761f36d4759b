"""Scores pictures against true ones without a model, in the layout of `video_folders`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
from absl import logging

from dimo_jax.data.formats.consistent4d import find_pairs, read_videos
from dimo_jax.metrics.clip import ClipVision
from dimo_jax.metrics.means import pool
from dimo_jax.metrics.scores import Scores
from dimo_jax.metrics.subsets import draw_evenly_from
from dimo_jax.metrics.videos import VideoScores
from dimo_jax.runtime.progress import track

SMALLEST_ALEX = 31  # pixels a side


def score_folders(
    gt: Path, pred: Path, *, clip: ClipVision | None, num_lpips_images: int, num_videos: int
) -> dict[str, Any]:
    """Figures of pictures against true ones in the Consistent4D layout; no model is needed.

    Args:
      gt, pred: the folders.
      clip: from `load_clip`, or None.
      num_lpips_images, num_videos: images for LPIPS and videos for FVD, drawn evenly over objects, views and frames; 0
        takes all.

    Returns:
      `average` over objects of the image and video figures, with one FVD over all videos; `objects`, the same for each;
      and `missing`. `lpips_images` and `fvd_videos` say what was seen: the object, its view and the (first) frame, each
      by its place in the order of `objects` and of the numbers in the names of folders and files, from 0.

    Raises:
      UserError: folders that do not fit each other.
    """
    pairs = find_pairs(gt, pred)
    cells = draw_evenly_from([(len(pair.truth), pair.num_frames) for pair in pairs], num_lpips_images)
    videos = draw_evenly_from([(len(pair.truth),) for pair in pairs], num_videos)
    missing: dict[str, str] = {}
    networks = choose_networks(min(min(pair.size) for pair in pairs), missing)
    together, objects = VideoScores(clip=clip), {}
    for index, pair in enumerate(track(pairs, "scoring", unit="object")):
        logging.info("scoring %s", pair.name)
        (rgb, mask), (truth, true_mask) = read_videos(pair.pred), read_videos(pair.truth)
        own = Scores(networks)
        for view in range(len(rgb)):
            seen = cells[(cells[:, 0] == index) & (cells[:, 1] == view)]
            own.add(jnp.asarray(rgb[view]), jnp.asarray(truth[view]), jnp.asarray(true_mask[view]), seen[:, 2], seen)
        chosen = videos[videos[:, 0] == index, 1]
        whole = together.add(rgb, truth, mask, true_mask, chosen=chosen, seen=[(index, view, 0) for view in chosen])
        objects[pair.name] = own.summary() | whole
    total = together.summary()
    average = pool(list(objects.values()))
    average |= {name: total[name] for name in ("fvd", "num_fvd_videos", "fvd_videos", "num_videos")}
    return dict(average=average, objects=objects, missing=missing | together.missing)


def choose_networks(side: int, missing: dict[str, str]) -> tuple[str, ...]:
    """Networks of LPIPS for pictures whose shorter side has so many pixels; `missing` gets what cannot be."""
    if side >= SMALLEST_ALEX:
        return ("vgg", "alex")
    missing["lpips_alex"] = f"pictures of {side} pixels, AlexNet takes at least {SMALLEST_ALEX}"
    return ("vgg",)
