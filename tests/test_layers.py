"""Data flows one way: a package imports only packages above it in the list of CONTRIBUTING.md."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dimo_jax"
ANYWHERE = ("core", "runtime")
ORDER = (*ANYWHERE, "geometry", "native", "cameras", "meshes", "rigs", "skinning", "render", "io", "data", "networks")
ORDER += ("losses", "metrics", "diffusion", "priors", "training", "systems", "runs", "views", "cli", "apps")
BESIDE = ("configs", "third_party")  # of a checkout; a wheel has them in the package
NAME = re.compile(r"dimo_jax(\.\w+)+(:\w+)?")


def imported_modules(path, tree):
    """Absolute names of what a file imports, anywhere in it: by statement, relative or not, or as a string."""
    package = ("dimo_jax", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and NAME.fullmatch(node.value):
            yield node.value.partition(":")[0]


def place_of(names):
    """(package, system) of the parts of a module's name after `dimo_jax`."""
    return names[0], names[1] if names[0] == "systems" and len(names) > 1 else ""


def is_wrong(here, there):
    (package, system), (other, other_system) = here, there
    if other == package:
        return system != other_system
    late = package in ANYWHERE or ORDER.index(other) > ORDER.index(package)
    return late and other not in ANYWHERE


def find_wrong(path, tree):
    names = path.relative_to(PACKAGE).with_suffix("").parts
    for module in imported_modules(path, tree):
        root, *parts = module.split(".")
        if root == "dimo_jax" and parts and parts[0] in ORDER and is_wrong(place_of(names), place_of(parts)):
            yield f"{path.relative_to(ROOT)} imports {module}"


def test_packages_import_only_what_stands_above_them():
    # The face reaches everywhere, and the table of old names is not imported.
    files = sorted(set(PACKAGE.rglob("*.py")) - {PACKAGE / "__init__.py", PACKAGE / "core/renames.py"})
    assert len(files) > 150
    files = [path for path in files if path.relative_to(PACKAGE).parts[0] not in BESIDE]
    assert {path.relative_to(PACKAGE).parts[0] for path in files} <= set(ORDER)
    wrong = [line for path in files for line in find_wrong(path, ast.parse(path.read_text()))]
    assert not wrong, "\n".join(wrong)


def test_the_check_finds_every_kind_of_import():
    def found(place, code):
        return list(find_wrong(PACKAGE / place, ast.parse(code)))

    assert found("geometry/a.py", "from dimo_jax.render import render")
    assert found("geometry/a.py", "def f():\n    import dimo_jax.render.tiles")
    assert found("geometry/a.py", "from ..render import tiles")
    assert found("geometry/a.py", "from dimo_jax import render")
    assert found("geometry/a.py", "name = 'dimo_jax.render.pipeline:render'")
    assert found("core/a.py", "from dimo_jax.geometry import safe")
    assert found("systems/dimo/a.py", "from dimo_jax.systems.static.system import Static")
    assert not found("systems/dimo/a.py", "from dimo_jax.systems.dimo import model\nfrom dimo_jax.core import types")
    assert not found("apps/a.py", "from dimo_jax.render import tiles\nfrom . import b")


def test_modules_are_short():
    long = {path: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path): length for path, length in long.items() if length > 400} == {}


def test_third_party_stands_alone():
    for path in (ROOT / "third_party").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            module = getattr(node, "module", None) or ""
            if isinstance(node, ast.ImportFrom) and module.startswith("dimo_jax."):
                assert module.split(".")[1] in ANYWHERE, f"{path}: {module}"


def test_nothing_imports_by_a_name_that_only_a_checkout_has():
    """Else a wheel lacks it, and in a checkout its classes exist twice."""
    places = ("bench", "configs", "dimo_jax", "examples", "tests", "third_party")
    files = [path for place in places for path in (ROOT / place).rglob("*.py")]
    assert len(files) > 300
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in names:
                assert name.partition(".")[0] not in BESIDE, f"{path} imports {name}, expected dimo_jax.{name}"


def test_launch_is_short():
    assert len((ROOT / "launch.py").read_text().splitlines()) < 60


def module_of(path):
    return ".".join(("dimo_jax", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def find_cycle(graph):
    """Modules of one cycle of a graph (name -> names), or []."""
    state, trail = {}, []

    def visit(name):
        state[name] = "open"
        trail.append(name)
        for other in sorted(graph.get(name, ())):
            if state.get(other) == "open":
                return trail[trail.index(other) :]
            if other not in state and (found := visit(other)):
                return found
        state[name] = "done"
        trail.pop()
        return []

    for name in sorted(graph):
        if name not in state and (found := visit(name)):
            return found
    return []


def test_no_module_imports_itself_by_way_of_others():
    paths = {module_of(path): path for path in PACKAGE.rglob("*.py")}
    graph = {}
    for name, path in paths.items():
        tree = ast.parse(path.read_text())
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]  # not in functions
        found = {module for module in imported_modules(path, tree) if module in paths}
        found |= {module.rpartition(".")[0] for module in imported_modules(path, tree)} & set(paths)
        graph[name] = {other for other in found if other != name and not name.startswith(f"{other}.")}
    assert sum(map(len, graph.values())) > 1000
    # A package's own __init__ gathers its modules, which may import each other beside it.
    assert find_cycle(graph) == []
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c"]
