"""How fast a readout changes while bases are replaced or restored, and how few edges of attention are enough."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bioattn.errors import DataError
from bioattn.plot.style import FAINT, MUTED, SERIES, new_axes, new_grid, require_columns, styled

#: What attributions are called. Their order is that of their colours, which they keep whichever are there.
ATTRIBUTIONS = {
    "ism": "mutagenesis (ISM)",
    "integrated_gradients": "integrated gradients",
    "input_x_gradient": "input × gradient",
    "gradient_sum": "attention × gradient",
    "received_sum": "attention received",
    "random": "random order",
}
_COLORS = dict(zip(ATTRIBUTIONS, SERIES, strict=False)) | {"random": MUTED}
_DIRECTIONS = {
    "deletion": ("Deletion", "bases replaced, most important first (%)"),
    "insertion": ("Insertion", "bases restored, most important first (%)"),
}


@styled
def faithfulness_curves(table: pd.DataFrame, *, unit: str = "") -> Figure:
    """Deletion and insertion side by side, a line with its band for each attribution; random orders in grey.

    Parameters
    ----------
    table : DataFrame
        Columns kind, direction ("deletion" or "insertion"), fraction (0 to 1), mean,
        ci_low, ci_high (NaN: no band).
    unit : str
        Name of the readout's scale.

    Raises
    ------
    DataError
        If a column is missing or there is no row of either direction.
    """
    require_columns(table, ["kind", "direction", "fraction", "mean", "ci_low", "ci_high"], "a figure of faithfulness")
    shown = table[table["direction"].isin(list(_DIRECTIONS))]
    if shown.empty:
        raise DataError("a figure of faithfulness needs rows of deletion or insertion, found none")
    present = set(map(str, shown["kind"]))
    kinds = [kind for kind in ATTRIBUTIONS if kind in present] + sorted(present - set(ATTRIBUTIONS))
    figure, axes = new_grid(1, 2, width=7.6, height=3.4)
    axes[0, 1].sharey(axes[0, 0])  # before anything is drawn, so that the axis makes room for both
    for ax, direction in zip(axes[0], _DIRECTIONS, strict=True):
        rows = shown[shown["direction"] == direction]
        _panel(ax, {kind: rows[rows["kind"] == kind].sort_values("fraction") for kind in kinds}, direction)
    axes[0, 0].set_ylabel(f"readout ({unit})" if unit else "readout")
    axes[0, 1].tick_params(labelleft=False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _panel(ax: Axes, curves: dict[str, pd.DataFrame], direction: str) -> None:
    spare = iter([*SERIES[len(ATTRIBUTIONS) - 1 :], *SERIES] * len(curves))
    for kind, rows in curves.items():
        color = _COLORS[kind] if kind in _COLORS else next(spare)
        behind = kind == "random"
        x = 100 * rows["fraction"]
        ax.fill_between(x, rows["ci_low"], rows["ci_high"], color=color, alpha=0.1, linewidth=0, zorder=1)
        ax.plot(
            x, rows["mean"], color=color, label=ATTRIBUTIONS.get(kind, kind), zorder=2 if behind else 3,
            linestyle="dashed" if behind else "solid", linewidth=1.2 if behind else 1.5,
        )  # fmt: skip
    title, label = _DIRECTIONS[direction]
    ax.set(title=title, xlabel=label, xlim=(0, 100))
    ax.grid(axis="y", color=FAINT, linewidth=0.5)


#: What rankings of edges are called; as attributions, chance is grey.
EDGES = {"pattern": "attention", "gradient": "attention × gradient", "random": "random edges"}


@styled
def edge_curves(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Share of the readout's variance that is left when only some edges are the model's own, a line for each ranking.

    Parameters
    ----------
    table : DataFrame
        Columns ranking, kept (0 to 1), explained, ci_low, ci_high (NaN: no band).

    Raises
    ------
    DataError
        If a column is missing.
    """
    require_columns(table, ["ranking", "kept", "explained", "ci_low", "ci_high"], "a figure of edges")
    ax = new_axes(6.0, 3.0) if ax is None else ax
    for (ranking, name), color in zip(EDGES.items(), (SERIES[0], SERIES[1], MUTED), strict=True):
        rows = table[table["ranking"] == ranking].sort_values("kept")
        chance = ranking == "random"
        ax.fill_between(100 * rows["kept"], rows["ci_low"], rows["ci_high"], color=color, alpha=0.1, linewidth=0)
        ax.plot(
            100 * rows["kept"], rows["explained"], color=color, label=name, linestyle="dashed" if chance else "solid",
            marker=None if chance else "o", markersize=3,
        )  # fmt: skip
    # Few edges are what it is about: a linear axis would hide them, a logarithmic one has no place for none.
    ax.set_xscale("symlog", linthresh=1, linscale=0.5)
    ax.set_xticks([0, 1, 2, 5, 10, 20, 50, 100], ["0", "1", "2", "5", "10", "20", "50", "100"])
    ax.minorticks_off()
    low = float(table["explained"].min())
    ax.set(
        xlabel="edges kept, the first in rank (%)",
        ylabel="variance explained",
        ylim=(max(-1.0, min(low, 0.0)) - 0.05, 1.05),
    )
    ax.axhline(0, color=FAINT, linewidth=0.6, zorder=0)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax
