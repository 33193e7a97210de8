"""Tokenizers side by side: one panel for each thing that was measured."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bioattn.plot.style import ACCENT, FAINT, INK, new_grid, require_columns, styled


@styled
def bakeoff_panels(
    table: pd.DataFrame, panels: Sequence[tuple[str, str]], *, references: dict[str, float] | None = None
) -> Figure:
    """A dot per tokenizer with its standard deviation over seeds, in panels that share the tokenizers.

    Parameters
    ----------
    table : DataFrame
        Columns tokenizer and, for each panel, its column and the same with the suffix
        `_sd` (NaN where there is none); one row per tokenizer, drawn from top to bottom.
    panels : sequence of (column, title)
    references : dict, optional
        Column to a value that is drawn as a dashed line.
    """
    columns = [name for column, _ in panels for name in (column, f"{column}_sd")]
    require_columns(table, ["tokenizer", *columns], "a figure of tokenizers")
    figure, axes = new_grid(1, len(panels), width=1.3 + 1.9 * len(panels), height=0.32 * len(table) + 0.9)
    for i, (ax, (column, title)) in enumerate(zip(axes[0], panels, strict=True)):
        _panel(ax, table, column)
        if references and column in references:
            ax.axvline(references[column], color=INK, linewidth=0.9, linestyle="dashed")
        ax.set_xlabel(title)
        ax.set_yticks(range(len(table)), table["tokenizer"].astype(str) if i == 0 else [""] * len(table))
    return figure


def _panel(ax: Axes, table: pd.DataFrame, column: str) -> None:
    for y, (value, sd) in enumerate(zip(table[column], table[f"{column}_sd"], strict=True)):
        if pd.isna(value):
            continue
        if pd.notna(sd):
            ax.plot([value - sd, value + sd], [y, y], color=ACCENT, linewidth=2.2, solid_capstyle="round")
        ax.plot([value], [y], "o", color=ACCENT, markersize=6, markeredgecolor="white", markeredgewidth=0.8)
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.margins(x=0.12)
    ax.grid(axis="x", color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
