"""A generator that knows how a part moves, for what makes joints of one."""

import numpy as np

from bench.distill import Knowing
from dimo_jax.geometry.joint import PRISMATIC, move_joint, transform
from dimo_jax.systems.atop.generator.joints import ask
from dimo_jax.systems.atop.generator.look import show_poses


def know_motion(body, part, joint, values, *, up=None, size=16, azimuths=(45.0, 315.0)):
    """A model whose latents are those of the part at values [F] of a joint; all in the object's coordinates."""
    blank = np.zeros((len(azimuths), len(values), 4 * size, 4 * size, 4), np.uint8)
    asked, matrix = ask(body, part, Knowing(blank, size, azimuths=azimuths), "it moves", up=up)
    scale = np.cbrt(np.linalg.det(matrix[:3, :3])) if joint.type == PRISMATIC else 1.0
    poses = transform(move_joint(joint, matrix), scale * np.asarray(values))
    return Knowing(show_poses(asked.body, asked.part, poses, asked.cameras), size, azimuths=azimuths)
