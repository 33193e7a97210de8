"""Scores of the benchmark over its units: who ranks true interactions first, who claims false ones, at what cost."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from bioattn import rng
from bioattn.bench.unit import OURS
from bioattn.causal.decide import CAUSAL, HIDDEN, decide
from bioattn.config import InteractionsConfig
from bioattn.data.simulate.classes import GRAMMARS

#: What names a unit: its tables carry these columns.
UNIT = ["suite", "regime", "training", "seed"]
_ARM = ["suite", "regime", "training"]
#: Nominal false discovery rates at which verdicts are made anew.
NOMINAL = (0.01, 0.05, 0.1, 0.2)
_BOOTSTRAP = 1000
_RULES = {"SPC": "spacing_q", "ORI": "orientation_q", "ORD": "order_q"}


def ranking(scores: pd.DataFrame) -> pd.DataFrame:
    """Average precision of each method in each arm, against pairs that truly interact.

    Pairs without a score come last.

    Parameters
    ----------
    scores : DataFrame
        `bioattn.bench.unit.Unit.scores` of all units, with the columns `UNIT`.

    Returns
    -------
    DataFrame
        suite, regime, training, method, auprc (mean over seeds), ci_low, ci_high (bootstrap
        over seeds; NaN with one), base_rate, n_seeds; best first within an arm.
    """
    rows = []
    for key, part in scores.groupby([*_ARM, "method"]):
        values, rates = [], []
        for _, unit in part.groupby("seed"):
            true = (unit["interaction"] != 0).to_numpy()
            score = unit["score"].to_numpy(np.float64)
            lowest = np.nanmin(score) - 1 if np.isfinite(score).any() else 0.0
            if true.any():
                values.append(average_precision_score(true, np.where(np.isfinite(score), score, lowest)))
                rates.append(true.mean())
        if values:
            low, high = _interval(np.array(values), *key)
            rows.append([*key, np.mean(values), low, high, np.mean(rates), len(values)])
    names = [*_ARM, "method", "auprc", "ci_low", "ci_high", "base_rate", "n_seeds"]
    table = pd.DataFrame(rows, columns=names)
    return table.sort_values([*_ARM, "auprc"], ascending=[True, True, True, False], ignore_index=True)


def calls(scores: pd.DataFrame) -> pd.DataFrame:
    """Share of the pairs of each class that each method calls, of methods that make calls.

    Returns
    -------
    DataFrame
        suite, regime, training, method, class, interacts, share_called, n_pairs.
    """
    known = scores.dropna(subset=["called"])
    grouped = known.assign(interacts=known["interaction"] != 0).groupby([*_ARM, "method", "class", "interacts"])
    return grouped["called"].agg(share_called="mean", n_pairs="size").reset_index()


def verdicts(pairs: pd.DataFrame) -> pd.DataFrame:
    """How many pairs of each class got which verdict, and whether that is one of those expected.

    Returns
    -------
    DataFrame
        suite, regime, training, class, verdict, n_pairs, as_expected.
    """
    grouped = pairs.groupby([*_ARM, "class", "verdict"]).size().rename("n_pairs").reset_index()
    grouped["as_expected"] = [
        row["verdict"] in _expected(str(row["class"]), str(row["regime"])) for row in grouped.to_dict("records")
    ]
    return grouped


def _expected(name: str, regime: str) -> list[str]:
    if name not in GRAMMARS:
        return ["not supported"]
    grammar = GRAMMARS[name]
    expected = {"randomised": [grammar.randomised], "observational": [grammar.observational]}
    # Of data that are in part randomised, what either would give.
    texts = expected.get(regime, [grammar.observational, grammar.randomised])
    return [verdict for text in texts for verdict in text.split(" | ")]


def calibration(pairs: pd.DataFrame, config: InteractionsConfig) -> pd.DataFrame:
    """Share of false claims among all, when verdicts are made at other nominal rates.

    A claim is a verdict "causal in model" or "hidden"; false where the pair does not interact.

    Returns
    -------
    DataFrame
        suite, regime, training, nominal, observed (0 without a claim), n_claims, n_false, n_true_found, n_true.
    """
    rows = []
    for key, part in pairs.groupby(_ARM):
        for q in NOMINAL:
            again = decide(part, config.model_copy(update={"q_value": q}))
            claims = again["verdict"].isin([CAUSAL, HIDDEN]).to_numpy()
            # `decide` sorts by size; the truth is sorted likewise.
            order = part["epistasis_effect"].abs().sort_values(ascending=False, na_position="last").index
            true = (part.loc[order, "interaction"] != 0).to_numpy()
            false = int((claims & ~true).sum())
            share = false / max(int(claims.sum()), 1)
            rows.append([*key, q, share, int(claims.sum()), false, int((claims & true).sum()), int(true.sum())])
    names = [*_ARM, "nominal", "observed", "n_claims", "n_false", "n_true_found", "n_true"]
    return pd.DataFrame(rows, columns=names)


def coverage(pairs: pd.DataFrame) -> pd.DataFrame:
    """How often the interval of the epistasis holds the truth, times what models learn of it.

    Models learn a part of the planted effects. In each arm that part is the slope of the
    epistasis on the planted interaction through zero, over the pairs that interact.

    Returns
    -------
    DataFrame
        suite, regime, training, slope, interacting (share of intervals that hold slope times the truth),
        n_interacting, null (share that reach into the effects that do not count), n_null.
    """
    rows = []
    for key, part in pairs.groupby(_ARM):
        known = part.dropna(subset=["epistasis_ci_low"])
        true = known["interaction"].to_numpy(np.float64)
        low, high = (known[f"epistasis_ci_{end}"].to_numpy(np.float64) for end in ("low", "high"))
        effect = known["epistasis_effect"].to_numpy(np.float64)
        acts = true != 0
        slope = float((effect[acts] * true[acts]).sum() / (true[acts] ** 2).sum()) if acts.any() else float("nan")
        inside = (low <= slope * true) & (slope * true <= high)
        minimum = known["minimum_effect"].to_numpy(np.float64)
        nothing = ~acts & (known["class"] != "HIDDEN").to_numpy()
        small = (low <= minimum) & (high >= -minimum)
        rows.append([*key, slope, _share(inside[acts]), int(acts.sum()), _share(small[nothing]), int(nothing.sum())])
    names = [*_ARM, "slope", "interacting", "n_interacting", "null", "n_null"]
    return pd.DataFrame(rows, columns=names)


def syntax(pairs: pd.DataFrame, *, within_bp: float, q_value: float = 0.05) -> pd.DataFrame:
    """Whether the rule of pairs with syntax is found, and how often one is found where there is none.

    Returns
    -------
    DataFrame
        suite, regime, training, rule, found (share of the pairs of that class), n, false (share of the
        other tested pairs that interact), n_other, error_bp (of SPC: how far the peak lies, on average, beyond
        the distance `within_bp` up to which the pair acts).
    """
    rows = []
    for key, part in pairs.groupby(_ARM):
        acting = part[part["interaction"] != 0]
        for name, column in _RULES.items():
            mine, other = acting[acting["class"] == name], acting[acting["class"] != name]
            if not len(mine) or column not in part:
                continue
            beyond = (mine["spacing_peak"] - within_bp).clip(lower=0).mean()
            error = float(beyond) if name == "SPC" else float("nan")
            found, false = (_share((each[column] < q_value).to_numpy()) for each in (mine, other))
            rows.append([*key, name, found, len(mine), false, len(other), error])
    return pd.DataFrame(rows, columns=[*_ARM, "rule", "found", "n", "false", "n_other", "error_bp"])


def costs(seconds: pd.DataFrame) -> pd.DataFrame:
    """Mean seconds of each step in a unit."""
    return seconds.groupby([*_ARM, "step"], sort=False)["seconds"].mean().reset_index()


def demonstration(summaries: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """What attention and epistasis have to do with the truth, by regime and training.

    Returns
    -------
    DataFrame
        suite, regime, training, then means over seeds: of the summaries' numbers, and
        auprc_attention, auprc_epistasis; n_seeds.
    """
    numbers = [name for name in summaries if name not in UNIT]
    table = summaries.groupby(_ARM)[numbers].mean().reset_index()
    table["n_seeds"] = summaries.groupby(_ARM).size().to_numpy()
    ranks = ranking(scores[scores["method"].isin(OURS[1:3])])
    for name, method in (("auprc_epistasis", OURS[1]), ("auprc_attention", OURS[2])):
        own = ranks.loc[ranks["method"] == method, [*_ARM, "auprc"]].rename(columns={"auprc": name})
        table = table.merge(own, how="left", on=_ARM)
    return table


def _share(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _interval(values: NDArray[np.float64], *names: Any) -> Sequence[float]:
    if len(values) < 2:
        return float("nan"), float("nan")
    draw = rng.stream(0, "bench", "bootstrap", *names)
    low, high = np.quantile(draw.choice(values, (_BOOTSTRAP, len(values))).mean(1), [0.025, 0.975])
    return float(low), float(high)
