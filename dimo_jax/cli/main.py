"""Runs an app: what `launch.py` and the console script `dimo-jax` do."""

from __future__ import annotations

import importlib
import os
import sys

from absl import app, flags, logging

from dimo_jax.cli.command_line import parse_flags
from dimo_jax.cli.flag_checks import check_flags
from dimo_jax.cli.flags import options_of
from dimo_jax.cli.parameters import read_app
from dimo_jax.core.errors import NO_ROOM, Stopped, UserError, WriteFailed
from dimo_jax.runtime.caches import keep_compiled_programs
from dimo_jax.runtime.compiler import leave_reductions_to_xla
from dimo_jax.runtime.hosts import ending_together
from dimo_jax.runtime.memory import keep_freed_memory
from dimo_jax.runtime.progress import log_above_bars
from dimo_jax.runtime.signals import leave


def main() -> None:
    """Runs the app that `sys.argv` asks for; what ends it is said in one line and by the exit code.

    Raises:
      SystemExit: 0 after help, 2 for bad input, 4 where the disk takes no more, 75 where a signal stopped a run that
        goes on, 130 where one interrupted something else.
    """
    _add_working_folder()
    keep_freed_memory()
    keep_compiled_programs()
    leave_reductions_to_xla()
    logging.set_verbosity(logging.INFO)
    log_above_bars()
    logging.get_absl_handler().addFilter(lambda record: record.levelno > 20 or "dimo_jax" in record.pathname)
    try:
        with ending_together():
            app.run(_run_app, flags_parser=parse_flags)
    except (UserError, Stopped) as error:
        print(f"{error.label}: {' '.join(str(error).splitlines())}", file=sys.stderr)
        leave(error.exit_code, error)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        print(f"error: {error.filename or 'a file'}: cannot be written ({error.strerror})", file=sys.stderr)
        sys.exit(WriteFailed.exit_code)
    except KeyboardInterrupt as error:
        print("stopped: interrupted; files appear as a whole or not at all", file=sys.stderr)
        leave(130, error)


def _run_app(argv: list[str]) -> None:
    """Runs the app; `parse_flags` has already joined the other hosts where asked for."""
    if len(argv) > 1:
        raise UserError(f"command line: found {argv[1]!r}, expected only --flags")
    name: str = flags.FLAGS.app
    options = options_of(read_app(name))
    check_flags(name, options)  # before the import, which takes seconds
    importlib.import_module(f"dimo_jax.apps.{name}").run(**options)


def _add_working_folder() -> None:
    """Finds `configs` and a user's own components in the working folder, from which `launch.py` is run in a checkout.

    Behind all others, so that no file there stands in for an installed module.
    """
    sys.path.append(os.getcwd())
