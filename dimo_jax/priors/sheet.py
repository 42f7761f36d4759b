"""A picture of all videos, kept and dropped, with the reason beside each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dimo_jax.io.images import INK, WHITE, font, write_png

KEPT, DROPPED, FAINT = (24, 128, 56), (190, 40, 40), (110, 116, 126)
ROW, TEXT_WIDTH, PADDING = 96, 360, 6  # pixels


@dataclass(frozen=True)
class Row:
    """One video on the sheet."""

    title: str
    lines: tuple[str, ...]  # measures
    kept: bool
    reason: str
    frames: np.ndarray  # [C,H,W,3] uint8; all rows have the same size and C


def draw_sheet(rows: Sequence[Row], path: Path) -> Path:
    """Writes the sheet as PNG, kept videos first.

    Args:
      rows: at least one.
      path: the file to write.
    """
    rows = sorted(rows, key=lambda row: not row.kept)
    count, height, width = rows[0].frames.shape[:3]
    tile = round(width * ROW / height)
    canvas = Image.new(
        "RGB", (TEXT_WIDTH + count * (tile + PADDING) + PADDING, len(rows) * (ROW + PADDING) + PADDING), WHITE
    )
    draw = ImageDraw.Draw(canvas)
    for index, row in enumerate(rows):
        top = PADDING + index * (ROW + PADDING)
        _write(draw, row, top)
        for column, frame in enumerate(row.frames):
            small = Image.fromarray(np.ascontiguousarray(frame)).resize((tile, ROW), Image.Resampling.LANCZOS)
            canvas.paste(small, (TEXT_WIDTH + column * (tile + PADDING), top))
        draw.rectangle((0, top, 3, top + ROW), fill=KEPT if row.kept else DROPPED)
    return write_png(np.asarray(canvas), path)


def _write(draw: ImageDraw.ImageDraw, row: Row, top: int) -> None:
    """The text of a row."""
    width = TEXT_WIDTH - 3 * PADDING
    decision, color = ("kept", KEPT) if row.kept else (f"dropped: {row.reason}", DROPPED)
    texts = [(row.title, 14, INK), *((line, 12, FAINT) for line in row.lines)]
    texts += [(line, 12, color) for line in wrap(decision, 12, width)[:3]]
    for text, size, ink in texts:
        draw.text((3 * PADDING, top), wrap(text, size, width)[0], font=font(size), fill=ink)
        top += size + 4


def wrap(text: str, size: int, width: int) -> list[str]:
    """Breaks a text into lines that are at most `width` pixels wide; at least one line."""
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font(size).getlength(longer) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    return [*lines, line]
