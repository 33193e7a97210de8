"""Motifs that replicates find again: a logo for each, and in how many it is found."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bioattn.errors import DataError
from bioattn.plot.contact_sheet import best_match
from bioattn.plot.logo import information_logo
from bioattn.plot.style import ACCENT, FAINT, INK, MUTED, new_grid, require_columns, styled

_COLUMNS = (
    "consensus", "matches", "n_replicates", "n_total", "frequency", "frequency_ci_low", "frequency_ci_high",
    "representative",
)  # fmt: skip


@styled
def motif_frequencies(motifs: pd.DataFrame, ppms: Mapping[str, np.ndarray], *, most_rows: int = 20) -> Figure:
    """Logo of each motif, and the share of replicates in which it is enriched, with its interval.

    Parameters
    ----------
    motifs : DataFrame
        Columns consensus, matches, n_replicates, n_total, frequency with frequency_ci_low and
        frequency_ci_high, representative; one row per motif, drawn from top to bottom.
    ppms : mapping of str to ndarray (A=4, W)
        Matrix of each representative; a motif without one shows its consensus.
    """
    require_columns(motifs, _COLUMNS, "a figure of motif frequencies")
    if motifs.empty:
        raise DataError("a figure of motif frequencies needs at least one motif, got an empty table")
    shown = motifs.head(most_rows)
    figure, axes = new_grid(len(shown), 2, width=5.4, height=0.72 * len(shown) + 0.55)
    for (logo, frequency), (_, row) in zip(axes, shown.iterrows(), strict=True):
        _draw_logo(logo, row, ppms.get(str(row["representative"])))
        _draw_frequency(frequency, row)
    for ax in axes[:-1, 1]:
        ax.set_xticklabels([])
    axes[-1, 1].set_xlabel("share of replicates")
    return figure


def _draw_logo(ax: Axes, row: pd.Series, ppm: np.ndarray | None) -> None:
    if ppm is None:
        ax.set_axis_off()
        ax.text(0, 0.5, str(row["consensus"]), transform=ax.transAxes, va="center", color=INK)
        return
    information_logo(ppm, ax=ax)
    ax.set(xticks=[], yticks=[], ylabel="")
    ax.spines["left"].set_visible(False)
    ax.spines["bottom"].set_color(FAINT)


def _draw_frequency(ax: Axes, row: pd.Series) -> None:
    ends = [row["frequency_ci_low"], row["frequency_ci_high"]]
    if pd.notna(ends).all():
        ax.plot(ends, [0, 0], color=ACCENT, linewidth=2.2, alpha=0.45, solid_capstyle="round")
    ax.plot([row["frequency"]], [0], "o", color=ACCENT, markersize=6, markeredgecolor="white", markeredgewidth=0.8)
    ax.set(xlim=(-0.04, 1.04), ylim=(-1, 1), yticks=[], xticks=[0, 0.5, 1])
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    name = best_match(row["matches"]) or "no known motif like it"
    ax.set_title(f"{name}: {row['n_replicates']} of {row['n_total']}", fontsize=8.5, pad=2)
    ax.title.set_color(INK if row["n_replicates"] else MUTED)
