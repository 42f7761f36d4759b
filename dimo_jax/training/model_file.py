"""A trained model as one self-contained file that every app's `--workdir` reads back.

An npz without pickles: `version` int32 (1); `step` int32, training steps taken; `config` and `facts`, JSON texts (how
it was trained; names, captions, times and a camera of its data); `alive` bool [N]; and every parameter under its path:
`params/latents/mu`, `params/key_points/positions`, `params/gaussians/means`, `params/decoder/...`. The optimizer's
state is left out, so a model file plays and fits codes, and training goes on from the run's folder.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.serialization
import flax.traverse_util
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dimo_jax.core.errors import UserError
from dimo_jax.core.renames import rename_functions
from dimo_jax.core.types import Array, Params
from dimo_jax.io.npz import read_npz
from dimo_jax.runtime.files import replace_file

MODEL_VERSION = 1
MAX_MODEL_BYTES = 4 << 30  # of a model file, after decompression
# Packages and modules that a config's slots may name where it comes from outside: none with a function that writes.
_COMPONENTS: tuple[str, ...] = ("losses", "metrics", "render", "skinning", "systems")
_COMPONENTS += (
    "data.puppet.dataset",
    "training.density",
    "training.gaussians",
    "training.latents",
    "training.schedules",
)


@dataclass(frozen=True)
class ModelFile:
    """What `write_model` wrote."""

    config: ConfigDict
    facts: dict[str, Any]
    step: int
    arrays: dict[str, np.ndarray]  # "params/..." by path, and "alive"


def load_model_file(path: Path) -> ModelFile:
    """Reads a trained model from one file; nothing in it is unpickled.

    Raises:
      UserError: not such a file, too large, or its config names a function outside of dimo_jax: a model that somebody
        sends must not choose what is run.
    """
    expected = "one of --app=export --format=checkpoint"
    arrays = read_npz(path, f"a model file, {expected}", max_bytes=MAX_MODEL_BYTES)
    try:
        version, step = int(arrays.pop("version")), int(arrays.pop("step"))
        config, facts = (json.loads(str(arrays.pop(name))) for name in ("config", "facts"))
        if not isinstance(config, dict) or not isinstance(facts, dict):
            raise ValueError("config and facts are not objects")
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(f"{path}: not a model file ({reason}), expected {expected}") from error
    if version != MODEL_VERSION:
        raise UserError(f"{path}: found a model file of version {version}, expected {MODEL_VERSION}")
    config = rename_functions(config)
    for key, name in _find_functions(config, "config"):
        if not _is_component(name):
            raise UserError(
                f"{path}: {key} names {str(name)[:80]!r}, expected a function of dimo_jax in a model file; models with "
                "components of your own are used from the run's folder"
            )
    return ModelFile(ConfigDict(config), facts, step, arrays)


def write_model(
    params: Params,
    alive: Array | np.ndarray,
    path: Path | str,
    *,
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    step: int,
) -> Path:
    """Writes a model, atomically.

    Args:
      params: the parameters.
      alive: [N] bool, slots of `params.gaussians` in use.
      path: the file to write, ending in `.npz`.
      config: plain mapping of the run's config.
      facts: of its data, as in the run's facts.json.
      step: training steps taken.

    Returns:
      `path`.
    """
    tree = {"params": flax.serialization.to_state_dict(params)}
    arrays: dict[str, Any] = {
        name: np.asarray(value) for name, value in flax.traverse_util.flatten_dict(tree, sep="/").items()
    }
    texts = {
        name: np.str_(json.dumps(value, allow_nan=False)) for name, value in (("config", config), ("facts", facts))
    }
    arrays |= {"alive": np.asarray(alive, bool), "version": np.int32(MODEL_VERSION), "step": np.int32(step), **texts}
    with replace_file(path) as temporary:
        np.savez_compressed(temporary, **arrays)
    return Path(path)


def restore_params(file: ModelFile, template: Params, path: Path | str) -> tuple[Params, Array]:
    """The parameters and `alive` [N] of a model file.

    Args:
      file: what `checkpoints.load_model_file` read.
      template: shapes and types that its config asks for (arrays or ShapeDtypeStructs).
      path: of the file, for errors.

    Raises:
      UserError: an array that is missing, too many, or of another shape or type.
    """
    wanted = flax.traverse_util.flatten_dict({"params": flax.serialization.to_state_dict(template)}, sep="/")
    found = dict(file.arrays)
    alive = found.pop("alive", None)
    num_gaussians = template.gaussians.means.shape[0]
    if alive is None or alive.shape != (num_gaussians,) or alive.dtype != bool:
        raise UserError(f"{path}: array 'alive' is missing or of a wrong shape, expected bool [{num_gaussians}]")
    for name in sorted({*wanted, *found}):
        if name not in wanted:
            raise UserError(f"{path}: found the array {name!r}, expected those of its config's model alone")
        shape, dtype = wanted[name].shape, wanted[name].dtype
        if name not in found or found[name].shape != shape or found[name].dtype != dtype:
            have = f"{found[name].dtype} {list(found[name].shape)}" if name in found else "none"
            raise UserError(f"{path}: array {name!r}: found {have}, expected {dtype} {list(shape)}")
    nested = flax.traverse_util.unflatten_dict({name: jnp.asarray(value) for name, value in found.items()}, sep="/")
    params: Params = flax.serialization.from_state_dict(template, nested["params"])
    return params, jnp.asarray(alive)


def _is_component(name: Any) -> bool:
    """Whether `name` is "module:function" of a package with components, defined there and not imported from elsewhere.

    What a module imports is its attribute, too: through it a config could write files.
    """
    module, _, function = str(name).partition(":")
    if not f"{module}.".startswith(tuple(f"dimo_jax.{name}." for name in _COMPONENTS)):
        return False
    try:
        found = getattr(importlib.import_module(module), function, None)
    except (ImportError, ValueError):
        return False
    return getattr(found, "__module__", "") == module


def _find_functions(config: Any, key: str) -> list[tuple[str, Any]]:
    """All `fn` of a config, with the keys that lead there."""
    if isinstance(config, list):
        return [found for index, each in enumerate(config) for found in _find_functions(each, f"{key}[{index}]")]
    if not isinstance(config, dict):
        return []
    own = [(f"{key}.fn", config["fn"])] if "fn" in config else []
    return own + [found for name, each in config.items() for found in _find_functions(each, f"{key}.{name}")]
