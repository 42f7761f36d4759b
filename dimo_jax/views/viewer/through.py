"""Lets viser draw key points through the body, which its own interface cannot."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from absl import logging

SCRIPT = Path(__file__).with_name("through.js")


def draw_through(server: Any) -> None:
    """Sends a script to all who watch, now and later; a viser that takes none draws key points as dim as before."""
    try:
        message = importlib.import_module("viser._messages").RunJavascriptMessage(source=SCRIPT.read_text("utf-8"))
        server.gui._websock_interface.queue_message(message)
    except (ImportError, AttributeError, TypeError) as error:
        logging.warning("this version of viser draws key points behind the splats before them (%s)", error)
