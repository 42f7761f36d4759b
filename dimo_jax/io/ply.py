"""Gaussians as a binary PLY file in the layout of 3D Gaussian Splatting, which splat viewers and editors open.

Properties of the one element `vertex`, all little-endian float32, in this order: `x y z`, `nx ny nz` (unused, 0),
`f_dc_0..2`, `f_rest_*` (channel-major: all higher coefficients of red, then green, then blue), `opacity` (logit),
`scale_0..2` (log), `rot_0..3` (wxyz, not normalized: readers normalize).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import chex
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Gaussians
from dimo_jax.runtime.files import replace_file

_MAX_HEADER_BYTES = 65536
_SCALARS = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip


class Written(NamedTuple):
    """What `write_gaussians` did with its input: `num_written + num_dead + num_invalid` is N."""

    num_written: int
    num_dead: int  # `logit_opacities` is not finite: an unused slot of a fixed-capacity array
    num_invalid: int  # alive, but a mean, scale, quaternion or colour is NaN or infinite


def _field_names(num_rest: int) -> list[str]:
    rest = [f"f_rest_{i}" for i in range(num_rest)]
    scales_and_rotations = [f"scale_{i}" for i in range(3)] + [f"rot_{i}" for i in range(4)]
    return ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity", *scales_and_rotations]


def find_drawable(gaussians: Gaussians) -> tuple[np.ndarray, np.ndarray]:
    """Which Gaussians are in use, and which have parameters that can be drawn: two masks [N].

    A `log_scales` of -inf (a flat Gaussian) is valid; another parameter that is NaN or infinite is not.
    """
    means, log_scales, quats, logits, sh = (
        np.asarray(a, np.float32)
        for a in (gaussians.means, gaussians.log_scales, gaussians.quats, gaussians.logit_opacities, gaussians.sh)
    )
    num = means.shape[0]
    chex.assert_shape([means, log_scales, quats, logits], [(num, 3), (num, 3), (num, 4), (num,)])
    chex.assert_shape(sh, (num, None, 3))
    if math.isqrt(sh.shape[1]) ** 2 != sh.shape[1] or sh.shape[1] == 0:
        raise ValueError(f"sh has {sh.shape[1]} coefficients, expected a square number (degree + 1)^2")
    flat = np.where(np.isneginf(log_scales), np.float32(0), log_scales)
    columns = np.concatenate([means, sh.reshape(num, 3 * sh.shape[1]), flat, quats], axis=1)
    return np.isfinite(logits), np.isfinite(columns).all(axis=1)


def write_gaussians(gaussians: Gaussians, path: Path | str) -> Written:
    """Writes Gaussians as a 3DGS PLY file, atomically. Values are stored as they are, so a round trip is exact.

    Left out and counted: dead Gaussians (`logit_opacities` not finite), and invalid ones (another parameter NaN or
    infinite), which the renderer draws as nothing and other programs may choke on. A `log_scales` of -inf (a flat
    Gaussian) is valid.

    Args:
      gaussians: float32, without batch axes (means [N,3]; sh [N,(degree+1)^2,3]).
      path: the file to write; by custom ends in `.ply`.

    Returns:
      How many were written and how many left out, and why.
    """
    means, log_scales, quats, logits, sh = (
        np.asarray(a, np.float32)
        for a in (gaussians.means, gaussians.log_scales, gaussians.quats, gaussians.logit_opacities, gaussians.sh)
    )
    alive, valid = find_drawable(gaussians)
    num = len(alive)
    rest = sh[:, 1:].transpose(0, 2, 1).reshape(num, 3 * (sh.shape[1] - 1))
    rows = np.concatenate([means, np.zeros_like(means), sh[:, 0], rest, logits[:, None], log_scales, quats], axis=1)
    rows = rows[alive & valid]

    properties = "".join(f"property float {name}\n" for name in _field_names(rest.shape[1]))
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n{properties}end_header\n"
    with replace_file(path) as temporary, temporary.open("wb") as file:
        file.write(header.encode("ascii"))
        file.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())
    return Written(len(rows), int((~alive).sum()), int((alive & ~valid).sum()))


def _read_header(file: BinaryIO, path: Path) -> list[str]:
    lines: list[str] = []
    size = 0
    while not lines or lines[-1] != "end_header":
        line = file.readline(_MAX_HEADER_BYTES)
        size += len(line)
        if not line or size > _MAX_HEADER_BYTES or (not lines and line.strip() != b"ply"):
            raise UserError(f"{path}: found no PLY header, expected a 3DGS PLY file")
        lines.append(line.decode("ascii", "replace").strip())
    return lines


def _parse_header(lines: list[str], path: Path) -> tuple[int, np.dtype]:
    """Gives the number of rows and the row type of the element `vertex`, which must come first."""
    num: int | None = None
    fields: list[tuple[str, str]] = []
    num_elements = 0
    for words in (line.split() for line in lines):
        if words[:1] == ["format"] and words[1:2] != ["binary_little_endian"]:
            raise UserError(f"{path}: found PLY format {' '.join(words[1:])[:60]!r}, expected binary_little_endian")
        if words[:1] == ["element"]:
            num_elements += 1
            if num_elements == 1 and words[1:2] == ["vertex"] and len(words) == 3 and words[2].isdecimal():
                num = int(words[2])
        if words[:1] == ["property"] and num_elements == 1:
            if len(words) != 3 or words[1] not in _SCALARS:
                raise UserError(
                    f"{path}: found {' '.join(words)[:60]!r}, expected scalar properties of the element vertex"
                )
            fields.append((words[2], "<" + _SCALARS[words[1]]))
    if num is None:
        raise UserError(f"{path}: found no first element 'vertex' with a count, expected a 3DGS PLY file")
    names = [name for name, _ in fields]
    if len(set(names)) != len(names):
        raise UserError(f"{path}: found a property twice, expected every property once")
    return num, np.dtype(fields)


def read_vertices(path: Path | str, required: Sequence[str], *, kind: str = "a 3DGS PLY file") -> np.ndarray:
    """Reads the rows of the element `vertex` of a binary little-endian PLY file.

    Args:
      path: the file.
      required: properties that it must have, others may stand beside them in any order.
      kind: what the file should be, for errors.

    Returns:
      A structured array [N] with the file's own types.

    Raises:
      UserError: the file is missing, not such a PLY, lacks a property, or ends too early.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file, expected {kind}")
    with path.open("rb") as file:
        num, dtype = _parse_header(_read_header(file, path), path)
        missing = [name for name in required if name not in (dtype.names or ())]
        if missing:
            raise UserError(f"{path}: found no property {missing[0]!r}, expected the properties of {kind}")
        # Checked against the file before anything is allocated, because the count is only a claim.
        available = path.stat().st_size - file.tell()
        if available < num * dtype.itemsize:
            raise UserError(f"{path}: found {available} bytes of data, expected {num * dtype.itemsize} (cut short?)")
        return np.frombuffer(file.read(num * dtype.itemsize), dtype=dtype, count=num)


