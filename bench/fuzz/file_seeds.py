"""Sound files of models, runs and work in progress: weights of networks, splats, codes, logs, lists and pictures."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from bench.fuzz.data_seeds import ROOT, draw, make_dataset
from dimo_jax.configs.dimo import get_config
from dimo_jax.core.types import Gaussians
from dimo_jax.io.metrics_log import MetricsLog
from dimo_jax.io.ply import write_gaussians
from dimo_jax.priors.manifest import Manifest
from dimo_jax.runs.restore import save_facts
from dimo_jax.runtime.files import write_json
from dimo_jax.runtime.status import write_status
from dimo_jax.systems.dimo import stages
from dimo_jax.systems.dimo.model import build_components
from dimo_jax.third_party import bert, clip
from dimo_jax.third_party.clip import towers
from dimo_jax.third_party.imagedream import unet as multi_view
from dimo_jax.third_party.imagedream import vae as autoencoder
from dimo_jax.third_party.wan import transformer, umt5, vae
from dimo_jax.training.checkpoints import Checkpoints
from dimo_jax.training.config_file import save_config, to_plain
from dimo_jax.training.model_file import write_model
from dimo_jax.views.trajectories import write_trajectories

AUTHORS_MODEL = ROOT / "tests/third_party/authors_model"
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "it", "walk", "##s", ".")
BERT = dict(
    model_type="bert", hidden_size=4, num_hidden_layers=1, num_attention_heads=2, intermediate_size=6,
    type_vocab_size=2, max_position_embeddings=12, vocab_size=len(WORDS), hidden_act="gelu", layer_norm_eps=1e-12,
)  # fmt: skip
CLIP = dict(
    hidden_size=4, intermediate_size=6, projection_dim=3, num_hidden_layers=1, num_attention_heads=2, image_size=4,
    patch_size=2, hidden_act="quick_gelu", layer_norm_eps=1e-5,
)  # fmt: skip


def write_authors_model(folder: Path) -> None:
    """The trained model of DIMO's authors."""
    shutil.copytree(
        AUTHORS_MODEL, folder / "model", ignore=shutil.ignore_patterns("expected.npz", "*trees*", "legacy*")
    )


def write_tensors(folder: Path) -> None:
    """Files of torch.save, of both formats."""
    for path in sorted(AUTHORS_MODEL.glob("*.pth")):
        (folder / path.stem).mkdir()
        shutil.copy(path, folder / path.stem / "tensors.pth")


def write_splats(folder: Path) -> None:
    """Gaussians as PLY: the authors', and ours with colours of degree 1."""
    for name in ("theirs", "ours"):
        (folder / name).mkdir()
    shutil.copy(AUTHORS_MODEL / "point_cloud.ply", folder / "theirs" / "splats.ply")
    rng = np.random.default_rng(0)
    shapes = ((6, 3), (6, 3), (6, 4), (6,), (6, 4, 3))
    arrays = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
    write_gaussians(Gaussians(*arrays), folder / "ours" / "splats.ply")


def write_arrays(folder: Path) -> None:
    """What evaluation and export leave: key point trajectories and codes."""
    for name in ("trajectories", "codes"):
        (folder / name).mkdir()
    rng = np.random.default_rng(0)
    tracks = rng.normal(size=(2, 3, 4, 3))
    write_trajectories(
        tracks, folder / "trajectories" / "arrays.npz", names=("a", "b"), times=np.linspace(0, 1, 3),
        positions=tracks[0, 0], radii=np.ones(4),
    )  # fmt: skip
    np.savez(
        folder / "codes" / "arrays.npz", z=rng.normal(size=(2, 4)).astype(np.float32), start=np.zeros(4, np.float32)
    )


def write_run(folder: Path) -> None:
    """A trained run's folder and its model file; the numbers are random."""
    config = get_config("smoke")
    config.latent_init.dim, config.num_key_points, config.stage2.num_per_key_point = 4, 8, 2
    dataset = make_dataset()
    last = stages.build_stages(config)[-1].span.last_step
    sizes = dict(num_motions=dataset.num_motions, num_frames=dataset.num_frames)
    template = stages.template(config, build_components(config), step=last, **sizes)
    rng = np.random.default_rng(0)

    def fill(leaf: Any) -> jax.Array:
        return jnp.asarray(rng.uniform(0, 1, leaf.shape), leaf.dtype)

    state = jax.tree.map(fill, template).replace(step=jnp.int32(last))
    run = folder / "run"
    save_config(config, run)
    save_facts(dataset, run, system=dict(num_text_features=0))
    facts = json.loads((run / "facts.json").read_text())
    with Checkpoints(run) as checkpoints:
        checkpoints.save(last, state, notes={"score": [1.0, 20.0]})
    (folder / "file").mkdir()
    write_model(
        state.params, np.ones(state.alive.shape, bool), folder / "file" / "model.npz", config=to_plain(config),
        facts=facts, step=last,
    )  # fmt: skip


