"""Predicted against measured values of a regression."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from bioattn.errors import DataError
from bioattn.plot.style import ACCENT, INK, figure_of, new_axes, styled

#: Above this many points single dots hide each other.
_HEXBIN_FROM = 1500


@styled
def predicted_measured(target: np.ndarray, prediction: np.ndarray, *, unit: str = "", ax: Axes | None = None) -> Axes:
    """Predicted (vertical) against measured (horizontal); a density from 1,500 points on.

    Parameters
    ----------
    target, prediction : ndarray, shape (N,)
        Same unit; pairs with a missing value are left out.

    Raises
    ------
    DataError
        If the lengths differ or no pair is complete.
    """
    target, prediction = np.asarray(target, dtype=float), np.asarray(prediction, dtype=float)
    if target.shape != prediction.shape:
        raise DataError(f"targets and predictions must pair up, got {target.shape} and {prediction.shape}")
    keep = np.isfinite(target) & np.isfinite(prediction)
    if not keep.any():
        raise DataError("no example has both a finite target and a finite prediction")
    target, prediction = target[keep], prediction[keep]
    ax = new_axes(3.8, 3.3) if ax is None else ax
    low = min(target.min(), prediction.min())
    high = max(target.max(), prediction.max())
    if len(target) >= _HEXBIN_FROM:
        cells = ax.hexbin(target, prediction, gridsize=42, bins="log", mincnt=1, cmap="Blues", linewidths=0.1)
        # Plain numbers: the default formatter writes powers of ten as math text, which SVG text does not render.
        plain = FuncFormatter(lambda value, _: f"{value:g}")
        figure_of(ax).colorbar(cells, ax=ax, label="sequences", shrink=0.75, format=plain)
    else:
        ax.plot(target, prediction, "o", color=ACCENT, markersize=3.2, alpha=0.5, markeredgewidth=0)
    ax.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle="dashed")
    suffix = f" ({unit})" if unit else ""
    ax.set(xlabel=f"measured{suffix}", ylabel=f"predicted{suffix}")
    return ax
