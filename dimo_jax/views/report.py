"""`report.html`: what a run learned, on one page that needs neither a network nor any file beside it.

Pictures and videos are part of the page (data URIs). The page has no scripts and forbids itself to load anything
(Content-Security-Policy), and all text is escaped, so that a motion's name can never become code.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dimo_jax.core.errors import UserError
from dimo_jax.io.images import check_frames
from dimo_jax.io.video import make_poster
from dimo_jax.runtime.files import replace_file
from dimo_jax.views.report_style import STYLE

_IMAGE_TYPES = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp",
}  # fmt: skip
_VIDEO_TYPES = {".mp4": "video/mp4", ".webm": "video/webm"}
_LARGE_MIB = 40
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


@dataclasses.dataclass(frozen=True)
class Card:
    """A key figure at the top of the page, already formatted: label "PSNR", value "28.4 dB", note "held-out views"."""

    label: str
    value: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture: a PNG, JPEG, GIF or WebP file, or an array [H,W,3] uint8. `wide` gives it a row of its own.

    A click enlarges it, and another puts it back.
    """

    source: Path | str | np.ndarray
    caption: str = ""
    wide: bool = False


@dataclasses.dataclass(frozen=True)
class Video:
    """An mp4 (H.264) or WebM file; plays at once, silently, in a loop. `wide` gives it a row of its own.

    Where nothing plays, on paper say, it shows a frame of it.
    """

    source: Path | str
    caption: str = ""
    wide: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows as wide as `columns`. Floats are shown with 4 significant digits, None and NaN as a dash, others as text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page, linked from its top. `tile` is the least width, in CSS pixels, of media side by side."""

    title: str
    items: Sequence[Figure | Video | Table] = ()
    text: str = ""
    tile: int = 340


class Written(NamedTuple):
    """Where the report is, how large, and a sentence for the user if it is too large to be handy, else None."""

    path: Path
    num_bytes: int
    warning: str | None


def _escape(text: Any) -> str:
    return html.escape(str(text), quote=True)


def _embed(source: Path | str | np.ndarray, types: Mapping[str, str]) -> str:
    if isinstance(source, np.ndarray):
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(check_frames(source, rank=3))).save(buffer, format="PNG", optimize=True)
        data, media_type = buffer.getvalue(), "image/png"
    else:
        path = Path(source)
        media_type = types.get(path.suffix.lower(), "")
        if not media_type:
            raise UserError(f"{path}: found a file of type {path.suffix!r}, expected one of {sorted(types)}")
        if not path.is_file():
            raise UserError(f"{path}: no such file, expected a picture or video for the report")
        data = path.read_bytes()
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def _write_figure(media: str, caption: str, *, wide: bool) -> str:
    text = f"<figcaption>{_escape(caption)}</figcaption>" if caption else ""
    return f"<figure{' class=wide' if wide else ''}>{media}{text}</figure>"


def _format_cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float | np.floating):
        value = float(value)
        if not math.isfinite(value):
            return "–"
        return f"{value:#.4g}".removesuffix(".") if abs(value) < 1e4 else f"{value:,.0f}"
    return str(value)


def _write_table(table: Table) -> str:
    for row in table.rows:
        if len(row) != len(table.columns):
            raise ValueError(f"a row of {len(row)} cells under {len(table.columns)} columns: {list(row)}")
    head = "".join(f"<th scope=col>{_escape(name)}</th>" for name in table.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_escape(_format_cell(v))}</td>" for v in row) + "</tr>" for row in table.rows
    )
    content = f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    return _write_figure(content, table.caption, wide=True)


def _write_item(item: Figure | Video | Table) -> str:
    if isinstance(item, Table):
        return _write_table(item)
    if isinstance(item, Figure):
        picture = f'<img src="{_embed(item.source, _IMAGE_TYPES)}" alt="{_escape(item.caption)}">'
        # A box that is ticked enlarges: the page has no scripts, and a picture behind a link would be in it twice.
        media = (
            f"<label class=zoom title=Enlarge><input type=checkbox aria-label=Enlarge><span>{picture}</span></label>"
        )
    else:
        source = _embed(item.source, _VIDEO_TYPES)
        poster = f"data:image/jpeg;base64,{base64.b64encode(make_poster(item.source)).decode('ascii')}"
        media = (
            f'<video src="{source}" poster="{poster}" controls loop muted autoplay playsinline '
            f'title="{_escape(item.caption)}"></video>'
        )
    return _write_figure(media, item.caption, wide=item.wide)


def _write_section(section: Section, index: int) -> str:
    text = f"<p>{_escape(section.text)}</p>" if section.text else ""
    items = "\n".join(_write_item(item) for item in section.items)
    media = f'<div class=media style="--tile:{int(section.tile)}px">\n{items}\n</div>' if items else ""
    return f"<section id=part-{index}>\n<h2>{_escape(section.title)}</h2>\n{text}{media}\n</section>"


def _write_header(title: str, facts: Mapping[str, str], cards: Sequence[Card], links: Mapping[str, str]) -> str:
    lines = "".join(f"<span>{_escape(name)} <b>{_escape(value)}</b></span>" for name, value in facts.items() if value)
    shown = "".join(
        f"<div class=card><div class=label>{_escape(card.label)}</div><div class=value>{_escape(card.value)}</div>"
        + (f"<div class=note>{_escape(card.note)}</div>" if card.note else "")
        + "</div>"
        for card in cards
    )
    grid = f"<div class=cards>{shown}</div>" if cards else ""
    anchors = " ".join(f'<a href="{_escape(address)}">{_escape(words)}</a>' for words, address in links.items())
    below = f"<p class=links>{anchors}</p>\n" if links else ""
    return f"<header>\n<h1>{_escape(title)}</h1>\n<p class=facts>{lines}</p>\n{below}{grid}\n</header>"


def _write_details(name: str, content: Any) -> str:
    if not content:
        return ""
    text = content if isinstance(content, str) else json.dumps(content, indent=2, ensure_ascii=False, default=str)
    return f"<details><summary>{_escape(name)}</summary><pre>{_escape(text)}</pre></details>"


def write_report(
    path: Path | str,
    sections: Sequence[Section],
    *,
    title: str,
    preset: str = "",
    date: str | None = None,
    cards: Sequence[Card] = (),
    config: Mapping[str, Any] | str | None = None,
    versions: Mapping[str, str] | None = None,
    facts: Mapping[str, str] | None = None,
    links: Mapping[str, str] | None = None,
) -> Written:
    """Writes a self-contained HTML page, atomically.

    Args:
      path: the file, by custom `report.html`.
      sections: the parts of the page, in order.
      title: the name of the object.
      preset: the preset that trained it.
      date: when; None for now, local time.
      cards: key figures under the title.
      config: a mapping (shown as JSON) or text, in a block that opens on a click.
      versions: names of packages to versions, in another.
      facts: further names and short values for the line under the title.
      links: words to addresses, shown under that line; of files beside the page by their name.

    Returns:
      The path, the size, and a warning if the page is over 40 MiB, which browsers open slowly.

    Raises:
      UserError: a picture or video is missing or of an unknown type; nothing is written then.
    """
    date = date or datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    line = {"preset": preset, "date": date, **(facts or {})}
    parts_of_page = "".join(f'<li><a href="#part-{i}">{_escape(s.title)}</a></li>' for i, s in enumerate(sections))
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        '<head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_escape(title)} – dimo_jax</title>",
        f"<style>{STYLE}</style></head>",
        "<body>",
        _write_header(title, line, cards, links or {}),
        f'<nav aria-label="Sections"><ul>{parts_of_page}</ul></nav>' if len(sections) > 1 else "",
        "<main>",
        *(_write_section(section, index) for index, section in enumerate(sections)),
        _write_details("Configuration", config),
        _write_details("Versions", versions),
        "</main>",
        "<footer>Written by dimo_jax. This page is complete in itself: it loads nothing.</footer>",
        "</body></html>",
    ]
    # A surrogate (from a file name that is not UTF-8) cannot be encoded: it is shown as an escape.
    data = ("\n".join(part for part in parts if part) + "\n").encode("utf-8", "backslashreplace")
    with replace_file(path) as temporary:
        temporary.write_bytes(data)
    size = len(data) / 2**20
    warning = f"{path} has {size:.0f} MiB: browsers may open it slowly" if size > _LARGE_MIB else None
    return Written(Path(path), len(data), warning)
