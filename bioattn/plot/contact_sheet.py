"""All heads at a glance: a grid of layers and heads with what each one reads."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bioattn.errors import DataError
from bioattn.plot.logo import information_logo
from bioattn.plot.style import FAINT, KINDS, MUTED, new_grid, require_columns, styled


@styled
def contact_sheet(heads: pd.DataFrame, ppms: Mapping[tuple[int, int], np.ndarray]) -> Figure:
    """One panel per head: logo, kind, consensus, best match and enrichment.

    Parameters
    ----------
    heads : DataFrame
        Columns layer, head, kind, consensus, matches, enrichment_log2; the first
        row of each (layer, head) is shown.
    ppms : mapping of (layer, head) to ndarray (A=4, W)
        Motif of each head; a head without one gets an empty panel.
    """
    require_columns(heads, ["layer", "head", "kind"], "a contact sheet")
    if heads.empty:
        raise DataError("a contact sheet needs at least one head, got an empty table")
    first = {(row["layer"], row["head"]): row for row in heads.to_dict("records")[::-1]}
    layers = sorted({int(layer) for layer in heads["layer"]})
    numbers = sorted({int(number) for number in heads["head"]})
    figure, axes = new_grid(
        len(layers), len(numbers), width=2.7 * len(numbers), height=1.75 * len(layers) + 0.2
    )  # fmt: skip
    for row, layer in enumerate(layers):
        for column, number in enumerate(numbers):
            key = (layer, number)
            _panel(axes[row, column], first.get(key), ppms.get(key), key)
    return figure


def _panel(ax: Axes, head: dict[Any, Any] | None, ppm: np.ndarray | None, key: tuple[int, int]) -> None:
    kind = "" if head is None else str(head["kind"])
    if ppm is not None:
        information_logo(ppm, ax=ax)
    else:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.text(0.5, 0.5, "no motif", transform=ax.transAxes, ha="center", va="center", color=MUTED)
        for spine in ax.spines.values():
            spine.set_color(FAINT)
    ax.set_title(f"layer {key[0]}, head {key[1]}: {kind}".rstrip(": "), color=KINDS.get(kind, MUTED), fontsize=8.5)
    if head is not None:
        ax.set_xlabel(caption(head), fontsize=7.5)


def caption(head: Mapping[Any, Any]) -> str:
    """Two short lines under a head's logo: consensus with enrichment, and the best match."""
    consensus = head.get("consensus")
    enrichment = head.get("enrichment_log2")
    first = [] if pd.isna(consensus) or not consensus else [str(consensus)]
    if enrichment is not None and pd.notna(enrichment):
        first.append(f"enriched {2.0 ** float(enrichment):.1f}x")
    matches = head.get("matches")
    match = "" if matches is None or pd.isna(matches) else str(matches).split(";")[0].strip()
    return "\n".join(["  ".join(first), match or "no match"])
