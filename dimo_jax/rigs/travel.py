"""Motion that stays where it is: the way a model goes across the ground, taken away."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from dimo_jax.rigs.forward import Pose, Rig, place_frames


def stay_in_place(rig: Rig, sliding: Sequence[int], pose: Pose) -> Pose:
    """A pose without the straight way across the ground (X and Z) from its first frame to its last.

    Sway, turns and jumps stay, as in an import with `root_motion="remove"`. All topmost sliding joints are shifted
    alike, by the mean of their ways, so that nothing between them stretches.

    Args:
      rig: with N nodes.
      sliding: nodes that slide, see `Channels`.
      pose: leading axis T.
    """
    tops = find_tops(rig, sliding)
    if not tops:
        return pose
    matrices = place_frames(rig, pose)
    places = matrices[..., :3, 3][:, tops].mean(axis=1)
    shift = -np.linspace(0, 1, len(places))[:, None] * (places[-1] - places[0]) * [1.0, 0.0, 1.0]
    translations = np.array(pose.translations, np.float64)
    for node in tops:
        parent = rig.parents[node]
        linear = matrices[:, parent, :3, :3] if parent >= 0 else np.broadcast_to(np.eye(3), (len(shift), 3, 3))
        translations[:, node] += np.einsum("tab,tb->ta", np.linalg.pinv(linear), shift)
    return pose.replace(translations=jnp.asarray(translations, jnp.float32))


def find_tops(rig: Rig, nodes: Sequence[int]) -> list[int]:
    """Those of some nodes above which none of them is."""
    chosen, tops = set(nodes), []
    for node in nodes:
        above = rig.parents[node]
        while above >= 0 and above not in chosen:
            above = rig.parents[above]
        if above < 0:
            tops.append(int(node))
    return tops
