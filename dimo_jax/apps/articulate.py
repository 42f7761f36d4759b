"""`--app=articulate`: a part and a sentence in, a joint out, in files that simulators and viewers load."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from ml_collections import ConfigDict

from dimo_jax.cli.flag_checks import check_flags
from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import check_least
from dimo_jax.data.cabinet import NAME as CABINET
from dimo_jax.data.cabinet import make_cabinet
from dimo_jax.geometry.joint import REVOLUTE, Joint, to_json
from dimo_jax.io.articulated import write_articulation
from dimo_jax.io.images import write_png
from dimo_jax.io.objects import load_object
from dimo_jax.io.usd import check_usd
from dimo_jax.io.video import write_video
from dimo_jax.meshes.articulation import Physics, add_physics
from dimo_jax.meshes.objects import ObjectMesh, move_object
from dimo_jax.meshes.parts import PartChoice, list_parts
from dimo_jax.runtime.files import replace_folder, write_json
from dimo_jax.systems.atop.articulate import Find, Found, Request, articulate, read_requests
from dimo_jax.systems.atop.generator.joints import Imagined, imagine
from dimo_jax.systems.atop.generator.reference import over_white
from dimo_jax.systems.atop.generator.trained import load_generator
from dimo_jax.systems.atop.rank import Finding, explain
from dimo_jax.systems.atop.seen.motion import VideoMotion, read_motion
from dimo_jax.systems.atop.seen.splats import DRAWS
from dimo_jax.systems.atop.seen.tell import explain_motion
from dimo_jax.training.config_file import load_config
from dimo_jax.views.clip_sheet import lay_views
from dimo_jax.views.joint_picture import draw_articulation, upright
from dimo_jax.views.part_sheet import draw_parts

UPS = {
    **{name: np.eye(3)[axis] for axis, name in enumerate("xyz")},
    **{f"-{name}": -np.eye(3)[axis] for axis, name in enumerate("xyz")},
}
OWNED = r"joint\.json|parts\.json|object\.(urdf|xml|glb|usda)|picture\.png|parts\.png|generated\.mp4|meshes"
GEOMETRY, GENERATED = "geometry", "generated"
VIDEO, FRAME_RATE = "generated.mp4", 5.0  # frames a second
MANY = 500_000  # triangles from which the wait is said beforehand
SECONDS, GIGABYTES = 40, 1.6  # CPU time and memory that a million triangles take (docs/articulate.md)
SHOWN = 3  # ranked joints that are printed
UNSURE = 0.4  # confidence below which the best joint is called doubtful


def run(
    *,
    source: str,
    out: str = "",
    part: str = "",
    prompt: str = "",
    parts: str = "",
    list_parts: bool = False,
    candidate: int = 0,
    motion: str = "geometry",
    draw: Literal["mesh", "splats", "metaballs"] = "mesh",
    workdir: str = "",
    config: ConfigDict | None = None,
    seed: int = 0,
    up: Literal["x", "y", "z", "-x", "-y", "-z", "unknown"] = "y",
    base: Literal["fixed", "free"] = "fixed",
    density: float = 600.0,
    damping: float | None = None,
    friction: float = 0.0,
    collision: Literal["pieces", "hull"] = "pieces",
    usd: bool = False,
    size: int = 384,
    overwrite: bool = False,
) -> None:
    """Finds the joint of a part of a static object, and writes what simulators load.

    Args:
      source: the object, a .glb, .gltf, .obj or .ply file, or "cabinet": the embedded example.
      out: folder to write: joint.json, object.urdf, object.xml (MJCF), object.glb (animated), meshes/, picture.png.
      part: what moves: a node, a material, piece:N, faces:FILE or box:x0,y0,z0,x1,y1,z1; see --list_parts.
      prompt: what it shall do, such as "open the door".
      parts: JSON file with several parts, each with part, sentence and perhaps parent; instead of --part and --prompt.
      list_parts: only says which parts there are; with --out it draws them numbered (parts.png, parts.json).
      candidate: which of the ranked joints to write, from 0.
      motion: "geometry", where shape and prompt alone tell; or a motion of --part that was seen, in the object's
        coordinates: a dataset folder of videos, a folder of meshes of the part (one a frame), or a .npz with points; or
        "generated": one that a trained video model finds likely for --prompt.
      draw: what explains the videos of --motion: the mesh itself, or Gaussians on its surface, drawn by the rasterizer
        or as fuzzy metaballs, as ATOP does; Gaussians take minutes.
      workdir: run of configs/atop.py, for --motion=generated.
      config: configs/atop.py, in the place of `workdir`: its config.atop.trained names the run, and
        config.atop.sampling says how to draw.
      seed: of all noise, for --motion=generated.
      up: what is up in the object, for its judgement and for simulators, which have +Z up.
      base: whether the body is held in place, or stands on a floor.
      density: kg per cubic metre.
      damping: of every joint, N m s/rad or N s/m; default: comes to rest in about half a second.
      friction: dry friction of every joint, N m or N.
      collision: convex pieces of each part, or one convex hull.
      usd: writes object.usda as well, which needs usd-core.
      size: side of each picture in pixels.
      overwrite: replaces the results of an earlier call in --out.

    Raises:
      UserError: a file or part that is not there, a value that is none, or a folder that is not ours to replace.

    Example:
      python launch.py --app=articulate --source=cabinet --part=door --prompt="open the door" --out=out
    """
    check_flags("articulate", dict(locals()))
    check_least(0, candidate=candidate, friction=friction, damping=damping or 0.0)
    check_least(64, size=size)
    if not density > 0:
        raise UserError(f"--density: found {density}, expected more than 0")
    if usd:
        check_usd()
    if out:
        _check_out(Path(out), overwrite)
    direction = None if up == "unknown" else UPS[up]
    if list_parts:
        _show_parts(load_source(source), source, out, direction)
        return
    if motion != GEOMETRY and parts:
        raise UserError(f"--motion={motion}: found beside --parts, expected --part: it shows the motion of one part")
    requests = _read_flags(part, prompt, parts, candidate, needs_prompt=motion in (GEOMETRY, GENERATED))
    if not out:
        raise UserError("--out: not given, expected the folder to write")
    imagined: list[Imagined] = []
    find = _make_generated(workdir, config, seed, imagined) if motion == GENERATED else _read_find(motion, draw)
    thing = load_source(source)
    for note in (*thing.notes, *foretell(len(thing.triangles))):
        print(f"note: {note}", flush=True)
    started = time.monotonic()
    found = articulate(thing, requests, find, up=direction)
    print(f"{len(thing.triangles)} triangles, {len(requests)} part{'s' * (len(requests) > 1)}: "
          f"joints found in {time.monotonic() - started:.1f} s")  # fmt: skip
    _print_found(found)
    physics = add_physics(
        found.articulation,
        density=density,
        damping=damping,
        friction=friction,
        fixed_base=base == "fixed",
        hull_only=collision == "hull",
    )
    stand = UPS["y"] if direction is None else direction
    with replace_folder(out, owned=OWNED) as folder:
        name = _plain(Path(source).stem)
        written = write_articulation(found.articulation, physics, folder, name=name, up=stand, usd=usd)
        write_json(describe(found, physics, one=not parts), folder / "joint.json")
        write_png(draw_articulation(found.articulation, up=direction, size=size), folder / "picture.png")
        for each in imagined:
            write_video(lay_views(over_white(each.video)), folder / VIDEO, frame_rate=FRAME_RATE)
            written = [VIDEO, *written]
    print(f"wrote {out}: joint.json, picture.png, {', '.join(written)}")


def foretell(num_triangles: int) -> list[str]:
    """A line about the wait that a large mesh means; none for others."""
    if num_triangles < MANY:
        return []
    millions = num_triangles / 1e6
    told = f"{num_triangles} triangles take about {SECONDS * millions:.0f} s of one core"
    return [f"{told} and {GIGABYTES * millions:.1f} GB of memory"]


def load_source(source: str) -> ObjectMesh:
    """The object of `--source`: a file, or the embedded cabinet.

    Raises:
      UserError: no such file, or none that can be read.
    """
    if source == CABINET:
        return make_cabinet()
    if not Path(source).is_file():
        found = "a folder" if Path(source).is_dir() else "no such file"
        raise UserError(
            f"--source={source}: {found}, expected a .glb, .gltf, .obj or .ply file, or {CABINET} (embedded)"
        )
    return load_object(source)


def describe(found: Found, physics: Physics, *, one: bool) -> dict[str, Any]:
    """What joint.json holds: with `one` the joint itself, else a list `joints`; and the masses of all links."""
    links = found.articulation.links
    joints = []
    for index, (request, ranked, doubts) in enumerate(zip(found.requests, found.ranked, found.doubts), 1):
        taken = links[index].joint
        others = [to_json(joint) for place, joint in enumerate(ranked) if place != request.candidate]
        assert taken is not None  # all links but the first have one
        names = {"name": links[index].name, "part": request.part, "parent": links[links[index].parent].name}
        losses = {"damping": physics.damping[index - 1], "friction": physics.friction[index - 1]}
        joints.append(names | {"sentence": request.sentence} | to_json(taken) | losses)
        joints[-1] |= {"candidate": request.candidate, "doubts": list(doubts), "runners_up": others}
    bodies = [
        {
            "name": link.name,
            "mass": body.mass.mass,
            "center": body.mass.center.tolist(),
            "inertia": body.mass.inertia.tolist(),
            "inertia_from": body.mass.source,
            "collision_pieces": len(body.pieces),
        }
        for link, body in zip(links, physics.bodies)
    ]
    return (joints[0] if one else {"joints": joints}) | {"links": bodies}


def _check_out(path: Path, overwrite: bool) -> None:
    if path.exists() and not path.is_dir():
        raise UserError(f"--out={path}: found a file, expected a folder")
    if not path.is_dir():
        return
    names = sorted(entry.name for entry in path.iterdir())
    foreign = [name for name in names if not re.fullmatch(OWNED, name)]
    if foreign:
        raise UserError(f"--out={path}: found {foreign[0]!r} in it, expected a new folder, or one that this app wrote")
    if names and not overwrite:
        raise UserError(f"--out={path}: exists, expected a new folder, or --overwrite")


def _read_find(motion: str, draw: str) -> Find:
    """What ranks the joints of a part: shape and sentence, or a motion that is read here."""
    seen = None if motion == GEOMETRY else read_motion(motion)
    if draw != "mesh" and not isinstance(seen, VideoMotion):
        raise UserError(
            f"--draw={draw}: found beside --motion={motion}, expected a folder of videos: it draws pictures"
        )
    if seen is None:
        return explain

    def find(body: ObjectMesh, part: ObjectMesh, sentence: str, up: np.ndarray | None) -> Finding:
        del up  # a motion that was seen needs no guess about gravity
        try:
            return explain_motion(body, part, seen, sentence, make_draw=DRAWS[draw])
        except UserError as error:
            raise UserError(f"--motion={motion}: {error}") from None

    return find


def _make_generated(workdir: str, config: ConfigDict | None, seed: int, imagined: list[Imagined]) -> Find:
    """What ranks the joints of a part by a trained video model; what the model draws is added to `imagined`."""
    generator, sampling = load_generator(config or workdir), read_sampling(config or workdir)

    def find(body: ObjectMesh, part: ObjectMesh, sentence: str, up: np.ndarray | None) -> Finding:
        try:
            made = imagine(body, part, generator, sentence, jax.random.key(seed), up=up, **sampling)
        except UserError as error:
            raise UserError(f"--motion={GENERATED}: {error}") from None
        imagined.append(made)
        return Finding(made.joints, made.doubts)

    return find


def read_sampling(source: str | ConfigDict) -> dict[str, Any]:
    """How a video is drawn, as the run in a workdir, or a config, has it."""
    config = source if isinstance(source, ConfigDict) else load_config(Path(source))
    return {name: config.atop.sampling[name] for name in ("num_steps", "guidance")}


def _read_flags(part: str, prompt: str, parts: str, candidate: int, *, needs_prompt: bool) -> tuple[Request, ...]:
    if parts:
        for flag, value in (("part", part), ("prompt", prompt), ("candidate", candidate)):
            if value:
                raise UserError(f"--{flag}: found {value!r} beside --parts, expected one of them")
        path = Path(parts)
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"--parts={parts}: {error.strerror or 'cannot be read'}, expected a JSON file") from None
        except (ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())[:100]
            raise UserError(f"--parts={parts}: no readable JSON ({reason}), expected a list of parts") from None
        return read_requests(entries, path)
    if not part.strip():
        raise UserError("--part: not given, expected what moves (--list_parts says what there is), or --parts=FILE")
    if needs_prompt and not prompt.strip():
        raise UserError('--prompt: empty, expected what the part shall do, such as "open the door"')
    return (Request(part, prompt, candidate=candidate),)


def _show_parts(thing: ObjectMesh, source: str, out: str, up: np.ndarray | None) -> None:
    choices = list_parts(thing)
    print(f"{source}: {len(thing.triangles)} triangles, {len(choices)} parts to choose from")
    for choice in choices:
        print(f"  {choice.number:3d}  {choice.label}  ({int(choice.faces.sum())} triangles)")
    if not choices:
        print("  it is one piece with one material: give --part=faces:FILE or --part=box:x0,y0,z0,x1,y1,z1")
    if out:
        with replace_folder(out, owned=OWNED) as folder:
            matrix = np.eye(4)
            matrix[:3, :3] = upright(up)
            write_png(draw_parts(move_object(thing, matrix), choices), folder / "parts.png")
            write_json({"parts": [_describe_part(choice) for choice in choices]}, folder / "parts.json")
        print(f"wrote {out}: parts.png, parts.json")


def _describe_part(choice: PartChoice) -> dict[str, Any]:
    return {"number": choice.number, "part": choice.label, "triangles": int(choice.faces.sum())}


def _print_found(found: Found) -> None:
    for request, ranked, doubts in zip(found.requests, found.ranked, found.doubts):
        on = f" on {request.parent}" if request.parent else ""
        print(f'{request.part}{on}, "{request.sentence}":')
        for place, joint in enumerate(ranked[: max(SHOWN, request.candidate + 1)]):
            print(f"  {'>' if place == request.candidate else ' '} {place}  {_describe_joint(joint)}")
        for doubt in doubts:
            print(f"  doubtful: {doubt}")
        if request.joint is None and ranked[0].confidence < UNSURE:
            print(f"  doubtful: no joint of {request.part} has a confidence of {UNSURE} or more; see picture.png")


def _describe_joint(joint: Joint) -> str:
    low, high = np.rad2deg(joint.range) if joint.type == REVOLUTE else joint.range
    unit = "deg" if joint.type == REVOLUTE else "m"
    return (
        f"{joint.type:9s} axis {_numbers(joint.axis)} through {_numbers(joint.origin)} "
        f"from {low:.3g} to {high:.3g} {unit}, confidence {joint.confidence:.2f} ({joint.source})"
    )


def _numbers(values: Sequence[float] | np.ndarray) -> str:
    return "(" + ", ".join(f"{value + 0.0:.3f}" for value in values) + ")"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", name) or "object"
