"""The motion space of a rig as the engine sees it: codes and a decoder of poses, from the rig's own clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from dimo_jax.core.config_fields import check_fields, get
from dimo_jax.core.errors import UserError
from dimo_jax.core.resolve import resolve
from dimo_jax.core.types import Array, Batch, Latents
from dimo_jax.data.dataset import Dataset, motions_in
from dimo_jax.data.formats.rigged.clips import ClipDataset
from dimo_jax.losses.latent import kl
from dimo_jax.rigs.bodies import compare_places, compare_turns
from dimo_jax.systems.rig.model import Truth, build_decoder, make_puppet, make_start, make_truth
from dimo_jax.systems.rig.state import RigParams, RigState
from dimo_jax.training.optimizer import build_optimizer
from dimo_jax.training.system import Capacity, Metrics, Stage, Step, System

GROUPS = ("latents", "decoder")
COUNTS = {"num_steps": 1, "updates": 1, "frames": 1}
WEIGHTS = ("position", "turn", "vector", "kl")


class RigSpace(System):
    """Codes of a rig's clips and the decoder that makes poses of them; `config.rig` says how they train.

    A step is `config.rig.updates` updates of Adam, each on as many random instants of every clip. Devices beyond the
    first would compute the same.
    """

    sees_pictures = False

    def __init__(self, config: ConfigDict, dataset: Dataset) -> None:
        """Raises UserError for data that are no clips of a rig, or a decoder that cannot be resolved."""
        if not isinstance(dataset, ClipDataset):
            raise UserError(f"config.data: found {dataset.object_name}, pictures, expected a rigged model with clips")
        self.options, self.config, self.dataset = config.rig, config, dataset
        self.puppet = make_puppet(dataset.clips.scene, clips=dataset.clips, least_slide=config.rig.least_slide)
        self.module = build_decoder(config, self.puppet.channels.size)
        self.draw = resolve(config.latent, key="latent")
        self.truth = make_truth(self.puppet, dataset.clips)
        self._trained = motions_in(dataset, "train")
        self._optimizer = build_optimizer(config.rig.rates, key="rig.rates", groups=GROUPS)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One."""
        return (Stage("clips", 0, self.options.num_steps, ((0, 0),)),)

    @staticmethod
    def check(config: Mapping[str, Any]) -> None:
        """Raises UserError for what is wrong in `config.rig`, or in the slots beside it."""
        check_fields(config, "rig", counts=COUNTS, positive={"least_slide": None})
        check_fields(config, "", counts={"data.num_frames": 2}, positive={}, slots=("decoder", "latent", "latent_init"))
        for name in WEIGHTS:
            weight = get(config, f"rig.weights.{name}")
            if not isinstance(weight, (int, float)) or isinstance(weight, bool) or weight < 0:
                raise UserError(f"config.rig.weights.{name}: found {weight!r}, expected a number of at least 0")
        build_optimizer(get(config, "rig.rates"), key="rig.rates", groups=GROUPS)

    def facts(self) -> dict[str, Any]:
        """The channels of the skeleton, and what each clip is."""
        clips = self.dataset.clips
        return dict(
            channels=self.puppet.channels.to_json(),
            nodes=list(self.puppet.rig.names),
            seconds=[float(x) for x in clips.seconds],
            rates=[float(x) for x in clips.rates],
            loops=[bool(x) for x in clips.loops],
            ways=clips.ways.tolist(),
            tops=list(clips.tops),
            source=str(clips.scene.path),
            digest=clips.scene.digest,
        )

    def init(self, key: Array) -> RigState:
        """See `training.system.System`."""
        own, drawn = jax.random.split(key)
        count, dim = self.dataset.num_motions, self.config.latent_init["dim"]
        latents: Latents = resolve(self.config.latent_init, key="latent_init")(drawn, num_motions=count)
        variables = jax.jit(self.module.init)(own, jnp.zeros(dim), jnp.zeros(1), jnp.zeros([]))
        if hasattr(self.module, "settle"):
            seen = jax.tree.map(lambda x: x[self._trained], self.truth)
            variables, codes = self.module.settle(variables, make_start(self.puppet, seen), dim)
            mu = jnp.zeros_like(latents.mu).at[self._trained].set(jnp.asarray(codes, jnp.float32))
            latents = latents.replace(mu=mu)
        params = RigParams(latents, variables)
        return RigState(jnp.zeros([], jnp.int32), params, self._optimizer.init(params))

    def template(self, step: int) -> RigState:
        """See `training.system.System`."""
        return make_template(self.config, self.dataset.num_motions, self.puppet.channels.size)

    def fixed(self, stage: Stage) -> dict[str, Any]:
        """The clips that train, and their numbers."""
        return dict(truth=jax.tree.map(lambda x: x[self._trained], self.truth), clips=jnp.asarray(self._trained))

    def measure(self, stage: Stage, state: RigState, batch: Batch) -> Capacity:
        """Nothing is rendered."""
        return Capacity(None)

    def build_step(self, stage: Stage, buffers: Capacity, *, axis_name: str | None, accumulate: int) -> Step:
        """See `training.system.System`; nothing is averaged over devices."""

        def step(state: RigState, batch: None, fixed: Mapping[str, Any], key: Array) -> tuple[RigState, Metrics]:
            keys = jax.random.split(jax.random.fold_in(key, state.step), self.options.updates)
            carry, reports = jax.lax.scan(
                lambda carry, each: self._update(carry, fixed, each), (state.params, state.optimizer), keys
            )
            loss, terms, psnr = jax.tree.map(jnp.mean, reports)
            after = RigState(state.step + 1, *carry)
            return after, Metrics(loss, terms, psnr, jnp.zeros([], jnp.int32), jnp.zeros((2, 1, 1, 3)))

        return step  # type: ignore[return-value]

    def between(self, stage: Stage, step: int) -> Callable[[RigState, Array], RigState] | None:
        """Nothing."""
        return None

    def histograms(self, state: RigState) -> dict[str, np.ndarray]:
        """The codes."""
        return dict(mu=np.asarray(state.params.latents.mu)[self._trained])

    def _update(self, carry: tuple[RigParams, Any], fixed: Mapping[str, Any], key: Array) -> tuple[Any, Any]:
        params, moments = carry
        truth: Truth = fixed["truth"]
        when, which = jax.random.split(key)
        count, frames = truth.times.shape
        # One instant of each of equal parts of a clip, so that no batch leaves out a clip's middle.
        parts = min(self.options.frames, frames)
        chosen = jnp.floor((jnp.arange(parts) + jax.random.uniform(when, (count, parts))) * frames / parts)
        chosen = jnp.minimum(chosen.astype(jnp.int32), frames - 1)
        seen = Truth(
            vectors=jnp.take_along_axis(truth.vectors, chosen[..., None], axis=1),
            bodies=jnp.take_along_axis(truth.bodies, chosen[..., None, None, None], axis=1),
            times=jnp.take_along_axis(truth.times, chosen, axis=1),
            loops=truth.loops,
        )
        draws = jax.random.split(which, count)
        loss = jax.value_and_grad(self._loss, has_aux=True)
        (total, (terms, psnr)), gradients = loss(params, seen, fixed["clips"], draws)
        updates, moments = self._optimizer.update(gradients, moments, params)
        return (optax.apply_updates(params, updates), moments), (total, terms, psnr)

    def _loss(self, params: RigParams, seen: Truth, clips: Array, keys: Array) -> tuple[Array, Any]:
        latents = jax.tree.map(lambda x: x[clips], params.latents)
        codes = jax.vmap(self.draw)(latents.mu, latents.log_sigma, keys)
        vectors: Any = jax.vmap(lambda z, times, loop: self.module.apply(params.decoder, z, times, loop))(
            codes, seen.times, seen.loops
        )
        found, bodies = self.puppet.place(vectors), self.puppet.bodies
        places = jnp.mean(compare_places(bodies, found, seen.bodies))
        terms = dict(
            position=places,
            turn=jnp.mean(compare_turns(bodies, found, seen.bodies)),
            vector=jnp.mean(jnp.square(vectors - seen.vectors)),
            kl=kl(latents, reduction="mean"),
        )
        total = sum(self.options.weights[name] * value for name, value in terms.items())
        psnr = -10 * jnp.log10(jnp.maximum(places * (self.puppet.size / self.puppet.height) ** 2, 1e-12))
        return jnp.asarray(total), (terms, psnr)


def make_template(config: ConfigDict, num_motions: int, num_channels: int) -> RigState:
    """Shapes and types of a state, by the number of clips and that of channels."""
    module = build_decoder(config, num_channels)
    optimizer = build_optimizer(config.rig.rates, key="rig.rates", groups=GROUPS)

    def begin(key: Array) -> RigState:
        latents = resolve(config.latent_init, key="latent_init")(key, num_motions=num_motions)
        variables = module.init(key, jnp.zeros(config.latent_init["dim"]), jnp.zeros(1), jnp.zeros([]))
        params = RigParams(latents, variables)
        return RigState(jnp.zeros([], jnp.int32), params, optimizer.init(params))

    state: RigState = jax.eval_shape(begin, jax.random.key(0))
    return state
