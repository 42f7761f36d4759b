"""Learns a space of motions in about a minute, and draws new ones from it.

    python examples/04_train_and_sample.py --out=out

So short a training gives coarse pictures; `python launch.py --config=configs/dimo.py:demo` trains longer and scores.
"""

import argparse
from pathlib import Path

import numpy as np

import dimo_jax as dj

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=600, help="of both stages")
parser.add_argument("--out", default="out", help="folder for what is written")
parser.add_argument("--tiny", action="store_true", help="as small as it gets, for tests")
args = parser.parse_args()
out = Path(args.out)
out.mkdir(parents=True, exist_ok=True)

if args.tiny:
    config, sizes = dj.load_preset("dimo:smoke"), dict(num_motions=3, num_frames=6, size=32, num_train_views=3)
else:
    config, sizes = dj.load_preset("dimo:demo"), dict(num_motions=6, num_frames=21, size=64, num_train_views=9)
    config = dj.stretch(config, args.steps / (config.stage1.num_steps + config.stage2.num_steps))
    config.stage1.losses.turn.weight = 0.0  # looking for turns takes longer than so short a training
    config.batch.motions = 6
dataset = dj.make_puppet(num_test_views=1, **sizes)

trainer = dj.make_trainer(config, dataset)
state = trainer.init()
while trainer.count < trainer.num_steps:
    state, metrics = trainer.step(state, trainer.next_batch())
    if trainer.count % max(1, trainer.num_steps // 12) == 0:
        print(f"{trainer.stage.name}, step {trainer.count:5d}: loss {float(metrics.loss):.1f}")
trainer.close()

run = dj.make_run(trainer, state)
names = run.motions[:2]
codes = [*map(run.code, names), run.blend(names, [0.5, 0.5]), run.sample(seed=1), run.sample(seed=2)]
clips = [run.play(code) for code in codes]
rows = np.stack([run.render(clip)[:: max(1, run.num_frames // 5)] for clip in clips])
dj.tile(rows, row_labels=[*names, "half-way", "new", "new"]).save(out / "samples.png")
run.write_video(clips[-1], out / "sample.mp4")
run.save(out / "motions.npz")
print(f"two trained motions and three new ones: {out / 'samples.png'}; {out / 'sample.mp4'}; {out / 'motions.npz'}")
