"""The evaluation table: which rows it has, and that each number belongs where it stands."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from toy_training import small_run, toy_tables

from bioattn.errors import BioattnWarning, DataError
from bioattn.train.evaluate import CURVES, LEAK_FREE, METRICS, PREDICTIONS, TrainedModel, evaluate
from bioattn.train.metrics import best_mcc_threshold, score_readout


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
    assert set(test.index) == {"transformer", "composition", "kmer", "cnn", "uniform"}
    assert test["n"].nunique() == 1
    assert set(result.baselines) == {"composition", "kmer", "cnn", "uniform"}
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


def neighbours_of(split: pd.DataFrame, near) -> pd.DataFrame:
    """Neighbours of every test sequence of each fold: identity 0.9 where `near` is true of its name, none else."""
    parts = []
    for fold in [name for name in split if name.startswith("fold_")]:
        names = split.loc[split[fold] == "test", "name"]
        identity = [0.9 if near(name) else np.nan for name in names]
        parts.append(pd.DataFrame({"name": names, "fold": int(fold[5:]), "identity": identity}))
    return pd.concat(parts)


def test_leak_free_rows_are_the_scores_without_near_sequences(tmp_path):
    """Leak-free rows are the metrics of test sequences without a near training one; all others stay as they were."""
    sequences, split = toy_tables(600, n_folds=2)
    models = [TrainedModel(f, s, CountsOf(s), 9) for f in (0, 1) for s in (0, 3)]
    known = {name for name in sequences["name"] if int(name[1:]) % 3 == 0}
    near = neighbours_of(split, known.__contains__)
    plain = evaluate(RUN, sequences, split, models, work_dir=tmp_path)
    result = evaluate(RUN, sequences, split, models, work_dir=tmp_path, neighbours=near)
    free = at(result.metrics, subset=LEAK_FREE)
    pd.testing.assert_frame_equal(
        result.metrics[result.metrics["subset"] != LEAK_FREE].reset_index(drop=True), plain.metrics
    )
    pd.testing.assert_frame_equal(result.predictions, plain.predictions)
    rows = at(result.predictions, model="transformer", fold=1, seed=3, subset="test")
    rows = rows[~rows["name"].isin(known)]
    threshold = float(at(free, fold="1", seed=3, metric="mcc")["note"].iloc[0].removeprefix("threshold "))
    expected = score_readout("binary", rows["target"].to_numpy(), rows["score"].to_numpy(), threshold=threshold)
    for score in expected:
        row = at(free, model="transformer", fold="1", seed=3, metric=score.metric).iloc[0]
        assert row["value"] == pytest.approx(score.value) and row["n"] == len(rows) == score.n
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
    whole = at(free, model="transformer", fold="all", metric="auroc").iloc[0]
    singles = at(free, model="transformer", metric="auroc")
    assert whole["value"] == pytest.approx(singles.loc[singles["fold"] != "all", "value"].mean())
    assert set(at(free, metric="auroc")["model"]) == {"transformer", "ensemble"}
    assert not result.metrics.duplicated(["model", "readout", "fold", "seed", "subset", "metric"]).any()


@pytest.mark.parametrize(
    ("keep", "note"),
    [
        (lambda names, label: names[:7], "7 leak-free test sequences, at least 20 are needed"),
        (lambda names, label: [], "0 leak-free test sequences, at least 20"),
        (lambda names, label: [name for name in names if label[name] == 1], "are of one class"),
    ],
)
def test_too_few_leak_free_sequences_have_no_score(keep, note, tmp_path):
    """With too few leak-free sequences, or of one class, the rows are there without a value and say why."""
    sequences, split = toy_tables(600)
    names = split.loc[split["fold_0"] == "test", "name"].tolist()
    free = set(keep(names, sequences.set_index("name")["label"]))
    near = neighbours_of(split, lambda name: name not in free)
    result = evaluate(RUN, sequences, split, [TrainedModel(0, 1, CountsOf(0), 9)], work_dir=tmp_path, neighbours=near)
    rows = at(result.metrics, subset=LEAK_FREE)
    assert set(rows["metric"]) == set(at(result.metrics, subset="test")["metric"])
    assert rows["value"].isna().all() and rows["ci_low"].isna().all()
    assert rows["note"].str.contains(note).all() and (rows["n"] == len(free)).all()


def test_a_fold_without_leak_free_score_is_left_out_of_the_mean(tmp_path):
    """The mean over folds is that of the folds whose leak-free sequences could be scored, and says so."""
    sequences, split = toy_tables(600, n_folds=2)
    near = neighbours_of(split, lambda name: False)
    near.loc[near["fold"] == 1, "identity"] = 1.0
    models = [TrainedModel(f, 0, CountsOf(0), 9) for f in (0, 1)]
    rows = at(
        evaluate(RUN, sequences, split, models, work_dir=tmp_path, neighbours=near).metrics,
        subset=LEAK_FREE,
        metric="auroc",
    ).set_index("fold")
    assert np.isnan(rows.loc["1", "value"])
    assert (
        rows.loc["all", ["value", "ci_low", "ci_high"]].tolist()
        == rows.loc["0", ["value", "ci_low", "ci_high"]].tolist()
    )
    assert rows.loc["all", "note"] == "mean of 2 folds and seeds, 1 of them undefined"


def test_leak_free_scores_of_other_tasks(tmp_path):
    """Classes and numbers have leak-free rows with all their metrics."""
    classes = small_run(
        task={"kind": "multiclass", "classes": ["a", "b", "c"]}, evaluate={"bootstrap": 5, "baselines": []}
    )
    numbers = small_run(task={"kind": "regression", "targets": ["label"]}, evaluate={"bootstrap": 5, "baselines": []})
    for run, kind, factors in ((classes, "binary", (0.1, -0.2, 0.3)), (numbers, "regression", (1.0,))):
        sequences, split = toy_tables(600, kind=kind)
        near = neighbours_of(split, lambda name: int(name[1:]) % 3 == 0)
        models = [TrainedModel(0, 1, CountsOf(0, factors), 9)]
        metrics = evaluate(run, sequences, split, models, work_dir=tmp_path, neighbours=near).metrics
        free, test = at(metrics, subset=LEAK_FREE), at(metrics, subset="test")
        assert free["metric"].tolist() == test["metric"].tolist()
        assert free["value"].notna().all() and (free["n"].to_numpy() < test["n"].to_numpy()).all()


def test_neighbours_of_another_split_are_refused(tmp_path):
    """A test sequence without a row among the neighbours is an error that names it."""
    sequences, split = toy_tables(300)
    near = neighbours_of(split, lambda name: False).iloc[1:]
    with pytest.raises(DataError, match="no row of fold 0 for 1 of .* held-out sequences"):
        evaluate(RUN, sequences, split, [TrainedModel(0, 1, CountsOf(0), 9)], work_dir=tmp_path, neighbours=near)


@pytest.mark.parametrize(
    ("models", "message"),
    [([], "no model to evaluate"), ([TrainedModel(0, 1, CountsOf(0), 9)] * 2, "same fold and seed")],
)
def test_wrong_lists_of_models_are_refused(models, message, tmp_path):
    """No model, or the same one twice, is an error."""
    with pytest.raises(DataError, match=message):
        evaluate(RUN, *toy_tables(200), models, work_dir=tmp_path)
