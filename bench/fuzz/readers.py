"""What users reach with a file of theirs, each as a function of the source and of a path to write to."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.fuzz import data_seeds, file_seeds
from bench.fuzz.cases import Reader
from dimo_jax.apps import import_data, status
from dimo_jax.configs.dimo import get_config
from dimo_jax.data.clips import ClipShards
from dimo_jax.data.formats import consistent4d
from dimo_jax.data.formats.authors import describe_authors
from dimo_jax.data.formats.camera_file import describe_videos
from dimo_jax.data.formats.native_schema import read_description
from dimo_jax.data.formats.recording import build_cameras
from dimo_jax.data.formats.rigged.passes import Timing, pose_clip
from dimo_jax.data.sources import detect, load_dataset
from dimo_jax.data.store import open_frames
from dimo_jax.io.gltf.scene import load_scene
from dimo_jax.io.metrics_log import read_metrics
from dimo_jax.io.objects import load_object
from dimo_jax.io.ply import read_gaussians
from dimo_jax.metrics.clip import load_clip
from dimo_jax.networks.bert import load_encoder
from dimo_jax.networks.clip import load_clip_text
from dimo_jax.networks.imagedream.unet import load_unet
from dimo_jax.networks.imagedream.vae import load_vae as load_autoencoder
from dimo_jax.networks.wan.transformer import load_transformer
from dimo_jax.networks.wan.umt5 import load_text_encoder
from dimo_jax.networks.wan.vae import load_vae
from dimo_jax.priors import prompts, video_steps
from dimo_jax.priors.manifest import Manifest
from dimo_jax.runs import objects
from dimo_jax.runs.motions import read_codes
from dimo_jax.runs.restore import restore
from dimo_jax.third_party.restricted import load_arrays
from dimo_jax.third_party.torch_files import load_tensors
from dimo_jax.training.config_file import load_config
from dimo_jax.views.trajectories import read_trajectories

_SMALL = dict(num_frames=3, size=16, azimuths="0", test_azimuths="", samples=1, num_surface_points=16, num_workers=1)


def import_model(source: Path, out: Path) -> None:
    """`--app=import_data` of an animated model; what it writes is read back."""
    import_data.run(source=str(source), out=str(out), **_SMALL)  # type: ignore[arg-type]
    read_back(out)


def pose_model(source: Path, out: Path) -> None:
    """`--source` of the viewer and of exported meshes: the model alone, in some of its poses."""
    scene = load_scene(source)
    with np.errstate(all="ignore"):
        for clip in scene.clips[:2]:
            pose_clip(scene, clip, timing=Timing(num_frames=3))


def import_recording(source: Path, out: Path) -> None:
    """`--app=import_data` of videos in any layout; what it writes is read back."""
    import_data.run(source=str(source), out=str(out))
    read_back(out)


def import_authors_model(source: Path, out: Path) -> None:
    """`--app=import_data` of the authors' trained model; what it writes is restored."""
    import_data.run(source=str(source), out=str(out), config=get_config("official"))
    read_back(out, restore)


def read_back(out: Path, read: Callable[[Path], object] = load_dataset) -> None:
    """What is written must be readable; raises AssertionError, which no reader does, where it is not."""
    try:
        read(out)
    except Exception as error:
        raise AssertionError(f"wrote what cannot be read back: {error}") from error


def check_folder(source: Path, out: Path) -> None:
    """`--app=import_data --check=FOLDER`."""
    import_data.run(check=str(source), out=str(out))


def read_native(source: Path, out: Path) -> None:
    """The data of a training run."""
    load_dataset(source)


def describe(source: Path, out: Path) -> None:
    """What every command with a dataset does first: the file that describes it, without its pictures."""
    folder = source.parent
    kind = detect(folder)
    if kind == "native":
        read_description(folder)
    else:
        recording = {"authors": describe_authors, "videos": describe_videos}[kind](folder)
        build_cameras(recording.lenses, 24, 24)


def read_store(source: Path, out: Path) -> None:
    """Decoded frames in the cache: those that are damaged are made again."""
    shape = (1, 2, data_seeds.FRAMES, data_seeds.SIZE, data_seeds.SIZE, 4)
    frames = open_frames(source / "frames", shape, lambda target: target.fill(7), what="seed")
    assert (np.asarray(frames) == 7).all(), "damaged frames were taken"


def read_shards(source: Path, out: Path) -> None:
    """The data of AnimaX."""
    found = ClipShards(source)
    for sample in found.samples:
        found.read(sample)
    found.batch(found.samples[0].split, 2, seed=0, step=0, augment=True)


def read_benchmark(source: Path, out: Path) -> None:
    """`--app=evaluate --gt=... --pred=...`."""
    for pair in consistent4d.find_pairs(source / "gt", source / "pred"):
        consistent4d.read_videos(pair.pred)
        consistent4d.read_videos(pair.truth)


