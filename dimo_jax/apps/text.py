"""`--app=text`: a sentence to a motion, and how well unseen sentences are understood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from dimo_jax.cli.flag_checks import check_flags
from dimo_jax.core.errors import UserError
from dimo_jax.networks.bert import TextEncoder, load_encoder
from dimo_jax.runs import captions
from dimo_jax.runs.captions import Speaker
from dimo_jax.runs.choice import Checkpoint
from dimo_jax.runs.codes import file_name
from dimo_jax.runs.restore import Restored, restore, results_folder, run_folder
from dimo_jax.runtime.files import replace_file
from dimo_jax.runtime.naming import free_number
from dimo_jax.runtime.progress import track
from dimo_jax.runtime.strict_json import encode
from dimo_jax.systems.dimo import model as dimo
from dimo_jax.systems.dimo.sentences import Sentences, read_sentences, text_options
from dimo_jax.systems.dimo.stages import frame_times
from dimo_jax.training.config_file import load_config
from dimo_jax.views.gallery import write_latents

NUM_NEAREST = 3


def run(
    *,
    workdir: str,
    prompt: str = "",
    evaluate_captions: Literal["", "held_out", "leave_one_out"] = "",
    bert: str = "",
    out: str = "",
    num_frames: int = 0,
    size: int = 0,
    checkpoint: Checkpoint = "last",
    overwrite: bool = False,
) -> None:
    """Generates the motion that a sentence describes, or evaluates sentences whose motion is known.

    The first call on a run trains the projector from sentences to latent codes, in seconds, and keeps it in `workdir`.

    Args:
      workdir: folder of a training run.
      prompt: what the object shall do; prints the training captions that are most like it.
      evaluate_captions: "held_out" asks for the held-out paraphrases of the data; "leave_one_out" for training
        paraphrases, each from a projector trained without it, of a run whose codes were (not with `text.joint`).
      bert: folder of a Hugging Face BERT; default: `config.text.bert`, or all-MiniLM-L6-v2, downloaded once.
      out: folder for `<prompt>.mp4` or `<evaluation>.json`; default: `workdir`/text.
      num_frames: frames of the video, which lasts as long as in training; default: as in training.
      size: side of the pictures in pixels; default: as in training.
      checkpoint: "last", or "best" as training batches went.
      overwrite: replaces a file of the same name; else a new one gets a number.

    Example:
      python launch.py --app=text --workdir=runs/dimo --prompt="waves the left hand"

    Raises:
      UserError: neither or both of prompt and evaluation, or what `restore` and `load_speaker` raise.
    """
    check_flags("text", locals())
    folder, target = Path(workdir), results_folder(workdir, "text", out=out)
    config = load_config(folder)
    options = text_options(config, bert=bert)
    if evaluate_captions == "leave_one_out":
        captions.check_codes_know_no_sentence(config, folder)
    with ThreadPoolExecutor(1) as pool:  # reading and compiling the encoder leaves a core free for the model
        prepared = pool.submit(_prepare, options, prompt)
        model = restore(folder, checkpoint=checkpoint)
        encoder = prepared.result()
        if evaluate_captions == "held_out" and not any(read_sentences(model.facts).test):
            raise UserError(
                f"--evaluate_captions=held_out: {folder} has no held-out sentences, expected some in its data"
            )
        if prompt and not (run_folder(workdir) / captions.FILE).exists():
            pool.submit(_rehearse, model, num_frames=num_frames, size=size)  # what it raises, drawing raises again
        speaker, sentences = captions.speak_for(model, folder, options, encoder)
    codes = captions.sentence_codes(model, sentences)
    stem, ending = (file_name(prompt), ".mp4") if prompt else (evaluate_captions, ".json")
    path = target / f"{stem}{free_number(target, [(stem, ending)], overwrite=overwrite)}{ending}"
    if prompt:
        _generate(model, speaker, sentences, prompt, path, num_frames=num_frames, size=size)
        return
    if evaluate_captions == "held_out":
        asked = [(m, sentence) for m, each in enumerate(sentences.test) for sentence in each]
        found = np.asarray(speaker.codes(speaker.encoder.embed([sentence for _, sentence in asked])))
        answers = [(m, sentence, code) for (m, sentence), code in zip(asked, found)]
    else:
        parts = np.split(speaker.embeddings, np.flatnonzero(np.diff(speaker.owners)) + 1)
        answers = captions.leave_one_out(options, sentences, parts, codes)
    _evaluate(model, sentences, codes, answers, path, evaluation=evaluate_captions)


def _prepare(options: Mapping[str, Any], prompt: str) -> TextEncoder:
    """The encoder, compiled for the prompt."""
    encoder = load_encoder(options["bert"], pooling=options["pooling"])
    if prompt:
        encoder.embed([prompt])
    return encoder


def _rehearse(model: Restored, *, num_frames: int, size: int) -> None:
    """Compiles what plays and draws a motion, while the projector is trained."""
    clip = model.player.play(model.player.latent(0), frame_times(num_frames or model.num_frames))
    model.player.film(clip.gaussians, model.camera(size))


def _generate(
    model: Restored, speaker: Speaker, sentences: Sentences, prompt: str, path: Path, *, num_frames: int, size: int
) -> None:
    embedding = speaker.ask(prompt)
    for cosine, motion, sentence in speaker.nearest(embedding[0], num=NUM_NEAREST):
        print(f"similarity {cosine:.2f}  {sentences.names[motion]}: {sentence}")
    count = num_frames or model.num_frames
    rate = model.frame_rate * count / model.num_frames
    label = prompt if len(prompt) <= 30 else f"{prompt[:29]}…"
    codes, camera = speaker.codes(embedding), model.camera(size)
    write_latents(model.player, codes, frame_times(count), camera, path, labels=[label], rate=rate)
    logging.info("wrote %s", path)
    print(path)


def _find_trajectories(model: Restored, codes: Sequence[np.ndarray] | np.ndarray, *, name: str) -> np.ndarray:
    """Key point trajectories [n,T,K,3] at the times of training."""
    player, times = model.player, frame_times(model.num_frames)
    key_points = player.params.key_points.positions
    decode = jax.jit(lambda z: dimo.decode_trajectories(player.components, player.params, z, key_points, times)[0])
    return np.stack([np.asarray(decode(jnp.asarray(z))) for z in track(codes, name, unit="motion")])


def trajectory_distances(trajectories: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Mean distance of corresponding key points over time: [n,T,K,3] and [N,T,K,3] -> [n,N] world units."""
    return np.stack([np.linalg.norm(each - references, axis=-1).mean(axis=(1, 2)) for each in trajectories])


