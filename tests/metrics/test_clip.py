"""CLIP-I and CLIP-F, with a tiny random CLIP, against float64 NumPy, and transformers where it is installed."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from scipy.special import erf, softmax

from dimo_jax.core.errors import UserError
from dimo_jax.metrics.clip import clip_f, clip_i, embed_images, load_clip
from dimo_jax.networks.clip import MEAN, STD, preprocess
from dimo_jax.third_party.clip import expected_shapes, read_config

VISION = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8
)


def write_clip(folder, **changes):
    """A CLIP folder with random weights."""
    folder.mkdir(exist_ok=True)
    config = {"model_type": "clip", "projection_dim": 12, "vision_config": {**VISION, "projection_dim": 99, **changes}}
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng(0)
    shapes = expected_shapes(read_config(folder))
    weights = {name: (0.3 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
    save_file(weights | {"text_model.x": np.zeros(2, np.float32)}, folder / "model.safetensors")
    return weights


def make_frames(*shape):
    return np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)


def reference_embedding(weights, pixels, activation):
    """One image [S,S,3] by the definition, in float64; two layers of four heads, patches of 8."""
    w = {name.removeprefix("vision_model."): value.astype(np.float64) for name, value in weights.items()}

    def norm(x, name):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def dense(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    kernel = w["embeddings.patch_embedding.weight"]
    tokens = [w["embeddings.class_embedding"]]
    for top in range(0, 32, 8):
        for left in range(0, 32, 8):
            tokens.append(np.einsum("hwc,dchw->d", pixels[top : top + 8, left : left + 8], kernel))
    x = norm(np.stack(tokens) + w["embeddings.position_embedding.weight"], "pre_layrnorm")
    for layer in range(2):
        name = f"encoder.layers.{layer}"
        y = norm(x, f"{name}.layer_norm1")
        q, k, v = (dense(y, f"{name}.self_attn.{part}_proj") for part in "qkv")
        heads = [slice(8 * h, 8 * h + 8) for h in range(4)]
        mixed = [softmax(q[:, h] @ k[:, h].T / np.sqrt(8), axis=-1) @ v[:, h] for h in heads]
        x = x + dense(np.concatenate(mixed, axis=1), f"{name}.self_attn.out_proj")
        y = dense(norm(x, f"{name}.layer_norm2"), f"{name}.mlp.fc1")
        y = y / (1 + np.exp(-1.702 * y)) if activation == "quick_gelu" else y * (1 + erf(y / np.sqrt(2))) / 2
        x = x + dense(y, f"{name}.mlp.fc2")
    projected = w["visual_projection.weight"] @ norm(x[0], "post_layernorm")
    return projected / np.linalg.norm(projected)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_embedding_matches_slow_float64(tmp_path, activation):
    weights = write_clip(tmp_path, hidden_act=activation)
    frames = make_frames(2, 3, 40, 56)
    found = embed_images(load_clip(tmp_path), frames)
    assert found.shape == (2, 3, 12)
    pixels = preprocess(frames[1], size=32)
    np.testing.assert_allclose(found[1], [reference_embedding(weights, x, activation) for x in pixels], atol=1e-4)


def test_embedding_matches_transformers(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed: the NumPy form above is the only oracle")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    model = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**VISION, projection_dim=12))
    model.eval().save_pretrained(tmp_path)
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    frames = make_frames(3, 40, 56)
    with torch.no_grad():
        pixels = processor([Image.fromarray(f) for f in frames], return_tensors="pt")["pixel_values"]
        expected = model(pixels).image_embeds.numpy()
    np.testing.assert_allclose(preprocess(frames, size=32), pixels.numpy().transpose(0, 2, 3, 1), atol=0.03)
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    found = embed_images(load_clip(tmp_path), frames)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_preprocess_cuts_the_middle():
    frames = np.zeros((1, 32, 64, 3), np.uint8)
    frames[:, :, 16:48] = 255
    np.testing.assert_allclose(preprocess(frames, size=32)[0, 5, 7], (1 - np.array(MEAN)) / STD, rtol=1e-6)
    assert preprocess(make_frames(2, 50, 30)).shape == (2, 224, 224, 3)


def test_scores_of_equal_and_changed_frames(tmp_path):
    write_clip(tmp_path)
    frames = np.repeat(make_frames(1, 32, 32), 3, axis=0)
    clip = load_clip(tmp_path)
    same = embed_images(clip, frames)
    np.testing.assert_allclose(clip_i(same, same), np.ones(3), atol=1e-5)
    np.testing.assert_allclose(clip_f(same), np.ones(2), atol=1e-5)
    frames[2] = 255 - frames[2]
    changed = embed_images(clip, frames)
    assert clip_i(changed, same)[2] < 0.9999  # an untrained network sees little difference
    np.testing.assert_allclose(clip_f(changed), [1.0, changed[1] @ changed[2]], atol=1e-5)


def edit(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json: not found, expected a Hugging Face CLIP folder"),
        (lambda f: (f / "config.json").write_text("{"), "config.json: cannot be read as JSON"),
        (lambda f: edit(f, model_type="bert"), "model_type is 'bert', expected 'clip'"),
        (lambda f: edit(f, vision_config={"hidden_size": -1}), "hidden_size is '-1', expected a positive integer"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: not found"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), "model.safetensors: cannot be read as safetensors"),
        (lambda f: edit(f, projection_dim=13), "'visual_projection.weight' has shape (12, 32), expected (13, 32)"),
    ],
)
def test_bad_folder_is_a_user_error(tmp_path, damage, says):
    write_clip(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError) as caught:
        load_clip(tmp_path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
