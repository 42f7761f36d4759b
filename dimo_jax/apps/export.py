"""`--app=export`: motions of a trained model as files that other programs open."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from dimo_jax.cli.flag_checks import OF_RUNS, check_flags
from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import parse_numbers
from dimo_jax.core.names import split_list
from dimo_jax.core.types import Camera
from dimo_jax.io.gltf.gaussians import write_gaussian_glb
from dimo_jax.io.gltf.skinned import write_skinned_glb
from dimo_jax.io.motion import Motion, measure_skin, write_motion
from dimo_jax.io.place import place_motion
from dimo_jax.io.ply import write_gaussians
from dimo_jax.io.splat import write_splat
from dimo_jax.io.video import MAX_GIF_RATE
from dimo_jax.runs import retarget
from dimo_jax.runs.choice import SPREAD, VIDEO_SIZE, CameraPath, Checkpoint, Choice, Line, Prior
from dimo_jax.runs.motions import MotionRecorder, check_skin, choose_codes, encode_prompts, read_prompts
from dimo_jax.runs.restore import Restored, restore, results_folder
from dimo_jax.runtime.files import replace_folder
from dimo_jax.runtime.naming import free_number
from dimo_jax.systems.dimo.stages import frame_times
from dimo_jax.training.config_file import load_config, to_plain
from dimo_jax.training.model_file import write_model
from dimo_jax.views.camera_path import make_camera_path
from dimo_jax.views.film import draw_layers, write_frames
from dimo_jax.views.web.half import measure_half
from dimo_jax.views.web.known import describe_model
from dimo_jax.views.web.page import write_page

EXACT = 1e-3  # of the motion's extent: a skin within it shows what the model does


def run(
    *,
    workdir: str,
    format: str,
    out: str = "",
    motion: str = "",
    num_samples: int = 0,
    motions: str = "",
    prompt: str = "",
    code: str = "",
    prior: Prior = "data",
    around: str = "",
    spread: float = SPREAD,
    diverse: bool = False,
    seed: int = 0,
    path: Line = "linear",
    share: float | None = None,
    bert: str = "",
    num_frames: int = 0,
    frame_rate: float = 0.0,
    frame: int | None = None,
    geometry: Literal["ellipsoids", "points"] = "ellipsoids",
    influences: Literal[0, 4, 8] = 0,
    source: str = "",
    hide: str = "",
    repair: bool = False,
    dataset: str = "",
    layers: str = "color",
    container: Literal["mp4", "gif", "png"] = "mp4",
    background: str = "",
    camera: CameraPath = "fixed",
    azimuths: str = "",
    elevation: float | None = None,
    size: int = VIDEO_SIZE,
    checkpoint: Checkpoint = "last",
    half: bool = False,
    prompts: str = "",
    overwrite: bool = False,
) -> None:
    """Writes motions of the run in `workdir` in one format or several.

    Which motions: one of `motion`, `num_samples`, `motions`, `prompt` and `code`. html and checkpoint hold all of them.

    Args:
      workdir: folder of a training run, or a file written with `format`=checkpoint.
      format: some of ply, splat, gltf, glb, mesh, video, npz, html and checkpoint, separated by commas: see
        docs/export.md.
      out: folder for the files; default: `workdir`/exports.
      motion: names or indices of training motions, separated by commas.
      num_samples: how many new motions to draw.
      motions: names of two or more training motions to walk between, separated by commas.
      prompt: a sentence that says what the object shall do.
      code: an npz with latent codes `z`, as `reconstruct` writes them, or a code itself, numbers separated by commas,
        as the page of html shows it.
      prior: of `num_samples`: "data", near the codes of the training motions, or "standard", N(0, I).
      around: of `num_samples`: name of a training motion to vary; empty draws from the prior.
      spread: of `num_samples`: how far from training motions, as in `sample`.
      diverse: of `num_samples`: the farthest apart of eight times as many.
      seed: of the draw of `num_samples`.
      path: of `motions`: "linear" or "spherical", the line between codes.
      share: place on that walk, 0 to 1; without it the motion morphs from the first to the last while its time runs.
      bert: of `prompt` and `prompts`: folder of a Hugging Face BERT; default: `config.text.bert`, or all-MiniLM-L6-v2,
        downloaded once.
      num_frames: frames of each motion (time is continuous); default: as in training.
      frame_rate: frames a second; default: so that the motion takes as long as in training.
      frame: writes this one frame of ply, splat and gltf; default: all.
      geometry: of glb, "ellipsoids" or "points".
      influences: key points that move a vertex at most, 4 or 8; default: 8 in a glb, 4 in a mesh.
      source: of mesh, the .glb or .gltf file that the run's dataset was imported from.
      hide: of mesh, nodes left out at the import, by name or pattern, separated by commas.
      repair: of mesh, whether the source was imported with it.
      dataset: of mesh, the folder of the run's dataset, where it is not where training found it.
      layers: of video, some of color, key_points, depth, normals, separated by commas; shown side by side.
      container: of video, "mp4", "gif", or "png" for numbered pictures with alpha.
      background: of video, "R,G,B" in 0..1; default: the run's. Pictures with alpha have none.
      camera: of video: "fixed" is a camera of the data, "orbit" circles at its distance and with its field of view.
      azimuths: of video: "FROM,TO" in degrees of the orbit; default: once around, from the data's camera.
      elevation: of video: degrees of the orbit above the horizon; default: that of the data's camera.
      size: of video, height of the pictures in pixels, as of the viewer's.
      checkpoint: "last", or "best" as training batches went.
      half: of html, numbers of 16 bits: half the size, and what that costs is printed.
      prompts: of html, a text file with a sentence a line, which the page finds beside those of training; their codes
        are those that `prompt` would give.
      overwrite: replaces files and folders of the same names; else new ones get a number.

    Example:
      python launch.py --app=export --workdir=runs/dimo --format=html
      python launch.py --app=export --workdir=runs/dimo --motion=walk --format=glb,video
      python launch.py --app=export --workdir=runs/knight --num_samples=1 --seed=4 --format=mesh --source=knight.glb

    Raises:
      UserError: bad flags, an unknown motion, no finished run there, or a motion that the format cannot hold.
    """
    given = locals()
    check_flags("export", given)
    chosen, target = split_list(format), results_folder(workdir, "exports", out=out)
    model = restore(Path(workdir), checkpoint=checkpoint)
    of_run = set(chosen) <= set(OF_RUNS)
    page = prepare_page(model, given) if "html" in chosen else None  # what it cannot show fails before work begins
    clips, recorder = ([], None) if of_run else record_clips(model, given)
    number = free_number(target, _files_of(chosen, clips, model, container), overwrite=overwrite)
    if recorder is not None:
        writers = make_writers(model, clips, given)  # what can fail fails here, before anything is written
        if "mesh" in chosen:
            known = dict(source=source, hide=hide, repair=repair, dataset=dataset or retarget.find_dataset(workdir))
            mesh = retarget.prepare(model, recorder, influences=influences or 4, **known)  # type: ignore[arg-type]
            print(mesh.describe())
            print(mesh.write(clips, target, number=number))
        for name in (name for name in chosen if name in writers):
            for clip in clips:
                print(writers[name](clip, target / f"{clip.name}{number}"))
        for hint in point_to_mesh(model, chosen, retarget.find_dataset(workdir)):
            print(hint)
    if page is not None:
        print(page(target / f"player{number}.html"))
    if "checkpoint" in chosen:
        config, player = to_plain(load_config(Path(workdir))), model.player
        how = dict(config=config, facts=model.facts, step=model.step)
        print(write_model(player.params, player.alive, target / f"model{number}.npz", **how))


def _files_of(chosen: Sequence[str], clips: Sequence[Motion], model: Restored, container: str) -> list[tuple[str, str]]:
    """What `run` writes, for `free_number`."""
    endings = {kind: f"_{kind}" for kind in ("ply", "splat", "gltf")} | {"glb": ".glb", "npz": ".npz"}
    endings["video"] = "_png" if container == "png" else f".{container}"
    files = [(clip.name, endings[kind]) for clip in clips for kind in chosen if kind in endings]
    if "mesh" in chosen:
        files.append((retarget.name_mesh(clips, str(model.facts["object_name"])), "_mesh.glb"))
    if "html" in chosen:
        files.append(("player", ".html"))
    checkpoint = ("model", ".npz")
    if "checkpoint" in chosen and checkpoint in files:
        raise UserError("--format: found npz of a motion called 'model' beside checkpoint, expected one at a time")
    return [*files, checkpoint] if "checkpoint" in chosen else files


def prepare_page(model: Restored, given: Mapping[str, Any]) -> Callable[[Path], Path]:
    """A function that writes the run's page to a path.

    Raises:
      UserError: a component that the page cannot compute, or a file without sentences.
    """
    describe_model(model)
    prompts: list[tuple[str, Any]] = []
    if given["prompts"]:
        texts = read_prompts(Path(given["prompts"]))
        prompts = list(zip(texts, encode_prompts(model, given["workdir"], texts, bert=given["bert"])))
    if given["half"]:
        print(f"half: pictures of the page at {measure_half(model):.1f} dB of the model's")
    return functools.partial(write_page, model, half=given["half"], prompts=prompts)


def record_clips(model: Restored, given: Mapping[str, Any]) -> tuple[list[Motion], MotionRecorder]:
    """Plays the motions that the flags choose.

    Raises:
      UserError: an unknown motion, a file that holds no code of this model, or a frame that none of them has.
    """
    count = given["num_frames"] or model.num_frames
    if given["frame"] is not None and not 0 <= given["frame"] < count:
        raise UserError(f"--frame: found {given['frame']}, expected 0 to {count - 1}")
    rate = given["frame_rate"] or model.frame_rate * count / model.num_frames
    recorder = MotionRecorder(model)
    codes = choose_codes(model, given["workdir"], _choice(given), count)
    return [recorder.record(name, z, frame_times(count), frame_rate=rate) for name, z in codes], recorder


def make_writers(
    model: Restored, clips: Sequence[Motion], given: Mapping[str, Any]
) -> dict[str, Callable[[Motion, Path], Path]]:
    """Functions from a motion and a stem to the path that was written, by format.

    Raises:
      UserError: a motion that a chosen format cannot hold, or a camera path that is none.
    """
    chosen, influences, geometry = split_list(given["format"]), given["influences"] or 8, given["geometry"]
    if "glb" in chosen:
        for clip in clips:
            check_skin(clip, geometry=geometry)
    writers: dict[str, Callable[[Motion, Path], Path]] = {
        kind: functools.partial(write_sequence, kind=kind, frame=given["frame"]) for kind in ("ply", "splat", "gltf")
    }
    writers["glb"] = functools.partial(write_animated, geometry=geometry, influences=influences)
    writers["npz"] = lambda clip, stem: write_motion(clip, stem.with_name(f"{stem.name}.npz"))
    for kind, write in tuple(writers.items()):
        writers[kind] = functools.partial(write_placed, model, write, is_gltf=kind in ("gltf", "glb"))
    if "video" in chosen:
        rate = clips[0].frame_rate
        if given["container"] == "gif" and rate > MAX_GIF_RATE:
            raise UserError(f"--frame_rate: found {rate:g}, expected at most {MAX_GIF_RATE} for a gif")
        still, behind = model.camera(given["size"]), given["background"]
        where = {name: given[name] for name in ("azimuths", "elevation")}
        film = Film(
            camera=make_camera_path(still, given["camera"], clips[0].num_frames, **where),
            layers=split_list(given["layers"]),
            container=given["container"],
            background=np.asarray(parse_numbers("background", behind, count=3) if behind else model.player.background),
        )
        writers["video"] = functools.partial(film.write, model)
    return writers


def write_placed(
    model: Restored, write: Callable[[Motion, Path], Path], clip: Motion, target: Path, *, is_gltf: bool
) -> Path:
    """Writes a motion in the units and at the place of the user's world; in its axes, but for glTF, which is +Y up."""
    world = model.world.upright() if is_gltf else model.world
    return write(place_motion(clip, world), target)


