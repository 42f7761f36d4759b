"""Reads named arrays of checkpoints: one safetensors file, shards with their index, or a `.pth` file of torch.save.

Nothing is executed or unpickled: safetensors holds arrays only, and `.pth` files go through `third_party.torch_files`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError

from .torch_files import load_tensors

MAX_JSON_BYTES = 64 << 20
MAX_LAYERS = 1024  # a model with more is a mistake, of which the names alone would take long to list
_FLOATS = ("F64", "F32", "F16", "BF16")
_INDEX = ".safetensors.index.json"

Shapes = Mapping[str, tuple[int, ...]]
# Shape, type as safetensors names it, and what reads the array.
_Entry = tuple[tuple[int, ...], str, Callable[[], np.ndarray]]


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file.

    Raises:
      UserError: no such file, one that is too large, or no object.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes, expected {MAX_JSON_BYTES} at most")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found, expected a JSON file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: found {type(value).__name__}, expected an object")
    return value


def read_positive(config: Mapping[str, Any], key: str, default: int | None, path: Path, *, most: int = 1 << 24) -> int:
    """A whole number from 1 to `most` of a config.

    Raises:
      UserError: it is missing and has no default, or it is something else.
    """
    value = config.get(key, default)
    if type(value) is not int or not 1 <= value <= most:
        raise UserError(f"{path}: {key} is {str(value)[:40]}, expected a positive integer up to {most}")
    return value


def read_share(config: Mapping[str, Any], key: str, default: float, path: Path) -> float:
    """A number between 0 and 1 of a config, such as what keeps a division from 0.

    Raises:
      UserError: it is something else.
    """
    value = config.get(key, default)
    if type(value) not in (int, float) or not 0 < value < 1:
        raise UserError(f"{path}: {key} is {str(value)[:40]!r}, expected a number from 0 to 1")
    return float(value)


def read_sizes(config: Mapping[str, Any], key: str, default: list[int], path: Path, *, most: int) -> tuple[int, ...]:
    """A list of one to eight whole numbers from 1 to `most` of a config.

    Raises:
      UserError: it is something else.
    """
    values = config.get(key, default)
    if not isinstance(values, list) or not 1 <= len(values) <= 8:
        raise UserError(f"{path}: {key} is {str(values)[:40]}, expected a list of positive integers")
    if not all(type(value) is int and 1 <= value <= most for value in values):
        raise UserError(f"{path}: {key} is {str(values)[:40]}, expected positive integers up to {most}")
    return tuple(values)


def list_names(path: Path, what: str) -> list[str]:
    """Names of the arrays of a checkpoint, see `read_arrays`.

    Raises:
      UserError: a file that is missing, cut short or damaged.
    """
    return list(_list_entries(path, what))


def read_arrays(path: Path, shapes: Shapes, *, rename: Callable[[str], str | None], what: str) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint, all of them and no others.

    Args:
      path: a `.safetensors` or `.pth` file, or a folder with one safetensors file or with shards and their index.
      shapes: of the arrays that are expected, by the names of the diffusers (or transformers) layout. What is a dense
        layer here may be a convolution of one place in the file.
      rename: name in the file -> name in `shapes`; one that it does not know it returns as it is, and None stands for
        an array of another model that shares the file.
      what: the model, for messages.

    Returns:
      Arrays by the names of `shapes`, in the file's type of number (float64, float32, float16 or bfloat16).

    Raises:
      UserError: a file that is missing, cut short or damaged; an array that is missing, of another shape or type, or
        not known.
    """
    found = {}
    for name, entry in _list_entries(path, what).items():
        if (ours := rename(name)) is not None:
            found[ours] = entry
    missing = [name for name in shapes if name not in found]
    if missing:
        example = next((name for name in found if name not in shapes), "none")
        raise UserError(
            f"{path}: {len(missing)} of {len(shapes)} arrays are missing, such as {missing[0]} (others are there, such "
            f"as {example[:60]}), expected {what}"
        )
    for name, (shape, kind, _) in found.items():
        if name not in shapes:
            raise UserError(f"{path}: array {name[:60]} is not known, expected {what} and nothing else")
        if kind not in _FLOATS:
            raise UserError(f"{path}: array {name} is {kind}, expected one of {', '.join(_FLOATS)}")
        if shape not in (tuple(shapes[name]), (*shapes[name], 1, 1)):
            raise UserError(f"{path}: array {name} has shape {list(shape)}, expected {list(shapes[name])}")
    return {name: found[name][2]().reshape(shape) for name, shape in shapes.items()}


def _list_entries(path: Path, what: str) -> dict[str, _Entry]:
    if path.is_dir():
        indices, files = sorted(path.glob(f"*{_INDEX}")), sorted(path.glob("*.safetensors"))
        if len(indices) == 1:
            return _list_shards(indices[0])
        if len(indices) > 1 or len(files) != 1:
            raise UserError(
                f"{path}: found {len(files)} safetensors files and {len(indices)} indices, expected one file, or "
                f"shards with one index, of {what}"
            )
        path = files[0]
    if not path.is_file():
        raise UserError(f"{path}: not found, expected {what}")
    if path.name.endswith(_INDEX):
        return _list_shards(path)
    return _list_torch(path) if path.suffix in (".pth", ".pt", ".bin") else _list_safetensors(path)


def _list_shards(index: Path) -> dict[str, _Entry]:
    """The arrays of all shards that an index names, each from the shard that it names for it."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(type(shard) is str for shard in places.values()):
        raise UserError(f"{index}: weight_map is {type(places).__name__}, expected names of arrays with their files")
    entries: dict[str, _Entry] = {}
    for shard in sorted(set(places.values())):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise UserError(f"{index}: names the shard {shard[:60]!r}, expected a safetensors file beside the index")
        if not (index.parent / shard).is_file():
            raise UserError(f"{index.parent / shard}: not found, expected the shard that {index.name} names")
        held = _list_safetensors(index.parent / shard)
        for name in (name for name, place in places.items() if place == shard):
            if name not in held:
                raise UserError(f"{index.parent / shard}: has no array {name[:60]}, which {index.name} places there")
            entries[name] = held[name]
    return entries


def _list_safetensors(path: Path) -> dict[str, _Entry]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise UserError(f"{path}: package safetensors not found (pip install 'dimo_jax[text]')") from error
    try:
        file = safe_open(path, framework="numpy")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({' '.join(str(error).split())[:200]})") from error

    def entry(name: str, part: Any) -> _Entry:
        return tuple(part.get_shape()), part.get_dtype(), lambda: file.get_tensor(name)

    return {name: entry(name, part) for name, part in slices.items()}


def _list_torch(path: Path) -> dict[str, _Entry]:
    kinds = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
    tensors = load_tensors(path)
    if not isinstance(tensors, dict) or not all(isinstance(x, np.ndarray) for x in tensors.values()):
        raise UserError(f"{path}: found no table of tensors, expected a state_dict")

    def entry(array: np.ndarray) -> _Entry:
        return array.shape, kinds.get(array.dtype.name, array.dtype.name), lambda: array

    return {str(name): entry(array) for name, array in tensors.items()}
