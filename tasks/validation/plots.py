"""The plots of the validation page as SVG text, see `tasks.html.plots`."""

from collections.abc import Collection, Mapping
from datetime import date, timedelta

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.ticker import FuncFormatter

from tasks.html.plots import HALF, LOOKS, QUIET, drawing

SHOWN_DAYS = 60

_NEW = LOOKS["teacher"].colour


def volume_plot(n_rows: Mapping[date, int], new: Collection[date]) -> str:
    """Rows in the lake: one bar per day.

    Args:
        n_rows: Rows by date; the last 60 days are drawn.
        new: Dates that are new, at least in part.
    """
    days = _latest(n_rows)
    with drawing(HALF, 2.7) as (figure, svg):
        axes = figure.subplots()
        for label, colour, chosen in (
            ("with new rows", _NEW, [day for day in days if day in new]),
            ("earlier", QUIET, [day for day in days if day not in new]),
        ):
            if chosen:
                heights = [n_rows[day] for day in chosen]
                axes.bar(date2num(chosen), heights, width=0.75, color=colour, label=label)
        axes.set_ylabel("rows")
        axes.yaxis.set_major_formatter(FuncFormatter(_short))
        axes.set_ylim(bottom=0)
        axes.grid(axis="x", visible=False)
        _date_axis(axes)
        if days:
            figure.legend(loc="outside upper left", ncols=2)
    return svg("volume", "Rows of each day in the lake")


def shift_plot(shifts: Mapping[date, float], new: Collection[date]) -> str:
    """Distance of the popularity from that of the trailing days: one point per day.

    Args:
        shifts: Jensen-Shannon distances, 0 to 1, by date; the last 60 days are drawn.
        new: Dates that are new, at least in part.
    """
    days = _latest(shifts)
    with drawing(HALF, 2.7) as (figure, svg):
        axes = figure.subplots()
        axes.plot(date2num(days), [shifts[day] for day in days], color=QUIET, linewidth=1)
        for day in days:
            colour = _NEW if day in new else QUIET
            axes.plot(
                date2num([day]),
                [shifts[day]],
                color=colour,
                marker="o",
                markersize=5,
                clip_on=False,
            )
        axes.set_ylabel("distance, 0 to 1")
        axes.set_ylim(0, 1)
        _date_axis(axes)
    return svg("shift", "Popularity of each day against the trailing days")


def _latest(values: Mapping[date, object]) -> list[date]:
    first = max(values, default=date.min + timedelta(SHOWN_DAYS)) - timedelta(SHOWN_DAYS)
    return sorted(day for day in values if day > first)


def _date_axis(axes: Axes) -> None:
    locator = AutoDateLocator(minticks=3, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))


def _short(value: float, _: int | None) -> str:
    """A number of rows as an axis label, such as 1.5 M."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"
