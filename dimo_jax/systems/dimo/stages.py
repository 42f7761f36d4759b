"""The stages of training (paper Sec. 3.3, and a third): their initial states, and what happens between steps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from ml_collections import ConfigDict

from dimo_jax.core.resolve import resolve
from dimo_jax.core.types import Array, JointParams, KeyPoints, Latents, LitJointParams, LitParams, Params
from dimo_jax.geometry.neighbors import farthest_points
from dimo_jax.losses.total import build_terms
from dimo_jax.systems.dimo import free_poses, model
from dimo_jax.systems.dimo.model import Components, Neighbors
from dimo_jax.systems.dimo.state import TrainState, fields_of
from dimo_jax.systems.dimo.step import StepOptions
from dimo_jax.training import density, gaussians
from dimo_jax.training.images import find_dilation
from dimo_jax.training.optimizer import ADAM_B2, build_optimizer
from dimo_jax.training.system import Stage


@dataclass(frozen=True)
class DimoStage:
    """One stage: the steps it spans, its part of the config, and what its step needs."""

    span: Stage
    config: ConfigDict
    options: StepOptions


def frees_poses(config: Mapping[str, Any]) -> bool:
    """Whether there is a third stage; configs of older runs do not know of one."""
    return "stage3" in config and config["stage3"]["num_steps"] > 0


def build_stages(config: Mapping[str, Any]) -> tuple[DimoStage, ...]:
    """Two stages or three from the config; raises UserError for a slot that cannot be resolved."""
    stages, first_step = [], 0
    text = config.get("text", {})
    joint = text.get("joint", False)
    for name in ("stage1", "stage2", "stage3") if frees_poses(config) else ("stage1", "stage2"):
        stage, is_third = config[name], name == "stage3"
        follow = config["stage2"] if is_third else stage  # what does not change in the third stage
        # The term needs the projector's variables, which only `text.joint` brings.
        losses = {term: spec for term, spec in stage["losses"].items() if term != "text" or joint}
        options = StepOptions(
            move=resolve(follow["move"], key=f"{name}.move"),
            terms=build_terms(losses, key=f"{name}.losses"),
            optimizer=free_poses.build_free_optimizer(stage)
            if is_third
            else build_optimizer(stage["rates"], key=f"{name}.rates", b2=stage.get("adam_b2", ADAM_B2)),
            tie_scales=resolve(follow["scales"], key=f"{name}.scales"),
            first_step=first_step,
            points_are_controls=name == "stage1",
            background=tuple(config["render"]["background"]),
            implementation=config["render"]["implementation"],
            capacity=config["render"]["capacity"],
            dilation=find_dilation(config),
            radius_power=float(config.get("radius_power", 2.0)),
            text_noise=float(text["fit"].get("noise", 0.0)) if joint else 0.0,
        )
        last_step = first_step + stage["num_steps"]
        phases = tuple(map(tuple, stage["phases"]))
        span = Stage(name, first_step, last_step, phases, is_whole=not is_third)
        stages.append(DimoStage(span, stage, options))
        first_step = last_step
    return tuple(stages)


def frame_times(num_frames: int) -> Array:
    """Times [T] of a video's frames: i / T (the authors' convention)."""
    return jnp.arange(num_frames, dtype=jnp.float32) / num_frames


def begin_first(
    config: Mapping[str, Any],
    components: Components,
    *,
    num_motions: int,
    num_frames: int,
    key: Array,
    num_text_features: int = 0,
) -> TrainState:
    """The state at step 0: points in a ball, latents near the origin, a decoder that says "stay".

    `num_text_features` is the length of a sentence's embedding, where a projector is trained with the latents.
    """
    stage, options = config["stage1"], build_stages(config)[0].options
    point_key, latent_key, decoder_key = jax.random.split(key, 3)
    points, alive = gaussians.init_points(
        point_key,
        capacity=stage["capacity"],
        num_points=stage["num_points"],
        ball_radius=stage["ball_radius"],
        opacity=stage["opacity"],
        scale=stage["scale"],
    )
    codes = resolve_latent_init(config)(latent_key, num_motions=num_motions)
    variables = components.decoder.init(decoder_key, codes.mu[0], points.means[:1], jnp.zeros([]))
    num_key_points = config["num_key_points"]
    params = Params(
        latents=codes,
        decoder=variables,
        key_points=KeyPoints(positions=jnp.zeros((num_key_points, 3)), log_radii=jnp.zeros(num_key_points)),
        gaussians=points,
    )
    if components.projector is not None:
        projector = components.projector.init(jax.random.fold_in(decoder_key, 1), jnp.zeros((1, num_text_features)))
        params = JointParams(**fields_of(params), projector=projector)
    state = TrainState(
        step=jnp.zeros([], jnp.int32),
        params=params,
        optimizer=options.optimizer.init(params),
        alive=alive,
        neighbors=_no_neighbors(),
        density=density.init_stats(stage["capacity"]),
        reference=jnp.zeros((num_motions, num_frames, num_key_points, 3)),
        dropped=jnp.zeros([], jnp.int32),
    )
    return _strong(refresh(state, components, times=frame_times(num_frames), points_are_controls=True))


def resolve_latent_init(config: Mapping[str, Any]) -> Callable[..., Latents]:
    """How codes begin: a function (key, num_motions=...) -> `types.Latents`; `init_latents` where `fn` is not given.

    Raises:
      UserError: it cannot be resolved.
    """
    return resolve({"fn": "dimo_jax.training.latents:init_latents", **config["latent_init"]}, key="latent_init")


def _strong(state: Any) -> Any:
    """The same state without weak types, which a step would not return: its second call would compile once more."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), state)


