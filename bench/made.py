"""A sheet of the articulated objects that the package makes, and how long one takes to film.

python -m bench.made --out=sheet.png    # three objects a category: rest, half way and end from two views, and a mask
python -m bench.made --objects=FOLDER --seeds=1000,1012   # these, as `bench.articulate` reads them
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image

from dimo_jax.data.articulated.categories import CATEGORIES, HELD_OUT, make_shape
from dimo_jax.data.articulated.shapes import BODY, PART
from dimo_jax.data.articulated.videos import film
from dimo_jax.geometry.joint import to_json
from dimo_jax.io.gltf.articulated import write_object_glb
from dimo_jax.systems.atop.generator.reference import over_white

SEEDS = (0, 1, HELD_OUT)
VIEWS = (0, 3)  # that see the front


def write_objects(folder: Path, first: int, end: int) -> None:
    """NAME/object.glb and NAME/truth.json of every category and seed."""
    for category in CATEGORIES:
        for seed in range(first, end):
            made, own = make_shape(category, seed), folder / f"{category}_{seed}"
            own.mkdir(parents=True)
            write_object_glb(made.thing, own / "object.glb")
            joint = to_json(made.joint)
            truth = dict(category=category, source="made", part_node=PART, body_node=BODY, prompt=made.sentence)
            truth.update(joint=joint["type"], axis=joint["axis"], origin=joint["origin"], range=joint["range"])
            (own / "truth.json").write_text(json.dumps(truth, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="sheet.png")
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--objects", type=Path)
    parser.add_argument("--seeds", default=f"{HELD_OUT},{HELD_OUT + 6}", help="first and one past the last")
    flags = parser.parse_args()
    if flags.objects:
        write_objects(flags.objects, *(int(each) for each in flags.seeds.split(",")))
        return
    rows = []
    for category in CATEGORIES:
        cells = []
        for seed in SEEDS:
            made = make_shape(category, seed)
            found = film(made, num_frames=3, side=flags.side)
            cells += [over_white(found.frames[view, frame]) for view in VIEWS for frame in range(3)]
            cells.append(np.repeat(found.masks[0, 0, ..., None], 3, axis=-1))
        rows.append(np.concatenate(cells, axis=1))
        start = time.process_time()
        film(made)
        seconds = time.process_time() - start
        print(
            f"{category:10s} {made.joint.type:9s} range {made.joint.range[1]:.2f}, {len(made.thing.triangles):5d} "
            f"triangles, 4 x 10 pictures of 256 pixels in {seconds:.1f} s of CPU: {made.sentence}",
            flush=True,
        )
    Image.fromarray(np.concatenate(rows)).save(flags.out)


if __name__ == "__main__":
    main()
