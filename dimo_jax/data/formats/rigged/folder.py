"""A rigged, animated glTF model as a dataset folder, rendered straight to disk; stopped at any time, it goes on.

Beside the target stands a hidden folder while the import runs:

.<target>-import/.plan.json     what was asked for, which clips become motions, and the framing of all
.<target>-import/               beside it the dataset: truth and, view by view, pictures; `dataset.json` comes last

The plan is written when the first pass is through, and a view appears under its name when it is complete. So what is
there is finished, and the same command leaves it as it is. At the end the folder is renamed to the target.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from dimo_jax.cameras.framing import Framing
from dimo_jax.core.errors import UserError, WriteFailed
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.formats.native import png_bytes, write_index
from dimo_jax.data.formats.rigged.passes import each_clip, pose_clip, render_view, write_clip
from dimo_jax.data.formats.rigged.plan import Options, Plan, describe_motions, plan_import
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.rigs.scene import Scene
from dimo_jax.runtime.capacity_checks import check_disk, in_bytes
from dimo_jax.runtime.files import write_json
from dimo_jax.runtime.lock import LOCK_FILE, hold

VERSION = 3  # of pictures and names: another one does not go on with what an older version of this program has drawn
PLAN = ".plan.json"


def staging_of(target: Path) -> Path:
    """The hidden folder beside `target` in which its import works."""
    return target.with_name(f".{target.name}-import")


def import_folder(
    source: str | Path,
    target: Path,
    options: Options | None = None,
    *,
    num_workers: int = 1,
    report: Callable[[str], None] = lambda line: None,
) -> Dataset:
    """Renders a model's clips into a new dataset folder, going on where an earlier call was stopped.

    Args:
      source: a .glb or .gltf file.
      target: the folder to write; it does not exist, or is empty.
      options: see there.
      num_workers: processes, see `plan_import`.
      report: takes one line at a time about what is found, left out, and there already.

    Returns:
      What was written, without truth and with blank frames that take no memory.

    Raises:
      UserError: the model is malformed, a pattern matches nothing, or an option is out of range: nothing has been
        written. Or another process imports to the same target.
      WriteFailed: the disk does not take it: what is done stays for the next call.
    """
    options = options or Options()
    target = target.absolute()
    scene = load_scene(source, hide=options.hide, double_sided=options.double_sided, repair=options.repair)
    staging = staging_of(target)
    asked = _fingerprint(scene, options)
    try:
        plan, begin = _read_plan(staging, scene, asked), None
        if plan is None:
            plan, surface, joints = plan_import(scene, options, num_workers=num_workers, report=report)
            begin = partial(_begin, staging, scene, plan, asked, surface, joints, report=report)
        dataset = describe_motions(scene, plan.clips, options, plan.framing)
        _check_room(target, staging if begin is None else None, scene, plan, dataset, options, report=report)
        staging.mkdir(parents=True, exist_ok=True)
        with hold(staging, flag="out"):
            if begin is not None:
                begin(dataset.names)
            _render(staging, scene, plan, dataset, options, num_workers=num_workers, report=report)
            write_index(staging, dataset)
            if target.exists():
                target.rmdir()  # refuses a folder that is not empty
            staging.rename(target)
            (target / PLAN).unlink()
            (target / LOCK_FILE).unlink()
    except OSError as error:
        raise WriteFailed(
            f"{target}: cannot be written ({error.strerror or error}); the same command goes on where this one stopped"
        ) from error
    except BrokenProcessPool as error:
        raise UserError(
            f"{target}: a worker process was killed, perhaps for want of memory; the same command goes on where this "
            "one stopped, expected fewer --num_workers"
        ) from error
    return dataset


def _fingerprint(scene: Scene, options: Options) -> str:
    """Differs wherever the model, its textures or the options do."""
    asked = hashlib.sha256(json.dumps([VERSION, scene.path.name, scene.digest, asdict(options)]).encode())
    for material in scene.mesh.materials:
        for texture in (material.texture, material.emission_texture):
            if texture is not None:
                asked.update(texture.pixels.tobytes())
    return asked.hexdigest()


def _read_plan(staging: Path, scene: Scene, asked: str) -> Plan | None:
    """The plan of an earlier call that was asked for the same; None where there is none."""
    path = staging / PLAN
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["asked"] != asked:
            return None
        clips = tuple(scene.clips[index] for index in content["clips"])
        center, scale = np.array(content["center"], np.float64), float(content["scale"])
        if not clips or center.shape != (3,) or not np.isfinite([*center, scale]).all():
            raise ValueError("its framing or its clips")
        return Plan(clips, Framing(center, scale))
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{path}: is damaged ({error.__class__.__name__}), expected a plan; remove {staging}"
        ) from error


def _begin(
    staging: Path,
    scene: Scene,
    plan: Plan,
    asked: str,
    surface: np.ndarray,
    joints: np.ndarray,
    names: Sequence[str],
    *,
    report: Callable[[str], None],
) -> None:
    """Writes what the first pass found: the truth, then the plan. What another import left behind is removed."""
    if (staging / PLAN).exists():
        report(f"{staging}: removed, an unfinished import of another model or with other options")
    for entry in staging.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != LOCK_FILE:
            entry.unlink()
    for index, name in enumerate(names):
        (staging / name).mkdir()
        np.savez(staging / name / "truth.npz", surface=surface[index], joints=joints[index])
    numbers = {clip.name: index for index, clip in enumerate(scene.clips)}
    content = {
        "asked": asked,
        "clips": [numbers[clip.name] for clip in plan.clips],
        "center": plan.framing.center.tolist(),
        "scale": plan.framing.scale,
    }
    write_json(content, staging / PLAN)


def _check_room(
    target: Path,
    staging: Path | None,
    scene: Scene,
    plan: Plan,
    dataset: Dataset,
    options: Options,
    *,
    report: Callable[[str], None],
) -> None:
    """Says what the import will take, and checks that the disk has as much; what lies in `staging` is there already."""
    num_views, num_frames = dataset.num_views, dataset.num_frames
    first = pose_clip(scene, plan.clips[0], timing=options.timing)[0][:1]
    frames = render_view(plan.framing.apply(first), scene, dataset.cameras, 0, samples=options.turntable.samples)
    views = [(name, view) for name in dataset.names for view in dataset.view_names]
    missing = [pair for pair in views if staging is None or not staging.joinpath(*pair).is_dir()]
    needed = png_bytes(next(frames)) * num_frames * len(missing)
    size = options.turntable.size
    report(
        f"{dataset.num_motions} motions x {num_views} views x {num_frames} frames of {size}x{size}: "
        f"{in_bytes(dataset.frames.size)} of pictures as uint8, about {in_bytes(needed)} on disk"
        + ("" if len(missing) == len(views) else " still to come")
    )
    check_disk(target, needed, otherwise="--size, --num_frames or --clips make it smaller")


def _render(
    folder: Path,
    scene: Scene,
    plan: Plan,
    dataset: Dataset,
    options: Options,
    *,
    num_workers: int,
    report: Callable[[str], None],
) -> None:
    """The second pass, over the clips of which a view is missing."""
    folders = {clip.name: folder / name for clip, name in zip(plan.clips, dataset.names)}
    num_there = {name: sum((path / view).is_dir() for view in dataset.view_names) for name, path in folders.items()}
    missing = [clip for clip in plan.clips if num_there[clip.name] < dataset.num_views]
    if any(num_there.values()):
        total = dataset.num_motions * dataset.num_views
        report(f"goes on after a stop: {sum(num_there.values())} of {total} videos are there")
    write = partial(
        write_clip,
        timing=options.timing,
        cameras=dataset.cameras,
        framing=plan.framing,
        samples=options.turntable.samples,
        folders=folders,
        view_names=dataset.view_names,
    )
    for _ in each_clip(write, scene, missing, num_workers=num_workers, label="rendering"):
        pass
