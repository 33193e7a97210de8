"""Figures of the protein track: contact maps, distograms, heads, calibration, triangles, third residues."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from bioattn.plot.style import ACCENT, FAINT, INK, MUTED, SERIES, WARM, new_axes, new_grid, require_columns, styled

_RIGHT, _WRONG = SERIES[2], SERIES[1]
#: Two residues touch if they are nearer than this, as everywhere in the protein track.
_CONTACT_ANGSTROM = 8.0


@styled
def contact_halves(
    upper: NDArray[np.float64],
    lower: NDArray[np.float64],
    distance_angstrom: NDArray[np.float64],
    *,
    names: tuple[str, str],
    least_separation: int = 6,
    ax: Axes | None = None,
) -> Axes:
    """Best scored pairs of two methods, one in each triangle, on the contacts of the structure (grey).

    Parameters
    ----------
    upper, lower : ndarray, shape (L, L)
        Scores; as many pairs as there are residues are drawn, from `least_separation` on.
    distance_angstrom : ndarray, shape (L, L)
        NaN where the structure shows nothing.
    names : tuple of str
        Of the method in the upper and in the lower triangle.
    """
    ax = new_axes(4.6, 4.8) if ax is None else ax
    length = len(distance_angstrom)
    i, j = np.nonzero(distance_angstrom < _CONTACT_ANGSTROM)
    ax.scatter(j, i, s=4, color=FAINT, marker="s", linewidths=0)
    one, other = np.triu_indices(length, least_separation)
    for scores, flip in ((upper, False), (lower, True)):
        best = np.argsort(-np.nan_to_num(scores[one, other], nan=-np.inf), kind="stable")[:length]
        a, b = one[best], other[best]
        known = np.isfinite(distance_angstrom[a, b])
        right = distance_angstrom[a, b] < _CONTACT_ANGSTROM
        x, y = (a, b) if flip else (b, a)
        for chosen, color in ((known & right, _RIGHT), (known & ~right, _WRONG), (~known, MUTED)):
            ax.scatter(x[chosen], y[chosen], s=5, color=color, linewidths=0)
    ax.plot([0, length - 1], [0, length - 1], color=MUTED, linewidth=0.6)
    ax.set(xlim=(-1, length), ylim=(length, -1), xlabel=f"residue    (below: {names[1]})")
    ax.set_ylabel(f"residue    (above: {names[0]})")
    ax.set_aspect("equal")
    _dots(
        ax,
        (
            ("contact, found", _RIGHT),
            ("no contact", _WRONG),
            ("not in the structure", MUTED),
            ("contact, not found", FAINT),
        ),
    )
    return ax


def _dots(ax: Axes, entries: Sequence[tuple[str, str]]) -> None:
    handles = [
        Line2D([], [], linestyle="none", marker="o", markersize=4, color=color, label=label) for label, color in entries
    ]
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=2, handletextpad=0.1)


@styled
def family_precision(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Long-range precision of each method at L, L/2 and L/5, on the alignment and on its nulls.

    Parameters
    ----------
    table : DataFrame
        Columns method, control, seed, range, top, precision. Seeds are single dots, their mean scores a bar.
    """
    require_columns(table, ["method", "control", "seed", "range", "top", "precision"], "precision of a family")
    table = table[table["range"] == "long"]
    ax = new_axes(6.0, 3.0) if ax is None else ax
    bars = list(dict.fromkeys(zip(table["control"], table["method"], strict=True)))
    tops = list(dict.fromkeys(table["top"]))
    width = 0.8 / len(bars)
    for place, (control, method) in enumerate(bars):
        part = table[(table["control"] == control) & (table["method"] == method)]
        color = SERIES[0] if "attention" in method else SERIES[4]
        whole = part[part["seed"].isin(["mean", "NA"]) | part["seed"].isna()]
        whole = part if whole.empty else whole
        x = np.arange(len(tops)) - 0.4 + (place + 0.5) * width
        heights = [whole[whole["top"] == top]["precision"].mean() for top in tops]
        faint = control != bars[0][0]
        ax.bar(
            x, heights, 0.9 * width, color=color, alpha=0.4 if faint else 1.0,
            hatch="//" if "phylogeny" in control else None, edgecolor="white", linewidth=0,
            label=f"{method}, {control}",
        )  # fmt: skip
        single = part[~part["seed"].isin(["mean", "NA"]) & part["seed"].notna()]
        if len(single) > len(tops):
            for at, top in zip(x, tops, strict=True):
                values = single[single["top"] == top]["precision"]
                ax.plot(np.full(len(values), at), values, "o", color=INK, markersize=3)
    ax.set_xticks(range(len(tops)), [f"best {top}" for top in tops])
    ax.set(ylim=(0, 1.02), ylabel="long-range precision")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    return ax


