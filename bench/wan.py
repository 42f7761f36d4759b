"""How far Wan's networks are from diffusers' and transformers', in float32 with random weights, and how large they are.

python -m bench.wan            # tiny networks, and single layers as wide as the real ones
python -m bench.wan --sizes    # parameters of the published sizes, nothing is computed

Needs torch, diffusers and transformers. Errors are the largest absolute difference, beside the root mean square of
what they compute.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench import parity
from dimo_jax.diffusion.samplers import plan_levels, sample_unipc
from dimo_jax.networks.wan import transformer, umt5, vae
from dimo_jax.systems.animax import model as animax
from dimo_jax.systems.animax import stages
from dimo_jax.third_party.wan import transformer as transformer_files
from dimo_jax.third_party.wan import umt5 as text_files
from dimo_jax.third_party.wan import vae as vae_files

WIDE = transformer_files.WanConfig(num_layers=2)  # of Wan2.1-T2V-1.3B, but for the number of blocks
WIDE_TEXT = text_files.Umt5Config(num_layers=1, vocab_size=1000)  # of umT5-xxl, but for blocks and words


def compare() -> Iterator[parity.Comparison]:
    """All of them."""
    yield from compare_transformer()
    yield from compare_vae()
    yield from compare_text()
    yield from compare_sampler()


def report_sizes() -> None:
    """Arrays and parameters of the published sizes, and of AnimaX around them in its two stages."""
    for label, module, config in (
        ("transformer, Wan2.1-T2V-1.3B", transformer_files, transformer_files.WanConfig()),
        ("video autoencoder, Wan 2.1", vae_files, vae_files.VaeConfig()),
        ("text encoder, umT5-xxl", text_files, text_files.Umt5Config()),
    ):
        parity.print_size(label, module.expected_shapes(config))
    config = transformer_files.WanConfig()
    shapes = transformer_files.expected_shapes(config)
    arrays = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}

    def build(arrays: dict[str, jax.Array]) -> animax.AnimaxParams:
        backbone = transformer.build_params(arrays, config, jnp.bfloat16)
        return animax.init_params(jax.random.key(0), backbone, config, multi_view_layers=True)

    whole = jax.eval_shape(build, arrays)
    for stage in stages.STAGES:
        params = whole.replace(views=None) if stage == stages.JOINT else whole
        parity.print_trained(f"AnimaX, stage {stage}", params, stages.trained(params, stage))


def compare_transformer() -> Iterator[parity.Comparison]:
    """Velocities of a video, at a time per video and a time per frame."""
    import torch

    sizes = dataclasses.asdict(WIDE)
    names = {"num_heads": "num_attention_heads", "head_dim": "attention_head_dim", "patch": "patch_size"}
    model = parity.diffusers().WanTransformer3DModel(**{names.get(name, name): value for name, value in sizes.items()})
    params = transformer.build_params(parity.draw_weights(model), WIDE)
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(1, 3, 8, 12, 16)).astype(np.float32)
    text = rng.normal(size=(1, 20, WIDE.text_dim)).astype(np.float32)
    for label, times in (("a time per video", np.array([700])), ("a time per frame", np.array([[0, 700, 41]]))):
        theirs = torch.from_numpy(times if times.ndim == 1 else np.repeat(times, 24, axis=1))
        with torch.no_grad():
            expected = model(torch.from_numpy(latents).permute(0, 4, 1, 2, 3), theirs, torch.from_numpy(text)).sample
        found = transformer.predict_velocity(params, latents, times, text, config=WIDE)
        yield f"transformer, 2 blocks of the real width, {label}", np.asarray(found), _last(expected)


def _last(video: Any) -> np.ndarray:
    moved: np.ndarray = video.permute(0, 2, 3, 4, 1).numpy()
    return moved


def compare_vae() -> Iterator[parity.Comparison]:
    """Latents of a video, and the video of latents, at the real size; pieces of time against the whole."""
    import torch

    model, config = parity.diffusers().AutoencoderKLWan(), vae_files.VaeConfig()
    params = vae.build_params(parity.draw_weights(model), config)
    video = np.random.default_rng(1).uniform(-1, 1, (1, 9, 16, 24, 3)).astype(np.float32)
    mean, std = np.asarray(config.latents_mean), np.asarray(config.latents_std)
    with torch.no_grad():
        latents = model.encode(torch.from_numpy(video).permute(0, 4, 1, 2, 3)).latent_dist.mode()
        shown = _last(model.decode(latents).sample)
    expected = ((_last(latents) - mean) / std).astype(np.float32)
    found = np.asarray(vae.encode(params, video, config=config))
    yield "autoencoder, real size, latents of 9 frames", found, expected
    yield "autoencoder, real size, video of 3 latent frames", np.asarray(vae.decode(params, expected)), shown
    whole = np.asarray(vae.encode(params, video, config=config, chunked=False))
    yield "autoencoder, latents in pieces against the whole", found, whole


def compare_text() -> Iterator[parity.Comparison]:
    """Hidden states of two sentences."""
    import torch
    from transformers import UMT5Config, UMT5EncoderModel

    names = {"head_dim": "d_kv", "dim": "d_model", "ffn_dim": "d_ff", "eps": "layer_norm_epsilon"}
    names |= {"num_buckets": "relative_attention_num_buckets", "max_distance": "relative_attention_max_distance"}
    sizes = {names.get(name, name): value for name, value in dataclasses.asdict(WIDE_TEXT).items()}
    model = UMT5EncoderModel(UMT5Config(**sizes))
    params = umt5.build_params(parity.draw_weights(model), WIDE_TEXT)
    tokens, mask = np.random.default_rng(2).integers(0, 1000, (2, 64)), np.arange(64) < np.array([[64], [9]])
    with torch.no_grad():
        hidden = model(torch.from_numpy(tokens), torch.from_numpy(mask).int()).last_hidden_state.numpy()
    found = np.asarray(umt5.encode(params, tokens, mask, config=WIDE_TEXT))
    yield "text encoder, 1 block of the real width", found, np.where(mask[..., None], hidden, 0)


def compare_sampler() -> Iterator[parity.Comparison]:
    """50 steps of UniPC on a toy velocity."""
    import torch

    scheduler = parity.diffusers().UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    scheduler.set_timesteps(50)
    rng = np.random.default_rng(3)
    noise, weight = (rng.normal(size=size).astype(np.float32) for size in ((2, 3, 4), (4, 4)))
    x = torch.from_numpy(noise)
    for timestep in scheduler.timesteps:
        velocity = torch.tanh(x @ torch.from_numpy(weight)) * (0.3 + timestep / 1000)
        x = scheduler.step(velocity, timestep, x).prev_sample
    found = sample_unipc(lambda x, t: jnp.tanh(x @ weight) * (0.3 + t / 1000), jnp.asarray(noise), plan_levels(50))
    yield "UniPC, 50 steps", np.asarray(found), x.numpy()


if __name__ == "__main__":
    parity.run(__doc__, report_sizes, compare)
