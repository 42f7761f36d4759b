"""Plots of a run: the map of the latent space, and the curves of training."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import chex
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.transforms import Bbox

from dimo_jax.runtime.files import replace_file

_DPI = 144
_INK, _MUTED, _GRID = "#20242c", "#6b7280", "#e5e7eb"
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))


def _make_axes(size: tuple[float, float], num_rows: int = 1) -> tuple[Figure, list[Axes]]:
    # The object interface, not pyplot: no global state, no display, safe in a thread beside training.
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(num_rows, 1, sharex=True, squeeze=False)[:, 0]
    for ax in axes:
        ax.grid(color=_GRID, linewidth=0.7)
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(_MUTED)
        ax.tick_params(colors=_MUTED, labelsize=8)
    return figure, list(axes)


def _save(figure: Figure, path: Path | str) -> Path:
    with replace_file(path) as temporary:
        figure.savefig(temporary, format="png")
    return Path(path)


def project_latents(mu: np.ndarray, *, num_axes: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The main axes of a set of latents (principal components, signs fixed).

    Args:
      mu: [M,D].
      num_axes: A.

    Returns:
      Center [D], axes [D,A] (a column of zeros where M or D is too small) and the share of the variance that each
      axis explains [A], 0..1.
    """
    center = mu.mean(axis=0)
    _, singular, rows = np.linalg.svd(mu - center, full_matrices=False)
    axes, share = np.zeros((mu.shape[1], num_axes), np.float32), np.zeros(num_axes, np.float32)
    num = min(num_axes, len(singular))
    axes[:, :num] = rows[:num].T
    # The sign of a singular vector is arbitrary: without a rule the map would flip between two runs.
    axes *= np.where(axes[np.abs(axes).argmax(axis=0), np.arange(num_axes)] < 0, -1, 1)
    share[:num] = singular[:num] ** 2 / max(float((singular**2).sum()), 1e-30)
    return center, axes, share


