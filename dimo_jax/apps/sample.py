"""`--app=sample`: restores a trained model and renders new motions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from dimo_jax.cli.flag_checks import check_flags
from dimo_jax.core.names import shorten
from dimo_jax.core.types import Array, Camera
from dimo_jax.io.video import write_video
from dimo_jax.render import choose_backend
from dimo_jax.runs.choice import SPREAD, CameraPath, Checkpoint, Prior
from dimo_jax.runs.codes import describe_draw, draw_codes
from dimo_jax.runs.restore import restore, results_folder
from dimo_jax.runtime.files import replace_folder
from dimo_jax.runtime.naming import free_number
from dimo_jax.systems.dimo.player import Player
from dimo_jax.systems.dimo.stages import frame_times
from dimo_jax.views.camera_path import make_camera_path
from dimo_jax.views.gallery import film_latents, tile


def run(
    *,
    workdir: str,
    out: str = "",
    num_samples: int = 4,
    prior: Prior = "data",
    around: str = "",
    spread: float = SPREAD,
    diverse: bool = False,
    num_frames: int = 0,
    frame_rate: float = 0.0,
    seed: int = 0,
    size: int = 0,
    camera: CameraPath = "fixed",
    azimuths: str = "",
    elevation: float | None = None,
    checkpoint: Checkpoint = "last",
    overwrite: bool = False,
) -> None:
    """Draws motions from the latent space of the run in `workdir`, writes them as videos and prints what they cost.

    All stand side by side in `samples_<seed>.mp4`, and each alone in the folder `samples_<seed>`; where other flags
    choose the draw, its camera or the checkpoint, the names say so.

    Args:
      workdir: folder of a training run.
      out: folder for the videos; default: `workdir`/samples.
      num_samples: how many motions.
      prior: "data", with the mean and the covariance of the training motions' codes, or "standard", N(0, I) as in the
        paper.
      around: name of a training motion to vary; empty draws from the prior. Its code mu is drawn around with the
        prior's covariance: z = mu + spread * noise, where noise is a draw of the prior without its mean. The learned
        sigma of a motion is far smaller, about that of one motion seen twice.
      spread: how far from training motions: of prior "data" 0 repeats them, 1 draws from the Gaussian fitted to all
        codes (mild blends of many); `around` a motion 0 gives the motion itself, 1 the prior's full width.
      diverse: draws eight times as many and keeps those that lie farthest apart.
      num_frames: frames of each (time is continuous); default: as in training.
      frame_rate: frames a second of the video; default: so that the motion takes as long as in training.
      seed: of the draw.
      size: height of the pictures in pixels; default: as in training.
      checkpoint: "last", or "best" as training batches went.
      camera: "fixed" is a camera of the data, "orbit" circles at its distance and with its field of view.
      azimuths: "FROM,TO" in degrees of the orbit; default: once around, from the data's camera.
      elevation: degrees of the orbit above the horizon; default: that of the data's camera.
      overwrite: replaces videos of the same name; else new ones get a number.

    Example:
      python launch.py --app=sample --workdir=runs/dimo --num_samples=6 --seed=1 --num_frames=42

    Raises:
      UserError: bad flags, an unknown motion, or no finished run there; nothing is written.
    """
    check_flags("sample", locals())
    target = results_folder(workdir, "samples", out=out)
    model = restore(Path(workdir), checkpoint=checkpoint)
    frames = num_frames or model.num_frames
    path_of_camera = make_camera_path(model.camera(size), camera, frames, azimuths=azimuths, elevation=elevation)
    how: dict[str, Any] = dict(seed=seed, prior=prior, around=around, spread=spread, diverse=diverse)
    codes = draw_codes(model, num_samples=num_samples, **how)
    stem = name_draw(seed, around, spread, prior, checkpoint, camera, azimuths, elevation, diverse=diverse)
    stem += free_number(target, [(stem, ".mp4"), (stem, "")], overwrite=overwrite)
    labels = [f"sample {i + 1}" if not around else f"{around} {i + 1}" for i in range(num_samples)]
    rate = frame_rate or model.frame_rate * frames / model.num_frames
    videos = film_latents(model.player, codes, frame_times(frames), path_of_camera)
    path = write_draw(videos, target, stem, labels=labels, rate=rate)
    logging.info("wrote %s, and each motion alone in %s", path, path.with_suffix(""))
    print(describe_draw(model, codes))
    print(describe_cost(model.player, codes[0], frames, model.camera(size)))
    print(path)


def name_draw(
    seed: int,
    around: str,
    spread: float,
    prior: str,
    checkpoint: str,
    camera: str,
    azimuths: str,
    elevation: Any,
    *,
    diverse: bool = False,
) -> str:
    """The stem of a draw's files: the seed, and whatever else is not as it is without flags."""
    parts = [f"samples_{seed}"]
    if around:
        parts += ["around", shorten(around, 120)]
    parts += [*([] if around else ["spread"]), f"{spread:g}"] if spread != SPREAD else []
    parts += ["diverse"] if diverse else []
    parts += [value for value, usual in ((prior, "data"), (checkpoint, "last"), (camera, "fixed")) if value != usual]
    parts += [azimuths.replace(",", "_to_").replace(" ", "")] if azimuths else []
    parts += [f"elevation_{elevation:g}"] if elevation is not None else []
    return "_".join(parts)


def write_draw(videos: np.ndarray, folder: Path, stem: str, *, labels: list[str], rate: float) -> Path:
    """Writes videos [n,T,H,W,3] side by side, and each alone in a folder of that name; returns the former's path."""
    with replace_folder(folder / stem, owned=r"sample_\d+\.mp4") as temporary:
        for index, video in enumerate(videos, 1):
            write_video(video, temporary / f"sample_{index}.mp4", frame_rate=rate)
    path = folder / f"{stem}.mp4"
    write_video(tile(videos, labels), path, frame_rate=rate)
    return path


def describe_cost(player: Player, z: Array, num_frames: int, camera: Camera, *, repeats: int = 3) -> str:
    """What one pass costs, after compilation: milliseconds of decoding and skinning, and of rendering a frame."""
    times = frame_times(num_frames)
    cameras = jax.tree.map(lambda x: jnp.asarray(x)[None], camera)
    clip = player.play(z, times)
    deform = _median_ms(lambda: player.play(z, times).gaussians, repeats)
    draw = _median_ms(lambda: player.render(clip.gaussians, cameras), repeats) / num_frames
    return (
        f"one pass: {deform:.1f} ms for a motion of {num_frames} frames (decoding and skinning), {draw:.1f} ms a frame "
        f"to render ({camera.width}x{camera.height}, {choose_backend(player.implementation)}, "
        f"{jax.devices()[0].device_kind})"
    )


def _median_ms(call: Any, repeats: int) -> float:
    jax.block_until_ready(call())  # compiles
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds))