def _no_neighbors() -> Neighbors:
    return Neighbors(gaussians=jnp.zeros((0, 0, 0), jnp.int32), controls=jnp.zeros((0, 0, 0), jnp.int32))


def refresh(state: TrainState, components: Components, *, times: Array, points_are_controls: bool) -> TrainState:
    """Rebuilds the motion graph of every motion (Eq. 3) from the present trajectories, one motion at a time."""
    params = state.params

    def find(z: Array) -> Neighbors:
        if points_are_controls:
            return model.find_point_neighbors(components, params, z, times, state.alive)
        return model.find_neighbors(components, params, z, times)

    neighbors = jax.lax.map(find, params.latents.mu)
    return state.replace(neighbors=jax.tree.map(jax.lax.stop_gradient, neighbors))


def control_density(
    state: TrainState, *, key: Array, grows: bool, thins: bool, config: Mapping[str, Any]
) -> TrainState:
    """First stage: densifies and prunes (`grows`), or anneals to N_k points (`thins`); both are static."""
    stage = config["stage1"]
    points, alive, optimizer, dropped = state.params.gaussians, state.alive, state.optimizer, state.dropped
    if grows:
        tied = resolve(stage["scales"], key="stage1.scales")(points.log_scales, alive)
        densify = resolve(stage["densify"], key="stage1.densify")
        points, alive, changed, missed = densify(key, points.replace(log_scales=tied), alive, state.density)
        optimizer = density.reset_moments(optimizer, changed)
        alive = resolve(stage["prune"], key="stage1.prune")(points, alive)
        dropped = dropped + missed
    if thins:
        alive = density.anneal(points, alive, num_points=config["num_key_points"])
    return state.replace(
        params=state.params.replace(gaussians=points),
        alive=alive,
        optimizer=optimizer,
        density=density.init_stats(alive.shape[0]),
        dropped=dropped,
    )


def prune_gaussians(state: TrainState, *, config: Mapping[str, Any]) -> TrainState:
    """Second stage: takes Gaussians out of use that are nearly transparent or too large."""
    alive = resolve(config["stage2"]["prune"], key="stage2.prune")(state.params.gaussians, state.alive)
    return state.replace(alive=alive)


def choose_key_points(state: TrainState, config: Mapping[str, Any]) -> tuple[KeyPoints, Array]:
    """Ends the first stage: prunes, and keeps N_k points by farthest point sampling.

    Returns:
      Key points with radii from their spacing (see `config.radius_power`), and their degree-0 colours [K,3].
    """
    points, num_key_points = state.params.gaussians, config["num_key_points"]
    usable = density.prune(points, state.alive, min_opacity=config["stage1"]["final_opacity"])
    by_opacity = jnp.argsort(jnp.where(state.alive, -points.logit_opacities, jnp.inf))[:num_key_points]
    enough = jnp.sum(usable) >= num_key_points
    mask = jnp.where(enough, usable, jnp.zeros_like(usable).at[by_opacity].set(True))
    chosen = farthest_points(points.means, num_points=num_key_points, mask=mask)
    positions = points.means[chosen]
    spacing = gaussians.mean_spacing(positions)
    log_radii = config["radius_power"] * jnp.log(config["radius_scale"] * spacing)
    return KeyPoints(positions=positions, log_radii=log_radii), points.sh[chosen, 0]


