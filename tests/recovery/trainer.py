"""Trains `tiny` again and again in forks of one process that has imported jax already, each with its own death.

Reads one JSON object a line, the keywords of `live`, and answers with the signal or exit code that ended the fork.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import tiny

from dimo_jax.training import checkpoints
from dimo_jax.training.tracker import Tracker


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_later(seconds):
    threading.Thread(target=lambda: (time.sleep(seconds), die()), daemon=True).start()


def die_while_writing(place, count):
    """Kills this process in the `count`-th checkpoint that it writes: before, within or after one of its parts."""
    written = [0]
    owner, name = {
        "state": (checkpoints.ocp.Checkpointer, "save"),
        "notes": (checkpoints, "write_json"),
        "manifest": (checkpoints.manifest, "write_manifest"),
        "folder": (checkpoints.manifest, "sync_folder"),
        "deletion": (checkpoints.shutil, "rmtree"),
    }[place]
    original = getattr(owner, name)

    def replaced(*arguments, **options):
        if threading.current_thread().name != "checkpoint":
            return original(*arguments, **options)
        written[0] += 1
        if written[0] == count:
            # Within the call: its own threads and files are under way.
            die_later(0.005)
            original(*arguments, **options)
            time.sleep(1)
        return original(*arguments, **options)

    setattr(owner, name, replaced)


def live(folder, keep, seconds_per_step, after_start, after_first_step, while_writing):
    """Trains until the end or until death: so many seconds after the start, after the first step, or in a write."""
    if after_start is not None:
        die_later(after_start)
    if while_writing is not None:
        die_while_writing(*while_writing)
    add, first = Tracker.add, [True]

    def slow_add(self, step, metrics):
        add(self, step, metrics)
        if first[0] and after_first_step is not None:
            die_later(after_first_step)
        first[0] = False
        time.sleep(seconds_per_step)

    Tracker.add = slow_add
    config = tiny.make_config()
    config.keep_checkpoints = keep
    tiny.train(Path(folder), config)


def main():
    for line in sys.stdin:
        job = json.loads(line)
        process = os.fork()
        if process == 0:
            with open(f"{job['folder']}.log", "a") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            code = 1
            try:
                live(**job)
                code = 0
            finally:
                sys.stdout.flush()
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