def _evaluate(
    model: Restored,
    sentences: Sentences,
    codes: np.ndarray,
    answers: list[tuple[int, str, np.ndarray]],
    path: Path,
    *,
    evaluation: str,
) -> None:
    references = _find_trajectories(model, codes, name="training motions")
    found = _find_trajectories(model, [code for _, _, code in answers], name="sentences")
    distances = trajectory_distances(found, references)
    ranks = np.argsort(distances, axis=1, kind="stable")
    rows: list[dict[str, Any]] = []
    for (motion, sentence, _), order, row in zip(answers, ranks, distances):
        rows.append(
            dict(
                motion=sentences.names[motion],
                sentence=sentence,
                nearest=sentences.names[order[0]],
                right=bool(order[0] == motion),
                distance=round(float(row[motion]), 5),
                nearest_distance=round(float(row[order[0]]), 5),
            )
        )
    owners = np.asarray([motion for motion, _, _ in answers])
    share = float(np.mean(ranks[:, 0] == owners))
    among_three = float(np.mean(np.any(ranks[:, :3] == owners[:, None], axis=1)))
    for row in rows:
        if not row["right"]:
            print(f"{row['motion']}: {row['sentence']!r} became {row['nearest']}")
    summary = dict(
        evaluation=evaluation,
        num_motions=len(codes),
        num_sentences=len(rows),
        share_right=share,
        share_among_three=among_three,
        sentences=rows,
    )
    with replace_file(path) as temporary:
        temporary.write_text(encode(summary, indent=1, ensure_ascii=False), encoding="utf-8")
    print(f"right motion nearest: {share:.1%} of {len(rows)} sentences, {len(codes)} motions ({evaluation})")
    print(f"among the three nearest: {among_three:.1%}")
    print(path)
