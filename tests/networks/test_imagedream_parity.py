"""The networks of ImageDream against diffusers, with tiny random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.imagedream_files import TINY, TINY_VAE, random_arrays

from dimo_jax.networks.imagedream import unet
from dimo_jax.networks.imagedream import vae as vae_network
from dimo_jax.third_party.imagedream import vae as vae_files
from dimo_jax.third_party.imagedream.unet import UNetConfig, expected_shapes

torch = pytest.importorskip("torch", reason="torch is not installed: no second opinion")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: no second opinion")


_RESAMPLER = {"0.norm1": "ln0", "0.norm2": "ln1", "0.to_q": "attn.to_q", "0.to_out": "attn.to_out.0"}
_RESAMPLER |= {"1.0": "ff.0", "1.1": "ff.1.net.0.proj", "1.3": "ff.1.net.2"}


class AcrossViews:
    """Attention of diffusers whose tokens are those of all views in one row."""

    def __init__(self, num_views):
        from diffusers.models.attention_processor import AttnProcessor

        self.plain, self.num_views = AttnProcessor(), num_views

    def __call__(self, attention, x, *args, **options):
        shape = x.shape
        x = x.reshape(shape[0] // self.num_views, -1, shape[-1])
        return self.plain(attention, x, *args, **options).reshape(shape)


def make_theirs(config):
    """UNet2DConditionModel of a config; the camera's embedding stands where it embeds classes."""
    kinds = [f"{'CrossAttn' * look}{{}}Block2D" for look in config.looks]
    model = diffusers.UNet2DConditionModel(
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        block_out_channels=[m * config.channels for m in config.multiples],
        down_block_types=[kind.format("Down") for kind in kinds],
        up_block_types=[kind.format("Up") for kind in reversed(kinds)],
        layers_per_block=config.num_residuals,
        attention_head_dim=[m * config.channels // config.head_dim for m in config.multiples],
        cross_attention_dim=config.text_dim,
        norm_num_groups=config.groups,
        use_linear_projection=True,
        class_embed_type="projection" if config.camera_dim else None,
        projection_class_embeddings_input_dim=config.camera_dim or None,
    ).eval()
    names = [name for name, _ in model.named_modules() if name.endswith((".attn1", ".attn2"))]
    return model, names


def to_theirs(arrays, model):
    """Arrays as ImageDream names them -> as diffusers does, by its own converter: of the UNet, and of the rest."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    tensors = {f"model.diffusion_model.{name}": value for name, value in arrays.items()}
    for part in ("0", "2"):
        for kind in ("weight", "bias"):
            camera = tensors.pop(f"model.diffusion_model.camera_embed.{part}.{kind}", None)
            if camera is not None:
                tensors[f"model.diffusion_model.label_emb.0.{part}.{kind}"] = camera
    config = dict(model.config)
    if config["class_embed_type"] is None:
        config.pop("class_embed_type")
    state = {k: v for k, v in convert_ldm_unet_checkpoint(tensors, config).items() if "_ip." not in k}
    return state


def load_adapter(model, names, arrays, config, num_views, image_weight):
    """IP-Adapter's keys and values into a UNet of diffusers, in the order in which tokens pass; and its resampler."""
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
    from diffusers.models.embeddings import IPAdapterPlusImageProjection

    processors = {}
    for name in names:
        module = model.get_submodule(name)
        if name.endswith("attn1"):
            processors[f"{name}.processor"] = AcrossViews(num_views)
            continue
        hidden = module.to_q.weight.shape[0]
        processor = IPAdapterAttnProcessor2_0(hidden, config.text_dim, (config.num_image_tokens,), image_weight)
        query = np.asarray(module.to_q.weight.detach())
        ours = next(  # the arrays are random, so the query tells which layer of ours this is
            key for key in arrays if key.endswith("attn2.to_q.weight") and np.array_equal(arrays[key], query)
        )
        for to, part in ((processor.to_k_ip[0], "to_k_ip"), (processor.to_v_ip[0], "to_v_ip")):
            to.weight.data = torch.from_numpy(arrays[ours.replace("to_q", part)])
        processors[f"{name}.processor"] = processor
    model.set_attn_processor(processors)
    resampler = IPAdapterPlusImageProjection(
        embed_dims=config.image_dim,
        output_dims=config.text_dim,
        hidden_dims=config.text_dim,
        depth=config.resampler_layers,
        dim_head=64,
        heads=config.resampler_heads,
        num_queries=config.num_image_tokens,
    )
    state = {}
    for name, value in arrays.items():
        if not name.startswith("image_embed."):
            continue
        name = name.removeprefix("image_embed.")
        value = torch.from_numpy(value)
        if name.endswith("to_kv.weight"):
            base = name.removesuffix("0.to_kv.weight")
            state[f"{base}attn.to_k.weight"], state[f"{base}attn.to_v.weight"] = value.chunk(2)
            continue
        if name.startswith("layers."):
            _, index, inner = name.split(".", 2)
            part, _, kind = inner.rpartition(".")
            name = f"layers.{index}.{_RESAMPLER[part]}.{kind}"
        state[name] = value
    resampler.load_state_dict(state)
    return resampler.eval()


def test_noise_of_views_matches_diffusers(quick_compile):
    num, views, weight = 2, 3, 0.7
    arrays = random_arrays(expected_shapes(TINY))
    model, names = make_theirs(TINY)
    model.load_state_dict({k: torch.from_numpy(np.asarray(v)) for k, v in to_theirs(arrays, model).items()})
    resampler = load_adapter(model, names, arrays, TINY, views, weight)
    rng = np.random.default_rng(1)
    latents = rng.normal(size=(num, views, 4, 8, 4)).astype(np.float32)
    text = rng.normal(size=(num, 5, TINY.text_dim)).astype(np.float32)
    image = rng.normal(size=(num, views, 7, TINY.image_dim)).astype(np.float32)
    cameras = rng.normal(size=(num, views, TINY.camera_dim)).astype(np.float32)
    times = np.array([700, 3])
    with torch.no_grad():
        tokens = resampler(torch.from_numpy(image).flatten(0, 1))
        expected = model(
            torch.from_numpy(latents).flatten(0, 1).permute(0, 3, 1, 2),
            torch.from_numpy(np.repeat(times, views)),
            encoder_hidden_states=(torch.from_numpy(np.repeat(text, views, axis=0)), [tokens[:, None]]),
            class_labels=torch.from_numpy(cameras).flatten(0, 1),
        ).sample
    params = unet.build_params(arrays, TINY)
    found = unet.predict_noise(params, latents, times, text, image, cameras, config=TINY, image_weight=weight)
    expected = expected.permute(0, 2, 3, 1).numpy().reshape(latents.shape)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_every_array_of_the_full_size_is_known():
    config = UNetConfig()
    shapes = expected_shapes(config)
    with torch.device("meta"):
        model, _ = make_theirs(config)
        from diffusers.models.embeddings import IPAdapterPlusImageProjection

        resampler = IPAdapterPlusImageProjection(1280, 1024, 1024, 4, 64, 12, 16)
        theirs = {name: torch.empty(shape) for name, shape in shapes.items()}
    state = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in to_theirs(theirs, model).items()} == state
    rest = {name: shape for name, shape in shapes.items() if "_ip." in name or name.startswith("image_embed.")}
    assert sum(map(np.prod, shapes.values())) - sum(map(np.prod, rest.values())) == sum(map(np.prod, state.values()))
    text_keys = [name for name in state if ".attn2.to_k." in name]
    assert sum("_ip." in name for name in rest) == 2 * len(text_keys) == 32
    split = {name.replace("to_kv", part): shape for name, shape in rest.items() for part in ("to_k", "to_v")}
    count = sum(name.startswith("image_embed.") for name in split)
    assert count == len(resampler.state_dict()) == 55
    camera = sum(np.prod(shape) for name, shape in shapes.items() if name.startswith("camera_embed."))
    assert sum(map(np.prod, state.values())) - camera == 865_910_724  # Stable Diffusion 2.1's own
    assert sum(map(np.prod, shapes.values())) == sum(p.numel() for p in resampler.parameters()) + sum(
        map(np.prod, state.values())
    ) + sum(np.prod(shape) for name, shape in rest.items() if "_ip." in name)


