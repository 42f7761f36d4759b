"""CLIP's towers as encoders of tokens, in the layouts of transformers and of OpenCLIP, against transformers."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dimo_jax.core.errors import UserError
from dimo_jax.networks import clip as network
from dimo_jax.networks.clip import encode_image_tokens, encode_text, load_clip_images, load_clip_text
from dimo_jax.third_party.clip import tokenizer as tokenizers
from dimo_jax.third_party.clip import towers
from dimo_jax.third_party.clip.towers import TextConfig

TEXT = TextConfig(12, 20, 3, 2, 40, 7)
VISION = towers.VIT_H._replace(
    hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2, image_size=16, patch_size=8
)
TEXT_JSON = dict(model_type="clip_text_model", hidden_size=12, intermediate_size=20, num_hidden_layers=3)
TEXT_JSON |= dict(num_attention_heads=2, vocab_size=40, max_position_embeddings=7, hidden_act="gelu")
WORDS = ["!", "a", "d", "o", "r", "a</w>", "d</w>", "r</w>", "s</w>", "'s</w>", "do", "or</w>", "door</w>", "1</w>"]
MERGES = ["d o", "o r</w>", "do or</w>"]


_OPEN = (
    ("text_model.embeddings.token_embedding", "token_embedding"),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.final_layer_norm", "ln_final"),
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.embeddings.patch_embedding", "visual.conv1"),
    *(("text_model.", ""), ("vision_model.", "visual."), ("encoder.layers", "transformer.resblocks")),
    *(("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post"), (".self_attn.", ".attn.")),
    *((".layer_norm1.", ".ln_1."), (".layer_norm2.", ".ln_2."), (".fc1.", ".c_fc."), (".fc2.", ".c_proj.")),
)


def random_tower(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {name: (0.3 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}


def to_open_clip(arrays, prefix):
    """Arrays as transformers names them -> as OpenCLIP does, with queries, keys and values in one."""
    found, joined = {}, {}
    for name, value in arrays.items():
        for ours, theirs in _OPEN:
            name = name.replace(ours, theirs)
        match = re.fullmatch(r"(.+)\.([qkv])_proj\.(weight|bias)", name)
        if match:
            joined.setdefault(f"{match[1]}.in_proj_{match[3]}", {})[match[2]] = value
        else:
            found[name] = value
    found |= {n: np.concatenate([each[p] for p in "qkv"]) for n, each in joined.items()}
    return {prefix + name: value for name, value in found.items()}


def write_tokenizer(folder):
    folder.mkdir(exist_ok=True)
    vocab = {word: index for index, word in enumerate([*WORDS, tokenizers.START, tokenizers.END])}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n")
    return vocab


def write_text_tower(folder):
    folder.mkdir(exist_ok=True)
    arrays = random_tower(towers.text_shapes(TEXT))
    (folder / "config.json").write_text(json.dumps(TEXT_JSON))
    save_file(arrays | {"text_model.embeddings.position_ids": np.arange(7)}, folder / "model.safetensors")
    return arrays


def test_tokens_match_transformers_and_are_of_one_length(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    vocab = write_tokenizer(tmp_path)
    tokenize, size = tokenizers.read_tokenizer(tmp_path, 7)
    assert size == len(vocab)
    theirs = transformers.CLIPTokenizer.from_pretrained(tmp_path)
    for text in ("Door", "a  door's or 1", ""):
        expected = theirs(text)["input_ids"][:6]
        assert tokenize(text)[: len(expected)] == expected
        assert len(tokenize(text)) == 7
    assert tokenize("a door a door a door a door")[-1] == vocab[tokenizers.END]
    assert tokenize("door") == [vocab[tokenizers.START], vocab["door</w>"], vocab[tokenizers.END], 0, 0, 0, 0]


def test_text_matches_transformers_and_open_clip_is_the_same(tmp_path):
    write_tokenizer(tmp_path / "words")
    arrays = write_text_tower(tmp_path / "text")
    text = load_clip_text(tmp_path / "text", tmp_path / "words")
    found = text.embed(["a door", "1"])
    assert found.shape == (2, 7, 12)
    save_file(
        to_open_clip(arrays, "cond_stage_model.model.") | {"betas": np.ones(3, np.float32)},
        tmp_path / "open.safetensors",
    )
    same = towers.read_text_tower(tmp_path / "open.safetensors", TEXT)
    assert set(same) == set(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(same[name], value, err_msg=name)
    fewer = towers.read_text_tower(tmp_path / "open.safetensors", TEXT._replace(num_hidden_layers=2))
    assert set(fewer) == {name for name in arrays if ".layers.2." not in name}

    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    model = transformers.CLIPTextModel.from_pretrained(tmp_path / "text").eval()
    tokens = np.array([text.tokenize(each) for each in ("a door", "1")])
    with torch.no_grad():
        states = model(torch.from_numpy(tokens), output_hidden_states=True)
        penultimate = model.get_submodule("final_layer_norm")(states.hidden_states[-2]).numpy()
    np.testing.assert_allclose(found, states.last_hidden_state.numpy(), atol=1e-4)
    skipped = encode_text(fewer, tokens, config=TEXT._replace(num_hidden_layers=2))
    np.testing.assert_allclose(skipped, penultimate, atol=1e-4)


def test_image_tokens_are_those_before_the_last_layer(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    sizes = {name: getattr(VISION, name) for name in VISION._fields}
    model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**sizes)).eval()
    model.save_pretrained(tmp_path)
    frames = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), np.uint8)
    loaded = load_clip_images(tmp_path)
    found = loaded.embed(frames)
    pixels = network.preprocess(frames, size=16)
    with torch.no_grad():
        expected = model(torch.from_numpy(pixels).permute(0, 3, 1, 2), output_hidden_states=True).hidden_states[-2]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    arrays = {f"vision_model.{name}": value for name, value in load_file(tmp_path / "model.safetensors").items()}
    save_file(
        to_open_clip(arrays, "clip_model.model.") | {"clip_model.model.visual.proj": np.ones(3, np.float32)},
        tmp_path / "whole.safetensors",
    )
    config = VISION._replace(num_hidden_layers=2)
    same = towers.read_vision_tower(tmp_path / "whole.safetensors", config)
    np.testing.assert_allclose(encode_image_tokens(same, pixels, config=config), found, atol=1e-6)


def test_every_array_of_vit_h_is_known():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    sizes = TextConfig()._asdict()
    sizes["max_position_embeddings"] = sizes.pop("num_tokens")
    with torch.device("meta"):
        text = transformers.CLIPTextModel(transformers.CLIPTextConfig(**sizes)).state_dict()
        vision = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**towers.VIT_H._asdict())).state_dict()
    for theirs, tower, shapes in (
        (text, "text_model", towers.text_shapes(TextConfig())),
        (vision, "vision_model", towers.vision_shapes(towers.VIT_H)),
    ):
        assert {f"{tower}.{name}": tuple(x.shape) for name, x in theirs.items() if "position_ids" not in name} == shapes
    counts = [
        sum(map(np.prod, shapes.values()))
        for shapes in (towers.text_shapes(TextConfig()), towers.vision_shapes(towers.VIT_H))
    ]
    assert counts == [352_984_064, 630_766_080]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(model_type="bert"), "model_type"),
        (dict(hidden_act="relu"), "hidden_act"),
        (dict(hidden_size=13), "hidden_size"),
        (dict(vocab_size=50), "has shape"),
        (dict(num_hidden_layers=4), "arrays are missing"),
        (dict(vocab_size=3), "has 16 tokens"),
    ],
)
def test_another_text_encoder_is_refused_in_one_line(tmp_path, changes, words):
    write_tokenizer(tmp_path)
    write_text_tower(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**TEXT_JSON, **changes}))
    with pytest.raises(UserError, match=words) as caught:
        load_clip_text(tmp_path, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("merges.txt", "a b c\n", "two pieces"),
        ("merges.txt", "x y\n", "not readable as a tokenizer"),
        ("vocab.json", '{"a": "b"}', "no token numbers"),
        ("vocab.json", '{"a": 0}', r"not readable|has no tokens"),
        ("vocab.json", "[", "cannot be read as JSON"),
    ],
)
def test_a_damaged_tokenizer_is_refused_in_one_line(tmp_path, file, content, words):
    write_tokenizer(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=words) as caught:
        tokenizers.read_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(UserError, match=r"vocab\.json with merges\.txt"):
        tokenizers.read_tokenizer(tmp_path)
