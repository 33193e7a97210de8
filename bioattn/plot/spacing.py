"""How the epistasis of a pair depends on the distance and the strands of its sites."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bioattn.plot.style import MUTED, SERIES, new_axes, require_columns, styled

_STRANDS = ((True, "same strand", "o", SERIES[0]), (False, "opposite strands", "s", SERIES[1]))


@styled
def spacing_curve(
    table: pd.DataFrame, *, minimum: float | None = None, names: tuple[str, str] = ("a", "b"), ax: Axes | None = None
) -> Axes:
    """Epistasis of one pair at each distance, on the same strand and on opposite ones.

    Parameters
    ----------
    table : DataFrame
        Columns distance_bp (second site less first; negative: to its left), same_strand,
        epistasis, ci_low, ci_high.
    minimum : float, optional
        Epistasis that counts; drawn as a band around zero.
    names : tuple of str
        Of the two motifs.
    """
    require_columns(table, ["distance_bp", "same_strand", "epistasis", "ci_low", "ci_high"], "a spacing curve")
    ax = new_axes(4.2, 2.6) if ax is None else ax
    if minimum is not None and np.isfinite(minimum):
        ax.axhspan(-minimum, minimum, color=MUTED, alpha=0.15, linewidth=0)
    ax.axhline(0, color=MUTED, linewidth=0.6)
    for same, label, marker, color in _STRANDS:
        rows = table[table["same_strand"].astype(bool) == same].sort_values("distance_bp")
        # No line across the first site: there is no distance there.
        for side, part in enumerate((rows[rows["distance_bp"] < 0], rows[rows["distance_bp"] > 0])):
            ax.fill_between(part["distance_bp"], part["ci_low"], part["ci_high"], color=color, alpha=0.2, linewidth=0)
            ax.plot(
                part["distance_bp"], part["epistasis"], color=color, marker=marker, markersize=3,
                label=label if side == 0 else None, linewidth=1.1,
            )  # fmt: skip
    ax.set_xlabel(f"{names[1]} left of {names[0]}    distance (bp)    right")
    ax.set_ylabel("epistasis")
    ax.legend(loc="best")
    ax.margins(y=0.15)
    return ax
