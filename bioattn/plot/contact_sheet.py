"""All heads at a glance: a grid of layers and heads with what each one reads and what it is worth."""

import re
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bioattn.errors import DataError
from bioattn.plot.heads import METRICS
from bioattn.plot.logo import information_logo
from bioattn.plot.style import FAINT, INK, KINDS, MUTED, new_grid, require_columns, styled

#: A match in the table: a name, an identifier, and how near it is.
_MATCH = re.compile(r";\s*(?=[^;]*\((?:q|r)=)")
_MATCH = re.compile(r"(?P<name>.+?) \S+ \((?:q|r)=")
#: What a head without a motif is, where its row gives no number to say it with.
_WITHOUT_MOTIF = {
    "motif": "no matrix saved",
    "weak": "no matrix saved",
    "redundant": "another head does the same",
    "positional": "reads a place, whatever stands there",
    "diffuse": "no motif in what it reads",
    "dead": "the prediction does not need it",
}


@styled
def contact_sheet(heads: pd.DataFrame, ppms: Mapping[tuple[int, int], np.ndarray], *, metric: str = "") -> Figure:
    """One panel per head: verdict, logo, consensus, best match with its ambiguity, and what its ablation costs.

    Parameters
    ----------
    heads : DataFrame
        Columns layer, head and verdict; consensus, enrichment_log2, matches, ablation_drop
        (with ends), positional_share, similar_head, similarity and note are shown where
        they are. The first row of each (layer, head) counts.
    ppms : mapping of (layer, head) to ndarray (A=4, W)
        Motif of each head; the panel of a head without one says what the head is instead.
    metric : str
        What ablation_drop is a decrease of ("auroc", "pearson").
    """
    require_columns(heads, ["layer", "head", "verdict"], "a contact sheet")
    if heads.empty:
        raise DataError("a contact sheet needs at least one head, got an empty table")
    first = {(row["layer"], row["head"]): row for row in heads.to_dict("records")[::-1]}
    layers = sorted({int(layer) for layer in heads["layer"]})
    numbers = sorted({int(number) for number in heads["head"]})
    figure, axes = new_grid(len(layers), len(numbers), width=2.8 * len(numbers), height=1.95 * len(layers) + 0.2)
    figure.set_layout_engine("constrained", w_pad=0.09)
    for row, layer in enumerate(layers):
        for column, number in enumerate(numbers):
            key = (layer, number)
            if key in first:
                _panel(axes[row, column], first[key], ppms.get(key), metric)
            else:
                axes[row, column].set_axis_off()
    return figure


def _panel(ax: Axes, head: Mapping[Any, Any], ppm: np.ndarray | None, metric: str) -> None:
    verdict = str(head["verdict"])
    color = KINDS.get(verdict, MUTED)
    if ppm is not None:
        information_logo(ppm, ax=ax)
        ax.set_xticks([])
        ax.spines["bottom"].set_color(FAINT)
    else:
        _statement(ax, head)
    ax.set_title(f"layer {head['layer']}, head {head['head']}", fontsize=8.5)
    ax.annotate(
        verdict, (1.0, 1.0), xycoords="axes fraction", xytext=(-4, 4), textcoords="offset points", ha="right",
        fontsize=8, color=INK, bbox={"boxstyle": "round,pad=0.22", "facecolor": "white", "edgecolor": color, "lw": 1.6},
    )  # fmt: skip
    ax.set_xlabel(caption(head, metric=metric), fontsize=7.5, linespacing=1.25)


def _statement(ax: Axes, head: Mapping[Any, Any]) -> None:
    """What a head without a logo is, in its panel."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(True)
        spine.set_color(FAINT)
    note = _text(head, "note")
    lines = [*textwrap.wrap(plain_words(head), 34), *(["", *textwrap.wrap(note, 38)] if note else [])]
    ax.text(
        0.5, 0.5, "\n".join(lines), transform=ax.transAxes, ha="center", va="center", color=INK, fontsize=8,
        linespacing=1.35,
    )  # fmt: skip


def plain_words(head: Mapping[Any, Any]) -> str:
    """What a head without a motif is, with the number that says so where there is one."""
    verdict = str(head["verdict"])
    share, similarity = _number(head, "positional_share"), _number(head, "similarity")
    if verdict == "positional" and share is not None:
        return f"reads a place: {100 * share:.0f} % of what varies in it is position"
    if verdict == "redundant" and similarity is not None and _text(head, "similar_head"):
        return f"shares {100 * similarity:.0f} % of its attention with head {head['similar_head']}"
    measured = any(_number(head, name) is not None for name in ("ablation_loss", "ablation_drop"))
    if verdict == "diffuse" and measured:
        return "needed, but no motif in what it reads"
    return _WITHOUT_MOTIF.get(verdict, verdict)


def caption(head: Mapping[Any, Any], *, metric: str = "") -> str:
    """Short lines under a head's logo: consensus with enrichment, the best match, and what the ablation costs."""
    consensus, enrichment = _text(head, "consensus"), _number(head, "enrichment_log2")
    first = [consensus] if consensus else []
    first += [] if enrichment is None else [f"enriched {2.0**enrichment:.1f}x"]
    named = best_match(head.get("matches")) or ("no known motif like it" if consensus else "")
    return "\n".join(line for line in ("  ".join(first), named, _cost(head, metric)) if line)


def _cost(head: Mapping[Any, Any], metric: str) -> str:
    drop = _number(head, "ablation_drop")
    if drop is None:
        return ""
    low, high = _number(head, "ablation_drop_ci_low"), _number(head, "ablation_drop_ci_high")
    around = "" if low is None or high is None else f" [{_short(low)}, {_short(high)}]"
    return f"costs {_short(drop)} {METRICS.get(metric, metric or 'of the score')}{around}"


def _short(value: float) -> str:
    # Steps of a thousandth: an AUROC of a thousand sequences says no more.
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text.replace("-", "\N{MINUS SIGN}")


def split_matches(matches: object) -> list[str]:
    """The matches of a table's cell, the best of each family."""
    text = "" if matches is None or pd.isna(matches) else str(matches)  # type: ignore[call-overload]
    return [entry.strip() for entry in text.split(";") if entry.strip()]


def best_match(matches: object, *, most_letters: int = 26) -> str:
    """Name of the best match, and how many other families match as well: "NFYA (+2 families)"."""
    named = split_matches(matches)
    if not named:
        return ""
    found = _MATCH.match(named[0])
    name = found["name"] if found else named[0]
    name = name if len(name) <= most_letters else f"{name[: most_letters - 1]}\N{HORIZONTAL ELLIPSIS}"
    others = len(named) - 1
    return name + (f" (+{others} {'family' if others == 1 else 'families'})" if others else "")


def _text(head: Mapping[Any, Any], column: str) -> str:
    value = head.get(column)
    return "" if value is None or pd.isna(value) else str(value)


def _number(head: Mapping[Any, Any], column: str) -> float | None:
    value = head.get(column)
    return None if value is None or value == "" or pd.isna(value) else float(value)
