"""Steps "frame", "view" and "dataset": one framing, novel views, and a folder that training reads."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.cameras.orbits import orbit
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.formats.native import write_dataset
from dimo_jax.data.formats.native_schema import FILE
from dimo_jax.data.store import check_room
from dimo_jax.io.video import write_png_sequence
from dimo_jax.priors.failures import Failure
from dimo_jax.priors.framing import Box, cut, fit_square, pick_frames
from dimo_jax.priors.manifest import Record
from dimo_jax.priors.novel_views import Sampler, SamplerFailure, read_view, run_sampler
from dimo_jax.priors.work import Job, Work, key_of, read_frames

DATASET = "dataset"


def frame_all(work: Work, kept: Mapping[str, Record]) -> dict[str, Record]:
    """Step "frame": the kept videos as RGBA squares in frames/<item>, all with one framing and number of frames.

    Args:
      work: where.
      kept: the records of their cutouts.
    """
    options = work.config["framing"]
    square = fit_square([Box(**record["box"]) for record in kept.values()], margin=options["margin"])

    def make(item: str) -> tuple[dict[str, Any], tuple[str, ...]]:
        cutouts = read_frames(work.folder / "cutouts" / item)
        picked = pick_frames(len(cutouts), options["num_frames"])
        folder = f"frames/{item}"
        write_png_sequence(cut(cutouts[picked], square, size=options["size"]), work.folder / folder)
        return {"square": asdict(square), "size": options["size"], "picked": picked.tolist()}, (folder,)

    shape = {"square": asdict(square), "size": options["size"], "num_frames": options["num_frames"]}
    jobs = [Job(item, key_of(mask=record["key"], **shape), partial(make, item)) for item, record in kept.items()]
    return work.each("frame", jobs)


def plan_sampler(work: Work, item: str, out: Path) -> Sampler:
    """How the novel views of a video are made, into the folder `out`.

    Raises:
      UserError: the config's sampler is not there.
    """
    frames = (work.folder / "frames" / item).resolve()
    options = work.config["framing"]
    sampler: Sampler = work.slot("views")(frames, out, num_frames=options["num_frames"], size=options["size"])
    return sampler


def make_views(work: Work, framed: Mapping[str, Record]) -> dict[str, Record]:
    """Step "view": novel views in views/<item>, made beside it and moved when they are all there."""
    hidden = (work.config["client"]["key_variable"],)
    size, num_frames = work.config["framing"]["size"], work.config["framing"]["num_frames"]

    def make(item: str) -> tuple[dict[str, Any], tuple[str, ...]]:
        name, log = f"views/{item}", f"logs/{item}.log"
        final = (work.folder / name).resolve()
        part = final.with_name(f".{item}.part")
        shutil.rmtree(part, ignore_errors=True)  # of a run that was stopped
        part.mkdir(parents=True)
        sampler = plan_sampler(work, item, part)
        if not sampler.command:
            shutil.rmtree(part)
            return {"command": []}, ()
        try:
            status = run_sampler(sampler, work.folder / log, hidden=hidden, lock=work.manifest.lock)
            for path in sampler.videos:
                read_view(path, num_frames=num_frames, size=size)
        except Failure as failure:
            ended = failure.status if isinstance(failure, SamplerFailure) else 0
            failure.fields = {"command": list(sampler.command), "exit_status": ended, "log": log}
            raise
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
        return {"command": list(sampler.command), "exit_status": status, "log": log}, (name,)

    options = work.options("views")
    jobs = [
        Job(item, key_of(frame=record["key"], views=options), partial(make, item)) for item, record in framed.items()
    ]
    return work.each("view", jobs)


def build_dataset(work: Work, videos: Mapping[str, Record], views: Mapping[str, Record]) -> Path:
    """Step "dataset": a native dataset of all motions that have their views."""
    options, camera = work.config["framing"], work.config["camera"]
    target = work.folder / DATASET

    def make() -> tuple[dict[str, Any], tuple[str, ...]]:
        samplers = {item: plan_sampler(work, item, work.folder / "views" / item) for item in views}
        first = next(iter(samplers.values()))
        size, num_views = options["size"], len(first.azimuths_deg)
        shape = (len(views), num_views, options["num_frames"], size, size, 4)
        check_room(work.folder, math.prod(shape), otherwise="or fewer motions, views or pixels")
        # On the disk, because it can be larger than memory; the file has no name and goes with the process.
        with tempfile.TemporaryFile(dir=work.folder) as file:
            frames = np.memmap(file, np.uint8, "w+", shape=shape)
            for index, (item, sampler) in enumerate(samplers.items()):
                _gather(work, item, sampler, frames[index])
            write_dataset(_describe(work, videos, list(views), first, frames, camera), target, overwrite=True)
        # Only the description is watched: what the user edits beside it, such as captions.txt, is not to be undone.
        return {"motions": len(views), "views": num_views, "num_frames": shape[2], "size": size}, (f"{DATASET}/{FILE}",)

    captions = {item: [record["key"], videos[item]["caption"]] for item, record in views.items()}
    work.each("dataset", [Job(DATASET, key_of(views=captions, camera=dict(camera)), make)])
    return target


def _gather(work: Work, item: str, sampler: Sampler, out: np.ndarray) -> None:
    """All views of one motion into out [V,T,H,W,4]."""
    out[0] = read_frames(work.folder / "frames" / item)
    for index, path in enumerate(sampler.videos, start=1):
        out[index] = read_view(path, num_frames=out.shape[1], size=out.shape[2])


def _describe(
    work: Work,
    videos: Mapping[str, Record],
    items: Sequence[str],
    sampler: Sampler,
    frames: np.ndarray,
    camera: Mapping[str, float],
) -> Dataset:
    """The dataset around the frames [M,V,T,H,W,4]."""
    records = [videos[item] for item in items]
    size, num_views = frames.shape[3], frames.shape[1]
    cameras = orbit(
        sampler.azimuths_deg,
        sampler.elevation_deg,
        radius=camera["radius"],
        fov_deg=camera["fov_deg"],
        height=size,
        width=size,
    )
    seconds = (records[0]["num_frames"] - 1) / records[0]["frame_rate"]
    return Dataset(
        frames=frames,
        cameras=cameras,
        names=tuple(items),
        captions=tuple(record["caption"] for record in records),
        splits=("train",) * len(items),
        paraphrases=tuple(tuple(dict.fromkeys((record["caption"], record["motion"]))) for record in records),
        view_names=tuple(f"v{index:03d}" for index in range(num_views)),
        view_splits=("train",) * num_views,
        frame_rate=round((frames.shape[2] - 1) / seconds, 3),
        object_name=work.image.stem,
    )
