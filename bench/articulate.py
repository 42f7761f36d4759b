"""How often the joint of a part is found, on objects whose makers gave them one, each turned at random.

python -m bench.articulate --data=FOLDER --source=geometry|points|video --seeds=3 --out=FILE

FOLDER holds NAME/object.glb (nodes `body` and `part`, +Y up) and NAME/truth.json. Every object is turned by a random
rotation for each seed, because axes of such objects lie along the world's and a method could snap to them, and is
tried with its up direction known and unknown. Figures: see `metrics/joints.py`. `success` leaves out which way is
positive, which `direction_of_successes` and `success_with_direction` tell.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as dataclass_fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from bench.seen import METHODS, Seen, find_from_points, find_from_video, make_trial_case
from bench.seen_motions import Case, shown_values
from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import check_among
from dimo_jax.core.names import split_list
from dimo_jax.geometry.joint import Joint, from_json, make_joint, move_joint, to_json
from dimo_jax.geometry.rotations import to_matrix
from dimo_jax.io.objects import load_object
from dimo_jax.meshes.objects import ObjectMesh, bounds, move_object, split_object
from dimo_jax.metrics.joints import JointErrors, compare_joints, summarize_joints
from dimo_jax.runtime.files import replace_file
from dimo_jax.systems.atop.candidates import candidates
from dimo_jax.systems.atop.rank import find_joints
from dimo_jax.systems.atop.seen.splats import DRAWS


@dataclass(frozen=True)
class Trial:
    """One object, turned."""

    name: str
    body: ObjectMesh
    part: ObjectMesh
    sentence: str
    up: np.ndarray | None
    truth: Joint
    seed: int
    seen: Seen


def from_geometry(trial: Trial) -> list[Joint]:
    """Shape and sentence alone."""
    return find_joints(trial.body, trial.part, trial.sentence, trial.up)


def from_points(trial: Trial) -> list[Joint]:
    """A point cloud of the moving part a frame."""
    return find_from_points(case_of(trial), trial.seen, trial.seed)


def from_video(trial: Trial) -> list[Joint]:
    """Four videos of the moving part."""
    return find_from_video(case_of(trial), trial.seen, trial.seed)


def case_of(trial: Trial) -> Case:
    return make_trial_case(trial.name, trial.body, trial.part, trial.truth, trial.seen)


def is_among(trial: Trial, middle: np.ndarray, diagonal: float) -> bool:
    """Whether the truth is one of the candidates, within `AMONG`."""
    for each in candidates(trial.body, trial.part, trial.up):
        found = make_joint(each.type, each.axis, each.origin, (0.0, 1.0))
        errors = compare_joints(found, trial.truth, middle, diagonal)
        if errors.type_right and errors.angle <= AMONG[0] and not errors.line > AMONG[1]:
            return True
    return False


SOURCES: dict[str, Callable[[Trial], list[Joint]]] = {
    "geometry": from_geometry,
    "points": from_points,
    "video": from_video,
}
LEAST_TRAVEL = 0.02
AMONG = 5.0, 0.03  # degrees and diagonals within which a candidate counts as the truth
USING_UP = ("geometry",)  # the others do not look at what is up: one trial stands for both
KEPT = ("name", "category", "origin", "joint", "runs")  # of a row; all else is told by these
NONE = JointErrors(False, 90.0, float("nan"), float("nan"), False, False, float("nan"))  # no plausible joint


def random_rotation(seed: int, name: str) -> np.ndarray:
    """A rotation [4,4] that depends on the seed and the object's name alone, evenly over all of them."""
    quat = np.random.default_rng([seed, zlib.crc32(name.encode())]).normal(size=4)
    matrix = np.eye(4)
    matrix[:3, :3] = to_matrix(quat / np.linalg.norm(quat))
    return matrix


def read_truth(folder: Path) -> tuple[Joint, dict[str, Any]]:
    """The joint of an object, and the fields of its file."""
    fields = json.loads((folder / "truth.json").read_text())
    return from_json({**fields, "type": fields["joint"]}), fields


