"""AnimaX as the engine sees it: videos and pose maps of clips, noisy, and a transformer that learns to clean them."""

from __future__ import annotations

import functools
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
from dimo_jax.core.types import Array, Batch, Camera
from dimo_jax.data.clip_dataset import ShardDataset
from dimo_jax.data.clips import ClipShards
from dimo_jax.data.dataset import Dataset
from dimo_jax.networks.wan import transformer
from dimo_jax.systems.animax.batches import ClipParts, Drawn, encode_batch
from dimo_jax.systems.animax.loss import flow_errors
from dimo_jax.systems.animax.model import AnimaxParams, add_views, init_params
from dimo_jax.systems.animax.parts import Backbone, Codec
from dimo_jax.systems.animax.stages import JOINT, STAGES, WHOLE, trained
from dimo_jax.training import partial
from dimo_jax.training.parallel import Layout
from dimo_jax.training.partial import PartialState
from dimo_jax.training.step import Part, build_step
from dimo_jax.training.system import Capacity, Metrics, Stage, Step, System

COUNTS = {"num_steps": 1, "rank": 0, "sampling.num_steps": 1}
POSITIVE = {"rate": 1.0, "clip": None, "shift": None, "sampling.guidance": None, "sampling.shift": None}
SHARES = ("drop", "average", "weights.rgb", "weights.pose")
ORDERS = ((WHOLE,), (JOINT,), STAGES)
PREDICTS = ("velocity", "change")


