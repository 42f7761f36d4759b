"""Frames as files that everybody can open: mp4, gif, numbered PNG. All frames are uint8, RGB, [...,H,W,3]."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image

from dimo_jax.core.errors import UserError
from dimo_jax.io.images import check_frames
from dimo_jax.runtime.files import replace_file, replace_folder

MAX_GIF_RATE = 100  # frames a second: gif counts time in hundredths
_GIF_PALETTE_SAMPLE = 16
_POSTER_FRAMES = 64


def _encode(frames: np.ndarray, path: Path, *, frame_rate: float, crf: int) -> None:
    # imageio-ffmpeg brings the program; its own writer forks with Python code in the child, which can deadlock beside
    # JAX's threads, and ignores the exit status, by which a full disk would pass for a video.
    height, width = frames.shape[1:3]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{frame_rate:.6f}", "-i", "-"]
    # Without an explicit matrix ffmpeg converts by BT.601 and leaves players to guess, which shifts colours.
    command += ["-vf", "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int"]
    command += ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
    # Half the time of x264's default preset, for files 4 % larger.
    command += ["-c:v", "libx264", "-preset", "veryfast", "-crf", str(crf)]
    command += ["-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path)]
    pixels = np.ascontiguousarray(frames).data.cast("B")
    done = subprocess.run(command, input=pixels, capture_output=True, check=False)
    if done.returncode != 0:
        reason = " ".join(done.stderr.decode("utf-8", "replace").split()) or f"exit status {done.returncode}"
        raise OSError(f"{path}: ffmpeg failed: {reason}")


def write_video(frames: np.ndarray, path: Path | str, *, frame_rate: float, crf: int = 18) -> Path:
    """Writes an mp4 that browsers play: H.264, yuv420p, BT.709, index at the front. Atomic.

    H.264 with yuv420p needs even sizes: an odd height or width grows by one pixel that repeats the last row or column.

    Args:
      frames: [T,H,W,3] uint8.
      path: the file to write, ending in `.mp4`.
      frame_rate: frames per second.
      crf: constant rate factor of x264, 0 (best) to 51; 18 is visually near lossless.

    Returns:
      `path`.

    Raises:
      OSError: the encoder failed (no room on the disk, say); its message is passed on.
    """
    frames = check_frames(frames, rank=4)
    path = Path(path)
    if path.suffix != ".mp4":
        raise ValueError(f"{path}: expected a name ending in .mp4")
    if not frame_rate > 0:
        raise ValueError(f"frame_rate is {frame_rate}, expected more than 0")
    if not 0 <= crf <= 51:
        raise ValueError(f"crf is {crf}, expected 0 to 51")
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    with replace_file(path) as temporary:
        _encode(frames, temporary, frame_rate=frame_rate, crf=crf)
    return path


def write_videos(videos: Iterable[tuple[np.ndarray, Path]], *, frame_rate: float, crf: int = 18) -> list[Path]:
    """Writes videos as `write_video` does, each while `videos` makes the next one.

    Args:
      videos: frames [T,H,W,3] uint8 and the file to write them to; two are held at most.
      frame_rate, crf: of `write_video`.

    Returns:
      The files, in order.

    Raises:
      OSError: as `write_video`; the videos after it are not made.
    """
    written: list[Future[Path]] = []
    with ThreadPoolExecutor(max_workers=1) as pool:
        for frames, path in videos:
            if written:
                written[-1].result()
            written.append(pool.submit(write_video, frames, path, frame_rate=frame_rate, crf=crf))
        return [video.result() for video in written]


def make_poster(path: Path | str) -> bytes:
    """A JPEG picture of a video: of its first frames the one most like all of them, by ffmpeg's choice.

    Not the first, which shows no motion: it is the pose that all motions begin in.

    Raises:
      UserError: the file cannot be read as a video.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-nostdin", "-i", f"file:{path}"]
    command += ["-vf", f"thumbnail={_POSTER_FRAMES}", "-frames:v", "1", "-f", "image2pipe", "-c:v", "mjpeg"]
    done = subprocess.run([*command, "-q:v", "4", "-"], capture_output=True, check=False)
    if done.returncode != 0 or not done.stdout:
        reason = " ".join(done.stderr.decode("utf-8", "replace").split())[-200:] or "no frame in it"
        raise UserError(f"{path}: cannot be read as a video ({reason}), expected an mp4 or WebM file")
    return done.stdout


def write_gif(frames: np.ndarray, path: Path | str, *, frame_rate: float) -> Path:
    """Writes a looping gif with one palette of 256 colours for all frames, so that still areas do not flicker. Atomic.

    Gif counts time in hundredths of a second: single frames are rounded so that the total length stays right. Equal
    neighbouring frames are stored as one longer frame. Above 50 frames per second browsers slow a gif down.

    Args:
      frames: [T,H,W,3] uint8.
      path: the file to write.
      frame_rate: frames per second.

    Returns:
      `path`.
    """
    frames = check_frames(frames, rank=4)
    path = Path(path)
    if not 0 < frame_rate <= MAX_GIF_RATE:
        raise ValueError(f"frame_rate is {frame_rate}, expected more than 0 and at most {MAX_GIF_RATE}")
    picks = np.unique(np.linspace(0, len(frames) - 1, _GIF_PALETTE_SAMPLE).round().astype(int))
    sample = Image.fromarray(frames[picks].reshape(-1, frames.shape[2], 3))
    palette = sample.quantize(256, method=Image.Quantize.MEDIANCUT)
    images = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for f in frames]
    ticks = np.round(np.arange(len(frames) + 1) * (100 / frame_rate)).astype(int)
    with replace_file(path) as temporary:
        images[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=[int(d) * 10 for d in np.diff(ticks)],
            loop=0,
        )
    return path


def write_png_sequence(frames: np.ndarray, folder: Path | str) -> list[Path]:
    """Writes `000000.png`, `000001.png`, ... into a folder of their own, which appears whole or not at all.

    An earlier sequence in that folder is replaced, its surplus frames included.

    Args:
      frames: [T,H,W,3] or [T,H,W,4] (straight alpha) uint8.
      folder: the folder to write.

    Returns:
      The files, in order.

    Raises:
      UserError: the folder holds anything but numbered PNG files.
    """
    frames = check_frames(frames, rank=4, channels=(3, 4))
    names = [f"{index:06d}.png" for index in range(len(frames))]
    with replace_folder(folder, owned=r"\d{6,}\.png") as temporary:
        for name, frame in zip(names, frames):
            Image.fromarray(np.ascontiguousarray(frame)).save(temporary / name, format="PNG")
    return [Path(folder) / name for name in names]
