"""Composition: what is counted, how differences are stated, and what linear models of it find."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from toy_genome import ToyGenome

from bioattn.config import NegativesConfig, TaskConfig
from bioattn.data import balance
from bioattn.data.alphabet import reverse_complement
from bioattn.data.balance import BALANCE_COLUMNS, COMPOSITION_COLUMNS, balance_table, composition_table
from bioattn.data.composition import FEATURES, features, kmer_counts, kmer_totals, masked_letters, masked_spans
from bioattn.data.negatives import add_negatives

BINARY = TaskConfig()


def table_of(sequences: list[str], labels: Any, **columns: Any) -> pd.DataFrame:
    names = [f"s{i}" for i in range(len(sequences))]
    return pd.DataFrame({"name": names, "sequence": sequences, "label": np.asarray(labels, dtype=float), **columns})


def random_table(n: int, length: int, *, shift: float, seed: int = 1) -> pd.DataFrame:
    """Sequences with independent letters; positives have `shift` more GC."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    gc = 0.5 + shift * labels
    is_gc = rng.random((n, length)) < gc[:, None]
    second = rng.random((n, length)) < 0.5
    codes = np.where(is_gc, np.where(second, 1, 2), np.where(second, 0, 3))
    return table_of(["".join("ACGT"[code] for code in row) for row in codes], labels)


# ------------------------------------------------------------------------ counting


