"""Steps "image", "video", "mask", "flow", "score", "select" and "sheet": videos, and which of them are good."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dimo_jax.core.errors import UserError
from dimo_jax.io import pictures
from dimo_jax.io.images import write_png
from dimo_jax.io.video import write_png_sequence
from dimo_jax.priors import flow, framing, masks, prompts
from dimo_jax.priors.failures import Failure
from dimo_jax.priors.manifest import Record, digest_path
from dimo_jax.priors.sheet import Row, draw_sheet
from dimo_jax.priors.work import Job, Work, key_of, read_frames

INPUT, SHEET = "input.png", "contact_sheet.png"
SHEET_FRAMES = 6


@dataclass(frozen=True)
class Take:
    """One video to make."""

    item: str
    motion: prompts.Motion
    prompt: str
    seed: int


def read_image(path: str) -> np.ndarray:
    """The user's picture, upright, [H,W,4] uint8.

    Raises:
      UserError: no such file, no picture, or one that is too small or large.
    """
    try:
        frame = pictures.read_image(Path(path))
    except UserError as error:
        raise UserError(f"--image={error}") from error
    height, width = frame.shape[:2]
    if min(height, width) < 32:
        raise UserError(f"--image={path}: {width}x{height} pixels, expected 32 to {pictures.MAX_SIDE} a side")
    return frame


def prepare(work: Work) -> np.ndarray:
    """The first frame of all videos, [H,W,3] uint8: the object on white, in the middle."""
    video = work.config["video"]
    size = {"height": video["height"], "width": video["width"]}
    key = key_of(image=digest_path(work.image), mask=work.options("mask"), share=work.config["image"]["share"], **size)

    def make() -> tuple[dict[str, Any], tuple[str, ...]]:
        cutout = read_image(str(work.image))
        if cutout[..., 3].min() == 255:
            cutout = work.slot("mask")(cutout[None, ..., :3], item="input")[0]
        fault = masks.judge_cutouts(cutout[None])
        if fault:
            raise UserError(
                f"--image={work.image}: {fault}; expected an object on white, a picture with alpha, or "
                "--config.mask.fn=dimo_jax.priors.masks:rembg"
            )
        frame = framing.prepare_image(cutout, share=work.config["image"]["share"], **size)
        write_png(frame, work.folder / INPUT)
        return size, (INPUT,)

    work.each("image", [Job("input", key, make)])
    with Image.open(work.folder / INPUT) as image:
        return np.asarray(image.convert("RGB"))


def plan_takes(work: Work, motions: Sequence[prompts.Motion], meta: Mapping[str, str]) -> list[Take]:
    """The videos to make, `config.takes` of each motion."""
    takes = []
    for motion in motions:
        prompt = prompts.compose(motion, meta, style=work.config["style"])
        for index in range(work.config["takes"]):
            item = motion.name if index == 0 else f"{motion.name}.take{index + 1}"
            takes.append(Take(item, motion, prompt, prompts.seed_of(motion.name, index, seed=work.config["seed"])))
    return takes


def make_videos(work: Work, image: np.ndarray, takes: Sequence[Take]) -> dict[str, Record]:
    """Step "video": numbered PNGs in videos/<item>. The model is loaded when the first one is missing."""
    first = digest_path(work.folder / INPUT)
    loaded: dict[str, Any] = {}

    def make(take: Take) -> tuple[dict[str, Any], tuple[str, ...]]:
        if not loaded:
            loaded["model"] = work.slot("video")()
        frames = loaded["model"](image, take.prompt, take.seed)
        folder = f"videos/{take.item}"
        write_png_sequence(frames, work.folder / folder)
        facts = {"caption": take.motion.caption, "motion": take.motion.motion, "prompt": take.prompt, "seed": take.seed}
        facts |= {"model": work.config["video"].get("model") or work.config["video"]["fn"]}
        facts |= {"num_frames": len(frames), "height": frames.shape[1], "width": frames.shape[2]}
        return facts | {"frame_rate": work.config["video"]["frame_rate"]}, (folder,)

    options = work.options("video")
    jobs = [
        Job(take.item, key_of(prompt=take.prompt, seed=take.seed, video=options, image=first), partial(make, take))
        for take in takes
    ]
    try:
        return work.each("video", jobs)
    finally:
        # Its memory is needed by what comes next.
        loaded.clear()
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()


def make_cutouts(work: Work, videos: Mapping[str, Record]) -> dict[str, Record]:
    """Step "mask": numbered RGBA PNGs in cutouts/<item>, where the object is, and what is wrong with them."""

    def make(item: str) -> tuple[dict[str, Any], tuple[str, ...]]:
        cutouts = work.slot("mask")(read_frames(work.folder / "videos" / item), item=item)
        folder = f"cutouts/{item}"
        write_png_sequence(cutouts, work.folder / folder)
        fault = masks.judge_cutouts(cutouts)
        box = {} if fault else {"box": asdict(framing.bound(cutouts))}
        return {"fault": fault, **box}, (folder,)

    options = work.options("mask")
    jobs = [
        Job(item, key_of(video=record["key"], mask=options), partial(make, item)) for item, record in videos.items()
    ]
    return work.each("mask", jobs)


def measure(work: Work, videos: Mapping[str, Record], found: Mapping[str, Record]) -> dict[str, Record]:
    """Step "flow": the measures of `flow.Motion` of every video whose masks are those of an object."""

    def make(item: str) -> tuple[dict[str, Any], tuple[str, ...]]:
        frames = read_frames(work.folder / "videos" / item)
        inside = read_frames(work.folder / "cutouts" / item)[..., 3] >= masks.SOLID
        rate = videos[item]["frame_rate"]
        found = asdict(flow.measure_motion(frames, inside, frame_rate=rate, flow=work.slot("flow")))
        if not np.isfinite(list(found.values())).all():
            raise Failure("the optical flow has values that are not finite")
        return found, ()

    options = work.options("flow")
    sound = {item: record for item, record in found.items() if not record["fault"]}
    return work.each(
        "flow",
        [Job(item, key_of(mask=record["key"], flow=options), partial(make, item)) for item, record in sound.items()],
    )


def rate(work: Work, videos: Mapping[str, Record], chosen: Sequence[str]) -> dict[str, Record]:
    """Step "score": points of the chosen videos by the language model."""
    model = work.config["client"]["model"]

    def make(item: str) -> tuple[dict[str, Any], tuple[str, ...]]:
        frames = read_frames(work.folder / "videos" / item)
        return {"model": model, "points": work.slot("score")(work.endpoint, frames, videos[item]["prompt"])}, ()

    options = work.options("score")
    jobs = [
        Job(item, key_of(video=videos[item]["key"], model=model, score=options), partial(make, item)) for item in chosen
    ]
    return work.each("score", jobs)


def select(work: Work, videos: Mapping[str, Record]) -> dict[str, Record]:
    """Steps "mask" to "sheet": the videos that are good, with the records of their cutouts.

    Raises:
      UserError: see `Work.each`; or none is good.
    """
    found = make_cutouts(work, videos)
    motions = measure(work, videos, found)
    judge = work.slot("judge_motion")
    # One that could not be measured, or rated, is left out where `config.skip_failed` has let the step go on.
    reasons = {item: record["fault"] or "its motion could not be measured" for item, record in found.items()}
    for item, record in motions.items():
        reasons[item] = judge(flow.Motion(**{name: record[name] for name in ("amplitude", "jump", "cropped")}))
    scores: dict[str, Record] = {}
    if work.config["score"]["fn"]:
        scores = rate(work, videos, [item for item, reason in reasons.items() if not reason])
        for item in [item for item, reason in reasons.items() if not reason]:
            unrated = "the language model did not rate it"
            reasons[item] = work.slot("judge_points")(scores[item]["points"]) if item in scores else unrated
    for item, reason in reasons.items():
        decision: dict[str, Any] = {"decision": "drop" if reason else "keep", "reason": reason}
        key = key_of(video=videos[item]["key"], **decision)
        if work.manifest.find("select", item, key) is None:
            work.manifest.done("select", item, key, **decision)
    _draw(work, videos, reasons, motions, scores)
    kept = {item: found[item] for item, reason in reasons.items() if not reason}
    if not kept:
        item, reason = next(iter(reasons.items()))
        raise UserError(
            f"no video passed the filters ({item}: {reason}); see {work.folder / SHEET} and {work.manifest.path}"
        )
    return kept


def _draw(
    work: Work,
    videos: Mapping[str, Record],
    reasons: Mapping[str, str],
    motions: Mapping[str, Record],
    scores: Mapping[str, Record],
) -> None:
    """Step "sheet": the contact sheet."""

    def describe(item: str) -> tuple[str, ...]:
        lines = []
        if item in motions:
            record = motions[item]
            lines.append(
                f"amplitude {record['amplitude']:.3f}  jump {record['jump']:.2f}  cropped {record['cropped']:.0%}"
            )
        if item in scores:
            points = scores[item]["points"]
            lines.append(
                "  ".join(f"{name.replace('_', ' ')} {value}" for name, value in points.items() if name != "comment")
            )
        return tuple(lines)

    def make() -> tuple[dict[str, Any], tuple[str, ...]]:
        rows = []
        for item, reason in reasons.items():
            frames = read_frames(work.folder / "videos" / item)
            picked = frames[np.linspace(0, len(frames) - 1, SHEET_FRAMES).round().astype(int)]
            rows.append(Row(videos[item]["caption"], describe(item), not reason, reason, picked))
        draw_sheet(rows, work.folder / SHEET)
        return {}, (SHEET,)

    shown = {item: [videos[item]["key"], reason, describe(item)] for item, reason in reasons.items()}
    work.each("sheet", [Job("all", key_of(shown=shown), make)])
