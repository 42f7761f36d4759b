"""The trained model of DIMO's authors as one of our runs, for every app: `--app=import_data --source=THEIR_RUN`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import check_least
from dimo_jax.core.types import Gaussians, KeyPoints, Latents, Params
from dimo_jax.data.dataset import Dataset
from dimo_jax.data.formats import authors, native_schema
from dimo_jax.data.formats.authors import describe_authors, make_lenses
from dimo_jax.data.formats.native_schema import read_description
from dimo_jax.data.formats.recording import Recording, outline
from dimo_jax.data.world import bring_into
from dimo_jax.geometry.world import World
from dimo_jax.io.json_fields import check_name
from dimo_jax.io.ply import read_gaussians, read_vertices
from dimo_jax.runs.restore import save_facts
from dimo_jax.systems.dimo import model as dimo
from dimo_jax.systems.dimo import stages
from dimo_jax.systems.dimo.model import build_components
from dimo_jax.systems.dimo.state import TrainState
from dimo_jax.third_party.dimo import MotionModel, find_file, read_motion_model
from dimo_jax.training import density
from dimo_jax.training.checkpoints import Checkpoints
from dimo_jax.training.config_file import save_config

PICTURE = 512  # pixels of the camera that later commands take where no data is named
KEY_POINT_FIELDS = ("c_x", "c_y", "c_z", "c_radius")


def import_model(
    source: Path,
    target: Path,
    *,
    config: ConfigDict | None = None,
    dataset: str = "",
    step: int = 0,
    num_frames: int = 21,
) -> None:
    """Converts `timenet.pth`, the codes, `point_cloud.ply` and `point_cloud_c.ply` into a workdir.

    Args:
      source: the folder of these files, or the one above it, whose `s2` they are in.
      target: the workdir to write; it must not exist, or be empty.
      config: `configs/dimo.py:official`, whose functions are the authors'; sizes are set to those of the files.
      dataset: folder of the data that the model was trained on, in their layout or ours: it gives names, captions,
        cameras and the number of frames. Without it motions are numbered and the camera is the authors'.
      step: of an intermediate checkpoint; 0 takes the final one.
      num_frames: of the training videos, where `dataset` does not say; times are multiples of 1 / num_frames.

    Raises:
      UserError: a file that is missing, damaged or does not fit the others; nothing is written.
    """
    if config is None:
        raise UserError("--config: not given, expected --config=configs/dimo.py:official for the authors' model")
    check_least(1, num_frames=num_frames)
    check_least(0, step=step)
    folder = source if any(source.glob("timenet*.pth")) else source / "s2"
    motion_model = read_motion_model(folder, step=step)
    key_points = _read_key_points(find_file(folder, "point_cloud_c.ply", step=step))
    cloud = find_file(folder, "point_cloud.ply", step=step)
    gaussians, alive, num_invalid = _pad(read_gaussians(cloud), len(key_points.positions))
    if not alive.any():
        raise UserError(f"{cloud}: found no Gaussian with finite parameters, expected some")
    facts = _describe_data(dataset, motion_model, num_frames, source)
    adapted = adapt_config(config, motion_model, gaussians, key_points, dataset)
    state = build_state(adapted, motion_model, gaussians, key_points, alive, num_frames=facts.num_frames)
    _write(adapted, state, facts, target)
    print(
        f"wrote a run of {facts.num_motions} motions, {len(key_points.positions)} key points and {int(alive.sum())} "
        f"Gaussians to {target}" + (f"; left out {num_invalid} that are not finite" if num_invalid else "")
    )
    print(f"draw motions of it: python launch.py --app=sample --workdir={target}")


def _read_key_points(path: Path) -> KeyPoints:
    rows = read_vertices(path, KEY_POINT_FIELDS, kind="the authors' key points")
    values = np.stack([rows[name].astype(np.float32) for name in KEY_POINT_FIELDS], axis=-1)
    if not len(values) or not np.isfinite(values).all():
        found = "values that are not finite" if len(values) else "no key points"
        raise UserError(f"{path}: found {found}, expected at least one position and radius")
    return KeyPoints(positions=jnp.asarray(values[:, :3]), log_radii=jnp.asarray(values[:, 3]))


def _pad(gaussians: Gaussians, num_key_points: int) -> tuple[Gaussians, np.ndarray, int]:
    """Gaussians in arrays of a whole number per key point, as ours are; which are alive; how many were not finite."""
    rows = [np.asarray(x) for x in (gaussians.means, gaussians.log_scales, gaussians.quats, gaussians.sh)]
    count = len(rows[0])
    finite = np.isfinite(np.concatenate([x.reshape(count, -1) for x in rows], axis=1)).all(axis=1)
    finite &= np.isfinite(np.asarray(gaussians.logit_opacities))
    room = -(-max(count, 1) // num_key_points) * num_key_points - count
    alive = np.concatenate([finite, np.zeros(room, bool)])

    def clean(x: Any) -> jax.Array:
        whole = np.concatenate([np.asarray(x), np.zeros((room, *x.shape[1:]), np.float32)])
        return jnp.asarray(np.where(alive.reshape(-1, *[1] * (whole.ndim - 1)), whole, 0))

    padded = jax.tree.map(clean, gaussians)
    turned = padded.quats.at[:, 0].set(jnp.where(alive, padded.quats[:, 0], 1.0))
    return padded.replace(quats=turned), alive, int((~finite).sum())


def adapt_config(
    config: ConfigDict, model: MotionModel, gaussians: Gaussians, key_points: KeyPoints, dataset: str
) -> ConfigDict:
    """The config with the sizes and the functions of the authors' model."""
    result = ConfigDict(config.to_dict())
    with result.unlocked():
        result.data.path, result.data.source = str(Path(dataset).absolute()) if dataset else "", {}
        result.decoder.update(
            width=model.width, depth=model.depth, skip=model.skip, head_width=model.head_width,
            num_position_bands=10, num_time_bands=6, lowest_frequency=1.0, dtype="float32",
        )  # fmt: skip
        draw = "plain_code" if model.log_sigma is None else "reparameterize"
        result.latent = dict(fn=f"dimo_jax.training.latents:{draw}")
        result.latent_init.dim = model.mu.shape[1]
        result.skinning = dict(fn="dimo_jax.skinning.weights:rbf_weights_authors")
        num_neighbors = min(4, len(key_points.positions))
        result.graph = dict(fn="dimo_jax.systems.dimo.graph:canonical_neighbors", num_neighbors=num_neighbors)
        result.deform = dict(fn="dimo_jax.skinning.blending:linear_blend", align=False, unit=False)
        result.num_key_points = len(key_points.positions)
        result.radius_power = 1.0
        result.stage1.capacity = max(result.stage1.capacity, result.num_key_points)
        result.stage2.move = dict(fn="dimo_jax.systems.dimo.model:move_by_key_points")
        result.stage2.num_per_key_point = len(gaussians.means) // result.num_key_points
        result.stage2.sh_degree = round(gaussians.sh.shape[1] ** 0.5) - 1
    return result


