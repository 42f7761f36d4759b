"""Runs an app of dimo_jax: `python launch.py --config=configs/dimo.py` trains; `--app=` chooses another."""

import importlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from dimo_jax.cli import command_line
from dimo_jax.cli import flags as app_flags
from dimo_jax.cli.flag_checks import check_flags
from dimo_jax.cli.parameters import parameters_of
from dimo_jax.core.errors import NO_ROOM, Stopped, UserError, WriteFailed
from dimo_jax.runtime.caches import keep_compiled_programs
from dimo_jax.runtime.compiler import leave_reductions_to_xla
from dimo_jax.runtime.hosts import ending_together
from dimo_jax.runtime.memory import keep_freed_memory
from dimo_jax.runtime.progress import log_above_bars
from dimo_jax.runtime.signals import leave

CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, e.g. configs/dimo.py or configs/dimo.py:paper")
WORKDIR = flags.DEFINE_string("workdir", "runs/dimo", "Folder of the run: checkpoints, metrics, pictures, report")
APP = flags.DEFINE_enum("app", "train", sorted(app_flags.APPS), "What to run")
command_line.define_early_flags()
app_flags.define_flags()
for module in (app_flags, command_line):
    flags.adopt_module_key_flags(module)  # else --help lists the three above alone


def main(argv: list[str]) -> None:
    """Runs the app; `parse_flags` has already joined the other hosts where asked for."""
    if len(argv) > 1:
        raise UserError(f"command line: found {argv[1]!r}, expected only --flags")
    options = app_flags.options_of(parameters_of(app_flags.APPS[APP.value]), config=CONFIG.value, workdir=WORKDIR.value)
    check_flags(APP.value, options)  # before the import, which takes seconds
    importlib.import_module(app_flags.APPS[APP.value]).run(**options)


if __name__ == "__main__":
    keep_freed_memory()
    keep_compiled_programs()
    leave_reductions_to_xla()
    logging.set_verbosity(logging.INFO)
    log_above_bars()
    logging.get_absl_handler().addFilter(lambda record: record.levelno > 20 or "dimo_jax" in record.pathname)
    try:
        with ending_together():
            app.run(main, flags_parser=command_line.parse_flags)
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
