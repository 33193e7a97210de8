"""In-silico saturation mutagenesis: how much each position matters, and to which letter."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bioattn.errors import DataError
from bioattn.plot.logo import Site, mark_sites
from bioattn.plot.style import ACCENT, new_axes, new_grid, styled


@styled
def importance_profile(
    importance: np.ndarray,
    *,
    start: int = 0,
    sites: Sequence[Site] = (),
    ylabel: str = "mean |change|",
    ax: Axes | None = None,
) -> Axes:
    """Importance of each position as bars, with named sites shaded.

    Parameters
    ----------
    importance : ndarray, shape (L,)
        Any non-negative summary of the substitutions at a position.
    start : int
        Position of the first value.
    """
    importance = np.asarray(importance, dtype=float)
    if importance.ndim != 1 or not len(importance):
        raise DataError(f"a profile must have shape (L,) with L > 0, got {importance.shape}")
    ax = new_axes(8.4, 1.9) if ax is None else ax
    mark_sites(ax, sites)
    positions = np.arange(start, start + len(importance))
    ax.bar(positions, importance, width=0.85, color=ACCENT, linewidth=0)
    ax.set_xlim(positions[0] - 1, positions[-1] + 1)
    ax.set_xlabel("position (bp)")
    ax.set_ylabel(ylabel)
    return ax


@styled
def substitution_map(effects: np.ndarray, *, start: int = 0, sites: Sequence[Site] = (), unit: str = "") -> Figure:
    """Profile above a map of the mean effect of each substitution.

    Parameters
    ----------
    effects : ndarray, shape (A=4, L)
        Mean change of the readout when the position is set to A, C, G or T; NaN
        where no substitution was made.
    unit : str
        Name of the readout's scale, for the colour bar.
    """
    effects = np.asarray(effects, dtype=float)
    if effects.ndim != 2 or effects.shape[0] != 4 or not effects.shape[1]:
        raise DataError(f"substitution effects must have shape (4, L), got {effects.shape}")
    figure, axes = new_grid(2, 1, width=8.6, height=3.1)
    upper, lower = axes[:, 0]
    importance = np.abs(np.nan_to_num(effects)).sum(axis=0) / np.maximum(np.isfinite(effects).sum(axis=0), 1)
    importance_profile(importance, start=start, sites=sites, ax=upper)
    upper.set_xlabel("")
    limit = float(np.nanmax(np.abs(effects))) if np.isfinite(effects).any() else 1.0
    length = effects.shape[1]
    image = lower.imshow(
        effects, cmap="RdBu_r", vmin=-limit or -1.0, vmax=limit or 1.0, aspect="auto", interpolation="nearest",
        extent=(start - 0.5, start + length - 0.5, 3.5, -0.5),
    )  # fmt: skip
    lower.set_xlim(upper.get_xlim())
    lower.set_yticks(range(4), list("ACGT"))
    lower.set_xlabel("position (bp)")
    figure.colorbar(image, ax=lower, label=f"change ({unit})" if unit else "change", pad=0.01)
    return figure
