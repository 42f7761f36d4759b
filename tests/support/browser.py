"""A real browser, headless Chromium with software WebGL, driven by Playwright."""

import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")  # as .ci/run has them
OPTIONS = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
# Else it asks its makers' hosts for updates at every start.
OPTIONS += ["--disable-background-networking", "--disable-component-update", "--no-first-run"]


def find_browser():
    """The path of a browser; skips where there is none, which .ci/run allows only where none can be installed."""
    pytest.importorskip("playwright", reason="no browser test without playwright (pip install playwright)")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser found: none of {', '.join(BROWSERS)} (Debian: apt-get install chromium)")
    return found


def launch(playwright, *further, **options):
    """The browser with further options of its command line, to be closed by the caller."""
    return playwright.chromium.launch(executable_path=find_browser(), args=[*OPTIONS, *further], **options)
