"""Where each head looks: mean attention received along the sequence."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bioattn.errors import DataError
from bioattn.plot.logo import Site, mark_sites
from bioattn.plot.style import ACCENT, FAINT, MUTED, new_axes, new_grid, require_columns, styled


@styled
def received_profile(
    profile: pd.DataFrame, *, sites: tuple[Site, ...] = (), title: str = "", ax: Axes | None = None
) -> Axes:
    """Mean attention that one head's tokens receive, by position.

    Parameters
    ----------
    profile : DataFrame
        Columns position (bp, first base of the token) and received; background,
        if present, is drawn in grey. Uniform attention is 1.
    """
    require_columns(profile, ["position", "received"], "a positional profile")
    ax = new_axes(4.0, 1.6) if ax is None else ax
    profile = profile.sort_values("position")
    mark_sites(ax, sites)
    if "background" in profile:
        ax.plot(profile["position"], profile["background"], color=MUTED, linewidth=1.0, linestyle="dashed")
    ax.fill_between(profile["position"], profile["received"], color=ACCENT, alpha=0.12, linewidth=0)
    ax.plot(profile["position"], profile["received"], color=ACCENT, linewidth=1.3)
    ax.set_ylim(bottom=0)
    ax.set_title(title, fontsize=8.5, pad=13 if sites else None)
    ax.grid(axis="y", color=FAINT, linewidth=0.5)
    return ax


@styled
def received_profiles(table: pd.DataFrame, *, sites: tuple[Site, ...] = ()) -> Figure:
    """Grid of `received_profile`, layers down and heads across.

    Parameters
    ----------
    table : DataFrame
        Columns layer, head, position, received (and background).
    """
    require_columns(table, ["layer", "head", "position", "received"], "positional profiles")
    if table.empty:
        raise DataError("positional profiles need at least one row, got an empty table")
    layers, heads = sorted(table["layer"].unique()), sorted(table["head"].unique())
    figure, axes = new_grid(len(layers), len(heads), width=2.5 * len(heads), height=1.55 * len(layers) + 0.3)
    for row, layer in enumerate(layers):
        for column, head in enumerate(heads):
            rows = table[(table["layer"] == layer) & (table["head"] == head)]
            received_profile(rows, sites=sites, title=f"layer {layer}, head {head}", ax=axes[row, column])
        axes[row, 0].set_ylabel("received")
    for ax in axes[-1]:
        ax.set_xlabel("position (bp)")
    return figure
