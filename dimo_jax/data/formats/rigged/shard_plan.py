"""What of rigs' clips becomes videos and pose maps (`shards.py`): which clips, which times of them, and who trains.

Filters, after AnimaX (A.1: rigged and animated, over 16 frames, no negligible motion by optical flow): a clip lasts
`LEAST_SECONDS`, which are 16 frames at 60 a second; markers are on average `LEAST_MOTION` diagonals away from where the
piece begins; at most `MOST_OUTSIDE` of what is seen of markers lies outside of the pictures; no two clips of a rig are
the same. Clips longer than `PIECE` seconds are cut into pieces of equal length, of which the first few are taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dimo_jax.cameras.surround import AZIMUTHS, ELEVATION
from dimo_jax.core.errors import UserError
from dimo_jax.core.names import choose_names, make_distinct, to_file_name, words_of
from dimo_jax.data.clip_sentences import make_sentence
from dimo_jax.data.clips import SPLITS
from dimo_jax.data.formats.rigged.clip_views import (
    MARGIN,
    NUM_FRAMES,
    SIZE,
    RigView,
    place_clip,
    share_outside,
    view_rig,
)
from dimo_jax.data.puppet.catalog import MOTIONS
from dimo_jax.data.puppet.rig import write_puppet_rig
from dimo_jax.data.sources import GLTF_SUFFIXES
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.rigs.scene import Scene
from dimo_jax.rigs.skeleton import Clip

LEAST_SECONDS = 16 / 60
LEAST_MOTION = 5e-3  # diagonals: a third of a pixel at 64
MOST_OUTSIDE = 0.1
PIECE, MOST_PIECES = 2.2, 3
LEAST_SPLIT = 4  # clips of a rig from which on some are held out
PUPPET = "puppet"  # stands for the embedded character


@dataclass(frozen=True)
class ShardOptions:
    """What is asked for."""

    clips: str = ""  # names or patterns, of `clip` or `rig/clip`; empty takes all
    hide: str = ""  # nodes by name or pattern; each is looked for in every rig
    test_rigs: str = ""  # rigs of which nothing trains
    test_share: float = 1 / 6  # of the clips of every other rig that has `LEAST_SPLIT`
    size: int = SIZE
    num_frames: int = NUM_FRAMES
    azimuths_deg: tuple[float, ...] = AZIMUTHS
    elevation_deg: float = ELEVATION
    margin: float = MARGIN
    samples: int = 2
    variants: int = 1  # renders of every piece that trains, see `draw_variant`
    repair: bool = False

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
          UserError: an option is out of range.
        """
        checks = (
            ("size", 16 <= self.size <= 1024 and self.size % 2 == 0, "an even number of 16 to 1024"),
            ("num_frames", 2 <= self.num_frames <= 999, "2 to 999"),
            ("azimuths", 2 <= len(self.azimuths_deg) <= 64, "2 to 64 cameras"),
            ("elevation", -90 <= self.elevation_deg <= 90, "-90 to 90"),
            ("margin", 0 <= self.margin < 0.4, "0 to 0.4"),
            ("samples", 1 <= self.samples <= 8, "1 to 8"),
            ("variants", 1 <= self.variants <= 99, "1 to 99"),
            ("test_share", 0 <= self.test_share <= 0.9, "0 to 0.9"),
        )
        for name, valid, expected in checks:
            if not valid:
                value = getattr(self, name, None) or getattr(self, f"{name}_deg", 0)
                raise UserError(f"--{name}: found {value!r}, expected {expected}")


@dataclass(frozen=True)
class Piece:
    """A part of a clip that becomes a sample, or several."""

    clip: int  # of the scene's
    window: int
    times: np.ndarray  # [T]


@dataclass(frozen=True)
class RigPlan:
    """What of a rig is drawn."""

    name: str
    file: str
    scene: Scene
    view: RigView
    names: dict[int, str]  # of the clips that are drawn
    captions: dict[int, str]
    splits: dict[int, str]
    pieces: tuple[Piece, ...]