def build_state(
    config: ConfigDict,
    model: MotionModel,
    gaussians: Gaussians,
    key_points: KeyPoints,
    alive: np.ndarray,
    *,
    num_frames: int,
) -> TrainState:
    """The state with which a run of `config` would have ended; its optimizer has no memory."""
    components = build_components(config)
    plain = np.full_like(model.mu, config.latent_init.log_sigma)
    params = Params(
        latents=Latents(
            mu=jnp.asarray(model.mu), log_sigma=jnp.asarray(plain if model.log_sigma is None else model.log_sigma)
        ),
        decoder=jax.tree.map(jnp.asarray, model.variables),
        key_points=key_points,
        gaussians=gaussians,
    )
    last = stages.build_stages(config)[1]
    times = stages.frame_times(num_frames)

    def complete(params: Params) -> TrainState:
        def trajectories(z: jax.Array) -> jax.Array:
            return dimo.decode_trajectories(components, params, z, params.key_points.positions, times)[0]

        none = jnp.zeros((0, 0, 0), jnp.int32)
        state = TrainState(
            step=jnp.asarray(last.span.last_step, jnp.int32),
            params=params,
            optimizer=last.options.optimizer.init(params),
            alive=jnp.asarray(alive),
            neighbors=dimo.Neighbors(gaussians=none, controls=none),
            density=density.init_stats(len(alive)),
            reference=jax.lax.map(trajectories, params.latents.mu),
            dropped=jnp.zeros([], jnp.int32),
        )
        return stages.refresh(state, components, times=times, points_are_controls=False)

    return jax.jit(complete)(params)


