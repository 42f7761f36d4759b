"""The generator as the engine sees it: pictures of objects, then films of their parts, and a UNet that learns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dimo_jax.core.config_fields import check_count, check_fields, check_positive, get
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Array, Batch
from dimo_jax.data.articulated.categories import CATEGORIES, SHOWN
from dimo_jax.data.articulated.films import FilmDataset, select_films
from dimo_jax.data.dataset import Dataset
from dimo_jax.training import partial
from dimo_jax.training.parallel import Layout
from dimo_jax.training.partial import PartialState
from dimo_jax.training.step import Part, build_step
from dimo_jax.training.system import Capacity, Metrics, Stage, Step, System

from .batches import Drawn, FilmParts, Source, film_cameras
from .model import init_params
from .parts import Backbone, Codec
from .slots import build_backbone, build_parts
from .stages import begin_stage, build_optimizer, list_stages, make_template
from .trained import check_image_model, load_image_model
from .training import MOTION, PICTURES, STAGES, MotionBatch, denoising_errors, drop_condition, split_frames, trained

COUNTS = {"places": 1, "examples": 1, "sampling.num_steps": 1}
POSITIVE = {"clip": None, "sampling.guidance": None}
SHARES = ("drop", "average")
ORDERS = ((MOTION,), STAGES)


class Atop(System):
    """The video model; `config.atop` says what it consists of and how it trains."""

    sees_pictures = False  # of motions; it draws batches of its own

    def __init__(self, config: ConfigDict, dataset: Dataset) -> None:
        """Raises UserError for data that are no films, or parts that cannot be had or do not fit them."""
        if not isinstance(dataset, FilmDataset):
            found = dataset.object_name
            raise UserError(f"config.data: found {found}, expected the reader of configs/atop.py")
        self.options, self._batch, self._seed = config.atop, int(config.batch.motions), int(config.seed)
        self.films, self._side = dataset, int(config.data.side)
        self.backbone = build_backbone(config)
        if self.options.start:
            check_image_model(str(self.options.start), self.backbone)
        self.parts = build_parts(config)
        check_fit(config, self.backbone, self.parts.codec, self.parts.embed([""]).shape[-1])
        if PICTURES in self.options.stages and dataset.stills is None:
            raise UserError("config.data.shapes: found 0, expected at least 1 for stage pictures")

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One, or two where the image model has to be trained first."""
        return list_stages(self.options)

    @staticmethod
    def check(config: Mapping[str, Any]) -> None:
        """Raises UserError for what is wrong in `config.atop`."""
        slots = ("codec", "text", "look", "backbone")
        check_fields(config, "atop", counts=COUNTS, positive=POSITIVE, slots=slots)
        for name in SHARES:
            value = get(config, f"atop.{name}")
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1:
                raise UserError(f"config.atop.{name}: found {value!r}, expected a number of at least 0 and below 1")
        order = tuple(get(config, "atop.stages"))
        if order not in ORDERS:
            expected = " or ".join("(" + ", ".join(each) + ")" for each in ORDERS)
            raise UserError(f"config.atop.stages: found {order}, expected {expected}")
        if get(config, "atop.start") and PICTURES in order:
            raise UserError(f"config.atop.stages: found {order} beside config.atop.start, expected (motion)")
        for stage in order:
            check_count(get(config, f"atop.steps.{stage}"), 1, f"atop.steps.{stage}")
            check_positive(get(config, f"atop.rates.{stage}"), None, f"atop.rates.{stage}")
        if config["atop"]["examples"] > SHOWN:
            raise UserError(f"config.atop.examples: found {config['atop']['examples']}, expected 1 to {SHOWN}")
        category = get(config, "atop.category")
        if category not in ("all", *CATEGORIES):
            raise UserError(f"config.atop.category: found {category!r}, expected all or one of {', '.join(CATEGORIES)}")
        if config["atop"]["places"] > get(config, "data.num_frames"):
            found = config["atop"]["places"]
            raise UserError(f"config.atop.places: found {found}, expected at most {config['data']['num_frames']}")
        for name in ("views", "frames"):
            if config["batch"][name] != 1:
                found = config["batch"][name]
                raise UserError(f"config.batch.{name}: found {found}, expected 1: a sample has all of its {name}")

    def init(self, key: Array) -> PartialState:
        """See `training.system.System`."""
        own, added = jax.random.split(key)
        start = str(self.options.start)
        arrays = load_image_model(start) if start else self.backbone.begin(own)
        params = init_params(added, arrays, self.backbone.config)
        return begin_stage(jnp.zeros([], jnp.int32), params, self.stages[0], self.options)

    def template(self, step: int) -> PartialState:
        """See `training.system.System`."""
        return make_template(self.options, self.backbone, step)

    def fixed(self, stage: Stage) -> dict[str, Any]:
        """The sentence of no condition."""
        return dict(empty=self.parts.embed([""])[0])

    def source(self, layout: Layout) -> FilmParts:
        """Batches of pictures, then of films."""
        at, films = self.options, self.films
        chosen = select_films(films.motions, at.category, at.examples)
        sources = []
        for stage in self.stages:
            if stage.name == PICTURES and films.stills is not None:
                stills = films.stills
                sources.append(Source(stills, range(len(stills)), stage.last_step, int(at.places)))
            else:
                sources.append(Source(films.motions, chosen, stage.last_step, None))
        sentences = sorted({sentence for each in sources for sentence in each.films.sentences})
        return FilmParts(
            sources,
            np.asarray(self.parts.embed(sentences)),
            sentences,
            self.parts.codec.encode,
            self.parts.look,
            film_cameras(self._side),
            self._batch,
            layout.num_processes * layout.num_devices * layout.accumulate,
            layout.own_parts,
            seed=self._seed,
            augment=bool(at.augment) and self.parts.codec.exact,
        )

    def measure(self, stage: Stage, state: PartialState, batch: Batch) -> Capacity:
        """Nothing is rendered."""
        return Capacity(None)

    def build_step(self, stage: Stage, buffers: Capacity, *, axis_name: str | None, accumulate: int) -> Step:
        """See `training.system.System`."""
        return build_step(
            functools.partial(self._differentiate, stage),
            functools.partial(self._update, stage),
            axis_name=axis_name,
            accumulate=accumulate,
        )

    def between(self, stage: Stage, step: int) -> Callable[[PartialState, Array], PartialState] | None:
        """Nothing."""
        return None

    def end(self, stage: Stage, state: PartialState) -> PartialState:
        """After pictures, their average with a motion module that has not moved yet."""
        following = [each for each in self.stages if each.first_step == stage.last_step]
        if not following:
            return state
        return begin_stage(
            state.step, partial.averaged(state, trained(state.params, stage.name)), following[0], self.options
        )

    def histograms(self, state: PartialState) -> dict[str, np.ndarray]:
        """What the deepest motion module adds."""
        return dict(motion=np.asarray(state.params.motion[len(state.params.motion) // 2].out.kernel, np.float32))

    def _differentiate(
        self, stage: Stage, state: PartialState, batch: Drawn, fixed: Mapping[str, Any], key: Array
    ) -> tuple[Part, Array]:
        keys = jax.vmap(lambda seed: jax.random.fold_in(key, seed))(batch.seeds)
        samples, at, form = batch.batch, self.options, self.backbone.form
        if stage.name == PICTURES:
            samples, keys = split_frames(samples, keys)
        drop_keys = jax.vmap(lambda each: jax.random.fold_in(each, 1))(keys)
        condition = drop_condition(samples.condition, drop_keys, fixed["empty"], rate=at.drop, form=form)
        samples = MotionBatch(samples.video, condition)
        how: Any = dict(attend=at.attend, remat=bool(at.remat), moving=stage.name == MOTION)
        chosen = trained(state.params, stage.name)

        def loss(arrays: tuple[Array, ...]) -> tuple[Array, Any]:
            params = partial.put(state.params, arrays, chosen)
            errors = denoising_errors(params, samples, keys, config=self.backbone.config, form=form, **how)
            return errors.loss, errors

        (total, errors), gradients = jax.value_and_grad(loss, has_aux=True)(partial.take(state.params, chosen))
        # Three channels of the last frame of the first view, as it is and as it is seen through the noise.
        first = jnp.stack([samples.video[0, 0, -1, ..., :3], errors.video[0, 0, -1, ..., :3]])
        return Part(means=(gradients, total, errors.data), sums=()), jnp.clip((first + 1) / 2, 0, 1)

    def _update(self, stage: Stage, state: PartialState, total: Part, preview: Array) -> tuple[PartialState, Metrics]:
        gradients, loss, data = total.means
        chosen, optimizer = trained(state.params, stage.name), build_optimizer(self.options, stage)
        taken = state.step - stage.first_step
        stepped = partial.advance(state, gradients, chosen, optimizer, share=self.options.average, taken=taken)
        psnr = -10 * jnp.log10(jnp.maximum(data / 4, 1e-12))  # of latents in -1..1
        metrics = Metrics(loss, dict(data=data), psnr, jnp.zeros([], jnp.int32), preview)
        return stepped, metrics


def check_fit(config: Mapping[str, Any], backbone: Backbone, codec: Codec, text_dim: int) -> None:
    """Raises UserError where films, autoencoder and UNet do not go together."""
    sizes, form, side = backbone.config, backbone.form, int(config["data"]["side"])
    expected = form.network_channels(codec.channels)
    if sizes.latent_channels != expected:
        raise UserError(
            f"config.atop.backbone: has {sizes.latent_channels} channels, expected {expected} (as atop.codec)"
        )
    least = codec.factor * form.fold * 2 ** (len(sizes.multiples) - 1)
    if side % least:
        raise UserError(f"config.data.side: found {side}, expected a multiple of {least}")
    if text_dim != sizes.text_dim:
        raise UserError(f"config.atop.text: features of {text_dim} numbers, expected {sizes.text_dim} (text_dim)")