def test_the_full_size_takes_four_views_of_256_pixels():
    config = UNetConfig()
    arrays = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in expected_shapes(config).items()}
    params = jax.eval_shape(lambda arrays: unet.build_params(arrays, config, jnp.bfloat16), arrays)
    latents, text, image = jnp.zeros((1, 5, 32, 32, 4)), jnp.zeros((1, 77, 1024)), jnp.zeros((1, 5, 257, 1280))
    run = lambda *each: unet.predict_noise(*each, config=config)  # noqa: E731
    found = jax.eval_shape(run, params, latents, jnp.zeros(1), text, image, jnp.zeros((1, 5, 16)))
    assert found.shape == latents.shape
    assert len(unet.list_transformers(config)) == 16


def make_autoencoder(config):
    return diffusers.AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * len(config.channels),
        up_block_types=["UpDecoderBlock2D"] * len(config.channels),
        block_out_channels=list(config.channels),
        layers_per_block=config.num_residuals,
        latent_channels=config.latent_channels,
        norm_num_groups=config.groups,
    ).eval()


def test_latents_and_pictures_match_diffusers(quick_compile):
    model, arrays = make_autoencoder(TINY_VAE), random_arrays(vae_files.expected_shapes(TINY_VAE))
    model.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    params = vae_network.build_params(arrays, TINY_VAE)
    pictures = np.random.default_rng(0).uniform(-1, 1, (2, 3, 8, 12, 3)).astype(np.float32)
    with torch.no_grad():
        latents = model.encode(torch.from_numpy(pictures).flatten(0, 1).permute(0, 3, 1, 2)).latent_dist.mode()
        shown = model.decode(latents).sample.permute(0, 2, 3, 1).numpy()
    expected = latents.permute(0, 2, 3, 1).numpy().reshape(2, 3, 4, 6, 4) * TINY_VAE.scale
    found = vae_network.encode(params, pictures, config=TINY_VAE)
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(
        vae_network.decode(params, expected, config=TINY_VAE), shown.reshape(pictures.shape), atol=1e-4
    )


