"""The programs of AnimaX and ATOP at the published sizes, as `worker` asks for them; there are no weights to read.

Every step is what the systems themselves build, around backbones and encoders of which there are shapes alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from bench.compile.preset import read_preset
from bench.compile.programs import Program, choose_layout, cut_step, replicate_shapes
from dimo_jax.configs.animax import get_config as get_animax
from dimo_jax.configs.atop import get_config as get_atop
from dimo_jax.core.errors import UserError
from dimo_jax.core.types import Camera, Gaussians
from dimo_jax.data.articulated.videos import AZIMUTHS
from dimo_jax.data.clips import ClipBatch
from dimo_jax.networks.imagedream import vae as picture_vae
from dimo_jax.networks.wan import vae as video_vae
from dimo_jax.render.metaballs import blend
from dimo_jax.systems.animax import batches as clips
from dimo_jax.systems.animax import parts as animax_parts
from dimo_jax.systems.animax import sampling as clip_sampling
from dimo_jax.systems.animax import system as animax
from dimo_jax.systems.atop.generator import batches as films
from dimo_jax.systems.atop.generator import parts as atop_parts
from dimo_jax.systems.atop.generator import sampling as film_sampling
from dimo_jax.systems.atop.generator import system as atop
from dimo_jax.systems.atop.generator.latents import LatentScene, distill, free_moves
from dimo_jax.systems.atop.generator.model import Condition
from dimo_jax.systems.atop.generator.outputs import Form
from dimo_jax.systems.atop.generator.training import MotionBatch
from dimo_jax.systems.atop.seen.splats import COUNT
from dimo_jax.third_party.imagedream import vae as picture_files
from dimo_jax.third_party.imagedream.unet import UNetConfig
from dimo_jax.third_party.wan import vae as video_files
from dimo_jax.third_party.wan.transformer import WanConfig
from dimo_jax.training import parallel
from dimo_jax.training.system import Capacity, Stage

VIEWS, SIDE, FRAMES = 4, 480, 81  # of AnimaX (A.2), "480p" taken as squares
WORDS = 512  # tokens of umT5 as Wan pads them
TOKENS, LOOKS, LOOK_DIM = 77, 257, 1280  # of OpenCLIP's sentences; of its pictures, and their numbers
DISTILLED = 100  # steps, of which one program has a loop


class UnreadAnimax(animax.Animax):
    """What builds steps of AnimaX around Wan2.1-T2V-1.3B."""

    def __init__(self, config: ConfigDict) -> None:
        self.options = config.animax
        self.backbone = animax_parts.Backbone(WanConfig(), _unread, jnp.bfloat16)
        self.codec = animax_parts.wan_codec_of(video_files.VaeConfig(), _shape_video_vae)

    def fixed(self, stage: Stage) -> dict[str, Any]:
        """Shapes of the autoencoder's arrays."""
        return dict(codec=self.codec.load())


class UnreadAtop(atop.Atop):
    """What builds steps of ATOP's generator around ImageDream."""

    def __init__(self, config: ConfigDict) -> None:
        self.options, unet = config.atop, UNetConfig()
        shapes = functools.partial(atop_parts.shape_unet, unet, jnp.bfloat16)
        self.backbone = atop_parts.Backbone(unet, Form(config.atop.backbone.prediction), _unread, shapes)

    def fixed(self, stage: Stage) -> dict[str, Any]:
        """The shape of the sentence of no condition."""
        return dict(empty=_numbers(TOKENS, self.backbone.config.text_dim))


def list_animax(
    *, preset: str, changes: Mapping[str, Any], num_devices: int = 1, phase: int = 0, pairs: int = 0
) -> list[Program]:
    """Both stages, drawing, and the autoencoder there and back of one view's video.

    Raises:
      UserError: another preset than wan, no such key, or a batch that devices cannot share.
    """
    config = _read(get_animax, "wan", preset, changes, phase, pairs)
    system = UnreadAnimax(config)
    steps = list(_list_steps(config, system, _draw_clips, num_devices))
    return steps if num_devices > 1 else [*steps, *_list_drawing_clips(system)]


