"""The trained motion space of a rig, restored from its workdir and the file of its model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dimo_jax.core.errors import UserError
from dimo_jax.data.formats.rigged.clips import open_model, take_clips
from dimo_jax.rigs.channels import Channels
from dimo_jax.rigs.clip_set import ClipSet, find_times
from dimo_jax.rigs.scene import Scene
from dimo_jax.rigs.skinned import Surface, make_surface, pose_surface
from dimo_jax.runs.restore import FACTS_FILE, RIG_SPACE, Restored, read_facts
from dimo_jax.systems.rig.fit import fit_codes
from dimo_jax.systems.rig.model import build_decoder, make_puppet, make_truth
from dimo_jax.systems.rig.player import RigPlayer
from dimo_jax.systems.rig.system import make_template
from dimo_jax.training.checkpoints import Checkpoints
from dimo_jax.training.config_file import load_config

_MOST_VERTICES = 2_000  # at which clips are compared
_FEWEST = 3  # nodes that are named where skeletons differ


@dataclass(frozen=True)
class RestoredRig(Restored):
    """A trained motion space of a rig, what is known of its clips, and the model."""

    player: RigPlayer  # type: ignore[assignment]
    scene: Scene

    @property
    def seconds(self) -> np.ndarray:
        """How long each clip lasts [M]; 0 for a still pose."""
        return np.asarray(self.facts["seconds"], np.float64)

    @property
    def loops(self) -> np.ndarray:
        """Which clips go round [M]."""
        return np.asarray(self.facts["loops"], bool)

    @property
    def ways(self) -> np.ndarray:
        """How far each loop goes across the ground [M,3], see `rigs/travel.py`; a run from before knows of none."""
        return np.asarray(self.facts.get("ways") or np.zeros((len(self.facts["names"]), 3)), np.float64)

    @property
    def tops(self) -> tuple[int, ...]:
        """The nodes by which the model as a whole moves."""
        return tuple(self.facts.get("tops") or ())


def is_rig_space(config: ConfigDict) -> bool:
    """Whether a config is that of a motion space of a rig."""
    return bool((config.get("system") or {}).get("fn") == RIG_SPACE)


def restore_rig(workdir: str | Path, *, source: str = "", checkpoint: str = "last") -> RestoredRig:
    """The motion space in a workdir.

    Args:
      workdir: of a finished run of configs/rig.py.
      source: the model; default: the file that it was trained on.
      checkpoint: "last" or "best".

    Raises:
      UserError: no such run there, or a model of other nodes than the run's.
    """
    folder = Path(workdir)
    config, facts = load_config(folder), read_facts(folder)
    if not is_rig_space(config):
        raise UserError(f"--workdir={workdir}: holds no run of configs/rig.py, expected one")
    scene = open_model(config.data, source=source)
    channels = _read_channels(facts, folder, len(scene.nodes))
    _check_nodes(scene, facts["nodes"], source)
    puppet = make_puppet(scene, channels)
    checkpoints = Checkpoints(folder)
    if not checkpoints.steps():
        raise UserError(f"--workdir={workdir}: no checkpoint in it, expected a training run that has saved one")
    best = checkpoints.best() if checkpoint == "best" else None
    if checkpoint == "best" and best is None:
        raise UserError(f"--checkpoint=best: found no scores in {checkpoints.folder}, expected a longer run")
    template = make_template(config, len(facts["names"]), channels.size)
    found = checkpoints.restore_latest(lambda step: template, before=None if best is None else best + 1)
    assert found is not None  # there is at least one, and one that cannot be read is an error
    params = jax.device_get(found[1]).params
    player = RigPlayer(puppet, build_decoder(config, channels.size), jax.tree.map(jnp.asarray, params))
    return RestoredRig(player, facts, found[0], config, scene)


def _read_channels(facts: Any, folder: Path, num_nodes: int) -> Channels:
    where = folder / FACTS_FILE
    try:
        channels = Channels(**{name: tuple(map(int, nodes)) for name, nodes in facts["channels"].items()})
        counts = {len(facts["names"])} | {len(facts[name]) for name in ("seconds", "loops", "rates")}
        counts |= {len(facts["ways"])} if "ways" in facts else set()
        nodes = [str(name) for name in facts["nodes"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{where}: damaged ({type(error).__name__}: {error}), expected a rig's channels") from error
    if len(counts) > 1 or max((*channels.turning, *channels.sliding, *channels.scaling), default=0) >= len(nodes):
        raise UserError(f"{where}: damaged, its lists are of different lengths")
    return channels


def _check_nodes(scene: Scene, expected: Sequence[str], source: str) -> None:
    found = [node.name for node in scene.nodes]
    if found == list(expected):
        return
    away = [name for name in expected if name not in found] or [name for name in found if name not in expected]
    some = ", ".join(away[:_FEWEST]) or "in another order"
    where = f"--source={source}" if source else str(scene.path)
    raise UserError(
        f"{where}: {len(found)} nodes, not those of the run's model ({some}), expected its {len(expected)} nodes"
    )


def measure_clips(player: RigPlayer, clips: ClipSet, codes: Sequence[Any]) -> np.ndarray:
    """Mean distances [M] of the vertices of clips from those of codes, as shares of the model's height."""
    surface = thin_surface(make_surface(clips.scene, player.puppet.rig))
    pose = jax.jit(lambda pose: pose_surface(player.puppet.rig, surface, pose))
    truth, errors = make_truth(player.puppet, clips), []
    for index, code in enumerate(codes):
        found = pose(player.play(code, truth.times[index], loop=bool(clips.loops[index])))
        true = pose(jax.tree.map(lambda x, index=index: x[index], clips.poses))
        errors.append(float(jnp.linalg.norm(found - true, axis=-1).mean()) / player.puppet.height)
    return np.array(errors)


