"""Figures of the benchmark: who ranks true interactions first, and whether the stated error rate holds."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bioattn.plot.style import ACCENT, FAINT, INK, MUTED, SERIES, new_axes, require_columns, styled

_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")


@styled
def precision_bars(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Average precision of each method, one marker for each arm; our own methods stand out.

    Parameters
    ----------
    table : DataFrame
        Columns suite, regime, training, method, auprc, ci_low, ci_high.
    """
    require_columns(table, ["suite", "regime", "training", "method", "auprc", "ci_low", "ci_high"], "the ranking")
    order = table.groupby("method")["auprc"].mean().sort_values()
    ax = new_axes(6.4, 0.8 + 0.34 * max(len(order), 1)) if ax is None else ax
    place = {method: i for i, method in enumerate(order.index)}
    arms = list(table.groupby(["suite", "regime", "training"], sort=False))
    for i, (arm, part) in enumerate(arms):
        shift = 0.5 * ((i + 0.5) / len(arms) - 0.5)
        y = np.array([place[method] for method in part["method"]]) + shift
        color = SERIES[i % len(SERIES)]
        ax.hlines(
            y, part["ci_low"].fillna(part["auprc"]), part["ci_high"].fillna(part["auprc"]), color=color, linewidth=1
        )
        ax.plot(
            part["auprc"], y, _MARKERS[i % len(_MARKERS)], color=color, markersize=5, linestyle="none",
            label=arm_name(*map(str, arm)),
        )  # fmt: skip
    for i in range(len(order)):
        ax.axhline(i + 0.5, color=FAINT, linewidth=0.6, zorder=0)
    ax.set_yticks(range(len(order)), list(order.index))
    for label in ax.get_yticklabels():
        if label.get_text().startswith("bioattn"):
            label.set_color(ACCENT)
            label.set_fontweight("bold")
    ax.set(xlim=(-0.02, 1.03), xlabel="average precision against true interactions")
    # Above, where no label is, however low the axes.
    ax.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2)
    return ax


@styled
def calibration_curves(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Observed share of false claims against the nominal rate, one line for each arm.

    Parameters
    ----------
    table : DataFrame
        Columns suite, regime, training, nominal, observed.
    """
    require_columns(table, ["suite", "regime", "training", "nominal", "observed"], "calibration")
    ax = new_axes(4.0, 3.4) if ax is None else ax
    most = float(table["nominal"].max()) if len(table) else 0.2
    ax.plot([0, most], [0, most], color=MUTED, linewidth=0.8, linestyle="dashed")
    ax.fill_between([0, most], [0, 0], [0.02, most + 0.02], color=FAINT, alpha=0.5, linewidth=0)
    for i, (arm, part) in enumerate(table.groupby(["suite", "regime", "training"], sort=False)):
        ax.plot(
            part["nominal"], part["observed"], marker=_MARKERS[i % len(_MARKERS)], color=SERIES[i % len(SERIES)],
            markersize=5, linewidth=1.1, label=arm_name(*map(str, arm)),
        )  # fmt: skip
    ax.set_xlabel("nominal false discovery rate")
    ax.set_ylabel("observed share of false claims")
    ax.set_ylim(-0.01, max(0.25, float(table["observed"].max()) + 0.02 if len(table) else 0))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, labelcolor=INK)
    return ax


#: Lines of the dose-response figure: column, name.
_DOSE = (
    ("auprc_attention", "average precision of attention"),
    ("r_attention_truth", "r of attention and truth"),
    ("auprc_epistasis", "average precision of epistasis"),
    ("r_attention_epistasis", "r of attention and epistasis"),
    ("hidden_epistasis", "epistasis of pairs with a hidden cause"),
)


def randomised_share(regime: str) -> float:
    """Share of sequences whose motifs are placed at random, by the name of the regime; NaN for others."""
    if regime.startswith("mixed"):
        return float(regime.removeprefix("mixed"))
    return {"observational": 0.0, "randomised": 1.0}.get(regime, float("nan"))


def has_doses(table: pd.DataFrame) -> bool:
    """Whether there are three shares of randomised sequences or more to draw `dose_response` of."""
    plain = table[table["training"] == "plain"]
    return bool((plain["regime"].map(randomised_share).dropna().groupby(plain["suite"]).nunique() > 2).any())


@styled
def dose_response(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """What attention and epistasis have to do with the truth, against the share of randomised training sequences.

    Parameters
    ----------
    table : DataFrame
        `bioattn.bench.scores.demonstration`; the suite with most shares is drawn.
    """
    columns = [name for name, _ in _DOSE]
    require_columns(table, ["suite", "regime", "training", *columns], "the dose-response figure")
    plain = table[table["training"] == "plain"]
    plain = plain.assign(share=plain["regime"].map(randomised_share)).dropna(subset=["share"])
    suite = plain.groupby("suite")["share"].nunique().idxmax()
    part = plain[plain["suite"] == suite].sort_values("share")
    ax = new_axes(4.6, 3.4) if ax is None else ax
    for i, (name, label) in enumerate(_DOSE):
        ax.plot(
            part["share"], part[name], marker=_MARKERS[i], color=SERIES[i], markersize=5, linewidth=1.2, label=label
        )
    ax.axhline(0, color=MUTED, linewidth=0.6)
    ax.set(xlabel=f"share of training sequences with motifs at random (suite {suite})", ylim=(-0.1, 1.15))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=1, labelcolor=INK)
    return ax


def arm_name(suite: str, regime: str, training: str) -> str:
    """Name of an arm: suite, regime, and how models were trained, if not plainly."""
    return f"{suite}, {regime}" + ("" if training == "plain" else f", {training}")
