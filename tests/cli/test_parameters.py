"""Apps and their flags, read from source, are what importing them would tell."""

import importlib
import inspect
import textwrap
import types
import typing

import pytest
from absl import flags

from dimo_jax.cli import parameters
from dimo_jax.cli.flags import HOSTS, define_flags, options_of
from dimo_jax.cli.parameters import CONFIG, REQUIRED, list_apps, owners_of, read_app
from dimo_jax.core.errors import UserError

APPS = list_apps()


def test_apps_are_the_modules_with_a_run():
    assert {"train", "sample", "export", "import_data", "status"} <= {*APPS}
    assert list(APPS) == sorted(APPS)
    for name in APPS:
        assert callable(importlib.import_module(f"dimo_jax.apps.{name}").run)


@pytest.mark.parametrize("name", APPS)
def test_signature_is_that_of_the_function(name):
    run = importlib.import_module(f"dimo_jax.apps.{name}").run
    told, hints = read_app(name).parameters, typing.get_type_hints(run)
    assert {key: each.default for key, each in told.items()} == {
        key: each.default for key, each in inspect.signature(run).parameters.items()
    }
    for key, parameter in told.items():
        is_union = isinstance(hints[key], types.UnionType) or typing.get_origin(hints[key]) is typing.Union
        parts = {*(typing.get_args(hints[key]) if is_union else (hints[key],))} - {type(None)}
        (kind,) = parts
        assert parameter.choices == typing.get_args(kind)
        kind = type(parameter.choices[0]) if parameter.choices else kind
        assert parameter.kind == kind.__name__


@pytest.mark.parametrize("name", APPS)
def test_everything_has_a_line_of_help(name):
    app = read_app(name)
    assert app.summary
    assert app.about
    assert app.example.startswith("python launch.py --")
    assert [key for key, parameter in app.parameters.items() if not parameter.doc] == []


def test_a_flag_of_several_apps_is_of_one_kind():
    """Else --size=0.5 would be fine here and wrong there."""
    kinds = {}
    for name in APPS:
        for parameter in read_app(name).parameters.values():
            kinds.setdefault(parameter.name, {}).setdefault(parameter.kind, []).append(name)
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}


def test_no_flag_of_an_app_is_one_of_the_launcher():
    taken = {"app", "help", *(parameter.name for parameter in HOSTS)}
    assert [name for name in APPS if taken & {*read_app(name).parameters}] == []
    for name in APPS:
        importlib.import_module("absl.app").define_help_flags()
        # Not those of benchmarks, which other tests of this process may have imported.
        theirs = {each for each in flags.FLAGS if str(flags.FLAGS.find_module_defining_flag(each)).startswith("absl")}
        ours = [each for each in read_app(name).parameters if each in theirs]
        assert ours == [], "absl has such flags, too"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Reads an app of some source, in a package that holds nothing else."""
    (tmp_path / "apps").mkdir()
    (tmp_path / "sizes.py").write_text("from dimo_jax.deeper import Shape\nSIZE: int = 512\n")
    (tmp_path / "deeper.py").write_text('Shape = Literal["ball", "box"]\n')
    monkeypatch.setattr(parameters, "_PACKAGE", tmp_path)
    parameters._parse.cache_clear()

    def read(source):
        (tmp_path / "apps/own.py").write_text(textwrap.dedent(source))
        read_app.cache_clear()
        parameters._parse.cache_clear()
        return read_app("own")

    yield read
    read_app.cache_clear()
    parameters._parse.cache_clear()


SOURCE = '''
    """`--app=own`: does something.

    In a way of its own.
    """
    import nothing_that_is_installed
    from dimo_jax.sizes import SIZE as LARGE, Shape
    Few = Literal[1, 2]

    def run(*, workdir: str, config: ConfigDict | None = None, size: int = LARGE, shape: Shape = "box", few: Few = 2,
            share: float | None = None, deep: bool = False) -> None:
        """Does it.

        Twice.

        Args:
          workdir: a folder
            that is there.
          size: of it: in pixels.

        Example:
          python launch.py --app=own \\\\
              --size=3

        Raises:
          UserError: never.
        """
'''


def test_an_app_of_ones_own(written):
    app = written(SOURCE)
    assert (list_apps(), owners_of("shape"), owners_of("nope")) == (("own",), ["own"], [])
    assert (app.summary, app.about) == ("does something.", "Does it.\n\nTwice.")
    assert app.example == "python launch.py --app=own \\\n    --size=3"
    found = {name: (each.kind, each.default, each.choices) for name, each in app.parameters.items()}
    assert found == {
        "workdir": ("str", REQUIRED, ()),
        "config": (CONFIG, None, ()),
        "size": ("int", 512, ()),
        "shape": ("str", "box", ("ball", "box")),
        "few": ("int", 2, (1, 2)),
        "share": ("float", None, ()),
        "deep": ("bool", False, ()),
    }
    assert app.parameters["workdir"].doc == "a folder that is there."
    assert app.parameters["size"].doc == "of it: in pixels."


def test_flags_become_keywords(written):
    app, values = written(SOURCE), flags.FlagValues()
    define_flags(app, values)
    values(["launch.py", "--few=1", "--shape", "ball", "--deep", "--share=0.5"])
    expected = dict(workdir="runs/dimo", config=None, size=512, shape="ball", few=1, share=0.5, deep=True)
    assert options_of(app, values) == expected
    values = flags.FlagValues()
    define_flags(app, values)
    with pytest.raises(flags.IllegalFlagValueError, match=r"--shape=bal: one of ball, box; did you mean 'ball'\?"):
        values(["launch.py", "--shape=bal"])
    needy, values = written("def run(*, size: int) -> None:\n    pass\n"), flags.FlagValues()
    define_flags(needy, values)
    values(["launch.py"])
    with pytest.raises(UserError, match=r"--size: not given, expected --size=\.\.\."):
        options_of(needy, values)


@pytest.mark.parametrize(
    ("signature", "says"),
    [
        ("size", r"run has parameters that are not keyword-only"),
        ("*, size", r"apps/own\.py: run: size: found annotation none, expected one of str, int"),
        ("*, size: Path = 3", r"run: size: found the name Path, expected a constant"),
        ("*, size: list[int] = 3", r"run: size: found annotation list\[int\]"),
        ("*, size: Literal['a', 1] = 1", r"run: size: found annotation Literal"),
        ("*, size: int = LARGEST", r"run: size: found the name LARGEST"),
        ("*, size: int = max(1, 2)", r"run: size: malformed node"),
    ],
)
def test_what_no_flag_can_be_made_of_is_refused(signature, says, written):
    with pytest.raises(TypeError, match=says):
        written(f"def run({signature}) -> None:\n    pass\n")
