"""`--app=animate`: gives a rigged model motions that nobody animated, as clips more in its file.

They come from a trained motion space of the rig (`--workdir`), from pose maps or tracked joints of several views
(`--poses`), or are drawn by AnimaX for a sentence (`--prompt`, with a run of configs/animax.py); the result is the same
file with clips more. docs/rigs.md describes all of it, the report, and how far to believe it, docs/animax.md the last.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dimo_jax.cli.flag_checks import check_flags, make_choice
from dimo_jax.core.errors import UserError
from dimo_jax.core.names import split_list, to_file_name
from dimo_jax.data.formats.pose_folder import color_markers, open_pose_folder, read_pose_clip
from dimo_jax.data.formats.rigged.clips import take_clips
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.io.images import write_png
from dimo_jax.io.video import write_video
from dimo_jax.rigs.clip_set import ClipSet
from dimo_jax.rigs.feet import Feet, find_feet, name_feet
from dimo_jax.rigs.recovery import lift_markers, recover_markers
from dimo_jax.runs.animation import (
    Animation,
    Model,
    animate_markers,
    check_cameras,
    make_model,
    measure_height,
    place_joints,
)
from dimo_jax.runs.animax import find_run, is_animax, restore_animax
from dimo_jax.runs.choice import SPREAD, Checkpoint, Line
from dimo_jax.runs.drawn_clips import STILL, Wish, draw_samples, lift_samples, view_model
from dimo_jax.runs.restore import restore, run_folder
from dimo_jax.runs.rig_files import open_source, write_animations
from dimo_jax.runs.rig_motions import (
    RigPrior,
    RootMotion,
    Wishes,
    choose_motions,
    fit_file,
    play,
    read_known,
    steady,
)
from dimo_jax.runs.rigs import is_rig_space, read_own_clips, restore_rig
from dimo_jax.runs.videos_to_rig import play_rigged, rig_run
from dimo_jax.runtime.naming import free_number
from dimo_jax.training.config_file import load_config
from dimo_jax.views.clip_sheet import lay_views
from dimo_jax.views.rig_strip import draw_strip

_SEEN = 0.1  # share of a view's markers that must be found in it
_MOST_DRAWN = 12  # clips
_LOOKED_AT = 48  # instants of each of the rig's own clips, with which new ones are compared


def run(
    *,
    source: str = "",
    out: str = "",
    poses: str = "",
    workdir: str = "",
    config: ConfigDict | None = None,
    dataset: str = "",
    motion: str = "",
    num_samples: int = 0,
    motions: str = "",
    prompt: str = "",
    code: str = "",
    fit: str = "",
    prior: RigPrior = "near",
    around: str = "",
    spread: float = SPREAD,
    seed: int = 0,
    path: Line = "linear",
    share: float | None = None,
    bert: str = "",
    duration: float = 0.0,
    fps: float = 0.0,
    loop: bool = False,
    root_motion: RootMotion = "keep",
    foot_lock: str = "",
    hide: str = "",
    repair: bool = False,
    smooth: float = 0.0,
    checkpoint: Checkpoint = "last",
    overwrite: bool = False,
) -> None:
    """Writes a rigged model with new clips, a line and a row of a JSON report each, and a picture of those of a run.

    Args:
      source: the .glb or .gltf file to animate; it is not changed. Default with --workdir: the model of the run.
      out: the file to write, of the same kind; the report lies beside it, with the suffix .json, and of a run's clips a
        picture, with .png. Default with --workdir: `workdir`/animated.glb, or with a number.
      poses: folder with pose-map videos or 2D joints of several views, and cameras.json.
      workdir: run of configs/rig.py, or of DIMO on videos of `source`, whose motions are written; the next flags
        choose which. Or run of configs/animax.py, which draws what `prompt` says of any rig.
      config: configs/animax.py, in the place of `workdir`: its config.animax.trained names the run, and
        config.animax.sampling says how to draw.
      dataset: of a run of DIMO the folder of its data, whose true joints tell where the model stands; default: where it
        was in training.
      motion: training clips by name, separated by commas.
      num_samples: so many new ones from the space of codes; of AnimaX, so many draws, of which the one whose views
        agree best is written.
      motions: two training clips or more, between which a clip lies, separated by commas; with `share`.
      prompt: what the model shall do.
      code: npz with a field `z`, codes.
      fit: another file on the same skeleton, whose clips are written as their codes alone give them.
      prior: "near", mixtures of clips that are alike, "data", with the mean and the covariance of the codes of all
        clips, or "standard", N(0, I).
      around: name of a training clip to vary, with `num_samples`.
      spread: width of the draw `around` a clip, or of prior "data", as in `sample`.
      seed: of the draw.
      path: between codes, with `motions`.
      share: how far along the path, 0 to 1; default: from one end to the other while time runs.
      bert: folder of a Hugging Face BERT, with `prompt`.
      duration: seconds of each clip; default: as the training clips that are near.
      fps: frames a second; default: likewise.
      loop: lets every clip go round; default: as the training clip that is nearest.
      root_motion: "remove" takes away the way across the ground.
      foot_lock: "auto" holds feet where they stand, those that stand in the clips; or their names.
      hide: nodes to leave out of account, by name or pattern, separated by commas; the written file keeps them.
      repair: settles NaN and infinite numbers of the file that something drawn needs; skin weights also in what is
        written.
      smooth: weight of smoothness in time, against points seen; 0 follows them.
      checkpoint: "last", or "best" as training went.
      overwrite: replaces the file at `out`.

    Raises:
      UserError: bad input; nothing has been written.

    Example:
      python launch.py --app=animate --workdir=runs/knight_rig --num_samples=20 --out=knight_new.glb
      python launch.py --app=animate --source=rig.glb --poses=poses --out=animated.glb
      python launch.py --app=animate --source=rig.glb --prompt="it walks" --workdir=runs/animax --out=animated.glb
    """
    given = dict(locals())
    check_flags("animate", given)
    if poses:
        target, report = _check_out(Path(source), Path(out), overwrite)
        model = make_model(load_scene(source, hide=hide, repair=repair, animated=False))
        made = from_poses(model, poses, smooth=smooth)
        _write(source, target, report, model, made, draws=False, repair=repair)
        return
    own = load_config(Path(workdir)) if Path(workdir).is_dir() and not config else None
    if config or (own and is_animax(own)):
        _animate_drawn(given)
        return
    (_animate_rig if own and is_rig_space(own) else _animate_videos)(given)


def _animate_drawn(given: Mapping[str, Any]) -> None:
    """A clip that AnimaX draws."""
    workdir, sampling = given["workdir"], {}
    if given["config"]:
        workdir = find_run(given["config"])
        sampling = given["config"].animax.sampling.to_dict()
    run_of = restore_animax(workdir, checkpoint=given["checkpoint"])
    target, report = _place_out(Path(given["source"]), dict(given) | {"workdir": workdir})
    model = make_model(load_scene(given["source"], hide=given["hide"], repair=given["repair"], animated=False))
    view = view_model(model, run_of)
    wish = Wish(given["prompt"].strip(), given["num_samples"] or 1, given["seed"], sampling)
    folder = target.with_suffix(".samples")
    videos = draw_samples(run_of, model, view, wish, folder)
    count = run_of.player.num_frames
    rate = given["fps"] or ((count - 1) / given["duration"] if given["duration"] else run_of.frame_rate)
    name = to_file_name(wish.prompt, default="clip")
    samples = lift_samples(model, view, videos, name, frame_rate=rate, smooth=given["smooth"])
    best = samples[0]
    others = [
        {
            key: each.animation.figures[key]
            for key in ("sample", "reprojection_px", "markers_seen", "agreement", "moved")
        }
        for each in samples
    ]
    moved = best.animation.figures["moved"]
    if moved < STILL:
        logging.warning("%s hardly moves, %.2f %% of the diagonal: train longer, or draw others (--seed)", name, moved)
    figures = best.animation.figures | {"prompt": wish.prompt, "seed": wish.seed, "samples": others}
    animation = replace(best.animation, figures=figures)
    for half, ending in enumerate(("views", "poses")):
        video = lay_views(best.videos[:, half])
        print(f"{ending}: {write_video(video, target.with_name(f'{target.stem}_{ending}.mp4'), frame_rate=rate)}")
    _write(given["source"], target, report, model, [animation], draws=True, repair=given["repair"])
    shutil.rmtree(folder)


def _animate_rig(given: Mapping[str, Any]) -> None:
    """Clips of a run of configs/rig.py."""
    for flag in ("hide", "repair", "dataset"):
        if given[flag]:
            raise UserError(f"--{flag}: found with a run of configs/rig.py, which has its own (config.data)")
    restored = restore_rig(given["workdir"], source=given["source"], checkpoint=given["checkpoint"])
    wishes = Wishes(given["duration"], given["fps"], given["loop"], given["root_motion"])
    with open_source(restored, given["source"]) as original:
        places = _place_out(Path(original), given)
        model = make_model(restored.scene)
        if given["fit"]:
            chosen = fit_file(restored, given["fit"], wishes)
        else:
            choice = make_choice(given)
            chosen = choose_motions(restored, given["workdir"], choice, wishes, prior=given["prior"])
        clips = read_own_clips(restored, _LOOKED_AT)
        feet = find_own_feet(model, clips, given["foot_lock"])
        known = read_known(restored, clips)
        animations = [play(restored, model, each, wishes, feet, known) for each in chosen]
        _write(original, *places, model, animations, draws=True, repair=bool(restored.config.data.repair))


def _animate_videos(given: Mapping[str, Any]) -> None:
    """Clips of a run of DIMO on videos of the source."""
    run = restore(Path(given["workdir"]), checkpoint=given["checkpoint"])
    if not given["source"]:
        raise UserError("--source: not given, expected the model whose videos --workdir was trained on")
    for flag in ("loop", "fit"):
        if given[flag]:
            raise UserError(f"--{flag}: found with a run of DIMO, expected one of configs/rig.py")
    places = _place_out(Path(given["source"]), given)
    scene = load_scene(given["source"], hide=given["hide"], repair=given["repair"])
    if given["foot_lock"] and not scene.clips:
        raise UserError(f"--foot_lock: {scene.path} has no clips, expected some, in which feet stand")
    model = make_model(scene)
    rigged = rig_run(run, model, given["dataset"] or str(run.config.data.get("path") or ""))
    said = f"over {len(rigged.trained)} training motions vertices are {rigged.measure().mean():.1%} of the height from"
    said += " their true places"
    if len(rigged.trained) > 1:
        said += f", {rigged.measure(apart=True).mean():.1%} where the motion itself taught nothing"
    print(said)
    choice = make_choice(given)
    how = dict(duration=given["duration"], fps=given["fps"])
    animations = play_rigged(rigged, given["workdir"], choice, **how)
    clips = take_clips(scene, range(len(scene.clips)), _LOOKED_AT) if given["foot_lock"] else None
    feet = find_own_feet(model, clips, given["foot_lock"]) if clips else None
    animations = [steady(model, each, feet, given["root_motion"]) for each in animations]
    _write(given["source"], *places, model, animations, draws=True, repair=given["repair"])


def _write(
    source: str | Path,
    target: Path,
    report: Path,
    model: Model,
    animations: Sequence[Animation],
    *,
    draws: bool,
    repair: bool,
) -> None:
    """Writes clips into a file, and their rows into its report; `draws` some of them beside it, mends by `repair`."""
    write_animations(source, target, report, model, animations, repair=repair)
    if draws:
        shown = animations[:_MOST_DRAWN]
        strip = draw_strip(model.scene, model.rig, [each.pose for each in shown], [each.name for each in shown])
        print(f"pictures of {len(shown)} of them: {write_png(strip, target.with_suffix('.png'))}")


def _place_out(source: Path, given: Mapping[str, Any]) -> tuple[Path, Path]:
    """The file to write, and its report's: as asked, or in the run's folder."""
    if given["out"]:
        return _check_out(source, Path(given["out"]), given["overwrite"])
    folder, suffix = run_folder(given["workdir"]), source.suffix.lower()
    ends = [("animated", suffix), ("animated", ".json"), ("animated", ".png")]
    target = folder / f"animated{free_number(folder, ends, overwrite=given['overwrite'])}{suffix}"
    return target, target.with_suffix(".json")


def find_own_feet(model: Model, clips: ClipSet, asked: str) -> Feet | None:
    """The feet of a model: named, or where `asked` is "auto" found from its clips; None where nothing is asked.

    Raises:
      UserError: a name that no joint has, or no foot found.
    """
    if not asked:
        return None
    tracks = [place_joints(model, clips.travelled(index)) for index in range(len(clips.names))]
    height, joints = measure_height(model), model.markers.joints
    if asked != "auto":
        feet = name_feet(joints, split_list(asked, joints.names), tracks, height)
    else:
        rates = [clips.num_frames / max(float(seconds), 1e-3) for seconds in clips.seconds]
        found = find_feet(joints, tracks, rates, height)
        if found is None:
            raise UserError("--foot_lock=auto: found no joint that stands in the clips, expected names of feet")
        feet = found
    print(f"feet: {', '.join(feet.names)}")
    return feet


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
