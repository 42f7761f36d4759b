"""Writes a new motion as an animated GLB file, for Blender, three.js or a game engine.

    python examples/06_export_to_glb.py --run=out/motions.npz --out=out

--run is the workdir of a training run or a model file, such as that of 04; without it a small one is trained first.
"""

import argparse
from pathlib import Path

import numpy as np

import dimo_jax as dj


def train(steps):
    """A coarse space of three motions, in memory."""
    config = dj.load_preset("dimo:smoke")
    config = dj.stretch(config, steps / (config.stage1.num_steps + config.stage2.num_steps))
    trainer = dj.make_trainer(
        config, dj.make_puppet(num_motions=3, num_frames=6, size=32, num_train_views=3, num_test_views=1)
    )
    state = trainer.init()
    while trainer.count < trainer.num_steps:
        state, _ = trainer.step(state, trainer.next_batch())
    trainer.close()
    return dj.make_run(trainer, state)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--run", default="", help="a trained run")
parser.add_argument("--seed", type=int, default=0, help="of the motion that is drawn")
parser.add_argument("--out", default="out", help="folder for what is written")
parser.add_argument("--tiny", action="store_true", help="as small as it gets, for tests")
args = parser.parse_args()
out = Path(args.out)
out.mkdir(parents=True, exist_ok=True)

run = dj.load_run(args.run) if args.run else train(4 if args.tiny else 200)
motion = run.record(run.sample(seed=args.seed), name="sample", num_frames=8 if args.tiny else 2 * run.num_frames)
geometry = "points" if args.tiny else "ellipsoids"  # so short a training makes none that is opaque
path = run.write_glb(motion, out / "sample.glb", geometry=geometry)
shown = np.linspace(0, motion.num_frames - 1, 6).round().astype(int)
camera = run.camera(32 if args.tiny else 160)
images = np.stack([dj.render(motion.at(frame), camera).rgb for frame in shown])
dj.tile(images, column_labels=[f"{motion.seconds[frame]:.2f} s" for frame in shown]).save(out / "exported.png")
moved = np.linalg.norm(motion.tracks - motion.rest, axis=-1).max()
print(
    f"{motion.num_frames} frames, {len(motion.rest)} joints that move by up to {moved:.3f}: {path}; "
    f"{out / 'exported.png'}"
)
