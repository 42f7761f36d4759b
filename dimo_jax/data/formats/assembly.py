"""How a recording becomes a dataset: its clips' clocks are read, then they are decoded and cut out one frame at a time.

What a dataset takes is known after the first pass (`plan_recording`), before anything is written. The second goes into
an array (`assemble`) or straight to disk (`write_recording`), and holds one frame a thread.
"""

from __future__ import annotations

import functools
import math
import shutil
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.data import extent
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.extent import Boxes
from dimo_jax.data.formats.native import new_folder, png_bytes, save_frame, write_index
from dimo_jax.data.formats.recording import Recording, choose_size, outline
from dimo_jax.io.clocks import Clock, Sampling, pick_frames, steady_clock
from dimo_jax.io.cutting import Shares, cut_frames
from dimo_jax.io.matte import Matte
from dimo_jax.runtime.capacity_checks import check_disk, check_memory, in_bytes
from dimo_jax.runtime.jobs import run_all

MAX_WORKERS = 4
_SAME_PACE = 0.01  # share by which clips' rates may differ: 29.97 and 30
Key = tuple[int, int]  # motion and view


@dataclass(frozen=True)
class Plan:
    """What a dataset of a recording will hold."""

    recording: Recording
    matte: Matte
    height: int
    width: int
    keep: dict[Key, np.ndarray]  # [T] indices of frames
    frame_rate: float
    notes: tuple[str, ...]  # what is unusual about the clips

    @property
    def shape(self) -> tuple[int, int, int, int, int, int]:
        """Of the frames: [M,V,T,H,W,4]."""
        num_frames = len(next(iter(self.keep.values())))
        return (len(self.recording.names), len(self.recording.view_names), num_frames, self.height, self.width, 4)

    @property
    def num_bytes(self) -> int:
        """Of the frames as uint8."""
        return math.prod(self.shape)

    def describe(self) -> str:
        """Motions, views, frames, size, and what they take."""
        motions, views, frames, height, width, _ = self.shape
        size = in_bytes(self.num_bytes)
        return f"{motions} motions x {views} views x {frames} frames of {width}x{height}: {size} of pictures as uint8"

    def frames(self, key: Key) -> Generator[np.ndarray, None, None]:
        """The frames of one motion and view, one by one: [H,W,4] uint8."""
        clip, mask = self.recording.clips[key], self.recording.masks.get(key)
        return cut_frames(clip, mask, self.matte, self.height, self.width, keep=self.keep[key])


def plan_recording(recording: Recording, *, sampling: Sampling | None = None, matte: Matte | None = None) -> Plan:
    """Reads the clocks of all clips, and decides which frames are kept.

    Args:
      recording: what a reader found.
      sampling: which frames, at what size; the intrinsics follow.
      matte: how backgrounds become transparent.

    Raises:
      UserError: damaged clips, or clips of different lengths, paces, sizes or shapes; the file is named.
    """
    sampling = sampling or Sampling()
    height, width = choose_size(recording, sampling)
    clocks: dict[Key, Clock | int] = {}

    def read(key: Key) -> int:
        clock = recording.clips[key].read_clock()
        known = isinstance(clock, int) and recording.frame_rate is not None
        clocks[key] = steady_clock(clock, recording.frame_rate) if known else clock  # type: ignore[arg-type]
        return 1

    keys = sorted(recording.clips)
    run_all([functools.partial(read, key) for key in keys], len(keys), "measuring clips", max_workers=MAX_WORKERS)
    keep: dict[Key, np.ndarray] = {}
    rates: dict[Key, float | None] = {}
    for key in keys:
        keep[key], rates[key] = pick_frames(clocks[key], sampling, str(recording.clips[key].path))
    if sampling.num_frames is None:
        _check_paces(recording, rates)
    odd = next((key for key in keys if len(keep[key]) != len(keep[keys[0]])), None)
    if odd is not None:
        raise UserError(
            f"{recording.clips[odd].path}: {len(keep[odd])} frames, expected {len(keep[keys[0]])} as in "
            f"{recording.clips[keys[0]].path} (or --num_frames to take as many from all)"
        )
    notes = (
        *recording.notes,
        *_note_clocks(recording, clocks, keep, rates),
        *_note_lengths(recording, clocks, sampling),
    )
    rate = _common_rate(recording, list(rates.values()))
    return Plan(recording, matte or Matte(), height, width, keep, rate, notes)


def _check_paces(recording: Recording, rates: dict[Key, float | None]) -> None:
    """Clips of which all frames are kept must have one pace, since the dataset has one."""
    known = {key: rate for key, rate in rates.items() if rate is not None}
    first = next(iter(known), None)
    for key, rate in known.items():
        if first is not None and abs(rate / known[first] - 1) > _SAME_PACE:
            raise UserError(
                f"{recording.clips[key].path}: {rate:.4g} frames a second, expected {known[first]:.4g} as in "
                f"{recording.clips[first].path} (or --frame_rate to bring all to one)"
            )


def _note_clocks(
    recording: Recording, clocks: dict[Key, Clock | int], keep: dict[Key, np.ndarray], rates: dict[Key, float | None]
) -> list[str]:
    """Lines about clips whose frames are not evenly spaced, so that some are taken twice or left out."""
    notes = []
    for key, clock in clocks.items():
        if not isinstance(clock, int) and not clock.is_steady:
            steps, used = np.diff(clock.times), len(np.unique(keep[key]))
            notes.append(
                f"{recording.clips[key].path}: its frames are {1000 * steps.min():.3g} to {1000 * steps.max():.3g} ms "
                f"apart; at {rates[key] or 0:.4g} a second it has {len(keep[key])}, from {used} of its {clock.count}"
            )
    return notes


