"""The audit of a split: who is nearest, how many are near, and what remembering them is worth."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from bioattn.config import parse_run
from bioattn.data.alphabet import reverse_complement
from bioattn.data.audit import AUDIT, NEIGHBOURS, Audit, audit, leak_free
from bioattn.data.splits import leakage
from bioattn.errors import DataError

LETTERS = np.array(list("ACGT"))


def dna(rng: np.random.Generator, length: int = 90) -> str:
    return "".join(rng.choice(LETTERS, length))


def mutated(rng: np.random.Generator, sequence: str, n: int) -> str:
    """The sequence with n substitutions away from its ends."""
    letters = list(sequence)
    for at in rng.choice(np.arange(10, len(letters) - 10), n, replace=False):
        letters[at] = {"A": "C", "C": "A", "G": "T", "T": "G"}[letters[at]]
    return "".join(letters)


def planted(task: dict[str, Any] | None = None, targets: dict[str, Any] | None = None, **rules: Any) -> Audit:
    """40 train; validation: 20 strangers; test: 10 copies, 10 mutated reverse complements, 20 strangers."""
    rng = np.random.default_rng(1)
    train = [dna(rng) for _ in range(40)]
    validation = [dna(rng) for _ in range(20)]
    test = train[:10] + [reverse_complement(mutated(rng, each, 9)) for each in train[10:20]]
    test += [dna(rng) for _ in range(20)]
    table = pd.DataFrame({"name": [f"s{i}" for i in range(100)], "sequence": [*train, *validation, *test]})
    for name, values in (targets or {"label": np.arange(100) % 2.0}).items():
        table[name] = values
    subsets = ["train"] * 40 + ["validation"] * 20 + ["test"] * 40
    split = pd.DataFrame({"name": table["name"], "group": range(100), "fold_0": subsets, "fold_1": subsets[::-1]})
    run = parse_run({"task": task or {}, "split": rules})
    found = audit(table, split, run.split, run.task, seed=1)
    assert leakage(table, split)["n_identical_to_train"].tolist() == [0, 10, 0, 10]
    return found


def measures(found: Audit, measure: str, **where: Any) -> pd.DataFrame:
    rows = found.table[found.table["measure"] == measure]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows


def test_every_held_out_sequence_has_its_nearest_training_sequence() -> None:
    """One row per fold and held-out sequence, with the planted neighbour, identity and strand, or nothing."""
    found = planted()
    assert list(found.neighbours.columns) == list(NEIGHBOURS) and list(found.table.columns) == list(AUDIT)
    rows = found.neighbours[found.neighbours["fold"] == 0].reset_index(drop=True)
    assert rows["name"].tolist() == [f"s{i}" for i in range(40, 100)]
    assert rows["subset"].tolist() == ["validation"] * 20 + ["test"] * 40
    assert rows["nearest"].tolist() == [None] * 20 + [f"s{i}" for i in range(20)] + [None] * 20
    assert rows["strand"].tolist() == [None] * 20 + ["+"] * 10 + ["-"] * 10 + [None] * 20
    assert rows["identity"][20:40].tolist() == pytest.approx([1.0] * 10 + [0.9] * 10)
    assert rows["identity"].drop(range(20, 40)).isna().all()


def test_each_fold_has_its_own_training_sequences() -> None:
    """In the mirrored fold the copies' originals are held out and find the copies."""
    found = planted()
    rows = found.neighbours[found.neighbours["fold"] == 1].set_index("name")
    assert rows.index[:20].tolist() == [f"s{i}" for i in range(40, 60)], "validation first"
    assert rows.loc[[f"s{i}" for i in range(20)], "nearest"].tolist() == [f"s{i}" for i in range(60, 80)]


def test_counts_are_those_of_the_neighbours() -> None:
    """Counts and shares at every identity are those of the table of neighbours, which chance does not reach."""
    found = planted(audit_identities=[0.7, 1.0], leak_free_identity=0.9)
    for fold in (0, 1):
        rows = measures(found, "related", fold=fold, subset="test")
        assert rows["identity"].tolist() == [0.7, 0.9, 1.0]
        assert rows["count"].tolist() == [20, 20, 10] and rows["n"].tolist() == [40] * 3
        assert rows["value"].tolist() == [0.5, 0.5, 0.25]
        assert rows["chance"].tolist() == [0, 0, 0]
        assert rows["sensitivity"].between(0, 1).all() and rows["sensitivity"].is_monotonic_increasing
    assert measures(found, "related", subset="validation")["count"].eq(0).all()


def values(related: Any) -> np.ndarray:
    """Targets of which those of the 20 test sequences with a neighbour are given."""
    rng = np.random.default_rng(2)
    whole = rng.integers(0, 2, 100).astype(float)
    whole[60:80] = related(whole[:20])
    return whole


