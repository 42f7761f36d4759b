"""Trains with a skinning function of one's own in the place of Eq. 1, and compares.

    python examples/05_swap_a_component.py --out=out

docs/extending.md lists the slots and what each function gets and returns.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import dimo_jax as dj
from dimo_jax.geometry.neighbors import squared_distance


def heavy_weights(points, positions, log_radii, *, power=2.0):
    """Student's t instead of Eq. 1's Gaussian: 1 / (1 + d^2 / r)^power, normalized; far key points keep a say.

    points [N,3], positions [N,J,3] and log_radii [N,J] of each point's key points -> weights [N,J] that sum to 1.
    """
    weights = (1 + squared_distance(points[:, None], positions) * jnp.exp(-log_radii)) ** -power
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=300, help="of both stages")
parser.add_argument("--out", default="out", help="folder for what is written")
parser.add_argument("--tiny", action="store_true", help="as small as it gets, for tests")
args = parser.parse_args()
out = Path(args.out)
out.mkdir(parents=True, exist_ok=True)

if args.tiny:
    preset, sizes = dj.load_preset("dimo:smoke"), dict(num_motions=3, num_frames=6, size=32, num_train_views=3)
else:
    preset, sizes = dj.load_preset("dimo:demo"), dict(num_motions=4, num_frames=21, size=64, num_train_views=9)
    preset = dj.stretch(preset, args.steps / (preset.stage1.num_steps + preset.stage2.num_steps))
    preset.stage1.losses.turn.weight = 0.0  # looking for turns takes longer than so short a training
    preset.batch.motions = 4
dataset = dj.make_puppet(num_test_views=1, **sizes)
rgba = dataset.frames[0, -1] / 255.0  # the first motion in the view that does not train: [T,H,W,4]
rows = {"truth": rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]}

for name, skinning in (("Eq. 1", preset.skinning), ("ours", dict(fn=f"{__name__}:heavy_weights", power=2.0))):
    config = preset.copy_and_resolve_references()
    config.skinning = skinning
    trainer = dj.make_trainer(config, dataset)
    state = trainer.init()
    while trainer.count < trainer.num_steps:
        state, metrics = trainer.step(state, trainer.next_batch())
    trainer.close()
    run = dj.make_run(trainer, state)
    rows[name] = run.render(run.play(run.code(run.motions[0])))
    print(f"{name}: PSNR {-10 * np.log10(np.mean((rows[name] - rows['truth']) ** 2)):.2f} dB in a view not seen")
every = max(1, dataset.num_frames // 5)
dj.tile(np.stack([frames[::every] for frames in rows.values()]), row_labels=list(rows)).save(out / "skinnings.png")
print(f"the same motion with both: {out / 'skinnings.png'}")
