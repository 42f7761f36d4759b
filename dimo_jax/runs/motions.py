"""Which motions to export, from flags to arrays: trained, sampled, between others, from a sentence, or from a file."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import join_names, parse_numbers
from dimo_jax.core.names import split_list
from dimo_jax.core.types import Array, Params
from dimo_jax.geometry import quaternion
from dimo_jax.geometry.rotations import keep_sign
from dimo_jax.io.gltf.skinned import find_shown
from dimo_jax.io.motion import Motion, measure_skin
from dimo_jax.io.npz import read_npz
from dimo_jax.networks.bert import load_encoder
from dimo_jax.runs import captions
from dimo_jax.runs.choice import Choice, is_code
from dimo_jax.runs.codes import LINES, draw_codes, file_name
from dimo_jax.runs.restore import Restored
from dimo_jax.skinning.posing import rest
from dimo_jax.systems.dimo import model as dimo
from dimo_jax.systems.dimo.model import Components
from dimo_jax.systems.dimo.sentences import text_options
from dimo_jax.systems.dimo.stages import frame_times
from dimo_jax.training import latents
from dimo_jax.training.config_file import load_config

LOST = 5e-2  # of a motion's extent: beyond it the key points do not move the Gaussians


def choose_codes(model: Restored, workdir: str, choice: Choice, num_frames: int) -> list[tuple[str, Array]]:
    """Names, fit for files, and latent codes of the chosen motions.

    Returns:
      Pairs of a name and a code [D], or codes [num_frames,D] where the code changes while time runs.

    Raises:
      UserError: an unknown motion, or a file that holds no code of this model.
    """
    player = model.player
    if choice.motion:
        found = find_motions(model, choice.motion)
        return [(str(model.facts["names"][index]), player.latent(index)) for index in found]
    if choice.num_samples:
        how = dict(prior=choice.prior, around=choice.around, spread=choice.spread, diverse=choice.diverse)
        codes = draw_codes(model, seed=choice.seed, num_samples=choice.num_samples, **how)  # type: ignore[arg-type]
        stem = f"{choice.around}_{choice.seed}" if choice.around else f"sample_{choice.seed}"
        return [(f"{stem}_{index + 1}", z) for index, z in enumerate(codes)]
    if choice.motions:
        found = model.find_motions(choice.motions, flag="motions")
        if len(found) < 2:
            raise UserError(f"--motions: found {choice.motions!r}, expected two names or more, separated by commas")
        names = [str(model.facts["names"][index]) for index in found]
        codes = jnp.stack([player.latent(index) for index in found])
        shares = jnp.linspace(0, 1, num_frames) if choice.share is None else jnp.asarray([choice.share])
        walked = latents.walk(codes, shares, interpolate=LINES[choice.path])
        stem = f"{join_names(names)}_{choice.path}"
        return [(stem, walked)] if choice.share is None else [(f"{stem}_{choice.share:g}", walked[0])]
    if choice.prompt:
        return [(file_name(choice.prompt), read_prompt(model, workdir, choice.prompt, bert=choice.bert))]
    dim = player.params.latents.mu.shape[1]
    if is_code(choice.code):
        return [("code", jnp.asarray(parse_numbers("code", choice.code, count=dim), jnp.float32))]
    return read_codes(Path(choice.code), dim)


def find_motions(model: Restored, text: str) -> list[int]:
    """The indices of training motions by their names or, where no motion has such a name, by their indices."""
    names = [str(name) for name in model.facts["names"]]
    by_index = {str(index): int(index) for index in model.trained_motions if str(index) not in names}
    return [
        by_index[part] if part in by_index else model.find_motion(part, flag="motion")
        for part in split_list(text, names)
    ]


def read_prompt(model: Restored, workdir: str, prompt: str, *, bert: str = "") -> Array:
    """The code [D] of a sentence, as `--app=text` finds it; trains the run's projector where it has none yet."""
    return encode_prompts(model, workdir, [prompt], bert=bert)[0]


def encode_prompts(model: Restored, workdir: str, prompts: Sequence[str], *, bert: str = "") -> Array:
    """The codes [n,D] of sentences, each as `read_prompt` finds it."""
    options = text_options(load_config(Path(workdir)), bert=bert)
    encoder = load_encoder(options["bert"], pooling=options["pooling"])
    speaker, _ = captions.speak_for(model, workdir, options, encoder)
    return jnp.concatenate([speaker.codes(speaker.ask(prompt)) for prompt in prompts])


