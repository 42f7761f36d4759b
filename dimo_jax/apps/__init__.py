"""The commands behind `launch.py --app=`: each is a module with one function `run`, whose keywords are its flags."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from absl import flags

from dimo_jax.errors import UserError

APPS = {
    "train": "dimo_jax.apps.train",
    "sample": "dimo_jax.apps.sample",
    "import_data": "dimo_jax.apps.import_data",
}


def define_flags() -> None:
    """Flags of single apps; one that an app does not take is refused when it runs."""
    flags.DEFINE_string("source", None, "import_data: file to import (.glb, .gltf)")
    flags.DEFINE_string("out", None, "import_data: folder to write; sample: folder for videos")
    flags.DEFINE_string("clips", None, "import_data: clips by name or pattern, separated by commas")
    flags.DEFINE_string("hide", None, "import_data: nodes to leave out, by name or pattern, separated by commas")
    flags.DEFINE_string("root_motion", None, "import_data: keep or remove the figure's travel")
    flags.DEFINE_integer("num_frames", None, "import_data, sample: frames of every video")
    flags.DEFINE_integer("size", None, "import_data, sample: side of the pictures in pixels")
    flags.DEFINE_integer("num_samples", None, "sample: how many motions to draw")
    flags.DEFINE_integer("seed", None, "sample: random seed")


def options_of(run: Callable[..., Any], **common: Any) -> dict[str, Any]:
    """Keyword arguments for an app: those of `common` that it takes, and the flags that the user set.

    Raises:
      UserError: a flag was given that the app does not take, or one that it needs is missing.
    """
    parameters = inspect.signature(run).parameters
    options = {name: value for name, value in common.items() if name in parameters}
    for flag in flags.FLAGS.flags_by_module_dict().get(__name__, []):
        if flag.value is None:
            continue
        if flag.name not in parameters:
            raise UserError(f"--{flag.name}: not a flag of this app (it takes: {', '.join(parameters)})")
        options[flag.name] = flag.value
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and options.get(name) is None:
            raise UserError(f"--{name}: not given, this app needs it")
    return options
