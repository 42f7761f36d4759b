"""Runs `launch.py` again and again for tests, each time in a fork of one process that has imported jax already.

Reads one JSON object a line, the keywords of `launch`, and answers each with the exit code. A fork ends as
`python launch.py` would: exit handlers run, an uncaught exception prints its traceback and gives code 1.
"""

import importlib
import json
import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRELOADED = ("dimo_jax.apps.train", "dimo_jax.apps.sample", "dimo_jax.apps.import_data", "ml_collections.config_flags")


def launch(arguments, folder, variables, out, err):
    """Becomes `python launch.py ARGUMENTS` in a folder, with its output in two files; does not return."""
    for path, descriptor in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
    os.chdir(folder)
    os.environ.update(variables)
    sys.argv = ["launch.py", *arguments]
    runpy.run_path(str(ROOT / "launch.py"), run_name="__main__")
    sys.exit(0)


def serve():
    """Answers until standard input ends."""
    sys.path[0] = str(ROOT)
    for name in PRELOADED:
        importlib.import_module(name)
    bridge = importlib.import_module("jax._src.xla_bridge")
    assert not bridge._backends, "an import has started a device, whose threads would not survive a fork"
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            launch(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
