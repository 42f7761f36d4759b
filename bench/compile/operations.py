"""Floating point operations of a program as it is written, before a compiler changes it; loops count every turn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr

_MOVES = {
    "broadcast_in_dim", "reshape", "transpose", "squeeze", "expand_dims", "slice", "dynamic_slice", "pad", "gather",
    "dynamic_update_slice", "concatenate", "convert_element_type", "bitcast_convert_type", "copy", "iota", "select_n",
    "optimization_barrier", "stop_gradient", "rev", "split", "sort", "copy_p", "device_put", "pvary",
}  # fmt: skip
_CALLBACKS = ("debug_callback", "pure_callback", "io_callback", "debug_print", "outside_call")


@dataclass(frozen=True)
class Operations:
    """Of one device."""

    matmul: float  # of dots and convolutions, two per multiplication
    other: float  # one per element of every other result
    host: tuple[str, ...]  # calls to the host

    @property
    def total(self) -> float:
        """All of them."""
        return self.matmul + self.other


def count(jaxpr: Any) -> Operations:
    """Of a jaxpr; of a mapped one, those of one device. The insides of Pallas kernels are not looked at."""
    matmul = other = 0.0
    host: list[str] = []
    for equation, times in _walk(jaxpr, 1):
        name = equation.primitive.name
        if any(name.startswith(callback) for callback in _CALLBACKS):
            host.append(name)
        elif name == "dot_general":
            matmul += times * _dot(equation)
        elif name == "rows_times":  # of networks.rows
            matmul += times * 2.0 * _size(equation.outvars[0].aval) * equation.invars[1].aval.shape[0]
        elif name == "conv_general_dilated":
            matmul += times * _convolution(equation)
        elif name not in _MOVES:
            other += times * max((_size(out.aval) for out in [*equation.outvars, *equation.invars]), default=0)
    return Operations(matmul, other, tuple(host))


def _walk(jaxpr: Any, times: int) -> Iterator[tuple[Any, int]]:
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, params = equation.primitive.name, equation.params
        inner = [] if name == "pallas_call" else list(_inner(params))
        if name == "cond":
            inner = inner[-1:]
        turns = times * (params["length"] if name == "scan" else 1)
        for body in inner:
            yield from _walk(body, turns)
        if not inner and name != "pallas_call":
            yield equation, times


def _inner(params: Any) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, (Jaxpr, ClosedJaxpr)):
                yield item


def _size(aval: Any) -> int:
    return math.prod(getattr(aval, "shape", ()))


def _dot(equation: Any) -> float:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return 2.0 * _size(equation.outvars[0].aval) * math.prod(shape[axis] for axis in contracted)


def _convolution(equation: Any) -> float:
    # Of the kernel, all axes but that of the output's channels; zeros that dilation puts in are no operations.
    kernel = equation.invars[1].aval.shape
    spec = equation.params["dimension_numbers"].rhs_spec
    dilation = math.prod(equation.params["lhs_dilation"])
    return 2.0 * _size(equation.outvars[0].aval) * math.prod(kernel) / kernel[spec[0]] / dilation
