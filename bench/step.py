"""Times one second-stage training step by part, each with its derivative, beside the whole step.

    python -m bench.step                                   # the demo's last phase, Gaussians as they begin
    python -m bench.step --workdir=runs/dimo --size=128    # a trained run's Gaussians
    python -m bench.step --implementation=xla              # as on a machine without a C++ compiler
    python -m bench.step --preset=paper --set=data.source.num_motions=8   # fewer pictures to draw; a step is as large

The parts run on their own, so their sum differs from the whole, where XLA fuses across them and overlaps them. The data
part runs ahead of the step in a thread; it is no share of it as long as it is shorter.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from bench.presets import apply_change
from bench.timing import compile_for, count_cost, count_memory, median_ms
from dimo_jax.configs.dimo import get_config
from dimo_jax.core.types import Batch
from dimo_jax.data.sampler import Sampler, batch_sizes
from dimo_jax.data.sources import load
from dimo_jax.losses.total import evaluate
from dimo_jax.render import choose_backend, composite, project
from dimo_jax.runtime.compiler import leave_reductions_to_xla
from dimo_jax.runtime.memory import keep_freed_memory
from dimo_jax.skinning.weights import weigh_edges
from dimo_jax.systems.dimo import capacity, model, stages
from dimo_jax.systems.dimo.fixed_inputs import load_fixed
from dimo_jax.systems.dimo.model import build_components
from dimo_jax.systems.dimo.state import TrainState
from dimo_jax.systems.dimo.step import build_step
from dimo_jax.systems.dimo.terms import LossInputs
from dimo_jax.training.checkpoints import Checkpoints
from dimo_jax.training.config_file import load_config
from dimo_jax.training.gaussians import mask_dead
from dimo_jax.training.images import composite_truth

PRESET = flags.DEFINE_string("preset", "demo", "preset of configs/dimo.py")
WORKDIR = flags.DEFINE_string("workdir", None, "a finished run whose state and config are timed")
SIZE = flags.DEFINE_integer("size", 0, "pixels; 0 takes the last phase's")
IMPLEMENTATION = flags.DEFINE_string("implementation", None, "rasterizer; xla skins in XLA too, None is the fastest")
SET = flags.DEFINE_multi_string("set", [], "KEY=VALUE, a change to the config; may be given several times")
REPEATS = flags.DEFINE_integer("repeats", 11, "runs of each part; the median counts")


def load_state(config: Any, components: Any, dataset: Any, workdir: str | None) -> TrainState:
    """A second-stage state: that of a run, or the one a run would begin with."""
    sizes = dict(num_motions=dataset.num_motions, num_frames=dataset.num_frames)
    if workdir is None:
        first = stages.begin_first(config, components, key=jax.random.key(0), **sizes)
        return stages.begin_second(
            first, jax.random.key(1), config=config, components=components, num_frames=dataset.num_frames
        )
    with Checkpoints(Path(workdir), keep=config.keep_checkpoints) as checkpoints:
        found = checkpoints.restore_latest(lambda step: stages.template(config, components, step=step, **sizes))
    if found is None:
        raise app.UsageError(f"--workdir={workdir}: no checkpoint")
    return jax.device_put(found[1])


def differentiate(function: Callable[..., Any], *arguments: Any) -> jax.stages.Compiled:
    """Value and derivative by all arguments of `function`, with cotangents of ones."""

    def both(*inputs: Any) -> Any:
        outputs, pull = jax.vjp(function, *inputs)
        return outputs, pull(jax.tree.map(jnp.ones_like, outputs))

    return compile_for(both, *arguments)


def main(argv: list[str]) -> None:
    del argv
    if IMPLEMENTATION.value != "xla":
        leave_reductions_to_xla()  # as launch.py does; xla would be slower for it
    config = load_config(Path(WORKDIR.value)) if WORKDIR.value else get_config(PRESET.value)
    for change in SET.value:
        apply_change(config, change)
    if IMPLEMENTATION.value:
        config.render.implementation = IMPLEMENTATION.value
    dataset, components = load(config.data), build_components(config)
    stage = stages.build_stages(config)[1]
    size = SIZE.value or min(stage.config["phases"][-1][1], dataset.cameras.height)
    state = load_state(config, components, dataset, WORKDIR.value)
    sampler = Sampler(dataset, **batch_sizes(config), resolution=size, held_out_every=config.data.held_out_every)
    start = time.perf_counter()
    for step in range(REPEATS.value):
        batch = jax.block_until_ready(jax.device_put(sampler.sample(step)))
    data = 1e3 * (time.perf_counter() - start) / REPEATS.value

    options = stage.options
    options = capacity.with_buffers(options, capacity.measure(state, components, options, batch))
    num_images = int(np.prod(batch.images.shape[:3]))
    print(
        f"{jax.devices()[0].device_kind}, backend {choose_backend(options.implementation)}: "
        f"{config.batch.motions} motions x {config.batch.views} views x {config.batch.frames} frames, {size} px, "
        f"{int(state.alive.sum())} of {state.alive.shape[0]} Gaussians, {config.num_key_points} key points"
    )
    print(f"{'part':12s} {'ms':>8s} {'share':>6s} {'GFLOP':>8s} {'MB':>8s}   (by XLA's count; none for custom calls)")
    fixed, key = load_fixed(options.terms), jax.random.key(0)
    whole_call = compile_for(build_step(components, options), state, batch, fixed, key)
    whole = median_ms(whole_call, state, batch, fixed, key, repeats=REPEATS.value)
    parts = build_parts(config, components, options, state, batch, fixed)
    total = 0.0
    for name, (call, arguments) in parts.items():
        milliseconds = median_ms(call, *arguments, repeats=REPEATS.value)
        total += milliseconds
        flops, moved = count_cost(call)
        print(f"{name:12s} {milliseconds:8.1f} {milliseconds / whole:6.0%} {flops / 1e9:8.2f} {moved / 1e6:8.0f}")
    flops, moved = count_cost(whole_call)
    print(f"{'sum':12s} {total:8.1f} {total / whole:6.0%}")
    print(f"{'whole step':12s} {whole:8.1f}   100% {flops / 1e9:8.2f} {moved / 1e6:8.0f}   {num_images} images")
    print(f"{'data':12s} {data:8.1f}        ahead of the step, in a thread")
    print(f"peak temporary memory of the step {count_memory(whole_call):.0f} MiB")


def build_parts(
    config: Any, components: Any, options: Any, state: TrainState, batch: Batch, fixed: Any
) -> dict[str, tuple[jax.stages.Compiled, tuple[Any, ...]]]:
    """name -> compiled part and its arguments; the outputs of one part are the inputs of the next."""
    params = state.params.replace(gaussians=mask_dead(state.params.gaussians, state.alive))
    near = jax.tree.map(lambda x: x[batch.motions], state.neighbors)
    codes = params.latents.mu[batch.motions]
    key_points = params.key_points
    height, width = batch.cameras.height, batch.cameras.width

    def decode(decoder: Any, codes: Any, positions: Any) -> Any:
        weights = params.replace(decoder=decoder)

        def one(z: Any, time: Any) -> Any:
            return model.decode(components, weights, z, positions, time)

        return jax.vmap(lambda z, times: jax.vmap(lambda t: one(z, t))(times))(codes, batch.times)

    decode_arguments = (params.decoder, codes, key_points.positions)
    decoded = jax.jit(decode)(*decode_arguments)

    def skin(gaussians: Any, positions: Any, log_radii: Any, translations: Any, rotations: Any) -> Any:
        def one_motion(edges: Any, translations: Any, rotations: Any) -> Any:
            def one_time(translation: Any, rotation: Any) -> Any:
                weights = components.skinning(gaussians.means, positions[edges], log_radii[edges])
                means, quats = components.deform(
                    gaussians.means, gaussians.quats, positions, translation, rotation, edges, weights
                )
                return gaussians.replace(means=means, quats=quats)

            return jax.vmap(one_time)(translations, rotations)

        return jax.vmap(one_motion)(near.gaussians, translations, rotations)

    skin_arguments = (params.gaussians, key_points.positions, key_points.log_radii, *decoded)
    moved = jax.jit(skin)(*skin_arguments)

    def over_images(function: Callable[..., Any]) -> Callable[..., Any]:
        over_frames = jax.vmap(function, in_axes=(0, None))
        return jax.vmap(jax.vmap(over_frames, in_axes=(None, 0)))

    def project_all(gaussians: Any) -> Any:
        return over_images(partial(project, implementation=options.implementation, dilation=options.dilation))(
            gaussians, batch.cameras
        )

    splats = jax.jit(project_all)(moved)

    def composite_all(splats: Any) -> Any:
        one = lambda s: composite(  # noqa: E731
            s,
            jnp.asarray(options.background),
            height=height,
            width=width,
            implementation=options.implementation,
            capacity=options.capacity,
        ).replace(overflow=jnp.zeros([]))
        return jax.vmap(jax.vmap(jax.vmap(one)))(splats)

    images = jax.jit(composite_all)(splats)
    true_rgb, true_alpha = composite_truth(batch.images, jnp.asarray(options.background))
    flat = lambda x: x.reshape(-1, *x.shape[3:])  # noqa: E731
    frames = jnp.round(batch.times * state.reference.shape[1]).astype(jnp.int32)
    weigh = partial(weigh_edges, components.skinning, key_points.positions, key_points.log_radii)
    edge_weights = jax.vmap(weigh)(near.controls)
    num_images = int(np.prod(batch.images.shape[:3]))

    def lose(rgb: Any, alpha: Any, depth: Any, normal: Any, controls: Any) -> Any:
        inputs = LossInputs(
            rgb=flat(rgb),
            alpha=flat(alpha),
            depth=flat(depth),
            normal=flat(normal),
            true_rgb=flat(true_rgb),
            true_alpha=flat(true_alpha),
            novel=jnp.zeros(num_images, bool),
            controls=controls,
            rotations=decoded[1],
            canonical=key_points.positions,
            control_alive=jnp.ones(key_points.positions.shape[0], bool),
            edges=near.controls,
            edge_weights=edge_weights,
            reference=state.reference[batch.motions[:, None], frames],
            opacities=jax.nn.sigmoid(params.gaussians.logit_opacities),
            latents=jax.tree.map(lambda x: x[batch.motions], params.latents),
            fixed=fixed,
            random_controls=jnp.repeat(controls, 8, axis=1),
        )
        return evaluate(options.terms, inputs, jnp.asarray(10**6))[0]

    lose_arguments = (images.rgb, images.alpha, images.depth, images.normal, key_points.positions + decoded[0])
    gradients = jax.tree.map(jnp.ones_like, state.params)
    update_arguments = (gradients, state.optimizer, state.params)
    return {
        "decoder": (differentiate(decode, *decode_arguments), decode_arguments),
        "skinning": (differentiate(skin, *skin_arguments), skin_arguments),
        "project": (differentiate(project_all, moved), (moved,)),
        "composite": (differentiate(composite_all, splats), (splats,)),
        "losses": (differentiate(lose, *lose_arguments), lose_arguments),
        "update": (compile_for(options.optimizer.update, *update_arguments), update_arguments),
    }


if __name__ == "__main__":
    keep_freed_memory()  # as launch.py does
    app.run(main)