def list_atop(
    *, preset: str, changes: Mapping[str, Any], num_devices: int = 1, phase: int = 0, pairs: int = 0
) -> list[Program]:
    """Training of the motion module, drawing, distillation as in the paper, and the autoencoder there and back.

    Raises:
      UserError: another preset than imagedream, no such key, or a batch that devices cannot share.
    """
    config = _read(get_atop, "imagedream", preset, changes, phase, pairs)
    system = UnreadAtop(config)
    draw = functools.partial(_draw_films, config)
    steps = list(_list_steps(config, system, draw, num_devices))
    return steps if num_devices > 1 else [*steps, *_list_drawing_films(config, system)]


def _read(
    get: Callable[[str], ConfigDict], expected: str, preset: str, changes: Mapping[str, Any], phase: int, pairs: int
) -> ConfigDict:
    if preset != expected:
        raise UserError(f"--preset={preset}: expected {expected}, the published sizes")
    if phase or pairs:
        raise UserError(f"--phase={phase} --pairs={pairs}: expected neither, for a system that renders nothing")
    return read_preset(get, preset, changes)


def _unread(key: Any) -> Any:
    raise AssertionError("only shapes are asked for")


def _numbers(*shape: int, dtype: Any = jnp.float32) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype)


def _key() -> Any:
    return jax.eval_shape(lambda: jax.random.key(0))


def _shape_video_vae() -> Any:
    config = video_files.VaeConfig()
    shapes = {name: _numbers(*shape) for name, shape in video_files.expected_shapes(config).items()}
    return jax.eval_shape(lambda arrays: video_vae.build_params(arrays, config), shapes)


def _shape_picture_vae() -> Any:
    config = picture_files.VaeConfig()
    shapes = {name: _numbers(*shape) for name, shape in picture_files.expected_shapes(config).items()}
    return jax.eval_shape(lambda arrays: picture_vae.build_params(arrays, config), shapes)


def _list_steps(config: ConfigDict, system: Any, draw: Callable[[int], Any], num_devices: int) -> Iterator[Program]:
    layout = choose_layout(config, num_devices)

    def draw_parts(layout: parallel.Layout) -> Any:
        count = int(config.batch.motions) // (layout.num_devices * layout.accumulate)
        leading = (layout.num_devices,) * layout.is_mapped + (layout.accumulate,) * (layout.accumulate > 1)
        return jax.tree.map(lambda x: _numbers(*leading, *x.shape, dtype=x.dtype), draw(count))

    for stage in system.stages:
        build = functools.partial(system.build_step, stage, Capacity(None))
        state = replicate_shapes(system.template(stage.first_step), layout)
        fixed = replicate_shapes(system.fixed(stage), layout)
        yield cut_step(stage.name, config, build, (state, fixed, _key()), draw_parts, layout)


def _make_cameras(*lead: int, side: int) -> Camera:
    return Camera(_numbers(*lead, 4, 4), _numbers(*lead, 2), _numbers(*lead, 2), height=side, width=side)


def _draw_clips(count: int) -> clips.Drawn:
    """Shapes of so many samples."""
    place = (count, VIEWS, 2)
    pictures = functools.partial(_numbers, *place, dtype=jnp.uint8)
    words = _numbers(count, WORDS, WanConfig().text_dim)
    batch = ClipBatch(
        pictures(FRAMES, SIDE, SIDE, 3), pictures(SIDE, SIDE, 3), words, _make_cameras(count, VIEWS, side=SIDE)
    )
    return clips.Drawn(batch, _numbers(count, dtype=jnp.uint32))


