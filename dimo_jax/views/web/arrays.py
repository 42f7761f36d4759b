"""The numbers of a page: what a model consists of, as named arrays, and as text within HTML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.geometry.neighbors import nearest
from dimo_jax.runs.restore import Restored
from dimo_jax.systems.dimo.basis_decoder import BasisDecoder, encode_points
from dimo_jax.training import latents
from dimo_jax.views.plots import project_latents

NUM_SAMPLES = 256
# 85 printable characters of ASCII without "<" and "&", which mean something in HTML.
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%()*+-;=?@^_{|}~[]:."
# Halved with `half`: codes are few and are copied out as text, and what is rounded before a sine must not be.
HALVED = ("means", "log_scales", "quats", "logit_opacities", "sh", "basis")


def collect_arrays(model: Restored) -> dict[str, np.ndarray]:
    """What `model.js` computes with: float32, and indices as uint16.

    Dead Gaussians are left out. Of a basis decoder the points' basis comes in the place of the layers that make it.
    """
    player = model.player
    params = jax.device_get(player.params)
    alive = player.alive
    gaussians = params.gaussians[alive]
    positions = params.key_points.positions
    arrays = {name: getattr(gaussians, name) for name in ("means", "log_scales", "quats", "logit_opacities", "sh")}
    arrays |= dict(positions=positions, log_radii=params.key_points.log_radii)
    if params.light is not None:
        arrays["light"] = params.light
    arrays["codes"] = params.latents.mu[model.trained_motions]
    chosen, arrays["noise"] = _draw_samples(arrays["codes"])
    center, axes, _ = project_latents(arrays["codes"])
    arrays |= dict(center=center, axes=np.ascontiguousarray(axes.T))
    arrays |= _collect_decoder(model)
    arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    return arrays | {"chosen": chosen, "nearest": _find_nearest(model, gaussians.means, positions)}


def _draw_samples(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the draws of seeds 0, 1, ...: which code [N] each is near, and its noise [N,D]; the page knows the spread."""
    parts = [latents.draw_parts(jax.random.key(k), jnp.asarray(codes), num_samples=1) for k in range(NUM_SAMPLES)]
    chosen, noise = (np.concatenate([np.asarray(part) for part in each]) for each in zip(*parts, strict=True))
    return chosen.astype(np.uint16), noise


def _find_nearest(model: Restored, means: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Key points next to each Gaussian: one, whose edges in the graph count, or where there is none all [N,J]."""
    graph: Any = model.player.components.graph
    given = getattr(graph, "keywords", {}).get("num_neighbors", 4)
    count = min(given, len(positions)) if graph.func.__name__ == "canonical_neighbors" else 1
    return np.asarray(nearest(jnp.asarray(means), jnp.asarray(positions), num_neighbors=count)[0]).astype(np.uint16)


def _collect_decoder(model: Restored) -> dict[str, np.ndarray]:
    decoder: Any = model.player.components.decoder
    layers = jax.device_get(model.player.params.decoder)["params"]
    flat = {f"{layer}/{kind}": array for layer, both in layers.items() for kind, array in both.items()}
    if not isinstance(decoder, BasisDecoder):
        return flat
    positions = model.player.params.key_points.positions
    branch = {name: array for name, array in flat.items() if not name.startswith(("trunk", "basis"))}
    return branch | {"basis": encode_points(decoder, model.player.params.decoder, positions)}


def halve(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same with float16 where little is lost: Gaussians and the decoder's weights."""
    return {
        name: array.astype(np.float16) if name in HALVED or "/" in name else array for name, array in arrays.items()
    }


def pack(arrays: Mapping[str, np.ndarray]) -> tuple[list[dict[str, Any]], str]:
    """Arrays as one text of base 85, and where each stands in its bytes: name, type, shape, offset.

    A number of 32 bits takes five characters, which base 64 writes in 5.33. Arrays in float32 that are not compared or
    rounded to the bit have 28 bits a number, see `shorten`.
    """
    told, parts, offset = [], [], 0
    for name, array in sorted(arrays.items()):
        kind: dict[str, Any] = dict(type=array.dtype.name)
        little = array.astype(array.dtype.newbyteorder("<")).tobytes()
        if (name in (*HALVED, "noise") or "/" in name) and array.dtype == np.float32 and np.isfinite(array).all():
            little, exponent = shorten(array)
            kind = dict(type="float28", exponent=exponent)
        little += b"\0" * (-len(little) % 4)
        told.append(dict(name=name, shape=list(array.shape), offset=offset, **kind))
        parts.append(little)
        offset += len(little)
    words = np.frombuffer(b"".join(parts), "<u4").astype(np.uint64)
    digits = np.stack([words // 85**place % 85 for place in range(4, -1, -1)], axis=1).astype(np.uint8)
    letters = np.frombuffer(ALPHABET.encode(), np.uint8)
    return told, letters[digits].tobytes().decode()


def shorten(array: np.ndarray) -> tuple[bytes, int]:
    """Finite float32 numbers as 28 bits each: a sign, 4 bits of exponent under the largest one's, 23 of fraction.

    Exact down to 2^-14 of the array's largest magnitude, and below within 2^-38 of it.

    Returns:
      Seven bytes for two numbers, and the exponent of the smallest step.
    """
    values = np.abs(array.ravel().astype(np.float64))
    largest = int(np.frexp(values.max(initial=0.0))[1])
    places = np.where(values > 0, np.maximum(np.frexp(values)[1] - largest + 15, 1), 1)
    whole = np.rint(np.ldexp(values, 39 - places - largest)).astype(np.uint64)
    # A number that has its leading bit goes one place on with it, to 1 to 15; place 0 is that of smaller ones.
    codes = whole + ((places - 1).astype(np.uint64) << np.uint64(23))
    codes |= np.signbit(array.ravel()).astype(np.uint64) << np.uint64(27)
    low, high = np.append(codes, np.zeros(len(codes) % 2, np.uint64)).reshape(-1, 2).T
    pairs = (low | high << np.uint64(28)).astype("<u8")
    return pairs.view(np.uint8).reshape(-1, 8)[:, :7].tobytes(), largest - 38
