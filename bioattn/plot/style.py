"""One look for all figures: fonts, sizes, and the colours that carry meaning.

Colours follow Okabe and Ito's palette, which stays distinct for colour-blind
readers; verdicts differ in line style too, so they survive a grey print.
"""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import matplotlib
import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bioattn.errors import DataError

P = ParamSpec("P")
R = TypeVar("R")

INK = "#1f2933"
MUTED = "#66727f"
FAINT = "#d5dbe1"
ACCENT = "#0072B2"
WARM = "#D55E00"

#: Seeds, folds and classes, in order of use.
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6b7280", "#8c6d1f")

#: Letters of a logo.
LETTERS = {"A": "#109648", "C": "#255C99", "G": "#D98E04", "T": "#C8102E"}

#: Verdicts on attention heads, in order of how much they claim.
KINDS = {
    "motif": "#009E73",
    "weak": "#56B4E9",
    "redundant": "#CC79A7",
    "positional": "#0072B2",
    "diffuse": "#E69F00",
    "dead": "#A9B2BC",
}


class VerdictStyle(NamedTuple):
    """How one verdict is drawn: colour, line style and a short name."""

    color: str
    line: Any
    short: str


#: Every verdict in order of how much it claims.
VERDICTS: dict[str, VerdictStyle] = {
    "causal in model": VerdictStyle("#009E73", "solid", "causal in model"),
    "hidden (causal without attention)": VerdictStyle("#0072B2", "dashdot", "hidden"),
    "co-occurrence confounded": VerdictStyle("#E69F00", "dashed", "confounded"),
    "attention-only (correlational)": VerdictStyle("#CC79A7", "dotted", "attention-only"),
    "not supported": VerdictStyle("#7C8794", "solid", "not supported"),
    "insufficient data": VerdictStyle("#A9B2BC", "dashed", "insufficient data"),
    "not tested": VerdictStyle("#CDD4DB", "dotted", "not tested"),
}

#: Verdicts that say something happened; the others are drawn as background.
TELLING = tuple(VERDICTS)[:4]

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelsize": 9.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=SERIES),
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "text.color": INK,
    "lines.linewidth": 1.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    # Text stays text: smaller, searchable, and sharp at every size.
    "svg.fonttype": "none",
    # Matplotlib salts element ids with a random number otherwise.
    "svg.hashsalt": "bioattn",
    # User names may hold a dollar sign; nothing here is mathematics.
    "text.parse_math": False,
}


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Draw inside the house style whatever the caller's settings are, and leave those alone."""

    @wraps(function)
    def inside(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(STYLE):
            return function(*args, **kwargs)

    return inside


@styled
def new_axes(width: float = 5.0, height: float = 3.2) -> Axes:
    """One empty axes on a new figure (width and height in inches).

    Figures are made without pyplot, so nothing piles up in its global list.
    """
    return Figure(figsize=(width, height), layout="constrained").add_subplot()


@styled
def new_grid(n_rows: int, n_columns: int, *, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """A figure and its axes, array (n_rows, n_columns)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(n_rows, n_columns, squeeze=False)


def whole_number_ticks(ax: Axes) -> None:
    """Ticks of the horizontal axis at whole numbers only."""
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins="auto"))


def figure_of(ax: Axes) -> Figure:
    """The figure that holds an axes."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def verdict_style(verdict: object) -> VerdictStyle:
    """Style of a verdict; an unknown one looks like 'not tested'."""
    return VERDICTS.get(str(verdict), VERDICTS["not tested"])


def require_columns(table: pd.DataFrame, columns: Iterable[str], what: str) -> None:
    """Raise `DataError` naming the columns that a table lacks."""
    missing = [column for column in columns if column not in table]
    if missing:
        raise DataError(f"{what} needs the columns {missing}, found {list(table.columns)}: make the table anew")
