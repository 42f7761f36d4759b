"""The values of flags, checked before an app is imported: a mistake is said at once, not after jax has loaded.

That a value is of its kind, and one of its choices, follows from the app's signature; here stand ranges, paths, and
what flags mean together.

Each app's `run` calls `check_flags` too, for those who call it from Python. Nothing here may import jax.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from dimo_jax.cli.parameters import read_app
from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import (
    check_among,
    check_between,
    check_folder,
    check_least,
    check_use,
    describe_choices,
    parse_numbers,
)
from dimo_jax.core.names import split_list
from dimo_jax.runs import objects
from dimo_jax.runs.choice import PATHS, SPREAD, Choice, check_spread, is_code

FORMATS = ("ply", "splat", "gltf", "glb", "mesh", "video", "npz", "html", "checkpoint")
OF_RUNS = ("html", "checkpoint")  # formats of a run as a whole; the others hold motions that flags choose
LAYERS = ("color", "key_points", "depth", "normals")
GLTF_SUFFIXES = (".glb", ".gltf")
ANIMAX = "dimo_jax.systems.animax.system:Animax"
_OF_MOTIONS = tuple(name for name in FORMATS if name not in OF_RUNS)
# Flags of export that mean something with some formats alone.
ONLY_WITH = {
    **dict.fromkeys((field.name for field in fields(Choice)), _OF_MOTIONS),
    **dict.fromkeys(("num_frames", "frame_rate"), _OF_MOTIONS),
    "frame": ("ply", "splat", "gltf"),
    "geometry": ("glb",),
    "influences": ("glb", "mesh"),
    **dict.fromkeys(("source", "hide", "repair", "dataset"), ("mesh",)),
    **dict.fromkeys(("half", "prompts"), ("html",)),
    "bert": (*_OF_MOTIONS, "html"),
    **dict.fromkeys(("layers", "container", "background", "camera", "azimuths", "elevation", "size"), ("video",)),
}
CHOICES_OF_A_RIG = tuple(field.name for field in fields(Choice) if field.name != "diverse")
# Flags of animate that mean something with a run alone.
OF_A_RUN = (
    *CHOICES_OF_A_RIG,
    "fit",
    "duration",
    "fps",
    "loop",
    "root_motion",
    "foot_lock",
    "checkpoint",
    "dataset",
)
Given = Mapping[str, Any]


def check_flags(app: str, given: Given) -> None:
    """Checks the values of an app's flags, by themselves and with each other, and that the paths they name are there.

    Args:
      app: its name.
      given: values of all keywords of its `run`; others are ignored.

    Raises:
      UserError: the first that is wrong, in one line that names the flag, or the file.
    """
    for name, parameter in read_app(app).parameters.items():
        if parameter.choices and given[name] != parameter.default:
            check_among(parameter.choices, **{name: given[name]})
    check = _CHECKS.get(app)
    if check is not None:
        check(given)


def check_orbit(kind: str, *, azimuths: str, elevation: float | None) -> None:
    """Checks the flags of a camera that stands still ("fixed") or circles ("orbit").

    Raises:
      UserError: a range that is none, or one given to a camera that stands still.
    """
    check_among(PATHS, camera=kind)
    if kind == "fixed":
        for flag, value in (("azimuths", azimuths or None), ("elevation", elevation)):
            if value is not None:
                raise UserError(
                    f"--{flag}: found {value}, which a fixed camera has not; expected --camera=orbit with it"
                )
    if elevation is not None:
        check_between(-90, 90, elevation=elevation)
    if azimuths:
        parse_numbers("azimuths", azimuths, count=2)


def _least(given: Given, least: float, *names: str) -> None:
    check_least(least, **{name: given[name] for name in names if given[name] is not None})


def _check_run(given: Given) -> None:
    """The flags of all apps that read a run and write a folder."""
    if given["out"]:
        check_folder(given["out"], "out")
    if not Path(given["workdir"]).exists():
        raise UserError(f"--workdir={given['workdir']}: no such folder, expected the workdir of a training run")


def _check_sample(given: Given) -> None:
    _least(given, 1, "num_samples")
    _least(given, 0, "num_frames", "frame_rate", "size", "spread", "seed")
    check_spread(**{name: given[name] for name in ("spread", "prior", "around")})
    check_orbit(given["camera"], azimuths=given["azimuths"], elevation=given["elevation"])
    _check_run(given)


def _check_interpolate(given: Given) -> None:
    _least(given, 2, "num_steps")
    _least(given, 0, "num_frames", "frame_rate", "size")
    check_orbit(given["camera"], azimuths=given["azimuths"], elevation=given["elevation"])
    if "," not in given["motions"]:  # what names it holds is only known of a run
        raise UserError(f"--motions: found {given['motions']!r}, expected two names or more, separated by commas")
    _check_run(given)


def _check_reconstruct(given: Given) -> None:
    _least(given, 0, "steps", "finetune_decoder", "fit_size", "seed")
    _check_run(given)
    _check_path(given, "source", "a dataset folder")


def _check_text(given: Given) -> None:
    prompt, evaluation = given["prompt"], given["evaluate_captions"]
    if bool(prompt.strip()) == bool(evaluation):
        found = "both" if evaluation else f"--prompt={prompt!r}"
        raise UserError(f'--prompt: found {found}, expected --prompt="words", or --evaluate_captions alone')
    _least(given, 0, "num_frames", "size")
    if evaluation:
        check_use(given, dict.fromkeys(("num_frames", "size"), 0), needs='--prompt="words"')
    _check_run(given)


def _check_evaluate(given: Given) -> None:
    _least(given, 0, "num_lpips_images", "num_videos", "seed")
    _least(given, 2, "num_samples")
    gt, pred = given["gt"], given["pred"]
    if bool(gt) != bool(pred):
        raise UserError(f"--gt, --pred: found {gt!r} and {pred!r}, expected both or neither")
    if given["clip"] and not Path(given["clip"]).is_dir():
        raise UserError(f"--clip={given['clip']}: no such folder, expected a Hugging Face CLIP folder")
    if not gt:
        _check_run(given)
        return
    defaults = read_app("evaluate").parameters
    own = {name: defaults[name].default for name in ("num_samples", "seed", "checkpoint")}
    check_use(given, own, needs="a run, not --gt and --pred,")
    if given["out"]:
        check_folder(given["out"], "out")


def _check_view(given: Given) -> None:
    _least(given, 1, "size")
    check_between(0, 65_535, port=given["port"])
    if not given["source"]:
        check_use(given, dict(hide="", repair=False, dataset=""), needs="--source")
    elif not Path(given["source"]).is_file():
        raise UserError(f"--source: found {given['source']!r}, expected the .glb or .gltf file of the run's dataset")
    if given["out"]:
        check_folder(given["out"], "out")


def _check_export(given: Given) -> None:
    chosen = split_list(given["format"])
    _check_some("format", chosen, FORMATS)
    _least(given, 0, "num_frames", "frame_rate", "size", "frame")
    _check_some("layers", split_list(given["layers"]), LAYERS)
    check_orbit(given["camera"], azimuths=given["azimuths"], elevation=given["elevation"])
    behind = given["background"]
    if behind and not all(0 <= x <= 1 for x in parse_numbers("background", behind, count=3)):
        raise UserError(f"--background: found {behind!r}, expected three numbers from 0 to 1")
    defaults = read_app("export").parameters
    for name, formats in ONLY_WITH.items():
        if not {*formats} & {*chosen}:
            check_use(given, {name: defaults[name].default}, needs=f"--format={' or '.join(formats)}")
    if "mesh" in chosen and not Path(given["source"]).is_file():
        raise UserError(f"--source: found {given['source']!r}, expected the .glb or .gltf file of the run's dataset")
    if not set(chosen) <= set(OF_RUNS):
        choice = {field.name: given[field.name] for field in fields(Choice)}
        Choice(**choice | ({"bert": ""} if given["prompts"] else {}))
    elif not given["prompts"]:
        check_use(given, {"bert": ""}, needs="--prompts=FILE")
    if not is_code(given["code"]):
        _check_path(given, "code", "an npz with a field z, or numbers separated by commas")
    _check_path(given, "prompts", "a text file with a sentence a line")
    _check_run(given)


def _check_some(flag: str, chosen: tuple[str, ...], known: tuple[str, ...]) -> None:
    for name in chosen or ("",):
        if name not in known:
            raise UserError(f"--{flag}: found {name!r}, expected {describe_choices(known, name, how='some of')}")


def _check_import_data(given: Given) -> None:
    if given["check"] or not given["source"]:
        return
    if given["out"]:
        check_folder(given["out"], "out")
    only = {"variants": None, "test_rigs": None, "test_share": None}
    if not given["pose_maps"]:
        check_use(given, only, needs="--pose_maps")
    for part in split_list(given["source"]) if given["pose_maps"] else (given["source"],):
        if not Path(part).exists() and not (given["pose_maps"] and part == "puppet"):
            raise UserError(f"{part}: no such file or folder, expected data to read")
    source = Path(given["source"])
    is_model = source.suffix.lower() in GLTF_SUFFIXES or given["pose_maps"]
    _least(given, 2 if is_model else 1, "num_frames")
    _least(given, 8 if is_model else 1, "size")
    _least(given, 1, "num_views", "samples", "num_surface_points")
    _least(given, 0, "num_workers", "frame_rate", "step", "margin", "key_tolerance")
    for name, least, most in (("elevation", -90, 90), ("fov_deg", 1, 120)):
        if given[name] is not None:
            check_between(least, most, **{name: given[name]})
    for name in ("azimuths", "test_azimuths"):
        parse_numbers(name, given[name] or "")
    _check_path(given, "dataset", "the folder of the data that the model was trained on")


def _check_distill(given: Given) -> None:
    _check_path(given, "image", "a picture of the object")
    _check_path(given, "prompts", "a text file with a motion a line")
    check_folder(given["out"], "out")


def _check_train(given: Given) -> None:
    if not 0 < given["stretch"] < math.inf:
        raise UserError(f"--stretch: found {given['stretch']}, expected a number above 0")
    if given["shard"] and not given["object_list"]:
        raise UserError("--shard: found without --object_list, expected the list that it is a share of")
    if given["object_list"]:
        objects.take_shard(objects.read_list(given["object_list"]), given["shard"])
        check_folder(given["workdir"], "workdir")


def _check_articulate(given: Given) -> None:
    if given["out"]:
        check_folder(given["out"], "out")
    if given["motion"] != "generated":
        check_use(given, {"workdir": "", "config": None, "seed": 0}, needs="--motion=generated")
    elif bool(given["workdir"]) == bool(given["config"]):
        found = "both --workdir and --config" if given["workdir"] else "neither --workdir nor --config"
        expected = "a run of configs/atop.py, or its config with config.atop.trained (no weights are shipped)"
        raise UserError(f"--motion=generated: found {found}, expected {expected}")
    _check_path(given, "workdir", "the workdir of a run of configs/atop.py")


def _check_model(given: Given) -> None:
    source = Path(given["source"])
    if source.suffix.lower() not in GLTF_SUFFIXES or not source.is_file():
        raise UserError(f"--source={source}: no such model, expected a rigged .glb or .gltf file")


def _check_animate(given: Given) -> None:
    if given["config"] or is_run_of(given["workdir"], ANIMAX):
        _check_drawn(given)
        return
    if bool(given["poses"]) == bool(given["workdir"]):
        found = "both --poses and --workdir" if given["poses"] else "neither --poses nor --workdir"
        raise UserError(
            f"--poses: {found}, expected a folder with pose maps or tracks, or a run of configs/rig.py, which say how "
            "to move"
        )
    if given["source"] or given["poses"]:
        _check_model(given)
    _least(given, 0, "smooth", "duration", "fps")
    defaults = {name: parameter.default for name, parameter in read_app("animate").parameters.items()}
    if given["poses"]:
        _check_path(given, "poses", "a folder with cameras.json")
        if not given["out"]:
            raise UserError("--out: not given, expected the file to write, of the kind of --source")
        check_use(given, {name: defaults[name] for name in OF_A_RUN}, needs="--workdir=RUN")
        return
    check_use(given, {"smooth": defaults["smooth"]}, needs="--poses=FOLDER")
    if not given["fit"]:
        make_choice(given)
    else:
        check_use(given, {name: defaults[name] for name in CHOICES_OF_A_RIG}, needs="no --fit")
    _check_path(given, "code", "an npz with a field z")
    _check_path(given, "fit", "a rigged .glb or .gltf file with clips")
    _check_path(given, "workdir", "the workdir of a training run")


def is_run_of(workdir: str, system: str) -> bool:
    """Whether a folder is the workdir of a run of a system, by its config."""
    try:
        config = json.loads((Path(workdir) / "config.json").read_text()) if workdir else {}
        return bool(config["system"]["fn"] == system)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _check_drawn(given: Given) -> None:
    """The flags of animate with AnimaX."""
    for name in ("workdir", "poses"):
        if given["config"] and given[name]:
            raise UserError(f"--{name}: found with --config, expected one of them")
    _check_model(given)
    if not given["prompt"].strip():
        raise UserError(f"--prompt: found {given['prompt']!r}, expected what the model shall do, such as 'it walks'")
    if given["config"] and not given["out"]:
        raise UserError("--out: not given, expected the file to write, of the kind of --source")
    _least(given, 0, "num_samples", "seed", "smooth", "duration", "fps")
    own = ("prompt", "num_samples", "seed", "duration", "fps", "checkpoint")
    parameters = read_app("animate").parameters
    others = {name: parameters[name].default for name in (*OF_A_RUN, "poses") if name not in own}
    check_use(given, others, needs="a run of configs/rig.py")
    if given["duration"] and given["fps"]:
        raise UserError(f"--fps: found {given['fps']:g} with --duration, expected one of them: the frames are counted")


def make_choice(given: Given) -> Choice:
    """The flags of animate that choose motions; its prior "near", of rigs alone, stands for the usual one here."""
    values = {name: given[name] for name in CHOICES_OF_A_RIG}
    if not given["num_samples"]:
        check_use(given, {"prior": "near"}, needs="--num_samples=N")
    if given["prior"] != "near":
        return Choice(**values)
    if not given["around"]:
        check_use(given, {"spread": SPREAD}, needs="--around=NAME or --prior=data")
    return Choice(**values | {"prior": "data"})


def _check_pose_maps(given: Given) -> None:
    _check_model(given)
    check_folder(given["out"], "out")
    if Path(given["out"]).exists() and any(Path(given["out"]).iterdir()):
        raise UserError(f"--out={given['out']}: exists and is not an empty folder, expected a new one")
    if given["size"] is not None and not (64 <= given["size"] <= 8192 and given["size"] % 2 == 0):
        raise UserError(f"--size: found {given['size']}, expected an even number of 64 to 8192")
    for name, least, most in (("elevation", -90, 90), ("frame_rate", 1e-3, 1000)):
        if given[name] is not None:
            check_between(least, most, **{name: given[name]})
    azimuths = parse_numbers("azimuths", given["azimuths"] or "")
    if len(azimuths) == 1:
        raise UserError(f"--azimuths: found {given['azimuths']}, expected two at least: one view has no depth")


def _check_path(given: Given, flag: str, expected: str) -> None:
    if given[flag] and not Path(given[flag]).exists():
        raise UserError(f"--{flag}={given[flag]}: no such file or folder, expected {expected}")


_CHECKS: dict[str, Callable[[Given], None]] = {
    "train": _check_train,
    "sample": _check_sample,
    "interpolate": _check_interpolate,
    "reconstruct": _check_reconstruct,
    "text": _check_text,
    "import_data": _check_import_data,
    "distill": _check_distill,
    "evaluate": _check_evaluate,
    "view": _check_view,
    "export": _check_export,
    "articulate": _check_articulate,
    "animate": _check_animate,
    "pose_maps": _check_pose_maps,
    "replay": lambda given: _least(given, 0, "step"),
}