def _describe_data(dataset: str, model: MotionModel, num_frames: int, source: Path) -> Dataset:
    """What later commands need to know of the data, without its pictures."""
    count = len(model.mu)
    if not dataset:
        names = model.names or tuple(f"motion_{index:02d}" for index in range(count))
        for name in names:
            check_name(name, f"{source}: motion_order.json")
        recording = Recording(
            source=str(source),
            object_name=source.resolve().name,
            lenses=make_lenses([0.0], 0.0),
            view_names=("view_00",),
            view_splits=("train",),
            names=names,
            sentences=tuple((name.replace("_", " "),) for name in names),
            splits=("train",) * count,
            clips={},
        )
        return _without_pictures(recording, num_frames, PICTURE, PICTURE, authors.FRAME_RATE)
    found = _read_outline(Path(dataset))
    if found.num_motions != count:
        raise UserError(f"{dataset}: {found.num_motions} motions, expected {count} as the model has codes")
    if model.names and set(model.names) != set(found.names):
        odd = sorted(set(model.names) ^ set(found.names))[0]
        raise UserError(f"{dataset}: its motions and those of motion_order.json differ in {odd!r}, expected the same")
    if model.names and model.names != found.names:
        raise UserError(
            f"{dataset}: its motions stand in another order than in motion_order.json, expected "
            f"{', '.join(model.names)}"
        )
    return found


def _without_pictures(recording: Recording, num_frames: int, height: int, width: int, rate: float) -> Dataset:
    shape = (len(recording.names), len(recording.view_names), num_frames, height, width, 4)
    return outline(recording, np.broadcast_to(np.uint8(0), shape), height, width, frame_rate=rate)


def _read_outline(folder: Path) -> Dataset:
    """A dataset folder, theirs or ours, with pictures that take no memory."""
    if (folder / native_schema.FILE).is_file():
        found = read_description(folder)
        shape = (
            len(found.names),
            len(found.view_names),
            found.num_frames,
            found.cameras.height,
            found.cameras.width,
            4,
        )
        shared: Mapping[str, Any] = {
            name: getattr(found, name)
            for name in ("cameras", "names", "captions", "splits", "view_names", "view_splits", "frame_rate",
                         "object_name", "paraphrases", "test_paraphrases", "world")
        }  # fmt: skip
        # Their model stands in the world of its own data, which an import of that data may have moved.
        return bring_into(Dataset(frames=np.broadcast_to(np.uint8(0), shape), **shared), World())
    recording = describe_authors(folder)
    first = recording.clips[0, 0]
    rate = recording.frame_rate or authors.FRAME_RATE
    return _without_pictures(recording, len(first.files), first.height, first.width, rate)


def _write(config: ConfigDict, state: TrainState, facts: Dataset, target: Path) -> None:
    """A workdir that appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        folder = temporary / "new"
        save_config(config, folder)
        save_facts(facts, folder, system=dict(num_text_features=0))
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(int(state.step), state)
        if target.exists():
            target.rmdir()
        folder.rename(target)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
