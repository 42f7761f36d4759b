"""Training the objects of a list: what is read, what is run, and how failures are told."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dimo_jax.apps import train
from dimo_jax.core.errors import UserError
from dimo_jax.runs import objects
from dimo_jax.runs.objects import Item, command_for, read_list, take_shard, train_objects
from dimo_jax.runtime.lock import hold

# Stands for launch.py: an object named "bad..." fails, "killed" dies, the others write a summary.
TRAINER = """
import os, pathlib, signal, sys, time
workdir = pathlib.Path(next(a for a in sys.argv if a.startswith("--workdir=")).partition("=")[2])
data = next(a for a in sys.argv if a.startswith("--config.data.path=")).partition("=")[2]
print("training", data, "with", sys.argv[1])
if workdir.name.startswith("bad"):
    print("error: no such folder, expected another", file=sys.stderr)
    sys.exit(2)
if workdir.name == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if workdir.name == "slow":
    def end(number, _):
        print("saved after", signal.Signals(number).name, flush=True)
        sys.exit(75)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    print("at work", os.getpid(), flush=True)
    time.sleep(60)
workdir.mkdir()
(workdir / "summary.json").write_text("{}")
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A list of four objects, and a trainer in launch.py's place."""
    (tmp_path / "trainer.py").write_text(TRAINER)
    (tmp_path / "list.txt").write_text("data/fox  # red\n\ndata/x bad\n'data/a b' killed\ndata/owl/\n")
    arguments = ["--config=c.py:paper", "--object_list", "list.txt", "--shard=0/1", "--workdir=elsewhere"]
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "trainer.py"), *arguments])
    return tmp_path


def test_lists_are_read_and_shared_out(place):
    items = read_list(str(place / "list.txt"))
    assert items == [
        Item("fox", "data/fox"),
        Item("bad", "data/x"),
        Item("killed", "data/a b"),
        Item("owl", "data/owl/"),
    ]
    shares = [take_shard(items, f"{index}/3") for index in range(3)]
    assert [item.name for item in shares[0]] == ["fox", "owl"]
    assert sorted(item.name for share in shares for item in share) == sorted(item.name for item in items)
    assert take_shard(items, "") == items
    assert take_shard(items, "7/8") == []


@pytest.mark.parametrize("shard", ["1", "3/3", "-1/3", "a/b", "1/0", "1/2/3"])
def test_bad_shares_are_refused(shard):
    with pytest.raises(UserError, match=r"--shard: found .*, expected I/N"):
        take_shard([Item("a", "a")], shard)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# nothing\n", "found no object"),
        ("data/a\nother/a\n", r"list\.txt:2: found the name 'a' twice"),
        ("data/a ../b\n", r"list\.txt:1: found .* expected a dataset folder and a name"),
        ("data/a b c\n", r"list\.txt:1: found"),
        ("'data/a\n", r"list\.txt:1: No closing quotation"),
    ],
)
def test_bad_lists_are_refused(tmp_path, text, says):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError, match=says):
        read_list(str(tmp_path / "list.txt"))


def test_a_missing_list_and_a_share_of_none_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"--object_list=.*: cannot be read"):
        read_list(str(tmp_path / "none.txt"))
    with pytest.raises(UserError, match="--shard: found without --object_list"):
        train.run(config=None, workdir=str(tmp_path), shard="0/2")


def test_the_command_is_this_one_with_the_objects_data_and_folder():
    argv = [
        "launch.py",
        "--config=c.py",
        "--workdir",
        "runs",
        "--object_list=list.txt",
        "--config.seed",
        "3",
        "--shard=0/2",
    ]
    command = command_for(argv, Item("fox", "data/red fox"), Path("runs"))
    expected = ["--config=c.py", "--config.seed", "3", "--config.data.path=data/red fox", "--workdir=runs/fox"]
    assert command == [sys.executable, "launch.py", *expected]


