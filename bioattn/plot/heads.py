"""What attention heads read, from where, whether they matter, and which of them do the same."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from bioattn.errors import DataError
from bioattn.plot.logo import information_logo, signed_logo
from bioattn.plot.style import (
    ACCENT,
    FAINT,
    INK,
    MUTED,
    SERIES,
    figure_of,
    new_axes,
    require_columns,
    styled,
)

#: What a score of the ablation table is called.
METRICS = {"auroc": "AUROC", "pearson": "Pearson r"}
#: Ways to take a head away: colour and marker, in order of drawing.
_ABLATIONS = {"mean": (SERIES[0], "o"), "zero": (SERIES[1], "s"), "resample": (SERIES[2], "D")}
_MEASURES = {"loss": "increase of the loss", "drop": "decrease of {metric}", "effect": "RMS change of the readout"}
#: Up to this many heads the map of similarities has room for its numbers.
_NUMBERED = 16
#: Columns of a card that hold one logo each are as wide as so many letters at least.
_LEAST_LETTERS = 9


@styled
def ablation_bars(
    ablation: pd.DataFrame, *, measure: str = "drop", random_q95: float | None = None, ax: Axes | None = None
) -> Axes:
    """What is lost without each head, in each way to take it away, with intervals.

    Parameters
    ----------
    ablation : DataFrame
        Columns layer, head, kind, the measure and its ends `_ci_low` and `_ci_high`;
        rows of several heads at once (layer -1) are left out. Column metric names the score.
    measure : {"drop", "loss", "effect"}
        Decrease of the score, increase of the loss, or change of the readout.
    random_q95 : float, optional
        The measure that 95 % of the heads of models with random weights stay below: a line.

    Raises
    ------
    DataError
        If no head has a finite value.
    """
    if measure not in _MEASURES:
        raise DataError(f"measure must be one of {sorted(_MEASURES)}, got {measure!r}")
    ends = [f"{measure}_ci_low", f"{measure}_ci_high"]
    require_columns(ablation, ["layer", "head", "kind", measure, *ends], "a figure of ablations")
    known = ablation[(ablation["layer"] >= 0) & np.isfinite(ablation[measure].astype(float))]
    if known.empty:
        raise DataError(f"no head has a finite {measure}: there is nothing to draw")
    heads = sorted(set(zip(known["layer"], known["head"], strict=True)))
    kinds = [kind for kind in _ABLATIONS if (known["kind"] == kind).any()]
    ax = new_axes(min(11.0, max(4.8, 0.42 * len(heads) + 1.4)), 2.7) if ax is None else ax
    for i, kind in enumerate(kinds):
        rows = known[known["kind"] == kind]
        x = np.array([heads.index(head) for head in zip(rows["layer"], rows["head"], strict=True)])
        x = x + 0.24 * (i - (len(kinds) - 1) / 2)
        color, marker = _ABLATIONS[kind]
        ax.bar(x, rows[measure], width=0.22, color=color, alpha=0.35, linewidth=0)
        ax.vlines(x, rows[ends[0]], rows[ends[1]], color=color, linewidth=1.4)
        ax.plot(x, rows[measure], marker, color=color, markersize=3.8, label=kind)
    if random_q95 is not None:
        label = "95 % of random heads"
        ax.axhline(random_q95, color=INK, linewidth=1.0, linestyle="dashed", label=label)
    ax.axhline(0, color=MUTED, linewidth=0.6)
    for place in range(1, len(heads)):
        if heads[place][0] != heads[place - 1][0]:
            ax.axvline(place - 0.5, color=FAINT, linewidth=0.8)
    ax.set_xticks(range(len(heads)), _labels(heads), rotation=90 if len(heads) > 20 else 0)
    ax.set_xlim(-0.6, len(heads) - 0.4)
    ax.set_xlabel("head (layer.head)")
    ax.set_ylabel(_MEASURES[measure].format(metric=_metric(known)))
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=4,
        borderaxespad=0.2,
        handlelength=1.3,
        columnspacing=1.2,
        fontsize=8,
    )
    return ax


def _metric(table: pd.DataFrame) -> str:
    name = str(table["metric"].iloc[0]) if "metric" in table else "the score"
    return METRICS.get(name, name)


def _labels(heads: list[tuple[int, int]]) -> list[str]:
    return [f"{layer}.{head}" for layer, head in heads]


def similarity_matrix(similarity: pd.DataFrame) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Heads in order, and how alike every two are: symmetric, 1 on the diagonal, NaN where a pair is missing."""
    require_columns(similarity, ["layer_a", "head_a", "layer_b", "head_b", "similarity"], "a map of similar heads")
    ends = similarity[["layer_a", "head_a", "layer_b", "head_b"]].astype(int).to_numpy().tolist()
    values = similarity["similarity"].astype(float).tolist()
    pairs = [((a, b), (c, d), value) for (a, b, c, d), value in zip(ends, values, strict=True)]
    heads = sorted({head for a, b, _ in pairs for head in (a, b)})
    place = {head: i for i, head in enumerate(heads)}
    matrix = np.full((len(heads), len(heads)), np.nan)
    np.fill_diagonal(matrix, 1.0)
    for a, b, value in pairs:
        matrix[place[a], place[b]] = matrix[place[b], place[a]] = value
    return heads, matrix