def _note_lengths(recording: Recording, clocks: dict[Key, Clock | int], sampling: Sampling) -> list[str]:
    """A line about every motion whose views last unequally long where frames are spread over each of them."""
    if sampling.num_frames is None or sampling.frame_rate is not None:
        return []
    notes = []
    for m, name in enumerate(recording.names):
        ends = [clock.end for key, clock in clocks.items() if key[0] == m and not isinstance(clock, int)]
        if ends and max(ends) / min(ends) > 1.02:
            notes.append(
                f"{name}: its clips last {min(ends):.3g} to {max(ends):.3g} s, and --num_frames spreads over each; "
                "--frame_rate keeps views in step"
            )
    return notes


def _common_rate(recording: Recording, rates: list[float | None]) -> float:
    known = [rate for rate in rates if rate is not None]
    if not known:
        raise UserError(f"{recording.source}: found no frame rate, expected frame_rate beside the cameras")
    return round(float(np.median(known)), 3)


def fill(plan: Plan, frames: np.ndarray, *, report: Callable[[str], None] = lambda line: None) -> None:
    """Decodes all clips of a plan into `frames` [M,V,T,H,W,4].

    Raises:
      UserError: damaged clips, a mask of another size or length, no background, or no object; the file is named.
    """

    def take(key: Key, each: Iterator[np.ndarray]) -> None:
        for index, frame in enumerate(each):
            frames[key][index] = frame

    _each_clip(plan, take, "reading", report)


def _each_clip(
    plan: Plan, take: Callable[[Key, Iterator[np.ndarray]], None], label: str, report: Callable[[str], None]
) -> None:
    notes: dict[Key, list[str]] = {}
    num_frames, recording = plan.shape[2], plan.recording

    def work(key: Key) -> int:
        shares = Shares()

        def watched() -> Iterator[np.ndarray]:
            for frame in plan.frames(key):
                shares.add(frame)
                yield frame

        take(key, watched())
        mask = recording.masks.get(key) if plan.matte.how in ("auto", "masks") else None
        where = str((mask or recording.clips[key]).path)
        notes[key] = shares.check(where, kept_ground=plan.matte.how == "none" or recording.may_fill)
        return num_frames

    keys = sorted(plan.keep)
    jobs = [functools.partial(work, key) for key in keys]
    run_all(jobs, len(keys) * num_frames, f"{label} {recording.object_name}", max_workers=MAX_WORKERS)
    for key in keys:
        for line in notes[key]:
            report(f"note: {line}")


def assemble(
    recording: Recording,
    *,
    sampling: Sampling | None = None,
    matte: Matte | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Dataset:
    """Decodes a recording into memory. `write_recording` needs the memory of single frames only.

    Args:
      recording: what a reader found.
      sampling: which frames, at what size; the intrinsics follow.
      matte: how backgrounds become transparent.
      report: takes one line at a time about what is unusual.

    Raises:
      UserError: as `plan_recording` and `fill`, or the memory does not hold it.
    """
    plan = plan_recording(recording, sampling=sampling, matte=matte)
    for line in plan.notes:
        report(f"note: {line}")
    check_memory(plan.num_bytes, f"{recording.source}: {plan.describe()}", otherwise="--size or --num_frames")
    frames = np.empty(plan.shape, np.uint8)
    fill(plan, frames, report=report)
    return outline(recording, frames, plan.height, plan.width, frame_rate=plan.frame_rate)


def write_recording(
    plan: Plan,
    target: Path,
    place: Callable[[Dataset, Boxes], Dataset] = lambda dataset, boxes: dataset,
    *,
    report: Callable[[str], None] = lambda line: None,
) -> Dataset:
    """Writes a new native dataset folder, clip by clip and frame by frame; all of it or nothing.

    Args:
      plan: see `plan_recording`.
      target: the folder; it does not exist, or is empty.
      place: brings the dataset, whose frames are blank, to another place by the boxes of what its views see.
      report: takes one line at a time: first what it will take.

    Returns:
      What was written, with blank frames that take no memory.

    Raises:
      UserError: as `fill`, or the disk has no room or cannot be written.
    """
    recording = plan.recording
    for line in plan.notes:
        report(f"note: {line}")
    needed = _guess_disk_bytes(plan)
    report(f"{plan.describe()}, about {in_bytes(needed)} on disk")
    check_disk(target, needed, otherwise="--size or --num_frames make it smaller")
    blank = outline(
        recording, np.broadcast_to(np.uint8(0), plan.shape), plan.height, plan.width, frame_rate=plan.frame_rate
    )
    picks = extent.pick(len(recording.names), plan.shape[2])
    found: dict[tuple[int, int, int], np.ndarray | None] = {}
    with new_folder(target) as folder:
        for name in recording.names:
            (folder / name).mkdir()

        def take(key: Key, frames: Iterator[np.ndarray]) -> None:
            view = folder / recording.names[key[0]] / recording.view_names[key[1]]
            view.mkdir()
            last: tuple[np.ndarray, Path] | None = None
            for index, frame in enumerate(frames):
                path = view / f"{index:05d}.png"
                if last is not None and last[0] is frame:
                    shutil.copyfile(last[1], path)
                else:
                    save_frame(frame, path)
                last = (frame, path)
                if (key[0], index) in picks:
                    found[*key, index] = extent.find_box(frame[..., 3])

        _each_clip(plan, take, "writing", report)
        boxes = [[found[m, v, t] for v in range(plan.shape[1])] for m, t in picks]
        placed = place(blank, boxes)
        write_index(folder, placed)
    return placed


def _guess_disk_bytes(plan: Plan) -> int:
    """What all frames will take as PNGs, by the first of the first clip."""
    each = plan.frames(min(plan.keep))
    size = png_bytes(next(each))
    each.close()
    return size * math.prod(plan.shape[:3])
