"""How long a run would take on this machine: measured on its own first step."""

from __future__ import annotations

import time

import jax
from ml_collections import ConfigDict

from dimo_jax.data.dataset import Dataset
from dimo_jax.data.sampler import Sampler, batch_sizes
from dimo_jax.systems.dimo import capacity, stages, turns
from dimo_jax.systems.dimo.fixed_inputs import load_fixed
from dimo_jax.systems.dimo.model import build_components
from dimo_jax.systems.dimo.step import build_step
from dimo_jax.training.schedules import resolution_at


def estimate_hours(config: ConfigDict, dataset: Dataset) -> tuple[float, float]:
    """Times one step of the first stage and extrapolates to the whole run.

    Every step is taken to cost as much as the measured one times its number of pixels, which leaves out that the second
    stage has more Gaussians: a lower bound.

    Returns:
      Seconds of the measured step (compilation left out), and hours of the whole run.
    """
    # Which sentences train the projector makes no difference to the time of a step.
    config = config.copy_and_resolve_references()
    config.text.joint = False
    components, spans = build_components(config), stages.build_stages(config)
    first = spans[0]
    sizes = dict(num_motions=dataset.num_motions, num_frames=dataset.num_frames)
    state = stages.begin_first(config, components, key=jax.random.key(config.seed), **sizes)
    limit = dataset.cameras.height
    measured = min(resolution_at(first.config["phases"], 0), limit)
    batch = jax.device_put(Sampler(dataset, **batch_sizes(config), resolution=measured).sample(0))
    buffers = capacity.measure(state, components, first.options, batch)
    options = capacity.with_buffers(first.options, buffers)
    step = jax.jit(build_step(components, options))
    arguments = (state, batch, load_fixed(first.options.terms, turns=turns.no_turns(**sizes)), jax.random.key(0))
    jax.block_until_ready(step(*arguments))
    start = time.perf_counter()
    jax.block_until_ready(step(*arguments))
    seconds = time.perf_counter() - start
    total = 0.0
    for stage in spans:
        for local in range(stage.span.last_step - stage.span.first_step):
            total += seconds * (min(resolution_at(stage.config["phases"], local), limit) / measured) ** 2
    return seconds, total / 3600