@styled
def head_atlas(
    patterns: NDArray[np.float32], precision: Sequence[float], distance_angstrom: NDArray[np.float64], *, most: int = 12
) -> Figure:
    """Corrected patterns of the heads that find most contacts: pattern above the diagonal, contacts below it."""
    order = np.argsort(-np.nan_to_num(np.asarray(precision, dtype=float)), kind="stable")[:most]
    columns = min(4, len(order))
    rows = -(-len(order) // columns)
    figure, grid = new_grid(rows, columns, width=1.75 * columns, height=1.95 * rows)
    below = np.tril(np.nan_to_num(distance_angstrom, nan=99.0) < _CONTACT_ANGSTROM, -1)
    for place, ax in enumerate(grid.ravel()):
        ax.axis("off")
        if place >= len(order):
            continue
        head = order[place]
        pattern = np.triu(patterns[head].astype(float), 1)
        top = np.quantile(pattern[pattern > 0], 0.995) if (pattern > 0).any() else 1.0
        ax.imshow(np.where(below, np.nan, pattern), cmap="Blues", vmin=0, vmax=top, interpolation="nearest")
        i, j = np.nonzero(below)
        ax.scatter(j, i, s=0.6, color=MUTED, linewidths=0)
        ax.set_title(f"head {head}: {precision[head]:.2f}", fontsize=8)
    return figure


@styled
def network_scores(
    table: pd.DataFrame, *, scores: Mapping[str, str], names: Mapping[str, str], ax: Axes | None = None
) -> Axes:
    """Scores of networks with their intervals.

    Parameters
    ----------
    table : DataFrame
        Columns network, score, mean, ci_low, ci_high.
    scores, names : mapping of str to str
        What to show, and how scores and networks are called.
    """
    require_columns(table, ["network", "score", "mean", "ci_low", "ci_high"], "scores of networks")
    networks = list(dict.fromkeys(table["network"]))
    ax = new_axes(6.2, 0.9 + 0.2 * len(networks) * len(scores)) if ax is None else ax
    for place, network in enumerate(networks):
        rows = table[table["network"] == network].set_index("score")
        y = np.arange(len(scores)) + 0.7 * ((place + 0.5) / len(networks) - 0.5)
        found = rows.reindex(list(scores))
        color = SERIES[place % len(SERIES)]
        ax.hlines(y, found["ci_low"], found["ci_high"], color=color, linewidth=1.2)
        ax.plot(found["mean"], y, "o", color=color, markersize=4.5, label=names.get(network, network))
    for i in range(len(scores) - 1):
        ax.axhline(i + 0.5, color=FAINT, linewidth=0.6, zorder=0)
    ax.set_yticks(range(len(scores)), list(scores.values()))
    ax.set_ylim(len(scores) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel("mean over test proteins")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


@styled
def contact_calibration(table: pd.DataFrame, *, names: Mapping[str, str], ax: Axes | None = None) -> Axes:
    """Observed share of contacts against predicted probability, for each network."""
    require_columns(table, ["network", "predicted", "observed", "n"], "calibration")
    ax = new_axes(3.6, 3.4) if ax is None else ax
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle="dashed")
    for place, (network, part) in enumerate(table.groupby("network", sort=False)):
        part = part[part["n"] >= 20]
        color = SERIES[place % len(SERIES)]
        ax.plot(part["predicted"], part["observed"], "o-", color=color, markersize=3, label=names.get(str(network)))
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability of a contact", ylabel="share that are contacts")
    ax.legend(loc="upper left")
    return ax


@styled
def told_precision(table: pd.DataFrame, *, names: Mapping[str, str], ax: Axes | None = None) -> Axes:
    """Precision of the best L/5 pairs by the share of contacts that networks are told, with its intervals."""
    require_columns(table, ["told_share", "network", "score", "mean", "ci_low", "ci_high"], "told contacts")
    ax = new_axes(4.6, 4.0) if ax is None else ax
    table = table[table["score"] == "precision_all_L5"]
    networks = table.groupby("network", sort=False)
    apart = 0.04 * 100 * table["told_share"].max() / max(networks.ngroups - 1, 1)
    for place, (network, part) in enumerate(networks):
        share, color = 100 * part["told_share"], SERIES[place % len(SERIES)]
        x = share + apart * (place - (networks.ngroups - 1) / 2)
        ax.vlines(x, part["ci_low"], part["ci_high"], color=color, linewidth=1.2)
        ax.plot(x, part["mean"], "o-", color=color, markersize=4, label=names.get(str(network), str(network)))
    ax.set_xticks(100 * np.unique(table["told_share"]))
    ax.set(ylim=(0, None), xlabel="contacts that are told (%)", ylabel="precision away from these")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=1)
    return ax