def point_to_mesh(model: Restored, chosen: Sequence[str], dataset: str) -> list[str]:
    """That the mesh of the run's source can be moved instead of Gaussians; nothing where that was asked for, or cannot.

    Args:
      model: the restored run.
      chosen: formats.
      dataset: folder of the run's dataset.
    """
    gaussians = [name for name in ("glb", "gltf") if name in chosen]
    if not gaussians or "mesh" in chosen:
        return []
    try:
        retarget.read_joints(dataset, [str(model.facts["names"][model.trained_motions[0]])], model.num_frames)
    except UserError:
        return []
    return [
        f"{' and '.join(gaussians)}: Gaussians, as the model has them; the source's own mesh and materials move with "
        f"--format=mesh --source=FILE, the .glb or .gltf that {dataset} was imported from"
    ]


def _choice(given: Mapping[str, Any]) -> Choice:
    return Choice(**{field.name: given[field.name] for field in fields(Choice)})


@dataclass(frozen=True, eq=False)
class Film:
    """How a motion is filmed."""

    camera: Camera  # one, or one a frame
    layers: tuple[str, ...]
    container: str
    background: np.ndarray  # [3]

    def write(self, model: Restored, clip: Motion, stem: Path) -> Path:
        """Renders and writes a motion, see `write_frames`."""
        moves = np.ndim(self.camera.world_to_camera) == 3
        cameras = [
            jax.tree.map(lambda x, t=t: np.asarray(x)[t], self.camera) if moves else self.camera
            for t in range(clip.num_frames)
        ]
        background = None if self.container == "png" else self.background
        frames = draw_layers(model.player, clip, cameras, layers=self.layers, background=background)
        return write_frames(frames, stem, self.container, frame_rate=clip.frame_rate)


