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


@styled
def nearest_identity(
    neighbours: pd.DataFrame,
    *,
    leak_free: float | None = None,
    chance: pd.DataFrame | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Share of held-out sequences (vertical) with a training sequence of at least some identity (horizontal).

    Parameters
    ----------
    neighbours : DataFrame
        Columns subset, identity (NaN where nothing is near), one row per fold and held-out sequence.
    leak_free : float, optional
        Identity from which on a test sequence counts as known; drawn as a line.
    chance : DataFrame, optional
        Columns identity, chance: the share of shuffled sequences that reach an identity; drawn as dots.
    """
    require_columns(neighbours, ["subset", "identity"], "nearest identity")
    ax = new_axes(5.0, 3.0) if ax is None else ax
    for subset, color, line in (("validation", "#E69F00", "dashed"), ("test", SERIES[0], "solid")):
        identity = neighbours.loc[neighbours["subset"] == subset, "identity"].astype(float).sort_values(ascending=False)
        if not len(identity):
            continue
        near = identity.dropna().to_numpy()
        # From the left edge to the right, falling after each sequence's own identity.
        x = [0.0, *near[::-1], 1.02]
        y = [100.0 * n / len(identity) for n in (*range(len(near), 0, -1), 0)]
        ax.step(x, [y[0], *y], where="pre", color=color, linestyle=line, label=f"{subset} (n = {len(identity):,})")
    if chance is not None and len(chance):
        require_columns(chance, ["identity", "chance"], "nearest identity")
        share = 100.0 * chance["chance"].astype(float)
        ax.plot(chance["identity"], share, "o", color=MUTED, markersize=4, clip_on=False, label="shuffled sequences")
    if leak_free is not None:
        ax.axvline(leak_free, color=MUTED, linewidth=0.8, linestyle="dotted")
        ax.annotate(
            "leak-free to the left", (leak_free, 1.0), xycoords=("data", "axes fraction"), xytext=(-3, -3),
            textcoords="offset points", ha="right", va="top", fontsize=8, color=MUTED,
        )  # fmt: skip
    ax.set_xlim(0.5, 1.005)
    ax.set_ylim(bottom=0, top=max(5.0, 1.08 * ax.get_ylim()[1]))
    ax.set_xlabel("identity with the nearest training sequence, at least")
    ax.set_ylabel("held-out sequences (%)")
    ax.grid(axis="y", color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=1.2, handlelength=1.6)
    return ax
