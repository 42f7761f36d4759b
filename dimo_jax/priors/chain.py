"""All steps in order, and what can be known to be missing before any of them starts."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from absl import logging

from dimo_jax.core.errors import UserError, WriteFailed
from dimo_jax.core.resolve import resolve
from dimo_jax.metrics.motion import load_opencv
from dimo_jax.priors import dataset_steps, video_steps
from dimo_jax.priors.client import EXTRA
from dimo_jax.priors.manifest import Manifest
from dimo_jax.priors.plan import check_numbers
from dimo_jax.priors.prompt_steps import find_motions
from dimo_jax.priors.work import Work
from dimo_jax.runtime.files import write_json

SLOTS = ("client", "describe", "propose", "deduplicate", "embed", "video", "mask", "flow")
JUDGES = ("judge_motion", "judge_points", "views")


def find_missing(config: Mapping[str, Any], *, prompts: Path | None) -> list[str]:
    """What a run would lack: one line each, none where it can start. Arguments as in `run_chain`.

    Raises:
      UserError: a number out of range, a slot that names no function, or options that it does not have.
    """
    check_numbers(config)
    scored = bool(config["score"]["fn"])
    slots = {name: resolve(config[name], key=name) for name in (*SLOTS, *JUDGES, *(["score"] if scored else []))}
    checks: list[Callable[[], Any]] = [slots["client"]] if prompts is None or scored else []
    sizes = {name: config["framing"][name] for name in ("num_frames", "size")}
    checks += [
        partial(_check_packages, slots["video"], "video"),
        load_opencv,
        partial(slots["views"], Path("frames"), Path("views"), **sizes),
    ]
    missing = []
    for check in checks:
        try:
            check()
        except UserError as error:
            missing.append(str(error))
    return missing


def _check_packages(function: Any, key: str) -> None:
    """Raises UserError where a package is absent of those that the module of a slot's function lists as `PACKAGES`."""
    for name in getattr(sys.modules[function.func.__module__], "PACKAGES", ()):
        if importlib.util.find_spec(name) is None:
            raise UserError(f"config.{key}: package {name} not found, expected it installed ({EXTRA})")


def run_chain(config: Mapping[str, Any], *, image: Path, out: Path, prompts: Path | None) -> Path:
    """Does every step that is not done yet.

    Args:
      config: see configs/distill.py.
      image: the picture.
      out: the folder to work in.
      prompts: motions of the user's own, or None.

    Returns:
      The dataset's folder.

    Raises:
      UserError: something is missing (nothing is written then), or a step failed.
      WriteFailed: the disk does not take its files.
    """
    video_steps.read_image(str(image))
    missing = find_missing(config, prompts=prompts)
    if missing:
        raise UserError("; ".join(missing))
    try:
        return _do_steps(config, image, out, prompts)
    except OSError as error:
        raise WriteFailed(
            f"{error.filename or out}: cannot be written or read ({error.strerror or error}); the same command goes on "
            "where this one stopped"
        ) from error


def _do_steps(config: Mapping[str, Any], image: Path, out: Path, prompts: Path | None) -> Path:
    with Manifest(out) as manifest:
        work = Work(config, manifest, image, prompts)
        write_json(config, out / "config.json")
        first = video_steps.prepare(work)
        motions, meta = find_motions(work, first)
        logging.info("%d motions: %s", len(motions), ", ".join(motion.caption for motion in motions))
        videos = video_steps.make_videos(work, first, video_steps.plan_takes(work, motions, meta))
        kept = video_steps.select(work, videos)
        logging.info("%d of %d videos passed the filters, see %s", len(kept), len(videos), out / video_steps.SHEET)
        views = dataset_steps.make_views(work, dataset_steps.frame_all(work, kept))
        return dataset_steps.build_dataset(work, videos, views)
