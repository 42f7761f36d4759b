"""The motion model of DIMO's authors: `timenet.pth` and its latent codes, as parameters of ours.

Facts of the format, and where it differs from the paper, are in README.md beside this file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError

from ..torch_files import load_tensors

POSITION_BANDS = 10
TIME_BANDS = 6
_ENCODED = 2 * (3 * POSITION_BANDS + TIME_BANDS)
MAX_LAYERS = 64


@dataclass(frozen=True)
class MotionModel:
    """A decoder's variables in our layout, the sizes that they imply, and a code per motion."""

    variables: dict[str, Any]  # flax variables of `model.decoder.MotionDecoder`
    width: int
    depth: int
    skip: int  # index of the layer that sees the inputs again
    head_width: int
    mu: np.ndarray  # [M,D] float32
    log_sigma: np.ndarray | None  # [M,D]; None of plain codes
    names: tuple[str, ...]  # [M] motions in the order of their codes; () if the files do not say


def find_file(folder: Path, name: str, *, step: int = 0) -> Path:
    """The file `name` of a checkpoint: the final one, or with a step `<stem>_<step><suffix>`.

    Raises:
      UserError: it is not there; the message lists the steps that are.
    """
    stem, suffix = name.rsplit(".", 1)
    path = folder / (f"{stem}_{step}.{suffix}" if step else name)
    if not path.is_file():
        steps = sorted(int(found[1]) for entry in folder.glob(f"{stem}_*.{suffix}")
                       if (found := re.fullmatch(rf"{stem}_(\d+)\.{suffix}", entry.name)))  # fmt: skip
        others = f" (there are --step={', '.join(str(s) for s in steps)})" if steps else ""
        raise UserError(f"{path}: no such file, expected the authors' model{others}")
    return path


def read_motion_model(folder: Path, *, step: int = 0) -> MotionModel:
    """Reads `timenet.pth` and `latent_codes.pth`, or `mu.pth` and `log_var.pth`.

    Args:
      folder: of one stage of the authors' run (`s2`).
      step: of an intermediate checkpoint; 0 takes the final one.

    Raises:
      UserError: a file that is missing, damaged, or not of that model.
    """
    if not (folder / "latent_codes.pth").is_file() and any(folder.glob("mu*.pth")):
        mu_path, log_var_path = (find_file(folder, name, step=step) for name in ("mu.pth", "log_var.pth"))
        mu, log_var = _read_codes(mu_path), _read_codes(log_var_path)
        if mu.shape != log_var.shape:
            raise UserError(f"{log_var_path}: shape {list(log_var.shape)}, expected {list(mu.shape)} as {mu_path.name}")
        log_sigma: np.ndarray | None = 0.5 * log_var
    else:
        mu, log_sigma = _read_codes(find_file(folder, "latent_codes.pth", step=step)), None
    path = find_file(folder, "timenet.pth", step=step)
    state = _read_state(path)
    depth = sum(name.startswith("deformnet.") and name.endswith(".weight") for name in state)
    if not 1 <= depth <= MAX_LAYERS:
        raise UserError(f"{path}: {depth} layers deformnet.N.weight, expected 1 to {MAX_LAYERS}")
    width, num_inputs = _shape(state, "deformnet.0.weight", path)
    if num_inputs != _ENCODED + mu.shape[1]:
        raise UserError(
            f"{path}: {num_inputs} inputs, expected {_ENCODED + mu.shape[1]} (position in {POSITION_BANDS} bands, time "
            f"in {TIME_BANDS}, and a code of {mu.shape[1]})"
        )
    wide = [n for n in range(1, depth) if _shape(state, f"deformnet.{n}.weight", path)[1] == width + num_inputs]
    if len(wide) != 1:
        raise UserError(f"{path}: layers {wide} see the inputs again, expected one of {depth} to")
    head_width = _shape(state, "pts_layers.0.weight", path)[0]
    layers = {
        f"layer_{n}": _dense(state, f"deformnet.{n}", path, width + num_inputs if n == wide[0] else width, width)
        for n in range(1, depth)
    }
    layers["layer_0"] = _dense(state, "deformnet.0", path, num_inputs, width)
    for name in ("layer_0", f"layer_{wide[0]}"):
        layers[name]["kernel"] = _reorder_inputs(layers[name]["kernel"])
    for ours, theirs, size in (("translation", "pts_layers", 3), ("rotation", "rot_layers", 4)):
        layers[f"{ours}_hidden"] = _dense(state, f"{theirs}.0", path, width, head_width)
        layers[ours] = _dense(state, f"{theirs}.2", path, head_width, size)
    return MotionModel(
        {"params": layers}, width, depth, wide[0], head_width, mu, log_sigma, _read_names(folder, len(mu))
    )


