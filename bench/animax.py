"""How good drawn motions of rigs are, beside baselines, on clips and rigs that training has not seen.

    python -m bench.animax --data=FOLDER --out=FILE.json [--workdir=RUN | --sampler=MODULE:FUNCTION]
        [--split=clip,rig] [--most=N] [--fvd=32] [--steps=N] [--guidance=X] [--levels]

FOLDER is one of `--app=import_data --pose_maps`. Every held-out clip is drawn once, from its first piece. Rows:

- `truth`: the clip's own videos, lifted: the floor of MPJPE, and the figures that real videos have;
- `rest`: every frame is the pose at rest; `still`: every frame is the condition, lifted as drawn videos are;
- `retrieval`: the videos of the clip that trains, of the same rig, whose sentence is nearest (MiniLM); of a rig that is
  held out `transfer` instead: the training clip of any rig whose sentence is nearest, each marker moved as the one of
  the same name, or of the nearest above that has one, in diagonals (points alone, nothing is drawn);
- `sampler`: what the run in RUN draws, with one seed, or FUNCTION(shards, sample) -> [V,2,T,H,W,3] uint8, pictures
  and pose maps.

Columns, means over clips: `mpjpe` and `warped` (percent of the diagonal; `warped` with frames that may wait for each
other), `seen`, `subject`, `smoothness`, `dynamic` (metrics/generated.py), and `fvd` of so many videos as asked for.

`--levels` adds what one look at the noisy truth tells of how the videos differ from the condition: 1 less the error's
mean square as a share of the difference's, of pictures and of pose maps. At a level near 1, where nothing is to be
seen, it is what the model knows from condition and sentence; a still has 0.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.core.resolve import resolve
from dimo_jax.data.clips import ClipSample, ClipShards
from dimo_jax.diffusion.flow import mix, to_timesteps
from dimo_jax.metrics.fvd import frechet_distance, video_features
from dimo_jax.metrics.generated import judge_points, judge_videos
from dimo_jax.networks.bert import load_encoder
from dimo_jax.runs.animax import RestoredAnimax, restore_animax
from dimo_jax.runtime.files import write_json
from dimo_jax.systems.animax.batches import encode_batch
from dimo_jax.systems.animax.model import predict_joint
from dimo_jax.systems.animax.outputs import read_velocity
from dimo_jax.systems.animax.sequence import join

Sampler = Callable[[ClipShards, ClipSample], np.ndarray]
LEVELS = (0.98, 0.9, 0.8, 0.5, 0.2)
COLUMNS = ("mpjpe", "warped", "seen", "subject", "smoothness", "dynamic", "fvd")


def draw_truth(shards: ClipShards, sample: ClipSample) -> np.ndarray:
    """The videos that there are."""
    return shards.read(sample).videos


def make_sampler(run: RestoredAnimax, **changes: Any) -> Sampler:
    """What a trained model draws from a sample's still, cameras and sentence; `changes` of its sampling."""

    def draw(shards: ClipShards, sample: ClipSample) -> np.ndarray:
        batch = shards.collect([sample])
        words = run.player.embed([sample.caption])
        return run.player.draw(jax.random.key(0), batch.stills, words, batch.cameras, **changes)[0]

    return draw


def draw_still(shards: ClipShards, sample: ClipSample) -> np.ndarray:
    """The condition, again and again."""
    return np.repeat(shards.read(sample).stills[:, :, None], shards.num_frames, axis=2)


def draw_nearest(shards: ClipShards, sample: ClipSample) -> np.ndarray:
    """The videos of the training clip of the same rig whose sentence is nearest."""
    return shards.read(find_nearest(shards, sample, [s for s in _trained(shards) if s.rig == sample.rig])).videos


def _trained(shards: ClipShards) -> tuple[ClipSample, ...]:
    return shards.select("train", canonical=True)


def find_nearest(shards: ClipShards, sample: ClipSample, known: Sequence[ClipSample]) -> ClipSample:
    """Of some samples that whose sentence is nearest in cosine; the first of several.

    Raises:
      UserError: there is none.
    """
    if not known:
        raise UserError(f"{shards.folder}: has no training clip of {sample.rig}, expected one to retrieve")
    wanted = shards.embed_caption(sample.caption)[0]
    found = np.stack([shards.embed_caption(each.caption)[0] for each in known])
    cosines = found @ wanted / np.maximum(np.linalg.norm(found, axis=-1) * np.linalg.norm(wanted), 1e-12)
    return known[int(cosines.argmax())]