def test_memory_of_labels() -> None:
    """With the neighbours' labels memory is right where one is near, with the opposite wrong; else it says the mean."""
    near = planted(targets={"label": values(lambda v: v)})
    row = measures(near, "nearest_accuracy", fold=0, subset="test").iloc[0]
    label = values(lambda v: v)
    largest = float(np.bincount(label[:40].astype(int)).argmax())
    assert row["value"] == pytest.approx((20 + (label[80:] == largest).sum()) / 40)
    assert row["chance"] == pytest.approx((label[60:] == largest).mean())
    assert (row["n"], row["count"], row["readout"]) == (40, 20, "label")
    good = measures(near, "nearest_auroc", fold=0, subset="test")["value"].iloc[0]
    opposite = planted(targets={"label": values(lambda v: 1 - v)})
    bad = measures(opposite, "nearest_auroc", fold=0, subset="test")["value"].iloc[0]
    assert bad < 0.5 < 0.75 < good
    assert measures(near, "nearest_auroc", fold=0, subset="validation")["value"].iloc[0] == 0.5, (
        "no neighbour, no memory"
    )


def test_memory_of_numbers() -> None:
    """For numbers memory is a correlation: high with the neighbours' values, undefined where none is near."""
    rng = np.random.default_rng(3)
    y = rng.normal(size=100)
    y[60:80] = y[:20]
    y[[61, 85]] = np.nan
    found = planted({"kind": "regression", "targets": ["y"]}, {"y": y})
    row = measures(found, "nearest_pearson", fold=0, subset="test").iloc[0]
    predicted = np.where(np.arange(40) < 20, y[:40], y[:40].mean())
    known = ~np.isnan(y[60:])
    assert row["value"] == pytest.approx(np.corrcoef(y[60:][known], predicted[known])[0, 1])
    assert (row["n"], row["count"], row["chance"]) == (38, 19, 0)
    assert np.isnan(measures(found, "nearest_pearson", fold=0, subset="validation")["value"].iloc[0])
    counts = planted({"kind": "count", "targets": ["y"]}, {"y": np.round(np.exp(np.nan_to_num(y)))})
    assert measures(counts, "nearest_pearson", fold=0, subset="test")["value"].iloc[0] > 0.4


def test_memory_of_several_targets_and_classes() -> None:
    """Each target has its own rows; classes have an accuracy, and an unknown label of the neighbour counts as none."""
    labels = values(lambda v: v)
    partly = labels.copy()
    partly[0] = np.nan
    task = {"kind": "multilabel", "targets": ["a", "b"]}
    found = planted(task, {"a": partly, "b": labels})
    rows = measures(found, "nearest_auroc", fold=0, subset="test").set_index("readout")
    assert rows["count"].to_dict() == {"a": 19, "b": 20}
    classes = {"kind": "multiclass", "targets": ["c"], "classes": ["x", "y", "z"]}
    found = planted(classes, {"c": np.arange(100) % 20 % 3.0})
    rows = measures(found, "nearest_accuracy", fold=0, subset="test")
    assert rows["value"].iloc[0] > rows["chance"].iloc[0] + 0.2
    assert measures(found, "nearest_auroc").empty


def test_the_same_seed_gives_the_same_audit() -> None:
    """An audit is deterministic."""
    one, other = planted(), planted()
    pd.testing.assert_frame_equal(one.neighbours, other.neighbours)
    pd.testing.assert_frame_equal(one.table, other.table)


def test_leak_free_is_below_the_identity_or_without_neighbour() -> None:
    """Leak-free are names of the fold whose neighbour is farther than the identity, and those that have none."""
    neighbours = pd.DataFrame(
        {"name": list("abcab"), "fold": [0, 0, 0, 1, 1], "identity": [0.8, 0.79, np.nan, 0.1, 0.9]}
    )
    names = np.array(["c", "a", "b"], dtype=object)
    assert leak_free(names, neighbours, fold=0, identity=0.8).tolist() == [True, False, True]
    with pytest.raises(DataError, match="no row of fold 1 for 1 of 3 held-out sequences .first: 'c'"):
        leak_free(names, neighbours, fold=1, identity=0.8)


def test_a_split_of_other_sequences_is_refused() -> None:
    """Names must agree."""
    run = parse_run({})
    table = pd.DataFrame({"name": ["a", "b"], "sequence": ["ACGT", "TTTT"], "label": [0.0, 1.0]})
    split = pd.DataFrame({"name": ["a", "c"], "group": [0, 1], "fold_0": ["train", "test"]})
    with pytest.raises(DataError, match="same names"):
        audit(table, split, run.split, run.task, seed=1)