def read_prompts(path: Path) -> list[str]:
    """The sentences of a text file, one a line; empty lines do not count.

    Raises:
      UserError: it is no text of UTF-8, or has no sentence.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--prompts={path}: cannot be read ({error}), expected a text file of UTF-8") from error
    found = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not found:
        raise UserError(f"--prompts={path}: found no sentence, expected one a line")
    return found


def read_codes(path: Path, dim: int) -> list[tuple[str, Array]]:
    """Codes [D] or [n,D] from field `z` of an npz, as `--app=reconstruct` writes them.

    Raises:
      UserError: no such file, or no codes of `dim` finite numbers in it.
    """
    z = read_npz(path, "an npz with a field z", flag="code").get("z", np.zeros(0))
    if z.dtype.kind not in "fiu":
        raise UserError(f"--code={path}: field z is {z.dtype}, expected numbers")
    z = z.astype(np.float32)
    codes = z[None] if z.ndim == 1 else z
    if codes.ndim != 2 or codes.shape[1] != dim or not len(codes) or not np.isfinite(codes).all():
        raise UserError(f"--code={path}: field z is {list(z.shape)}, expected [{dim}] or [n,{dim}], all finite")
    names = [path.stem] if z.ndim == 1 else [f"{path.stem}_{index + 1}" for index in range(len(codes))]
    return [(name, jnp.asarray(code)) for name, code in zip(names, codes)]


def check_skin(clip: Motion, *, geometry: str) -> None:
    """Checks that a skin can show a motion.

    Raises:
      UserError: the run's Gaussians are not moved by its key points, as in some ablations, or none would be drawn.
    """
    away = measure_skin(clip, clip.neighbors, clip.weights)
    if away > LOST:
        raise UserError(
            f"--format=glb: the skin of {clip.name!r} is {away:.0%} of its size away from its Gaussians, expected a "
            "run whose key points move them by linear blending (config.stage2.move, config.deform); ply holds any"
        )
    if not find_shown(clip.canonical, geometry=geometry).any():
        raise UserError(f"--geometry: found {geometry}, of which none would be opaque enough, expected points")


class MotionRecorder:
    """Plays codes of one model into `Motion`s; compiled once per number of frames."""

    def __init__(self, model: Restored) -> None:
        self._player = model.player
        self._graph_times = frame_times(model.num_frames)

    def record(self, name: str, codes: Array, times: Array, *, frame_rate: float) -> Motion:
        """The motion of a code [D], or of one code a frame [T,D], at times [T] in 0..1."""
        player, walks = self._player, codes.ndim == 2
        clip = player.walk(codes, times) if walks else player.play(codes, times)
        every = codes if walks else jnp.broadcast_to(codes, (len(times), *codes.shape))
        graph = (
            (every, times)
            if walks
            else (jnp.broadcast_to(codes, (len(self._graph_times), *codes.shape)), self._graph_times)
        )
        tracks, turns, neighbors, weights = (
            np.asarray(x) for x in _pose(player.components, player.params, every, jnp.asarray(times), *graph)
        )
        params = jax.device_get(player.params)
        return Motion(
            name=name,
            frame_rate=frame_rate,
            times=np.asarray(times, np.float32),
            codes=np.asarray(every),
            canonical=rest(params.gaussians, params.light),
            means=np.asarray(clip.gaussians.means),
            quats=np.asarray(clip.gaussians.quats),
            rest=params.key_points.positions,
            radii=player.control_radii,
            tracks=tracks,
            turns=keep_sign(turns),
            neighbors=neighbors,
            weights=weights,
            shades=None if params.light is None else np.asarray(clip.gaussians.sh),
        )


@functools.partial(jax.jit, static_argnums=0)
def _pose(
    components: Components, params: Params, codes: Array, times: Array, graph_codes: Array, graph_times: Array
) -> tuple[Array, Array, Array, Array]:
    """Tracks [T,K,3] and unit rotations [T,K,4] of the key points, and which of them move each Gaussian, how much.

    The motion graph is that of the trajectories over the graph's codes and times.
    """
    positions, means = params.key_points.positions, params.gaussians.means

    def decode(z: Array, time: Array) -> tuple[Array, Array]:
        return dimo.decode(components, params, z, positions, time)

    translations, rotations = jax.vmap(decode)(codes, times)
    trajectories = positions + jax.vmap(decode)(graph_codes, graph_times)[0]
    near = components.graph(means, positions, trajectories)
    weights = components.skinning(means, positions[near], params.key_points.log_radii[near])
    return positions + translations, quaternion.normalize(rotations), near, weights
