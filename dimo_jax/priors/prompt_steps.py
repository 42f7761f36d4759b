"""Steps "describe", "propose" and "prompt": from a picture, or a list of captions, to motions and their sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dimo_jax.core.errors import UserError
from dimo_jax.priors import prompts
from dimo_jax.priors.manifest import Record, digest_path
from dimo_jax.priors.work import Job, Work, key_of


def find_motions(work: Work, image: np.ndarray) -> tuple[list[prompts.Motion], dict[str, str]]:
    """The motions to make videos of, and the description of the object.

    Args:
      work: with `prompts` or with a language model's endpoint.
      image: [H,W,3] uint8, what the video model starts from.

    Returns:
      At most `config.num_prompts` motions; the description is {} where the user gave the prompts.

    Raises:
      UserError: see `Work.each`; or the model does not find enough distinct motions.
    """
    if work.prompts is not None:
        given = prompts.read_prompts(work.prompts)
        return _decide(work, given, source="file"), {}
    meta, source = _describe(work, image)
    candidates: list[dict[str, str]] = []
    motions: list[prompts.Motion] = []
    for index in range(work.config["max_rounds"]):
        candidates += _propose(work, image, meta, [motion.caption for motion in motions], source, index)
        motions = _decide(work, candidates, source=source)
        if len(motions) >= work.config["num_prompts"]:
            return motions, meta
    raise UserError(
        f"config.num_prompts: {work.config['max_rounds']} rounds gave {len(motions)} distinct motions, expected "
        f"{work.config['num_prompts']}; try more config.max_rounds, a lower config.num_prompts, or another model"
    )


def _describe(work: Work, image: np.ndarray) -> tuple[dict[str, str], str]:
    """The description, and its key."""
    model = work.config["client"]["model"]
    key = key_of(image=digest_path(work.image), model=model, describe=work.options("describe"))

    def make() -> tuple[dict[str, Any], tuple[str, ...]]:
        return {"model": model, "meta": work.slot("describe")(work.endpoint, image)}, ()

    return dict(work.each("describe", [Job("image", key, make)])["image"]["meta"]), key


def _propose(
    work: Work, image: np.ndarray, meta: Mapping[str, str], known: Sequence[str], source: str, index: int
) -> list[dict[str, str]]:
    """One round: candidates as the model gave them."""
    model, count = work.config["client"]["model"], work.config["round_size"]
    item = f"round_{index:02d}"

    def make() -> tuple[dict[str, Any], tuple[str, ...]]:
        found = work.slot("propose")(work.endpoint, image, meta, known, count=count)
        return {"model": model, "motions": found}, ()

    key = key_of(source=source, model=model, propose=work.options("propose"), count=count, index=index)
    return list(work.each("propose", [Job(item, key, make)])[item]["motions"])


def _decide(work: Work, candidates: Sequence[Mapping[str, str]], *, source: str) -> list[prompts.Motion]:
    """Keeps or drops each candidate. An earlier one's fate does not depend on later ones."""
    names: list[str] = []
    for candidate in candidates:
        names.append(prompts.name_motion(candidate["caption"], names))
    options = {name: work.options(name) for name in ("deduplicate", "embed")} if source != "file" else {}
    limit = work.config["num_prompts"] if source != "file" else len(candidates)
    keys = [
        key_of(source=source, name=name, limit=limit, **candidate, **options)
        for name, candidate in zip(names, candidates)
    ]
    records = [work.manifest.find("prompt", name, key) for name, key in zip(names, keys)]
    if None in records:
        decisions = _find_reasons(work, [candidate["caption"] for candidate in candidates], source, limit)
        for index, (record, reason) in enumerate(zip(records, decisions)):
            if record is None:
                fields: dict[str, Any] = {**candidates[index], "decision": "drop" if reason else "keep"}
                records[index] = work.manifest.done("prompt", names[index], keys[index], reason=reason, **fields)
    found: list[Record] = [record for record in records if record is not None]
    return prompts.motions_of(found)


def _find_reasons(work: Work, captions: Sequence[str], source: str, limit: int) -> list[str]:
    """Per caption why it is dropped, "" where it is kept."""
    if source == "file":
        return prompts.find_repeated(captions)
    reasons: list[str] = work.slot("deduplicate")(captions, embed=work.slot("embed"))
    kept = 0
    for index, reason in enumerate(reasons):
        if not reason and kept >= limit:
            reasons[index] = f"there are {limit} already"
        kept += not reasons[index]
    return reasons
