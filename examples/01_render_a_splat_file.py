"""Renders a 3DGS PLY file from all around.

    python examples/01_render_a_splat_file.py --ply=scene.ply --out=out

Without --ply it writes one first, a knot.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import dimo_jax as dj


def make_knot(num_points):
    """A trefoil knot of Gaussians, each drawn out along the curve."""
    t = np.linspace(0, 2 * np.pi, num_points, endpoint=False)
    curve = 0.15 * np.stack([np.sin(t) + 2 * np.sin(2 * t), np.cos(t) - 2 * np.cos(2 * t), -np.sin(3 * t)], axis=-1)
    steps = np.roll(curve, -1, axis=0) - curve
    length = np.linalg.norm(steps, axis=-1, keepdims=True)
    x, y, z = (steps / length).T
    colors = 0.5 + 0.5 * np.cos(t[:, None] + np.array([0.0, 2.1, 4.2]))
    return dj.Gaussians(
        means=jnp.asarray(curve, jnp.float32),
        log_scales=jnp.log(jnp.asarray(length * [1.0, 0.0, 0.0] + [0.0, 0.04, 0.04], jnp.float32)),
        quats=jnp.stack([1 + x, 0 * x, -z, y], axis=-1).astype(jnp.float32),  # turns +X into the curve's direction
        logit_opacities=jnp.full(num_points, 3.0),
        sh=jnp.asarray((colors - 0.5)[:, None] / 0.2820948, jnp.float32),  # degree 0: one colour from all sides
    )


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--ply", default="", help="a file of any program that trains Gaussians")
parser.add_argument("--out", default="out", help="folder for what is written")
parser.add_argument("--tiny", action="store_true", help="as small as it gets, for tests")
args = parser.parse_args()
out = Path(args.out)
out.mkdir(parents=True, exist_ok=True)
if not args.ply:
    args.ply = out / "knot.ply"
    dj.write_ply(make_knot(60 if args.tiny else 400), args.ply)

gaussians = dj.read_ply(args.ply)
middle = np.median(gaussians.means, axis=0)
reach = np.percentile(np.linalg.norm(gaussians.means - middle, axis=-1), 98)
size, num_views = (32, 3) if args.tiny else (192, 8)
where = dict(elevation=20, radius=5 * reach, target=middle, size=size)  # 5: fits into a field of view of 34 degrees
cameras = [dj.orbit_camera(azimuth=360 * view / num_views, **where) for view in range(num_views)]
images = np.stack([dj.render(gaussians, camera).rgb for camera in cameras])
dj.tile(images.reshape(-1, num_views // (1 if args.tiny else 2), size, size, 3)).save(out / "orbit.png")
print(f"{len(gaussians.means)} Gaussians of {args.ply}, seen from all around: {out / 'orbit.png'}")
