"""`--app=sample`: restores a trained model and renders new motions."""

from __future__ import annotations

from pathlib import Path

import jax
from absl import logging

from dimo_jax.apps.checks import check_folder
from dimo_jax.apps.gallery import draw_samples, write_latents
from dimo_jax.apps.restore import restore
from dimo_jax.errors import UserError
from dimo_jax.train.stages import frame_times


def run(
    *, workdir: str, out: str = "", num_samples: int = 4, num_frames: int = 0, seed: int = 0, size: int = 0
) -> None:
    """Draws motions from the latent space of the run in `workdir` and writes them as one video.

    Args:
      workdir: of a training run.
      out: folder for `samples_<seed>.mp4`; default: `workdir`/samples.
      num_samples: how many motions.
      num_frames: frames of each (time is continuous); default: as in training.
      seed: of the draw.
      size: side of the pictures in pixels; default: as in training.
    """
    for name, value in (("num_samples", num_samples), ("num_frames", num_frames + 1), ("size", size + 1)):
        if value < 1:
            raise UserError(f"--{name}: found {value - (name != 'num_samples')}, expected a positive number")
    if out:
        check_folder(out, "out")
    model = restore(Path(workdir))
    camera = model.camera(size)
    codes = draw_samples(model.player, key=jax.random.key(seed), num_samples=num_samples)
    path = Path(out or Path(workdir) / "samples") / f"samples_{seed}.mp4"
    labels = [f"sample {i + 1}" for i in range(num_samples)]
    times = frame_times(num_frames or model.num_frames)
    write_latents(model.player, codes, times, camera, path, labels=labels, rate=model.frame_rate)
    logging.info("wrote %s", path)
    print(path)
