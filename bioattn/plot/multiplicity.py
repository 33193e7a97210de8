"""Whether motifs with many hits have many calls: a sign that occurrences were counted, not effects."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes

from bioattn.plot.style import SERIES, new_axes, require_columns, styled

_MARKERS = ("o", "s", "^")


@styled
def calls_against_hits(table: pd.DataFrame, calls: Mapping[str, str], *, ax: Axes | None = None) -> Axes:
    """Number of calls of each motif against the number of its hits, for several kinds of calls.

    Parameters
    ----------
    table : DataFrame
        One row per motif: n_hits, and the columns of `calls`.
    calls : mapping of str to str
        Column -> name in the legend.
    """
    require_columns(table, ["n_hits", *calls], "calls against hits")
    ax = new_axes(4.2, 3.0) if ax is None else ax
    for i, (column, name) in enumerate(calls.items()):
        # Side by side, or equal counts hide each other.
        ax.plot(
            table["n_hits"], table[column] + 0.12 * (i - (len(calls) - 1) / 2), _MARKERS[i % len(_MARKERS)],
            color=SERIES[i % len(SERIES)], markersize=5, linestyle="none", label=name,
        )  # fmt: skip
    ax.set_xlabel("sequences with a hit of the motif")
    ax.set_ylabel("pairs of the motif that are called")
    ax.set_ylim(bottom=-0.5)
    ax.legend(loc="best")
    return ax