@styled
def similarity_map(similarity: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Heat map of how alike the patterns of all heads are; heads that are alike stand together.

    Parameters
    ----------
    similarity : DataFrame
        Columns layer_a, head_a, layer_b, head_b, similarity (0 to 1), every pair once.
    """
    heads, matrix = similarity_matrix(similarity)
    if not heads:
        raise DataError("a map of similar heads needs at least one pair of heads, got an empty table")
    # Average linkage on what two patterns do not share; a missing pair counts as nothing shared.
    apart = squareform(np.clip(1 - np.nan_to_num(matrix), 0, 1), checks=False)
    order = leaves_list(linkage(apart, "average", optimal_ordering=True))
    shown = matrix[np.ix_(order, order)]
    size = min(7.5, 0.33 * len(heads) + 1.2)
    ax = new_axes(size + 0.9, size) if ax is None else ax
    image = ax.imshow(shown, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    labels = _labels([heads[i] for i in order])
    fontsize = 8.5 if len(heads) <= 24 else 6.5
    ax.set_xticks(range(len(heads)), labels, rotation=90, fontsize=fontsize)
    ax.set_yticks(range(len(heads)), labels, fontsize=fontsize)
    ax.tick_params(length=0)
    ax.spines[["left", "bottom"]].set_visible(False)
    if len(heads) <= _NUMBERED:
        for i, j in zip(*np.nonzero(np.isfinite(shown)), strict=True):
            if i != j:
                color = "white" if shown[i, j] > 0.6 else INK
                ax.text(j, i, f"{shown[i, j]:.2f}".lstrip("0"), ha="center", va="center", fontsize=7, color=color)
    figure_of(ax).colorbar(image, ax=ax, label="shared attention", shrink=0.7, pad=0.02)
    return ax


@styled
def distance_profile(distances: pd.DataFrame, *, title: str = "", ax: Axes | None = None) -> Axes:
    """From how far away a motif is read: share of the reading, against what it were if all tokens read alike.

    Parameters
    ----------
    distances : DataFrame
        Columns distance_bp (motif minus reader: negative where the motif lies to the left
        of its reader), share and expected; rows of one motif.
    """
    require_columns(distances, ["distance_bp", "share", "expected"], "a profile of distances")
    rows = distances.sort_values("distance_bp")
    if not np.isfinite(rows["share"].astype(float)).any():
        raise DataError("a profile of distances needs at least one finite share")
    ax = new_axes(3.6, 1.8) if ax is None else ax
    ax.axvline(0, color=FAINT, linewidth=0.9)
    ax.fill_between(rows["distance_bp"], 100 * rows["share"], color=ACCENT, alpha=0.18, linewidth=0)
    ax.plot(rows["distance_bp"], 100 * rows["share"], color=ACCENT, linewidth=1.3, label="read")
    ax.plot(
        rows["distance_bp"], 100 * rows["expected"], color=MUTED, linewidth=1.0, linestyle="dashed",
        label="all read alike",
    )  # fmt: skip
    ax.set_ylim(bottom=0)
    ax.margins(x=0.01)
    ax.set_xlabel("motif \N{MINUS SIGN} reader (bp)")
    ax.set_ylabel("share (%)")
    ax.set_title(title)
    ax.legend(loc="upper right", handlelength=1.2, borderaxespad=0, fontsize=7.5)
    return ax


@styled
def head_card(
    ppm: np.ndarray | None,
    cwm: np.ndarray | None = None,
    reader_ppm: np.ndarray | None = None,
    distances: pd.DataFrame | None = None,
) -> Figure:
    """One motif of a head in a row: what is read, what it contributes, what reads it, and how far away that is.

    Parameters
    ----------
    ppm, reader_ppm : ndarray, shape (A=4, W), optional
        Probabilities of what is read, and of what stands around its readers.
    cwm : ndarray, shape (A=4, W), optional
        Signed contributions of the letters that are read.
    distances : DataFrame, optional
        See `distance_profile`. What is not given is said to be missing.
    """
    letters = [max(_LEAST_LETTERS, 0 if m is None else np.shape(m)[-1]) for m in (ppm, cwm, reader_ppm)]
    figure = Figure(figsize=(10.4, 1.75), layout="constrained")
    read, contributes, readers, far = figure.subplots(1, 4, width_ratios=[*letters, 12])
    if ppm is None:
        _nothing(read, "no matrix")
    else:
        information_logo(ppm, ax=read)
    if cwm is None:
        _nothing(contributes, "not known")
    else:
        signed_logo(cwm, ylabel="", ax=contributes)
    if reader_ppm is None:
        _nothing(readers, "none known")
    else:
        information_logo(reader_ppm, ax=readers)
    if distances is None or distances.empty:
        _nothing(far, "not known")
    else:
        distance_profile(distances, ax=far)
    titles = ("what is read", "its contribution", "around its readers", "how far away")
    for ax, title in zip((read, contributes, readers, far), titles, strict=True):
        ax.set_title(title, fontsize=8.5)
        ax.tick_params(labelsize=7.5)
        ax.xaxis.label.set_size(8)
        ax.yaxis.label.set_size(8)
    contributes.set_xlabel("")
    return figure


def _nothing(ax: Axes, text: str) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[["left", "bottom"]].set_color(FAINT)
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=MUTED, fontsize=8)
