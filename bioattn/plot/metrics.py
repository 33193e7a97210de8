"""Held-out scores with confidence intervals, model next to baselines."""

import pandas as pd
from matplotlib.axes import Axes

from bioattn.plot.style import ACCENT, FAINT, INK, MUTED, new_axes, require_columns, styled


@styled
def metric_intervals(
    table: pd.DataFrame,
    *,
    highlight: str = "transformer",
    reference: tuple[str, float] | None = None,
    xlabel: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Dot and whisker per model for one metric.

    Parameters
    ----------
    table : DataFrame
        Columns model, value, ci_low, ci_high (NaN where there is no interval);
        one row per model, drawn from top to bottom.
    highlight : str
        Model drawn in the accent colour.
    reference : (label, value), optional
        A vertical line, such as the ceiling that a simulator states.
    """
    require_columns(table, ["model", "value", "ci_low", "ci_high"], "a metric figure")
    ax = new_axes(3.1, 0.3 * len(table) + 0.9) if ax is None else ax
    for y, row in enumerate(table.to_dict("records")):
        color = ACCENT if row["model"] == highlight else MUTED
        if pd.notna(row["ci_low"]) and pd.notna(row["ci_high"]):
            ax.plot([row["ci_low"], row["ci_high"]], [y, y], color=color, linewidth=2.2, solid_capstyle="round")
        ax.plot([row["value"]], [y], "o", color=color, markersize=6, markeredgecolor="white", markeredgewidth=0.8)
    if reference is not None and pd.notna(reference[1]):
        ax.axvline(reference[1], color=INK, linewidth=0.9, linestyle="dashed")
        ax.annotate(
            reference[0], (reference[1], 1), xycoords=("data", "axes fraction"), xytext=(-3, 1), fontsize=8,
            textcoords="offset points", ha="right", va="bottom",
        )  # fmt: skip
    ax.set_yticks(range(len(table)), [str(name) for name in table["model"]])
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.grid(axis="x", color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_xlabel(xlabel)
    return ax
