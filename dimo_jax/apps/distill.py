"""`--app=distill`: from one picture to a dataset of many motions (paper Sec. 3.1)."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from dimo_jax.configs.distill import get_config
from dimo_jax.core.errors import UserError
from dimo_jax.core.flag_values import check_folder
from dimo_jax.priors.chain import find_missing, run_chain
from dimo_jax.priors.manifest import FILE
from dimo_jax.priors.plan import describe_plan
from dimo_jax.priors.prompts import read_prompts
from dimo_jax.priors.video_steps import read_image


def run(*, image: str, out: str, config: ConfigDict | None = None, prompts: str = "", dry_run: bool = False) -> None:
    """Makes a dataset of one picture: prompts, videos, filters, framing, novel views.

    Stopped at any time, the same command goes on.

    Args:
      image: the picture of the object: on white, with alpha, or any where `config.mask` has a function that finds it.
      out: the folder to work in; the dataset is `out`/dataset, what was done `out`/manifest.jsonl.
      config: which models are asked and how; default: configs/distill.py.
      prompts: text file with one motion a line, instead of a language model's.
      dry_run: only prints what would be done, what it costs, and what is missing.

    Example:
      python launch.py --app=distill --image=photo.png --out=data/thing --dry_run

    Raises:
      UserError: bad flags, something missing, or a step that failed; the manifest says what.
    """
    options = (config or load_default()).to_dict()
    if "views" not in options or "client" not in options:
        raise UserError("--config: found a config without views and client, expected one such as configs/distill.py")
    read_image(image)
    check_folder(out, "out")
    target, given = Path(out), Path(prompts) if prompts else None
    num_prompts = options["num_prompts"] if given is None else len(read_prompts(given))
    if target.is_dir() and any(target.iterdir()) and not (target / FILE).is_file():
        raise UserError(f"--out={out}: found a folder with other files, expected a new one or one of an earlier run")
    if dry_run:
        for line in describe_plan(options, image=image, out=out, prompts=prompts, num_prompts=num_prompts):
            print(line)
        for line in find_missing(options, prompts=given):
            print(f"missing: {line}")
        return
    dataset = run_chain(options, image=Path(image), out=target, prompts=given)
    print(f"wrote {dataset}; what was done: {target / FILE}, which videos and why: {target / 'contact_sheet.png'}")
    print(f"train on it: python launch.py --config=configs/dimo.py --config.data.path={dataset}")


def load_default() -> ConfigDict:
    """The config of configs/distill.py, as it comes with the package."""
    config: ConfigDict = get_config()
    return config
