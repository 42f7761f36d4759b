"""Restores a trained model from its workdir, without the data that it was trained on."""

from __future__ import annotations

import contextlib
import difflib
import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dimo_jax.cameras.orbits import resize
from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import check_folder
from dimo_jax.core.names import choose_names
from dimo_jax.core.types import Camera
from dimo_jax.data import sources
from dimo_jax.data.dataset import Dataset, views_in
from dimo_jax.data.formats.native_schema import MAX_SIDE
from dimo_jax.data.world import bring_into, parse_world, settle
from dimo_jax.geometry.world import World
from dimo_jax.io.json_fields import get_array, get_count, get_field, get_split
from dimo_jax.runtime.files import write_json
from dimo_jax.systems.dimo import stages
from dimo_jax.systems.dimo.model import build_components
from dimo_jax.systems.dimo.player import Player
from dimo_jax.training.checkpoints import Checkpoints
from dimo_jax.training.config_file import CONFIG_FILE, load_config
from dimo_jax.training.model_file import load_model_file, restore_params

FACTS_FILE = "facts.json"
MOTION_SPACE = "dimo_jax.systems.dimo.system:Dimo"
RIG_SPACE = "dimo_jax.systems.rig.system:RigSpace"


def describe(dataset: Dataset, *, system: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """What later commands need to know of the data: sizes, names, one camera; and the `system`'s own facts."""
    return dict(
        object_name=dataset.object_name,
        names=dataset.names,
        captions=dataset.captions,
        splits=dataset.splits,
        paraphrases=dataset.sentences,
        test_paraphrases=dataset.test_paraphrases,
        num_frames=dataset.num_frames,
        frame_rate=dataset.frame_rate,
        **system,
        **(_describe_camera(dataset) if dataset.num_views else {}),
        **({} if dataset.world is None else {"world": dataset.world.to_json()}),
    )


def _describe_camera(dataset: Dataset) -> dict[str, Any]:
    view, cameras = [*views_in(dataset, "test"), *views_in(dataset, "train")][0], dataset.cameras
    names = ("world_to_camera", "focal", "center")
    arrays = {name: np.asarray(getattr(cameras, name))[view].tolist() for name in names}
    return dict(camera=dict(**arrays, height=cameras.height, width=cameras.width))


def save_facts(dataset: Dataset, workdir: Path, *, system: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Writes what `describe` says into a workdir."""
    write_json(describe(dataset, system=system), workdir / FACTS_FILE)


def load_data(config: Mapping[str, Any], facts: Mapping[str, Any]) -> Dataset:
    """The data of a run with these facts, in the world that it was trained in.

    Raises:
      UserError: as `sources.load`, or facts that are damaged.
    """
    world = world_of(facts)
    # Versions that moved nothing wrote no world: their runs keep their data where it is.
    return sources.load(config["data"], move=settle if world is None else functools.partial(bring_into, world=world))


def world_of(facts: Mapping[str, Any]) -> World | None:
    """The world of a run by its facts; None where they do not tell."""
    return parse_world(facts, FACTS_FILE)


def read_facts(workdir: Path) -> dict[str, Any]:
    """What a run knows of its data.

    Raises:
      UserError: it cannot be read.
    """
    path = workdir / FACTS_FILE
    try:
        facts: dict[str, Any] = json.loads(path.read_text())
        _sizes(facts)
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise UserError(f"{path}: cannot read it ({type(error).__name__}: {error}), expected a run's facts") from error
    return facts


@dataclass(frozen=True)
class Restored:
    """A trained model and what is known of its data."""

    player: Player
    facts: Mapping[str, Any]
    step: int  # training steps taken
    config: ConfigDict

    @property
    def world(self) -> World:
        """Where the user's coordinates stand in the model's; the identity where its run does not tell."""
        return world_of(self.facts) or World()

    @property
    def num_frames(self) -> int:
        """Frames of a training video."""
        return int(self.facts["num_frames"])

    @property
    def frame_rate(self) -> float:
        """Frames a second of a training video."""
        return float(self.facts["frame_rate"])

    @property
    def trained_motions(self) -> np.ndarray:
        """Indices [n] of the motions that the model was trained on; the others' codes mean nothing."""
        splits = self.facts.get("splits") or ["train"] * len(self.facts["names"])
        return np.flatnonzero(np.asarray(splits) == "train")

    def find_motion(self, name: str, *, flag: str) -> int:
        """The index of a training motion by its name.

        Raises:
          UserError: there is none of that name; the message lists a few that exist.
        """
        trained = [int(index) for index in self.trained_motions]
        names = [str(self.facts["names"][index]) for index in trained]
        (chosen,) = choose_names([name], names, fail=lambda part: self._unknown(part, flag))
        return trained[chosen[0]]

    def _unknown(self, name: str, flag: str) -> UserError:
        known = [str(self.facts["names"][index]) for index in self.trained_motions]
        near = difflib.get_close_matches(name, known, n=3)
        some = ", ".join([*near, *(other for other in known if other not in near)][:6])
        more = f" and {len(known) - 6} more" if len(known) > 6 else ""
        return UserError(f"--{flag}: found {name!r}, expected a training motion: {some}{more}")

    def find_motions(self, text: str, *, flag: str) -> list[int]:
        """The indices of training motions by their names, separated by commas; see `choose_names`.

        Raises:
          UserError: as `find_motion`.
        """
        trained = [int(index) for index in self.trained_motions]
        names = [str(self.facts["names"][index]) for index in trained]
        chosen = choose_names(text, names, fail=lambda name: self._unknown(name, flag))
        return [trained[row[0]] for row in chosen]

    def camera(self, size: int = 0) -> Camera:
        """A camera of the data, its picture `size` pixels high (0: as in the data)."""
        camera = self.facts["camera"]
        arrays = {name: jnp.asarray(camera[name], jnp.float32) for name in ("world_to_camera", "focal", "center")}
        whole = Camera(**arrays, height=camera["height"], width=camera["width"])
        return resize(whole, size, round(size * whole.width / whole.height)) if size else whole


def run_folder(workdir: str | Path) -> Path:
    """The folder of what belongs to a model: the run's, or for a model file the one of its name beside it."""
    path = Path(workdir)
    return path.with_suffix("") if path.is_file() and path.suffix else path


def results_folder(workdir: str | Path, name: str = "", *, out: str = "") -> Path:
    """Where an app writes: the folder `out` that the user asks for, or `name` in that of the run.

    Raises:
      UserError: it cannot be made or written to.
    """
    folder = Path(out) if out else run_folder(workdir) / name
    check_folder(folder, "out")
    return folder


def restore(workdir: str | Path, *, checkpoint: str = "last") -> Restored:
    """The model of a checkpoint in `workdir`, or of a model file of that name.

    Args:
      workdir: of a training run, or a model file.
      checkpoint: "last", or "best": the one with the highest score (docs/recovery.md).

    Raises:
      UserError: no run there, none that finished its first stage, a damaged one, or none with a score.
    """
    workdir = Path(workdir)
    if workdir.is_file():
        if checkpoint != "last":
            raise UserError(f"--checkpoint={checkpoint}: found {workdir}, a model file, expected a run with it")
        return _restore_file(workdir)
    config = load_config(workdir)
    check_motion_space(config, f"--workdir={workdir}")
    facts = read_facts(workdir)
    sizes = _sizes(facts)
    checkpoints, before = Checkpoints(workdir), None
    if not checkpoints.steps():
        raise UserError(f"--workdir={workdir}: no checkpoint in it, expected a training run that has saved one")
    check_facts(facts, str(workdir / FACTS_FILE))
    with _config_of(f"{workdir / CONFIG_FILE}: is"):
        components = build_components(config)
        first_step = stages.build_stages(config)[0].span.last_step
    if checkpoint == "best":
        best = checkpoints.best()
        if best is None:
            raise UserError(f"--checkpoint=best: found no scores in {checkpoints.folder}, expected a longer run")
        before = best + 1
    found = checkpoints.restore_latest(
        lambda step: stages.template(config, components, step=step, **sizes), before=before
    )
    assert found is not None  # there is at least one, and one that cannot be read is an error
    if found[0] < first_step:
        raise UserError(
            f"--workdir={workdir}: its training is still in the first stage (step {found[0]}), expected a finished one"
        )
    player = Player(config, components, jax.device_get(found[1]), num_frames=facts["num_frames"])
    return Restored(player, facts, found[0], config)


@contextlib.contextmanager
def _config_of(where: str) -> Iterator[None]:
    """Says that a config is damaged where the block fails, which builds what it asks for; `where` has the verb."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where} damaged ({error})" if str(error).startswith("config.") else str(error)) from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, ZeroDivisionError, IndexError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{where} damaged ({reason})") from error


def check_facts(facts: Any, where: str) -> None:
    """Raises UserError where what is known of a run's data is incomplete; `where` begins the message."""
    names = get_field(facts, "names", list, where)
    for key in ("names", "captions", "splits"):
        values = get_field(facts, key, list, where, default=names)
        if len(values) != len(names) or not names or not all(isinstance(value, str) for value in values):
            raise UserError(f"{where}: {key} is {str(values)[:60]!r}, expected {max(1, len(names))} texts")
    for split in facts.get("splits", []):
        get_split({"split": split}, where)
    for key in ("paraphrases", "test_paraphrases"):
        groups = get_field(facts, key, list, where, default=[])
        texts = [text for group in groups for text in (group if isinstance(group, list) else [None])]
        if groups and (len(groups) != len(names) or not all(isinstance(text, str) for text in texts)):
            raise UserError(f"{where}: {key} is {str(groups)[:60]!r}, expected lists of texts for {len(names)} motions")
    get_field(facts, "object_name", str, where)
    get_count(facts, "num_frames", 1 << 20, where)
    if not 0 < get_field(facts, "frame_rate", (int, float), where) <= 1e6:
        raise UserError(f"{where}: frame_rate is {facts['frame_rate']}, expected frames a second above 0")
    camera = get_field(facts, "camera", dict, where)
    for key in ("width", "height"):
        get_count(camera, key, MAX_SIDE, f"{where}: camera")
    for key, shape in (("world_to_camera", (4, 4)), ("focal", (2,)), ("center", (2,))):
        get_array(camera, key, shape, f"{where}: camera")


def _sizes(facts: Mapping[str, Any]) -> dict[str, int]:
    """What the shapes of a state depend on beside the config."""
    return dict(
        num_motions=len(facts["names"]),
        num_frames=int(facts["num_frames"]),
        num_text_features=int(facts.get("num_text_features", 0)),
    )


def check_motion_space(config: ConfigDict, where: str) -> None:
    """Raises UserError where a config is that of another system than DIMO."""
    system = (config.get("system") or {}).get("fn", MOTION_SPACE)
    if system == RIG_SPACE:
        raise UserError(
            f"{where}: holds a motion space of a rig, without pictures; --app=animate plays it, and --app=view"
        )
    if system != MOTION_SPACE:
        raise UserError(f"{where}: holds a run of {system}, expected a motion space of {MOTION_SPACE}")


def _restore_file(path: Path) -> Restored:
    file = load_model_file(path)
    config, facts = file.config, file.facts
    with _config_of(f"{path}: its config or facts are"):
        components = build_components(config)
        sizes = _sizes(facts)
        check_facts(facts, f"{path}: facts")
        template = stages.template(config, components, step=file.step, **sizes)
        finished = file.step >= stages.build_stages(config)[0].span.last_step
    if not finished:
        raise UserError(f"{path}: its training is still in the first stage (step {file.step}), expected a finished one")
    params, alive = restore_params(file, template.params, path)
    state = template.replace(step=jnp.int32(file.step), params=params, alive=alive)
    player = Player(config, components, state, num_frames=sizes["num_frames"])
    return Restored(player, facts, file.step, config)
