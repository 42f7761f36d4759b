"""What the viewer shows: from the user's choices to the arrays of one frame. Knows nothing of browsers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.types import Array, Gaussians, Params
from dimo_jax.geometry import quaternion
from dimo_jax.runs.codes import LINES, draw_codes
from dimo_jax.runs.restore import Restored
from dimo_jax.systems.dimo import model as dimo
from dimo_jax.systems.dimo.model import Components, Moved, Neighbors
from dimo_jax.systems.dimo.stages import frame_times
from dimo_jax.training.gaussians import to_rgb
from dimo_jax.views.plots import project_latents

LAYERS = ("Gaussians", "Key points", "Trajectories", "Motion graph")
NUM_AXES = 4
FINER = 4  # steps of a drawn path from one frame to the next


@dataclass(frozen=True, eq=False)
class Source:
    """A motion that can be chosen: trained, drawn, or made from a sentence."""

    label: str
    code: np.ndarray  # [D]
    words: str = ""  # what is said of it


@dataclass(frozen=True)
class Choices:
    """Everything that the user can choose; a change of it is a new one."""

    source: Source
    target: Source
    share: float = 0.0  # of the way from source to target
    line: str = "linear"
    offsets: tuple[float, ...] = ()  # along the latent axes, in standard deviations of the training codes
    frame: float = 0.0  # 0 to number of frames, below it; fractions lie between frames
    playing: bool = False
    speed: float = 1.0  # 1: as fast as the training videos
    layers: frozenset[str] = frozenset(LAYERS[:1])
    opacity: float = 1.0  # factor of the Gaussians' opacity

    @property
    def motion(self) -> tuple[Any, ...]:
        """What decides the latent code."""
        return self.source, self.target, self.share, self.line, self.offsets


@dataclass(frozen=True)
class Motion:
    """A motion that has been chosen, up to the next change of its code."""

    code: Array  # [D]
    neighbors: Neighbors
    trajectories: np.ndarray  # [T,K,3] at the times of training
    paths: np.ndarray  # [S,K,3] the same, finer: smooth lines to draw
    edges: np.ndarray  # [E,2] int, pairs of key points in the motion graph, each once


@dataclass(frozen=True)
class Frame:
    """A motion at one time."""

    means: np.ndarray  # [N,3]
    covariances: np.ndarray  # [N,3,3]
    colors: np.ndarray  # [N,3] in 0..1
    key_points: np.ndarray  # [K,3]


class Session:
    """A trained model for a viewer; everything that a slider moves is compiled when this is made, and never again."""

    def __init__(self, model: Restored) -> None:
        self.model = model
        player = model.player
        self.num_frames = model.num_frames
        usable = np.flatnonzero(np.asarray(player.alive) & _is_drawable(player.params.gaussians))
        # Dead slots would be skinned, sent and sorted all the same.
        gaussians = jax.tree.map(lambda x: jnp.asarray(x)[usable], player.params.gaussians)
        self._params = player.params.replace(gaussians=gaussians)
        self.opacities = np.asarray(jax.nn.sigmoid(gaussians.logit_opacities))  # [N]
        self.sources = {source.label: source for source in map(self._trained, model.trained_motions)}
        codes = np.stack([source.code for source in self.sources.values()])
        center, axes, shares = project_latents(codes, num_axes=min(NUM_AXES, len(codes) - 1, codes.shape[1]))
        self.axis_shares: tuple[float, ...] = tuple(float(share) for share in shares)  # [A] of the codes' variance
        self._steps = axes * np.std((codes - center) @ axes, axis=0)  # [D,A], one standard deviation each
        self._lines = {name: jax.jit(line) for name, line in LINES.items()}
        times = frame_times(self.num_frames)
        self._settle = jax.jit(functools.partial(_settle, player.components, graph_times=times))
        self._pose = jax.jit(functools.partial(_pose, player.components, player.move))
        for line in LINES:  # compiles
            self.pose(self.settle(dataclasses.replace(self.begin(), line=line)), 0.0)

    def _trained(self, index: Any) -> Source:
        names, captions = self.model.facts["names"], self.model.facts["captions"]
        return Source(str(names[index]), np.asarray(self.model.player.latent(int(index))), str(captions[index]))

    def begin(self) -> Choices:
        """The choices at the start: the first motion as it is, paused."""
        first = next(iter(self.sources.values()))
        return Choices(source=first, target=first, offsets=(0.0,) * len(self.axis_shares))

    def add(self, source: Source) -> Source:
        """Puts a motion into the list; one of that name is replaced."""
        self.sources[source.label] = source
        return source

    def draw(self, seed: int) -> Source:
        """A motion drawn from the latent space, the same as that of `--app=sample --num_samples=1 --seed=...`."""
        return Source(f"sample {seed}", np.asarray(draw_codes(self.model, seed=seed, num_samples=1)[0]))

    def code(self, choices: Choices) -> Array:
        """The latent code [D] that is chosen."""
        line = self._lines[choices.line]
        between = line(choices.source.code, choices.target.code, choices.share)
        return between + self._steps @ np.asarray(choices.offsets, np.float32)

    def settle(self, choices: Choices) -> Motion:
        """The motion that is chosen, with its graph."""
        code = self.code(choices)
        neighbors, paths = self._settle(self._params, code)
        edges = _unique_edges(np.asarray(neighbors.controls))
        return Motion(code, neighbors, np.asarray(paths[::FINER]), np.asarray(paths), edges)

    def pose(self, motion: Motion, frame: float) -> Frame:
        """A motion at a frame, 0 up to `num_frames`; the last one stands until the motion begins again."""
        time = min(frame, self.num_frames - 1) / self.num_frames
        return Frame(*map(np.asarray, self._pose(self._params, motion.neighbors, motion.code, time)))

    def advance(self, choices: Choices, seconds: float) -> float:
        """The frame that is shown so many seconds later; a motion begins again at its end."""
        return (choices.frame + seconds * choices.speed * self.model.frame_rate) % self.num_frames

    def describe(self, choices: Choices) -> str:
        """What is shown, in a few words."""
        told = choices.source.label
        if choices.share > 0 and choices.target is not choices.source:
            told += f" → {choices.target.label}, {choices.share:.0%}"
        moved = [f"axis {i + 1} {offset:+.1f} σ" for i, offset in enumerate(choices.offsets) if offset]
        return ", ".join([told, *moved])


def _is_drawable(gaussians: Gaussians) -> np.ndarray:
    """Whether [N] every parameter is a number; a flat Gaussian (log scale -inf) is one, too."""
    flat = np.where(np.isneginf(np.asarray(gaussians.log_scales)), 0.0, gaussians.log_scales)
    parts = (gaussians.means, flat, gaussians.quats, gaussians.logit_opacities[:, None], gaussians.sh[:, 0])
    return np.isfinite(np.concatenate([np.asarray(part) for part in parts], axis=-1)).all(axis=-1)


def _unique_edges(neighbors: np.ndarray) -> np.ndarray:
    """Neighbours [K,J] as pairs [E,2] of different key points, each pair once."""
    pairs = np.stack([np.repeat(np.arange(len(neighbors)), neighbors.shape[1]), neighbors.ravel()], axis=-1)
    return np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=-1), axis=0)


def _settle(components: Components, params: Params, z: Array, *, graph_times: Array) -> tuple[Neighbors, Array]:
    neighbors = dimo.find_neighbors(components, params, z, graph_times)
    finer = jnp.arange(FINER * (len(graph_times) - 1) + 1) / (FINER * len(graph_times))
    paths, _ = dimo.decode_trajectories(components, params, z, params.key_points.positions, finer)
    return neighbors, paths


def _pose(
    components: Components, move: Callable[..., Moved], params: Params, neighbors: Neighbors, z: Array, time: Array
) -> tuple[Array, Array, Array, Array]:
    moved = move(components, params, neighbors, z, jnp.asarray(time, jnp.float32))
    stretched = quaternion.to_matrix(moved.gaussians.quats) * jnp.exp(moved.gaussians.log_scales)[:, None, :]
    covariances = jnp.sum(stretched[:, :, None, :] * stretched[:, None, :, :], axis=-1)
    colors = jnp.clip(to_rgb(moved.gaussians), 0.0, 1.0)
    return moved.gaussians.means, covariances, colors, moved.controls