@styled
def block_violations(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Triangle violations of the distances read after each block: a line for the mean, dots for proteins."""
    require_columns(table, ["stage", "violation_rate"], "violations by block")
    ax = new_axes(3.8, 3.0) if ax is None else ax
    stages = list(dict.fromkeys(table["stage"]))
    draw = np.random.default_rng(0)
    means = []
    for x, stage in enumerate(stages):
        values = 100 * table[table["stage"] == stage]["violation_rate"].to_numpy(float)
        ax.plot(x + draw.uniform(-0.12, 0.12, len(values)), values, "o", color=FAINT, markersize=2.5)
        means.append(values.mean())
    ax.plot(range(len(stages)), means, "o-", color=ACCENT, markersize=5)
    ax.set_xticks(range(len(stages)), stages)
    ax.set(xlim=(-0.5, len(stages) - 0.5), ylabel="violated triangles (%)", ylim=(0, None))
    return ax


@styled
def third_effects(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Fall of a contact's log odds without a bridging third residue against a matched one, a dot for each protein."""
    require_columns(table, ["bridging", "matched"], "third residues")
    ax = new_axes(3.6, 3.4) if ax is None else ax
    known = table.dropna(subset=["bridging", "matched"])
    both = np.concatenate([known["bridging"], known["matched"]]) if len(known) else np.zeros(1)
    low, high = min(float(both.min()), 0.0), max(float(both.max()), 0.0)
    room = 0.05 * (high - low or 1.0)
    ax.plot([low, high], [low, high], color=MUTED, linewidth=0.8, linestyle="dashed")
    ax.plot(known["matched"], known["bridging"], "o", color=ACCENT, markersize=3.5, alpha=0.6, markeredgewidth=0)
    ax.set(
        xlim=(low - room, high + room), ylim=(low - room, high + room),
        xlabel="without a matched residue", ylabel="without a bridging residue",
    )  # fmt: skip
    ax.set_title("fall of the log odds of a contact")
    return ax


@styled
def third_map(
    effects: NDArray[np.float32],
    pairs: NDArray[np.int64],
    distance_angstrom: NDArray[np.float32],
    *,
    most: int = 30,
    ax: Axes | None = None,
) -> Axes:
    """Knock-out map: contacts (rows) by third residue (columns); circles mark residues that touch both ends.

    Rows are the first `most` of the contacts `pairs` (N, 2), in the order of their first residue; effects are (K, N).
    """
    length = len(distance_angstrom)
    touch = distance_angstrom < _CONTACT_ANGSTROM
    shown = pairs[:most]
    order = np.lexsort((shown[:, 1], shown[:, 0]))
    rows = shown[order].tolist()
    ax = new_axes(0.9 + 0.075 * length, 0.9 + 0.15 * len(rows)) if ax is None else ax
    values = effects[:, order].T
    top = float(np.quantile(np.abs(values), 0.995)) if values.size else 1.0
    image = ax.imshow(values, cmap="RdBu_r", vmin=-top, vmax=top, aspect="auto", interpolation="nearest")
    for y, (i, j) in enumerate(rows):
        ax.plot(np.flatnonzero(touch[i] & touch[j]), [y] * int((touch[i] & touch[j]).sum()), "o", markersize=3,
                markerfacecolor="none", markeredgecolor=INK, markeredgewidth=0.6)  # fmt: skip
        ax.plot([i, j], [y, y], "|", color=INK, markersize=5)
    ax.set_yticks(range(len(rows)), [f"{i + 1}–{j + 1}" for i, j in rows], fontsize=6.5)
    ax.set(xlabel="third residue that is cut (circle: touches both; bar: the pair itself)", ylabel="contact")
    ax.figure.colorbar(image, ax=ax, label="fall of log odds", fraction=0.03, pad=0.02)
    return ax


@styled
def distogram_lines(
    probabilities: NDArray[np.float16],
    distance_angstrom: NDArray[np.float32],
    edges_angstrom: NDArray[np.float32],
    *,
    most: int = 4,
    least_separation: int = 6,
) -> Figure:
    """Predicted distributions of a few pairs and their true distances, from near to far."""
    i, j = np.triu_indices(len(distance_angstrom), least_separation)
    known = np.isfinite(distance_angstrom[i, j]) & (distance_angstrom[i, j] < edges_angstrom[-1])
    i, j = i[known], j[known]
    order = np.argsort(distance_angstrom[i, j], kind="stable")
    picked = order[np.linspace(0, len(order) - 1, most).astype(int)] if len(order) else []
    figure, grid = new_grid(1, max(len(picked), 1), width=1.9 * max(len(picked), 1), height=1.9)
    step = edges_angstrom[1] - edges_angstrom[0]
    centres = np.concatenate([edges_angstrom[:1] - step / 2, edges_angstrom + step / 2])
    for place, (ax, row) in enumerate(zip(grid.ravel(), picked, strict=False)):
        ax.bar(centres, probabilities[i[row], j[row]].astype(float), 0.9 * step, color=ACCENT)
        ax.axvline(distance_angstrom[i[row], j[row]], color=WARM, linewidth=1.2)
        ax.set_title(f"{i[row] + 1}–{j[row] + 1}", fontsize=8)
        ax.set_xlabel("distance (Å)")
        if place == 0:
            ax.set_ylabel("probability")
    return figure