def _place_labels(figure: Figure, ax: Axes, points: np.ndarray, names: Sequence[str]) -> None:
    """Sets each name beside its point, on the side where it covers the least."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    pixels = ax.transData.transform(points)
    frame = ax.get_window_extent(renderer)
    taken = [Bbox.from_extents(x - 6, y - 6, x + 6, y + 6) for x, y in pixels]
    for (x0, y0), name in zip(pixels, names):
        text = ax.text(x0, y0, name, fontsize=7, color=_INK, transform=None, parse_math=False, zorder=4)
        box = text.get_window_extent(renderer)
        best: tuple[float, Bbox, int] | None = None
        for distance, (dx, dy) in itertools.product((9, 18, 30), _SIDES):
            left = x0 + dx * distance - (dx < 0) * box.width - (dx == 0) * box.width / 2
            bottom = y0 + dy * distance - (dy < 0) * box.height - (dy == 0) * box.height / 2
            place = Bbox.from_bounds(left, bottom, box.width, box.height)
            outside = max(0, frame.x0 - place.x0) + max(0, place.x1 - frame.x1)
            outside += max(0, frame.y0 - place.y0) + max(0, place.y1 - frame.y1)
            overlaps = (Bbox.intersection(place, other) for other in taken)
            cost = sum(o.width * o.height for o in overlaps if o is not None) + 50 * outside + distance
            if best is None or cost < best[0]:
                best = (cost, place, distance)
        assert best is not None
        x, y = ax.transData.inverted().transform((best[1].x0, best[1].y0))
        text.set_position((float(x), float(y)))
        text.set_transform(ax.transData)
        text.set_verticalalignment("bottom")
        taken.append(best[1])
        if best[2] > 9:  # too far to tell whose name it is
            near = (np.clip(x0, best[1].x0, best[1].x1), np.clip(y0, best[1].y0, best[1].y1))
            line = ax.transData.inverted().transform([(x0, y0), near])
            ax.plot(line[:, 0], line[:, 1], color=_MUTED, linewidth=0.5, alpha=0.6, zorder=1)


def _draw_ellipses(ax: Axes, points: np.ndarray, axes: np.ndarray, sigma: np.ndarray, colors: list[Any]) -> None:
    for point, deviation, color in zip(points, sigma, colors):
        # A diagonal Gaussian in D dimensions, seen along two axes, is a Gaussian with this covariance.
        values, vectors = np.linalg.eigh((axes * deviation[:, None] ** 2).T @ axes)
        angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
        width, height = 2 * np.sqrt(np.maximum(values[::-1], 0))
        ax.add_patch(Ellipse(point, width, height, angle=angle, facecolor=color, alpha=0.15, edgecolor="none"))


def _scatter_groups(
    ax: Axes, points: np.ndarray, groups: Sequence[str] | None, kinds: Sequence[str], colors: list[Any]
) -> None:
    for kind in kinds:
        chosen = [i for i in range(len(points)) if groups is None or groups[i] == kind]
        # A label that starts with an underscore is hidden from legends; a space in front shows it.
        label = " " + kind if groups is not None else "motions"
        ax.scatter(
            points[chosen, 0],
            points[chosen, 1],
            s=28,
            color=colors[chosen[0]],
            edgecolors="white",
            label=label,
            zorder=3,
        )


def plot_latents(
    mu: np.ndarray,
    names: Sequence[str],
    path: Path | str,
    *,
    sigma: np.ndarray | None = None,
    samples: np.ndarray | None = None,
    groups: Sequence[str] | None = None,
) -> Path:
    """Draws the map of the motion space: every motion's latent along the two main axes of all of them.

    Args:
      mu: [M,D] means of the latents, finite.
      names: M names, written beside the points.
      path: the PNG to write (atomic).
      sigma: [M,D] standard deviations; drawn as ellipses of one standard deviation.
      samples: [S,D] further latents, drawn as small grey crosses on the same axes.
      groups: M names of groups; points of one group share a colour, explained in a legend.

    Returns:
      `path`.
    """
    mu = np.asarray(mu, np.float32)
    chex.assert_rank(mu, 2)
    if len(names) != len(mu) or not np.isfinite(mu).all() or not len(mu):
        raise ValueError(
            f"{len(names)} names for latents of shape {mu.shape}, expected one each, all finite, not empty"
        )
    center, axes, share = project_latents(mu)
    points = (mu - center) @ axes
    kinds = sorted(set(groups)) if groups is not None else [""]
    palette = matplotlib.colormaps["tab20" if len(kinds) > 10 else "tab10"]
    colors = [palette(kinds.index(g) % palette.N) for g in (groups if groups is not None else [""] * len(mu))]

    figure, (ax,) = _make_axes((8, 6.4))
    if sigma is not None:
        sigma = np.asarray(sigma, np.float32)
        chex.assert_equal_shape([mu, sigma])
        _draw_ellipses(ax, points, axes, sigma, colors)
    if samples is not None:
        drawn = (np.asarray(samples, np.float32) - center) @ axes
        ax.scatter(
            drawn[:, 0],
            drawn[:, 1],
            s=14,
            marker="x",
            linewidths=0.8,
            color=_MUTED,
            alpha=0.7,
            label="sampled",
            zorder=2,
        )
    _scatter_groups(ax, points, groups, kinds, colors)
    ax.set_xlabel(f"first main axis ({share[0]:.0%} of the variance)", color=_MUTED, fontsize=9)
    ax.set_ylabel(f"second main axis ({share[1]:.0%})", color=_MUTED, fontsize=9)
    ax.margins(0.12)
    ax.set_aspect("equal", adjustable="datalim")  # distances on the map are to be compared
    if groups is not None or samples is not None:
        legend = figure.legend(loc="outside right upper", fontsize=8, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    _place_labels(figure, ax, points, names)
    return _save(figure, path)


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Steps and values of one field, NaN where it was not finite, and how many those were."""
    pairs = [(row["step"], row[name]) for row in rows if name in row]
    values = np.array([np.nan if value is None else float(value) for _, value in pairs])
    steps = np.array([step for step, _ in pairs])
    return steps, np.where(np.isfinite(values), values, np.nan), int((~np.isfinite(values)).sum())