def try_object(folder: Path, source: str, seeds: int, seen: Seen, done: list[dict[str, Any]]) -> dict[str, Any]:
    """All trials of one object, with the runs that are `done`."""
    truth, fields = read_truth(folder)
    thing = load_object(folder / "object.glb")
    mask = thing.triangle_nodes == thing.node_names.index(fields.get("part_node", "part"))
    body, part = split_object(thing, mask)
    diagonal = bounds(thing.vertices)[2]
    runs = list(done)
    for seed in sorted(set(range(seeds)) - {run["seed"] for run in runs}):
        turn = random_rotation(seed, folder.name)
        moved = [move_object(each, turn) for each in (body, part)]
        goal = move_joint(truth, turn)
        if source not in USING_UP:  # no more of the range can be found than was shown
            values = shown_values(goal, seen.num_frames)
            goal = replace(goal, range=(float(values.min()), float(values.max())))
        low, high, _ = bounds(moved[1].vertices)
        for up in (turn[:3, 1], None):
            if up is None and source not in USING_UP:
                runs.append({**runs[-1], "up": False})
                continue
            trial = Trial(folder.name, moved[0], moved[1], fields.get("prompt", ""), up, goal, seed, seen)
            start, cpu = time.perf_counter(), time.process_time()
            found = SOURCES[source](trial)
            spent, used = time.perf_counter() - start, time.process_time() - cpu
            middle = (low + high) / 2
            errors = compare_joints(found[0], goal, middle, diagonal) if found else NONE
            among = [compare_joints(each, goal, middle, diagonal).success for each in found]
            runs.append(
                {
                    "seed": seed,
                    "up": up is not None,
                    **errors._asdict(),
                    "confidence": found[0].confidence if found else 0.0,
                    "seconds": spent,
                    "cpu_seconds": used,
                    "rank_of_truth": among.index(True) if True in among else None,
                    "among_candidates": is_among(trial, middle, diagonal) if source in USING_UP else None,
                    "found": to_json(move_joint(found[0], turn.T)) if found else None,
                }
            )
    origin = str(fields.get("source", "")).split(":")[0]
    labels = {"name": folder.name, "category": fields.get("category", ""), "origin": origin, "joint": truth.type}
    return {**labels, "runs": runs}


def _try_task(task: tuple[Path, str, int, Seen, list[dict[str, Any]]]) -> dict[str, Any]:
    return try_object(*task)


def summarize(rows: list[dict[str, Any]], up: bool) -> dict[str, Any]:
    """Figures over all trials of some objects with up known, or unknown."""
    runs = [run for row in rows for run in row["runs"] if run["up"] == up]
    errors = [JointErrors(*(run[name] for name in JointErrors._fields)) for run in runs]
    figures = summarize_joints(errors, [run["confidence"] for run in runs], [run["seconds"] for run in runs])
    among = [run["among_candidates"] for run in runs if run["among_candidates"] is not None]
    figures["truth_among_candidates"] = float(np.mean(among)) if among else None
    figures["cpu_seconds_median"] = float(np.median([run["cpu_seconds"] for run in runs]))
    return figures


