"""The page that plays a motion space, opened in a browser's tab, and what is read of it."""

import base64
import contextlib
import time

import numpy as np

PATIENCE = 60  # seconds
READS = "GPU stall due to ReadPixels"  # said now and then of what tests do to see a picture


@contextlib.contextmanager
def opened(chrome, path, *, script="", **options):
    """The page in a tab; fails where it logs an error or asks for anything but itself."""
    context = chrome.new_context(**{"viewport": dict(width=1100, height=700), "reduced_motion": "reduce"} | options)
    page = context.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    errors, requests = [], []

    def listen(message):
        if message.type in ("error", "warning") and READS not in message.text:
            errors.append(message.text)

    page.on("console", listen)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    if script:
        page.add_init_script(script)
    page.goto(path.as_uri())
    yield page
    assert not errors, errors
    assert [url for url in requests if not url.startswith(("blob:", "data:"))] == [path.as_uri()]
    context.close()


def floats(page, expression):
    """A typed array of the page, which costs less as text than as a list."""
    text = page.evaluate(
        f"() => {{ const a = Float32Array.from({expression}); const bytes = new Uint8Array(a.buffer); let text = '';"
        "for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));"
        "return btoa(text); }"
    )
    return np.frombuffer(base64.b64decode(text), np.float32)


def wait(page, expression):
    """Until an expression is true; Playwright's own way would evaluate it in the page, which the page forbids."""
    deadline = time.monotonic() + PATIENCE
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {expression}"
        page.wait_for_timeout(20)
