"""The times of a clip's frames, and which of its frames a dataset keeps, whose own are evenly spaced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimo_jax.core.errors import UserError

MAX_FRAMES = 20_000
_JITTER = 0.3  # share of the mean distance that a frame of a steady clip may stand off its place; 3:2 pulldown has 0.2
_SHORT = 1.25  # frames this much further apart than the closest are still at their pace: stamps are rounded
_SNAP = 0.01  # share by which a pace that was measured may differ from a whole number
_NTSC = 1.001
_AS_WELL = 1.25


@dataclass(frozen=True, eq=False)
class Clock:
    """When the n frames of a clip are shown."""

    times: np.ndarray  # [n] seconds from the first frame, rising
    end: float  # seconds from the first frame to where the last one ends
    tick: float = 0.0  # seconds to which the file rounds the times

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.times)

    @property
    def is_steady(self) -> bool:
        """Whether the frames are evenly spaced, but for rounding and the pattern of a film in a television's pace."""
        if self.count < 3:
            return True
        step = float(self.times[-1]) / (self.count - 1)
        return self._error(1 / step) <= _JITTER * step + self.tick

    @property
    def rate(self) -> float:
        """Frames a second at which evenly spaced frames show the clip: its own, or of an uneven clip its fastest."""
        if self.count == 1:
            return 1 / self.end if self.end > 0 else 1.0
        if self.is_steady:
            measured = (self.count - 1) / float(self.times[-1])
            guesses = [rate for rate in (round(measured), round(measured * _NTSC) / _NTSC) if rate > 0]
            best = min(guesses, key=self._error, default=measured)
            # A usual pace that explains the times about as well is what was meant: they are rounded.
            return best if self._error(best) <= max(self.tick, _AS_WELL * self._error(measured)) else measured
        steps = np.diff(self.times)
        # The tenth of the frames that are closest: a single pair would be chance.
        close = float(np.quantile(steps, 0.1, method="lower"))
        rate = 1 / float(steps[steps <= close * _SHORT].mean())
        return round(rate) if abs(round(rate) / rate - 1) <= _SNAP else rate

    def _error(self, rate: float) -> float:
        """Seconds by which a frame stands furthest off its place at an even pace."""
        return float(np.abs(self.times - np.arange(self.count) / rate).max())

    def nearest(self, wanted: np.ndarray) -> np.ndarray:
        """Indices of the frames whose times are nearest to `wanted` seconds, the earlier of two as near."""
        middles = (self.times[1:] + self.times[:-1]) / 2
        return np.searchsorted(middles, wanted - 1e-6, side="left")


def steady_clock(count: int, rate: float) -> Clock:
    """The clock of `count` frames at `rate` a second."""
    return Clock(np.arange(count) / rate, count / rate)


@dataclass(frozen=True)
class Sampling:
    """Which frames of clips are kept, and at what size.

    With a `frame_rate`, frames are taken at that pace from a clip's beginning (the nearest in time); with `num_frames`
    alone, they are spread evenly over the clip's time, both ends included; with neither, all are kept, of a clip whose
    frames are not evenly spaced those nearest to an even pace, its fastest.
    """

    num_frames: int | None = None
    frame_rate: float | None = None  # frames a second
    size: int | None = None  # height in pixels; None: that of the files

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
          UserError: an option is out of range.
        """
        if self.num_frames is not None and self.num_frames < 1:
            raise UserError(f"num_frames: found {self.num_frames}, expected 1 or more")
        if self.frame_rate is not None and not 0 < self.frame_rate <= 1000:
            raise UserError(f"frame_rate: found {self.frame_rate:g}, expected more than 0 and at most 1000")
        if self.size is not None and not 8 <= self.size <= 4096:
            raise UserError(f"size: found {self.size}, expected 8..4096")


def pick_frames(clock: Clock | int, sampling: Sampling, where: str) -> tuple[np.ndarray, float | None]:
    """Which of a clip's frames are kept.

    Args:
      clock: of the clip; or how many frames it has, where their times are not known.
      sampling: what to keep.
      where: the clip's name, for errors.

    Returns:
      Indices [T], and the rate of the kept frames (None where the clip's is not known).

    Raises:
      UserError: more frames are asked for than there are, or a pace is and the clip's times are not known.
    """
    wanted = sampling.num_frames
    if sampling.frame_rate is not None:
        if isinstance(clock, int):
            raise UserError(f"{where}: its frame rate is not known, expected frame_rate beside the cameras")
        return _at_pace(clock, sampling.frame_rate, wanted, where), sampling.frame_rate
    count = clock if isinstance(clock, int) else clock.count
    if wanted is not None and wanted > count:
        raise UserError(f"{where}: {count} frames, expected at least {wanted} (num_frames)")
    if isinstance(clock, int) or clock.is_steady:
        rate = None if isinstance(clock, int) else clock.rate
        if wanted is None or wanted == count:
            return np.arange(count), rate
        indices = np.round(np.linspace(0, count - 1, wanted)).astype(int)
        return indices, None if rate is None or wanted == 1 else rate * (wanted - 1) / (count - 1)
    if wanted is None:
        return _at_pace(clock, clock.rate, None, where), clock.rate
    indices = clock.nearest(np.linspace(0, clock.times[-1], wanted))
    return indices, None if wanted == 1 else (wanted - 1) / float(clock.times[-1])


def _at_pace(clock: Clock, rate: float, wanted: int | None, where: str) -> np.ndarray:
    """Indices of frames at `rate` a second while the clip lasts, or of the first `wanted` of them."""
    slack = min(0.5, 1e-3 + 2 * clock.tick * rate)  # of a frame: the end is a sum of rounded times
    fitting = max(1, int(np.ceil(clock.end * rate - slack)))
    if fitting > MAX_FRAMES and (wanted is None or wanted > MAX_FRAMES):
        raise UserError(f"{where}: {fitting} frames at {rate:g} a second, expected {MAX_FRAMES} at most")
    if wanted is not None and wanted > fitting:
        raise UserError(
            f"{where}: {clock.count} frames in {clock.end:.3g} s, expected {wanted / rate:.3g} s or more for "
            f"num_frames={wanted} at {rate:g} a second"
        )
    return clock.nearest(np.arange(wanted or fitting) / rate)
