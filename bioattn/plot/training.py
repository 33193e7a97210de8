"""Training curves, one colour per replicate."""

import pandas as pd
from matplotlib.axes import Axes

from bioattn.plot.style import SERIES, new_axes, require_columns, styled, whole_number_ticks


@styled
def training_curves(history: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Training (thin) and validation (thick) loss by epoch; a dot marks each best epoch.

    Parameters
    ----------
    history : DataFrame
        Columns epoch, train_loss, validation_loss, and optionally network, fold and seed.
    """
    require_columns(history, ["epoch", "train_loss", "validation_loss"], "a training history")
    ax = new_axes(5.4, 3.1) if ax is None else ax
    for index, (label, rows) in enumerate(_replicates(history)):
        color = SERIES[index % len(SERIES)]
        ax.plot(rows["epoch"], rows["train_loss"], color=color, linewidth=0.9, alpha=0.55)
        ax.plot(rows["epoch"], rows["validation_loss"], color=color, label=label)
        known = rows.dropna(subset=["validation_loss"])
        if len(known):
            best = known.sort_values("validation_loss", kind="stable").iloc[0]
            ax.plot(best["epoch"], best["validation_loss"], "o", color=color, markersize=4.5)
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss (thin: training, thick: validation)")
    whole_number_ticks(ax)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(ncols=2)
    return ax


def _replicates(history: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    keys = [key for key in ("network", "fold", "seed") if key in history]
    if not keys:
        return [("run", history)]
    several = [key for key in keys if len(set(history[key])) > 1] or keys[-1:]
    return [
        (", ".join(map(_named, several, values)), rows.reset_index(drop=True))
        for values, rows in history.groupby(several, sort=several[0] != "network")
    ]


def _named(key: str, value: object) -> str:
    """A network is named by itself, a number by what it counts."""
    return str(value) if key == "network" else f"{key} {value}"
