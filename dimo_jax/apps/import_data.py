"""Turns somebody's model into a dataset folder: `python launch.py --app=import_data --source=FILE.glb --out=FOLDER`.

For the knight of the development data, which carries all its swords and shields at once:

    python launch.py --app=import_data --source=../shared/data/knight.glb --out=knight \
        --clips='Walking_A,Running_A,Jump_Full_Short,1H_Melee_Attack_*,Cheer,Death_B,Sit_*_Down' \
        --hide='1H_Sword_Offhand,2H_Sword,Badge_Shield,Rectangle_Shield,Spike_Shield'
"""

from __future__ import annotations

import os
from pathlib import Path

from dimo_jax.apps.options import parse_numbers, split
from dimo_jax.data.clip_passes import Timing
from dimo_jax.data.import_folder import import_folder
from dimo_jax.data.import_gltf import Options
from dimo_jax.data.studio import Studio, spread_views
from dimo_jax.errors import UserError


def run(
    *,
    source: str,
    out: str,
    clips: str = "",
    hide: str = "",
    test_clips: str = "",
    num_frames: int = 21,
    size: int = 128,
    azimuths: str = "0,30,75,120,165,210,255,300,330",
    num_views: int = 0,
    test_azimuths: str = "50,190",
    elevation: float = 10.0,
    radius: float = 2.0,
    fov_deg: float = 33.9,
    margin: float = 0.04,
    samples: int = 2,
    root_motion: str = "keep",
    loop: bool = False,
    num_surface_points: int = 8192,
    num_workers: int = 0,
) -> None:
    """Imports a rigged, animated glTF model as a native dataset folder, and says what it found.

    Stopped at any time, the same command goes on where it was.

    Args:
      source: a .glb or .gltf file.
      out: the folder to write; it must not exist, or be empty.
      clips: clip names or patterns, separated by commas; empty takes every clip that moves.
      hide: names or patterns of nodes to leave out, separated by commas.
      test_clips: names or patterns of the clips kept from training.
      num_frames: frames each clip is sampled at.
      size: image height and width in pixels.
      azimuths: degrees of the views that train, separated by commas.
      num_views: so many views that train, evenly around the model, instead of `azimuths`.
      test_azimuths: degrees of the views held out.
      elevation: degrees of all cameras above the horizon.
      radius: distance of the cameras.
      fov_deg: field of view in degrees.
      margin: share of the picture that stays free at each border.
      samples: samples a pixel along each axis.
      root_motion: "keep", or "remove" to keep a clip that travels in place.
      loop: whether the clips repeat, so that the last frame lies before the clip's end.
      num_surface_points: points of the surface whose trajectories are kept for evaluation.
      num_workers: processes; 0 takes as many as there are processor cores.

    Raises:
      UserError: bad input; nothing has been written.
    """
    target = _check_paths(source, out)
    options = Options(
        clips=split(clips),
        hide=split(hide),
        test_clips=split(test_clips),
        timing=Timing(num_frames=num_frames, loop=loop, root_motion=root_motion),
        studio=Studio(
            azimuths_deg=spread_views(num_views) if num_views else parse_numbers("azimuths", azimuths),
            test_azimuths_deg=parse_numbers("test_azimuths", test_azimuths),
            elevation_deg=elevation,
            radius=radius,
            fov_deg=fov_deg,
            size=size,
            margin=margin,
            samples=samples,
        ),
        num_surface_points=num_surface_points,
    )
    workers = num_workers or os.cpu_count() or 1
    dataset = import_folder(source, target, options, num_workers=workers, report=print)
    print(
        f"wrote {dataset.num_motions} motions x {dataset.num_views} views x {dataset.num_frames} frames of {size} px, "
        f"{dataset.frame_rate:g} frames a second, to {target}: {', '.join(dataset.names)}"
    )
    print(f"train on it: python launch.py --config=configs/dimo.py --config.data.path={target}")


def _check_paths(source: str, out: str) -> Path:
    """The folder to write, after a check of both paths that costs nothing."""
    if not source or not out:
        raise UserError(f"--source, --out: found {source!r} and {out!r}, expected a .glb or .gltf file and a folder")
    if Path(source).is_dir():
        raise UserError(f"{source}: is a folder, expected a .glb or .gltf file")
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{out}: exists and is not an empty folder, expected a new one")
    return target
