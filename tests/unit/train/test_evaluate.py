"""The evaluation table: which rows it has, and that each number belongs where it stands."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from toy_training import small_run, toy_tables

from bioattn.errors import BioattnWarning, DataError
from bioattn.train.evaluate import CURVES, METRICS, PREDICTIONS, TrainedModel, evaluate
from bioattn.train.metrics import best_mcc_threshold


class CountsOf(nn.Module):
    """Readout: number of a letter, times a factor per readout."""

    def __init__(self, letter: int, factors=(1.0,)) -> None:
        super().__init__()
        self.letter = letter
        self.factors = nn.Parameter(torch.tensor(factors))

    def forward(self, tokens):
        return (tokens == self.letter).sum(1, keepdim=True) * self.factors


RUN = small_run(evaluate={"bootstrap": 20, "baselines": []})


def at(table: pd.DataFrame, **where) -> pd.DataFrame:
    for column, value in where.items():
        table = table[table[column].isna()] if value is None else table[table[column] == value]
    return table


@pytest.fixture(scope="module")
def two_folds(tmp_path_factory):
    sequences, split = toy_tables(300, n_folds=2)
    models = [TrainedModel(f, s, CountsOf(s), 100) for f in (0, 1) for s in (0, 3)]
    return sequences, split, evaluate(RUN, sequences, split, models, work_dir=tmp_path_factory.mktemp("w"))


def test_columns_and_rows(two_folds):
    """Every model has rows for each fold, seed and subset; the ensemble has no seed; "all" rows sum up."""
    metrics = two_folds[2].metrics
    assert list(metrics.columns) == list(METRICS)
    assert list(two_folds[2].predictions.columns) == list(PREDICTIONS)
    assert list(two_folds[2].curves.columns) == list(CURVES)
    for fold in ("0", "1"):
        for subset in ("train", "validation", "test"):
            for seed in (0, 3):
                assert len(at(metrics, model="transformer", fold=fold, seed=seed, subset=subset, metric="auroc")) == 1
            assert len(at(metrics, model="ensemble", fold=fold, subset=subset, metric="auroc")) == 1
    assert at(metrics, model="ensemble")["seed"].isna().all()
    assert not metrics.duplicated(["model", "readout", "fold", "seed", "subset", "metric"]).any()


def test_means_over_folds_and_seeds(two_folds):
    """A row of fold "all" is the mean of its four models, with their standard deviation beside it."""
    metrics = two_folds[2].metrics
    four = at(metrics, model="transformer", subset="test", metric="auroc")
    whole = at(four, fold="all").iloc[0]
    singles = four[four["fold"] != "all"]["value"]
    assert len(singles) == 4
    assert whole["value"] == pytest.approx(singles.mean())
    assert whole["sd"] == pytest.approx(singles.std())
    assert whole["ci_low"] < whole["value"] < whole["ci_high"]


def test_ensemble_is_the_mean_score(two_folds):
    """The ensemble's score of a sequence is the mean of the seeds' scores."""
    table = at(two_folds[2].predictions, fold=0, subset="test")
    mean = at(table, model="transformer").groupby("name")["score"].mean()
    ensemble = at(table, model="ensemble").set_index("name")["score"]
    pd.testing.assert_series_equal(mean, ensemble.loc[mean.index])


def test_predictions_belong_to_their_names(two_folds):
    """Score, prediction and target of a row are those of the named sequence in the named fold and subset."""
    sequences, split, result = two_folds
    rows = at(result.predictions, model="transformer", fold=1, seed=3, subset="test").set_index("name")
    assert sorted(rows.index) == sorted(split["name"][split["fold_1"] == "test"])
    truth = sequences.set_index("name").loc[rows.index]
    assert (rows["score"] == truth["sequence"].str.count("T")).all()
    assert (rows["target"] == truth["label"]).all()
    np.testing.assert_allclose(rows["prediction"], 1 / (1 + np.exp(-rows["score"])))
    assert set(result.predictions["subset"]) == {"validation", "test"}


def test_threshold_comes_from_validation(two_folds):
    """The note of the test MCC states the threshold that is best on validation examples."""
    result = two_folds[2]
    rows = at(result.predictions, model="transformer", fold=0, seed=3, subset="validation")
    threshold = best_mcc_threshold(rows["target"].to_numpy(), rows["score"].to_numpy())
    test = at(result.metrics, model="transformer", fold="0", seed=3, subset="test", metric="mcc").iloc[0]
    assert test["note"] == f"threshold {threshold:.4g}"


def test_training_scores_have_no_interval(two_folds):
    """Training rows are there to show overfitting only: value without interval."""
    train = at(two_folds[2].metrics, subset="train")
    assert train["value"].notna().all() and train["ci_low"].isna().all()


def test_single_model_has_no_summary_rows(tmp_path):
    """One model has neither an ensemble nor rows of fold "all"."""
    result = evaluate(RUN, *toy_tables(200), [TrainedModel(0, 1, CountsOf(0), 9)], work_dir=tmp_path)
    assert set(result.metrics["model"]) == {"transformer"}
    assert set(result.metrics["fold"]) == {"0"}


def test_baselines_stand_beside_the_model(tmp_path):
    """Every baseline that is asked for has test rows on the same examples; one that cannot be is left out."""
    run = small_run(evaluate={"bootstrap": 5}, epochs=1)
    sequences, split = toy_tables(200)
    sequences.loc[0, "sequence"] = "ACGTA"
    with pytest.warns(BioattnWarning, match="onehot"):
        result = evaluate(run, sequences, split, [TrainedModel(0, 1, CountsOf(0), 900)], work_dir=tmp_path)
    test = at(result.metrics, subset="test", metric="auroc").set_index("model")
    assert set(test.index) == {"transformer", "composition", "kmer", "cnn"}
    assert test["n"].nunique() == 1
    assert set(result.baselines) == {"composition", "kmer", "cnn"}
    assert abs(result.baselines["cnn"]["fold_0"]["n_parameters"] - 900) < 200


def test_classes_are_stored_one_by_one(tmp_path):
    """Multiclass predictions have one row per class, adding up to one, with the target as 0 or 1."""
    run = small_run(task={"kind": "multiclass", "classes": ["a", "b", "c"]}, evaluate={"bootstrap": 5, "baselines": []})
    models = [TrainedModel(0, 1, CountsOf(0, (0.1, -0.2, 0.3)), 9)]
    result = evaluate(run, *toy_tables(200), models, work_dir=tmp_path)
    assert set(result.metrics["metric"]) == {"auroc", "accuracy", "mcc", "log_loss"}
    sums = at(result.predictions, subset="test").groupby("name")[["target", "prediction"]].sum()
    np.testing.assert_allclose(sums, 1)
    assert set(result.curves["readout"]) == {"a", "b", "c"}


def test_one_class_in_the_test_part_is_no_crash(tmp_path):
    """A test part with one class has NaN for AUROC with the reason, and numbers where they exist."""
    sequences, split = toy_tables(200)
    sequences.loc[split["fold_0"] == "test", "label"] = 1.0
    result = evaluate(RUN, sequences, split, [TrainedModel(0, 1, CountsOf(0), 9)], work_dir=tmp_path)
    test = at(result.metrics, subset="test").set_index("metric")
    assert np.isnan(test.loc["auroc", "value"]) and "both classes" in test.loc["auroc", "note"]
    assert test.loc["brier", "value"] >= 0


@pytest.mark.parametrize(
    ("models", "message"),
    [([], "no model to evaluate"), ([TrainedModel(0, 1, CountsOf(0), 9)] * 2, "same fold and seed")],
)
def test_wrong_lists_of_models_are_refused(models, message, tmp_path):
    """No model, or the same one twice, is an error."""
    with pytest.raises(DataError, match=message):
        evaluate(RUN, *toy_tables(200), models, work_dir=tmp_path)
