"""Data flows one way: a package imports only packages before it."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ORDER = ("data", "model", "render", "losses", "train", "checkpoints", "metrics", "export", "distill", "apps")
ANYWHERE = ("geometry", "types", "resolve", "errors", "native_library", "workdir", "caches", "hosts")
ANYWHERE += ("memory", "compiler", "progress")


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(module):
    names = module.split(".")
    return names[1] if names[0] == "dimo_jax" and len(names) > 1 else None


def test_packages_import_only_what_stands_before_them():
    files = sorted((ROOT / "dimo_jax").rglob("*.py"))
    assert len(files) > 30
    wrong = []
    for path in files:
        here = path.relative_to(ROOT / "dimo_jax").parts[0].removesuffix(".py")
        for module in imported_modules(path):
            there = part_of(module)
            if there is None or there in ("__version__", here) or there in ANYWHERE:
                continue
            late = here in ANYWHERE or ORDER.index(there) > ORDER.index(here)
            if late:
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_third_party_stands_alone():
    files = sorted((ROOT / "third_party").rglob("*.py"))
    assert len(files) > 5
    for path in files:
        parts = {part_of(module) for module in imported_modules(path)} - {None}
        assert parts <= set(ANYWHERE), f"{path}: {parts}"


def test_launch_is_short():
    assert len((ROOT / "launch.py").read_text().splitlines()) < 60
