"""`--app=pose_maps`: draws clips of a rigged model as pose-map videos of several views, which `--app=animate` reads.

A video model is given such pictures as its condition, and a newcomer sees with them what a folder of poses is.
docs/rigs.md describes the folder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dimo_jax.cameras.surround import AZIMUTHS, ELEVATION, surround
from dimo_jax.cli.flag_checks import check_flags
from dimo_jax.core.flag_values import parse_numbers
from dimo_jax.core.names import make_distinct, to_file_name
from dimo_jax.data.formats.pose_folder import FILE, FRAME_RATE, write_pose_folder
from dimo_jax.io.gltf.scene import load_scene, select_clips
from dimo_jax.rigs.pose_markers import make_markers, place_pose_markers
from dimo_jax.rigs.posing import pose_nodes
from dimo_jax.rigs.sampling import frame_times
from dimo_jax.runtime.files import replace_folder


def run(
    *,
    source: str,
    out: str,
    clips: str | None = None,
    hide: str = "",
    repair: bool = False,
    size: int | None = None,
    azimuths: str | None = None,
    elevation: float | None = None,
    frame_rate: float | None = None,
) -> None:
    """Draws a rigged model's clips as pose-map videos: what a video model is conditioned on, and --app=animate reads.

    Args:
      source: a rigged .glb or .gltf file.
      out: the folder to write: a folder for each clip with a video for each view, and cameras.json.
      clips: clips by name or pattern, separated by commas; default: all. A model without any is drawn at rest.
      hide: nodes to leave out of account, by name or pattern, separated by commas.
      repair: settles NaN and infinite numbers of the file that something drawn needs.
      size: of the pictures in pixels, an even number; default: 480.
      azimuths: degrees of the cameras, separated by commas, two at least; default: 20,110,200,290.
      elevation: degrees of all cameras above the horizon; default: 15.
      frame_rate: frames a second; default: 24.

    Raises:
      UserError: bad input; nothing has been written.

    Example:
      python launch.py --app=pose_maps --source=rig.glb --out=poses --clips=Walk
    """
    check_flags("pose_maps", locals())
    scene = load_scene(source, hide=hide, repair=repair, animated=False)
    markers = make_markers(scene)
    chosen = select_clips(scene, clips) if clips else tuple(clip for clip in scene.clips if not clip.problem)
    rate = frame_rate or FRAME_RATE
    names = make_distinct([to_file_name(clip.name, default="clip") for clip in chosen], taken=(FILE,)) or ("rest",)
    points = {
        name: place_pose_markers(markers, pose_nodes(scene, clip, times).matrices)
        for name, clip, times in zip(names, chosen or (None,), [frame_times(c, rate) for c in chosen] or [np.zeros(1)])
    }
    side = size or 480
    cameras = surround(
        np.concatenate(list(points.values())),
        height=side,
        width=side,
        azimuths_deg=parse_numbers("azimuths", azimuths or "") or AZIMUTHS,
        elevation_deg=ELEVATION if elevation is None else elevation,
    )
    with replace_folder(out, owned="") as folder:
        write_pose_folder(folder, points, cameras, markers, frame_rate=rate)
    print(f"wrote {', '.join(names)} of {len(np.asarray(cameras.focal))} views, {len(markers.names)} markers, to {out}")
    result = f"animated{Path(source).suffix}"
    print(f"read it: python launch.py --app=animate --source={source} --poses={out} --out={result}")