def write_state(folder: Path) -> None:
    """What `--app=status` looks at."""
    run = folder / "run"
    (run / "checkpoints" / "10").mkdir(parents=True)
    (run / "checkpoints" / "10" / "notes.json").write_text("{}")
    (run / "config.json").write_text("{}")
    write_status(
        run, "training", step=10, num_steps=20, stage="stage1", resolution=16.0, loss=1.0, psnr=20.0, memory_gib=0.5,
        steps_per_second=1.0, images_per_second=2.0, seconds_left=10.0,
    )  # fmt: skip
    write_json({"held_out_views": {"psnr": 20.0, "num_images": 4}, "num_steps": 20}, run / "summary.json")
    (run / ".lock").write_text(json.dumps({"host": "a", "pid": 1, "since": 0.0}))


def write_metrics(folder: Path) -> None:
    """The log of a training run."""
    with MetricsLog(folder / "metrics" / "metrics.jsonl") as log:
        for step in range(3):
            log.write(step, {"stage": "stage1", "loss": 0.5, "psnr": float("nan"), "seconds": 1.0})


def write_manifest(folder: Path) -> None:
    """What distilling has done."""
    with Manifest(folder / "manifest") as manifest:
        (folder / "manifest" / "a.txt").write_text("a")
        manifest.done("image", "input", "key", files=("a.txt",), height=4)
        manifest.done("video", "walk", "key", seed=3)


def write_prompts(folder: Path) -> None:
    """A list of motions to distil."""
    (folder / "prompts").mkdir()
    (folder / "prompts" / "list.txt").write_text("# motions\nIt walks.\nIt jumps. | The fox jumps high.\n")


def write_objects(folder: Path) -> None:
    """A list of objects to train."""
    (folder / "objects").mkdir()
    (folder / "objects" / "list.txt").write_text("# objects\ndata/fox\n'data/the knight' knight # twice\n")


def write_meshes(folder: Path) -> None:
    """Static objects: OBJ with materials, and PLY as text and binary."""
    (folder / "obj").mkdir()
    lines = [
        "mtllib paint.mtl",
        "o body",
        "v 0 0 0",
        "v 1 0 0 1 0 0",
        "v 1 1 0",
        "v 0 1 0",
        "vt 0 0",
        "vt 1 1",
        "vt 0 1",
    ]
    lines += ["usemtl wood", "f 1/1 2/2 3/3", "o door", "g lid", "f -4//1 -2//1 -1//1", "f 1 2 3 4"]
    (folder / "obj" / "mesh.obj").write_text("\n".join(lines) + "\n")
    (folder / "obj" / "paint.mtl").write_text("newmtl wood\nKd 1 0 0\nd 0.5\nmap_Kd -s 1 1 1 wood.png\n")
    Image.fromarray(draw(1)[0][..., :3]).save(folder / "obj" / "wood.png")
    places = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], "<f4")
    for kind, faces in (("ascii", ""), ("binary_little_endian", "<")):
        head = f"ply\nformat {kind} 1.0\nelement vertex 4\n" + "".join(f"property float {axis}\n" for axis in "xyz")
        head += "element face 2\nproperty list uchar int vertex_indices\nend_header\n"
        rows = "".join("{} {} {}\n".format(*place) for place in places).encode() + b"3 0 1 2\n4 0 1 2 3\n"
        if faces:
            rows = places.tobytes() + struct.pack("<B3iB4i", 3, 0, 1, 2, 4, 0, 1, 2, 3)
        (folder / kind).mkdir()
        (folder / kind / "mesh.ply").write_bytes(head.encode() + rows)


def write_pictures(folder: Path) -> None:
    """Pictures that distilling may begin with."""
    frame = np.kron(draw(1)[0], np.ones((2, 2, 1), np.uint8))
    for suffix, channels in (("png", 4), ("jpg", 3), ("webp", 4), ("gif", 3)):
        (folder / suffix).mkdir()
        Image.fromarray(frame[..., :channels]).save(folder / suffix / f"picture.{suffix}")
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    (folder / "turned").mkdir()
    Image.fromarray(frame[..., :3]).save(folder / "turned" / "picture.jpg", exif=exif)


