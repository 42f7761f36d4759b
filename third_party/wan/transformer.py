"""Wan 2.1's transformer for text to video: its config, and its arrays as diffusers and as its authors name them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from dimo_jax.core.errors import UserError

from ..checkpoint import MAX_LAYERS, Shapes, read_arrays, read_json, read_positive

WHAT = "the transformer of Wan 2.1 text-to-video, as diffusers or its authors name its arrays"


@dataclass(frozen=True)
class WanConfig:
    """The sizes of a Wan transformer; the defaults are those of Wan2.1-T2V-1.3B."""

    num_layers: int = 30
    num_heads: int = 12
    head_dim: int = 128
    ffn_dim: int = 8960
    freq_dim: int = 256  # of the timestep's frequency encoding
    text_dim: int = 4096
    in_channels: int = 16
    out_channels: int = 16
    patch: tuple[int, int, int] = (1, 2, 2)  # latent frames, rows, columns
    eps: float = 1e-6

    @property
    def dim(self) -> int:
        """D, the length of a token."""
        return self.num_heads * self.head_dim


def read_config(path: Path) -> WanConfig:
    """A config.json, of diffusers' WanTransformer3DModel or of the authors' WanModel.

    Raises:
      UserError: no such file, another model, or a size that is missing or out of range.
    """
    config = read_json(path)
    kind = config.get("_class_name")
    if kind not in ("WanTransformer3DModel", "WanModel"):
        raise UserError(f"{path}: _class_name is {str(kind)[:40]!r}, expected 'WanTransformer3DModel' or 'WanModel'")
    task, image = config.get("model_type", "t2v"), config.get("image_dim") or config.get("added_kv_proj_dim")
    if task != "t2v" or image:
        raise UserError(f"{path}: found model_type {str(task)[:40]!r}, image_dim {image}, expected text to video alone")
    if not config.get("cross_attn_norm", True):
        raise UserError(f"{path}: cross_attn_norm is off, expected on, as in Wan 2.1")
    norm = config.get("qk_norm", "rms_norm_across_heads")
    if norm not in ("rms_norm_across_heads", True):
        raise UserError(f"{path}: qk_norm is {str(norm)[:40]!r}, expected 'rms_norm_across_heads'")
    patch = config.get("patch_size", [1, 2, 2])
    if not isinstance(patch, list) or len(patch) != 3 or not all(type(n) is int and 1 <= n <= 64 for n in patch):
        raise UserError(f"{path}: patch_size is {str(patch)[:40]}, expected three positive integers")
    if patch[0] != 1:
        raise UserError(f"{path}: patch_size is {patch}, expected 1 latent frame a patch")
    eps = config.get("eps", 1e-6)
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise UserError(f"{path}: eps is {str(eps)[:40]!r}, expected a number from 0 to 1")

    def size(key: str, default: int | None = None, most: int = 1 << 24) -> int:
        return read_positive(config, key, default, path, most=most)

    ours = kind == "WanModel"
    heads = size("num_heads" if ours else "num_attention_heads")
    if ours and size("dim") % heads:
        raise UserError(f"{path}: dim is {size('dim')}, expected a multiple of num_heads ({heads})")
    head_dim = size("dim") // heads if ours else size("attention_head_dim")
    if head_dim % 2:
        raise UserError(f"{path}: heads have {head_dim} numbers, expected an even count, which turn in pairs")
    return WanConfig(
        num_layers=size("num_layers", most=MAX_LAYERS),
        num_heads=heads,
        head_dim=head_dim,
        ffn_dim=size("ffn_dim"),
        freq_dim=size("freq_dim", 256),
        text_dim=size("text_dim", 4096),
        in_channels=size("in_dim" if ours else "in_channels", 16),
        out_channels=size("out_dim" if ours else "out_channels", 16),
        patch=(patch[0], patch[1], patch[2]),
        eps=eps,
    )


def expected_shapes(config: WanConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays of diffusers' WanTransformer3DModel of this config."""
    dim, heads = config.dim, "condition_embedder"
    dense = {
        f"{heads}.time_embedder.linear_1": (dim, config.freq_dim),
        f"{heads}.time_embedder.linear_2": (dim, dim),
        f"{heads}.time_proj": (6 * dim, dim),
        f"{heads}.text_embedder.linear_1": (dim, config.text_dim),
        f"{heads}.text_embedder.linear_2": (dim, dim),
        "proj_out": (config.out_channels * prod(config.patch), dim),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embedding.weight": (dim, config.in_channels, *config.patch),
        "patch_embedding.bias": (dim,),
        "scale_shift_table": (1, 2, dim),
    }
    for layer in range(config.num_layers):
        prefix = f"blocks.{layer}"
        for attention in ("attn1", "attn2"):
            dense |= {f"{prefix}.{attention}.{part}": (dim, dim) for part in ("to_q", "to_k", "to_v", "to_out.0")}
            shapes |= {f"{prefix}.{attention}.{part}.weight": (dim,) for part in ("norm_q", "norm_k")}
        dense |= {f"{prefix}.ffn.net.0.proj": (config.ffn_dim, dim), f"{prefix}.ffn.net.2": (dim, config.ffn_dim)}
        shapes |= {f"{prefix}.norm2.{part}": (dim,) for part in ("weight", "bias")}
        shapes[f"{prefix}.scale_shift_table"] = (1, 6, dim)
    for name, shape in dense.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


# Names of modules as the authors have them -> as diffusers has them, of one block and of the rest.
_BLOCK = {"norm3": "norm2", "ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2", "modulation": "scale_shift_table"}
_BLOCK |= {
    f"{theirs}.{part}": f"{ours}.{name}"
    for theirs, ours in (("self_attn", "attn1"), ("cross_attn", "attn2"))
    for part, name in (
        *(("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0")),
        *(("norm_q", "norm_q"), ("norm_k", "norm_k")),
    )
}
_OUTER = {
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
}


def rename(name: str) -> str:
    """The name of an array as diffusers has it, from the authors' or diffusers' own; others stay as they are."""
    plain = name.removeprefix("model.diffusion_model.")
    module, dot, part = plain.rpartition(".")
    if part not in ("weight", "bias"):
        module, dot, part = plain, "", ""
    if not module.startswith("blocks."):
        return f"{_OUTER.get(module, module)}{dot}{part}"
    _, layer, inner = (*module.split(".", 2), "")[:3]
    return f"blocks.{layer}.{_BLOCK.get(inner, inner)}{dot}{part}"


def read_transformer(path: Path, config: WanConfig) -> dict[str, np.ndarray]:
    """The arrays of a transformer by diffusers' names, in the file's type of number.

    Raises:
      UserError: see `checkpoint.read_arrays`.
    """
    shapes: Shapes = expected_shapes(config)
    return read_arrays(path, shapes, rename=rename, what=WHAT)
