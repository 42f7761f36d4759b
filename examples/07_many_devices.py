"""Trains on several devices, and on one with the same cuts of the batch: the same losses.

    python examples/07_many_devices.py --devices=2 --out=out

On a CPU its devices are virtual: shares of the same cores, which gain nothing but show that the program runs.
"""

import argparse
import os
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--devices", type=int, default=2)
parser.add_argument("--steps", type=int, default=200)
parser.add_argument("--out", default="out", help="folder for what is written")
parser.add_argument("--tiny", action="store_true", help="as small as it gets, for tests")
args = parser.parse_args()
# Before jax is imported, which asks for them once; GPUs and TPUs are not touched by it.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={args.devices}"

import jax  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

import dimo_jax as dj  # noqa: E402

out = Path(args.out)
out.mkdir(parents=True, exist_ok=True)
steps, size = (6, 32) if args.tiny else (args.steps, 64)
dataset = dj.make_puppet(num_motions=1, num_frames=1, size=size, num_train_views=4 * args.devices)
preset = dj.load_preset("static:demo")
preset = dj.stretch(preset, steps / preset.static.num_steps)
preset.static.update(capacity=512, num_points=384)
preset.batch.views = 4 * args.devices


def train(num_devices, accumulate):
    """Losses [steps] with the batch cut into `num_devices` x `accumulate` parts."""
    config = preset.copy_and_resolve_references()
    config.num_devices, config.batch.accumulate = num_devices, accumulate
    trainer = dj.make_trainer(config, dataset)
    state, losses = trainer.init(), []
    while trainer.count < trainer.num_steps:
        state, metrics = trainer.step(state, trainer.next_batch())
        losses.append(float(trainer.on_host(metrics.loss)))
    trainer.check_equal(state)  # all devices hold the same parameters
    trainer.close()
    return np.array(losses)


many, one = train(args.devices, 1), train(1, args.devices)
plt.figure(figsize=(6, 3.5))
plt.semilogy(one, label=f"1 device, {args.devices} parts one after the other", linewidth=3, alpha=0.4)
plt.semilogy(many, label=f"{args.devices} devices ({jax.devices()[0].platform})")
plt.xlabel("step")
plt.ylabel("loss")
plt.legend()
plt.savefig(out / "devices.png", bbox_inches="tight", dpi=110)
apart = np.abs(many / one - 1).max()
print(f"{len(many)} steps, losses at most {apart:.1e} of their size apart: {out / 'devices.png'}")
