import numpy as np

from dimo_jax.geometry.joint import REVOLUTE, make_joint, transform
from dimo_jax.systems.atop.seen.evidence import Slopes
from dimo_jax.systems.atop.seen.track import Tracked, track_poses


class Valve(Tracked):
    """Costs of a wheel whose three arms look alike."""

    def measure(self, poses, frames):
        angles = np.arctan2(poses[:, 1, 0], poses[:, 0, 0])
        return 500 * (1 - np.cos(3 * (angles - 0.3 * frames))) + 0.01 * np.abs(angles)

    def linearize(self, poses, frames):
        return Slopes(self.measure(poses, frames), np.zeros((len(poses), 6)), np.tile(np.eye(6), (len(poses), 1, 1)))


def test_a_hint_that_is_as_good_as_going_on_is_not_taken():
    joint, frames = make_joint(REVOLUTE, [0, 0, 1], [0, 0, 0], (0, 1)), 9
    truth = transform(joint, 0.3 * np.arange(frames))
    aliases = np.mod(0.3 * np.arange(frames), 2 * np.pi / 3)
    aliases[2:] -= 2 * np.pi / 3 * (np.arange(2, frames) % 2)  # jumps that explain every frame as well
    hints = np.stack([transform(joint, aliases), truth])
    hints[1, 2:] = truth[1]  # only the first step is told
    valve = Valve(truth, np.zeros(frames), np.zeros((frames, 6)), np.tile(np.eye(6), (frames, 1, 1)), np.zeros(3))
    found = track_poses(valve, hints=hints)
    turned = np.unwrap(np.arctan2(found[:, 1, 0], found[:, 0, 0]))
    np.testing.assert_allclose(turned, 0.3 * np.arange(frames), atol=0.02)
