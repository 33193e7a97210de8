"""Curves of a classifier: ROC, precision-recall, calibration."""

import pandas as pd
from matplotlib.axes import Axes

from bioattn.errors import DataError
from bioattn.plot.style import ACCENT, MUTED, SERIES, new_axes, require_columns, styled

_LABELS = {
    "roc": ("false positive rate", "true positive rate", "ROC"),
    "pr": ("recall", "precision", "Precision-recall"),
    "calibration": ("predicted probability", "observed share", "Calibration"),
}


@styled
def classifier_curve(
    table: pd.DataFrame,
    *,
    kind: str,
    highlight: str = "transformer",
    chance: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """One curve per model.

    Parameters
    ----------
    table : DataFrame
        Columns model, x, y, in drawing order; column replicate, if present,
        separates curves of one model, which then share a colour.
    kind : {"roc", "pr", "calibration"}
        Decides the axis names and the reference line.
    chance : float, optional
        Height of the reference line of a precision-recall curve: the share of positives.
    """
    if kind not in _LABELS:
        raise DataError(f"kind must be one of {sorted(_LABELS)}, got {kind!r}")
    require_columns(table, ["model", "x", "y"], "a curve")
    ax = new_axes(3.05, 2.9) if ax is None else ax
    _reference(ax, kind, chance)
    others = iter(SERIES[1:] * (1 + table["model"].nunique() // (len(SERIES) - 1)))
    for model, rows in table.groupby("model", sort=False):
        color = ACCENT if model == highlight else next(others)
        parts = rows.groupby("replicate", sort=False) if "replicate" in rows else [("", rows)]
        for index, (_, part) in enumerate(parts):
            marker = "o" if kind == "calibration" else ""
            label = str(model) if index == 0 else None
            ax.plot(
                part["x"], part["y"], color=color, marker=marker, markersize=3.5, label=label,
                linewidth=1.6 if model == highlight else 1.1, zorder=3 if model == highlight else 2,
            )  # fmt: skip
    xlabel, ylabel, title = _LABELS[kind]
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title, xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    ax.legend(loc="best")
    return ax


def _reference(ax: Axes, kind: str, chance: float | None) -> None:
    if kind == "pr":
        if chance is not None:
            ax.axhline(chance, color=MUTED, linewidth=0.8, linestyle="dashed")
        return
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="dashed")