def write_sequence(clip: Motion, stem: Path, *, kind: str, frame: int | None = None) -> Path:
    """Writes one file a frame of "ply", "splat" or "gltf" into `stem`_`kind`, which appears whole or not at all."""
    write: dict[str, tuple[str, Callable[..., Any]]] = {
        "ply": ("ply", write_gaussians),
        "splat": ("splat", write_splat),
        "gltf": ("glb", write_gaussian_glb),
    }
    suffix, one = write[kind]
    folder = stem.with_name(f"{stem.name}_{kind}")
    with replace_folder(folder, owned=rf"(canonical|\d{{6,}})\.{suffix}") as temporary:
        if kind == "ply":
            one(clip.canonical, temporary / "canonical.ply")
        for index in range(clip.num_frames) if frame is None else (frame,):
            one(clip.at(index), temporary / f"{index:06d}.{suffix}")
    return folder


def write_animated(clip: Motion, stem: Path, *, geometry: str, influences: int) -> Path:
    """Writes the skinned Gaussians of a motion, and says how far the skin is from the model where it is."""
    path = stem.with_name(f"{stem.name}.glb")
    away = measure_skin(clip, *write_skinned_glb(clip, path, geometry=geometry, num_influences=influences))
    if away > EXACT:
        print(f"{clip.name}: skin up to {away:.1%} of its size away from the model's ({influences} influences)")
    return path
