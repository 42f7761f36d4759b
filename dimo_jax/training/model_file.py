"""A trained model as one self-contained file that every app's `--workdir` reads back.

An npz without pickles: `version` int32 (1); `step` int32, training steps taken; `config` and `facts`, JSON texts (how
it was trained; names, captions, times and a camera of its data); `alive` bool [N]; and every parameter under its path:
`params/latents/mu`, `params/key_points/positions`, `params/gaussians/means`, `params/decoder/...`. The optimizer's
state is left out, so a model file plays and fits codes, and training goes on from the run's folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.serialization
import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array, Params
from dimo_jax.runtime.files import replace_file
from dimo_jax.training.checkpoints import MODEL_VERSION, ModelFile


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
