"""Sound models and recordings of every layout, as small as they get; the real ones are taken where they are at hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from dimo_jax.cameras.orbits import orbit
from dimo_jax.core.types import Camera
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.formats.native import write_dataset
from dimo_jax.data.formats.rigged import shards
from dimo_jax.data.formats.rigged.shard_plan import ShardOptions
from dimo_jax.data.puppet.rig import write_puppet_rig
from dimo_jax.data.store import open_frames
from dimo_jax.io.video import write_gif, write_video

ROOT = Path(__file__).resolve().parents[2]
SIZE, FRAMES = 24, 3
MAX_REAL_BYTES = 1 << 20  # of a real model; the knight, which has everything, may be larger
SMALL_BYTES = 100_000


def shared_data() -> Path:
    """Where real data lies beside the repository, if it does."""
    return ROOT.parent / "shared" / "data"


def draw(count: int = FRAMES, *, size: int = SIZE, shift: float = 0.0) -> np.ndarray:
    """A disc on white that moves: [T,H,W,4] uint8, opaque outside of it as well."""
    y, x = np.mgrid[:size, :size] + 0.5
    frames = np.full((count, size, size, 4), 255, np.uint8)
    for index in range(count):
        inside = np.hypot(x - size * (0.4 + 0.1 * index + shift), y - size / 2) < size / 4
        frames[index, inside, :3] = (200, 40, 60)
    return frames


def cut_out(frames: np.ndarray) -> np.ndarray:
    """The same with alpha."""
    result = frames.copy()
    result[..., 3] = np.where((frames[..., :3] == 255).all(axis=-1), 0, 255)
    return result


def write_small_models(folder: Path) -> None:
    """Animated models that are imported within a second."""
    write_models(folder, max_bytes=SMALL_BYTES)


def write_models(folder: Path, *, max_bytes: int = 1 << 30) -> None:
    """Animated models: the tests' own, and what lies in the shared data."""
    found = sorted((ROOT / "tests/support/models").glob("*.gl*"))
    shared = shared_data()
    found += sorted(path for path in (shared / "rigs").glob("*.glb") if path.stat().st_size <= MAX_REAL_BYTES)
    found += sorted((shared / "faults").glob("*/*.glb")) + sorted(shared.glob("knight.glb"))
    for path in (each for each in found if each.stat().st_size <= max_bytes):
        target = folder / path.stem
        target.mkdir()
        shutil.copy(path, target / f"model{path.suffix}")
    _write_square(folder / "square")


def _write_square(folder: Path) -> None:
    """A .gltf with what the others lack: files beside it, a texture with a transform, a sparse accessor, a camera."""
    folder.mkdir()
    positions = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
    blocks: list[np.ndarray] = [
        positions, (positions[:, :2] + 1) / 2, np.array([0, 1, 2, 0, 2, 3], np.uint16), np.array([0, 1], np.float32),
        np.array([[0, 0, 0], [1, 0, 0]], np.float32), np.array([1, 2], np.uint16), np.ones((2, 3), np.float32),
        np.tile(np.array([0.9, 0.5, 0.1, 1], np.float32), (4, 1)),
    ]  # fmt: skip
    views, binary = [], b""
    for block in blocks:
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": block.nbytes})
        binary += block.tobytes() + b"\0" * (-block.nbytes % 4)
    (folder / "square.bin").write_bytes(binary)
    Image.fromarray(draw(1)[0]).save(folder / "skin.png")
    Image.fromarray(draw(1)[0, ..., :3]).save(folder / "skin.jpg")

    def accessor(view: int, count: int, kind: str, component: int = 5126) -> dict[str, object]:
        return {"bufferView": view, "count": count, "type": kind, "componentType": component}

    sparse = {"count": 2, "indices": {"bufferView": 5, "componentType": 5123}, "values": {"bufferView": 6}}
    texture = {"index": 0, "texCoord": 0, "extensions": {"KHR_texture_transform": {"scale": [2, 2], "offset": [0, 1]}}}
    attributes = {"POSITION": 0, "TEXCOORD_0": 1, "COLOR_0": 5}
    content = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": len(binary), "uri": "square.bin"}],
        "bufferViews": views,
        "accessors": [
            {**accessor(0, 4, "VEC3"), "min": [-1, -1, 0], "max": [1, 1, 0]}, accessor(1, 4, "VEC2"),
            accessor(2, 6, "SCALAR", 5123), accessor(3, 2, "SCALAR"), accessor(4, 2, "VEC3"), accessor(7, 4, "VEC4"),
            {"count": 4, "type": "VEC3", "componentType": 5126, "sparse": sparse},
        ],
        "images": [{"uri": "skin.png"}, {"uri": "skin.jpg"}],
        "samplers": [{"magFilter": 9728, "wrapS": 33071, "wrapT": 33648}],
        "textures": [{"source": 0, "sampler": 0}, {"source": 1}],
        "materials": [
            {"pbrMetallicRoughness": {"baseColorTexture": texture}, "alphaMode": "MASK", "alphaCutoff": 0.4},
            {"pbrMetallicRoughness": {"baseColorTexture": {"index": 1}}, "doubleSided": True, "alphaMode": "BLEND"},
        ],
        "meshes": [
            {"primitives": [{"attributes": attributes, "indices": 2, "material": 0, "targets": [{"POSITION": 6}]}],
             "weights": [0.25]},
            {"primitives": [{"attributes": attributes, "mode": 5, "material": 1},
                            {"attributes": attributes, "mode": 6}]},
        ],
        "cameras": [{"type": "perspective", "perspective": {"yfov": 0.7, "znear": 0.1}}],
        "nodes": [{"name": "a", "mesh": 0}, {"mesh": 1, "children": [0, 2], "rotation": [0, 0, 0, 1]}, {"camera": 0}],
        "scene": 0,
        "scenes": [{"nodes": [1]}],
        "animations": [
            {"name": "Walk", "samplers": [{"input": 3, "output": 4}, {"input": 3, "output": 3}],
             "channels": [{"sampler": 0, "target": {"node": 0, "path": "translation"}},
                          {"sampler": 1, "target": {"node": 0, "path": "weights"}}]},
        ],
    }  # fmt: skip
    (folder / "model.gltf").write_text(json.dumps(content))


