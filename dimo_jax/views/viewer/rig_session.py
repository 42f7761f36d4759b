"""What the viewer shows of a rig's motion space: from the visitor's choices to vertices and bones at one time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.names import to_file_name
from dimo_jax.core.types import Array
from dimo_jax.rigs.channels import to_pose
from dimo_jax.rigs.forward import place_nodes
from dimo_jax.rigs.skinned import deform_surface, make_surface
from dimo_jax.rigs.travel import NO_WAY, follow_ways
from dimo_jax.runs.animation import find_bones, make_model
from dimo_jax.runs.choice import Choice
from dimo_jax.runs.codes import LINES
from dimo_jax.runs.rig_motions import Chosen, Wishes, choose_motions, settle_code
from dimo_jax.runs.rigs import RestoredRig

LAYERS = ("Body", "Skeleton")


@dataclass(frozen=True, eq=False)
class RigSource:
    """A motion that can be chosen: trained, drawn, or made from a sentence."""

    label: str
    chosen: Chosen
    words: str = ""  # what is said of it
    made: bool = False  # here, by a visitor


@dataclass(frozen=True)
class RigChoices:
    """Everything that a visitor can choose; a change of it is a new one."""

    source: RigSource
    target: RigSource
    share: float = 0.0  # of the way from source to target
    line: str = "linear"
    in_place: bool = False  # without the way across the ground of a loop that travels
    frame: float = 0.0  # share of the clip, 0 up to 1
    playing: bool = False
    speed: float = 1.0
    layers: frozenset[str] = frozenset(LAYERS)

    @property
    def motion(self) -> tuple[Any, ...]:
        """What decides how the model moves."""
        return self.source, self.target, self.share, self.line, self.in_place


@dataclass(frozen=True)
class RigFrame:
    """The model at one time, in the file's units."""

    vertices: np.ndarray  # [P,3]
    joints: np.ndarray  # [M,3] heads of joints, tips of leaves


class RigSession:
    """A trained motion space for a viewer; what a slider moves is compiled when this is made, and never again."""

    def __init__(self, run: RestoredRig, workdir: Path) -> None:
        self.model, self.workdir = run, workdir
        self.rigged = make_model(run.scene)
        self.bones = np.stack(find_bones(self.rigged), axis=-1)  # [E,2] joints
        self.sources = {source.label: source for source in map(self._trained, run.trained_motions)}
        self._lines = {name: jax.jit(line) for name, line in LINES.items()}
        self._pose = jax.jit(self._build())
        for line in LINES:  # compiles
            begun = next(iter(self.sources.values()))
            start = RigChoices(begun, begun, line=line)
            first = self.pose(self.settle(start), 0.0)
        self.rest = first.vertices  # [P,3], to look at

    def _build(self) -> Any:
        player, rig, joints = self.model.player, self.rigged.rig, self.rigged.markers.joints
        surface, nodes = make_surface(self.model.scene, rig), np.array(joints.nodes)
        offsets = jnp.asarray(np.concatenate([joints.offsets, np.ones((len(nodes), 1))], axis=1), jnp.float32)

        def pose(params: Any, code: Array, time: Array, loop: Array, place: Array) -> tuple[Array, Array]:
            vectors = player.module.apply(params.decoder, code, time[None], loop)[0]
            local = to_pose(player.puppet.channels, rig, vectors)
            matrices = place @ place_nodes(rig, local)
            heads = jnp.einsum("mab,mb->ma", matrices[nodes, :3], offsets)
            return deform_surface(surface, matrices, local.morphs), heads

        return pose

    def _trained(self, index: Any) -> RigSource:
        name = str(self.model.facts["names"][index])
        chosen = settle_code(self.model, name, self.model.player.latent(int(index)), still=True)
        return RigSource(name, chosen, str(self.model.facts["captions"][index]))

    def begin(self) -> RigChoices:
        """The choices at the start: the first motion as it is, paused."""
        first = next(iter(self.sources.values()))
        return RigChoices(first, first)

    def add(self, source: RigSource) -> RigSource:
        """Puts a motion into the list; one of that name is replaced."""
        self.sources[source.label] = source
        return source

    def draw(self, seed: int) -> RigSource:
        """A new motion, the same as that of `--app=animate --num_samples=1 --seed=...`."""
        choice = Choice(num_samples=1, seed=seed)
        (chosen,) = choose_motions(self.model, str(self.workdir), choice, Wishes(), prior="near")
        return RigSource(f"sample {seed}", chosen, made=True)

    def take_code(self, label: str, code: np.ndarray, words: str) -> RigSource:
        """The motion of a code [D], as long as that of the clip that is nearest."""
        name = to_file_name(label, default="motion", keep="._+-", longest=70)
        return RigSource(label, settle_code(self.model, name, jnp.asarray(code)), words, made=True)

    def settle(self, choices: RigChoices) -> Chosen:
        """The motion that is chosen: its code, and how long it lasts, lie between those of two."""
        one, other, share = choices.source.chosen, choices.target.chosen, choices.share
        ways = (1 - share) * one.ways + share * other.ways
        return Chosen(
            name=to_file_name(self.describe(choices), default="motion", keep="._+-", longest=70),
            codes=self._lines[choices.line](one.codes, other.codes, share),
            seconds=self.find_seconds(choices),
            loop=self.goes_round(choices),
            rate=(1 - share) * one.rate + share * other.rate,
            ways=NO_WAY if choices.in_place else ways,
        )

    def pose(self, motion: Chosen, frame: float) -> RigFrame:
        """The model at a share of a motion, 0 up to 1."""
        place = follow_ways(motion.ways, np.array([frame]))[0].astype(np.float32)
        values = self._pose(self.model.player.params, motion.codes, np.float32(frame), np.float32(motion.loop), place)
        return RigFrame(*map(np.asarray, values))

    def advance(self, choices: RigChoices, seconds: float) -> float:
        """The share of a motion that is shown so many seconds later; it begins again at its end."""
        return (choices.frame + seconds * choices.speed / max(self.find_seconds(choices), 0.1)) % 1.0

    def find_seconds(self, choices: RigChoices) -> float:
        """How long the motion that is chosen lasts."""
        one, other = choices.source.chosen.seconds, choices.target.chosen.seconds
        return one + choices.share * (other - one)

    def goes_round(self, choices: RigChoices) -> bool:
        """Whether the motion that is chosen ends as it begins."""
        return choices.source.chosen.loop and (choices.share == 0 or choices.target.chosen.loop)

    def describe(self, choices: RigChoices) -> str:
        """What is shown, in a few words."""
        told = choices.source.label
        if choices.share > 0 and choices.target is not choices.source:
            told += f" → {choices.target.label}, {choices.share:.0%}"
        return told
