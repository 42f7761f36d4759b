"""Runs the chain again and again, each time in a fork that is killed at its first new line of the manifest.

Lines are killed by turns just before they are written (the work is done, and not yet written down) and just after.
Called as: interrupted.py FOLDER URL, prints the number of forks.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import openai  # noqa: F401 (imported once, before the forks)
import stand_ins

from dimo_jax.priors.chain import run_chain
from dimo_jax.priors.manifest import Manifest

append = Manifest._append


def kill_at_first_line(before):
    def dying(self, record):
        if not before:
            append(self, record)
        os.kill(os.getpid(), signal.SIGKILL)

    return dying


def run_in_fork(folder, url, dying):
    process = os.fork()
    if process == 0:
        code = 1
        try:
            if dying is not None:
                Manifest._append = dying
            config = stand_ins.small_config(url, folder / "checkout", calls=str(folder / "calls.txt"))
            run_chain(config, image=folder / "ball.png", out=folder / "out", prompts=None)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main(folder, url):
    stand_ins.write_checkout(folder / "checkout")
    stand_ins.write_photo(folder / "ball.png")
    assert run_in_fork(folder, url, None) == 0
    (folder / "out").rename(folder / "unbroken")
    (folder / "calls.txt").unlink()
    lines = len((folder / "unbroken/manifest.jsonl").read_text().splitlines())
    forks, path = 0, folder / "out/manifest.jsonl"
    for line in range(lines):
        if line % 2 == 0:  # the line's work is done, then repeated by the next fork
            assert run_in_fork(folder, url, kill_at_first_line(before=True)) == -signal.SIGKILL
            assert len(path.read_text().splitlines()) == line
        assert run_in_fork(folder, url, kill_at_first_line(before=False)) == -signal.SIGKILL
        assert len(path.read_text().splitlines()) == line + 1
        forks += 1
    assert run_in_fork(folder, url, kill_at_first_line(before=True)) == 0, "a finished run does nothing"
    shutil.rmtree(folder / "out/logs")
    print(forks)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
