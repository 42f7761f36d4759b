"""`--app=animate`: gives a rigged model a motion that nobody animated, as one clip more in its file.

The motion comes from pose maps or tracked joints of several views (`--poses`); the result is the same file with a clip
more. docs/rigs.md describes the folder, the report, and how far to believe it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dimo_jax.cli.flag_checks import check_flags
from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.pose_folder import color_markers, open_pose_folder, read_pose_clip
from dimo_jax.io.gltf.append import NewClip, append_clips
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.rigs.recovery import lift_markers, recover_markers
from dimo_jax.runs.animation import (
    Animation,
    Model,
    animate_markers,
    check_cameras,
    describe,
    make_model,
    measure_own_jerk,
)
from dimo_jax.runtime.files import write_json

_SEEN = 0.1  # share of a view's markers that must be found in it


def run(
    *,
    source: str,
    out: str,
    poses: str = "",
    hide: str = "",
    repair: bool = False,
    smooth: float = 0.0,
    overwrite: bool = False,
) -> None:
    """Writes a rigged model with new clips, a line and a row of a JSON report each.

    Args:
      source: the .glb or .gltf file to animate; it is not changed.
      out: the file to write, of the same kind; the report lies beside it, with the suffix .json.
      poses: folder with pose-map videos or 2D joints of several views, and cameras.json.
      hide: nodes to leave out of account, by name or pattern, separated by commas; the written file keeps them.
      repair: settles NaN and infinite numbers of the file that something drawn needs.
      smooth: weight of smoothness in time, against points seen; 0 follows them.
      overwrite: replaces the file at `out`.

    Raises:
      UserError: bad input; nothing has been written.

    Example:
      python launch.py --app=animate --source=rig.glb --poses=poses --out=animated.glb
    """
    check_flags("animate", locals())
    target, report = _check_out(Path(source), Path(out), overwrite)
    model = make_model(load_scene(source, hide=hide, repair=repair, animated=False))
    # Other sources of motion join here: each takes the model and gives animations.
    sources: dict[str, Callable[[], list[Animation]]] = {"poses": lambda: from_poses(model, poses, smooth=smooth)}
    animations = sources["poses"]()
    own = {rate: measure_own_jerk(model, rate) for rate in {each.figures["frame_rate"] for each in animations}}
    clips = [NewClip(each.name, each.seconds, each.pose) for each in animations]
    names = append_clips(source, target, model.rig, clips)
    rows = [
        each.figures | {"clip": name, "own_jerk": own[each.figures["frame_rate"]]}
        for name, each in zip(names, animations)
    ]
    write_json({"source": source, "clips": rows}, report)
    for row in rows:
        print(describe(row))
    print(f"wrote {len(rows)} {'clip' if len(rows) == 1 else 'clips'} more to {target}, figures to {report}")


def _check_out(source: Path, target: Path, overwrite: bool) -> tuple[Path, Path]:
    """The file to write, and its report's."""
    if target.suffix.lower() != source.suffix.lower():
        raise UserError(
            f"--out={target}: found {target.suffix or 'no suffix'}, expected {source.suffix} as of --source"
        )
    if target.exists() and source.exists() and target.samefile(source):
        raise UserError(f"--out={target}: is the source itself, expected another file")
    report = target.with_suffix(".json")
    for path in (target, report):
        if path.exists() and not overwrite:
            raise UserError(f"--out={target}: {path} exists, expected a new file (or --overwrite)")
    return target, report


def from_poses(model: Model, folder: str, *, smooth: float = 0.0) -> list[Animation]:
    """Clips of a folder of pose maps or tracks.

    Raises:
      UserError: anything of the folder is missing, malformed, or does not fit the model or each other.
    """
    opened = open_pose_folder(folder)
    markers = color_markers(opened, model.markers)
    animations = []
    for name, place in opened.clips:
        clip = read_pose_clip(opened, name, place, markers)
        if clip.frames is not None:
            lifted = recover_markers(clip.frames, clip.cameras, markers)
        else:
            assert clip.tracks is not None
            lifted = lift_markers(clip.tracks, clip.cameras, markers)
        for view, seen in zip(opened.view_names, np.isfinite(lifted.errors).mean(axis=(1, 2))):
            if seen < _SEEN:
                found = f"found {100 * seen:.0f} % of {len(markers.names)} markers of {model.scene.path.name}"
                raise UserError(f"{place}: view {view}: {found}, expected pose maps in its colours")
        problem = check_cameras(lifted, markers)
        if problem:
            raise UserError(f"{opened.path / 'cameras.json'}: {problem}: the cameras do not fit clip {name}")
        animations.append(animate_markers(model, name, lifted, clip.frame_rate, smooth=smooth))
    return animations
