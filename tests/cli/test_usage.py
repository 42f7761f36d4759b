"""Help: what is printed, with which exit code, and how soon."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from dimo_jax.cli.command_line import parse_flags
from dimo_jax.cli.parameters import REQUIRED, list_apps, read_app
from dimo_jax.cli.usage import describe_app, describe_apps
from dimo_jax.core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
ENTRY = re.search(r'"dimo-jax = (\S+):(\w+)"', (ROOT / "setup.py").read_text())


@pytest.mark.parametrize("name", list_apps())
def test_help_of_an_app(name):
    text, app = describe_app(name, width=100), read_app(name)
    assert text.startswith(f"python launch.py --app={name}: ")
    flat = " ".join(text.split())
    assert " ".join(app.about.split()) in flat
    for parameter in app.parameters.values():
        head = re.search(rf"^  --(\[no\])?{parameter.name}\b.*$", text, flags=re.MULTILINE).group()
        assert " ".join(parameter.doc.split()) in flat
        assert (parameter.kind == "bool") == ("[no]" in head)
        for choice in parameter.choices:
            assert str(choice) in head
        if parameter.default is REQUIRED:
            assert head.endswith("(default: runs/dimo)" if parameter.name == "workdir" else "(needed)")
        elif parameter.default:
            assert head.endswith(f"(default: {str(parameter.default).lower()})")
    for line in app.example.splitlines():
        assert f"  {line}" in text
    assert ("--coordinator" in text) == (name == "train")
    assert ("--config.KEY=VALUE" in text) == ("config" in app.parameters)
    assert max(len(line) for line in text.partition("\nexample:")[0].splitlines()) <= 100


def test_list_of_apps():
    text = describe_apps(width=100)
    for name in list_apps():
        assert re.search(rf"^  {name} +\w.*$", text, flags=re.MULTILINE)
    assert "--app=NAME --help" in text
    assert "--config=configs/dimo.py" in text


def test_examples_name_the_program_that_was_started(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/dimo-jax", "--help"])
    text = describe_app("export") + describe_apps()
    assert "dimo-jax --app=export --workdir=" in text
    assert "launch.py" not in text


def start(program, *arguments, folder=ROOT):
    """Runs launch.py, or the console script as its entry point says, in a process that cannot import jax."""
    script = f"import sys; sys.argv[0] = 'dimo-jax'; from {ENTRY[1]} import {ENTRY[2]}; sys.exit({ENTRY[2]}())"
    command = [sys.executable, *([str(ROOT / "launch.py")] if program == "launch.py" else ["-c", script])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder / "none"), str(ROOT)])}
    return subprocess.run(
        [*command, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def without_jax(tmp_path):
    """A folder in which importing jax or numpy ends the process."""
    (tmp_path / "none").mkdir()
    for name in ("jax", "numpy"):
        (tmp_path / f"none/{name}.py").write_text(f"raise SystemExit('{name} was loaded')")
    return tmp_path


@pytest.mark.parametrize(
    ("program", "arguments", "code", "out", "err"),
    [
        ("launch.py", ["--help"], 0, "\napps:\n", ""),
        ("dimo-jax", ["--app=export", "--help"], 0, "  dimo-jax --app=export --workdir=", ""),
        ("launch.py", [], 2, "", "\napps:\n"),  # nothing was done, which a batch script shall notice
        ("dimo-jax", ["--app=view", "--prot=1"], 2, "", "error: --prot: no such flag, did you mean --port?"),
    ],
)
def test_exit_codes_without_jax(program, arguments, code, out, err, without_jax):
    done = start(program, *arguments, folder=without_jax)
    assert (done.returncode, bool(done.stdout), bool(done.stderr)) == (code, bool(out), bool(err)), done
    assert out in done.stdout
    assert err in done.stderr
    assert not err.startswith("error") or len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "shows"),
    [
        (["-h", "--config=nope.py"], "\napps:\n"),
        (["--workdir", "run", "--app", "status", "--help"], "\nflags of status:\n"),
        (["--helpshort", "--app=train", "--nope"], "\nflags of train:\n"),
    ],
)
def test_help_is_asked_for_in_many_ways(arguments, shows, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_flags(["launch.py", *arguments], flags.FlagValues())
    assert ended.value.code == 0
    assert shows in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--app=exprot", "--help"], "--app: found 'exprot', expected one of animate, articulate"),
        (["--app=exprot"], "; did you mean 'export'?"),
        (["--config", "configs/dimo.py", "--app", "exprot"], "; did you mean 'export'?"),
        (["--app"], "command line: Missing value for flag --app"),
        (["--num_processes=two"], "--num_processes: found 'two', expected an integer"),
        (["--ap=view"], "--ap: no such flag, did you mean --app?"),
        (["--app=view", "--nope"], "--nope: no such flag, expected one of those that --app=view --help lists"),
        (
            ["--app=interpolate", "--motion=a,b"],
            "--motion: found a flag of animate, articulate, export, reconstruct that --app=interpolate",
        ),
        (["--app=interpolate", "--motion=a,b"], "; did you mean --motions?"),
        (["--app=view", "--noloop"], "--noloop: found a flag of animate, import_data that --app=view does not take"),
        (["--app=sample", "--prior=Standart"], "one of data, standard; did you mean 'standard'?"),
        (["--app=export", "--influences=5"], "--influences: found '5', expected one of 0, 4, 8"),
        (["--app=sample", "--overwrite=perhaps"], "--overwrite: found 'perhaps', expected true or false"),
        (["--app=sample", "--config.seed=3"], "that --app=sample does not take"),
        (["--config.seed=3"], "--config.seed: no --config=FILE stands before it"),
    ],
)
def test_mistakes_are_said_with_what_is_near(arguments, says):
    with pytest.raises(UserError) as error:
        parse_flags(["launch.py", *arguments], flags.FlagValues())
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_help_takes_less_than_half_a_second_of_processor_time():
    code = "import resource, runpy, sys\nsys.argv = ['launch.py', '--app=export', '--help']\n"
    code += "try:\n    runpy.run_path('launch.py', run_name='__main__')\n"
    code += "finally:\n    used = resource.getrusage(resource.RUSAGE_SELF)\n"
    code += "    print('took', used.ru_utime + used.ru_stime)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.rpartition("took ")[2]) < 0.5


def test_the_console_script_finds_configs_and_components_of_the_working_folder(tmp_path):
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab/base.py").write_text("START = 'nothing'\n")
    (tmp_path / "mylab/own.py").write_text("from mylab import base\n\n\ndef get_config():\n    return base.START\n")
    done = start("dimo-jax", "--config=mylab/own.py", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: --config=mylab/own.py: found str from get_config, expected a ConfigDict\n"
