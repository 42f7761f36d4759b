"""What comparisons of networks with their originals in torch share (`bench.wan`, `bench.imagedream`)."""

from __future__ import annotations

import argparse
import importlib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

Comparison = tuple[str, np.ndarray, np.ndarray]  # what, found, expected


def run(description: str | None, report_sizes: Callable[[], None], compare: Callable[[], Iterable[Comparison]]) -> None:
    """The command line of a comparison: sizes alone with `--sizes`, else a line for each of `compare`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--sizes", action="store_true")
    if parser.parse_args().sizes:
        report_sizes()
        return
    for label, found, expected in compare():
        error, level = np.abs(found - expected).max(), np.sqrt(np.mean(expected**2))
        print(f"{label:58s} {error:8.1e} of {level:.3f}", flush=True)


def print_size(label: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Arrays and parameters of a file."""
    print(f"{label:30s} {len(shapes):5d} arrays {sum(map(math.prod, shapes.values())):14,d} parameters")


def print_trained(label: str, params: Any, trained: Any) -> None:
    """Parameters of a tree, those of them that train (a tree of bools), and what all of them take."""
    leaves, chosen = jax.tree.leaves(params), jax.tree.leaves(trained)
    total, size = sum(leaf.size for leaf in leaves), sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    count = sum(leaf.size for leaf, trains in zip(leaves, chosen) if trains)
    print(f"{label:30s} {total:14,d} parameters, {count:,d} trained, {size / 2**30:.1f} GiB")


def diffusers() -> Any:
    """The package, whose own types say too little."""
    return importlib.import_module("diffusers")


def draw_weights(model: Any) -> dict[str, np.ndarray]:
    """Gives a torch model random weights of a size that keeps activations near 1; returns them by name."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(1, parameter[0].numel()) ** 0.5)
    return {name: value.numpy() for name, value in model.eval().state_dict().items()}