def make_dataset() -> Dataset:
    """Two motions by two views, with truth and paraphrases."""
    frames = np.stack([np.stack([cut_out(draw(shift=0.05 * (m + v))) for v in range(2)]) for m in range(2)])
    found = orbit((0, 90), (10, 10), radius=2.0, fov_deg=40, height=SIZE, width=SIZE)
    arrays = {name: np.asarray(getattr(found, name)) for name in ("world_to_camera", "focal", "center")}
    cameras: Camera = found.replace(**arrays)
    points = np.random.default_rng(0).normal(size=(2, FRAMES, 5, 3)).astype(np.float32)
    sentences = (("It walks.", "It strolls."), ("It jumps.", "A jump."))
    return Dataset(
        frames, cameras, ("walk", "jump"), ("It walks.", "It jumps."), ("train", "test"), ("a", "b"), ("train", "test"),
        12.0, "disc", surface=points, joints=points[:, :, :2], height=1.0, paraphrases=sentences,
    )  # fmt: skip


def write_native(folder: Path) -> None:
    """Dataset folders of ours: of images, and of videos."""
    write_dataset(make_dataset(), folder / "images")
    (folder / "images" / "test_captions.txt").write_text("# kept from training\nwalk: A walk.\njump: It leaps.\n")
    write_dataset(make_dataset(), folder / "videos")
    for motion in ("walk", "jump"):
        for view in "ab":
            shutil.rmtree(folder / "videos" / motion / view)
        write_video(draw()[..., :3], folder / "videos" / motion / "a.mp4", frame_rate=12)
        write_gif(draw()[..., :3], folder / "videos" / motion / "b.gif", frame_rate=12)


def write_authors(folder: Path) -> None:
    """The layout of DIMO's authors, with masks and without."""
    for name in ("masks", "plain"):
        for view in range(2):
            target = folder / name / "walk" / f"view_{view:02d}"
            target.mkdir(parents=True)
            for index, frame in enumerate(draw()):
                Image.fromarray(frame[..., :3]).save(target / f"{index:02d}.png")
                if name == "masks":
                    mask = (cut_out(frame[None])[0, ..., 3:] / 255).astype(np.float32)
                    np.save(target / f"{index:02d}_mask.npy", mask)
        table = {"azimuths_deg": [0.0, 90.0], "elevation": 0, "input_videos": ["walk"], "num_frames": FRAMES}
        (folder / name / "info.json").write_text(json.dumps(table))
        captions = {"walk": {"caption": "It walks.", "short": "A walk."}}
        (folder / name / "captions.json").write_text(json.dumps(captions))


def write_recordings(folder: Path) -> None:
    """Videos with a camera file: all kinds of clips and masks, all forms of cameras."""
    root = folder / "mixed"
    walk = root / "walk"
    pose = np.asarray(orbit([30.0], 0.0, radius=2.0, fov_deg=40, height=1, width=1).world_to_camera)[0].tolist()
    views = [
        {"name": "front", "azimuth_deg": 0, "elevation_deg": 10, "radius": 2, "fov_deg": 40},
        {"name": "side", "split": "test", "world_to_camera": pose, "focal": [33, 33], "center": [12, 12]},
        {"name": "back", "camera_to_world": pose, "axes": "opengl", "fov_deg": 40},
        {"name": "top", "azimuth_deg": 90, "fov_deg": 40},
    ]
    table = {"schema_version": 1, "object_name": "disc", "frame_rate": 12, "views": views}
    write_video(draw()[..., :3], walk / "front.mp4", frame_rate=12)
    write_gif(draw()[..., :3], walk / "side.gif", frame_rate=12)
    for name, suffix in (("back", "png"), ("top", "jpg"), ("top_mask", "png")):
        (walk / name).mkdir()
        for index, frame in enumerate(draw()):
            picture = cut_out(frame[None])[0, ..., 3] if "mask" in name else frame[..., :3]
            Image.fromarray(picture).save(walk / name / f"{index:03d}.{suffix}")
    motions = [{"name": "walk", "caption": "It walks.", "clips": {"front": "walk/front.mp4"}, "masks": {}}]
    image = {"width": SIZE, "height": SIZE}
    (root / "cameras.json").write_text(json.dumps({**table, "image": image, "motions": motions}))
    (root / "captions.txt").write_text("walk: It walks.\nwalk: A walk.\n")
    for fault in ("exif_orientation", "mask_0_1", "variable_frame_rate", "audio_longer"):
        if (shared_data() / "faults" / fault).is_dir():
            shutil.copytree(shared_data() / "faults" / fault, folder / fault, copy_function=shutil.copyfile)


