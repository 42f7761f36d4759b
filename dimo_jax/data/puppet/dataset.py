"""The embedded dataset: an articulated, textured figure doing captioned motions, with nothing to download.

It is ray-cast once and cached on disk: frames as a memory-mapped array, truth as .npz, the rest recomputed.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.cameras import orbits
from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera
from dimo_jax.data import dataset
from dimo_jax.data.dataset import Dataset, surface_height
from dimo_jax.data.puppet import body, catalog, motions, moves, raycast
from dimo_jax.data.puppet.catalog import MOTIONS, Motion
from dimo_jax.data.puppet.sentences import MORE, TEST
from dimo_jax.data.store import open_frames
from dimo_jax.runtime.caches import cache_root
from dimo_jax.runtime.progress import Progress

RADIUS = 2.0
FOV_DEG = 33.9
FRAME_RATE = 12.0
NUM_SURFACE_POINTS = 8192  # spaced by under 1 % of the height, so that the nearest one stands for the surface
# The reference view and the eight of SV4D, and two between them for testing.
_TRAIN_AZIMUTHS = (0, 30, 75, 120, 165, 210, 255, 300, 330)
_TRAIN_ELEVATIONS = (8, 14, 4, 12, 18, 6, 10, 2, 16)
_TEST_AZIMUTHS = (52, 232, 142, 345, 98, 187)
_TEST_ELEVATIONS = (10, 13, 7, 5, 15, 9)
_SOURCES = (orbits, dataset, body, catalog, motions, moves, raycast, sys.modules[__name__])


def choose_motions(num_motions: int) -> tuple[Motion, ...]:
    """The first motions of the catalog, which takes one of every family before a second of any.

    Raises:
      UserError: fewer than 1 or more than the catalog has.
    """
    if not 1 <= num_motions <= len(MOTIONS):
        raise UserError(f"config.data.source.num_motions: found {num_motions}, expected 1 to {len(MOTIONS)}")
    return MOTIONS[:num_motions]


def _azimuths(num: int, named: tuple[int, ...], elevations: tuple[int, ...], offset: float) -> tuple[list, list]:
    """`num` azimuths and elevations: the named ones, spread evenly if fewer, an even orbit if more are asked for."""
    if num <= len(named):
        chosen = [int(i * len(named) / num) for i in range(num)]
        return [float(named[i]) for i in chosen], [float(elevations[i]) for i in chosen]
    return [offset + 360.0 * i / num for i in range(num)], [float(elevations[i % len(named)]) for i in range(num)]


def make_views(num_train_views: int, num_test_views: int, size: int) -> tuple[Camera, tuple[str, ...], tuple[str, ...]]:
    """Cameras [V] around the character, their names and splits; training views first."""
    train, train_up = _azimuths(num_train_views, _TRAIN_AZIMUTHS, _TRAIN_ELEVATIONS, 0.0)
    test, test_up = _azimuths(num_test_views, _TEST_AZIMUTHS, _TEST_ELEVATIONS, 7.0) if num_test_views else ([], [])
    cams = orbit(train + test, train_up + test_up, radius=RADIUS, fov_deg=FOV_DEG, height=size, width=size)
    names = tuple(f"view_{index:02d}" for index in range(num_train_views + num_test_views))
    return cams, names, ("train",) * num_train_views + ("test",) * num_test_views


def pose_motions(motions: tuple[Motion, ...], num_frames: int) -> list[body.Pose]:
    """Forward kinematics of every motion, at num_frames instants from its first to its last."""
    u = np.linspace(0.0, 1.0, num_frames) if num_frames > 1 else np.zeros(1)
    return [body.pose(motion.curves(u), num_frames) for motion in motions]


def _render(frames: np.ndarray, poses: list[body.Pose], cams: Camera) -> None:
    """Fills frames [M,V,T,H,W,4], showing progress."""
    cones = body.round_cones()
    num_images = frames.shape[1] * frames.shape[2]

    def render(index: int) -> None:
        frames[index], _ = raycast.cast(cones, poses[index].positions, poses[index].rotations, cams)

    with (
        Progress(len(poses) * num_images, "rendering the puppet", unit="image") as progress,
        ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool,
    ):
        for future in as_completed([pool.submit(render, index) for index in range(len(poses))]):
            future.result()
            progress.update(num_images)


def cache_folder(options: dict[str, Any], cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where frames of these options are cached: the name hashes them with the source of everything that draws.

    `cache_dir` wins over the environment's DIMO_JAX_CACHE, which wins over ~/.cache/dimo_jax.
    """
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    for module in _SOURCES:
        digest.update(Path(str(module.__file__)).read_bytes())
    root = Path(cache_dir).expanduser() if cache_dir else cache_root()
    return root / f"puppet-{digest.hexdigest()[:16]}"


def make_puppet(
    *,
    num_motions: int = 60,
    num_frames: int = 21,
    size: int = 128,
    num_train_views: int = 9,
    num_test_views: int = 2,
    num_test_motions: int = 0,
    seed: int = 0,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """The embedded character as a Dataset, rendered once and cached.

    Args:
      num_motions: how many motions, spread over the families; 1 to 109. Every one starts from the same pose.
      num_frames: T, at equal steps from a motion's first to its last instant.
      size: image height and width in pixels.
      num_train_views: cameras of split "train": the reference view and the eight of SV4D (9), fewer or more.
      num_test_views: cameras of split "test", at other azimuths.
      num_test_motions: the last ones get the split "test".
      seed: of the choice of true surface points; the pictures do not depend on it.
      cache_dir: instead of $DIMO_JAX_CACHE or ~/.cache/dimo_jax.

    Raises:
      UserError: an option out of range, or no room for the cache.
    """
    counts = {"num_frames": (num_frames, 1), "size": (size, 8), "num_train_views": (num_train_views, 1)}
    counts |= {"num_test_views": (num_test_views, 0), "num_test_motions": (num_test_motions, 0)}
    for name, (value, least) in counts.items():
        if not isinstance(value, int) or value < least:
            raise UserError(f"config.data.source.{name}: found {value!r}, expected an integer of at least {least}")
    motions = choose_motions(num_motions)
    if num_test_motions >= num_motions:
        raise UserError(
            f"config.data.source.num_test_motions: found {num_test_motions}, expected fewer than {num_motions} motions"
        )
    cams, view_names, view_splits = make_views(num_train_views, num_test_views, size)
    poses = pose_motions(motions, num_frames)
    shape = (num_motions, len(view_names), num_frames, size, size, 4)
    folder = cache_folder({"shape": shape, "num_train_views": num_train_views}, cache_dir)
    frames = open_frames(folder, shape, lambda array: _render(array, poses, cams), what="puppet")
    surface = body.surface_points(poses, num_points=NUM_SURFACE_POINTS, seed=seed)
    return Dataset(
        frames=frames,
        cameras=cams,
        names=tuple(motion.name for motion in motions),
        captions=tuple(motion.sentences[0] for motion in motions),
        splits=("train",) * (num_motions - num_test_motions) + ("test",) * num_test_motions,
        view_names=view_names,
        view_splits=view_splits,
        frame_rate=FRAME_RATE,
        object_name="puppet",
        surface=surface,
        joints=np.stack([pose.joints for pose in poses]).astype(np.float32),
        height=surface_height(surface),
        paraphrases=tuple((*motion.sentences, *MORE[motion.name]) for motion in motions),
        test_paraphrases=tuple(TEST[motion.name] for motion in motions),
    )
