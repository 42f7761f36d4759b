"""The programs that a run of DIMO compiles, by name, with the shapes of what they are called with; nothing is computed.

Every one is what training, evaluation or sampling itself builds and compiles.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dimo_jax.cameras.orbits import select_cameras
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera
from dimo_jax.data.dataset import Dataset, train_frames, views_in
from dimo_jax.data.puppet.dataset import FRAME_RATE, make_views
from dimo_jax.data.sampler import Sampler, Share, batch_sizes
from dimo_jax.render.frames import render_all
from dimo_jax.render.rasterize.api import first_capacity
from dimo_jax.systems.dimo.capacity import needs_capacity
from dimo_jax.systems.dimo.player import Player
from dimo_jax.systems.dimo.system import Dimo
from dimo_jax.training import parallel
from dimo_jax.training.images import find_dilation
from dimo_jax.training.schedules import due
from dimo_jax.training.system import Capacity, Stage


@dataclasses.dataclass(frozen=True)
class Cut:
    """Into how many parts a step cuts its batch, and the step with another cut."""

    layout: parallel.Layout
    sizes: tuple[int, ...]  # of the batch: motions, views, frames
    again: Callable[[parallel.Layout], Program]
    limit_gib: float  # of the config; 0: what the device has


@dataclasses.dataclass(frozen=True)
class Program:
    """A function as it is compiled, and the shapes of its arguments."""

    name: str
    build: Callable[[Sequence[Any]], Any]  # devices -> what has `lower`
    arguments: tuple[Any, ...]  # pytrees of ShapeDtypeStruct
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # static keywords
    is_step: bool = False  # runs on all devices of a run; the others run on one
    cut: Cut | None = None  # of a step whose batch can be cut


def list_programs(config: ConfigDict, *, num_devices: int = 1, phase: int = 0, pairs: int = 0) -> list[Program]:
    """The programs of a run of `config` on data of the size that its source has.

    Args:
      config: of a DIMO run, whose data comes from `data.source` (its sizes are what counts; nothing is drawn).
      num_devices: with more than one, the steps, mapped over them, and what a run does on one device is left out.
      phase: only steps of this resolution, in pixels; 0: of all.
      pairs: Gaussian-tile pairs that render buffers hold; 0: as many as a run begins with when it knows nothing.

    Raises:
      UserError: the batch cannot be dealt out to so many devices, or no stage has such a phase.
    """
    dataset = stand_in(config.data.source)
    system = Dimo(config, dataset)
    layout = choose_layout(config, num_devices)
    steps = list(_list_steps(config, system, dataset, layout, phase, pairs))
    if not steps:
        sizes = sorted({size for stage in system.stages for _, size in stage.phases})
        raise UserError(f"--phase={phase}: expected one of {', '.join(map(str, sizes))} (pixels)")
    return steps if num_devices > 1 else [*steps, *_list_others(config, system, dataset, pairs)]


def stand_in(source: Mapping[str, Any]) -> Dataset:
    """A dataset of the sizes of `config.data.source`, black, of no memory."""
    motions, times, size = (int(source[name]) for name in ("num_motions", "num_frames", "size"))
    cameras, view_names, view_splits = make_views(int(source["num_train_views"]), int(source["num_test_views"]), size)
    shape = (motions, len(view_names), times, size, size, 4)
    names = tuple(f"motion_{index}" for index in range(motions))
    return Dataset(
        frames=np.broadcast_to(np.zeros([], np.uint8), shape),
        cameras=cameras,
        names=names,
        captions=names,
        splits=("train",) * motions,
        view_names=view_names,
        view_splits=view_splits,
        frame_rate=FRAME_RATE,
        object_name="stand-in",
    )


def shapes_of(tree: Any) -> Any:
    """Arrays -> ShapeDtypeStructs."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), tree)


def choose_layout(config: ConfigDict, num_devices: int) -> parallel.Layout:
    """How a batch is dealt out; raises UserError where so many devices cannot share it."""
    sizes = _batch_sizes(config)
    accumulate = int(config.batch.get("accumulate", 1))
    grid = parallel.choose_grid(sizes, num_devices * accumulate)
    if grid is None:
        raise UserError(
            f"--devices={num_devices}: {num_devices} devices x {accumulate} parts cannot share a batch of "
            f"{' x '.join(map(str, sizes))} (motions, views, frames) evenly"
        )
    return parallel.Layout(num_devices, 1, accumulate, grid)


def _batch_sizes(config: ConfigDict) -> tuple[int, ...]:
    return tuple(int(config.batch[name]) for name in ("motions", "views", "frames"))


