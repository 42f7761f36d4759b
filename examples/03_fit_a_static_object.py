"""Fits Gaussians to posed pictures of an object that stands still.

    python examples/03_fit_a_static_object.py --data=data/lego --out=out

Without --data it fits the embedded character. Compares the views that were kept from training.
"""

import argparse
from pathlib import Path

import numpy as np

import dimo_jax as dj

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--data", default="", help="a dataset folder, or one with a transforms.json")
parser.add_argument("--steps", type=int, default=400)
parser.add_argument("--out", default="out", help="folder for what is written")
parser.add_argument("--tiny", action="store_true", help="as small as it gets, for tests")
args = parser.parse_args()
out = Path(args.out)
out.mkdir(parents=True, exist_ok=True)

config = dj.load_preset("static:demo")
sizes = dict(size=128, num_train_views=24, num_test_views=3)
if args.tiny:
    args.steps, sizes = 40, dict(size=32, num_train_views=8, num_test_views=2)
    config.static.update(capacity=512, num_points=384, scale=0.06)
config = dj.stretch(config, args.steps / config.static.num_steps)
dataset = dj.load_dataset(args.data) if args.data else dj.make_puppet(num_motions=1, num_frames=1, **sizes)

trainer = dj.make_trainer(config, dataset)
state = trainer.init()
while trainer.count < trainer.num_steps:
    state, metrics = trainer.step(state, trainer.next_batch())
    if trainer.count % max(1, trainer.num_steps // 10) == 0:
        print(f"step {trainer.count:5d}: PSNR {float(metrics.psnr):.1f} dB of the batch")
trainer.close()

gaussians = trainer.on_host(state).visible
kept = [view for view, split in enumerate(dataset.view_splits) if split == "test"][:3] or [0]
rgba = dataset.frames[0, kept, 0] / 255.0  # [V,H,W,4], straight alpha
truth = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
fitted = np.stack([dj.render(gaussians, dataset.cameras[view]).rgb for view in kept])
psnr = -10 * np.log10(np.mean((truth - fitted) ** 2))
labels = dict(row_labels=["truth", "fitted"], column_labels=[dataset.view_names[view] for view in kept])
dj.tile(np.stack([truth, fitted]), **labels).save(out / "fitted.png")
dj.write_ply(gaussians, out / "object.ply")
print(f"PSNR {psnr:.2f} dB on {len(kept)} views that did not train: {out / 'fitted.png'}; {out / 'object.ply'}")
