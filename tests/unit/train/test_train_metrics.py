"""Metrics for weighted examples equal scikit-learn and SciPy on repeated ones; undefined metrics say so."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from bioattn.data.weighted import interval
from bioattn.train.metrics import (
    best_mcc_threshold,
    curves,
    group_bootstrap,
    link,
    score_classes,
    score_readout,
    validation_metric,
)

RNG = np.random.default_rng(0)
N = 101
BINARY = (RNG.random(N) < 0.4).astype(float)
#: Rounded, so that ties occur.
SCORE = np.round(BINARY + RNG.normal(size=N), 1)
VALUE = np.round(SCORE + RNG.normal(size=N), 1)
COUNT = RNG.poisson(np.exp(SCORE / 2)).astype(float)
#: How often each example is drawn: zero to three times.
TIMES = RNG.integers(0, 4, size=(1, N)).astype(float)
REPEATED = np.repeat(np.arange(N), TIMES[0].astype(int))


def draws(kind: str, target, score=SCORE, **options) -> dict[str, float]:
    """Value of each metric in the one bootstrap draw `TIMES`."""
    return {s.metric: s.draws[0] for s in score_readout(kind, target, score, weights=TIMES, **options)}


def values(kind: str, target, score=SCORE, **options) -> dict[str, float]:
    return {s.metric: s.value for s in score_readout(kind, target, score, **options)}


@pytest.mark.parametrize(
    ("kind", "target"), [("binary", BINARY), ("multilabel", BINARY), ("regression", VALUE), ("count", COUNT)]
)
def test_a_draw_equals_the_metric_of_repeated_examples(kind, target):
    """Weight 3 is the same as three copies, for every metric, ties included."""
    weighted = draws(kind, target, threshold=0.3) if kind in ("binary", "multilabel") else draws(kind, target)
    options = {"threshold": 0.3} if kind in ("binary", "multilabel") else {}
    repeated = values(kind, target[REPEATED], SCORE[REPEATED], **options)
    for name, value in repeated.items():
        if name != "calibration_error":  # its bins are those of the whole sample
            assert weighted[name] == pytest.approx(value, abs=1e-9), name


def test_binary_values_are_those_of_scikit_learn():
    """AUROC, AUPRC, MCC, accuracy and Brier score are scikit-learn's."""
    found = values("binary", BINARY, threshold=0.3)
    probability = 1 / (1 + np.exp(-SCORE))
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(BINARY, SCORE))
    assert found["auprc"] == pytest.approx(sk.average_precision_score(BINARY, SCORE))
    assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(BINARY, SCORE > 0.3))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(BINARY, SCORE > 0.3))
    assert found["brier"] == pytest.approx(sk.brier_score_loss(BINARY, probability))


def test_regression_and_count_values_are_those_of_scipy():
    """Pearson, Spearman, R2, RMSE and Poisson deviance are SciPy's and scikit-learn's."""
    found = values("regression", VALUE)
    assert found["pearson"] == pytest.approx(stats.pearsonr(VALUE, SCORE)[0])
    assert found["spearman"] == pytest.approx(stats.spearmanr(VALUE, SCORE)[0])
    assert found["r2"] == pytest.approx(sk.r2_score(VALUE, SCORE))
    assert found["rmse"] == pytest.approx(sk.root_mean_squared_error(VALUE, SCORE))
    counted = values("count", COUNT)
    assert counted["poisson_deviance"] == pytest.approx(sk.mean_poisson_deviance(COUNT, np.exp(SCORE)))
    assert counted["pearson"] == pytest.approx(stats.pearsonr(np.log1p(COUNT), SCORE)[0])


def test_classes_equal_scikit_learn_whole_and_repeated():
    """Macro AUROC, accuracy, MCC and log loss are scikit-learn's, also on a bootstrap draw."""
    scores = RNG.normal(size=(N, 3))
    index = np.where(RNG.random(N) < 0.6, scores.argmax(1), RNG.integers(0, 3, N)).astype(float)
    for rows, chosen in (
        (np.arange(N), {s.metric: s.value for s in score_classes(index, scores)}),
        (REPEATED, {s.metric: s.draws[0] for s in score_classes(index, scores, weights=TIMES)}),
    ):
        y, p = index[rows], link("multiclass", scores)[rows]
        log_p = np.log(p)
        macro = np.mean([sk.roc_auc_score(y == c, log_p[:, c]) for c in range(3)])
        assert chosen["auroc"] == pytest.approx(macro)
        assert chosen["accuracy"] == pytest.approx(sk.accuracy_score(y, p.argmax(1)))
        assert chosen["mcc"] == pytest.approx(sk.matthews_corrcoef(y, p.argmax(1)))
        assert chosen["log_loss"] == pytest.approx(sk.log_loss(y, p))


def test_calibration_error_is_zero_for_true_probabilities_and_right_for_a_constant_shift():
    """Predictions that equal the observed rate have no error; a constant prediction is off by its distance."""
    target = np.tile([0.0, 1.0, 1.0, 1.0], 50)
    exact = np.full(200, np.log(3.0))
    assert values("binary", target, exact)["calibration_error"] == pytest.approx(0, abs=1e-12)
    assert values("binary", target, np.zeros(200))["calibration_error"] == pytest.approx(0.25)


