"""Whether simulators load what is written of objects that others made, and move their parts to where the truth does.

python -m bench.simulators --data=FOLDER --out=FILE

Every object of FOLDER (see `bench.articulate`) is written with its maker's joint; MuJoCo loads the MJCF and the URDF,
yourdfpy the URDF. Figures of a row: the farthest that a vertex of the part lies from its true place at both limits
(`off`, diagonals), and under two seconds of gravity from rest, which lets some parts fall to a limit, how far the part
ever was beyond its limits (`beyond`) and how fast anything is in the end (`speed`; radians or metres a second).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from bench.articulate import find_objects, read_truth
from dimo_jax.core.errors import UserError
from dimo_jax.geometry.joint import Joint, move_points
from dimo_jax.io.articulated import write_articulation
from dimo_jax.io.objects import load_object
from dimo_jax.meshes.articulation import Articulation, Link, add_physics, stand_up
from dimo_jax.meshes.cuts import cut_object
from dimo_jax.meshes.objects import bounds
from dimo_jax.runtime.files import replace_file

UP = np.array([0.0, 1, 0])
OFF, BEYOND, SPEED = 1e-5, 0.1, 0.1  # what a row may have: diagonals, share of the range, radians or metres a second
GIVE = 0.005  # radians or metres beyond a limit, which is a spring, that are nothing
SECONDS = 2.0


def try_object(folder: Path, target: Path) -> dict[str, Any]:
    """Writes one object and tries all three loaders."""
    joint, fields = read_truth(folder)
    thing = load_object(folder / "object.glb")
    body, part = cut_object(thing, thing.triangle_nodes == thing.node_names.index(fields.get("part_node", "part")))
    low, high = joint.range
    joint = replace(joint, range=(min(low, 0.0), max(high, 0.0)))
    links = (Link("body", body.vertices, body.mesh), Link("part", part.vertices, part.mesh, 0, joint))
    articulation = Articulation(links)
    physics = add_physics(articulation, density=600, damping=None, friction=0.0, fixed_base=True)
    write_articulation(articulation, physics, target, name="thing", up=UP)
    size = bounds(thing.vertices)[2]
    used = part.vertices[np.unique(part.triangles)]
    truth = [move_points(joint, value, used) @ stand_up(UP).T for value in joint.range]
    row: dict[str, Any] = {"name": folder.name, "joint": joint.type}
    for name in ("object.xml", "object.urdf"):
        row[name] = try_mujoco(target / name, joint, truth, size)
    row["yourdfpy"] = {"off": try_yourdfpy(target / "object.urdf", joint, truth, size)}
    row["good"] = all(is_good(row[name]) for name in ("object.xml", "object.urdf", "yourdfpy"))
    return row


def is_good(figures: dict[str, float]) -> bool:
    limits = {"off": OFF, "beyond": figures.get("allowed", 0.0), "speed": SPEED}
    return all(np.isfinite(figures[name]) and figures[name] <= most for name, most in limits.items() if name in figures)


def try_mujoco(path: Path, joint: Joint, truth: list[np.ndarray], size: float) -> dict[str, float]:
    import mujoco

    model = mujoco.MjModel.from_xml_path(str(path))
    data = mujoco.MjData(model)
    off = []
    for value, places in zip(joint.range, truth):
        data.joint("part_joint").qpos[0] = value
        mujoco.mj_forward(model, data)
        off.append(far_apart(shown(model, data), places) / size)
    mujoco.mj_resetData(model, data)
    beyond = 0.0
    for _ in range(round(SECONDS / model.opt.timestep)):
        mujoco.mj_step(model, data)
        value = float(data.joint("part_joint").qpos[0])
        beyond = max(beyond, joint.range[0] - value, value - joint.range[1])
    allowed = max(BEYOND * joint.span, GIVE)
    return {"off": max(off), "beyond": beyond, "allowed": allowed, "speed": float(np.abs(data.qvel).max())}


def shown(model: Any, data: Any) -> np.ndarray:
    """World vertices of the part's looks."""
    found = []
    for geom in range(model.ngeom):
        mesh = int(model.geom_dataid[geom])
        if model.body(int(model.geom_bodyid[geom])).name != "part" or mesh < 0:
            continue
        if "collision" not in model.mesh(mesh).name:
            first, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
            points = model.mesh_vert[first : first + count]
            found.append(points @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom])
    return np.concatenate(found)


def try_yourdfpy(path: Path, joint: Joint, truth: list[np.ndarray], size: float) -> float:
    import yourdfpy

    robot = yourdfpy.URDF.load(str(path), load_meshes=True)
    off = []
    for value, places in zip(joint.range, truth):
        robot.update_cfg({"part_joint": value})
        found = []
        for node in robot.scene.graph.nodes_geometry:
            if is_below(robot.scene.graph, node, "part"):
                pose, geometry = robot.scene.graph.get(node)
                found.append(robot.scene.geometry[geometry].vertices @ pose[:3, :3].T + pose[:3, 3])
        off.append(far_apart(np.concatenate(found), places) / size)
    return max(off)


def is_below(graph: Any, node: str, name: str) -> bool:
    while node is not None and node != name:
        node = graph.transforms.parents.get(node)
    return node == name


def far_apart(points: np.ndarray, places: np.ndarray) -> float:
    """The farthest that a point is from its nearest neighbour, both ways."""
    return float(max(cKDTree(places).query(points)[0].max(), cKDTree(points).query(places)[0].max()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--names", default="", help="only these objects, by comma")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    try:
        rows = []
        for folder in find_objects(options.data, options.names):
            with tempfile.TemporaryDirectory() as target:
                rows.append(try_object(folder, Path(target)))
            print(f"{'good' if rows[-1]['good'] else 'BAD '} {json.dumps(rows[-1])}", file=sys.stderr, flush=True)
        if options.out:
            with replace_file(options.out) as path:
                Path(path).write_text(json.dumps({"objects": rows}, indent=1) + "\n")
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    print(f"{sum(row['good'] for row in rows)} of {len(rows)} good")


if __name__ == "__main__":
    main()