class Animax(System):
    """The joint model; `config.animax` says what it consists of and how it trains."""

    sees_pictures = False  # of motions; it draws batches of its own

    def __init__(self, config: ConfigDict, dataset: Dataset) -> None:
        """Raises UserError for data that are no shards of clips, or parts that cannot be had or do not fit them."""
        if not isinstance(dataset, ShardDataset):
            found = dataset.object_name
            raise UserError(f"config.data: found {found}, expected a folder of --app=import_data --pose_maps")
        self.options, self._batch, self._seed = config.animax, int(config.batch.motions), int(config.seed)
        self.codec, self.backbone = build_codec(config), build_backbone(config)
        embed = resolve(self.options.text, key="animax.text")()
        self.shards = ClipShards(dataset.shards.folder, embed=embed)
        check_fit(self.shards, self.codec, self.backbone)
        self._arrays: Any = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One, or the paper's two."""
        return list_stages(self.options)

    @staticmethod
    def check(config: Mapping[str, Any]) -> None:
        """Raises UserError for what is wrong in `config.animax`."""
        check_fields(config, "animax", counts=COUNTS, positive=POSITIVE, slots=("codec", "text", "backbone"))
        for name in SHARES:
            value = get(config, f"animax.{name}")
            if not isinstance(value, (int, float)) or isinstance(value, bool) or value < 0:
                raise UserError(f"config.animax.{name}: found {value!r}, expected a number of at least 0")
        for name in ("drop", "average"):
            if config["animax"][name] >= 1:
                raise UserError(f"config.animax.{name}: found {config['animax'][name]}, expected a number below 1")
        order = tuple(get(config, "animax.stages"))
        if order not in ORDERS:
            expected = " or ".join("(" + ", ".join(each) + ")" for each in ORDERS)
            raise UserError(f"config.animax.stages: found {order}, expected {expected}")
        if order[0] == JOINT and not config["animax"]["rank"]:
            raise UserError("config.animax.rank: found 0, expected at least 1 for stage joint, which trains a LoRA")
        if get(config, "animax.predicts") not in PREDICTS:
            found = config["animax"]["predicts"]
            raise UserError(f"config.animax.predicts: found {found!r}, expected one of {', '.join(PREDICTS)}")
        for name in ("views", "frames"):
            if config["batch"][name] != 1:
                found = config["batch"][name]
                raise UserError(f"config.batch.{name}: found {found}, expected 1: a sample has all of its {name}")

    def facts(self) -> dict[str, Any]:
        """What videos the model draws."""
        shards = self.shards
        first = shards.read((*shards.select("train", canonical=True), *shards.select("train"))[0])
        azimuths, elevation = measure_orbit(first.cameras)
        return dict(size=shards.size, azimuths=azimuths, elevation=elevation, rigs=list(shards.rigs))

    def init(self, key: Array) -> PartialState:
        """See `training.system.System`."""
        own, added = jax.random.split(key)
        return self._begin(jnp.zeros([], jnp.int32), self._add(added, self.backbone.begin(own)), self.stages[0].name)

    def template(self, step: int) -> PartialState:
        """See `training.system.System`."""
        return make_template(self.options, self.backbone, step)

    def fixed(self, stage: Stage) -> dict[str, Any]:
        """The autoencoder's arrays."""
        if self._arrays is None:
            self._arrays = self.codec.load()
        return dict(codec=self._arrays)

    def source(self, layout: Layout) -> ClipParts:
        """Batches of training clips."""
        num_parts = layout.num_processes * layout.num_devices * layout.accumulate
        own, augment = layout.own_parts, bool(self.options.augment)
        return ClipParts(self.shards, self._batch, num_parts, own, seed=self._seed, augment=augment)

    def measure(self, stage: Stage, state: PartialState, batch: Batch) -> Capacity:
        """Nothing is rendered."""
        return Capacity(None)

    def build_step(self, stage: Stage, buffers: Capacity, *, axis_name: str | None, accumulate: int) -> Step:
        """See `training.system.System`."""
        return build_step(
            functools.partial(self._differentiate, stage.name),
            functools.partial(self._update, stage.name),
            axis_name=axis_name,
            accumulate=accumulate,
        )

    def between(self, stage: Stage, step: int) -> Callable[[PartialState, Array], PartialState] | None:
        """Nothing."""
        return None

    def end(self, stage: Stage, state: PartialState) -> PartialState:
        """After the first of two stages, its average with multi-view layers for the second."""
        following = [each for each in self.stages if each.first_step == stage.last_step]
        if not following:
            return state
        params = add_views(partial.averaged(state, trained(state.params, stage.name)))
        return self._begin(state.step, params, following[0].name)

    def histograms(self, state: PartialState) -> dict[str, np.ndarray]:
        """What leads from tokens to latents."""
        return dict(head=np.asarray(state.params.backbone.head.kernel, np.float32))

    def _add(self, key: Array, backbone: transformer.WanParams) -> AnimaxParams:
        return add_to_backbone(key, backbone, self.backbone, self.options)

    def _begin(self, step: Array, params: AnimaxParams, stage: str) -> PartialState:
        return begin_stage(step, params, stage, self.options)

    def _differentiate(
        self, stage: str, state: PartialState, batch: Drawn, fixed: Mapping[str, Any], key: Array
    ) -> tuple[Part, Array]:
        keys = jax.vmap(lambda seed: jax.random.fold_in(key, seed))(batch.seeds)
        joint, at = encode_batch(batch.clips, self.codec, fixed["codec"]), self.options
        chosen = trained(state.params, stage)
        how: Any = dict(shift=at.shift, drop=at.drop, predicts=at.predicts, attend=at.attend, remat=bool(at.remat))
        weights = jnp.array([at.weights.rgb, at.weights.pose])

        def loss(arrays: tuple[Array, ...]) -> tuple[Array, Any]:
            params = partial.put(state.params, arrays, chosen)
            errors = flow_errors(params, joint, keys, config=self.backbone.config, **how)
            return jnp.sum(errors.halves * weights), errors

        (total, errors), gradients = jax.value_and_grad(loss, has_aux=True)(partial.take(state.params, chosen))
        # The last frame of the first view, as it is and as it is seen through the noise.
        first = jnp.stack([joint.video[0, 0, 0, -1:], errors.videos[0, 0, 0, -1:]])
        preview = self.codec.decode(fixed["codec"], first)[:, -1] / 255.0
        terms = dict(rgb=errors.halves[0], pose=errors.halves[1])
        return Part(means=(gradients, total, terms, errors.data), sums=()), preview

    def _update(self, stage: str, state: PartialState, total: Part, preview: Array) -> tuple[PartialState, Metrics]:
        gradients, loss, terms, data = total.means
        chosen, optimizer = trained(state.params, stage), build_optimizer(self.options)
        stepped = partial.advance(state, gradients, chosen, optimizer, share=self.options.average, taken=state.step)
        psnr = -10 * jnp.log10(jnp.maximum(jnp.mean(data) / 4, 1e-12))  # of latents in -1..1
        metrics = Metrics(loss, terms, psnr, jnp.zeros([], jnp.int32), preview)
        return stepped, metrics