def transfer_points(shards: ClipShards, sample: ClipSample) -> np.ndarray:
    """Points [T,K,3] of a rig that moves as another's training clip: that of the nearest sentence of all rigs.

    Where several sentences are as near, the rig with most markers of like names gives the clip.
    """
    rig = shards.rigs[sample.rig]
    known = sorted(_trained(shards), key=lambda other: -len(_match(rig.markers, shards.rigs[other.rig].markers)))
    other = find_nearest(shards, sample, known)
    source = shards.rigs[other.rig]
    pairs = _match(rig.markers, source.markers)
    moves = (shards.read(other).points - source.rest) / source.diagonal
    points = np.tile(rig.rest, (shards.num_frames, 1, 1))
    for marker in range(len(rig.markers)):
        above = marker
        while above >= 0 and above not in pairs:
            above = int(rig.parents[above])
        move = moves[:, pairs[above]] if above >= 0 else moves.mean(axis=1)
        points[:, marker] += rig.diagonal * move
    return points


def _match(names: Sequence[str], others: Sequence[str]) -> dict[int, int]:
    """Markers of like names: place -> place among the others."""
    places = {_plain(name): index for index, name in enumerate(others)}
    return {index: places[_plain(name)] for index, name in enumerate(names) if _plain(name) in places}


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def judge(shards: ClipShards, samples: Sequence[ClipSample], sampler: Sampler) -> tuple[list[dict[str, Any]], list]:
    """A row for each sample, and the pictures [V,T,H,W,3] that were drawn of it."""
    rows, pictures = [], []
    for sample in samples:
        true, videos = shards.read(sample), sampler(shards, sample)
        if videos.shape != true.videos.shape or videos.dtype != np.uint8:
            found = f"{videos.dtype} of {list(videos.shape)}"
            raise UserError(f"--sampler: returned {found}, expected uint8 of {list(true.videos.shape)}")
        row = judge_videos(videos, true.stills, true.points, true.cameras, shards.rigs[sample.rig])
        rows.append({"clip": sample.name, "caption": sample.caption} | row)
        pictures.append(videos[:, 0])
    return rows, pictures


def judge_tracks(
    shards: ClipShards, samples: Sequence[ClipSample], place: Callable[[ClipShards, ClipSample], np.ndarray]
) -> list[dict[str, Any]]:
    """A row for each sample of a baseline that has points alone."""
    rows = []
    for sample in samples:
        truth, rig = shards.read(sample).points, shards.rigs[sample.rig]
        figures = judge_points(place(shards, sample), truth, rig.diagonal)
        rows.append({"clip": sample.name, "caption": sample.caption} | figures)
    return rows


def rest_points(shards: ClipShards, sample: ClipSample) -> np.ndarray:
    """The pose at rest, again and again [T,K,3]."""
    return np.tile(shards.rigs[sample.rig].rest, (shards.num_frames, 1, 1))


