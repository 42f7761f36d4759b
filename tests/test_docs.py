"""The Python snippets of README and docs run, their commands can be typed, and the files they link to exist."""

import dataclasses
import re
import runpy
import shlex
from pathlib import Path

import pytest
from absl import flags

from dimo_jax.cli.command_line import find_missing_key
from dimo_jax.cli.flags import APP, HOSTS, define
from dimo_jax.cli.parameters import list_apps, read_app
from dimo_jax.configs.dimo import get_config
from dimo_jax.data.puppet.dataset import choose_motions
from dimo_jax.io.gltf.scene import load_scene

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = [
    pytest.param(code, id=f"{page.stem}-{i}")
    for page in PAGES
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.S))
]


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippet_runs(code, tmp_path, monkeypatch):
    assert code.strip()
    monkeypatch.chdir(tmp_path)  # some write files
    exec(compile(code, "snippet", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = [x for x in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if not x.startswith("http")]
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_method_names_files_and_functions_that_exist():
    text = (ROOT / "docs" / "method.md").read_text()
    names = re.findall(
        r"`((?:skinning|losses|training|systems/\w+|render|runs|networks|apps|geometry|core)/\w+\.py)(?::(\w+))?`", text
    )
    assert len(names) > 10
    for path, function in names:
        source = (ROOT / "dimo_jax" / path).read_text()
        assert not function or re.search(rf"^(def|class) {function}\b", source, flags=re.M), f"{path}:{function}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_change_a_config_name_it(page):
    """launch.py refuses --config.key=value without --config=FILE before it."""
    text = page.read_text().replace("\\\n", " ")
    commands = re.findall(r"^(?:time )?python launch\.py .*--config\..*$", text, flags=re.MULTILINE)
    assert [line for line in commands if not re.search(r" --config=\S+ .*--config\.", line)] == []


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line of `launch.py` in a page."""

    page: str
    flags: tuple[str, ...]

    def value(self, name, default=""):
        """Of a flag; the last one counts."""
        return next((x.partition("=")[2] for x in reversed(self.flags) if x.split("=")[0] == f"--{name}"), default)

    @property
    def app(self):
        return self.value("app", "train")

    @property
    def workdir(self):
        return self.value("workdir", "runs/dimo")


def find_commands(page, text):
    """All commands that a page tells to type, in code blocks and between backticks, in their order."""
    # A backslash continues a line (two in a docstring's source), as does a flag at the beginning of one in YAML.
    text = re.sub(r"\\{1,2}\n\s*|\n\s+(?=--)", " ", text)
    lines = re.findall(r"(?:python launch\.py|\bdimo-jax)((?: +--[^`\n]*)?)", text)
    commands = []
    for line in lines:
        line = re.split(r"\s#|\s&", line)[0]  # comments, and what shells do with a command
        try:
            flags = shlex.split(line)
        except ValueError:  # the quote that ends the command of another program
            flags = shlex.split(line.rstrip('"'))
        if flags:
            commands.append(Command(page, tuple(flags)))
    return commands


TYPED = {page.name: find_commands(page.name, page.read_text()) for page in [*PAGES, *(ROOT / "configs").rglob("*.py")]}
TYPED |= {f"help of {app}": find_commands(f"help of {app}", read_app(app).example) for app in list_apps()}
CLUSTER = [path for path in sorted((ROOT / "examples/cluster").iterdir()) if path.is_file()]
TYPED |= {path.name: find_commands(path.name, path.read_text()) for path in CLUSTER}
COMMANDS = [pytest.param(each, id=f"{page}-{i}") for page in TYPED for i, each in enumerate(TYPED[page])]
# What differs between the hosts of a run or the shares of a list, or may between two starts.
ANEW = (
    "object_list",
    "shard",
    "coordinator",
    "num_processes",
    "process_id",
    "workdir",
    "config.num_devices",
    "config.batch.accumulate",
)


def parse(app, arguments):
    """The flags of an app, as `launch.py` defines and parses them, but configs are not loaded."""
    values = flags.FlagValues()
    flags.DEFINE_bool("help", False, "", flag_values=values)
    for parameter in (APP, *(HOSTS if app == "train" else ()), *read_app(app).parameters.values()):
        is_config = parameter.name == "config"
        define(dataclasses.replace(parameter, kind="str", default=None) if is_config else parameter, values)
    assert values(["launch.py", *arguments]) == ["launch.py"]
    return values


def test_commands_are_found():
    assert len(TYPED["README.md"]) > 15
    assert sum(map(len, TYPED.values())) > 50
    assert [app for app in list_apps() if not TYPED[f"help of {app}"]] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_command_parses(command):
    """Every flag is one of the app's and has a value of its kind; config keys exist."""
    own = [flag for flag in command.flags if not flag.startswith("--config.")]
    shell = [flag for flag in own if "$" in flag or "FOLDER" in flag]
    values = parse(command.app, [flag for flag in own if flag not in shell])
    assert {flag.split("=")[0].removeprefix("--") for flag in shell} <= {*values}
    keys = [flag.split("=")[0] for flag in command.flags if flag.startswith("--config.")]
    if not keys:
        return
    path, _, preset = values.config.partition(":")
    get_config = runpy.run_path(str(ROOT / path))["get_config"]
    config = get_config(preset) if preset else get_config()
    for key in keys:
        assert not find_missing_key(key.removeprefix("--"), config), key


def trainings(*pages):
    """Workdirs of the trainings on some pages, each with all the settings that it is trained with."""
    found = {}
    for command in (each for page in pages for each in TYPED[page]):
        if command.app == "train" and "--help" not in command.flags:
            settings = [flag for flag in command.flags if flag.split("=")[0].removeprefix("--") not in ANEW]
            found.setdefault(command.workdir, set()).add(frozenset(settings))
    return found


def test_no_two_trainings_share_a_workdir():
    """`launch.py` refuses to train by another config where one has been trained: exit code 2."""
    # docs/results.md records runs of their own, by the commands of their time.
    shared = {place: sets for place, sets in trainings(*(set(TYPED) - {"results.md"})).items() if len(sets) > 1}
    assert shared == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_runs_that_are_used_have_been_made(page):
    made = {"data/gt", "RUN", *trainings("README.md", page.name)}
    made |= set(re.findall(r"--out=(\S+)", page.read_text()))
    used = {c.workdir for c in TYPED[page.name] if c.app not in ("train", "import_data", "distill")}
    used -= {"runs/dimo"} if page.name == "README.md" and not trainings("README.md").get("runs/dimo") else set()
    assert used <= made


def test_motions_of_the_puppet_exist():
    """In the run that README begins with: 16 motions on a CPU, 60 elsewhere."""
    names = {motion.name for motion in choose_motions(get_config("demo").data.source.num_motions)}
    assert names <= {motion.name for motion in choose_motions(get_config("paper").data.source.num_motions)}
    asked = [
        (command.page, name)
        for each in TYPED.values()
        for command in each
        if command.workdir == "runs/dimo" and command.app in ("export", "interpolate", "sample")
        for flag in ("motion", "motions", "around")
        for name in command.value(flag).split(",")
        if name and name != "NAME"
    ]
    assert len(asked) >= 4
    assert [each for each in asked if each[1] not in names] == []


def test_motions_of_the_knight_exist():
    """Of the model that the artist's path of README imports."""
    path = ROOT.parent / "shared" / "data" / "knight.glb"
    if not path.is_file():
        pytest.skip(f"{path}: needs the knight")
    names = {clip.name for clip in load_scene(path).clips}
    asked = [c for c in TYPED["README.md"] if c.workdir == "runs/knight" or c.value("source") == "knight.glb"]
    found = [n for c in asked for f in ("motion", "motions", "test_clips") for n in c.value(f).split(",") if n]
    assert found
    assert set(found) <= names
