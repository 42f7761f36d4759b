"""Variant: Gaussians follow the nearest key points of the canonical pose (the authors' code) instead of Eq. 3's graph.

python launch.py --config=configs/ablations/canonical_graph.py:demo --workdir=runs/canonical_graph
"""

from __future__ import annotations

from ml_collections import ConfigDict

from dimo_jax.configs import dimo


def get_config(preset: str = "auto") -> ConfigDict:
    """The preset with neighbours from canonical positions alone, as many as it had."""
    config = dimo.get_config(preset)
    count = config.graph.num_neighbors
    config.graph = dict(fn="dimo_jax.systems.dimo.graph:canonical_neighbors", num_neighbors=count)
    return config