def write_sv4d(folder: Path) -> None:
    """An output folder of SV4D with four novel views."""
    for view in range(5):
        name = "000000_process_input.mp4" if view == 0 else f"000000_v{view:03d}.mp4"
        write_video(draw(shift=0.02 * view)[..., :3], folder / "four" / name, frame_rate=10)


def write_transforms(folder: Path) -> None:
    """Posed pictures: NeRF's two files with alpha, and nerfstudio's one with masks and a lens in pixels."""
    found = orbit((0, 90, 180), (10, 20, 30), radius=2.0, fov_deg=40, height=SIZE, width=SIZE)
    turn = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])  # +Y up to +Z up
    poses = turn @ np.linalg.inv(np.asarray(found.world_to_camera, np.float64)) @ np.diag([1.0, -1, -1, 1])
    pictures = draw()
    for split, views in (("train", (0, 1)), ("test", (2,))):
        (folder / "nerf" / split).mkdir(parents=True)
        frames = [{"file_path": f"./{split}/r_{v}", "transform_matrix": poses[v].tolist()} for v in views]
        for v in views:
            Image.fromarray(cut_out(pictures)[v]).save(folder / "nerf" / split / f"r_{v}.png")
        table = {"camera_angle_x": 0.7, "frames": frames}
        (folder / "nerf" / f"transforms_{split}.json").write_text(json.dumps(table))
    root = folder / "studio"
    frames = []
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for v in range(3):
        Image.fromarray(pictures[v, ..., :3]).save(root / "images" / f"{v}.jpg")
        Image.fromarray(cut_out(pictures)[v, ..., 3]).save(root / "masks" / f"{v}.png")
        paths = {"file_path": f"images/{v}.jpg", "mask_path": f"masks/{v}.png"}
        frames.append({**paths, "transform_matrix": poses[v].tolist(), "fl_x": 33.0, "cx": 12.0})
    lens = {"camera_model": "OPENCV", "w": SIZE, "h": SIZE, "fl_x": 33.0, "fl_y": 33.0, "cy": 12.0, "k1": 0, "p1": 0.0}
    lists = {"train_filenames": ["images/0.jpg", "images/1.jpg"], "test_filenames": ["images/2.jpg"]}
    (root / "transforms.json").write_text(json.dumps({**lens, **lists, "up": [0, 0, 1], "frames": frames}))


def write_benchmark(folder: Path) -> None:
    """Predictions and truth in the layout of Consistent4D."""
    for side in ("gt", "pred"):
        for view in range(2):
            target = folder / "pair" / side / "disc" / f"eval_{view}"
            target.mkdir(parents=True)
            for index, frame in enumerate(cut_out(draw(2))):
                Image.fromarray(frame).save(target / f"{index}.png")


def write_shards(folder: Path) -> None:
    """Videos and pose maps of two clips of the puppet."""
    rig = write_puppet_rig(folder / "puppet.glb", num_motions=3)
    options = ShardOptions(clips="walk,bow_deeply", size=16, num_frames=FRAMES + 1, azimuths_deg=(20, 110), samples=1)
    shards.write_shards(str(rig), folder / "shards", options)
    rig.unlink()


def write_store(folder: Path) -> None:
    """Decoded frames in the cache."""
    (folder / "cache").mkdir()
    shape = (1, 2, FRAMES, SIZE, SIZE, 4)
    open_frames(folder / "cache" / "frames", shape, lambda frames: frames.fill(7), what="seed")


def write_checked(folder: Path) -> None:
    """One of every layout."""
    for write in (write_native, write_authors, write_recordings, write_sv4d, write_transforms):
        write(folder)


def write_indexed(folder: Path) -> None:
    """The layouts that a JSON file describes, without videos, whose headers take a program to read."""
    write_authors(folder)
    write_dataset(make_dataset(), folder / "native")
    write_recordings(folder)
    for path in folder.rglob("captions.json"):
        path.unlink()  # leaves one JSON file in each
    for path in folder.rglob("*.mp4"):
        write_gif(draw()[..., :3], path.with_suffix(".gif"), frame_rate=12)
        path.unlink()
    for path in folder.glob("*/cameras.json"):
        path.write_text(path.read_text().replace(".mp4", ".gif"))
