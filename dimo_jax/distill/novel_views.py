"""The same motions from other sides, by SV4D and SV4D 2.0 in a checkout of the user's own.

The samplers are programs of https://github.com/Stability-AI/generative-models that this project runs but does not
contain. The functions here say how to call one; `run_sampler` calls it.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dimo_jax.data.clips import open_clip
from dimo_jax.data.sv4d import EIGHT_VIEWS, FIRST_VERSION, FOUR_VIEWS
from dimo_jax.distill.failures import Failure
from dimo_jax.distill.masks import color_key
from dimo_jax.errors import UserError

LOG_TAIL = 2000  # bytes of a log's end that are searched for the reason of a failure


@dataclass(frozen=True)
class Sampler:
    """How to make the novel views of a video; the command is empty where there are none to make."""

    command: tuple[str, ...]
    folder: Path | None  # to run it in
    videos: tuple[Path, ...]  # that it writes: view 1, 2, ...
    azimuths_deg: tuple[float, ...]  # of view 0, the input, and of these
    elevation_deg: float
    timeout: float  # seconds


def sv4d2(
    frames: Path,
    out: Path,
    *,
    num_frames: int,
    size: int,
    checkout: str = "",
    python: str = "python",
    script: str = "scripts/sampling/simple_video_sample_4d2.py",
    model_path: str = "checkpoints/sv4d2_8views.safetensors",
    num_steps: int = 50,
    seed: int = 23,
    elevation: float = 0.0,
    encoding_t: int = 8,
    decoding_t: int = 4,
    timeout: float = 7200.0,
    extra: Sequence[str] = (),
) -> Sampler:
    """SV4D 2.0 (Yao et al. 2025): 8 novel views (sv4d2_8views.safetensors) or 4 (sv4d2.safetensors).

    Args:
      frames: folder of numbered RGBA images, the input video.
      out: folder for what it writes.
      num_frames: of the input.
      size: side of the pictures that it works with; 576 for these weights.
      checkout: the repository's folder, with the weights in its `checkpoints`.
      python: the interpreter of the checkout's own environment.
      script: of the sampler, in the checkout.
      model_path: weights, absolute or in the checkout; its name chooses the number of views.
      num_steps: of the sampler.
      seed: likewise.
      elevation: degrees of the cameras above the horizon, that of the input.
      encoding_t: frames encoded at a time; fewer take less memory.
      decoding_t: likewise for decoding.
      timeout: seconds after which it is ended.
      extra: more arguments of the script.

    Raises:
      UserError: no such checkout, script or weights, or weights of another name.
    """
    root = _find_checkout(checkout, (script, model_path))
    kinds = {"sv4d2_8views": EIGHT_VIEWS, "sv4d2": FOUR_VIEWS}
    kind = Path(model_path).stem
    if kind not in kinds or not model_path.endswith(".safetensors"):
        raise UserError(
            f"config.views.model_path: found {model_path!r}, expected sv4d2_8views.safetensors or sv4d2.safetensors"
        )
    options = dict(input_path=frames, model_path=model_path, output_folder=out, n_frames=num_frames, img_size=size)
    options |= dict(num_steps=num_steps, seed=seed, elevations_deg=float(elevation))
    options |= dict(encoding_t=encoding_t, decoding_t=decoding_t)
    # It would scale each video by itself; all have one framing already.
    options |= dict(image_frame_ratio=None, remove_bg=False)
    command = (python, script, *(f"--{name}={value}" for name, value in options.items()), *extra)
    return Sampler(command, root, _name_videos(out / kind, len(kinds[kind]) - 1), kinds[kind], elevation, timeout)


def sv4d(
    frames: Path,
    out: Path,
    *,
    num_frames: int,
    size: int,
    checkout: str = "",
    python: str = "python",
    script: str = "scripts/sampling/simple_video_sample_4d.py",
    sv3d_version: str = "sv3d_p",
    num_steps: int = 20,
    seed: int = 23,
    elevation: float = 10.0,
    decoding_t: int = 4,
    timeout: float = 7200.0,
    extra: Sequence[str] = (),
) -> Sampler:
    """SV4D (Xie et al. 2024): 21 frames, 8 novel views on SV3D's orbit; options as in `sv4d2`.

    `sv3d_version` is "sv3d_p", which follows `elevation`, or "sv3d_u".
    """
    root = _find_checkout(checkout, (script,))
    if num_frames != 21:
        raise UserError(f"config.framing.num_frames: found {num_frames}, expected 21 for SV4D (config.views)")
    options = dict(input_path=frames, output_folder=out, sv3d_version=sv3d_version, img_size=size)
    options |= dict(num_steps=num_steps, seed=seed, elevations_deg=float(elevation), decoding_t=decoding_t)
    options |= dict(image_frame_ratio=None, remove_bg=False)
    command = (python, script, *(f"--{name}={value}" for name, value in options.items()), *extra)
    return Sampler(command, root, _name_videos(out, len(FIRST_VERSION) - 1), FIRST_VERSION, elevation, timeout)


def input_view_only(frames: Path, out: Path, *, num_frames: int, size: int, elevation: float = 0.0) -> Sampler:
    """No novel views: the dataset has the one view of the videos."""
    return Sampler((), None, (), (0.0,), elevation, 0.0)


def _name_videos(folder: Path, count: int) -> tuple[Path, ...]:
    return tuple(folder / f"000000_v{number:03d}.mp4" for number in range(1, count + 1))


def _find_checkout(checkout: str, needed: Sequence[str]) -> Path:
    if not checkout:
        raise UserError(
            "config.views.checkout: not given, expected the folder of a Stability-AI/generative-models checkout, or "
            "--config.views.fn=dimo_jax.distill.novel_views:input_view_only"
        )
    root = Path(checkout).expanduser().resolve()
    for name in needed:
        if not (root / name).is_file():
            raise UserError(
                f"config.views: found no {root / name}, expected a checkout with SV4D and its weights there"
            )
    return root


def run_sampler(sampler: Sampler, log: Path, *, hidden: Sequence[str] = (), lock: int | None = None) -> int:
    """Runs a sampler, its output going to a log, and checks that it has written its videos.

    Args:
      sampler: with a command.
      log: the file to write.
      hidden: variables of the environment that the command shall not see: keys.
      lock: a file descriptor that the command holds open, so that its lock outlives a run that is killed.

    Returns:
      The exit status, 0.

    Raises:
      Failure: it cannot be started, ends with another status or too late, or videos are missing. The failure's
        `status` attribute is its exit status, None where it had none.
    """
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        try:
            # A group of its own, so that what it has started ends with it.
            process = subprocess.Popen(
                sampler.command,
                cwd=sampler.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=() if lock is None else (lock,),
            )
        except OSError as error:
            raise SamplerFailure(
                f"{sampler.command[0]} cannot be started ({error.strerror})", None, fatal=True
            ) from error
        try:
            status = process.wait(timeout=sampler.timeout)
        except subprocess.TimeoutExpired:
            raise SamplerFailure(f"the sampler took more than {sampler.timeout:g} s", None) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if status:
        raise SamplerFailure(f"the sampler ended with exit status {status}: {last_line(log)}", status)
    missing = [path.name for path in sampler.videos if not path.is_file()]
    if missing:
        raise SamplerFailure(f"the sampler wrote no {missing[0]}: {last_line(log)}", status)
    return status


def read_view(path: Path, *, num_frames: int, size: int) -> np.ndarray:
    """A novel view as [num_frames,size,size,4] uint8, straight alpha, its white ground made transparent.

    Raises:
      Failure: it cannot be read as a video, or has another size or number of frames.
    """
    try:
        clip = open_clip(path)
        if (clip.height, clip.width) != (size, size):
            raise Failure(f"{path.name}: video of {clip.width}x{clip.height}, expected {size}x{size}")
        frames = [frame[..., :3] for frame in itertools.islice(clip.frames(), num_frames + 1)]
    except UserError as error:
        raise Failure(str(error)) from error
    if len(frames) != num_frames:
        more = "more" if len(frames) > num_frames else str(len(frames))
        raise Failure(f"{path.name}: {more} frames, expected {num_frames}")
    return color_key(np.stack(frames), item=path.stem)


class SamplerFailure(Failure):
    """A sampler that failed, and its exit status."""

    def __init__(self, reason: str, status: int | None, *, fatal: bool = False) -> None:
        self.status = status
        memory = "out of memory" in reason.lower()
        super().__init__(
            reason,
            suggestion="try smaller --config.views.encoding_t and --config.views.decoding_t" if memory else "",
            fatal=fatal or memory,
        )


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_TAIL))
        lines = file.read().decode("utf-8", "replace").splitlines()
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "it printed nothing")