def _random(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write_bert(folder: Path) -> None:
    """A text encoder with a list of words, and one with a whole tokenizer and the files of sentence-transformers."""
    from tokenizers.implementations import BertWordPieceTokenizer

    for name in ("words", "whole"):
        root = folder / name
        root.mkdir()
        (root / "config.json").write_text(json.dumps(BERT))
        save_file(_random(bert.expected_shapes(BERT)), root / "model.safetensors")
        (root / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "words" / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    BertWordPieceTokenizer(str(folder / "whole" / "vocab.txt")).save(str(folder / "whole" / "tokenizer.json"))
    (folder / "whole" / "sentence_bert_config.json").write_text('{"max_seq_length": 8}')
    (folder / "whole" / "1_Pooling").mkdir()
    (folder / "whole" / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')


def write_wan(folder: Path) -> None:
    """A tiny Wan as diffusers writes it, its transformer in two shards."""
    from tokenizers import Tokenizer, models, processors

    configs = {
        "transformer": {"_class_name": "WanModel", "model_type": "t2v", "dim": 12, "num_heads": 1, "num_layers": 1}
        | {"ffn_dim": 6, "freq_dim": 4, "text_dim": 4, "in_dim": 2, "out_dim": 2},
        "vae": {"_class_name": "AutoencoderKLWan", "base_dim": 2, "z_dim": 2, "dim_mult": [1, 2], "num_res_blocks": 1}
        | {"temperal_downsample": [True], "latents_mean": [0.0, 0.1], "latents_std": [1.0, 2.0]},
        "text_encoder": {"model_type": "umt5", "num_layers": 1, "num_heads": 1, "d_kv": 4, "d_model": 4, "d_ff": 6}
        | {"vocab_size": 16},
    }
    for name, module in (("transformer", transformer), ("vae", vae), ("text_encoder", umt5)):
        root = folder / "wan" / name
        root.mkdir(parents=True)
        (root / "config.json").write_text(json.dumps(configs[name]))
        arrays = _random(module.expected_shapes(module.read_config(root / "config.json")))
        if name != "transformer":
            save_file(arrays, root / "model.safetensors")
            continue
        places = {array: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, array in enumerate(arrays)}
        for shard in sorted(set(places.values())):
            save_file({array: arrays[array] for array, place in places.items() if place == shard}, root / shard)
        (root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "wan" / "tokenizer").mkdir()
    pieces = ["<pad>", "</s>", "<unk>", *"itwalks.I "]
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=2))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.save(str(folder / "wan" / "tokenizer" / "tokenizer.json"))


def write_imagedream(folder: Path) -> None:
    """A tiny ImageDream as converters to diffusers write it, its text encoder with a tokenizer."""
    configs = {
        "unet": {"_class_name": "MultiViewUNetModel", "model_channels": 32, "channel_mult": [1], "num_res_blocks": 1}
        | {"attention_resolutions": [1], "num_head_channels": 32, "context_dim": 2, "ip_dim": 0, "camera_dim": 2},
        "vae": {"_class_name": "AutoencoderKL", "block_out_channels": [2, 2], "norm_num_groups": 2},
        "text_encoder": {"model_type": "clip_text_model", "hidden_size": 2, "intermediate_size": 3, "vocab_size": 8}
        | {"num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 4, "hidden_act": "gelu"},
    }
    shapes = {
        "unet": lambda path: multi_view.expected_shapes(multi_view.read_config(path)),
        "vae": lambda path: autoencoder.expected_shapes(autoencoder.read_config(path)),
        "text_encoder": lambda path: towers.text_shapes(towers.read_text_config(path)),
    }
    for name, config in configs.items():
        root = folder / "imagedream" / name
        root.mkdir(parents=True)
        (root / "config.json").write_text(json.dumps(config))
        save_file(_random(shapes[name](root / "config.json")), root / "model.safetensors")
    (folder / "imagedream" / "tokenizer").mkdir()
    words = ["!", "i", "t", "t</w>", "it</w>", "<|startoftext|>", "<|endoftext|>"]
    vocab = json.dumps({word: index for index, word in enumerate(words)})
    (folder / "imagedream" / "tokenizer" / "vocab.json").write_text(vocab)
    (folder / "imagedream" / "tokenizer" / "merges.txt").write_text("#version: 0.2\ni t</w>\n")


def write_clip(folder: Path) -> None:
    """CLIP's vision tower."""
    (folder / "clip").mkdir()
    config = clip.VisionConfig(**CLIP)
    save_file(_random(clip.expected_shapes(config)), folder / "clip" / "model.safetensors")
    whole = {"model_type": "clip", "projection_dim": 3, "vision_config": CLIP}
    (folder / "clip" / "config.json").write_text(json.dumps(whole))


def write_pickles(folder: Path) -> None:
    """Weights as the packages for LPIPS and I3D hold them."""
    tree = {"Conv_0": {"kernel": np.ones((2, 3), np.float32), "bias": np.zeros(3)}, "names": ["a", ("b", 1.5, None)]}
    for protocol in (2, 4):
        (folder / f"protocol{protocol}").mkdir()
        (folder / f"protocol{protocol}" / "weights.pickle").write_bytes(pickle.dumps(tree, protocol))