def thin_surface(surface: Surface) -> Surface:
    """A surface with some of its vertices, evenly by their numbers; all where morph targets count on their order."""
    count = surface.positions.shape[0]
    if surface.morphed or count <= _MOST_VERTICES:
        return surface
    some = np.linspace(0, count - 1, _MOST_VERTICES).round().astype(int)
    return dataclasses.replace(
        surface, positions=surface.positions[some], bones=surface.bones[some], weights=surface.weights[some]
    )


def fit_clips(player: RigPlayer, clips: ClipSet, trained: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes [M,D] of clips that training did not see, from those of the trained ones on, and their errors [M]."""
    starts = player.params.latents.mu[np.asarray(trained)]
    truth = make_truth(player.puppet, clips)
    codes = fit_codes(player.puppet, player.module, player.params, truth, starts)
    return np.asarray(codes), measure_clips(player, clips, list(codes))


def read_own_clips(run: RestoredRig, num_frames: int) -> ClipSet:
    """The clips that a run was trained on, read again from its model; from the decoder where the file holds none."""
    names = {name.rsplit("|", 1)[-1]: index for index, name in enumerate(clip.name for clip in run.scene.clips)}
    names |= {clip.name: index for index, clip in enumerate(run.scene.clips)}
    wanted = [names[run.facts["names"][index]] for index in run.trained_motions if run.facts["names"][index] in names]
    return take_clips(run.scene, wanted, num_frames) if wanted else _play_own_clips(run, num_frames)


def _play_own_clips(run: RestoredRig, num_frames: int) -> ClipSet:
    motions, player = run.trained_motions, run.player
    loops, poses = run.loops[motions], []
    for motion, loop in zip(motions, loops):
        times = find_times(num_frames, loop=bool(loop))
        poses.append(player.play(player.latent(int(motion)), times, loop=bool(loop)))
    return ClipSet(
        scene=run.scene,
        rig=player.puppet.rig,
        names=tuple(run.facts["names"][motion] for motion in motions),
        poses=jax.tree.map(lambda *each: jnp.stack(each), *poses),
        seconds=run.seconds[motions],
        rates=np.asarray(run.facts["rates"], np.float64)[motions],
        loops=loops,
        ways=run.ways[motions],
        tops=run.tops,
    )
