"""Figures of experiments with known answers: lines, points or logos, as their tables ask."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bioattn.errors import DataError
from bioattn.plot.logo import information_logo
from bioattn.plot.style import SERIES, new_axes, require_columns, styled

#: Legends of more entries stand beside the axes.
_INSIDE = 3
#: So many values of x are written out.
_FEW = 8
#: Powers as plain numbers: mathematics is not parsed in our figures.
_PLAIN = FuncFormatter(lambda value, _place: f"{value:g}")
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
    """One column of a table against another, a colour and marker for each value of a third; or a logo for each.

    Parameters
    ----------
    kind : {"lines", "points", "logos"}
        Logos are of the probabilities in columns A, C, G and T, two side by side; `y` and `ax` are not used.
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
    if kind not in ("lines", "points", "logos"):
        raise DataError(f"figures of experiments are lines, points or logos, got '{kind}'")
    if kind == "logos":
        return _logos(table, x, series, x_label)
    require_columns(table, [x, y, series], "the figure of an experiment")
    ax = new_axes(4.2 if table[series].nunique() <= _INSIDE else 6.2, 2.9) if ax is None else ax
    for place, (name, rows) in enumerate(table.groupby(series, sort=False)):
        rows = rows.sort_values(x)
        color, marker = SERIES[place % len(SERIES)], _MARKERS[place % len(_MARKERS)]
        few = len(rows) <= 20
        ax.plot(
            rows[x], rows[y], linestyle="solid" if kind == "lines" else "none", marker=marker if few else ".",
            markersize=4 if few else 2, color=color, label=str(name),
        )  # fmt: skip
    _scale_x(ax, table[x], log=log_x)
    _scale_y(ax, log=log_y)
    ax.set(xlabel=x_label, ylabel=y_label)
    n_series = table[series].nunique()
    if n_series > _INSIDE:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    elif n_series > 1:
        ax.legend(loc="best")
    return ax


def _scale_x(ax: Axes, values: pd.Series, *, log: bool) -> None:
    """Ticks at the values themselves where these are few, be it whole numbers or on a logarithmic axis."""
    if log:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(_PLAIN)
    known = sorted(set(values))
    if len(known) <= _FEW and (log or values.dtype.kind == "i"):
        ax.set_xticks(known, [f"{value:g}" for value in known])
        ax.minorticks_off()


def _scale_y(ax: Axes, *, log: bool) -> None:
    if not log:
        ax.ticklabel_format(axis="y", useOffset=False)
        return
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    # Within two decades there is room for numbers between them.
    near = high < 100 * low
    ax.yaxis.set_major_formatter(_PLAIN)
    ax.yaxis.set_minor_locator(LogLocator(subs=(2, 5) if near else range(2, 10)))
    ax.yaxis.set_minor_formatter(_PLAIN if near else NullFormatter())


def _logos(table: pd.DataFrame, x: str, series: str, x_label: str) -> Axes:
    require_columns(table, [x, series, *"ACGT"], "the figure of an experiment")
    names = list(dict.fromkeys(table[series]))
    rows = -(-len(names) // 2)
    panels = Figure(figsize=(6.4, 1.5 * rows), layout="constrained").subplots(rows, 2, squeeze=False).ravel()
    for ax, name in zip(panels, names, strict=False):
        chosen = table[table[series] == name].sort_values(x)
        information_logo(chosen[list("ACGT")].to_numpy().T, title=str(name), ax=ax).set_xlabel(x_label)
    for ax in panels[len(names) :]:
        ax.set_axis_off()
    first: Axes = panels[0]
    return first
