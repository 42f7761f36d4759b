"""A small random BERT folder as Hugging Face writes them, and a float64 oracle of what it computes."""

import json
import math

import numpy as np
from safetensors.numpy import save_file

from dimo_jax.third_party.bert import expected_shapes

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", "it", "waves", "wave", "##s", "left", "right"]
WORDS += ["hand", "jump", "##ing", "and", ".", ","]
CONFIG = {
    "model_type": "bert",
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "vocab_size": len(WORDS),
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}


def random_weights(config, seed=0):
    """Float64 arrays by Hugging Face's names."""
    generator = np.random.default_rng(seed)
    weights = {}
    for name, shape in expected_shapes(config).items():
        scale = 1.0 if "LayerNorm" in name or "embeddings" in name else 0.5
        weights[name] = generator.normal(0, scale, shape).astype(np.float32).astype(np.float64)
    return weights


def write_folder(folder, *, config=CONFIG, weights=None, rename=lambda name: name, extra=()):
    """Writes config.json, model.safetensors and vocab.txt; `extra` are more (file, JSON) pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    weights = random_weights(config) if weights is None else weights
    save_file({rename(name): array.astype(np.float32) for name, array in weights.items()}, folder / "model.safetensors")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    for name, value in extra:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    return weights


def _norm(x, weight, bias, eps):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


def _gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def oracle(weights, config, tokens):
    """The last hidden state [L,E] of ONE sentence without padding, in float64, head by head and word by word."""

    def dense(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        return _norm(x, weights[f"{name}.weight"], weights[f"{name}.bias"], config["layer_norm_eps"])

    x = np.stack(
        [
            weights["embeddings.word_embeddings.weight"][token]
            + weights["embeddings.position_embeddings.weight"][place]
            + weights["embeddings.token_type_embeddings.weight"][0]
            for place, token in enumerate(tokens)
        ]
    )
    x = norm(x, "embeddings.LayerNorm")
    size = config["hidden_size"] // config["num_attention_heads"]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"encoder.layer.{layer}"
        query, key, value = (dense(x, f"{prefix}.attention.self.{name}") for name in ("query", "key", "value"))
        attended = np.zeros_like(x)
        for head in range(config["num_attention_heads"]):
            part = slice(head * size, (head + 1) * size)
            for i in range(len(tokens)):
                scores = np.array([query[i, part] @ key[j, part] / math.sqrt(size) for j in range(len(tokens))])
                shares = np.exp(scores - scores.max())
                attended[i, part] = (shares / shares.sum()) @ value[:, part]
        x = norm(x + dense(attended, f"{prefix}.attention.output.dense"), f"{prefix}.attention.output.LayerNorm")
        inner = _gelu(dense(x, f"{prefix}.intermediate.dense"))
        x = norm(x + dense(inner, f"{prefix}.output.dense"), f"{prefix}.output.LayerNorm")
    return x
