"""Videos through ffmpeg's program: each frame once, as a player shows it, with the time that its own stamp says.

The program of `imageio-ffmpeg` is called here and not that package's reader, which takes a container's duration and one
mean rate for those of the video, and repeats frames to fill a constant rate.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import imageio_ffmpeg
import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.io.clocks import MAX_FRAMES, Clock
from dimo_jax.io.containers import check_whole
from dimo_jax.io.pictures import check_size, refuse

# What ffmpeg may take a file for: playlists, which name other files or addresses, are not among it.
SAFE_INPUT = ["-protocol_whitelist", "file", "-format_whitelist", "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"]
_WITH_ALPHA = {"vp9": ["-c:v", "libvpx-vp9"], "vp8": ["-c:v", "libvpx"]}  # ffmpeg's own decoders leave alpha out
# Turned by the file's metadata already; pixels that are not square are made so, without losing any.
_SQUARE = "scale=w='if(gt(sar,1),round(iw*sar),iw)':h='if(lt(sar,1),round(ih/sar),ih)',setsar=1"
_MAX_DAMAGE = 0.05  # share of packets that may fail to decode; the gap that one leaves is seen in the stamps
_FRAME = re.compile(r" n: *\d+ pts: *(\S+) .*?duration: *(\S+) .* s:(\d+)x(\d+)")
_BASE = re.compile(r" config in time_base: (\d+)/(\d+)")
_STREAM = re.compile(r"Stream #0:\d+.*?: Video: (\w+)")


@dataclass
class _Log:
    """What is read out of the lines that ffmpeg writes."""

    codec: str = ""
    tick: float = 0.0  # seconds
    size: tuple[int, int] | None = None  # width, height of the first frame, as shown
    stamps: list[int] = field(default_factory=list)
    length: int = 0  # of the last frame, in ticks
    errors: list[str] = field(default_factory=list)
    unstamped: bool = False

    def take(self, line: str) -> None:
        found = _FRAME.search(line)
        if found:
            self.size = self.size or (int(found[3]), int(found[4]))
            if not found[1].lstrip("-").isdigit():
                self.unstamped = True
            else:
                self.stamps.append(int(found[1]))
            self.length = int(found[2]) if found[2].isdigit() else 0
            return
        if not self.codec and (found := _STREAM.search(line)):
            self.codec = found[1]
        if not self.tick and (found := _BASE.search(line)) and int(found[2]):
            self.tick = int(found[1]) / int(found[2])
        if "[error]" in line or "[fatal]" in line:
            self.errors.append(line.rsplit("] ", 1)[-1].strip())


def _command(path: Path, codec: str, filters: str, output: Sequence[str]) -> list[str]:
    # An absolute path cannot be taken for an option or for an address.
    return [
        imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info",
        "-max_error_rate", str(_MAX_DAMAGE), *SAFE_INPUT, *_WITH_ALPHA.get(codec, []), "-i", str(path.absolute()),
        "-map", "0:V:0", "-fps_mode", "passthrough", "-vf", filters, *output,
    ]  # fmt: skip


def _start(command: list[str], *, stdout: int, stderr: int | IO[bytes]) -> subprocess.Popen[bytes]:
    # A group of its own: Ctrl-C is the caller's to handle, who ends it.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, process_group=0)


def _end(process: subprocess.Popen[bytes]) -> int:
    if process.poll() is None:
        process.kill()
    return process.wait()


def _listen(path: Path, codec: str, *output: str) -> _Log:
    """Decodes a video for what ffmpeg says about it."""
    command = _command(path, codec, f"{_SQUARE},showinfo=checksum=0", [*output, "-f", "null", "-"])
    process = _start(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    log, status = _Log(), 0
    try:
        assert process.stderr is not None
        for line in process.stderr:
            log.take(line.decode("utf-8", "replace"))
            if len(log.stamps) > MAX_FRAMES:
                raise UserError(f"{path}: more than {MAX_FRAMES} frames, expected fewer")
        status = process.wait()
    finally:
        _end(process)
        if process.stderr is not None:
            process.stderr.close()
    if log.size is None:
        raise refuse(path, RuntimeError("ffmpeg finds no video in it"), "a video")
    if status:
        raise refuse(path, RuntimeError(next(iter(log.errors), f"ffmpeg's exit status is {status}")), "a video")
    return log


def probe_video(path: Path) -> tuple[int, int, str]:
    """Height and width of a video's frames as they are shown, and its codec; one frame is decoded for that.

    Raises:
      UserError: it is cut off, no video is in it, or its sides are out of range.
    """
    check_whole(path)
    log = _listen(path, "", "-frames:v", "1")
    assert log.size is not None
    return (*check_size(path, *log.size), log.codec)


def read_video_clock(path: Path, codec: str) -> Clock:
    """The time of every frame, by its own stamp, counted from the first one.

    Raises:
      UserError: damaged, too long, or with stamps that are missing or do not rise.
    """
    log = _listen(path, codec)
    if log.unstamped:
        raise UserError(f"{path}: has frames without a time stamp, expected one on each")
    stamps = np.asarray(log.stamps, np.int64)
    steps = np.diff(stamps)
    if (steps <= 0).any():
        index = int(np.flatnonzero(steps <= 0)[0]) + 1
        raise UserError(f"{path}: the time stamp of frame {index} is not after that of the one before it")
    last = log.length or (int(np.median(steps)) if len(steps) else 0)
    return Clock((stamps - stamps[0]) * log.tick, (stamps[-1] - stamps[0] + last) * log.tick, tick=log.tick)


def decode_video(path: Path, codec: str, height: int, width: int) -> Iterator[np.ndarray]:
    """Frame by frame [height,width,4] uint8, straight alpha; as many as `read_video_clock` has times.

    Raises:
      UserError: the file is damaged.
    """
    output = ["-f", "rawvideo", "-pix_fmt", "rgba", "-"]
    with tempfile.TemporaryFile() as said:
        process = _start(
            _command(path, codec, f"scale={width}:{height},setsar=1", output), stdout=subprocess.PIPE, stderr=said
        )
        count, size = 0, height * width * 4
        try:
            assert process.stdout is not None
            while data := process.stdout.read(size):
                if len(data) < size:
                    raise refuse(path, RuntimeError("ffmpeg stopped within a frame"), "a video")
                count += 1
                yield np.frombuffer(data, np.uint8).reshape(height, width, 4)
            status = process.wait()
        finally:
            _end(process)
            if process.stdout is not None:
                process.stdout.close()
        if status or not count:
            said.seek(0)
            log = _Log()
            for line in said:
                log.take(line.decode("utf-8", "replace"))
            raise refuse(path, RuntimeError(next(iter(log.errors), "ffmpeg finds no frame in it")), "a video")