def test_every_object_is_tried_and_failures_are_listed_at_the_end(place, capsys):
    workdir = place / "runs"
    with pytest.raises(SystemExit) as ended:
        train_objects(str(place / "list.txt"), "", str(workdir))
    assert ended.value.code == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"2 of 4 objects are trained in {workdir}"
    assert printed[1].startswith("failed: bad: no such folder, expected another (")
    assert printed[2].startswith("failed: killed: killed by SIGKILL (")
    assert "training data/fox with --config=c.py:paper" in (workdir / "logs" / "fox.log").read_text()
    assert json.loads((workdir / "owl" / "summary.json").read_text()) == {}


def test_finished_objects_are_passed_by_and_the_others_tried_again(place, monkeypatch, capsys):
    workdir, tried = place / "runs", []
    for name in ("fox", "killed"):
        (workdir / name).mkdir(parents=True)
        (workdir / name / "summary.json").write_text("{}")
    monkeypatch.setattr(objects, "_run", lambda command, _: tried.append(command[-1]) or 0)
    train_objects(str(place / "list.txt"), "", str(workdir))
    assert tried == [f"--workdir={workdir / name}" for name in ("bad", "owl")]
    assert capsys.readouterr().out.startswith("4 of 4 objects")


def test_an_error_of_an_earlier_attempt_is_not_the_reason_now(tmp_path):
    (tmp_path / "fox.log").write_text("error: no such folder\n")
    command = [sys.executable, "-c", "raise ZeroDivisionError('now')"]
    assert objects._train(command, tmp_path / "fox", tmp_path / "fox.log") == "ZeroDivisionError: now"


def test_a_workdir_that_is_a_file_is_refused(place):
    (place / "runs").write_text("")
    with pytest.raises(UserError, match=r"--workdir=.*runs: found a file, expected a folder"):
        train.run(config=None, workdir=str(place / "runs"), object_list=str(place / "list.txt"))


@pytest.fixture
def slow(place):
    """A process that trains a list whose one object takes a minute; gives it, the object's log and process id."""
    (place / "list.txt").write_text("data/x slow\n")
    code = (
        f"import sys; sys.argv = [{str(place / 'trainer.py')!r}, '--config=c.py']\n"
        "from dimo_jax.runs.objects import train_objects\n"
        "from dimo_jax.core.errors import Stopped\n"
        "try:\n    train_objects('list.txt', '', 'runs')\n"
        "except Stopped as error:\n    print(error, flush=True)\n    sys.exit(error.exit_code)\n"
    )
    environment = os.environ | dict(PYTHONPATH=str(Path(__file__).resolve().parents[2]), JAX_PLATFORMS="cpu")
    log = place / "runs" / "logs" / "slow.log"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=place, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        wait_for(lambda: log.exists() and "at work" in log.read_text())
        yield process, log
        process.kill()


def wait_for(condition, *, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_object_in_training_and_then_the_list(slow, number):
    process, log = slow
    process.send_signal(number)
    printed, _ = process.communicate(timeout=30)
    assert process.returncode == 75
    assert printed.startswith(f"{number.name}; the same command goes on")
    assert f"saved after {number.name}" in log.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_a_list_that_is_killed_leaves_no_training_behind(slow):
    process, log = slow
    process.kill()
    wait_for(lambda: "saved after SIGTERM" in log.read_text(), seconds=10)


def test_an_object_is_waited_for_that_is_still_saving(place, monkeypatch):
    (place / "list.txt").write_text("data/fox\n")
    (place / "runs" / "fox").mkdir(parents=True)
    monkeypatch.setattr(objects, "_run", lambda command, log: (place / "runs" / "began").touch() or 0)
    with hold(place / "runs" / "fox"):
        thread = threading.Thread(target=train_objects, args=(str(place / "list.txt"), "", str(place / "runs")))
        thread.start()
        time.sleep(1.0)
        assert not (place / "runs" / "began").exists()
    thread.join(timeout=10)
    assert (place / "runs" / "began").exists()


def test_a_long_line_is_quoted_in_part(tmp_path):
    (tmp_path / "list.txt").write_text("a b " + "x" * 5000)
    with pytest.raises(UserError, match=r"list\.txt:1: found 'a b x*', expected") as caught:
        read_list(str(tmp_path / "list.txt"))
    assert len(str(caught.value)) < 400
