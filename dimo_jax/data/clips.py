"""Clips of rigs as videos and pose maps of several views with sentences: what AnimaX trains on, in tar files.

A folder, written by `--app=import_data --pose_maps`:

    index.json      what there is: rigs, clips, samples, and the shards with their sizes and SHA-256
    captions.txt    `rig/clip: sentence`, to edit; read back when the folder is opened
    train-00000.tar, clip-00000.tar, rig-00000.tar, ...

A sample is four members of a tar file, named as WebDataset has it (000123.json, .rgb.png, .pose.png, .points.npy). Its
pictures are one sheet of each half: a row a view, the template first and then the frames. `split` is "train", "clip"
(a clip that is held out, of a rig that trains) or "rig" (a rig of which nothing trains).
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.struct
import numpy as np
from PIL import Image

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array, Camera
from dimo_jax.data.captions import read_captions
from dimo_jax.io.json_fields import MAX_NUMBER, get_array, get_count, get_field, load_json
from dimo_jax.io.pictures import DAMAGE, refuse

FILE = "index.json"
SCHEMA_VERSION = 1
SPLITS = ("train", "clip", "rig")
PARTS = (".json", ".rgb.png", ".pose.png", ".points.npy")  # of a sample
MAX_SHARD = 256 << 20  # bytes
TONE = 0.35  # of the exponent's logarithm: how far light is changed where batches are augmented
Embed = Callable[[Sequence[str]], np.ndarray]


class ClipBatch(flax.struct.PyTreeNode):
    """B samples of V views and T frames. Halves: 0 is the picture over white, 1 the pose map over black."""

    videos: Array  # [B,V,2,T,H,W,3] uint8
    stills: Array  # [B,V,2,H,W,3] uint8: the rig at rest and its pose map, the condition
    words: Array  # [B,N,D] float32 features of the caption; [B,1,0] where nothing embeds it
    cameras: Camera  # arrays with leading axes [B,V]; the figure stands at the origin


@dataclass(frozen=True)
class ClipRig:
    """A rig, and the K markers that its pose maps show."""

    name: str
    file: str  # as it was imported; "" for the embedded puppet
    split: str  # "rig" where nothing of it trains, else "train"
    markers: tuple[str, ...]
    parents: np.ndarray  # [K] the marker that a line goes to, -1 for none
    colors: np.ndarray  # [K,3] uint8
    rest: np.ndarray  # [K,3] in the world of the cameras
    diagonal: float  # of the box at rest, in the world of the cameras
    scale: float  # from the file's world to that of the cameras: scale * (x - center)
    center: np.ndarray  # [3]


@dataclass(frozen=True)
class ClipSample:
    """Where a sample lies and what it shows."""

    key: str
    shard: str
    split: str
    rig: str
    clip: str  # without the rig
    window: int  # of a long clip's pieces
    variant: int  # 0 is drawn as inference draws: not turned, the usual lens, every marker
    seconds: float  # from the first frame to the last
    caption: str

    @property
    def name(self) -> str:
        """`rig/clip`."""
        return f"{self.rig}/{self.clip}"


@dataclass(frozen=True)
class ClipVideos:
    """A sample, decoded."""

    videos: np.ndarray  # [V,2,T,H,W,3] uint8
    stills: np.ndarray  # [V,2,H,W,3] uint8
    points: np.ndarray  # [T,K,3] float32, where the rig's markers truly are, in the world of the cameras
    kept: np.ndarray  # [K] bool: the markers that are drawn
    cameras: Camera  # [V]


class ClipShards:
    """A folder of shards."""

    def __init__(self, folder: str | Path, *, embed: Embed | None = None) -> None:
        """Opens a folder; shards are looked into when they are needed, and then checked.

        Args:
          folder: with `index.json`.
          embed: features [S,D] of sentences, such as `load_encoder().embed`; every caption is embedded once, now.

        Raises:
          UserError: no such folder, a shard that is missing or of another size, or an index that is damaged.
        """
        self.folder = Path(folder)
        path = self.folder / FILE
        if not path.is_file():
            raise UserError(f"{self.folder}: found no {FILE}, expected a folder of --app=import_data --pose_maps")
        table, where = load_json(path), str(path)
        version = get_field(table, "schema_version", int, where)
        if version != SCHEMA_VERSION:
            raise UserError(f"{path}: schema_version is {version}, expected {SCHEMA_VERSION}")
        self.size, self.num_views, self.num_frames = (
            get_count(table, key, most, where) for key, most in (("size", 8192), ("num_views", 64), ("num_frames", 999))
        )
        self.rigs = {rig.name: rig for rig in _read_rigs(table, where)}
        self._shards = {}
        for index, entry in enumerate(get_field(table, "shards", list, where)):
            here = f"{where}: shards[{index}]"
            name = get_field(entry, "file", str, here)
            self._shards[name] = (get_field(entry, "bytes", int, here), get_field(entry, "sha256", str, here))
            self._check_size(name)
        self.samples = self._read_samples(table, where)
        self.captions = {sample.name: sample.caption for sample in self.samples}
        sentences = list(dict.fromkeys(self.captions.values()))
        found = np.asarray(embed(sentences), np.float32) if embed else np.zeros((len(sentences), 0), np.float32)
        self._words = dict(zip(sentences, found))
        self._groups: dict[tuple[str, bool], dict[str, list[list[ClipSample]]]] = {}

    def _check_size(self, name: str) -> None:
        path, expected = self.folder / name, self._shards[name][0]
        found = path.stat().st_size if path.is_file() else None
        if found != expected:
            what = "no such file" if found is None else f"{found} bytes"
            raise UserError(f"{path}: {what}, expected {expected} bytes as {FILE} says; import the rigs again")

    def _read_samples(self, table: Any, where: str) -> tuple[ClipSample, ...]:
        rows = get_field(table, "samples", list, where)
        fields = dict(key=str, shard=str, split=str, rig=str, clip=str, window=int, variant=int)
        samples = []
        for index, row in enumerate(rows):
            here = f"{where}: samples[{index}]"
            values = {name: get_field(row, name, kind, here) for name, kind in fields.items()}
            seconds = float(get_field(row, "seconds", (int, float), here))
            caption = get_field(row, "caption", str, here)
            for name, known in (("split", SPLITS), ("rig", self.rigs), ("shard", self._shards)):
                if values[name] not in known:
                    raise UserError(
                        f"{here}: {name} is {values[name][:60]!r}, expected one of {', '.join(known)}"[:300]
                    )
            samples.append(ClipSample(**values, seconds=seconds, caption=caption))
        given = {sample.name: (sample.caption,) for sample in samples}
        edited = dict(zip(given, read_captions(self.folder, list(given), list(given.values()))))
        return tuple(_with_caption(sample, edited[sample.name][0]) for sample in samples)

    def select(self, split: str, *, canonical: bool = False) -> tuple[ClipSample, ...]:
        """The samples of a split; `canonical` ones alone are the first piece of each clip, drawn as inference draws.

        Raises:
          UserError: another split.
        """
        if split not in SPLITS:
            raise UserError(f"split: found {split[:40]!r}, expected one of {', '.join(SPLITS)}")
        own = (sample for sample in self.samples if sample.split == split)
        return tuple(s for s in own if not canonical or (s.variant == 0 and s.window == 0))

    def read(self, sample: ClipSample) -> ClipVideos:
        """Decodes a sample.

        Raises:
          UserError: its shard is damaged, or lacks it.
        """
        parts = self._read_parts(sample)
        path = self.folder / sample.shard
        try:
            facts = json.loads(parts[".json"])
            sheets = [np.asarray(Image.open(io.BytesIO(parts[part])).convert("RGB")) for part in PARTS[1:3]]
            points = np.load(io.BytesIO(parts[".points.npy"]), allow_pickle=False).astype(np.float32)
        except DAMAGE as error:
            raise refuse(path, error, f"sample {sample.key} whole; import the rigs again") from error
        views, frames, side = self.num_views, self.num_frames, self.size
        num_markers = len(self.rigs[sample.rig].markers)
        found = (*(sheet.shape for sheet in sheets), points.shape)
        sheet = (views * side, (1 + frames) * side, 3)
        if found != (sheet, sheet, (frames, num_markers, 3)):
            raise UserError(f"{path}: sample {sample.key} has pictures and points of {found}, expected those of {FILE}")
        pictures = np.stack([each.reshape(views, side, 1 + frames, side, 3).swapaxes(1, 2) for each in sheets], axis=1)
        here = f"{path}: {sample.key}.json"
        cameras: Any = Camera(
            get_array(facts, "world_to_camera", (views, 4, 4), here),  # type: ignore[arg-type]
            get_array(facts, "focal", (views, 2), here),  # type: ignore[arg-type]
            get_array(facts, "center", (views, 2), here),  # type: ignore[arg-type]
            height=side,
            width=side,
        )
        kept = get_array(facts, "kept", (num_markers,), here) > 0
        return ClipVideos(pictures[:, :, 1:], pictures[:, :, 0], points, kept, cameras)

    def _read_parts(self, sample: ClipSample) -> dict[str, bytes]:
        path = self.folder / sample.shard
        places = _find_members(path, self._shards[sample.shard][1])
        parts = {}
        with path.open("rb") as file:
            for part in PARTS:
                if sample.key + part not in places:
                    raise UserError(f"{path}: found no {sample.key}{part}, expected it as {FILE} says")
                start, size = places[sample.key + part]
                file.seek(start)
                parts[part] = file.read(size)
        return parts

    def embed_caption(self, caption: str) -> np.ndarray:
        """Features [1,D] of a caption of this folder."""
        return self._words[caption][None]

    def collect(self, samples: Sequence[ClipSample]) -> ClipBatch:
        """Samples as a batch, just as they are."""
        found = [self.read(sample) for sample in samples]
        arrays: Any = {
            name: np.stack([np.asarray(getattr(each.cameras, name)) for each in found])
            for name in ("world_to_camera", "focal", "center")
        }
        return ClipBatch(
            videos=np.stack([each.videos for each in found]),  # type: ignore[arg-type]
            stills=np.stack([each.stills for each in found]),  # type: ignore[arg-type]
            words=np.stack([self.embed_caption(sample.caption) for sample in samples]),  # type: ignore[arg-type]
            cameras=Camera(**arrays, height=self.size, width=self.size),
        )

    def batch(
        self, split: str, batch_size: int, *, seed: int, step: int, augment: bool = False, host: int = 0, hosts: int = 1
    ) -> tuple[ClipBatch, tuple[str, ...]]:
        """The batch of a step, which depends on the arguments alone, so that a run goes on where it stopped.

        Rigs are drawn by the square root of how many clips they have, then a clip, then one of its samples.

        Args:
          split: see `SPLITS`.
          batch_size: of all hosts together, a multiple of `hosts`.
          seed, step: of the draw.
          augment: see `augment_sample`, and takes any variant; without it variant 0 alone is drawn.
          host, hosts: which share of the batch is read.

        Returns:
          `batch_size / hosts` samples, and their names (`rig/clip`).

        Raises:
          UserError: an empty split, or a size that hosts cannot share.
        """
        if batch_size < 1 or batch_size % hosts:
            raise UserError(f"batch_size: found {batch_size}, expected a positive multiple of {hosts} hosts")
        groups = self._group(split, augment)
        if not groups:
            raise UserError(f"{self.folder}: has no sample of split {split!r}, expected some")
        rng = np.random.default_rng([seed, step])
        shares = np.sqrt([len(clips) for clips in groups.values()])
        rigs = list(groups.values())
        chosen, seeds = [], rng.integers(0, 1 << 31, batch_size)
        for rig in rng.choice(len(rigs), batch_size, p=shares / shares.sum()):
            samples = rigs[rig][rng.integers(len(rigs[rig]))]
            chosen.append(samples[rng.integers(len(samples))])
        batch = self.collect(chosen[host::hosts])
        if augment:
            pairs = [augment_sample(*each) for each in zip(batch.videos, batch.stills, seeds[host::hosts])]
            videos, stills = (np.stack(each) for each in zip(*pairs))
            batch = batch.replace(videos=videos, stills=stills)
        return batch, tuple(sample.name for sample in chosen[host::hosts])

    def _group(self, split: str, every: bool) -> dict[str, list[list[ClipSample]]]:
        """Rig -> its clips -> their samples."""
        if (split, every) in self._groups:
            return self._groups[split, every]
        clips: dict[tuple[str, str], list[ClipSample]] = {}
        for sample in self.select(split):
            if every or sample.variant == 0:
                clips.setdefault((sample.rig, sample.clip), []).append(sample)
        groups: dict[str, list[list[ClipSample]]] = {}
        for (rig, _), samples in clips.items():
            groups.setdefault(rig, []).append(samples)
        self._groups[split, every] = groups
        return groups

    def batches(
        self, split: str, batch_size: int, *, seed: int, step: int = 0, **options: Any
    ) -> Iterator[tuple[ClipBatch, tuple[str, ...]]]:
        """The batches from a step on, without end; see `batch`."""
        while True:
            yield self.batch(split, batch_size, seed=seed, step=step, **options)
            step += 1


def augment_sample(videos: np.ndarray, stills: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Another colour order of either half, and another light on the picture, the same for all views and frames.

    White and black stay, so backgrounds do. A pose map's colours are what its still says, in any order.

    Args:
      videos: [V,2,T,H,W,3] uint8.
      stills: [V,2,H,W,3] uint8.
      seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(3) for _ in range(2)]
    exponents = np.exp(rng.uniform(-TONE, TONE) + rng.uniform(-TONE / 3, TONE / 3, 3))
    tones = np.round(255 * (np.arange(256)[None] / 255) ** exponents[:, None]).astype(np.uint8)

    def change(pictures: np.ndarray) -> np.ndarray:
        rgb, pose = pictures[:, 0][..., orders[0]], pictures[:, 1][..., orders[1]]
        rgb = np.stack([tone[rgb[..., channel]] for channel, tone in enumerate(tones)], axis=-1)
        return np.stack([rgb, pose], axis=1)

    return change(videos), change(stills)


def _with_caption(sample: ClipSample, caption: str) -> ClipSample:
    return sample if caption == sample.caption else ClipSample(**(sample.__dict__ | {"caption": caption}))


def _read_rigs(table: Any, where: str) -> Iterator[ClipRig]:
    for index, row in enumerate(get_field(table, "rigs", list, where)):
        here = f"{where}: rigs[{index}]"
        names = tuple(map(str, get_field(row, "markers", list, here)))
        count = len(names)
        parents, colors = get_array(row, "parents", (count,), here), get_array(row, "colors", (count, 3), here)
        numbers = {key: float(get_field(row, key, (int, float), here)) for key in ("diagonal", "scale")}
        for key, valid, expected in (
            ("parents", ((parents >= -1) & (parents < count)).all(), "those of markers, or -1"),
            ("colors", ((colors >= 0) & (colors <= 255)).all(), "numbers of 0 to 255"),
            *((key, 0 < value < MAX_NUMBER, "a number above 0") for key, value in numbers.items()),
        ):
            if not valid:
                raise UserError(f"{here}: {key} is {str(row[key])[:60]}, expected {expected}")
        yield ClipRig(
            name=get_field(row, "name", str, here),
            file=get_field(row, "file", str, here),
            split=get_field(row, "split", str, here),
            markers=names,
            parents=parents.astype(int),
            colors=colors.astype(np.uint8),
            rest=get_array(row, "rest", (count, 3), here, dtype=np.float64),
            center=get_array(row, "center", (3,), here, dtype=np.float64),
            **numbers,
        )


@functools.lru_cache(maxsize=64)
def _find_members(path: Path, sha256: str) -> dict[str, tuple[int, int]]:
    """Where the members of a shard lie in it: start and size; the shard is read once to see that it is whole."""
    try:
        if path.stat().st_size > MAX_SHARD:
            raise UserError(f"{path}: {path.stat().st_size} bytes, expected {MAX_SHARD} at most")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise UserError(f"{path}: damaged, its SHA-256 is not that of {FILE}; import the rigs again")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            return {member.name: (member.offset_data, member.size) for member in tar if member.isfile()}
    except (OSError, tarfile.TarError) as error:
        raise refuse(path, error, "a shard of --app=import_data --pose_maps") from error