@pytest.mark.parametrize("kind", ["binary", "regression", "count"])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_undefined_metrics_are_nan_and_say_why(kind, n):
    """One class, one value, one example or none give NaN with a remark, never an exception."""
    target, score = np.ones(n), np.arange(float(n))
    for found in score_readout(kind, target, score, weights=np.ones((3, n))):
        if np.isnan(found.value):
            assert found.note.startswith("undefined: ")
            assert np.isnan(found.ci_low)
    by_name = {s.metric: s for s in score_readout(kind, target, score)}
    assert np.isnan(by_name["auroc" if kind == "binary" else "spearman"].value)


def test_missing_targets_are_left_out():
    """Scores of examples whose target is missing do not matter."""
    holes = np.where(np.arange(N) % 3 == 0, np.nan, BINARY)
    other = np.where(np.arange(N) % 3 == 0, 99.0, SCORE)
    assert values("multilabel", holes) == values("multilabel", holes, other)
    assert values("multilabel", holes) == values(
        "multilabel", BINARY[np.arange(N) % 3 > 0], SCORE[np.arange(N) % 3 > 0]
    )


def test_threshold_is_the_best_of_all():
    """No threshold on the validation examples has a better MCC than the chosen one."""
    chosen = sk.matthews_corrcoef(BINARY, SCORE > best_mcc_threshold(BINARY, SCORE))
    every = [sk.matthews_corrcoef(BINARY, SCORE > t) for t in np.arange(-5, 5, 0.05)]
    assert chosen == pytest.approx(max(every))
    assert best_mcc_threshold(np.ones(4), np.arange(4.0)) == 0


def test_groups_are_drawn_whole():
    """All examples of a group have one weight, and a draw holds as many groups as there are."""
    groups = np.array([7, 7, 2, 5, 5, 5, 9])
    weights = group_bootstrap(groups, 200, np.random.default_rng(0))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3:6] == weights[:, [3]]).all()
    assert (weights[:, [0, 2, 3, 6]].sum(1) == 4).all()
    assert weights.mean(0) == pytest.approx(np.ones(7), abs=0.25)


def test_interval_widens_when_examples_are_copies():
    """Ten copies of each example are no more evidence: by group the interval stays, by example it shrinks."""
    target, score = np.tile(VALUE, 10), np.tile(SCORE, 10)
    generator = np.random.default_rng(0)

    def width(groups, target=target, score=score):
        found = score_readout("regression", target, score, weights=group_bootstrap(groups, 400, generator))[0]
        return found.ci_high - found.ci_low

    single = width(np.arange(N), VALUE, SCORE)
    by_group, by_example = width(np.tile(np.arange(N), 10)), width(np.arange(10 * N))
    assert by_group == pytest.approx(single, rel=0.25)
    assert by_example < 0.5 * single


def test_interval_covers_the_truth():
    """The 95 % interval of a correlation of 0.5 holds it in about 95 % of samples."""
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        x = generator.normal(size=120)
        y = 0.5 * x + np.sqrt(0.75) * generator.normal(size=120)
        found = score_readout("regression", y, x, weights=group_bootstrap(np.arange(120), 200, generator))[0]
        hits += found.ci_low <= 0.5 <= found.ci_high
    assert 0.88 <= hits / 200 <= 0.99


def test_interval_needs_half_of_the_draws():
    """An interval from mostly undefined draws is not given."""
    assert np.isnan(interval(np.array([1.0, np.nan, np.nan]))).all()
    assert interval(np.array([1.0, 1.0, np.nan])) == (1.0, 1.0)


def test_curves_agree_with_the_metrics():
    """The area under the stored ROC curve is the AUROC; calibration bins hold every example once."""
    probability = link("binary", SCORE[:, None])[:, 0]
    table = curves("binary", BINARY, probability)
    roc = table[table["kind"] == "roc"]
    assert np.trapezoid(roc["y"], roc["x"]) == pytest.approx(sk.roc_auc_score(BINARY, SCORE), abs=0.01)
    calibration = table[table["kind"] == "calibration"]
    assert calibration["n"].sum() == N
    assert (calibration["x"] * calibration["n"]).sum() == pytest.approx(probability.sum())
    assert len(curves("binary", np.full(3, np.nan), np.zeros(3))) == 0


def test_validation_metric_by_kind():
    """AUROC, Pearson and accuracy, averaged over the targets where they are defined."""
    two = np.column_stack([BINARY, np.ones(N)])
    assert validation_metric("multilabel", two, np.column_stack([SCORE, SCORE])) == pytest.approx(
        sk.roc_auc_score(BINARY, SCORE)
    )
    assert validation_metric("regression", VALUE[:, None], SCORE[:, None]) == pytest.approx(
        stats.pearsonr(VALUE, SCORE)[0]
    )
    classes = RNG.normal(size=(N, 3))
    assert validation_metric("multiclass", classes.argmax(1)[:, None].astype(float), classes) == 1
    assert np.isnan(validation_metric("binary", np.ones((3, 1)), np.zeros((3, 1))))
