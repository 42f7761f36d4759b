"""Turns data of other programs into a dataset folder: `python launch.py --app=import_data --source=... --out=FOLDER`.

The kind of the source is detected and said: a rigged glTF or GLB, the authors' layout, an output folder of SV4D,
videos beside a `cameras.json`, pictures with NeRF's `transforms.json`, or the authors' trained model (which becomes a
workdir). `--check=FOLDER` looks for mistakes in a dataset instead. Formats: docs/data.md. For the knight of the
development data, which carries all its swords and shields at once:

    python launch.py --app=import_data --source=../shared/data/knight.glb --out=knight \
        --clips='Walking_A,Running_A,Jump_Full_Short,1H_Melee_Attack_*,Cheer,Death_B,Sit_*_Down' \
        --hide='1H_Sword_Offhand,2H_Sword,Badge_Shield,Rectangle_Shield,Spike_Shield'
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dimo_jax.apps.check_data import check_data
from dimo_jax.cameras.turntable import Turntable, spread_views
from dimo_jax.cli.flag_checks import check_flags
from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import check_folder, parse_numbers
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.formats import import_videos
from dimo_jax.data.formats.native_schema import read_framing
from dimo_jax.data.formats.rigged.folder import import_folder
from dimo_jax.data.formats.rigged.passes import Timing
from dimo_jax.data.formats.rigged.plan import Options
from dimo_jax.data.sources import detect
from dimo_jax.runs.authors_model import import_model

KINDS = {
    "gltf": "a glTF model",
    "native": "a dataset of ours",
    "authors": "data in the authors' layout",
    "authors_model": "the authors' trained model",
    "videos": "videos with a camera file",
    "sv4d": "output of SV4D",
    "transforms": "posed pictures with a transforms.json",
}


def run(
    *,
    source: str = "",
    out: str = "",
    check: str = "",
    config: ConfigDict | None = None,
    clips: str | None = None,
    hide: str | None = None,
    test_clips: str | None = None,
    num_frames: int | None = None,
    frame_rate: float | None = None,
    size: int | None = None,
    azimuths: str | None = None,
    num_views: int | None = None,
    test_azimuths: str | None = None,
    elevation: float | None = None,
    radius: float | None = None,
    fov_deg: float | None = None,
    margin: float | None = None,
    samples: int | None = None,
    root_motion: str | None = None,
    repair: bool | None = None,
    loop: bool | None = None,
    num_surface_points: int | None = None,
    double_sided: bool | None = None,
    num_workers: int | None = None,
    matte: str | None = None,
    key_color: str | None = None,
    key_tolerance: float | None = None,
    key_enclosed: bool | None = None,
    up: str | None = None,
    framing: str | None = None,
    dataset: str | None = None,
    step: int | None = None,
) -> None:
    """Imports data, says what it found, and writes a dataset folder (or a workdir); or checks a dataset.

    Args:
      source: a .glb or .gltf file, or a folder of one of the kinds above.
      out: the folder to write; it must not exist, or be empty. With `check`, the folder for the pictures.
      check: a dataset folder to look for mistakes in, instead of importing.
      config: for the authors' model alone.
      clips, hide, ...: each kind takes some of the others, see `import_model_file`, `import_videos` and `import_model`;
        one that the kind does not take is refused.

    Raises:
      UserError: bad input; nothing has been written.
    """
    options = {name: value for name, value in locals().items() if value is not None}
    check_flags("import_data", locals())
    for name in ("source", "out", "check"):
        options.pop(name)
    if check:
        _refuse(({"source": source} if source else {}) | options, check_data, "a check")
        check_data(check, out=out)
        return
    target = _check_paths(source, out)
    kind = detect(Path(source))
    print(f"{source}: {KINDS[kind]}")
    if kind == "native":
        raise UserError(f"{source}: is a dataset folder already, expected other data (or --check={source})")
    if kind == "authors_model":
        _refuse(options, import_model, KINDS[kind])
        import_model(Path(source), target, **options)
        return
    readers: dict[str, Callable[..., Dataset]] = {
        "gltf": import_model_file,
        "authors": import_videos.import_authors,
        "videos": import_videos.import_videos,
        "sv4d": import_videos.import_sv4d,
        "transforms": import_videos.import_transforms,
    }
    reader = readers[kind]
    _refuse(options, reader, KINDS[kind])
    if azimuths is not None and num_views is not None:
        raise UserError(f"--num_views: found {num_views} beside --azimuths={azimuths}, expected one of them")
    data = reader(source, target, **options)
    print(
        f"wrote {data.num_motions} motions x {data.num_views} views x {data.num_frames} frames of "
        f"{data.cameras.width}x{data.cameras.height}, {data.frame_rate:g} frames a second, to {target}: "
        f"{', '.join(data.names)}"
    )
    print(f"captions to edit: {target / 'captions.txt'}")
    print(f"train on it: python launch.py --config=configs/dimo.py --config.data.path={target}")


def _refuse(options: Mapping[str, Any], function: Callable[..., Any], kind: str) -> None:
    """Raises UserError for an option that a kind of data has no use for."""
    takes = inspect.signature(function).parameters
    for name in options:
        if name not in takes:
            known = ", ".join(f"--{other}" for other in takes if other not in ("source", "target", "folder"))
            raise UserError(f"--{name}: found a flag that {kind} does not take, expected some of {known}")


def import_model_file(
    source: str,
    target: Path,
    *,
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
    repair: bool = False,
    loop: bool = False,
    num_surface_points: int = 8192,
    double_sided: bool = False,
    num_workers: int = 0,
    framing: str = "",
) -> Dataset:
    """Imports a rigged, animated glTF model into a new dataset folder.

    Stopped at any time, the same command goes on where it was.

    Args:
      source: a .glb or .gltf file.
      target: the folder to write.
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
      repair: settles NaN, infinite and negative numbers of the file that something drawn needs, and says what it did.
      loop: whether the clips repeat, so that the last frame lies before the clip's end.
      num_surface_points: points of the surface whose trajectories are kept for evaluation.
      double_sided: draws both sides of every surface, whatever the file says.
      num_workers: processes; 0 takes as many as there are processor cores.
      framing: folder of a dataset of the same character, whose scale and place are taken instead of the best ones.

    Returns:
      What was written, with blank frames.

    Raises:
      UserError: bad input.
    """
    options = Options(
        clips=clips,
        hide=hide,
        test_clips=test_clips,
        timing=Timing(num_frames=num_frames, loop=loop, root_motion=root_motion),
        turntable=Turntable(
            azimuths_deg=spread_views(num_views) if num_views else parse_numbers("azimuths", azimuths),
            test_azimuths_deg=parse_numbers("test_azimuths", test_azimuths),
            elevation_deg=elevation,
            radius=radius,
            fov_deg=fov_deg,
            size=size,
            margin=margin,
            samples=samples,
        ),
        repair=repair,
        num_surface_points=num_surface_points,
        double_sided=double_sided,
        framing=_known_framing(framing),
    )
    return import_folder(source, target, options, num_workers=num_workers or os.cpu_count() or 1, report=print)


def _known_framing(folder: str) -> tuple[float, ...] | None:
    if not folder:
        return None
    world = read_framing(folder, of="model")
    return (world.scale, *world.center.tolist())


def _check_paths(source: str, out: str) -> Path:
    """The folder to write, after a check of both paths that costs nothing."""
    for name, value in (("source", source), ("out", out)):
        if not value:
            raise UserError(f"--{name}: not given, expected --{name}=..., which an import needs")
    target = Path(out)
    check_folder(target, "out")
    if target.exists() and any(target.iterdir()):
        raise UserError(f"{out}: exists and is not an empty folder, expected a new one")
    return target
