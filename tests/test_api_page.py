"""docs/api.md says what the signatures and docstrings say."""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_is_that_of_this_code():
    written = runpy.run_path(str(ROOT / "docs/write_api.py"))["write"]()
    page = (ROOT / "docs/api.md").read_text()
    assert written == page, "run python docs/write_api.py"
    for name in ("load_run", "make_trainer", "Trainer.step", "Run.sample"):
        assert name in page