def _smooth(values: np.ndarray, *, half: int) -> np.ndarray:
    """A centred running mean over `2 half + 1` values that skips NaN."""
    kernel = np.ones(min(2 * half + 1, len(values)))
    known = np.isfinite(values)
    total = np.convolve(np.where(known, values, 0), kernel, mode="same")
    count = np.convolve(known.astype(float), kernel, mode="same")
    return np.where(known, total / np.maximum(count, 1), np.nan)


def _draw_curve(
    ax: Axes, rows: Sequence[Mapping[str, Any]], name: str, *, starts: Sequence[int], color: Any, bold: bool
) -> None:
    steps, values, num_missing = _column(rows, name)
    label = name + (f" ({num_missing} not finite)" if num_missing else "")
    if len(values) > 100:
        ax.plot(steps, values, color=color, linewidth=0.5, alpha=0.25)
        pieces = np.split(values, np.searchsorted(steps, starts))
        values = np.concatenate([_smooth(p, half=max(1, len(values) // 100)) for p in pieces if len(p)])
    marker = "o" if len(values) < 30 else None
    ax.plot(steps, values, color=color, linewidth=1.8 if bold else 1.0, marker=marker, markersize=3, label=label)


def _find_stages(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
    """First step and name of every stage."""
    staged = [row for row in rows if row.get("stage") is not None]
    firsts = [row for before, row in zip([None, *staged], staged) if before is None or before["stage"] != row["stage"]]
    return [(row["step"], str(row["stage"])) for row in firsts]


def _mark_stages(axes: Sequence[Axes], stages: Sequence[tuple[int, str]]) -> None:
    for step, name in stages:
        for ax in axes:
            ax.axvline(step, color=_MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
        axes[0].annotate(
            name,
            (step, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -2),
            textcoords="offset points",
            va="top",
            fontsize=8,
            color=_MUTED,
            parse_math=False,
        )


def plot_curves(rows: Sequence[Mapping[str, Any]], path: Path | str) -> Path:
    """Draws loss terms (logarithmic) and PSNR over the steps, with the start of each stage marked.

    Curves of more than 100 rows are drawn pale, with their running mean over a fiftieth of the length
    on top, which does not reach across the start of a stage. Values
    that are null or not finite leave a gap and are counted in the legend; of the losses, values of 0 or less have no
    logarithm and leave a gap too.

    Args:
      rows: as `read_metrics` gives them: `step`, and where known `stage`, `loss`, `loss/<term>`, and any field with
        "psnr" in its name.
      path: the PNG to write (atomic).

    Returns:
      `path`.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    losses = [name for name in names if name == "loss" or name.startswith("loss/")]
    psnrs = [name for name in names if "psnr" in name.lower()]
    panels = [(group, title) for group, title in ((losses, "loss"), (psnrs, "PSNR (dB)")) if group]
    if not panels:
        raise ValueError("rows have neither a loss nor a psnr, expected at least one of them")
    stages = _find_stages(rows)
    starts = [step for step, _ in stages]
    figure, axes = _make_axes((9, 3.4 * len(panels)), len(panels))
    for ax, (group, title) in zip(axes, panels):
        palette = matplotlib.colormaps["tab20" if len(group) > 10 else "tab10"]
        for index, name in enumerate(group):
            total = name in ("loss", "psnr")
            color = _INK if total else palette(index % palette.N)
            _draw_curve(ax, rows, name, starts=starts, color=color, bold=total)
        ax.set_ylabel(title, color=_MUTED, fontsize=9)
        if title == "loss":
            ax.set_yscale("log", nonpositive="mask")
        legend = ax.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        for text in legend.get_texts():
            text.set_parse_math(False)
    axes[-1].set_xlabel("step", color=_MUTED, fontsize=9)
    _mark_stages(axes, stages)
    return _save(figure, path)