def test_every_array_of_the_autoencoder_is_known():
    with torch.device("meta"):
        theirs = make_autoencoder(vae_files.VaeConfig()).state_dict()
    shapes = vae_files.expected_shapes(vae_files.VaeConfig())
    assert {name: tuple(value.shape) for name, value in theirs.items()} == shapes
    assert sum(map(np.prod, shapes.values())) == 83_653_863


def test_authors_names_of_the_autoencoder_are_those_of_the_converter():
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    config = vae_files.VaeConfig()
    theirs = authors_vae_names(config)
    with torch.device("meta"):
        tensors = {f"first_stage_model.{name}": torch.empty(shape) for name, shape in theirs.items()}
        converted = convert_ldm_vae_checkpoint(tensors, dict(down_block_types=[0] * 4, up_block_types=[0] * 4))
    assert {vae_files.rename(f"first_stage_model.{name}", config) for name in theirs} == set(converted)
    assert set(converted) == set(vae_files.expected_shapes(config))


def authors_vae_names(config):
    """Names and shapes as Stable Diffusion's authors have them, written down beside the code under test."""
    names, (first, *_, last) = {}, config.channels

    def layer(name, *shape):
        names[f"{name}.weight"], names[f"{name}.bias"] = shape, shape[:1]

    def residual(name, inputs, outputs):
        layer(f"{name}.norm1", inputs)
        layer(f"{name}.conv1", outputs, inputs, 3, 3)
        layer(f"{name}.norm2", outputs)
        layer(f"{name}.conv2", outputs, outputs, 3, 3)
        if inputs != outputs:
            layer(f"{name}.nin_shortcut", outputs, inputs, 1, 1)

    for side, now, inner in (("encoder", 3, first), ("decoder", config.latent_channels, last)):
        layer(f"{side}.conv_in", inner, now, 3, 3)
        residual(f"{side}.mid.block_1", last, last)
        layer(f"{side}.mid.attn_1.norm", last)
        for part in ("q", "k", "v", "proj_out"):
            layer(f"{side}.mid.attn_1.{part}", last, last, 1, 1)
        residual(f"{side}.mid.block_2", last, last)
    now = first
    for level, channels in enumerate(config.channels):
        for index in range(config.num_residuals):
            residual(f"encoder.down.{level}.block.{index}", now, channels)
            now = channels
        if level + 1 < len(config.channels):
            layer(f"encoder.down.{level}.downsample.conv", now, now, 3, 3)
    for level, channels in reversed(list(enumerate(config.channels))):
        for index in range(config.num_residuals + 1):
            residual(f"decoder.up.{level}.block.{index}", now, channels)
            now = channels
        if level:
            layer(f"decoder.up.{level}.upsample.conv", now, now, 3, 3)
    layer("encoder.norm_out", last)
    layer("encoder.conv_out", 2 * config.latent_channels, last, 3, 3)
    layer("decoder.norm_out", first)
    layer("decoder.conv_out", 3, first, 3, 3)
    layer("quant_conv", 2 * config.latent_channels, 2 * config.latent_channels, 1, 1)
    layer("post_quant_conv", config.latent_channels, config.latent_channels, 1, 1)
    return names
