"""Progress: bars on a terminal, below what is logged; lines now and then elsewhere; times left without compilation."""

import ast
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from dimo_jax.runtime import progress
from dimo_jax.runtime.progress import SECONDS_PER_LINE, Pace, Progress, track

ROOT = Path(__file__).resolve().parents[1]


class Clock:
    """Seconds that only a test lets pass."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_the_pace_leaves_out_compilation_and_what_a_device_takes_ahead():
    clock = Clock()
    pace = Pace(ahead=2, clock=clock)
    with pace.pause():
        clock.now += 600.0
    for _ in range(3):  # the compiled one, and two that are only handed over
        pace.add()
    assert pace.rate() == 0.0
    for _ in range(5):
        clock.now += 0.5
        pace.add()
    assert pace.rate() == pytest.approx(2.0)
    with pace.pause():
        clock.now += 60.0
    assert pace.rate() == 0.0  # what follows may have another speed
    for _ in range(3):
        pace.add()
    for _ in range(4):
        clock.now += 2.0
        pace.add()
    assert pace.rate() == pytest.approx(0.5)
    assert (pace.take_paused(), pace.take_paused()) == (660.0, 0.0)


def test_the_pace_is_that_of_the_last_minute():
    clock = Clock()
    pace = Pace(clock=clock)
    for seconds in [40.0] * 10 + [1.0] * 70:
        clock.now += seconds
        pace.add()
    assert pace.rate() == pytest.approx(1.0, rel=0.02)


def test_a_first_item_that_takes_long_says_nothing_of_the_others():
    clock = Clock()
    pace = Pace(clock=clock)
    clock.now += 300.0
    pace.add()
    assert pace.rate() == 0.0
    clock.now += 1.0
    pace.add()
    assert pace.rate() == pytest.approx(1.0)


def test_a_log_gets_a_line_now_and_then(caplog, capsys, informed):
    clock = Clock()
    with Progress(40, "rendering", unit="motion", clock=clock) as shown:
        for _ in range(40):
            clock.now += 2.0
            shown.update()
    lines = [record.message for record in caplog.records]
    assert lines == [
        "rendering: 15 of 40 motions, 50 s left",
        "rendering: 30 of 40 motions, 20 s left",
        "rendering: 40 motions done in 80 s",
    ]
    assert capsys.readouterr().out == ""


def test_short_work_and_work_that_others_tell_of_say_nothing(caplog, capsys, informed):
    assert list(track([1, 2, 3], "measuring", unit="motion")) == [1, 2, 3]
    clock = Clock()
    with Progress(2, "stage1", unit="step", lines=False, clock=clock) as shown:
        clock.now += 10 * SECONDS_PER_LINE
        shown.update()
    assert not caplog.records
    assert capsys.readouterr() == ("", "")


SCRIPT = """
import sys, time, warnings
from absl import app, logging
from dimo_jax.runtime import progress

def main(_):
    logging.set_verbosity(logging.INFO)
    progress.log_above_bars()
    with progress.Progress(6, "stage1", unit="step", delay=0.0, leave=True) as shown:
        for index in range(6):
            time.sleep(0.3)
            shown.update()
            shown.tell(loss=f"{index}.5")
            if index == 2:
                logging.info("more capacity")
                warnings.warn("looks odd")
    for _ in progress.track(range(3), "quick", unit="item"):
        logging.warning("before a bar has appeared")
    print("report: here", flush=True)

app.run(main)
"""


def run_in_terminal(script):
    """What a terminal of 100 columns shows of a script's two outputs in the end, line by line."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=slave, stderr=slave, cwd=ROOT)
    os.close(slave)
    written = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # how Linux tells that the other end is closed
            break
        if not part:
            break
        written += part
    os.close(master)
    assert process.wait() == 0
    return [show_line(line) for line in written.decode().replace("\r\n", "\n").split("\n")]


def show_line(text):
    """A line of a terminal after all its carriage returns."""
    shown = []
    for part in re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).split("\r"):
        shown[: len(part)] = part
    return "".join(shown).rstrip()


def test_lines_of_the_log_stand_above_the_bar():
    lines = run_in_terminal(SCRIPT)
    logged = [line for line in lines if re.match(r"[IW]\d{4} ", line)]
    assert [re.sub(r".*?\] ", "", line, count=1) for line in logged[:1]] == ["more capacity"]
    assert "looks odd" in logged[1]
    assert sum("before a bar has appeared" in line for line in logged) == 3
    bars = [line for line in lines if "|" in line]
    assert len(bars) == 1, lines  # nothing is left of the bar where the lines were written
    assert re.match(r"stage1: 100%\|.*\| 6/6 \[00:01<00:00, .*loss=", bars[0])
    assert lines[-2:] == ["report: here", ""]


def test_no_other_module_makes_bars():
    """A bar made elsewhere would fill redirected logs again."""
    for path in (ROOT / "dimo_jax").rglob("*.py"):
        if path == Path(progress.__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", []) if isinstance(node, ast.Import)]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] == "tqdm"], path