def _list_drawing_clips(system: UnreadAnimax) -> Iterator[Program]:
    codec, config, at = system.codec, system.backbone.config, system.options
    state = system.template(system.stages[-1].first_step)
    side, num_latents = SIDE // codec.factor, 1 + (FRAMES - 1) // codec.time_factor
    condition = _numbers(1, VIEWS, 2, side, side, codec.channels)
    given = (state.params, _key(), condition, _numbers(1, WORDS, config.text_dim), _numbers(1, VIEWS, side, side, 6))
    options = dict(config=config, num_latents=num_latents, attend=at.attend, predicts=at.predicts, **at.sampling)
    yield Program("draw", lambda devices: clip_sampling.draw, given, options)
    arrays = codec.load()
    encode, decode = jax.jit(codec.encode), jax.jit(codec.decode)
    video = _numbers(1, FRAMES, SIDE, SIDE, 3, dtype=jnp.uint8)
    yield Program("encode", lambda devices: encode, (arrays, video))
    latents = _numbers(1, num_latents, side, side, codec.channels)
    yield Program("decode", lambda devices: decode, (arrays, latents))


def _condition(config: ConfigDict, count: int) -> Condition:
    """Shapes of what `count` films are drawn from."""
    side, views = int(config.data.side), len(AZIMUTHS)
    unet = UNetConfig()
    return Condition(
        text=_numbers(count, TOKENS, unet.text_dim),
        image=_numbers(count, views, LOOKS, LOOK_DIM),
        masks=_numbers(count, views, side, side),
        cameras=_numbers(count, views, unet.camera_dim),
    )


def _draw_films(config: ConfigDict, count: int) -> films.Drawn:
    """Shapes of so many samples."""
    sizes = picture_files.VaeConfig()
    side, frames = int(config.data.side) // sizes.factor, int(config.data.num_frames)
    video = _numbers(count, len(AZIMUTHS), frames, side, side, sizes.latent_channels)
    return films.Drawn(MotionBatch(video, _condition(config, count)), _numbers(count, dtype=jnp.uint32))


def _list_drawing_films(config: ConfigDict, system: UnreadAtop) -> Iterator[Program]:
    sizes, at, unet = picture_files.VaeConfig(), system.options, system.backbone.config
    side, frames, views = int(config.data.side) // sizes.factor, int(config.data.num_frames), len(AZIMUTHS)
    params = system.template(system.stages[-1].first_step).params
    condition, empty = _condition(config, 1), _numbers(TOKENS, unet.text_dim)
    how = dict(config=unet, form=system.backbone.form, attend=at.attend, guidance=at.sampling.guidance)
    options = dict(shape=(frames, side, side), num_steps=at.sampling.num_steps, **how)
    yield Program("draw", lambda devices: film_sampling.draw, (params, _key(), condition, empty), options)

    @jax.jit
    def move(params: Any, key: Any, condition: Condition, empty: Any, scene: LatentScene, cameras: Camera) -> Any:
        def predict(noisy: Any, timestep: Any) -> Any:
            return film_sampling.guided_prediction(params, noisy[None], timestep, condition, empty, **how)[0]

        paper: Any = dict(paired=False, stiffness=0.0, blend=blend)
        return distill(predict, key, scene, free_moves(scene, frames), cameras, steps=DISTILLED, **paper)

    num = 2 * COUNT
    gaussians = Gaussians(_numbers(num, 3), _numbers(num, 3), _numbers(num, 4), _numbers(num), sh=_numbers(num, 1, 3))
    scene = LatentScene(
        gaussians, _numbers(num, sizes.latent_channels), _numbers(sizes.latent_channels), _numbers(), COUNT
    )
    cameras = _make_cameras(views, side=side)
    yield Program("distill", lambda devices: move, (params, _key(), condition, empty, scene, cameras))
    arrays, count = _shape_picture_vae(), views * frames
    encode = jax.jit(functools.partial(picture_vae.encode, config=sizes))
    decode = jax.jit(functools.partial(picture_vae.decode, config=sizes))
    yield Program("encode", lambda devices: encode, (arrays, _numbers(count, config.data.side, config.data.side, 3)))
    yield Program("decode", lambda devices: decode, (arrays, _numbers(count, side, side, sizes.latent_channels)))
