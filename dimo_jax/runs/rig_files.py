"""Files of new clips: a model's own file with clips more, and a report beside it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dimo_jax.data.puppet.rig import write_puppet_rig
from dimo_jax.io.gltf.append import NewClip, append_clips
from dimo_jax.io.gltf.document import open_document
from dimo_jax.io.gltf.repair import describe_repairs, repair_weights
from dimo_jax.runs.animation import Animation, Model, describe, measure_own_jerk
from dimo_jax.runs.rigs import RestoredRig
from dimo_jax.runtime.files import write_json


@contextlib.contextmanager
def open_source(restored: RestoredRig, source: str = "") -> Iterator[str]:
    """The file to which clips are added: as asked, or the run's own; that of the embedded puppet is made."""
    own = source or restored.config.data.path
    if own:
        yield own
        return
    with tempfile.TemporaryDirectory() as folder:
        yield str(write_puppet_rig(Path(folder) / "puppet.glb"))


def write_animations(
    source: str | Path, target: Path, report: Path, model: Model, animations: Sequence[Animation], *, repair: bool
) -> list[dict[str, Any]]:
    """Writes clips into a copy of a file, and their rows, which come back, into its report; says both, line by line.

    Args:
      source: the model's file.
      target: the file to write.
      report: likewise, JSON.
      model: of the source.
      animations: the clips.
      repair: mends skin weights that are no numbers in what is written, too.

    Raises:
      UserError: as `append_clips`.
    """
    own = {rate: measure_own_jerk(model, rate) for rate in {each.figures["frame_rate"] for each in animations}}
    clips = [NewClip(each.name, each.seconds, each.pose) for each in animations]
    repairs = repair_weights(open_document(source)) if repair else None
    names = append_clips(source, target, model.rig, clips, repairs=repairs)
    for line in describe_repairs(repairs, model.scene) if repairs else ():
        print(line)
    rows = [
        each.figures | {"clip": name, "own_jerk": own[each.figures["frame_rate"]]}
        for name, each in zip(names, animations)
    ]
    write_json({"source": str(source), "clips": rows}, report)
    for row in rows:
        print(describe(row))
    print(f"wrote {len(rows)} {'clip' if len(rows) == 1 else 'clips'} more to {target}, figures to {report}")
    return rows
