"""What visitors are told: notes while something takes long, and words of theirs as they stand."""

from __future__ import annotations

from typing import Any

from absl import logging

from dimo_jax.core.errors import UserError


class Notice:
    """A note on one visitor's screen while something takes long, which ends as an error where that fails."""

    def __init__(self, client: Any, title: str, body: str) -> None:
        self._told = False
        self._note = client.add_notification(title, body, loading=True, with_close_button=False)

    def __enter__(self) -> Notice:
        return self

    def say(self, title: str, body: str, *, color: str | None = None) -> None:
        """Replaces the note by a lasting one."""
        self._told = True
        self._note.title, self._note.body, self._note.color = title, body, color
        self._note.loading, self._note.with_close_button = False, True

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if isinstance(error, Exception):
            logging.warning("%s", error)
            self.say("That did not work", str(error) or type(error).__name__, color="red")
        elif not self._told:
            self._note.remove()
        return isinstance(error, (UserError, OSError))  # of others the log has the traceback


def plain(text: str) -> str:
    """Text that Markdown leaves as it is: names and sentences come from data and visitors."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()<>#+-.!|$~&" else c for c in text)
