"""Figures of experiments with known answers: lines, points or maps, as their tables ask."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from bioattn.errors import DataError
from bioattn.plot.style import SERIES, new_axes, require_columns, styled

_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")


@styled
def experiment(
    table: pd.DataFrame,
    *,
    kind: str,
    x: str,
    y: str,
    series: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """One column of a table against another, a colour and marker for each value of a third.

    Parameters
    ----------
    kind : {"lines", "points"}
    x, y, series : str
        Columns.
    x_label, y_label : str
    log_x, log_y : bool
        Logarithmic axes.

    Raises
    ------
    DataError
        If a column is missing, or the kind is another.
    """
    require_columns(table, [x, y, series], "the figure of an experiment")
    if kind not in ("lines", "points"):
        raise DataError(f"figures of experiments are lines or points, got '{kind}'")
    ax = new_axes(4.2, 2.9) if ax is None else ax
    for place, (name, rows) in enumerate(table.groupby(series, sort=False)):
        rows = rows.sort_values(x)
        color, marker = SERIES[place % len(SERIES)], _MARKERS[place % len(_MARKERS)]
        few = len(rows) <= 20
        ax.plot(
            rows[x], rows[y], linestyle="solid" if kind == "lines" else "none", marker=marker if few else ".",
            markersize=4 if few else 2, color=color, label=str(name),
        )  # fmt: skip
    if log_x:
        ax.set_xscale("log", base=2)
        values = sorted(set(table[x]))
        if len(values) <= 8:
            ax.set_xticks(values, [f"{value:g}" for value in values])
            ax.minorticks_off()
    if log_y:
        ax.set_yscale("log")
        # Powers as text: mathematics is not parsed in our figures.
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
    else:
        ax.ticklabel_format(axis="y", useOffset=False)
    ax.set(xlabel=x_label, ylabel=y_label)
    if table[series].nunique() > 1:
        ax.legend(loc="best")
    return ax
