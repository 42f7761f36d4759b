"""Reads what SV4D and SV4D 2.0 write: `000000_vVVV.mp4`, one video a novel view, on white.

The files do not say where the cameras stand. These are the defaults of the samplers' programs
(https://github.com/Stability-AI/generative-models, scripts/sampling, read for its facts), view 0, the input, first.
"""

from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import numpy as np

from dimo_jax.distill.failures import Failure
from dimo_jax.distill.masks import color_key

EIGHT_VIEWS = (0.0, 30.0, 75.0, 120.0, 165.0, 210.0, 255.0, 300.0, 330.0)  # SV4D 2.0, sv4d2_8views
FOUR_VIEWS = (0.0, 60.0, 120.0, 180.0, 240.0)  # SV4D 2.0, sv4d2
FIRST_VERSION = tuple(360 / 21 * index for index in (0, 2, 5, 7, 9, 12, 14, 16, 19))  # SV4D, views of SV3D's orbit


def read_view(path: Path, *, num_frames: int, size: int) -> np.ndarray:
    """A novel view as straight RGBA [num_frames,size,size,4] uint8, its white ground made transparent.

    Raises:
      Failure: it is no video, or has another size or number of frames.
    """
    frames = []
    try:
        reader = imageio_ffmpeg.read_frames(str(path), pix_fmt="rgb24")
        try:
            width, height = next(reader)["size"]
            if (height, width) != (size, size):
                raise Failure(f"{path.name}: video of {width}x{height}, expected {size}x{size}")
            for data in reader:
                frames.append(np.frombuffer(data, np.uint8).reshape(height, width, 3))
                if len(frames) > num_frames:
                    break
        finally:
            reader.close()
    except (OSError, ValueError, RuntimeError, StopIteration) as error:
        raise Failure(f"{path.name}: cannot be read as a video ({error})") from error
    if len(frames) != num_frames:
        more = "more" if len(frames) > num_frames else str(len(frames))
        raise Failure(f"{path.name}: {more} frames, expected {num_frames}")
    rgb = np.stack(frames)
    return np.concatenate([rgb, color_key(rgb, item=path.stem)[..., None]], axis=-1)
