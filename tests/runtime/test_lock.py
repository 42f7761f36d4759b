"""One run at a time in a folder."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from dimo_jax.core.errors import UserError
from dimo_jax.runtime.lock import LOCK_FILE, check_free, find_owner, hold

HOLDER = """
import sys, time
from pathlib import Path
from dimo_jax.runtime.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_second_run_is_refused_with_host_and_process(tmp_path):
    with hold(tmp_path) as held:
        assert held.before is None
        says = f"in use by process {os.getpid()} on {socket.gethostname()}, since .*; .*expected a folder in which"
        with pytest.raises(UserError, match=says), hold(tmp_path):
            pass
        with pytest.raises(UserError, match=says):
            check_free(tmp_path)
        assert find_owner(tmp_path).alive
    assert find_owner(tmp_path) is None
    check_free(tmp_path)
    with hold(tmp_path) as held:
        assert held.before is None


def test_lock_of_a_killed_process_is_free_and_names_it(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"in use by process {process.pid} on"):
            check_free(tmp_path)
        process.send_signal(signal.SIGKILL)
    check_free(tmp_path)
    with hold(tmp_path) as held:
        assert (held.before.pid, held.before.alive) == (process.pid, False)
    assert find_owner(tmp_path) is None


def test_looking_writes_nothing(tmp_path):
    check_free(tmp_path)
    check_free(tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / LOCK_FILE).mkdir()
    with pytest.raises(UserError, match=r"\.lock: cannot be written .*, expected a folder to write to"), hold(tmp_path):
        pass