def report(rows: list[dict[str, Any]], settings: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the file holds; `settings` are those of `describe`."""
    categories = sorted({row["category"] for row in rows})
    groups = {name: [row for row in rows if row["category"] == name] for name in categories}
    result: dict[str, Any] = {"settings": settings or {}, "all": summarize(rows, True)}
    result["all_without_up"] = summarize(rows, False)
    result["by_category"] = {
        name: {**summarize(group, True), "without_up": summarize(group, False)} for name, group in groups.items()
    }
    result["by_origin"] = {name: leave_out(rows, name) for name in sorted({row["origin"] for row in rows})}
    for key, up in (("all", True), ("all_without_up", False)):
        means = [summarize(group, up)["success"] for group in groups.values()]
        result[key]["success_mean_of_categories"] = float(np.mean(means))
        result[key]["confusion"] = confusion(rows, up)
        result[key]["calibration"] = calibration(rows, up)
    result["objects"] = [{**row, **first_figures(row)} for row in rows]
    return clean(result)


def leave_out(rows: list[dict[str, Any]], origin: str) -> dict[str, Any]:
    """Success on what one maker gave, and on all but that."""
    mine = [row for row in rows if row["origin"] == origin]
    others = [row for row in rows if row["origin"] != origin]
    figures: dict[str, Any] = {"count": summarize(mine, True)["count"]}
    for name, up in (("success", True), ("success_without_up", False)):
        figures[name] = summarize(mine, up)["success"]
        figures[f"{name}_of_others"] = summarize(others, up)["success"] if others else None
    return figures


def first_figures(row: dict[str, Any]) -> dict[str, Any]:
    """Means of one object's trials."""
    known, unknown = summarize([row], True), summarize([row], False)
    keys = ("type_accuracy", "success", "mae_deg", "line_distance", "mpe", "range_error", "seconds_median")
    figures = {key: known[key] for key in keys}
    return {**figures, "confidence": known["mean_confidence"], "success_without_up": unknown["success"]}


def confusion(rows: list[dict[str, Any]], up: bool) -> dict[str, dict[str, int]]:
    """How often each true type was found as which."""
    table = {true: {"revolute": 0, "prismatic": 0, "none": 0} for true in ("revolute", "prismatic")}
    for row in rows:
        for run in row["runs"]:
            if run["up"] == up:
                table[row["joint"]][run["found"]["type"] if run["found"] else "none"] += 1
    return table


def calibration(rows: list[dict[str, Any]], up: bool) -> list[dict[str, Any]]:
    """Success of trials by their confidence."""
    runs = [run for row in rows for run in row["runs"] if run["up"] == up]
    result = []
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        mine = [run for run in runs if low <= run["confidence"] < low + 0.2 + (low == 0.8)]
        success = float(np.mean([run["success"] for run in mine])) if mine else None
        confidence = float(np.mean([run["confidence"] for run in mine])) if mine else None
        result.append({"from": low, "count": len(mine), "confidence": confidence, "success": success})
    return result


def clean(value: Any) -> Any:
    """The same without NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: clean(each) for key, each in value.items()}
    if isinstance(value, list):
        return [clean(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def print_tables(result: dict[str, Any]) -> None:
    keys = ["count", "type_accuracy", "success", "success_with_direction", "mae_deg", "line_distance", "mpe"]
    keys += ["range_error", "range_within_25", "confident_half_success", "seconds_median", "cpu_seconds_median"]
    keys += ["truth_among_candidates", "direction_of_successes", "median_axis_deg", "success_mean_of_categories"]
    for key in keys:
        known, unknown = result["all"][key], result["all_without_up"][key]
        print(f"{key:24s} {show(known)} {show(unknown)}")
    print(f"\n{'category':18s} {'n':>4s} {'type':>6s} {'success':>8s} {'no up':>6s} {'deg':>6s} {'line':>6s}")
    for name, each in result["by_category"].items():
        numbers = (each["type_accuracy"], each["success"], each["without_up"]["success"])
        print(
            f"{name:18s} {each['count']:4d} " + " ".join(map(show, (*numbers, each["mae_deg"], each["line_distance"])))
        )
    print(f"\n{'made by':44s} {'n':>4s}  success   no up  the others:  no up")
    for name, each in result["by_origin"].items():
        shares = [each[f"success{more}"] for more in ("", "_without_up", "_of_others", "_without_up_of_others")]
        print(f"{name[:44]:44s} {each['count']:4d} " + " ".join(map(show, shares)))
    print("\ntrue -> found, up known:", json.dumps(result["all"]["confusion"]))
    for each in result["all"]["calibration"]:
        print(f"confidence from {each['from']:.1f}: {each['count']:4d} trials, success {show(each['success'])}")
    worst = [row for row in result["objects"] if row["success"] < 1 or row["success_without_up"] < 1]
    for row in sorted(worst, key=lambda row: row["success"]):
        print(f"not always: {row['name']:32s} {show(row['success'])} {show(row['success_without_up'])}")


def show(value: float | int | None) -> str:
    return f"{'-':>8s}" if value is None else f"{value:8.3f}" if isinstance(value, float) else f"{value:8d}"


def tell(rows: Iterable[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    """The rows, each with a line as soon as it is there."""
    for index, row in enumerate(rows, 1):
        good = sum(run["success"] for run in row["runs"])
        print(f"{index}/{count} {row['name']}: {good} of {len(row['runs'])}", file=sys.stderr, flush=True)
        yield row


def find_objects(data: Path, names: str = "") -> list[Path]:
    """The folders of objects, in order; with `names`, by comma, only those."""
    found = sorted(each.parent for each in data.glob("*/truth.json") if (each.parent / "object.glb").is_file())
    if not found:
        raise UserError(f"--data={data}: found no NAME/object.glb with NAME/truth.json, expected at least one")
    wanted = split_list(names)
    for name in wanted:
        check_among([folder.name for folder in found], names=name)
    return [folder for folder in found if folder.name in wanted] if wanted else found


def moves_enough(folder: Path, seen: Seen) -> bool:
    """Whether the motion that is shown moves some point by 2 % of the diagonal: less is hardly a motion."""
    truth, fields = read_truth(folder)
    thing = load_object(folder / "object.glb")
    body, part = split_object(thing, thing.triangle_nodes == thing.node_names.index(fields.get("part_node", "part")))
    return make_trial_case(folder.name, body, part, truth, seen).travel >= LEAST_TRAVEL


def write_report(result: dict[str, Any], out: Path) -> None:
    """Replaces the file at once."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(out) as path:
        Path(path).write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")


def describe(source: str, seen: Seen) -> dict[str, Any]:
    """What has to be the same for runs to belong into one table."""
    return {"source": source, **(asdict(seen) if source != "geometry" else {})}


def read_rows(out: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The objects in a file that `write_report` wrote, by name; none where there is no file.

    Raises:
      UserError: no such file of this program, or one of other settings.
    """
    if not out.is_file():
        return {}
    try:
        found = json.loads(out.read_text())
        before, rows = found["settings"], {row["name"]: {key: row[key] for key in KEPT} for row in found["objects"]}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"--out={out}: is no file of this program, expected one to go on from with --resume") from None
    for key in sorted({*before, *settings}):
        if before.get(key) != settings.get(key):
            told = f"holds runs with {key} {before.get(key)}, expected {settings.get(key)}"
            raise UserError(f"--out={out}: {told}, as given, to go on from with --resume")
    for run in (run for row in rows.values() for run in row["runs"]):
        run |= {name: float("nan") if run[name] is None else run[name] for name in JointErrors._fields}
    return rows


def add_seen_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `--source=points` and `--source=video`, named as the fields of `Seen`."""
    group = parser.add_argument_group("motions that are seen")
    group.add_argument("--method", default="ours", choices=METHODS)
    group.add_argument("--draw", default="mesh", choices=sorted(DRAWS), help="what explains a video")
    group.add_argument("--num_frames", type=int, default=10)
    group.add_argument("--snapping", type=int, default=1, help="0: never prefers candidates")
    for name, said in (
        ("cloud_points", "points a cloud that the paper's ways recover from videos"),
        ("cloud_side", "height in pixels of the videos that they are recovered from"),
        ("cloud_steps", "steps a frame of that recovery"),
    ):
        group.add_argument(f"--{name}", type=int, default=getattr(Seen, name), help=said)
    for name, said in (
        ("noise", "of points as a share of the diagonal, of video channels in 0..1"),
        ("drift", "of whole clouds, a share of the diagonal"),
        ("bend", "of the part in the last frame, a share of the diagonal"),
        ("missing", "share of the points that is left out of every cloud"),
        ("blur", "of videos, pixels"),
    ):
        group.add_argument(f"--{name}", type=float, default=0.0, help=said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--source", default="geometry", choices=sorted(SOURCES))
    parser.add_argument("--seeds", type=int, default=3, help="random rotations of every object")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--names", default="", help="only these objects, by comma")
    parser.add_argument("--out", type=Path, help="JSON file, written anew after every object")
    parser.add_argument("--resume", action="store_true", help="keep the runs that --out holds, and do the others")
    add_seen_flags(parser)
    options = parser.parse_args()
    try:
        folders = find_objects(options.data, options.names)
        seen = Seen(**{each.name: getattr(options, each.name) for each in dataclass_fields(Seen)})
        if options.source != "geometry":
            folders = [folder for folder in folders if moves_enough(folder, seen)]
        if not folders:
            raise UserError(f"--names={options.names}: found none that moves by {LEAST_TRAVEL} of its diagonal")
        if options.resume and not options.out:
            raise UserError("--resume: found no --out, expected the file to go on from")
        settings = describe(options.source, seen)
        rows = read_rows(options.out, settings) if options.resume else {}
        done = [rows[folder.name]["runs"] if folder.name in rows else [] for folder in folders]
        tasks = [(folder, options.source, options.seeds, seen, runs) for folder, runs in zip(folders, done)]
        with get_context("spawn").Pool(options.jobs) if options.jobs > 1 else nullcontext() as pool:
            for row in tell((pool.imap if pool else map)(_try_task, tasks), len(folders)):
                rows[row["name"]] = row
                result = report(sorted(rows.values(), key=lambda row: row["name"]), settings)
                if options.out:  # after each object, for long runs may be ended early
                    write_report(result, options.out)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
    print_tables(result)


if __name__ == "__main__":
    main()