@given(sequences=st.lists(st.text(alphabet="ACGTN", min_size=1, max_size=30), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_kmers_are_counted_as_by_a_loop(sequences: list[str]) -> None:
    """Counts of each sequence are those of a loop over its words; no word spans two sequences or an unknown base."""
    for k in (1, 2, 3):
        words = ["".join("ACGT"[i // 4 ** (k - 1 - j) % 4] for j in range(k)) for i in range(4**k)]
        counts = kmer_counts(sequences, k)
        for row, text in zip(counts, sequences, strict=True):
            found = Counter(text[i : i + k] for i in range(len(text) - k + 1))
            assert row.tolist() == [found[word] for word in words]
        assert kmer_totals(sequences, k).tolist() == counts.sum(axis=0).tolist()


@given(letters=st.text(alphabet="ACGTNacgtn", max_size=60))
@settings(max_examples=100, deadline=None)
def test_spans_hold_the_lower_case_letters(letters: str) -> None:
    """Spans cover the lower-case letters and no others, and their letters are counted."""
    covered = np.zeros(len(letters), dtype=bool)
    text = masked_spans(letters)
    for span in filter(None, text.split(",")):
        start, end = map(int, span.split("-"))
        assert start < end and not covered[max(start - 1, 0) : end].any()
        covered[start:end] = True
    assert covered.tolist() == [letter.islower() for letter in letters]
    assert masked_letters(pd.Series([text, "", None], dtype=object)).tolist() == [covered.sum(), 0, 0]


def test_features_by_hand() -> None:
    """Features of sequences that can be counted by eye."""
    sequences = pd.Series(["ACGT", "AAAAAANN", "CGCGCG"])
    found = features(sequences, pd.Series(["0-1,2-3", "", "0-6"]))
    assert list(found) == list(FEATURES)
    assert found["gc"].tolist() == [0.5, 0.0, 1.0]
    # One CpG, and 1 C x 1 G / 4 letters expected; none possible; three CpG, and 3 x 3 / 6 expected.
    assert found["cpg_ratio"].tolist() == [4.0, 0.0, 2.0]
    assert found["length"].tolist() == [4, 8, 6]
    assert found["soft_masked"].tolist() == [0.5, 0.0, 1.0]
    assert found["unknown"].tolist() == [0.0, 0.25, 0.0]
    assert found["top_dinucleotide"].tolist() == pytest.approx([1 / 3, 1.0, 3 / 5])
    assert features(sequences)["soft_masked"].eq(0).all()


# --------------------------------------------------------------------- differences


def test_standardised_difference_by_hand() -> None:
    """GC of 0.4 and 0.6 against 0.2 and 0.4: means 0.2 apart, both variances 0.02, so 1.414 standard deviations."""
    table = table_of(["GGGGAAAAAA", "GGGGGGAAAA", "GGAAAAAAAA", "GGGGAAAAAA"], [1, 1, 0, 0])
    found = balance_table(table, BINARY, seed=1)
    assert tuple(found) == BALANCE_COLUMNS and found["feature"].tolist() == list(FEATURES)
    row = found.iloc[0]
    assert (row["target"], row["group"], row["reference"], row["stage"]) == ("label", "1", "0", "after")
    assert (row["n_group"], row["n_reference"]) == (2, 2)
    assert (row["mean_group"], row["mean_reference"]) == pytest.approx((0.5, 0.3))
    assert (row["sd_group"], row["sd_reference"]) == pytest.approx((np.sqrt(0.02), np.sqrt(0.02)))
    assert row["smd"] == pytest.approx(np.sqrt(2))
    constant = found.set_index("feature").loc["length"]
    assert constant["smd"] == 0 and constant["sd_group"] == 0


def test_constants_that_differ_are_infinitely_apart() -> None:
    """Lengths of 10 against 11 without spread differ by more than any number of standard deviations."""
    table = table_of(["ACGTACGTAC"] * 3 + ["ACGTACGTACG"] * 3, [1, 1, 1, 0, 0, 0])
    found = balance_table(table, BINARY, seed=1).set_index("feature")
    assert found["smd"]["length"] == -np.inf


def test_rounding_is_no_difference() -> None:
    """Shares that are equal everywhere differ by nothing, whatever the rounding of their means."""
    table = table_of(["GGGAAAAAAA"] * 1003, [1] * 334 + [0] * 669)
    assert balance_table(table, BINARY, seed=1)["smd"].eq(0).all()


def test_pool_before_matching() -> None:
    """A pool gives rows of stage 'before' with the same positives and the pool as reference, for the first target."""
    table = random_table(60, 40, shift=0.1).assign(other=np.arange(60) % 3 % 2 * 1.0)
    pool = features(random_table(90, 40, shift=0.0, seed=2)["sequence"])
    task = TaskConfig(kind="multilabel", targets=["label", "other"])
    found = balance_table(table, task, before=pool, seed=1)
    before = found[found["stage"] == "before"].set_index("feature")
    after = found[(found["stage"] == "after") & (found["target"] == "label")].set_index("feature")
    assert before["target"].eq("label").all() and len(before) == len(FEATURES)
    assert before["n_reference"].eq(90).all() and before["mean_reference"]["gc"] == pytest.approx(pool["gc"].mean())
    assert before["mean_group"].equals(after["mean_group"])


def test_contrasts_of_each_kind_of_task() -> None:
    """Classes stand against the rest; of numbers the highest third against the lowest; missing ones are left out."""
    table = random_table(9, 12, shift=0.0)
    table["label"] = [0, 0, 1, 1, 1, 2, 2, 2, 2]
    task = TaskConfig(kind="multiclass", classes=["a", "b", "c"])
    found = balance_table(table, task, seed=1).drop_duplicates(["group"])
    assert found[["group", "reference", "n_group", "n_reference"]].to_numpy().tolist() == [
        ["a", "the rest", 2, 7], ["b", "the rest", 3, 6], ["c", "the rest", 4, 5],
    ]  # fmt: skip
    # GC rises with the value: 3 of 9 known values are in each third.
    table = table_of(["G" * i + "A" * (10 - i) for i in range(10)], [*range(9), np.nan])
    found = balance_table(table, TaskConfig(kind="regression"), seed=1).iloc[0]
    assert (found["group"], found["reference"]) == ("highest third", "lowest third")
    assert (found["n_group"], found["n_reference"]) == (3, 3)
    assert (found["mean_group"], found["mean_reference"]) == pytest.approx((0.7, 0.1))


# ------------------------------------------------------------------ linear models


@given(
    rows=st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=3, max_size=30),
)
@settings(max_examples=60, deadline=None)
def test_auroc_and_correlation_are_the_libraries(rows: list[tuple[int, bool, int]]) -> None:
    """AUROC and correlation with weights are those of scikit-learn and NumPy on repeated rows, ties included."""
    scores, y, weights = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    again = np.repeat(np.arange(len(rows)), weights.astype(int))
    if len(set(y[again])) == 2:
        expected = roc_auc_score(y[again], scores[again])
        assert balance._auroc(scores, y, weights[None])[0] == pytest.approx(expected)
    else:
        assert np.isnan(balance._auroc(scores, y, weights[None])[0])
    if len(set(y[again])) == 2 and len(set(scores[again])) > 1:
        expected = np.corrcoef(scores[again], y[again])[0, 1]
        assert balance._correlation(scores, y, weights[None])[0] == pytest.approx(expected)


def test_planted_shift_is_found_in_full() -> None:
    """Independent letters with shifted GC: GC alone reaches the AUROC that normal theory gives, inside its interval."""
    n, length, shift = 4000, 100, 0.05
    found = composition_table(random_table(n, length, shift=shift), BINARY, seed=1)
    assert tuple(found) == COMPOSITION_COLUMNS and found["features"].tolist() == list(balance.FEATURE_SETS)
    # The difference of two GC shares is nearly normal with this mean and variance.
    variance = (0.25 + 0.55 * 0.45) / length
    expected = norm.cdf(shift / np.sqrt(variance))
    row = found.iloc[0]
    assert row["ci_low"] < expected < row["ci_high"] and abs(row["value"] - expected) < 0.015
    assert (row["n"], row["metric"], row["n_folds"]) == (n, "auroc", 5)
    assert found["value"].min() > 0.7


def test_nothing_to_find() -> None:
    """Where both classes are drawn alike, every interval holds 0.5."""
    found = composition_table(random_table(3000, 60, shift=0.0), BINARY, seed=1)
    assert (found["ci_low"] < 0.5).all() and (found["ci_high"] > 0.5).all()


def test_shuffles_have_their_parents_composition() -> None:
    """Against dinucleotide shuffles, GC and dinucleotides tell exactly nothing: 0.5, as parents and shuffles tie."""
    table = random_table(300, 40, shift=0.0).assign(label=1.0, length=40, split_given=None, group=None, sample="s")
    rules = NegativesConfig(kind="dinucleotide_shuffle", per_positive=2)
    made = add_negatives(table, target="label", rules=rules, seed=1).table
    found = composition_table(made, BINARY, seed=1).set_index("features")["value"]
    assert found["GC"] == found["dinucleotides"] == 0.5


def test_matched_regions_are_matched_and_random_ones_are_not() -> None:
    """GC separates positives from random regions of a genome, and no longer from those that were matched."""
    rng = np.random.default_rng(3)
    gc = np.repeat(np.clip(rng.normal(0.42, 0.08, 400), 0.2, 0.7), 500)
    is_gc, second = rng.random(len(gc)) < gc, rng.random(len(gc)) < 0.5
    codes = np.where(is_gc, np.where(second, 1, 2), np.where(second, 0, 3))
    genome = ToyGenome({"1": "".join("ACGT"[code] for code in codes)})
    table = random_table(800, 60, shift=0.0, seed=5).assign(length=60, split_given=None, group=None, sample="s")
    table = table.assign(label=1.0)
    rules = NegativesConfig.model_validate({"kind": "genomic", "genome": "g", "gc_tolerance": 0.01})
    made = add_negatives(table, target="label", rules=rules, seed=1, genome=genome)
    assert made.before is not None and made.rejected.empty
    found = balance_table(made.table, BINARY, before=made.before, seed=1).set_index(["stage", "feature"])["smd"]
    assert found["before", "gc"] > 0.7 and abs(found["after", "gc"]) < 0.02
    score = composition_table(made.table, BINARY, seed=1).set_index("features")
    assert score["ci_low"]["GC"] < 0.5 < score["ci_high"]["GC"] or abs(score["value"]["GC"] - 0.5) < 0.01


def test_numbers_are_predicted() -> None:
    """A target that is GC plus noise of the same spread correlates at 0.707; counts are taken as logarithms."""
    table = random_table(3000, 60, shift=0.0)
    gc = table["sequence"].str.count("[GC]") / 60
    noise = np.random.default_rng(4).normal(0, gc.std(), len(table))
    found = composition_table(table.assign(label=gc + noise), TaskConfig(kind="regression"), seed=1)
    assert found["metric"].eq("pearson").all()
    assert (found["ci_low"] < np.sqrt(0.5)).all() and (found["ci_high"] > np.sqrt(0.5) - 0.02).all()
    counts = table.assign(label=np.expm1(np.round(20 * gc)))
    found = composition_table(counts, TaskConfig(kind="count"), seed=1)
    assert found["value"][0] > 0.95, "the logarithm of the counts is GC, rounded"


def test_related_sequences_stay_together() -> None:
    """Equal and reverse-complement sequences, and negatives and their parents, are one group, through chains too."""
    text, other, third = "ACGTTGCAAC", "GGATCCATTA", "TTTTACCAGA"
    sequences = [text, reverse_complement(text), text, other, third, other[::-1], "AAAAAAAAAC"]
    names = ["a", "b", "c", "d", "e", "d|genomic1", "c|shuffle12"]
    keys = [min(s, reverse_complement(s)) for s in sequences]
    groups = balance._joined(keys, balance._parents(pd.Series(names)))
    assert [groups.tolist().index(group) for group in groups] == [0, 0, 0, 3, 4, 3, 0]
    y = np.arange(40) % 2 * 1.0
    folds = balance._folds(y, np.arange(40) // 2, np.random.default_rng(1))
    assert folds is not None
    assert (folds[::2] == folds[1::2]).all() and np.bincount(folds).tolist() == [8] * 5


def test_copies_are_not_evidence() -> None:
    """Random labels of copied sequences are not predicted on average: their copies are never in training."""
    values = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        sequences = ["".join(rng.choice(list("ACGT"), 40)) for _ in range(60)]
        table = table_of(sequences * 5, list(rng.permutation(np.arange(60) % 2)) * 5)
        values.append(composition_table(table, BINARY, seed=seed)["value"].to_numpy())
    # One value has a standard deviation of about 0.1.
    assert (np.abs(np.mean(values, axis=0) - 0.5) < 0.12).all()


def test_many_sequences_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many sequences a random part is used, its size is stated, and it depends on the seed alone."""
    monkeypatch.setattr(balance, "MOST_SEQUENCES", 200)
    monkeypatch.setattr(balance, "_FEWEST", 50)
    table = random_table(900, 30, shift=0.1)
    first, again, other = (composition_table(table, BINARY, seed=seed) for seed in (1, 1, 2))
    assert first["n"].eq(200).all()
    pd.testing.assert_frame_equal(first, again)
    assert first["value"].tolist() != other["value"].tolist()
    found = balance_table(table, BINARY, seed=1)
    assert (found["n_group"] + found["n_reference"]).eq(200).all()
    five = table.assign(**{f"t{i}": table["label"] for i in range(5)})
    task = TaskConfig(kind="multilabel", targets=[f"t{i}" for i in range(5)])
    assert composition_table(five, task, seed=1)["n"].eq(50).all()


def test_too_few_sequences() -> None:
    """With fewer groups than folds can hold, or one class in a training part, there are no rows, only columns."""
    table = random_table(8, 30, shift=0.1)
    assert tuple(composition_table(table, BINARY, seed=1)) == COMPOSITION_COLUMNS
    assert composition_table(table, BINARY, seed=1).empty
    one = random_table(40, 30, shift=0.1).assign(label=[1.0] + [0.0] * 39)
    assert composition_table(one, BINARY, seed=1).empty
