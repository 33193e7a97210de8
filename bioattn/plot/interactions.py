"""Attention against effect, and the four cells of one double knock-out."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bioattn.errors import DataError
from bioattn.plot.logo import information_logo
from bioattn.plot.style import FAINT, INK, MUTED, SERIES, TELLING, VERDICTS, new_axes, require_columns, styled

#: Line style to marker, so that verdicts differ without colour too.
_MARKERS = ("o", "D", "s", "^", "o", "v", ".")
_CELLS = ("neither", "a only", "b only", "both")


@styled
def attention_epistasis(
    table: pd.DataFrame, *, floor: float | None = None, minimum: float | None = None, most_labels: int = 12,
    ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """What attention says (horizontal) against what interventions say (vertical).

    Parameters
    ----------
    table : DataFrame
        Columns tf_a, tf_b, verdict, attention_effect, epistasis_effect.
    floor : float, optional
        Attention effect in bits from which a pair is a candidate.
    minimum : float, optional
        Epistasis that counts; drawn as a band around zero.
    most_labels : int
        Pairs whose names are written.
    """
    columns = ["tf_a", "tf_b", "verdict", "attention_effect", "epistasis_effect"]
    require_columns(table, columns, "the attention figure")
    ax = new_axes(4.9, 4.6) if ax is None else ax
    known = table.dropna(subset=["attention_effect", "epistasis_effect"])
    if minimum is not None and pd.notna(minimum):
        ax.axhspan(-minimum, minimum, color=FAINT, alpha=0.5, linewidth=0, zorder=0)
    if floor is not None:
        ax.axvline(floor, color=MUTED, linewidth=0.8, linestyle="dashed", zorder=0)
    ax.axhline(0, color=MUTED, linewidth=0.6, zorder=0)
    for verdict, marker in reversed(list(zip(VERDICTS, _MARKERS, strict=True))):
        rows = known[known["verdict"] == verdict]
        if len(rows):
            ax.plot(
                rows["attention_effect"], rows["epistasis_effect"], marker, color=VERDICTS[verdict].color,
                markersize=8 if verdict in TELLING else 5, markeredgecolor="white", markeredgewidth=0.6,
                label=VERDICTS[verdict].short, linestyle="none",
            )  # fmt: skip
    _label_pairs(ax, known, most_labels)
    ax.set_xlabel("attention effect (bits)")
    ax.set_ylabel("epistasis (change of the readout)")
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        ax.legend(handles[::-1], labels[::-1], loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    ax.margins(x=0.12, y=0.12)
    return ax


def _label_pairs(ax: Axes, known: pd.DataFrame, most: int) -> None:
    telling = known[known["verdict"].isin(TELLING)]
    order = telling["epistasis_effect"].abs().sort_values(ascending=False, kind="stable").index[:most]
    for i, row in enumerate(telling.loc[order].itertuples()):
        # Neighbours in rank often lie close: every other label goes below its point.
        ax.annotate(
            f"{row.tf_a} - {row.tf_b}", (row.attention_effect, row.epistasis_effect),
            xytext=(6, 5 if i % 2 == 0 else -11), textcoords="offset points", fontsize=8, color=INK,
        )  # fmt: skip


@styled
def four_cells(means: np.ndarray, *, error: np.ndarray | None = None, title: str = "", ax: Axes | None = None) -> Axes:
    """Mean readout with neither, one and both motifs, and what no interaction would give.

    Parameters
    ----------
    means : ndarray, shape (4,)
        Readout in the order neither, a only, b only, both.
    error : ndarray, shape (4,), optional
        Half-width of an interval.
    """
    means = np.asarray(means, dtype=float)
    if means.shape != (4,):
        raise DataError(f"the four cells must have shape (4,) (neither, a, b, both), got {means.shape}")
    ax = new_axes(3.2, 2.4) if ax is None else ax
    colors = [FAINT, SERIES[5], SERIES[5], SERIES[0]]
    ax.bar(range(4), means, yerr=error, color=colors, width=0.7, error_kw={"linewidth": 1.0, "ecolor": INK})
    additive = means[1] + means[2] - means[0]
    ax.plot([2.55, 3.45], [additive, additive], color=INK, linewidth=1.4, linestyle="dashed")
    ax.axhline(0, color=MUTED, linewidth=0.6)
    ax.set_xticks(range(4), list(_CELLS))
    ax.set_title(title)
    ax.set_ylabel("readout (dashed: additive)")
    return ax


@styled
def pair_figure(means: np.ndarray, ppms: Sequence[np.ndarray], names: Sequence[str]) -> Figure:
    """The logos of two motifs above each other, and their four cells below (`four_cells`).

    Parameters
    ----------
    means : ndarray, shape (4,)
        Readout in the order neither, a only, b only, both.
    ppms : two ndarrays (A=4, W)
        Matrices of a and b.
    names : two str
    """
    figure = Figure(figsize=(3.2, 3.9), layout="constrained")
    axes = figure.subplots(3, 1, height_ratios=[1, 1, 3.6])
    for ax, ppm, name, letter in zip(axes, ppms, names, "ab", strict=False):
        information_logo(ppm, ax=ax)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_ylabel("")
        for side in ax.spines.values():
            side.set_visible(False)
        ax.set_title(f"{letter}: {name}", fontsize=8, loc="left")
    four_cells(means, ax=axes[2])
    return figure