def begin_second(
    state: TrainState, key: Array, *, config: Mapping[str, Any], components: Components, num_frames: int
) -> TrainState:
    """The second stage's first state: key points chosen, Gaussians placed around them, trajectories remembered."""
    stage = config["stage2"]
    optimizer = build_optimizer(stage["rates"], key="stage2.rates", b2=stage.get("adam_b2", ADAM_B2))
    key_points, sh = choose_key_points(state, config)
    light = stage.get("light")
    canonical = gaussians.init_around_key_points(
        key,
        key_points,
        sh,
        stage["ball_scale"] * gaussians.mean_spacing(key_points.positions),
        num_per_key_point=stage["num_per_key_point"],
        degree=stage["sh_degree"] if light is None else 1,
        opacity=stage["opacity"],
    )
    params = state.params.replace(key_points=key_points, gaussians=canonical)
    if light is not None:
        kind = LitJointParams if isinstance(params, JointParams) else LitParams
        params = kind(**fields_of(params), light=jnp.asarray(light, jnp.float32))
    times = frame_times(num_frames)

    def trajectories(z: Array) -> Array:
        return model.decode_trajectories(components, params, z, key_points.positions, times)[0]

    count = canonical.means.shape[0]
    second = state.replace(
        params=params,
        optimizer=optimizer.init(params),
        alive=jnp.ones(count, bool),
        density=density.init_stats(count),
        reference=jax.lax.map(trajectories, params.latents.mu),
    )
    return _strong(refresh(second, components, times=times, points_are_controls=False))


def begin_third(
    state: TrainState, *, config: Mapping[str, Any], components: Components, num_frames: int
) -> free_poses.FreeState:
    """The third stage's first state: every pose free, from where the decoder puts it."""
    times = frame_times(num_frames)
    third: free_poses.FreeState = _strong(free_poses.begin(state, components, stage=config["stage3"], times=times))
    return third


def end_third(
    state: free_poses.FreeState,
    key: Array,
    *,
    config: Mapping[str, Any],
    components: Components,
    motions: Array,
    frames: Array,
) -> tuple[TrainState, Array]:
    """What the third stage ends with: a decoder fitted to the poses at trained frames, the Gaussians as they became.

    Returns:
      The state, and the fit's loss at each step, in squared world units.
    """
    free, all_times = state.free, frame_times(state.free.translations.shape[1])
    at = motions[:, None], frames[None, :]
    params, losses = resolve(config["stage3"]["fit"], key="stage3.fit")(
        components,
        state.params.replace(gaussians=free.gaussians),
        key,
        motions=motions,
        times=all_times[frames],
        translations=free.translations[at],
        rotations=free.rotations[at],
    )
    ended = free_poses.end(state, params)
    return _strong(refresh(ended, components, times=all_times, points_are_controls=False)), losses


def template(
    config: Mapping[str, Any],
    components: Components,
    *,
    step: int,
    num_motions: int,
    num_frames: int,
    num_text_features: int = 0,
) -> TrainState:
    """Shapes and types of the state after `step` steps, without computing anything: what a checkpoint must hold."""
    key = jax.random.key(0)
    first = jax.eval_shape(
        lambda k: begin_first(
            config,
            components,
            num_motions=num_motions,
            num_frames=num_frames,
            num_text_features=num_text_features,
            key=k,
        ),
        key,
    )
    spans = [stage.span for stage in build_stages(config)]
    if step < spans[0].last_step:
        return first
    second: Callable[..., TrainState] = lambda s, k: begin_second(  # noqa: E731
        s, k, config=config, components=components, num_frames=num_frames
    )
    later: TrainState = jax.eval_shape(second, first, key)
    if not spans[-1].is_whole and spans[-1].first_step <= step < spans[-1].last_step:
        third = functools.partial(begin_third, config=config, components=components, num_frames=num_frames)
        return jax.eval_shape(third, later)
    return later


def report_first_stage(state: TrainState, config: Mapping[str, Any]) -> None:
    """Says how the first stage ended, and what found no room in it."""
    usable = density.prune(state.params.gaussians, state.alive, min_opacity=config["stage1"]["final_opacity"])
    alive, opaque, dropped = int(state.alive.sum()), int(usable.sum()), int(state.dropped)
    logging.info(
        "stage 1 ends with %d points, %d of them opaque; %d key points", alive, opaque, config["num_key_points"]
    )
    if opaque < config["num_key_points"]:
        logging.warning(
            "stage 1: only %d opaque points for %d key points; faint ones fill up", opaque, config["num_key_points"]
        )
    if dropped:
        logging.warning("stage 1: %d new points found no free slot; raise config.stage1.capacity", dropped)
