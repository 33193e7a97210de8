"""Held-out scores with confidence intervals by split group.

Point estimates come from scikit-learn and SciPy. Bootstrap draws are the same
metrics written for weighted examples, all draws at once: a draw that holds an
example twice gives it weight 2, and resampling whole groups keeps examples of one
group together, because they are not independent.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, log_softmax, softmax
from sklearn import metrics as sk

from bioattn.data.weighted import (
    interval,
    weighted_auroc,
    weighted_average_precision,
    weighted_pearson,
    weighted_spearman,
)

Array = NDArray[np.float64]

#: Bins of equal count for calibration.
N_BINS = 10
#: Points kept of each ROC and precision-recall curve.
CURVE_POINTS = 200
#: Draws handled at once, to bound memory.
_CHUNK = 50


class Score(NamedTuple):
    """A metric: value, 95 % confidence interval, examples it rests on, a remark, and its bootstrap draws."""

    metric: str
    value: float
    ci_low: float
    ci_high: float
    n: int
    note: str
    draws: Array


def link(kind: str, scores: Array) -> Array:
    """Predictions on the scale of the targets, shape (N, T), from pre-link scores (N, T)."""
    if kind in ("binary", "multilabel"):
        return expit(scores)
    if kind == "multiclass":
        return softmax(scores, axis=1)
    return np.exp(scores) if kind == "count" else scores


def validation_metric(kind: str, targets: Array, scores: Array) -> float:
    """One number to follow during training: AUROC, Pearson correlation or accuracy, averaged over targets."""
    if kind == "multiclass":
        return float(np.mean(scores.argmax(1) == targets[:, 0]))
    values = []
    for target, score in zip(targets.T, scores.T, strict=True):
        present = ~np.isnan(target)
        target, score = target[present], score[present]
        if kind in ("binary", "multilabel"):
            values.append(_auroc(target, score))
        else:
            values.append(_pearson(np.log1p(target) if kind == "count" else target, score))
    values = [v for v in values if np.isfinite(v)]
    return float(np.mean(values)) if values else float("nan")


def best_mcc_threshold(target: Array, score: Array) -> float:
    """Pre-link score at which calling "positive" has the best Matthews correlation; 0 if one class only.

    Choose it on validation examples and use it on test examples. Halfway between
    neighbouring scores, so that it does not hang on one example's value.
    """
    if len(np.unique(target)) < 2:
        return 0.0
    order = np.argsort(-score, kind="stable")
    target, score = target[order], score[order]
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True))  # last example of each run of ties
    called, hits = last + 1.0, np.cumsum(target)[last]
    mcc = _mcc(hits, called - hits, target.sum() - hits, len(target) - called - target.sum() + hits)
    best = int(np.nanargmax(np.where(np.isfinite(mcc), mcc, -1)))
    below = last[best] + 1
    return float((score[last[best]] + score[below]) / 2) if below < len(score) else float(score[last[best]])


def score_readout(
    kind: str,
    target: Array,
    score: Array,
    *,
    threshold: float = 0.0,
    weights: Array | None = None,
) -> list[Score]:
    """All metrics of one readout.

    Parameters
    ----------
    kind : {"binary", "multilabel", "regression", "count"}
    target, score : ndarray, shape (N,)
        Targets (NaN where missing) and pre-link scores.
    threshold : float
        Binary: score above which an example is called positive, for MCC and accuracy.
    weights : ndarray, shape (draws, N), optional
        Bootstrap weights from `group_bootstrap`; without them there are no intervals.

    Returns
    -------
    list of Score
        A metric that is not defined on these examples is NaN and says why.
    """
    present = ~np.isnan(target)
    target, score = target[present], score[present]
    weights = None if weights is None else weights[:, present]
    if kind in ("binary", "multilabel"):
        return _collect(_binary_metrics(target, score, threshold), target, weights, note=f"threshold {threshold:.4g}")
    if kind == "count":
        notes = {"pearson": "of log(1 + count) and log rate"}
        return _collect(_count_metrics(target, score), target, weights, notes=notes)
    return _collect(_value_metrics(target, score), target, weights)


def score_classes(target: Array, scores: Array, *, weights: Array | None = None) -> list[Score]:
    """Multiclass metrics of class indices (N,) and pre-link scores (N, T)."""
    n_classes = scores.shape[1]
    log_p = log_softmax(scores, axis=1)
    called, index = scores.argmax(1), target.astype(int)
    loss = -log_p[np.arange(len(index)), index]
    present = [c for c in range(n_classes) if 0 < (index == c).sum() < len(index)]

    def macro_auroc(w: Array) -> Array:
        each = [weighted_auroc((index == c) * 1.0, log_p[:, c], w) for c in present]
        return np.mean(each, axis=0) if each else np.full(len(w), np.nan)

    def weighted_mcc(w: Array) -> Array:
        one_true, one_called = np.eye(n_classes)[index], np.eye(n_classes)[called]
        total = w.sum(1)
        t, p = w @ one_true, w @ one_called
        cov = (w @ (index == called)) * total - (t * p).sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return cov / np.sqrt((total**2 - (p**2).sum(1)) * (total**2 - (t**2).sum(1)))

    each = [_auroc((index == c) * 1.0, log_p[:, c]) for c in present]
    missing = n_classes - len(present)
    entries: dict[str, _Metric] = {
        "auroc": _Metric(float(np.mean(each)) if each else np.nan, macro_auroc),
        "accuracy": _Metric(float((called == index).mean()), _mean_of((called == index) * 1.0)),
        "mcc": _Metric(
            float(sk.matthews_corrcoef(index, called)) if len(np.unique(index)) > 1 else np.nan, weighted_mcc
        ),
        "log_loss": _Metric(float(loss.mean()), _mean_of(loss)),
    }
    note = "macro average, one against the rest"
    notes = {"auroc": note + (f"; {missing} of {n_classes} classes do not occur here" if missing else "")}
    return _collect(entries, target, weights, notes=notes)


def group_bootstrap(groups: NDArray[np.int64], draws: int, generator: np.random.Generator) -> Array:
    """Weights (draws, N) of bootstrap samples of whole groups: how often each example is drawn."""
    _, index = np.unique(groups, return_inverse=True)
    n_groups = int(index.max()) + 1 if len(index) else 0
    counts = np.zeros((draws, n_groups))
    for row in counts:
        row += np.bincount(generator.integers(n_groups, size=n_groups), minlength=n_groups)
    return counts[:, index]


def curves(kind: str, target: Array, prediction: Array) -> pd.DataFrame:
    """Compact curves of one readout from predictions on the target's scale: columns kind, x, y, n.

    roc: false and true positive rate; pr: recall and precision; calibration: mean
    prediction and mean target, in the units of the target, in bins of equal count
    of n examples each.
    """
    present = ~np.isnan(target)
    target, prediction = target[present], prediction[present]
    parts: list[pd.DataFrame] = []
    if len(target) == 0:
        return pd.DataFrame({"kind": [], "x": [], "y": [], "n": []})
    if kind in ("binary", "multilabel", "multiclass") and len(np.unique(target)) == 2:
        false_rate, true_rate, _ = sk.roc_curve(target, prediction)
        parts.append(_thin("roc", false_rate, true_rate))
        precision, recall, _ = sk.precision_recall_curve(target, prediction)
        parts.append(_thin("pr", recall[::-1], precision[::-1]))
    bins = _bins(prediction)
    n = np.bincount(bins)
    x, y = np.bincount(bins, prediction) / n, np.bincount(bins, target) / n
    parts.append(pd.DataFrame({"kind": "calibration", "x": x, "y": y, "n": n}))
    return pd.concat(parts, ignore_index=True)


# ------------------------------------------------------------------ the metrics


class _Metric(NamedTuple):
    value: float
    #: Weights (draws, N) to values (draws,).
    draws: Callable[[Array], Array]


def _binary_metrics(target: Array, score: Array, threshold: float) -> dict[str, _Metric]:
    prediction, called = expit(score), score > threshold
    two = len(np.unique(target)) == 2
    bins = _bins(prediction)
    hit, right = called * target, (called == (target > 0.5)) * 1.0

    def weighted_mcc(w: Array) -> Array:
        tp, called_n, positive, total = w @ hit, w @ called, w @ target, w.sum(1)
        return _mcc(tp, called_n - tp, positive - tp, total - called_n - positive + tp)

    return {
        "auroc": _Metric(_auroc(target, score), lambda w: weighted_auroc(target, score, w)),
        "auprc": _Metric(
            float(sk.average_precision_score(target, score)) if two else np.nan,
            lambda w: weighted_average_precision(target, score, w),
        ),
        "mcc": _Metric(float(sk.matthews_corrcoef(target, called)) if two else np.nan, weighted_mcc),
        "accuracy": _Metric(float(right.mean()) if len(right) else np.nan, _mean_of(right)),
        "brier": _Metric(
            float(np.mean((prediction - target) ** 2)) if len(target) else np.nan, _mean_of((prediction - target) ** 2)
        ),
        "calibration_error": _Metric(
            float(_calibration_error(target, prediction, bins, np.ones((1, len(target))))[0]),
            lambda w: _calibration_error(target, prediction, bins, w),
        ),
    }


def _value_metrics(target: Array, score: Array) -> dict[str, _Metric]:
    error = (score - target) ** 2
    varied = len(np.unique(target)) > 1

    def weighted_r2(w: Array) -> Array:
        total = w.sum(1)
        mean = w @ target / total
        with np.errstate(invalid="ignore", divide="ignore"):
            return 1 - (w @ error) / (w @ target**2 - total * mean**2)

    return {
        "pearson": _Metric(_pearson(target, score), lambda w: weighted_pearson(target, score, w)),
        "spearman": _Metric(_spearman(target, score), lambda w: weighted_spearman(target, score, w)),
        "r2": _Metric(float(sk.r2_score(target, score)) if varied else np.nan, weighted_r2),
        "rmse": _Metric(float(np.sqrt(error.mean())) if len(error) else np.nan, lambda w: np.sqrt(_mean_of(error)(w))),
    }


def _count_metrics(target: Array, score: Array) -> dict[str, _Metric]:
    observed = np.log1p(target)
    rate = np.exp(score)
    with np.errstate(divide="ignore", invalid="ignore"):
        deviance = 2 * (np.where(target > 0, target * np.log(target / rate), 0.0) - target + rate)
    value = float(sk.mean_poisson_deviance(target, rate)) if len(target) and (rate > 0).all() else np.nan
    return {
        "pearson": _Metric(_pearson(observed, score), lambda w: weighted_pearson(observed, score, w)),
        "spearman": _Metric(_spearman(target, score), lambda w: weighted_spearman(target, score, w)),
        "poisson_deviance": _Metric(value, _mean_of(deviance)),
    }


_UNDEFINED = {
    "auroc": "needs both classes",
    "auprc": "needs both classes",
    "mcc": "needs both classes",
    "pearson": "needs targets and predictions that vary",
    "spearman": "needs targets and predictions that vary",
    "r2": "needs targets that vary",
}


def _collect(
    entries: Mapping[str, _Metric],
    target: Array,
    weights: Array | None,
    *,
    note: str = "",
    notes: Mapping[str, str] | None = None,
) -> list[Score]:
    scores = []
    for name, metric in entries.items():
        draws = np.zeros(0)
        remark = (notes or {}).get(name, note if name in ("mcc", "accuracy") else "")
        if not np.isfinite(metric.value):
            remark = f"undefined: {_UNDEFINED.get(name, 'no examples')}"
        elif weights is not None and len(weights):
            draws = np.concatenate([metric.draws(w) for w in np.split(weights, range(_CHUNK, len(weights), _CHUNK))])
        low, high = interval(draws)
        scores.append(Score(name, float(metric.value), low, high, len(target), remark, draws))
    return scores


def _mean_of(values: Array) -> Callable[[Array], Array]:
    return lambda w: w @ values / w.sum(1)


def _auroc(target: Array, score: Array) -> float:
    return float(sk.roc_auc_score(target, score)) if len(np.unique(target)) == 2 else float("nan")


def _pearson(x: Array, y: Array) -> float:
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        return float(stats.pearsonr(x, y).statistic)


def _spearman(x: Array, y: Array) -> float:
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(stats.spearmanr(x, y).statistic)


def _mcc(tp: Array, fp: Array, fn: Array, tn: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        value: Array = (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return value


def _bins(prediction: Array) -> NDArray[np.int64]:
    """Bin of each example, bins of about equal count; equal predictions share a bin."""
    if len(prediction) == 0:
        return np.zeros(0, np.int64)
    edges = np.unique(np.quantile(prediction, np.linspace(0, 1, N_BINS + 1)[1:-1]))
    return np.unique(np.searchsorted(edges, prediction, side="right"), return_inverse=True)[1]


def _calibration_error(target: Array, prediction: Array, bins: NDArray[np.int64], w: Array) -> Array:
    """Mean absolute difference of mean prediction and mean target over bins, weighted by bin size."""
    if len(target) == 0:
        return np.full(len(w), np.nan)
    gap = np.abs(w @ ((prediction - target)[:, None] * np.eye(bins.max() + 1)[bins]))
    return gap.sum(1) / w.sum(1)


def _thin(kind: str, x: Array, y: Array) -> pd.DataFrame:
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), CURVE_POINTS)).round().astype(int))
    return pd.DataFrame({"kind": kind, "x": x[keep], "y": y[keep], "n": len(x)})


def summarise(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation of the defined values; NaN where there are too few."""
    defined = np.asarray([v for v in values if np.isfinite(v)])
    mean = float(defined.mean()) if len(defined) else float("nan")
    return mean, float(defined.std(ddof=1)) if len(defined) > 1 else float("nan")