def _list_steps(
    config: ConfigDict, system: Dimo, dataset: Dataset, layout: parallel.Layout, phase: int, pairs: int
) -> Iterator[Program]:
    key = shapes_of(jax.eval_shape(lambda: jax.random.key(0)))
    for stage in system.stages:
        if stage.last_step == stage.first_step:
            continue
        state = _state_of(system, stage)
        buffers = _choose_buffers(config, state, pairs)
        per_device = replicate_shapes(state, layout), replicate_shapes(shapes_of(system.fixed(stage)), layout)
        for size in sorted({min(size, dataset.cameras.height) for _, size in stage.phases}):
            if phase and size != phase:
                continue
            build = functools.partial(system.build_step, stage, buffers)
            draw = functools.partial(_draw, config, dataset, size)
            yield cut_step(f"{stage.name}_{size}", config, build, (*per_device, key), draw, layout)


def cut_step(
    name: str,
    config: ConfigDict,
    build: Callable[..., Any],
    arguments: tuple[Any, Any, Any],
    draw: Callable[[parallel.Layout], Any],
    layout: parallel.Layout,
) -> Program:
    """A step as `layout` cuts its batch, whose shapes `draw` gives; `arguments` are state, fixed arrays and key."""
    state, fixed, key = arguments
    again = functools.partial(cut_step, name, config, build, arguments, draw)
    limit = float(config.batch.get("memory_gib", 0.0))
    return Program(
        name,
        functools.partial(parallel.parallelize, build, layout),
        (state, draw(layout), fixed, key),
        is_step=True,
        cut=Cut(layout, _batch_sizes(config), again, limit),
    )


def _state_of(system: Dimo, stage: Stage) -> Any:
    """Shapes of the state in a stage."""
    return shapes_of(system.template(stage.first_step))


def _choose_buffers(config: ConfigDict, state: Any, pairs: int) -> Capacity:
    implementation = config.render.implementation
    if not needs_capacity(implementation):
        return Capacity(None)
    known = pairs or config.render.capacity
    return Capacity(known or first_capacity(state.alive.shape[0], implementation))


def replicate_shapes(tree: Any, layout: parallel.Layout) -> Any:
    """Shapes of one copy per device."""
    leading = (layout.num_devices,) * layout.is_mapped
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*leading, *x.shape), x.dtype), tree)


def _draw(config: ConfigDict, dataset: Dataset, size: int, layout: parallel.Layout) -> Any:
    """Shapes of the batch of a step."""
    sampler = Sampler(
        dataset, **batch_sizes(config), resolution=size, held_out_every=config.data.held_out_every, seed=0
    )
    batch = Share(sampler, layout.grid, layout.own_parts).sample(0)
    return _as_float32(shapes_of(parallel.shape_parts(batch, layout)))


def _as_float32(tree: Any) -> Any:
    """What float64 arrays of a host become on a device."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype)), tree)


def _list_others(config: ConfigDict, system: Dimo, dataset: Dataset, pairs: int) -> Iterator[Program]:
    """What runs on one device: between steps, and with the trained model."""
    first, second = system.stages[:2]
    key = jax.eval_shape(lambda: jax.random.key(0))
    if first.last_step > first.first_step:
        stage = config.stage1
        grows = (
            step
            for step in range(1, stage.num_steps + 1)
            if due(step, every=stage.densify_every, start=stage.densify_from, until=stage.densify_until)
        )
        step = next(grows, None)
        densify = system.between(first, first.first_step + step) if step is not None else None
        if densify is not None:
            yield Program("densify", lambda devices: jax.jit(densify), (_state_of(system, first), key))
    state = _state_of(system, second)
    refresh = system.between(second, second.first_step + config.stage2.refresh_every)
    if refresh is not None:
        yield Program("refresh", lambda devices: jax.jit(refresh), (state, key))
    yield from _list_playing(config, system, dataset, state, pairs)


def _list_playing(config: ConfigDict, system: Dimo, dataset: Dataset, state: Any, pairs: int) -> Iterator[Program]:
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state)
    player = Player(config, system.components, zeros, num_frames=dataset.num_frames)

    def play(params: Any, z: Any, times: Any) -> Any:
        return player.with_params(params).play(z, times)

    arguments = shapes_of((state.params, state.params.latents.mu, dataset.times))
    code = jax.ShapeDtypeStruct(arguments[1].shape[1:], arguments[1].dtype)
    yield Program("play", lambda devices: jax.jit(play), (arguments[0], code, arguments[2]))

    frames = train_frames(dataset, config.data.held_out_every)
    posed = shapes_of(jax.eval_shape(play, arguments[0], code, arguments[2])).gaussians
    draw = jax.jit(
        functools.partial(render_all, implementation=config.render.implementation, dilation=find_dilation(config)),
        static_argnames="capacity",
    )
    background = jax.ShapeDtypeStruct((3,), jnp.float32)
    capacity = _choose_buffers(config, state, pairs).pairs
    for name, views, count in (
        ("evaluate", views_in(dataset, "test"), len(frames)),
        ("sample", views_in(dataset, "train")[:1], dataset.num_frames),
    ):
        if len(views):
            some = jax.tree.map(lambda x, n=count: jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype), posed)
            cameras: Camera = _as_float32(shapes_of(select_cameras(dataset.cameras, views)))
            yield Program(name, lambda devices: draw, (some, cameras, background), dict(capacity=capacity))
