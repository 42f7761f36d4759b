"""Gaussians that stand still: one object from posed pictures, or the best static model of pictures that move."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from dimo_jax.core.config_fields import check_fields, check_phases, get
from dimo_jax.core.resolve import resolve
from dimo_jax.core.types import Array, Batch, Gaussians
from dimo_jax.data.dataset import Dataset
from dimo_jax.losses.terms import load_networks
from dimo_jax.losses.total import ImageInputs, build_terms, combine, evaluate
from dimo_jax.render import choose_backend, measure_capacity, project
from dimo_jax.systems.static.state import StillParams, StillState
from dimo_jax.training import density
from dimo_jax.training.gaussians import init_points, mask_dead
from dimo_jax.training.images import compare, find_dilation, render_probed, report
from dimo_jax.training.optimizer import GAUSSIANS, build_optimizer
from dimo_jax.training.schedules import due
from dimo_jax.training.step import Part, build_step
from dimo_jax.training.system import Capacity, Metrics, Stage, Step, System

COUNTS = dict(num_steps=1, capacity=1, num_points=1, sh_degree=0, densify_from=0, densify_until=0, densify_every=0)
POSITIVE = dict(ball_radius=None, opacity=1, scale=None)
START = ("capacity", "num_points", *POSITIVE)  # what `init_points` reads


class Static(System):
    """One set of Gaussians for all motions and frames of a dataset; `config.static` says how it trains."""

    def __init__(self, config: ConfigDict, dataset: Dataset, start: tuple[Gaussians, Array] | None = None) -> None:
        """`start`: Gaussians and their mask `alive` to train on from; None: points in a ball."""
        self.options, self._start = config.static, start
        self._background = tuple(config.render.background)
        self._implementation, self._capacity = config.render.implementation, config.render.capacity
        self._dilation = find_dilation(config)
        self._terms = build_terms(self.options.losses, key="static.losses")
        self._optimizer = build_optimizer(self.options.rates, key="static.rates", groups=GAUSSIANS)
        self._grow = jax.jit(self._control_density)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One."""
        return (Stage("static", 0, self.options.num_steps, tuple(map(tuple, self.options.phases))),)

    @staticmethod
    def check(config: Mapping[str, Any]) -> None:
        """Raises UserError for what is wrong in `config.static`."""
        check_fields(config, "static", counts=COUNTS, positive=POSITIVE, slots=("densify", "prune"))
        check_phases(get(config, "static.phases"), "static.phases")
        build_terms(get(config, "static.losses"), key="static.losses")
        build_optimizer(get(config, "static.rates"), key="static.rates", groups=GAUSSIANS)

    def init(self, key: Array) -> StillState:
        """See `training.system.System`."""
        if self._start is not None:
            points, alive = jax.tree.map(jnp.copy, self._start)
        else:
            points, alive = init_points(key, **{name: self.options[name] for name in START})
            points = points.replace(sh=jnp.pad(points.sh, ((0, 0), (0, (self.options.sh_degree + 1) ** 2 - 1), (0, 0))))
        params = StillParams(points)
        step, dropped = jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32)
        return StillState(step, params, self._optimizer.init(params), alive, density.init_stats(len(alive)), dropped)

    def template(self, step: int) -> StillState:
        """See `training.system.System`."""
        shapes: StillState = jax.eval_shape(self.init, jax.random.key(0))
        return shapes

    def fixed(self, stage: Stage) -> dict[str, Any]:
        """Perceptual networks."""
        return load_networks(self._terms)

    def measure(self, stage: Stage, state: StillState, batch: Batch) -> Capacity:
        """See `training.system.System`."""
        if self._capacity or choose_backend(self._implementation) == "native":
            return Capacity(self._capacity)
        see = functools.partial(project, state.visible, implementation=self._implementation, dilation=self._dilation)
        size = dict(height=batch.cameras.height, width=batch.cameras.width)
        splats = jax.jit(jax.vmap(jax.vmap(see)))(batch.cameras)
        return Capacity(measure_capacity(splats, implementation=self._implementation, **size))

    def build_step(self, stage: Stage, buffers: Capacity, *, axis_name: str | None, accumulate: int) -> Step:
        """See `training.system.System`."""
        differentiate = functools.partial(self._differentiate, buffers)
        return build_step(differentiate, self._update, axis_name=axis_name, accumulate=accumulate)

    def between(self, stage: Stage, step: int) -> Callable[[StillState, Array], StillState] | None:
        """Density control."""
        at = self.options
        return self._grow if due(step, every=at.densify_every, start=at.densify_from, until=at.densify_until) else None

    def histograms(self, state: StillState) -> dict[str, np.ndarray]:
        """What density control looks at."""
        points = state.params.gaussians[np.asarray(state.alive)]
        return dict(opacity=np.asarray(jax.nn.sigmoid(points.logit_opacities)), scale=np.exp(points.log_scales))

    def _loss(
        self, params: StillParams, probe: Array, state: StillState, batch: Batch, fixed: Any, buffers: Capacity
    ) -> tuple[Array, Metrics]:
        background, still = jnp.asarray(self._background), mask_dead(params.gaussians, state.alive)
        how = dict(background=background, implementation=self._implementation, capacity=buffers.pairs)
        how["dilation"] = self._dilation
        see: Callable[..., Any] = functools.partial(render_probed, still, **how)
        seen = jax.vmap(jax.vmap(see))(batch.cameras, probe)
        repeated = jax.tree.map(lambda x: jnp.repeat(x[:, :, None], batch.images.shape[2], axis=2), seen)
        opacities = jax.nn.sigmoid(still.logit_opacities)
        inputs = ImageInputs(**compare(repeated, batch, background, opacities, fixed))
        total, values = evaluate(self._terms, inputs, state.step)
        return total, report(inputs, total, values, jnp.sum(seen.overflow))

    def _differentiate(
        self, buffers: Capacity, state: StillState, batch: Batch, fixed: Any, key: Array
    ) -> tuple[Part, Array]:
        probe = jnp.zeros((*batch.images.shape[:2], len(state.alive), 2))
        loss = jax.value_and_grad(self._loss, argnums=(0, 1), has_aux=True)
        (_, metrics), (gradients, felt) = loss(state.params, probe, state, batch, fixed, buffers)
        size = batch.cameras.height, batch.cameras.width
        stats = density.accumulate(density.init_stats(len(state.alive)), felt, size)
        means = (gradients, stats.gradients, metrics.terms, metrics.psnr)
        return Part(means=means, sums=(stats.images, metrics.overflow)), metrics.preview

    def _update(self, state: StillState, total: Part, preview: Array) -> tuple[StillState, Metrics]:
        (gradients, felt, terms, psnr), (images, overflow) = total.means, total.sums
        updates, optimizer = self._optimizer.update(gradients, state.optimizer, state.params)
        stats = state.density.replace(gradients=state.density.gradients + felt, images=state.density.images + images)
        params = optax.apply_updates(state.params, updates)
        after = state.replace(step=state.step + 1, params=params, optimizer=optimizer, density=stats)
        return after, Metrics(combine(self._terms, terms, state.step), terms, psnr, overflow, preview)

    def _control_density(self, state: StillState, key: Array) -> StillState:
        densify = resolve(self.options.densify, key="static.densify")
        points, alive, changed, missed = densify(key, state.params.gaussians, state.alive, state.density)
        alive = resolve(self.options.prune, key="static.prune")(points, alive)
        return state.replace(
            params=StillParams(points),
            alive=alive,
            optimizer=density.reset_moments(state.optimizer, changed),
            density=density.init_stats(len(alive)),
            dropped=state.dropped + missed,
        )
