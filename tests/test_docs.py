"""The Python snippets of README and docs run, and the files they link to exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = [
    pytest.param(code, id=f"{page.stem}-{i}")
    for page in PAGES
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.S))
]


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippet_runs(code):
    assert code.strip()
    exec(compile(code, "snippet", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = [x for x in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if not x.startswith("http")]
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_method_names_files_and_functions_that_exist():
    text = (ROOT / "docs" / "method.md").read_text()
    names = re.findall(r"`((?:model|losses|train|render|apps)/\w+\.py|types\.py)(?::(\w+))?`", text)
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
