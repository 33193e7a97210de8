"""How much classes differ in composition, before and after negatives were matched."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bioattn.plot.style import ACCENT, FAINT, MUTED, WARM, new_axes, require_columns, styled

#: Customary limits of a small and of a large standardised difference.
SMALL, LARGE = 0.1, 0.25


@styled
def love_plot(differences: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Size of the standardised difference of each feature: a dot, and a ring where it was before matching.

    Lines mark a small and a large difference. What is beyond the axis, such as
    the infinite difference of two constants, is a triangle at its end.

    Parameters
    ----------
    differences : DataFrame
        Columns feature, stage ("before" or "after"), smd; features are drawn in their order from top to bottom.
    """
    require_columns(differences, ["feature", "stage", "smd"], "a figure of standardised differences")
    features = list(dict.fromkeys(differences["feature"]))
    sizes = differences.assign(smd=differences["smd"].astype(float).abs()).pivot(
        index="feature", columns="stage", values="smd"
    )
    finite = sizes.to_numpy()[np.isfinite(sizes.to_numpy())]
    right = 1.12 * max(2 * LARGE, min(float(finite.max(initial=0.0)), 4.0))
    ax = new_axes(5.2, 0.3 * len(features) + 1.1) if ax is None else ax
    for limit, side in ((SMALL, "right"), (LARGE, "left")):
        ax.axvline(limit, color=MUTED, linewidth=0.8, linestyle="dashed", zorder=1)
        ax.annotate(
            f"{limit:g}", (limit, 1), xycoords=("data", "axes fraction"), xytext=(0, 2), ha=side, va="bottom",
            textcoords="offset points", fontsize=7.5, color=MUTED,
        )  # fmt: skip
    for y, feature in enumerate(features):
        sizes_here = {str(stage): float(value) for stage, value in sizes.loc[feature].items() if pd.notna(value)}
        if len(sizes_here) == 2:
            ax.plot(np.minimum(list(sizes_here.values()), right), [y, y], color=FAINT, linewidth=2.0, zorder=1.5)
        for stage, size in sizes_here.items():
            color = WARM if size >= LARGE else ACCENT
            face = "white" if stage == "before" else color
            marker = ">" if size > right else "o"
            ax.plot(
                [min(size, right)], [y], marker, color=color, markerfacecolor=face, markersize=6.5, clip_on=False,
                zorder=3,
            )  # fmt: skip
    ax.set_yticks(range(len(features)), features)
    ax.set_ylim(len(features) - 0.4, -0.6)
    ax.set_xlim(0, right)
    ax.set_xlabel("difference in standard deviations")
    ax.grid(axis="x", color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    if "before" in sizes:
        for stage, face in (("before matching", "white"), ("after", MUTED)):
            ax.plot([], [], "o", color=MUTED, markerfacecolor=face, markersize=6.5, label=stage)
        ax.legend(ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.06))
    return ax