def find_rigs(source: str) -> list[tuple[str, Path | None, bool]]:
    """The models that a list of files and folders means, "puppet" among them.

    Returns:
      Distinct names, files (None of the embedded puppet), and whether a file was named itself, not by its folder.

    Raises:
      UserError: a place that does not exist, a folder without models, or another kind of file.
    """
    found: list[tuple[Path | None, bool]] = []
    for part in (each.strip() for each in source.split(",") if each.strip()):
        place = Path(part)
        if place.is_dir():
            files = sorted(path for path in place.iterdir() if path.suffix.lower() in GLTF_SUFFIXES)
            if not files:
                raise UserError(f"--source={part}: found no .glb or .gltf file in it, expected rigs")
            found += [(path, False) for path in files]
        elif place.is_file() and place.suffix.lower() in GLTF_SUFFIXES:
            found.append((place, True))
        elif part == PUPPET:
            found.append((None, True))
        else:
            what = "a file of another kind" if place.is_file() else "no such file or folder"
            raise UserError(f"--source={part}: {what}, expected .glb or .gltf files, folders of them, or {PUPPET}")
    stems = [to_file_name(path.stem, default="rig") if path else PUPPET for path, _ in found]
    return [(name, path, named) for name, (path, named) in zip(make_distinct(stems), found)]


def choose_rigs(asked: str, known: Sequence[str]) -> set[str]:
    """The names of rigs that a list of names or patterns means.

    Raises:
      UserError: one that fits none.
    """

    def fail(part: str) -> UserError:
        return UserError(f"--test_rigs={part}: fits no rig, expected some of {', '.join(known)}")

    return {known[index] for found in choose_names(asked, known, fail=fail, patterns=True) for index in found}


def plan_rigs(
    rigs: Sequence[tuple[str, Path | None, bool]],
    held_out: set[str],
    options: ShardOptions,
    scratch: Path,
    report: Callable[[str], None],
) -> Iterator[RigPlan]:
    """Plans of all rigs of which a clip is left; see `find_rigs`, `plan_rig`.

    A rig of a folder that cannot be used is left out with a line, one that was named is an error.

    Raises:
      UserError: bad input, or a pattern that fits nothing in any rig.
    """
    used: dict[str, bool] = {}
    for name, path, named in rigs:
        try:
            scene = _load(path, options, scratch, used)
            plan = plan_rig(name, path, scene, options, held_out=name in held_out, used=used, report=report)
        except UserError as error:
            if named:
                raise
            report(f"{name}: left out ({error})")
            continue
        if plan is not None:
            yield plan
    for part, fits in used.items():
        if not fits:
            raise UserError(f"--{part}: fits nothing in any rig, expected a name or a pattern of one")


def _load(path: Path | None, options: ShardOptions, scratch: Path, used: dict[str, bool]) -> Scene:
    file = path or write_puppet_rig(scratch / f"{PUPPET}.glb", num_motions=len(MOTIONS))
    scene = load_scene(file, repair=options.repair, animated=False)
    hide = _fitting("hide", options.hide, [node.name for node in scene.nodes], used)
    return load_scene(file, repair=options.repair, animated=False, hide=hide) if hide else scene


def _fitting(flag: str, asked: str, known: Sequence[str], used: dict[str, bool]) -> list[str]:
    """The parts of a list that fit some of these names; `used` remembers which ever did."""
    parts = [part.strip() for part in asked.split(",") if part.strip()]
    fits = []
    for part in parts:
        try:
            choose_names([part], known, fail=UserError, patterns=True)
            fits.append(part)
        except UserError:
            pass
        used[f"{flag}={part}"] = used.get(f"{flag}={part}", False) or part in fits
    return fits


