"""The page that shows a run: figures and pictures of `summary.json` and the gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from dimo_jax.io.metrics_log import read_metrics
from dimo_jax.metrics.psnr import GROWN_BY
from dimo_jax.views.gallery import Picture
from dimo_jax.views.plots import plot_curves
from dimo_jax.views.report import Card, Figure, Section, Table, Video, write_report

SCORES = (
    ("held_out_views", "Held-out views"),
    ("held_out_frames", "Held-out frames"),
    ("static_baseline", "Static baseline, held-out views"),
)
COLUMNS = (
    ("psnr", "PSNR (dB)"),
    ("psnr_foreground", "PSNR foreground (dB)"),
    ("ssim", "SSIM"),
    ("lpips_vgg", "LPIPS (VGG)"),
    ("num_images", "images"),
    ("num_lpips_images", "images for LPIPS"),
)


CLIP_SCORES = (("clips", "Clips"), ("held_out_clips", "Held-out clips"))  # of a rig


def _make_cards(summary: Mapping[str, Any]) -> list[Card]:
    cards = []
    views, static = summary["held_out_views"], summary["static_baseline"]
    if views:
        cards.append(Card("PSNR", _format(views["psnr"], ".2f", " dB"), "held-out views"))
        cards.append(Card("PSNR foreground", _format(views["psnr_foreground"], ".2f", " dB"), "held-out views"))
        cards.append(Card("LPIPS (VGG)", _format(views["lpips_vgg"], ".3f"), "held-out views"))
        if views["worst_motion"] is not None:
            worst = views["motions"][views["worst_motion"]]["psnr_foreground"]
            note = f"{views['worst_motion']}, PSNR foreground, held-out views"
            cards.append(Card("Worst motion", _format(worst, ".2f", " dB"), note))
    if views and static and None not in (views["psnr"], static["psnr"]):
        cards.append(Card("Above the static model", f"{views['psnr'] - static['psnr']:+.2f} dB", "held-out views"))
    if summary["surface_distance"] is not None:
        cards.append(Card("Distance to the surface", f"{summary['surface_distance']:.2%}", "of the object's height"))
    for key, title in CLIP_SCORES:
        if summary.get(key):
            cards.append(Card(title, f"{summary[key]['vertex_error']:.2%}", "of the height, mean vertex error"))
    cards.append(Card("Time", f"{summary['seconds']['total'] / 60:.1f} min", "whole run"))
    cards.append(Card("Memory", f"{summary['peak_memory_gib']:.1f} GiB", "peak of the process"))
    return cards


def _format(value: float | None, form: str, unit: str = "") -> str:
    return "–" if value is None else f"{value:{form}}{unit}"


def _make_tables(summary: Mapping[str, Any]) -> list[Table]:
    rows = [
        [title, *(summary[key][column] for column, _ in COLUMNS)] for key, title in SCORES if summary[key] is not None
    ]
    seconds = summary["seconds"]
    said = f"Means over images; the foreground is the true mask grown by {GROWN_BY} pixels{_name_undefined(summary)}"
    return [
        Table(["", *(title for _, title in COLUMNS)], rows, said),
        *_make_motion_table(summary),
        *(_make_clip_table(title, summary[key]) for key, title in CLIP_SCORES if summary.get(key)),
        Table(list(seconds), [[round(value, 1) for value in seconds.values()]], "Seconds of this process"),
    ]


def _make_clip_table(title: str, found: Mapping[str, Any]) -> Table:
    """The clips of a rig, the worst first."""
    rows = sorted(found["each"].items(), key=lambda row: -row[1])
    return Table([title, "Mean vertex error (% of the height)"], [[name, 100 * error] for name, error in rows])


def _name_undefined(summary: Mapping[str, Any]) -> str:
    """Words about images that have no such figure, or none."""
    found = [
        f"{title} of {count} images of {name.lower()}"
        for key, name in SCORES
        for column, title in COLUMNS
        if (count := (summary[key] or {}).get(f"{column}_undefined"))
    ]
    return f". Undefined, and so in no mean: {', '.join(found)}" if found else ""


def _make_motion_table(summary: Mapping[str, Any]) -> list[Table]:
    """Each motion's figures, the worst first; of the scores of motions those that there are."""
    known = [(title, summary[key]["motions"]) for key, title in SCORES[:2] if summary[key] is not None]
    if not known:
        return []
    figures = {name: [each[name]["psnr_foreground"] for _, each in known] for name in known[0][1]}
    order = sorted(figures, key=lambda name: (figures[name][0] is None, figures[name][0]))
    columns = ["Motion, the worst first", *(f"{title}: PSNR foreground (dB)" for title, _ in known)]
    return [Table(columns, [[name, *figures[name]] for name in order], "Scores of each motion")]


def write_summary_report(
    workdir: Path,
    summary: Mapping[str, Any],
    gallery: Mapping[str, Sequence[Picture]],
    config: ConfigDict,
    *,
    title: str,
    page: Path | None = None,
) -> Path:
    """Writes `report.html` into `workdir` and returns its path; the page needs no network and no other file.

    `page` in the same folder, which plays the motions, is linked from it.
    """
    plot_curves(read_metrics(workdir / "metrics.jsonl"), workdir / "curves.png")
    sections = [Section("Scores", _make_tables(summary))]
    for heading, pictures in gallery.items():
        wide = len(pictures) == 1
        items = [
            Video(picture.path, picture.caption, wide=wide)
            if picture.is_video
            else Figure(picture.path, picture.caption, wide=wide)
            for picture in pictures
        ]
        sections.append(Section(heading, items, tile=560))
    curves = Figure(workdir / "curves.png", "Loss terms and PSNR of the batches", wide=True)
    sections.append(Section("Training", [curves]))
    written = write_report(
        workdir / "report.html",
        sections,
        title=title,
        preset=summary["preset"],
        cards=_make_cards(summary),
        config=config.to_dict(),
        versions=summary["versions"],
        facts={"rasterizer": summary["backend"], "config": summary["config_sha256"][:12]},
        links={} if page is None else {"Play its motions in the browser": page.name},
    )
    if written.warning:
        logging.warning("%s", written.warning)
    return written.path