def read_gaussians(path: Path | str) -> Gaussians:
    """Reads a 3DGS PLY file, written by `write_gaussians` or by another program.

    Properties may come in any order and in any scalar type; unknown ones (normals among them) are ignored, as are
    elements after `vertex`. The SH degree follows from the number of `f_rest_*`.

    Args:
      path: a binary little-endian PLY file.

    Returns:
      Gaussians with float32 arrays, N as in the file.

    Raises:
      UserError: the file is missing, not such a PLY, lacks a property, or ends too early.
    """
    rows = read_vertices(path, [name for name in _field_names(0) if name not in ("nx", "ny", "nz")])
    num = len(rows)
    num_rest = sum(name.startswith("f_rest_") for name in rows.dtype.names or ())
    absent = [name for name in _field_names(num_rest)[9:] if name not in (rows.dtype.names or ())]
    if absent:
        raise UserError(f"{path}: found no property {absent[0]!r}, expected the properties of a 3DGS PLY file")
    num_bases = num_rest // 3 + 1
    if num_rest % 3 or math.isqrt(num_bases) ** 2 != num_bases:
        raise UserError(f"{path}: found {num_rest} properties f_rest_*, expected 0, 9, 24 or 45")

    def columns(*fields: str) -> np.ndarray:
        return np.stack([rows[name].astype(np.float32) for name in fields], axis=-1)

    rest = np.zeros((num, 3, 0), np.float32)
    if num_rest:
        rest = columns(*(f"f_rest_{i}" for i in range(num_rest))).reshape(num, 3, num_rest // 3)
    dc = columns("f_dc_0", "f_dc_1", "f_dc_2")
    return Gaussians(
        means=jnp.asarray(columns("x", "y", "z")),
        log_scales=jnp.asarray(columns("scale_0", "scale_1", "scale_2")),
        quats=jnp.asarray(columns("rot_0", "rot_1", "rot_2", "rot_3")),
        logit_opacities=jnp.asarray(columns("opacity")[:, 0]),
        sh=jnp.asarray(np.concatenate([dc[:, None], rest.transpose(0, 2, 1)], axis=1)),
    )
