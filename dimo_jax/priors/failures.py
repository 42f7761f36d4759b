"""What goes wrong with one part of the work, so that it can be written down and tried again."""

from __future__ import annotations

from typing import Any


class Failure(Exception):
    """One prompt, video or view could not be made. The manifest keeps the reason; the next run tries again.

    Attributes:
      reason: one line.
      suggestion: one line that says what to change; "" where there is nothing to add.
      fields: more for the manifest.
      fatal: True where the others would fail alike (endpoint down, memory too small), so that the step ends at once.
    """

    def __init__(self, reason: str, *, suggestion: str = "", fatal: bool = False) -> None:
        self.reason = " ".join(reason.split())[:400]
        self.suggestion = " ".join(suggestion.split())
        self.fatal = fatal
        self.fields: dict[str, Any] = {}
        super().__init__(f"{self.reason}, {self.suggestion}" if suggestion else self.reason)
