"""The same motions from other sides, by SV4D and SV4D 2.0 in a checkout of the user's own.

The samplers are programs of https://github.com/Stability-AI/generative-models that this project runs but does not
contain. The functions here say how to call one; `run_sampler` calls it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.sv4d import EIGHT_VIEWS, FIRST_VERSION, FOUR_VIEWS
from dimo_jax.io.clips import open_clip
from dimo_jax.priors.failures import Failure
from dimo_jax.priors.masks import color_key

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


@dataclass(frozen=True)
class _Version:
    """One of the samplers, known by the name of its weights."""

    script: str
    azimuths_deg: tuple[float, ...]  # of view 0 and the novel views
    num_steps: int
    elevation: float
    num_frames: range  # of videos that it can take
    options: tuple[tuple[str, str], ...] = ()  # that it alone has
    subfolder: str = ""  # of its output folder, into which it writes


_FIRST = "scripts/sampling/simple_video_sample_4d.py"
_SECOND = "scripts/sampling/simple_video_sample_4d2.py"
# The 8-view weights take 5 frames at a time, each run beginning with the last frame of the one before, and leave out
# what does not fill a run; the 4-view ones take 12 at a time and go back where the last run would be shorter.
_VERSIONS = {
    "sv4d2_8views": _Version(_SECOND, EIGHT_VIEWS, 50, 0.0, range(5, 10_000, 4), subfolder="sv4d2_8views"),
    "sv4d2": _Version(_SECOND, FOUR_VIEWS, 50, 0.0, range(12, 10_000), subfolder="sv4d2"),
    # Of the models for the first frame's views "sv3d_p" follows the elevation.
    "sv4d": _Version(_FIRST, FIRST_VERSION, 20, 10.0, range(21, 22), (("sv3d_version", "sv3d_p"),)),
}


def sv4d(
    frames: Path,
    out: Path,
    *,
    num_frames: int,
    size: int,
    checkout: str = "",
    python: str = "python",
    model_path: str = "checkpoints/sv4d2_8views.safetensors",
    num_steps: int | None = None,
    seed: int = 23,
    elevation: float | None = None,
    encoding_t: int = 8,
    decoding_t: int = 4,
    timeout: float = 7200.0,
    extra: Sequence[str] = (),
) -> Sampler:
    """SV4D 2.0 (Yao et al. 2025) with 8 or 4 novel views, or SV4D (Xie et al. 2024) with 8 on SV3D's orbit.

    Args:
      frames: folder of numbered RGBA images, the input video.
      out: folder for what it writes.
      num_frames: of the input: 4 n + 1 for 8 views, 12 or more for 4, 21 for the first SV4D.
      size: side of the pictures that it works with; 576 for these weights.
      checkout: the repository's folder, with the weights in its `checkpoints`.
      python: the interpreter of the checkout's own environment.
      model_path: weights, absolute or in the checkout. Their name chooses the program: sv4d2_8views.safetensors,
        sv4d2.safetensors (4 views), or sv4d.safetensors, which the first SV4D itself looks for in `checkpoints`.
      num_steps: of the sampler; None takes its own default.
      seed: likewise.
      elevation: degrees of the cameras above the horizon, that of the input; None takes the program's default.
      encoding_t: frames encoded at a time; fewer take less memory.
      decoding_t: likewise for decoding.
      timeout: seconds after which it is ended.
      extra: more arguments of the script.

    Raises:
      UserError: no such checkout, script, weights or interpreter, weights of another name, or a number of frames that
        the program would not make views of.
    """
    weights = Path(model_path).expanduser()
    version = _find_version(weights, num_frames)
    root = _find_checkout(checkout, (version.script, weights))
    angle = version.elevation if elevation is None else float(elevation)
    options: dict[str, object] = dict(input_path=frames, output_folder=out, img_size=size, seed=seed)
    options |= dict(num_steps=num_steps or version.num_steps, elevations_deg=angle)
    options |= dict(encoding_t=encoding_t, decoding_t=decoding_t)
    options |= dict(model_path=weights, n_frames=num_frames) if version.script == _SECOND else {}
    # It would scale each video by itself; all have one framing already.
    options |= dict(version.options) | dict(image_frame_ratio=None, remove_bg=False)
    arguments = (f"--{key}={value}" for key, value in options.items())
    command = (_find_python(python, root), version.script, *arguments, *extra)
    numbers = range(1, len(version.azimuths_deg))
    videos = tuple(out / version.subfolder / f"000000_v{number:03d}.mp4" for number in numbers)
    return Sampler(command, root, videos, version.azimuths_deg, angle, timeout)


def input_view_only(frames: Path, out: Path, *, num_frames: int, size: int, elevation: float = 0.0) -> Sampler:
    """No novel views: the dataset has the one view of the videos."""
    return Sampler((), None, (), (0.0,), elevation, 0.0)


def _find_version(weights: Path, num_frames: int) -> _Version:
    """The sampler of some weights, which must be able to take a video of that length."""
    if weights.suffix != ".safetensors" or weights.stem not in _VERSIONS:
        known = ", ".join(f"{name}.safetensors" for name in _VERSIONS)
        raise UserError(f"config.views.model_path: found {str(weights)!r}, expected one of {known}")
    counts = _VERSIONS[weights.stem].num_frames
    if num_frames not in counts:
        near = [str(count) for count in counts if abs(count - num_frames) < counts.step] or [str(counts[0])]
        raise UserError(
            f"config.framing.num_frames: found {num_frames}, expected e.g. {' or '.join(near)} for {weights.name} "
            "(config.views)"
        )
    return _VERSIONS[weights.stem]


def _find_checkout(checkout: str, needed: Sequence[str | Path]) -> Path:
    if not checkout:
        raise UserError(
            "config.views.checkout: not given, expected the folder of a Stability-AI/generative-models checkout, or "
            "--config.views.fn=dimo_jax.priors.novel_views:input_view_only"
        )
    root = Path(checkout).expanduser().resolve()
    for name in needed:
        if not (root / name).is_file():
            raise UserError(
                f"config.views: found no {root / name}, expected a checkout with SV4D and its weights there"
            )
    return root


def _find_python(python: str, root: Path) -> str:
    """The interpreter as it is to be called from `root`: by name, or a path there or from the root of all files."""
    expanded = str(Path(python).expanduser()) if python.startswith("~") else python
    found = shutil.which(expanded if os.sep not in expanded else str(root / expanded))
    if found is None:
        raise UserError(f"config.views.python: found no program {python!r}, expected the checkout's own interpreter")
    return expanded


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