def plan_rig(
    name: str,
    path: Path | None,
    scene: Scene,
    options: ShardOptions,
    *,
    held_out: bool = False,
    used: dict[str, bool] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> RigPlan | None:
    """Chooses what of a rig is drawn, and says it; None where no clip is left.

    Raises:
      UserError: no skin, or no joint that carries weight.
    """
    own = make_distinct([to_file_name(clip.name.rsplit("|", 1)[-1], default="clip") for clip in scene.clips])
    chosen = range(len(scene.clips))
    if options.clips:
        known = [*own, *(f"{name}/{each}" for each in own)]
        parts = _fitting("clips", options.clips, known, {} if used is None else used)
        found = choose_names(parts, known, fail=UserError, patterns=True)
        chosen = sorted({index % len(own) for indices in found for index in indices})  # type: ignore[assignment]
    view = view_rig(
        scene,
        size=options.size,
        azimuths_deg=options.azimuths_deg,
        elevation_deg=options.elevation_deg,
        margin=options.margin,
        samples=options.samples,
    )
    pieces: list[Piece] = []
    left: dict[str, list[str]] = {}
    kept: list[tuple[int, np.ndarray]] = []
    for index in chosen:
        found_pieces, why = _cut(scene, scene.clips[index], index, view, kept, options.num_frames)
        pieces += found_pieces
        if why:
            left.setdefault(why, []).append(own[index])
    for why, names in left.items():
        report(f"{name}: left out, {why}: {', '.join(names)}")
    taken = sorted({piece.clip for piece in pieces})
    if not taken:
        report(f"{name}: no clip is left of {len(scene.clips)}")
        return None
    splits = _split(name, {index: own[index] for index in taken}, options.test_share, held_out)
    count = {split: sum(each == split for each in splits.values()) for split in SPLITS}
    said = ", ".join(f"{number} {split}" for split, number in count.items() if number)
    report(f"{name}: {len(view.markers.names)} markers, clips: {said}; pieces: {len(pieces)}")
    words = tuple(word.lower() for word in words_of(name))
    return RigPlan(
        name=name,
        file=str(path or ""),
        scene=scene,
        view=view,
        names={index: own[index] for index in taken},
        captions={index: _caption(path, scene.clips[index], words) for index in taken},
        splits=splits,
        pieces=tuple(pieces),
    )


def _caption(path: Path | None, clip: Clip, words: Sequence[str]) -> str:
    if path is None:
        return next(motion.sentences[0] for motion in MOTIONS if motion.name == clip.name)
    return make_sentence(clip.name, known=words)


def _cut(
    scene: Scene, clip: Clip, index: int, view: RigView, kept: list[tuple[int, np.ndarray]], num_frames: int
) -> tuple[list[Piece], str]:
    """The pieces of a clip, and why none, or not all, are taken; the tracks of those taken join `kept`."""
    if clip.problem:
        return [], "cannot be posed"
    length = clip.end - clip.start
    if length < LEAST_SECONDS:
        return [], f"shorter than {LEAST_SECONDS:.2f} s"
    count = int(np.ceil(length / PIECE - 1e-6))
    ends = np.linspace(clip.start, clip.end, count + 1)
    pieces, why = [], ""
    for window in range(min(count, MOST_PIECES)):
        times = np.linspace(ends[window], ends[window + 1], num_frames)
        points = place_clip(scene, clip, times, view.markers)
        away = np.linalg.norm(points - points[:1], axis=-1).mean() / view.markers.diagonal
        if away < LEAST_MOTION:
            why = "still"
        elif share_outside(view, view.framing.apply(points)) > MOST_OUTSIDE:
            why = "outside of the pictures"
        elif any(np.abs(points - other).max() < 1e-4 * view.markers.diagonal for _, other in kept):
            why = "the same as another"
        else:
            pieces.append(Piece(index, window, times))
            kept.append((index, points))
    return pieces, why if not pieces else ""


def _split(rig: str, names: Mapping[int, str], share: float, held_out: bool) -> dict[int, str]:
    """Which clips train: by a hash of their names, so that others do not change it, and evenly for every rig."""
    if held_out:
        return dict.fromkeys(names, "rig")
    count = round(share * len(names)) if len(names) >= LEAST_SPLIT else 0
    order = sorted(names, key=lambda index: hashlib.sha256(f"{rig}/{names[index]}".encode()).hexdigest())
    return {index: "clip" if order.index(index) < count else "train" for index in names}