def _read_codes(path: Path) -> np.ndarray:
    codes = load_tensors(path)
    if not isinstance(codes, np.ndarray) or codes.ndim != 2 or 0 in codes.shape or codes.dtype.kind != "f":
        found = f"{codes.dtype} {list(codes.shape)}" if isinstance(codes, np.ndarray) else type(codes).__name__
        raise UserError(f"{path}: found {found}, expected a tensor of codes [motions, size]")
    return _finite(codes, path, "codes")


def _finite(values: np.ndarray, path: Path, what: str) -> np.ndarray:
    result = np.array(values, np.float32)
    if not np.isfinite(result).all():
        raise UserError(f"{path}: {what} has values that are not finite")
    return result


def _read_state(path: Path) -> Mapping[str, np.ndarray]:
    state = load_tensors(path)
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, np.ndarray) for name, value in state.items()
    ):
        raise UserError(f"{path}: found {type(state).__name__}, expected a state dict of tensors")
    return state


def _shape(state: Mapping[str, np.ndarray], name: str, path: Path) -> tuple[int, int]:
    value = state.get(name)
    if value is None or value.ndim != 2:
        raise UserError(f"{path}: found no matrix {name!r}, expected the layers deformnet, pts_layers and rot_layers")
    return value.shape[0], value.shape[1]


def _dense(state: Mapping[str, np.ndarray], name: str, path: Path, num_in: int, num_out: int) -> dict[str, np.ndarray]:
    """A layer in flax's layout: kernel [in,out], where torch keeps weight [out,in]."""
    result = {}
    for ours, theirs, shape in (("kernel", "weight", (num_out, num_in)), ("bias", "bias", (num_out,))):
        value = state.get(f"{name}.{theirs}")
        if value is None or value.shape != shape or value.dtype.kind != "f":
            found = "nothing" if value is None else f"{value.dtype} {list(value.shape)}"
            raise UserError(f"{path}: {name}.{theirs} is {found}, expected floats {list(shape)}")
        result[ours] = _finite(value, path, f"{name}.{theirs}").T.copy()
    return result


def _reorder_inputs(kernel: np.ndarray) -> np.ndarray:
    """The rows of a layer that sees the inputs, from the authors' order of sines and cosines to ours.

    Theirs is, for each band, the sines of all coordinates and then their cosines; ours all sines, coordinate by
    coordinate and in each band by band, and then all cosines. Codes and what lies behind them stay.
    """
    order, start = [], 0
    for coordinates, bands in ((3, POSITION_BANDS), (1, TIME_BANDS)):
        theirs = start + np.arange(2 * coordinates * bands).reshape(bands, 2, coordinates)
        order.append(theirs.transpose(1, 2, 0).reshape(-1))
        start += theirs.size
    order.append(np.arange(start, len(kernel)))
    return kernel[np.concatenate(order)]


def _read_names(folder: Path, num_motions: int) -> tuple[str, ...]:
    path = folder / "motion_order.json"
    if not path.is_file():
        return ()
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(names, list) or len(names) != num_motions or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: expected a list of {num_motions} names, as many as there are codes")
    return tuple(names)
