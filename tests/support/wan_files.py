"""Tiny random weights of Wan's networks, written in the layouts that are read."""

import json
import re

import numpy as np
from safetensors.numpy import save_file

from dimo_jax.third_party.wan.transformer import WanConfig, expected_shapes
from dimo_jax.third_party.wan.umt5 import Umt5Config
from dimo_jax.third_party.wan.umt5 import expected_shapes as text_shapes
from dimo_jax.third_party.wan.vae import VaeConfig

TINY = WanConfig(
    num_layers=2, num_heads=2, head_dim=12, ffn_dim=20, freq_dim=16, text_dim=10, in_channels=4, out_channels=4
)
TINY_VAE = VaeConfig(
    base_dim=4,
    z_dim=3,
    latents_mean=(0.1, -0.2, 0.3),
    latents_std=(0.9, 1.1, 1.3),
    num_res_blocks=1,
    dim_mult=(1, 2, 2, 2),
)
TINY_TEXT = Umt5Config(num_layers=2, num_heads=3, head_dim=4, dim=8, ffn_dim=20, vocab_size=60)
TEXT = dict(model_type="umt5", num_layers=2, num_heads=3, d_kv=4, d_model=8, d_ff=20, vocab_size=60)
# Parts of names as diffusers has them -> as Wan's authors do, outside of the code under test: the first that fits.
_AUTHORS = (
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("proj_out", "head.head"),
    ("attn1.to_out.0", "self_attn.o"),
    ("attn2.to_out.0", "cross_attn.o"),
    ("attn1.to_", "self_attn."),
    ("attn2.to_", "cross_attn."),
    ("attn1.", "self_attn."),
    ("attn2.", "cross_attn."),
    ("ffn.net.0.proj", "ffn.0"),
    ("ffn.net.2", "ffn.2"),
    ("norm2", "norm3"),
)


def authors_name(name):
    if name.endswith("scale_shift_table"):
        return name.replace("scale_shift_table", "modulation") if "blocks" in name else "head.modulation"
    return next((name.replace(ours, theirs) for ours, theirs in _AUTHORS if ours in name), name)


def authors_vae_name(name, config):
    """Their residual blocks are rows of layers, and a decoder's levels one row of blocks."""
    row = config.num_res_blocks + 2
    name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"upsamples.{int(m[1]) * row + int(m[2])}", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"upsamples.{int(m[1]) * row + row - 1}", name)
    for ours, theirs in (
        *(
            ("mid_block.resnets.0", "middle.0"),
            ("mid_block.attentions.0", "middle.1"),
            ("mid_block.resnets.1", "middle.2"),
        ),
        *(("down_blocks", "downsamples"), ("norm1", "residual.0"), ("norm2", "residual.3")),
        *((".conv1.", ".residual.2."), (".conv2.", ".residual.6."), ("conv_shortcut", "shortcut")),
        *(("conv_in", "conv1"), ("norm_out", "head.0"), ("conv_out", "head.2")),
        *(("post_quant_conv", "conv2"), ("quant_conv", "conv1")),
    ):
        name = name.replace(ours, theirs)
    return name


def authors_text_name(name):
    first, second = "layer.0.SelfAttention", "layer.1.DenseReluDense"
    for ours, theirs in (
        *(("encoder.final_layer_norm", "norm"), ("shared", "token_embedding"), ("encoder.block", "blocks")),
        *((f"{first}.relative_attention_bias", "pos_embedding.embedding"), (first, "attn")),
        *(("layer.0.layer_norm", "norm1"), ("layer.1.layer_norm", "norm2")),
        *((f"{second}.wi_0", "ffn.gate.0"), (f"{second}.wi_1", "ffn.fc1"), (f"{second}.wo", "ffn.fc2")),
    ):
        name = name.replace(ours, theirs)
    return name


def random_arrays(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def diffusers_config(config=TINY, **changes):
    named = dict(num_layers=config.num_layers, num_attention_heads=config.num_heads, ffn_dim=config.ffn_dim)
    named |= dict(attention_head_dim=config.head_dim, freq_dim=config.freq_dim, text_dim=config.text_dim)
    named |= dict(in_channels=config.in_channels, out_channels=config.out_channels, patch_size=list(config.patch))
    return {"_class_name": "WanTransformer3DModel", "qk_norm": "rms_norm_across_heads", **named, **changes}


def write_shards(folder, arrays, num_shards=2):
    """Shards with their index, as diffusers writes what is large."""
    places = {}
    for shard in range(num_shards):
        file = f"diffusion_pytorch_model-{shard + 1:05d}-of-{num_shards:05d}.safetensors"
        names = sorted(arrays)[shard::num_shards]
        save_file({name: arrays[name] for name in names}, folder / file)
        places |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def write_transformer(folder, *, config=None, arrays=None, shards=0):
    """A folder as diffusers writes it -> the arrays in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(diffusers_config() if config is None else config))
    arrays = random_arrays(expected_shapes(TINY)) if arrays is None else arrays
    if shards:
        write_shards(folder, arrays, shards)
    else:
        save_file(arrays, folder / "diffusion_pytorch_model.safetensors")
    return arrays


def write_tokenizer(folder):
    """A tokenizer of pieces, as umT5 has it: a space before every word, an end of its own."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *"abcdefghijklmnopqrstuvwxyz.,", "\u2581it", "\u2581walks", "ing"]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(i > 2)) for i, piece in enumerate(pieces)], unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def write_text_encoder(folder, arrays=None, **changes):
    """text_encoder/ and tokenizer/ of a folder, as diffusers writes them -> the arrays."""
    (folder / "text_encoder").mkdir(parents=True, exist_ok=True)
    (folder / "text_encoder/config.json").write_text(json.dumps({**TEXT, **changes}))
    arrays = random_arrays(text_shapes(TINY_TEXT)) if arrays is None else arrays
    save_file(arrays, folder / "text_encoder/model.safetensors")
    write_tokenizer(folder / "tokenizer")
    return arrays
