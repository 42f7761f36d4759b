"""Joints by a trained generator's score, beside those of shape and sentence alone: does its motion add anything?

    python -m bench.imagined --workdir=RUN --out=FILE.json [--categories=drawer,oven] [--seeds=1000,1001]
        [--data=FOLDER] [--names=cabinet,laptop]

Objects are made ones that are held out, as they stand (front +Z, up +Y), or with `--data` given ones, as
`bench.articulate` reads them. Figures as there, means over objects: `type`, `success`, `mae` (degrees), `mpe` and
`line` (diagonals, of those that turn and are found to). Several runs by comma, such as of other seeds, count as more
trials.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bench.articulate import NONE, clean, find_objects, read_truth
from dimo_jax.core.errors import UserError
from dimo_jax.data.articulated.categories import CATEGORIES, HELD_OUT, make_shape
from dimo_jax.data.articulated.shapes import PART
from dimo_jax.geometry.joint import Joint, to_json
from dimo_jax.io.objects import load_object
from dimo_jax.meshes.objects import ObjectMesh, bounds, split_object
from dimo_jax.metrics.joints import JointErrors, compare_joints
from dimo_jax.runtime.files import write_json
from dimo_jax.systems.atop.generator.generator import Generator
from dimo_jax.systems.atop.generator.joints import joint_from_generator
from dimo_jax.systems.atop.generator.trained import load_generator
from dimo_jax.systems.atop.rank import find_joints

UP = np.array([0.0, 1.0, 0.0])
WAYS = ("geometry", "generated")
Thing = tuple[str, ObjectMesh, str, str, Joint]  # name, mesh, name of the part's node, sentence, true joint


def list_made(categories: list[str], seeds: list[int]) -> Iterator[Thing]:
    """Made objects."""
    for category in categories:
        for seed in seeds:
            made = make_shape(category, seed)
            yield f"{category}_{seed}", made.thing, PART, made.sentence, made.joint


def list_given(data: Path, names: str) -> Iterator[Thing]:
    """Objects of a folder.

    Raises:
      UserError: there are none of these.
    """
    for folder in find_objects(data, names):
        truth, fields = read_truth(folder)
        thing = load_object(folder / "object.glb")
        yield folder.name, thing, fields.get("part_node", "part"), fields.get("prompt", ""), truth


def judge(found: list[Joint], truth: Joint, part: ObjectMesh, diagonal: float) -> dict[str, Any]:
    """The figures of the best joint; those of a failure where there is none."""
    if not found:
        return {**NONE._asdict(), "confidence": 0.0, "found": None}
    low, high, _ = bounds(part.vertices)
    errors: JointErrors = compare_joints(found[0], truth, (low + high) / 2, diagonal)
    return {**errors._asdict(), "confidence": found[0].confidence, "found": to_json(found[0])}


def summarize(rows: list[dict[str, Any]], way: str) -> dict[str, float]:
    """Means over trials."""
    each = [row[way] for row in rows]

    def mean(key: str) -> float:
        values = [float(row[key]) for row in each]
        return float("nan") if np.isnan(values).all() else float(np.nanmean(values))

    return dict(
        type=mean("type_right"),
        success=mean("success"),
        mae=mean("angle"),
        mpe=mean("origin"),
        line=mean("line"),
        confidence=mean("confidence"),
        cpu_seconds=mean("cpu_seconds"),
    )


def try_object(thing: Thing, generator: Generator, guidance: float) -> dict[str, Any]:
    """Both ways on one object."""
    name, mesh, node, sentence, truth = thing
    body, part = split_object(mesh, mesh.triangle_nodes == mesh.node_names.index(node))
    diagonal, row = bounds(mesh.vertices)[2], dict[str, Any](name=name)
    ways: dict[str, Callable[[], list[Joint]]] = {
        "geometry": lambda: find_joints(body, part, sentence, UP),
        "generated": lambda: joint_from_generator(
            body, part, generator, sentence, jax.random.key(0), up=UP, guidance=guidance
        ),
    }
    for way in WAYS:
        start = time.process_time()
        figures = judge(ways[way](), truth, part, diagonal)
        row[way] = {**figures, "cpu_seconds": time.process_time() - start}
        print(
            f"{name:16s} {way:10s} {'right' if figures['type_right'] else 'wrong'} type, axis {figures['angle']:5.1f} "
            f"deg, line {figures['line']:.3f}, confidence {figures['confidence']:.2f}, "
            f"{'success' if figures['success'] else 'failure'}",
            flush=True,
        )
    return row


def count_both(rows: list[dict[str, Any]]) -> dict[str, int]:
    """Trials by who succeeds."""
    said = [tuple("right" if row[way]["success"] else "wrong" for way in WAYS) for row in rows]
    return {
        f"{one} and {other}": said.count((one, other)) for one in ("right", "wrong") for other in ("right", "wrong")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="runs of configs/atop.py, by comma")
    parser.add_argument("--out", required=True, type=Path, help="the JSON file to write, anew after every object")
    parser.add_argument("--categories", default=",".join(CATEGORIES))
    parser.add_argument("--seeds", default=str(HELD_OUT), help="of made objects; 1000 and on are held out")
    parser.add_argument("--data", type=Path, help="a folder of objects instead of made ones")
    parser.add_argument("--names", default="", help="some of them, by comma")
    parser.add_argument("--guidance", type=float, default=1.0)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    try:
        for workdir in options.workdir.split(","):
            generator = load_generator(workdir)
            seeds = [int(each) for each in options.seeds.split(",")]
            made = list_made(options.categories.split(","), seeds)
            for thing in list_given(options.data, options.names) if options.data else made:
                rows.append(dict(workdir=workdir, **try_object(thing, generator, options.guidance)))
                means = {way: summarize(rows, way) for way in WAYS}
                write_json(clean(dict(**means, both=count_both(rows), rows=rows)), options.out)
    except UserError as error:
        sys.exit(f"error: {error}")
    for way, figures in means.items():
        print(f"{way:10s} " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()))
    print("geometry and generated:", ", ".join(f"{name} {count}" for name, count in count_both(rows).items()))


if __name__ == "__main__":
    main()
