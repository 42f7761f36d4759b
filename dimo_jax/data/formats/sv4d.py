"""Output folders of SV4D and SV4D 2.0: `NNNNNN_vVVV.mp4`, one video a novel view, on a white background.

NNNNNN counts the runs of the sampler, each a motion. VVV counts the novel views from 1; view 0, the input video, is
`NNNNNN_v000.mp4` or `NNNNNN_process_input.mp4`. The files do not say where the cameras stand; these are the samplers'
defaults (https://github.com/Stability-AI/generative-models, scripts/sampling, read for its facts).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.errors import UserError
from dimo_jax.data.captions import read_authors_captions, read_captions
from dimo_jax.data.formats.recording import Recording, collect, lens_of_fov
from dimo_jax.io.clips import Clip, open_clip

PATTERN = re.compile(r"([0-9]{6})_v([0-9]{3})\.mp4")
EIGHT_VIEWS = (0.0, 30.0, 75.0, 120.0, 165.0, 210.0, 255.0, 300.0, 330.0)  # SV4D 2.0, sv4d2_8views
FOUR_VIEWS = (0.0, 60.0, 120.0, 180.0, 240.0)  # SV4D 2.0, sv4d2
FIRST_VERSION = tuple(360 / 21 * index for index in (0, 2, 5, 7, 9, 12, 14, 16, 19))  # SV4D, views of SV3D's orbit
RADIUS = 2.0
FOV_DEG = 33.9


def is_sv4d(folder: Path) -> bool:
    """Whether a folder holds videos named as the samplers name them."""
    return folder.is_dir() and any(PATTERN.fullmatch(path.name) for path in folder.iterdir())


def default_azimuths(folder: Path, num_novel_views: int) -> tuple[float, ...]:
    """Degrees of view 0 and the novel views, by their number and by the files that only the first version writes.

    Raises:
      UserError: no sampler has that many views by default.
    """
    if num_novel_views == len(EIGHT_VIEWS) - 1:
        return FIRST_VERSION if any(folder.glob("??????_t000.mp4")) else EIGHT_VIEWS
    if num_novel_views == len(FOUR_VIEWS) - 1:
        return FOUR_VIEWS
    raise UserError(
        f"{folder}: {num_novel_views} novel views, expected 8 or 4 (or --azimuths, of view 0 and all others)"
    )


def _find_videos(folder: Path) -> tuple[dict[str, dict[int, Path]], int]:
    """Videos by motion and number of the view, view 0 where its input was kept; and the number of novel views.

    Raises:
      UserError: none, or a novel view that some motion lacks.
    """
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        match = PATTERN.fullmatch(path.name)
        if match:
            found.setdefault(match[1], {})[int(match[2])] = path
    for name, videos in found.items():
        given = folder / f"{name}_process_input.mp4"
        if 0 not in videos and given.is_file():
            videos[0] = given
    if not found:
        raise UserError(f"{folder}: found no NNNNNN_vVVV.mp4, expected an output folder of SV4D")
    novel = max(number for videos in found.values() for number in videos)
    for name, videos in found.items():
        absent = next((number for number in range(1, novel + 1) if number not in videos), None)
        if absent is not None:
            path = folder / f"{name}_v{absent:03d}.mp4"
            raise UserError(f"{path}: no such file, expected views 1 to {novel} of every motion")
    return found, novel


def _find_view(degrees: float, azimuths: Sequence[float], views: Sequence[int]) -> int:
    """Which of `views` stands at an azimuth, given with the digits that people write."""
    nearest = min(views, key=lambda view: abs(azimuths[view] - degrees))
    if abs(azimuths[nearest] - degrees) > 0.05:
        known = ", ".join(f"{azimuths[view]:g}" for view in views)
        raise UserError(f"--test_azimuths: found {degrees:g}, expected some of {known}")
    return nearest


def describe_sv4d(
    folder: str | Path,
    *,
    azimuths_deg: Sequence[float] = (),
    test_azimuths_deg: Sequence[float] = (),
    elevation_deg: float = 0.0,
    radius: float = RADIUS,
    fov_deg: float = FOV_DEG,
    problems: list[str] | None = None,
) -> Recording:
    """Finds the videos of an output folder and places their cameras.

    Args:
      folder: the sampler's output folder.
      azimuths_deg: degrees of view 0 and of every novel view; none takes the sampler's defaults.
      test_azimuths_deg: those among them that are held out from training.
      elevation_deg: of all cameras above the horizon.
      radius: distance of the cameras.
      fov_deg: vertical field of view.
      problems: takes what is wrong with single videos, which are then left out of `clips`; None raises the first.

    Raises:
      UserError: no such videos, a view that some motion lacks, or azimuths that do not fit.
    """
    root = Path(folder)
    found, novel = _find_videos(root)
    azimuths = tuple(azimuths_deg) or default_azimuths(root, novel)
    if len(azimuths) != novel + 1:
        raise UserError(
            f"--azimuths: found {len(azimuths)}, expected {novel + 1} for {root}: view 0 and {novel} others"
        )
    # The input video may have been kept for some motions only.
    views = sorted(set.intersection(*(set(videos) for videos in found.values())))
    held_out = [_find_view(degrees, azimuths, views) for degrees in test_azimuths_deg]
    cameras = orbit(
        [azimuths[view] for view in views], elevation_deg, radius=radius, fov_deg=fov_deg, height=1, width=1
    )
    names = tuple(sorted(found))
    clips: dict[tuple[int, int], Clip] = {}
    for m, name in enumerate(names):
        for v, view in enumerate(views):
            with collect(problems):
                clips[m, v] = open_clip(found[name][view])
    return Recording(
        source=str(root),
        object_name=root.resolve().name,
        lenses=tuple(lens_of_fov(pose, fov_deg) for pose in cameras.world_to_camera),
        view_names=tuple(f"v{view:03d}" for view in views),
        view_splits=tuple("test" if view in held_out else "train" for view in views),
        names=names,
        sentences=tuple(read_captions(root, names, read_authors_captions(root, names))),
        splits=("train",) * len(names),
        clips=clips,
    )