def average(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over rows of the figures that they have."""
    return {
        name: float(np.mean([row[name] for row in rows])) for name in COLUMNS if rows and rows[0].get(name) is not None
    }


def embed_some(pictures: Sequence[np.ndarray], count: int) -> np.ndarray:
    """What FVD compares of so many of some videos, each [V,T,H,W,3] uint8; of as many videos the same are drawn."""
    views = len(pictures[0])
    chosen = np.random.default_rng(0).permutation(len(pictures) * views)[:count]
    return video_features(np.stack([pictures[i // views][i % views] for i in chosen]).astype(np.float32) / 255)


def choose(shards: ClipShards, split: str, most: int) -> tuple[ClipSample, ...]:
    """The clips of a split as inference draws them, `most` of them, evenly chosen; 0 takes all."""
    samples = shards.select(split, canonical=True)
    return samples[:: -(-len(samples) // most)] if most else samples


def compare(
    shards: ClipShards, split: str, *, sampler: Sampler | None = None, most: int = 0, num_fvd: int = 0
) -> dict[str, Any]:
    """All rows of a split: method -> its means and `clips`.

    Args:
      shards: with an `embed`.
      split: "clip" or "rig".
      sampler: what is judged beside the baselines.
      most: samples; 0 takes all.
      num_fvd: videos of either side; 0 leaves FVD out.
    """
    samples = choose(shards, split, most)
    drawing: dict[str, Sampler] = {"truth": draw_truth, "still": draw_still}
    drawing |= {"retrieval": draw_nearest} if split == "clip" else {}
    drawing |= {"sampler": sampler} if sampler else {}
    table: dict[str, Any] = {"rest": judge_tracks(shards, samples, rest_points)}
    if split == "rig":
        table["transfer"] = judge_tracks(shards, samples, transfer_points)
    result = {name: average(rows) | {"clips": rows} for name, rows in table.items()}
    truth: np.ndarray | None = None
    for name, draw in drawing.items():
        start = time.process_time()
        rows, pictures = judge(shards, samples, draw)
        result[name] = average(rows) | {"cpu_seconds": time.process_time() - start}
        features = embed_some(pictures, num_fvd) if num_fvd else None
        if features is not None and truth is not None:
            result[name]["fvd"] = frechet_distance(features, truth)
        truth = features if truth is None else truth
        result[name]["clips"] = rows
    return result


def see_through_noise(run: RestoredAnimax, shards: ClipShards, samples: Sequence[ClipSample]) -> dict[str, list[float]]:
    """Share of the change that one look explains: noise level -> of pictures and of pose maps, see `--levels`."""
    player, batch_size = run.player, 4
    arrays, errors, changes = player.codec.load(), np.zeros((len(LEVELS), 2)), np.zeros(2)
    for first in range(0, len(samples), batch_size):
        batch = encode_batch(shards.collect(samples[first : first + batch_size]), player.codec, arrays)
        noise = jax.random.normal(jax.random.key(first), batch.video.shape)
        still = batch.condition[:, :, :, None]
        changes += _add_squares(still - batch.video)
        for index, level in enumerate(LEVELS):
            levels = jnp.full(len(noise), level)
            noisy = mix(batch.video, noise, levels)
            latents = join(batch.condition, noisy)
            how: dict[str, Any] = dict(config=player.backbone.config, attend=player.options["attend"])
            output = predict_joint(player.params, latents, to_timesteps(levels), batch.text, batch.ray_maps, **how)
            velocity = read_velocity(output, latents, levels, player.options["predicts"])
            errors[index] += _add_squares(noisy - level * velocity - batch.video)
    return {f"{level:g}": list(1 - error / changes) for level, error in zip(LEVELS, errors, strict=True)}


def _add_squares(difference: jax.Array) -> np.ndarray:
    """[B,V,2,...] -> [2]."""
    return np.asarray(jnp.sum(difference**2, axis=tuple(axis for axis in range(difference.ndim) if axis != 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder of --app=import_data --pose_maps")
    parser.add_argument("--out", required=True, help="the JSON file to write")
    parser.add_argument("--sampler", default="", help="module:function that draws the videos of a sample")
    parser.add_argument("--workdir", default="", help="a run of configs/animax.py, which draws them")
    parser.add_argument("--steps", type=int, default=0, help="of the sampler of --workdir; 0: as its config says")
    parser.add_argument("--guidance", type=float, default=0.0, help="likewise")
    parser.add_argument("--split", default="clip,rig", help="what is judged")
    parser.add_argument("--most", type=int, default=0, help="clips of each split, evenly chosen; 0: all")
    parser.add_argument("--fvd", type=int, default=0, help="videos that FVD compares; 0: no FVD")
    parser.add_argument("--levels", action="store_true", help="what --workdir sees through noise as well")
    options = parser.parse_args()
    if options.levels and not options.workdir:
        parser.error("--levels: found without --workdir, expected a run that looks")
    try:
        shards = ClipShards(options.data, embed=load_encoder().embed)
        sampler: Sampler | None = resolve({"fn": options.sampler}, key="sampler") if options.sampler else None
        changes = {"num_steps": options.steps} if options.steps else {}
        changes |= {"guidance": options.guidance} if options.guidance else {}
        run = restore_animax(options.workdir) if options.workdir else None
        sampler = make_sampler(run, **changes) if run else sampler
        said = options.sampler or options.workdir
        result: dict[str, Any] = {"data": options.data, "sampler": said, "fvd_videos": options.fvd}
        for split in options.split.split(","):
            rows = compare(shards, split, sampler=sampler, most=options.most, num_fvd=options.fvd)
            result[split] = rows
            write_json(result, Path(options.out))
            print(f"{split}: {len(rows['rest']['clips'])} clips")
            print(f"{'':12}" + "".join(f"{name:>12}" for name in COLUMNS))
            for name, row in rows.items():
                cells = (f"{row[column]:12.3f}" if column in row else f"{'':12}" for column in COLUMNS)
                print(f"{name:12}" + "".join(cells), flush=True)
            if run and options.levels:
                rows["levels"] = see_through_noise(run, shards, choose(shards, split, options.most))
                write_json(result, Path(options.out))
                shown = (f"{level}: {a:.2f} {b:.2f}" for level, (a, b) in rows["levels"].items())
                print(f"seen through noise of {', '.join(shown)}", flush=True)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