def read_run(source: Path, out: Path) -> None:
    """Every app's `--workdir`: a run's folder or a model file."""
    load_config(source)
    model = restore(source)
    model.camera(16), model.find_motion(str(model.facts["names"][model.trained_motions[0]]), flag="motion")
    assert model.frame_rate > 0
    if source.is_dir():
        restore(source, checkpoint="best")


def read_status(source: Path, out: Path) -> None:
    """`--app=status`."""
    status.report(source, time.time())


def read_arrays(source: Path, out: Path) -> None:
    """Arrays that were exported: `--app=export --code=FILE`, and trajectories."""
    read_codes(source, 4) if "codes" in source.parent.name else read_trajectories(source)


def read_manifest(source: Path, out: Path) -> None:
    """The manifest of distilling, as a command that goes on finds it."""
    with Manifest(source) as manifest:
        manifest.find("image", "input", "key")
        manifest.find("video", "walk", "key")


def read_bert(source: Path, out: Path) -> None:
    """`--bert=FOLDER`, and a sentence through it."""
    load_encoder(str(source), pooling="auto").embed(["It walks.", "a"])


def read_wan(source: Path, out: Path) -> None:
    """The networks of Wan, in a folder as diffusers writes it."""
    load_transformer(source / "transformer", dtype=np.float32)
    load_vae(source / "vae")
    load_text_encoder(source / "text_encoder", source / "tokenizer", dtype=np.float32).tokenizer("It walks.")


def read_imagedream(source: Path, out: Path) -> None:
    """The networks of ImageDream, in a folder as converters to diffusers write it."""
    load_unet(source / "unet", dtype=np.float32)
    load_autoencoder(source / "vae")
    load_clip_text(source / "text_encoder", source / "tokenizer").tokenize("It walks.")


def _file(read: Callable[..., object]) -> Callable[[Path, Path], None]:
    """A reader that takes a path as text."""

    @functools.wraps(read)
    def call(source: Path, out: Path) -> None:
        read(str(source))

    return call


READERS = (
    Reader("gltf", import_model, data_seeds.write_small_models, entry="model.gl*", weight=4),
    Reader("glb", pose_model, data_seeds.write_models, entry="model.gl*", weight=6),
    Reader("index", describe, data_seeds.write_indexed, entry="*.json", weight=3),
    Reader("native", read_native, data_seeds.write_native, weight=2),
    Reader("shards", read_shards, data_seeds.write_shards),
    Reader("authors", import_recording, data_seeds.write_authors),
    Reader("videos", import_recording, data_seeds.write_recordings, weight=3),
    Reader("sv4d", import_recording, data_seeds.write_sv4d),
    Reader("transforms", import_recording, data_seeds.write_transforms),
    Reader("posed", read_native, data_seeds.write_transforms),
    Reader("check", check_folder, data_seeds.write_checked, leaves=True, weight=2),
    Reader("benchmark", read_benchmark, data_seeds.write_benchmark, weight=0.6),
    Reader("cache", read_store, data_seeds.write_store, leaves=True, weight=0.6),
    Reader("authors_model", import_authors_model, file_seeds.write_authors_model, weight=2),
    Reader("pth", _file(load_tensors), file_seeds.write_tensors, entry="tensors.pth", weight=0.6),
    Reader("ply", _file(read_gaussians), file_seeds.write_splats, entry="splats.ply", weight=0.6),
    Reader("mesh", _file(load_object), file_seeds.write_meshes, entry="mesh.*", weight=2),
    Reader("npz", read_arrays, file_seeds.write_arrays, entry="arrays.npz", weight=0.6),
    Reader("run", read_run, file_seeds.write_run, entry="model.npz", weight=4),
    Reader("status", read_status, file_seeds.write_state, weight=0.6),
    Reader("metrics", _file(read_metrics), file_seeds.write_metrics, entry="metrics.jsonl", weight=0.6),
    Reader("manifest", read_manifest, file_seeds.write_manifest, leaves=True, weight=0.6),
    Reader("prompts", _file(prompts.read_prompts), file_seeds.write_prompts, entry="list.txt", weight=0.6),
    Reader("objects", _file(objects.read_list), file_seeds.write_objects, entry="list.txt", weight=0.6),
    Reader("picture", _file(video_steps.read_image), file_seeds.write_pictures, entry="picture.*", weight=0.6),
    Reader("bert", read_bert, file_seeds.write_bert),
    Reader("wan", read_wan, file_seeds.write_wan),
    Reader("imagedream", read_imagedream, file_seeds.write_imagedream),
    Reader("clip", _file(load_clip), file_seeds.write_clip, weight=0.6),
    Reader(
        "pickle",
        lambda source, out: load_arrays(source.read_bytes(), source=str(source)),
        file_seeds.write_pickles,
        entry="weights.pickle",
        weight=0.6,
    ),
)
