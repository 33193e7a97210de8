"""How examples are divided, and what leaks across the division."""

import pandas as pd
from matplotlib.axes import Axes

from bioattn.plot.style import FAINT, MUTED, SERIES, WARM, new_axes, require_columns, styled

_SUBSETS = ("train", "validation", "test")


@styled
def split_bars(counts: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Stacked bar per fold with the number of training, validation and test examples.

    Parameters
    ----------
    counts : DataFrame
        Columns fold, subset, n.
    """
    require_columns(counts, ["fold", "subset", "n"], "split bars")
    wide = counts.pivot_table(index="fold", columns="subset", values="n", aggfunc="sum", fill_value=0)
    ax = new_axes(4.4, 0.36 * len(wide) + 0.9) if ax is None else ax
    left = pd.Series(0.0, index=wide.index)
    for subset, color in zip(_SUBSETS, ("#56B4E9", "#E69F00", SERIES[0]), strict=True):
        if subset in wide:
            ax.barh(range(len(wide)), wide[subset], left=left, color=color, label=subset, height=0.62)
            left += wide[subset]
    ax.set_yticks(range(len(wide)), [f"fold {fold}" for fold in wide.index])
    ax.invert_yaxis()
    ax.set_xlabel("sequences")
    ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


@styled
def leakage_bars(leakage: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Share of held-out sequences that resemble a training sequence, by kind of resemblance.

    Parameters
    ----------
    leakage : DataFrame
        Columns kind, fraction (0 to 1).
    """
    require_columns(leakage, ["kind", "fraction"], "leakage bars")
    ax = new_axes(4.7, 0.32 * len(leakage) + 0.8) if ax is None else ax
    percent = 100.0 * leakage["fraction"].astype(float)
    ax.barh(range(len(leakage)), percent, color=[WARM if value > 1.0 else MUTED for value in percent], height=0.62)
    for y, value in enumerate(percent):
        ax.annotate(f"{value:.3g} %", (value, y), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
    ax.set_yticks(range(len(leakage)), [str(kind) for kind in leakage["kind"]])
    ax.invert_yaxis()
    ax.set_xlim(0, max(5.0, 1.15 * float(percent.max() if len(percent) else 0.0)))
    ax.set_xlabel("held-out sequences (%)")
    ax.grid(axis="x", color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    return ax
