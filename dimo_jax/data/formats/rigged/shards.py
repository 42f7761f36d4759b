"""Rigs' clips drawn into shards of multi-view videos and pose maps: what `data/clips.py` reads."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dimo_jax.core.errors import UserError
from dimo_jax.data.captions import write_captions
from dimo_jax.data.clips import FILE, PARTS, SCHEMA_VERSION, SPLITS
from dimo_jax.data.formats.rigged.clip_views import draw_clip, draw_variant
from dimo_jax.data.formats.rigged.passes import each_clip
from dimo_jax.data.formats.rigged.shard_plan import RigPlan, ShardOptions, choose_rigs, find_rigs, plan_rigs
from dimo_jax.rigs.scene import Scene
from dimo_jax.rigs.skeleton import Clip
from dimo_jax.runtime.files import replace_folder, write_json

SHARD_SAMPLES = 64
ALONE = 32  # samples of a rig for each process that is started for them


@dataclass(frozen=True)
class Row:
    """A sample that was drawn, encoded."""

    clip: int
    window: int
    variant: int
    seconds: float
    parts: dict[str, bytes]  # by ending


def write_shards(
    source: str,
    target: Path,
    options: ShardOptions,
    *,
    num_workers: int = 1,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Draws rigs' clips into a new folder of shards, which appears whole or not at all.

    Args:
      source: see `find_rigs`.
      target: the folder; it does not exist, or is empty.
      options: see there.
      num_workers: processes.
      report: takes one line at a time about what is left out, and of each rig.

    Returns:
      The index as it was written.

    Raises:
      UserError: bad input; nothing has been written.
    """
    rigs = find_rigs(source)
    held_out = choose_rigs(options.test_rigs, [name for name, _, _ in rigs])
    with tempfile.TemporaryDirectory() as scratch:
        plans = list(plan_rigs(rigs, held_out, options, Path(scratch), report))
    if not plans:
        raise UserError(f"--source={source}: no clip is left of {len(rigs)} rigs, expected some that move")
    if not any(split == "train" for plan in plans for split in plan.splits.values()):
        raise UserError(f"--test_rigs={options.test_rigs}: holds out every clip, expected one left to train on")
    with replace_folder(target, owned="") as folder:
        writer = _Writer(folder)
        for plan in plans:
            draw = partial(_draw_pieces, plan=dataclasses.replace(plan, scene=None), options=options)  # type: ignore[arg-type]
            clips = [dataclasses.replace(plan.scene.clips[index], name=str(index)) for index in plan.names]
            most = options.variants * len(plan.pieces) // ALONE  # a process takes seconds to start
            workers = max(1, min(num_workers, most))
            for rows in each_clip(draw, plan.scene, clips, num_workers=workers, label=plan.name):
                for row in rows:
                    writer.add(plan, row)
        names = {f"{plan.name}/{name}": plan.captions[i] for plan in plans for i, name in plan.names.items()}
        write_captions(folder, list(names), [(sentence,) for sentence in names.values()])
        index = _describe(plans, options) | writer.finish()
        write_json(index, folder / FILE)
    return index


def _draw_pieces(scene: Scene, clip: Clip, *, plan: RigPlan, options: ShardOptions) -> list[Row]:
    """All samples of a clip; those that do not train are drawn as inference draws them alone."""
    index = int(clip.name)  # names of a file's clips may be alike
    variants = options.variants if plan.splits[index] == "train" else 1
    rows = []
    for piece in (each for each in plan.pieces if each.clip == index):
        for number in range(variants):
            seed = hashlib.sha256(f"{plan.name}/{plan.names[index]}/{piece.window}/{number}".encode()).digest()
            rng = np.random.default_rng(list(seed[:8]))
            variant = draw_variant(number, len(plan.view.markers.names), rng)
            still = draw_clip(plan.view, scene, None, np.zeros(1), variant)
            drawn = draw_clip(plan.view, scene, clip, piece.times, variant)
            kept = np.ones(drawn.points.shape[1], int)
            if variant.kept is not None:
                kept[:] = 0
                kept[list(variant.kept)] = 1
            facts = {
                "rig": plan.name,
                "clip": plan.names[index],
                "window": piece.window,
                "variant": number,
                "caption": plan.captions[index],
                "yaw_deg": variant.yaw_deg,
                "fov_deg": variant.fov_deg,
                "kept": kept.tolist(),
                "times": piece.times.tolist(),
                "world_to_camera": np.asarray(drawn.cameras.world_to_camera, float).tolist(),
                "focal": np.asarray(drawn.cameras.focal, float).tolist(),
                "center": np.asarray(drawn.cameras.center, float).tolist(),
            }
            contents = (
                json.dumps(facts).encode(),
                _sheet(still.rgb, drawn.rgb),
                _sheet(still.pose, drawn.pose),
                _npy(drawn.points.astype(np.float32)),
            )
            seconds = float(piece.times[-1] - piece.times[0])
            rows.append(Row(index, piece.window, number, seconds, dict(zip(PARTS, contents))))
    return rows


def _sheet(still: np.ndarray, video: np.ndarray) -> bytes:
    """A PNG of V rows, each a still [V,1,H,W,3] and the frames [V,T,H,W,3]."""
    frames = np.concatenate([still, video], axis=1)
    views, count, height, width, _ = frames.shape
    stream = io.BytesIO()
    Image.fromarray(frames.swapaxes(1, 2).reshape(views * height, count * width, 3)).save(stream, "PNG")
    return stream.getvalue()


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _describe(plans: Sequence[RigPlan], options: ShardOptions) -> dict[str, Any]:
    rigs = [
        {
            "name": plan.name,
            "file": plan.file,
            "split": "rig" if "rig" in plan.splits.values() else "train",
            "markers": list(plan.view.markers.names),
            "parents": plan.view.markers.parents.tolist(),
            "colors": plan.view.markers.colors.tolist(),
            "rest": plan.view.rest.tolist(),
            "diagonal": plan.view.diagonal,
            "scale": plan.view.framing.scale,
            "center": plan.view.framing.center.tolist(),
        }
        for plan in plans
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "size": options.size,
        "num_views": len(options.azimuths_deg),
        "num_frames": options.num_frames,
        "margin": options.margin,
        "rigs": rigs,
    }


class _Writer:
    """Shards that are being written, one open a split."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, tuple[tarfile.TarFile, str, int]] = {}
        self._counts = dict.fromkeys(SPLITS, 0)
        self._samples: list[dict[str, Any]] = []
        self._shards: list[dict[str, Any]] = []

    def add(self, plan: RigPlan, row: Row) -> None:
        """Appends a sample to the shard of its split."""
        split = plan.splits[row.clip]
        if split not in self._open or self._open[split][2] >= SHARD_SAMPLES:
            self._close(split)
            name = f"{split}-{self._counts[split]:05d}.tar"
            self._counts[split] += 1
            tar = tarfile.open(self._folder / name, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115  # see _close
            self._open[split] = tar, name, 0
        tar, name, count = self._open[split]
        key = f"{len(self._samples):06d}"
        for part, content in row.parts.items():
            member = tarfile.TarInfo(key + part)  # no owner and no time: the same input makes the same bytes
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        self._open[split] = tar, name, count + 1
        facts: dict[str, Any] = dict(key=key, shard=name, split=split, rig=plan.name, clip=plan.names[row.clip])
        facts |= dict(window=row.window, variant=row.variant, seconds=row.seconds, caption=plan.captions[row.clip])
        self._samples.append(facts)

    def _close(self, split: str) -> None:
        if split not in self._open:
            return
        tar, name, count = self._open.pop(split)
        tar.close()
        content = (self._folder / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        self._shards.append({"file": name, "samples": count, "bytes": len(content), "sha256": digest})

    def finish(self) -> dict[str, Any]:
        """Closes all shards -> what the index says of them."""
        for split in SPLITS:
            self._close(split)
        return {"shards": self._shards, "samples": self._samples}