def measure_orbit(cameras: Camera) -> tuple[list[float], float]:
    """Azimuths [V] and the elevation of cameras around the origin, in degrees as `orbit` takes them."""
    poses = np.asarray(cameras.world_to_camera, np.float64)
    eyes = -np.einsum("vji,vj->vi", poses[:, :3, :3], poses[:, :3, 3])
    azimuths = np.rad2deg(np.arctan2(eyes[:, 0], eyes[:, 2])) % 360
    elevations = np.rad2deg(np.arcsin(eyes[:, 1] / np.linalg.norm(eyes, axis=1)))
    return [round(float(x), 3) for x in azimuths], round(float(elevations.mean()), 3)


def list_stages(options: Mapping[str, Any]) -> tuple[Stage, ...]:
    """The stages that `config.animax` asks for, each of `num_steps`."""
    steps = options["num_steps"]
    return tuple(
        Stage(name, index * steps, (index + 1) * steps, ((0, 0),)) for index, name in enumerate(options["stages"])
    )


def build_codec(config: Mapping[str, Any]) -> Codec:
    """What `config.animax.codec` names."""
    codec: Codec = resolve(config["animax"]["codec"], key="animax.codec")()
    return codec


def build_backbone(config: Mapping[str, Any]) -> Backbone:
    """What `config.animax.backbone` names."""
    backbone: Backbone = resolve(config["animax"]["backbone"], key="animax.backbone")()
    return backbone


def check_fit(shards: ClipShards, codec: Codec, backbone: Backbone) -> None:
    """Raises UserError where clips, autoencoder and transformer do not go together."""
    found, config = next(iter(shards.captions.values())), backbone.config
    if config.in_channels != codec.channels:
        raise UserError(
            f"config.animax.backbone: has {config.in_channels} channels, expected {codec.channels} (as animax.codec)"
        )
    side = codec.factor * config.patch[1]
    if shards.size % side:
        raise UserError(f"{shards.folder}: pictures of {shards.size} pixels, expected a multiple of {side}")
    if (shards.num_frames - 1) % codec.time_factor:
        raise UserError(f"{shards.folder}: {shards.num_frames} frames, expected 1 + {codec.time_factor} k")
    size = shards.embed_caption(found).shape[-1]
    if size != config.text_dim:
        raise UserError(f"config.animax.text: features of {size} numbers, expected {config.text_dim} (text_dim)")


def build_optimizer(options: Mapping[str, Any]) -> optax.GradientTransformation:
    """Of each stage."""
    return partial.build_optimizer(options["num_steps"], options["rate"], options["clip"])


def add_to_backbone(
    key: Array, params: transformer.WanParams, backbone: Backbone, options: Mapping[str, Any]
) -> AnimaxParams:
    """The joint model around a backbone, as the first stage wants it."""
    rank = options["rank"]
    later = options["stages"][0] == JOINT
    return init_params(key, params, backbone.config, rank=rank, alpha=float(rank or 1), multi_view_layers=not later)


def begin_stage(step: Array, params: AnimaxParams, stage: str, options: Mapping[str, Any]) -> PartialState:
    """A state at the first step of a stage."""
    return partial.begin(step, params, trained(params, stage), build_optimizer(options))


def make_template(options: Mapping[str, Any], backbone: Backbone, step: int) -> PartialState:
    """Shapes and types of a state after `step` steps."""
    stages = list_stages(options)
    stage = next((each for each in stages if step < each.last_step), stages[-1])

    def begin(key: Array) -> PartialState:
        arrays = transformer.init_params(key, backbone.config, backbone.dtype)
        params = add_to_backbone(key, arrays, backbone, options)
        if stage.first_step and params.views is None:
            params = add_views(params)
        return begin_stage(jnp.zeros([], jnp.int32), params, stage.name, options)

    shapes: PartialState = jax.eval_shape(begin, jax.random.key(0))
    return shapes
