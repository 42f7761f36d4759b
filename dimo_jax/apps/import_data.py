"""`--app=import_data`: turns data of other programs into a dataset folder, or looks for mistakes in one.

The kind of the source is detected and said: a rigged glTF or GLB, the authors' layout, an output folder of SV4D,
videos beside a `cameras.json`, pictures with NeRF's `transforms.json`, or the authors' trained model (which becomes a
workdir). Formats: docs/data.md.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from ml_collections import ConfigDict

from dimo_jax.cameras.turntable import Turntable, spread_views
from dimo_jax.cli.flag_checks import check_flags
from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import check_folder, parse_numbers
from dimo_jax.data.clips import SPLITS
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.formats import import_videos
from dimo_jax.data.formats.native_schema import read_framing
from dimo_jax.data.formats.rigged.folder import import_folder
from dimo_jax.data.formats.rigged.passes import Timing
from dimo_jax.data.formats.rigged.plan import Options
from dimo_jax.data.formats.rigged.shard_plan import ShardOptions
from dimo_jax.data.formats.rigged.shards import write_shards
from dimo_jax.data.sources import detect
from dimo_jax.runs.authors_model import import_model
from dimo_jax.views.dataset_check import check_dataset

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
    root_motion: Literal["keep", "remove"] | None = None,
    repair: bool | None = None,
    loop: bool | None = None,
    num_surface_points: int | None = None,
    double_sided: bool | None = None,
    num_workers: int | None = None,
    matte: Literal["auto", "alpha", "masks", "key", "none"] | None = None,
    key_color: str | None = None,
    key_tolerance: float | None = None,
    key_enclosed: bool | None = None,
    up: Literal["auto", "x", "y", "z", "-x", "-y", "-z", "cameras"] | None = None,
    framing: str | None = None,
    dataset: str | None = None,
    step: int | None = None,
    pose_maps: bool = False,
    variants: int | None = None,
    test_rigs: str | None = None,
    test_share: float | None = None,
) -> None:
    """Imports data, says what it found, and writes a dataset folder (or a workdir); or checks a dataset.

    The kind of the source is detected: a rigged glTF or GLB, the authors' layout, an output folder of SV4D, videos
    beside a cameras.json, or the authors' trained model. A flag that a kind has no use for is refused.

    See docs/data.md.

    Args:
      source: a .glb or .gltf file, or a folder of one of the kinds above.
      out: the folder to write; it must not exist, or be empty. With `check`, the folder for the pictures.
      check: a dataset folder to look for mistakes in, instead of importing.
      config: of the authors' model: configs/dimo.py:official.
      clips: of glTF: clips by name or pattern, separated by commas; default: every clip that moves.
      hide: of glTF: nodes to leave out, by name or pattern, separated by commas.
      test_clips: of glTF: clips kept from training, by name or pattern, separated by commas.
      num_frames: frames of every motion; default: 21 of glTF and the authors' model, all of videos.
      frame_rate: of videos: frames a second to take instead; of the authors' layout, which has none: only noted.
      size: side or height of the pictures in pixels; default: 128 of glTF, else that of the videos.
      azimuths: degrees of the cameras that train, separated by commas; default: 0,30,75,120,165,210,255,300,330 of
        glTF, as SV4D has them of its folders.
      num_views: of glTF: so many cameras that train, evenly around, instead of `azimuths`.
      test_azimuths: degrees of the cameras held out, separated by commas; default: 50,190 of glTF, else none.
      elevation: degrees of all cameras above the horizon; default: 10 of glTF, 0 of SV4D.
      radius: distance of the cameras; default: 2.
      fov_deg: field of view in degrees; default: 33.9.
      margin: of glTF: share of the picture that stays free at each border; default: 0.04.
      samples: of glTF: samples a pixel along each axis; default: 2.
      root_motion: of glTF: "remove" keeps a clip that travels in place; default: keep.
      repair: of glTF: settles NaN, infinite and negative numbers that something drawn needs; default: false.
      loop: of glTF: whether the clips repeat, so that the last frame lies before a clip's end; default: false.
      num_surface_points: of glTF: true surface points kept for evaluation; default: 8192.
      double_sided: of glTF: draws both sides of every surface, whatever the file says; default: false.
      num_workers: of glTF: processes that render; default: one a processor core.
      matte: of videos: what makes the background transparent; default: key of SV4D, else auto.
      key_color: of videos: the background's colour, such as white, #00ff00, or auto; default: auto beside a
        cameras.json, else white.
      key_tolerance: of videos: how far from that colour, of 255, the background may be; default: 12.
      key_enclosed: of videos: also removes that colour where the object encloses it; default: false.
      up: of videos beside a cameras.json: what is up for the cameras; default: as that file says.
      framing: a dataset folder of the same source, to scale and place as it is.
      dataset: of the authors' model: the folder of the data that it was trained on.
      step: of the authors' model: an intermediate checkpoint; default: the final one.
      pose_maps: writes rigs' clips as shards of small videos and pose maps with sentences, for AnimaX; `source` is then
        a list of files, folders of them, and "puppet", separated by commas (docs/animax.md).
      variants: of pose maps: renders of what trains, all but one turned, with other lenses, fewer markers; default: 1.
      test_rigs: of pose maps: rigs of which nothing trains, by name or pattern, separated by commas.
      test_share: of pose maps: share of the clips of other rigs that is held out; default: a sixth.

    Example:
      python launch.py --app=import_data --source=character.glb --out=data/character --clips='Walk*,Run*,Jump*'
      python launch.py --app=import_data --pose_maps --source=rigs,puppet --out=data/rigs --variants=4
      python launch.py --app=import_data --check=data/character

    Raises:
      UserError: bad input; nothing has been written.
    """
    options = {name: value for name, value in locals().items() if value is not None}
    check_flags("import_data", locals())
    for name in ("source", "out", "check", "pose_maps"):
        options.pop(name)
    if check:
        _refuse(({"source": source} if source else {}) | options, check_dataset, "a check")
        check_dataset(check, out=out)
        return
    target = _check_paths(source, out)
    if pose_maps:
        _refuse(options, import_pose_maps, "an import of pose maps")
        import_pose_maps(source, target, **options)
        return
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


def import_pose_maps(
    source: str,
    target: Path,
    *,
    clips: str = "",
    hide: str = "",
    num_frames: int | None = None,
    size: int | None = None,
    azimuths: str = "",
    elevation: float | None = None,
    margin: float | None = None,
    samples: int | None = None,
    repair: bool = False,
    num_workers: int = 0,
    variants: int = 1,
    test_rigs: str = "",
    test_share: float | None = None,
) -> None:
    """Writes rigs' clips as a folder of shards, see `write_shards`, and says what is in it.

    Raises:
      UserError: bad input; nothing has been written.
    """
    given: dict[str, Any] = dict(
        num_frames=num_frames, size=size, elevation_deg=elevation, margin=margin, samples=samples
    )
    given |= dict(test_share=test_share, azimuths_deg=parse_numbers("azimuths", azimuths) if azimuths else None)
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    options = ShardOptions(clips=clips, hide=hide, repair=repair, variants=variants, test_rigs=test_rigs, **chosen)
    index = write_shards(source, target, options, num_workers=num_workers or os.cpu_count() or 1, report=print)
    clips_of = {split: {(s["rig"], s["clip"]) for s in index["samples"] if s["split"] == split} for split in SPLITS}
    counts = ", ".join(f"{len(found)} {split}" for split, found in clips_of.items())
    size_mb = sum(shard["bytes"] for shard in index["shards"]) / 1e6
    print(
        f"wrote {len(index['samples'])} samples of {index['num_views']} views x {index['num_frames']} frames of "
        f"{index['size']}x{index['size']} ({size_mb:.0f} MB) to {target}; clips: {counts}"
    )
    print(f"captions to edit: {target / 'captions.txt'}")


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
