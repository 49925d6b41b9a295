"""The report's plots as SVG text; equal figures give equal bytes.

Text stays text and colours become CSS variables, so a plot has the page's font and its light or
dark colours. Opened alone, it has the light ones.
"""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from html import escape
from math import ceil
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from recsys_core.evaluation.results import MODELS
from recsys_core.units import format_bytes
from tasks.contracts.network import Curve, CurveFigure


class Look(NamedTuple):
    """How a model is shown in every plot: by colour and by shape."""

    label: str
    colour: str
    marker: str


LOOKS: dict[str, Look] = {
    "teacher": Look("Teacher", "#2f6db5", "s"),
    "student": Look("Student", "#178a6c", "o"),
    "control": Look("Control", "#7d8590", "^"),
    "compressed": Look("Compressed", "#c4501b", "D"),
    "champion": Look("Champion", "#a04a8d", "P"),
    "item_knn": Look("Item-kNN", "#94750a", "X"),
    "popularity": Look("Popularity", "#5c6370", "v"),
}
INK, QUIET, GRID, PAPER = "#1c2128", "#5b6470", "#d6dae0", "#fefefe"
GOOD, BAD, OPEN = "#17734f", "#b42318", "#7a5b00"
VARIABLES = {
    INK: "ink",
    QUIET: "quiet",
    GRID: "grid",
    PAPER: "paper",
    GOOD: "good",
    BAD: "bad",
    OPEN: "open",
    **{look.colour: name.replace("_", "-") for name, look in LOOKS.items()},
}

HALF, FULL = 4.9, 7.6
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.color": GRID,
    "ytick.labelcolor": INK,
    "ytick.major.size": 0,
}


class Estimate(NamedTuple):
    """A mean with its confidence interval."""

    mean: float
    low: float
    high: float


def quality_plot(estimates: Mapping[str, Estimate]) -> str:
    """NDCG@10 on all cases: one bar per model, with its interval."""
    with drawing(HALF, 0.6 + 0.34 * max(6, len(estimates))) as (figure, svg):
        axes = _axes(figure)
        for row, (model, estimate) in enumerate(estimates.items()):
            axes.barh(row, estimate.mean, height=0.62, color=LOOKS[model].colour)
            axes.errorbar(
                estimate.mean, row, xerr=_reach(estimate), color=INK, elinewidth=1.2, capsize=3
            )
            axes.annotate(
                f"{estimate.mean:.4f}", (estimate.high, row), (7, 0), textcoords="offset points",
                va="center",
            )  # fmt: skip
        axes.set_yticks(range(len(estimates)), [LOOKS[model].label for model in estimates])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("NDCG@10")
        axes.set_xlim(0, 1.14 * max((estimate.high for estimate in estimates.values()), default=1))
    return svg("quality", "NDCG@10 of each model with its confidence interval")


def size_plot(estimates: Mapping[str, Estimate], sizes: Mapping[str, float]) -> str:
    """NDCG@10 against bytes on disk (logarithmic), for the models that have both."""
    both = [model for model in estimates if sizes.get(model)]
    with drawing(HALF, 3.0) as (figure, svg):
        axes = _axes(figure)
        for model in both:
            label, colour, marker = LOOKS[model]
            estimate, size = estimates[model], sizes[model]
            axes.errorbar(
                size, estimate.mean, yerr=_reach(estimate), color=colour, marker=marker,
                markersize=7, elinewidth=1.2, capsize=3, linestyle="none",
                label=f"{label}, {format_bytes(size)}",
            )  # fmt: skip
        axes.set_xscale("log")
        if both:
            smallest, largest = (choose(sizes[model] for model in both) for choose in (min, max))
            axes.set_xlim(smallest / 1.7, largest * 1.7)
            subs = (1.0, 2.0, 5.0) if largest < 20 * smallest else (1.0,)
            axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: format_bytes(size)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("size on disk, logarithmic")
        axes.set_ylabel("NDCG@10")
        _legend(figure, axes, n_columns=2)
    return svg("size", "NDCG@10 of the models against their size on disk")


