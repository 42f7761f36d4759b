"""A small folder of shards as --app=import_data --pose_maps writes them: a square that moves, and a dot for a pose."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import numpy as np
from PIL import Image

from dimo_jax.cameras.orbits import orbit

SIDE, VIEWS, FRAMES = 32, 2, 3
CLIPS = (
    ("train", "box", "left", "it waves left"),
    ("train", "box", "right", "it waves right"),
    ("clip", "box", "jump", "it jumps"),
)


def _draw(shift):
    """The picture and the pose map [H,W,3] of a square at a column."""
    rgb, pose = np.full((SIDE, SIDE, 3), 255, np.uint8), np.zeros((SIDE, SIDE, 3), np.uint8)
    rgb[4:12, shift : shift + 6] = (200, 40, 40)
    pose[6:9, shift + 2 : shift + 5] = (0, 255, 0)
    return rgb, pose


def _add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _to_bytes(write, *arguments):
    file = io.BytesIO()
    write(file, *arguments)
    return file.getvalue()


def _sheet(pictures):
    """Views, each the template and then frames [V,1+T,H,W,3] -> a PNG's bytes, a row a view."""
    views, frames = pictures.shape[:2]
    sheet = pictures.swapaxes(1, 2).reshape(views * SIDE, frames * SIDE, 3)
    return _to_bytes(lambda file: Image.fromarray(sheet).save(file, format="PNG"))


def write_tiny_clips(folder):
    """Writes three clips of one rig, two of which train."""
    folder.mkdir(parents=True, exist_ok=True)
    cameras = orbit((20, 110), 15, radius=2.0, fov_deg=33.9, height=SIDE, width=SIDE)
    facts = {
        "world_to_camera": np.asarray(cameras.world_to_camera).tolist(),
        "focal": np.broadcast_to(np.asarray(cameras.focal).reshape(VIEWS, -1), (VIEWS, 2)).tolist(),
        "center": np.asarray(cameras.center).tolist(),
        "kept": [1],
    }
    samples, shards = [], {}
    for index, (split, rig, clip, caption) in enumerate(CLIPS):
        way = (-1 if clip == "left" else 1) * np.arange(FRAMES)
        pictures = np.array([_draw(5 + shift) for shift in (0, *way)])  # [1+T,2,H,W,3]
        halves = np.moveaxis(np.broadcast_to(pictures, (VIEWS, *pictures.shape)), 2, 0)
        key, shard = f"{index:06d}", f"{split}-00000.tar"
        parts = {
            ".json": json.dumps(facts).encode(),
            ".rgb.png": _sheet(halves[0]),
            ".pose.png": _sheet(halves[1]),
            ".points.npy": _to_bytes(np.save, np.zeros((FRAMES, 1, 3), np.float32)),
        }
        shards.setdefault(shard, []).extend((key + part, content) for part, content in parts.items())
        row = dict(key=key, shard=shard, split=split, rig=rig, clip=clip, caption=caption)
        samples.append(row | dict(window=0, variant=0, seconds=0.5))
    files = []
    for name, members in shards.items():
        with tarfile.open(folder / name, "w") as tar:
            for member, content in members:
                _add(tar, member, content)
        content = (folder / name).read_bytes()
        files.append(dict(file=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest()))
    rig = dict(
        name="box", file="", split="train", markers=["root"], parents=[-1], colors=[[0, 255, 0]], rest=[[0, 0, 0]]
    )
    rig |= dict(diagonal=1.0, scale=1.0, center=[0, 0, 0])
    table = dict(schema_version=1, size=SIDE, num_views=VIEWS, num_frames=FRAMES)
    (folder / "index.json").write_text(json.dumps(table | dict(rigs=[rig], shards=files, samples=samples)))
    return folder
