"""A motion of a trained model at some times, as plain arrays: what exports start from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.core.types import Gaussians
from dimo_jax.geometry import rotations
from dimo_jax.io.ply import find_drawable
from dimo_jax.runtime.files import replace_file
from dimo_jax.skinning.posing import pose

FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class Motion:
    """Where Gaussians and key points are at T times, and which key points move which Gaussian. NumPy arrays.

    World units, +Y up. Key point k carries x to R_k (x - rest_k) + track_k (paper Eq. 7 with track = rest + T_k).
    """

    name: str
    frame_rate: float  # frames a second
    times: np.ndarray  # [T] of the model, 0..1
    codes: np.ndarray  # [T,D] latent code at each time; all the same unless the motion walks between codes
    canonical: Gaussians  # [N], a logit of -inf where a slot is not in use
    means: np.ndarray  # [T,N,3]
    quats: np.ndarray  # [T,N,4] wxyz
    rest: np.ndarray  # [K,3] canonical positions of the key points
    radii: np.ndarray  # [K] control radii, world units
    tracks: np.ndarray  # [T,K,3] positions of the key points
    turns: np.ndarray  # [T,K,4] their rotations, unit wxyz, of one sign along time
    neighbors: np.ndarray  # [N,J] int, the key points that move each Gaussian
    weights: np.ndarray  # [N,J] of these, summing to 1
    shades: np.ndarray | None = None  # [T,N,1,3] harmonics at each time, where a light colours what turns under it

    @property
    def num_frames(self) -> int:
        """Number of times T."""
        return len(self.times)

    @property
    def seconds(self) -> np.ndarray:
        """Time of every frame in seconds, [T] float32 from 0."""
        return (np.arange(self.num_frames) / self.frame_rate).astype(np.float32)

    def at(self, frame: int) -> Gaussians:
        """The Gaussians of one frame, their colours turned with them."""
        posed = pose(self.canonical, self.means[frame], self.quats[frame])
        return posed if self.shades is None else posed.replace(sh=self.shades[frame])


def skin_points(motion: Motion, neighbors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What a program that skins linearly makes of the canonical means: [T,N,3], from neighbors and weights [N,J]."""
    local = motion.canonical.means[:, None] - motion.rest[neighbors]
    moved = np.empty_like(motion.means)
    for frame, (turns, tracks) in enumerate(zip(rotations.to_matrix(motion.turns), motion.tracks)):
        posed = np.einsum("njab,njb->nja", turns[neighbors], local) + tracks[neighbors]
        moved[frame] = np.einsum("nj,nja->na", weights, posed)
    return moved


def measure_skin(motion: Motion, neighbors: np.ndarray, weights: np.ndarray) -> float:
    """How far linear skinning is from the model's own Gaussians: largest distance over the motion's largest extent."""
    alive, valid = find_drawable(motion.canonical)
    keep = alive & valid
    off = np.linalg.norm(skin_points(motion, neighbors, weights) - motion.means, axis=-1)[:, keep]
    extent = np.ptp(motion.means[:, keep].reshape(-1, 3), axis=0).max(initial=0)
    return float(off.max(initial=0) / max(extent, 1e-12))


def limit_influences(neighbors: np.ndarray, weights: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` largest weights of each row, in falling order, float32 and summing to 1.

    Some programs read the first four influences only, so the largest come first. Where `count` exceeds J, or a weight
    is 0, the index is 0, as glTF asks.

    Args:
      neighbors, weights: [N,J].
      count: columns of the result.

    Returns:
      neighbors [N,count] and weights [N,count].
    """
    short = max(0, count - weights.shape[1])
    weights, neighbors = (np.pad(each, ((0, 0), (0, short))) for each in (weights, neighbors))
    order = np.argsort(-weights, axis=1, kind="stable")[:, :count]
    kept = np.take_along_axis(weights, order, axis=1).astype(np.float64)
    kept = np.where(kept < 1e-6, 0.0, kept)
    kept = (kept / kept.sum(axis=1, keepdims=True)).astype(np.float32)
    kept[:, 0] += 1 - kept.sum(axis=1, dtype=np.float64).astype(np.float32)
    return np.where(kept > 0, np.take_along_axis(neighbors, order, axis=1), 0), kept


def write_motion(motion: Motion, path: Path | str) -> Path:
    """Writes a motion as a compressed npz that needs no pickle to read, atomically.

    Fields: `version` int32 (1); `name` unicode; `frame_rate` float32; `times` [T], of the model in 0..1; `seconds` [T];
    `codes` [T,D]; `key_points` [T,K,3] world units, +Y up; `key_point_rotations` [T,K,4] unit wxyz;
    `canonical_key_points` [K,3]; `radii` [K]; of the N Gaussians in use `means` [T,N,3], `quats` [T,N,4] wxyz,
    `canonical_means` [N,3], `canonical_quats` [N,4], `log_scales` [N,3], `logit_opacities` [N], `sh` [N,C,3], canonical
    (what has a direction turns by `quats` over `canonical_quats`), and where a light colours what turns under it
    `shades` [T,N,1,3], those of each time;
    `neighbors` int32 [N,J] and `weights` [N,J], the key points that move each Gaussian. Floats are float32.

    Args:
      motion: what to write.
      path: the file to write, ending in `.npz`.

    Returns:
      `path`.
    """
    alive, valid = find_drawable(motion.canonical)
    keep, canonical = alive & valid, motion.canonical
    floats = dict(
        frame_rate=motion.frame_rate,
        times=motion.times,
        seconds=motion.seconds,
        codes=motion.codes,
        key_points=motion.tracks,
        key_point_rotations=motion.turns,
        canonical_key_points=motion.rest,
        radii=motion.radii,
        means=motion.means[:, keep],
        quats=motion.quats[:, keep],
        canonical_means=np.asarray(canonical.means)[keep],
        canonical_quats=np.asarray(canonical.quats)[keep],
        log_scales=np.asarray(canonical.log_scales)[keep],
        logit_opacities=np.asarray(canonical.logit_opacities)[keep],
        sh=np.asarray(canonical.sh)[keep],
        weights=motion.weights[keep],
    )
    if motion.shades is not None:
        floats["shades"] = motion.shades[:, keep]
    fields: dict[str, Any] = {name: np.asarray(value, np.float32) for name, value in floats.items()}
    fields["neighbors"] = np.asarray(motion.neighbors, np.int32)[keep]
    with replace_file(path) as temporary:
        np.savez_compressed(temporary, version=np.int32(FORMAT_VERSION), name=np.str_(motion.name), **fields)
    return Path(path)