def slice_plot(slices: Mapping[str, Mapping[str, Estimate]]) -> str:
    """NDCG@10 by slice: one row per slice, one marker per model.

    Args:
        slices: The slice's label → model → figure.
    """
    models = [model for model in MODELS if any(model in estimates for estimates in slices.values())]
    step = 0.7 / max(1, len(models))
    with drawing(FULL, 1.1 + 0.115 * (len(models) + 1.5) * len(slices)) as (figure, svg):
        axes = _axes(figure)
        for place, model in enumerate(models):
            label, colour, marker = LOOKS[model]
            rows = [row for row, by_model in enumerate(slices.values()) if model in by_model]
            estimates = [by_model[model] for by_model in slices.values() if model in by_model]
            axes.errorbar(
                [estimate.mean for estimate in estimates],
                [row + step * (place - (len(models) - 1) / 2) for row in rows],
                xerr=[[reach[side][0] for reach in map(_reach, estimates)] for side in (0, 1)],
                linestyle="none", color=colour, marker=marker, markersize=5, elinewidth=1,
                label=label,
            )  # fmt: skip
        for row in range(1, len(slices)):
            axes.axhline(row - 0.5, color=GRID, linewidth=0.6)
        axes.set_yticks(range(len(slices)), list(slices))
        axes.set_ylim(max(1, len(slices)) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("NDCG@10")
        axes.set_xlim(left=0)
        _legend(figure, axes)
    return svg("slices", "NDCG@10 of each model by slice of users and items")


def curve_plot(curves: Mapping[str, Curve]) -> str:
    """Two panels over the epochs: validation NDCG@10 and training loss."""
    panels: dict[CurveFigure, str] = {
        "validation_ndcg_at_10": "Validation NDCG@10",
        "loss": "Training loss, nats",
    }
    with drawing(FULL, 2.9) as (figure, svg):
        both: list[Axes] = list(figure.subplots(1, 2, sharex=True))
        for axes, (figure_name, title) in zip(both, panels.items(), strict=True):
            for model, curve in curves.items():
                label, colour, marker = LOOKS[model]
                values = curve.values(figure_name)
                axes.plot(
                    [epoch for epoch, _ in values], [value for _, value in values],
                    color=colour, marker=marker, markersize=4, linewidth=1.4, label=label,
                    markevery=max(1, ceil(len(values) / 12)),
                )  # fmt: skip
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        _legend(figure, both[0])
    return svg("curves", "Validation NDCG@10 and training loss of each model by epoch")


def _axes(figure: Figure) -> Axes:
    return figure.subplots()


def _reach(estimate: Estimate) -> list[list[float]]:
    """Distance of the interval's ends below and above the mean, as for error bars."""
    return [
        [max(0.0, estimate.mean - estimate.low)],
        [max(0.0, estimate.high - estimate.mean)],
    ]


def _legend(figure: Figure, axes: Axes, n_columns: int = len(LOOKS)) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="outside upper left", ncols=n_columns, columnspacing=1.2,
            handletextpad=0.3, handlelength=1.4,
        )  # fmt: skip


class _Drawing:
    """Gives a figure's SVG after its block: `svg(name, title)`."""

    def __init__(self) -> None:
        self.text = ""

    def __call__(self, name: str, title: str) -> str:
        """Make ids unique on the page, name the picture for screen readers, use CSS colours.

        The page's style sheet sets the width and the font.
        """
        body = self.text[self.text.index("<svg") :].strip()
        body = _IDS_AND_REFERENCES.sub(rf"\g<0>{name}-", body)
        for colour, variable in VARIABLES.items():
            body = body.replace(colour, f"var(--{variable}, {colour})")
        label = escape(title, quote=True)
        return body.replace("<svg", f'<svg class="plot" role="img" aria-label="{label}"', 1)


_IDS_AND_REFERENCES = re.compile(r'\bid="|href="#|url\(#')
_NO_METADATA: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@contextmanager
def drawing(width: float, height: float) -> Iterator[tuple[Figure, _Drawing]]:
    """A figure of this many inches, which becomes SVG at the end of the block."""
    drawn, buffer = _Drawing(), io.StringIO()
    with rc_context({**_RC, "svg.hashsalt": "recdistill"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, drawn
        figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    drawn.text = buffer.getvalue()
