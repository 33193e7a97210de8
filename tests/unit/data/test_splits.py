"""Groups of related sequences, splits that keep them whole, and what leaks."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bioattn.config import RunConfig, parse_run
from bioattn.data import splits
from bioattn.data.alphabet import reverse_complement
from bioattn.data.splits import assign_groups, kmers, leakage, partition, split, subset_of
from bioattn.errors import BioattnWarning, DataError


def run(**sections: Any) -> RunConfig:
    return parse_run(sections)


def dna(rng: np.random.Generator, length: int = 37) -> str:
    return "".join(rng.choice(list("ACGT"), length))


def table_of(sequences: list[str], labels: Any = None) -> pd.DataFrame:
    n = len(sequences)
    return pd.DataFrame(
        {
            "name": [f"s{i}" for i in range(n)],
            "sequence": sequences,
            "split_given": pd.Series([None] * n, dtype=object),
            "group": pd.Series([None] * n, dtype=object),
            "label": np.arange(n) % 2.0 if labels is None else labels,
        }
    )


def random_table(n: int, length: int = 37, seed: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return table_of([dna(rng, length) for _ in range(n)])


def test_identical_and_reverse_complement_share_a_group() -> None:
    """Copies and reverse complements are one group, chained, and strangers are alone."""
    rng = np.random.default_rng(1)
    a, b, c = dna(rng), dna(rng), dna(rng)
    table = table_of([a, b, reverse_complement(a), c, a, reverse_complement(b)])
    assert assign_groups(table, run().split).tolist() == [0, 1, 0, 2, 0, 1]


def test_shared_kmer_on_either_strand_joins_and_one_base_less_does_not() -> None:
    """A shared 11-mer joins two sequences on the same or the other strand; a shared 10-mer does not."""
    rng = np.random.default_rng(2)
    word = dna(rng, 11)
    sequences = [
        dna(rng) + "A" + word + dna(rng),
        dna(rng) + "A" + word,
        reverse_complement(word) + "T" + dna(rng),
        dna(rng) + "C" + word[:10],  # another base before it, so the shared word is no longer than 10
        word[:5] + "N" + word[6:] + dna(rng),
    ]
    rules = run(split={"group_by": ["shared_kmer"], "kmer": 11}).split
    assert assign_groups(table_of(sequences), rules).tolist() == [0, 0, 0, 1, 2]


@pytest.mark.parametrize("bucket", [50, 10**7])
def test_kmers_agree_with_a_slow_count(monkeypatch: pytest.MonkeyPatch, bucket: int) -> None:
    """Packed canonical k-mers pair up rows exactly as string sets do, in one bucket or in many."""
    monkeypatch.setattr(splits, "_BUCKET_KMERS", bucket)
    monkeypatch.setattr(splits, "_CHUNK_BASES", 100)
    rng = np.random.default_rng(4)
    sequences = [
        "".join(rng.choice(list("ACGTN"), rng.integers(2, 41), p=[0.3, 0.2, 0.2, 0.25, 0.05])) for _ in range(31)
    ]
    k = 5
    slow: dict[str, set[int]] = {}
    for row, sequence in enumerate(sequences):
        for start in range(len(sequence) - k + 1):
            word = sequence[start : start + k]
            if "N" not in word:
                slow.setdefault(min(word, reverse_complement(word)), set()).add(row)
    fast: dict[int, set[int]] = {}
    for codes, rows in kmers(sequences, k):
        assert not set(fast) & set(codes.tolist()), "a k-mer is in one bucket only"
        for code, row in zip(codes.tolist(), rows.tolist(), strict=True):
            fast.setdefault(code, set()).add(row)
    assert sorted(map(sorted, fast.values())) == sorted(map(sorted, slow.values()))


def test_longest_kmer_is_exact() -> None:
    """31-mers fit the packed code: one differing end base keeps two words apart."""
    rng = np.random.default_rng(5)
    word = dna(rng, 31)
    other = word[:-1] + ("A" if word[-1] != "A" else "C")
    rows = [rows.tolist() for _, rows in kmers([word, reverse_complement(word), other], 31)]
    codes = next(codes for codes, _ in kmers([word, reverse_complement(word), other], 31))
    assert sorted(rows[0]) == [0, 1, 2] and len(set(codes.tolist())) == 2


@pytest.mark.parametrize("k", [0, 32])
def test_kmer_length_has_limits(k: int) -> None:
    """k outside 1 to 31 raises."""
    with pytest.raises(DataError, match=f"1 to 31 bases, got {k}"):
        next(kmers(["ACGT"], k))


def test_near_starts_share_a_group_on_one_chromosome() -> None:
    """Starts closer than the distance chain; the distance itself, another chromosome and no start do not."""
    table = random_table(7)
    table["start"] = pd.array([500, 100, 590, 410, 100, None, 680], dtype="Int64")
    table["chromosome"] = ["c1", "c1", "c1", "c1", "c2", "c1", "c1"]
    rules = run(split={"group_by": ["coordinate"], "coordinate_distance_bp": 91}).split
    assert assign_groups(table, rules).tolist() == [0, 1, 0, 0, 2, 3, 0]
    rules = run(split={"group_by": ["coordinate"], "coordinate_distance_bp": 90}).split
    assert assign_groups(table, rules).max() == 6
    one = assign_groups(table.drop(columns="chromosome"), rules)
    assert one[1] == one[4]


def test_same_value_of_a_column_shares_a_group() -> None:
    """Equal values of the named column join, missing ones do not."""
    table = random_table(6)
    table["gene"] = ["x", None, "y", "x", None, "y"]
    rules = run(split={"group_by": ["column"], "column": "gene"}).split
    assert assign_groups(table, rules).tolist() == [0, 1, 2, 0, 3, 2]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"group_by": ["coordinate"]}, "needs a column 'start', found name"),
        ({"group_by": ["column"], "column": "gene"}, "no column 'gene', allowed are name"),
        ({"group_by": ["column"], "column": "group"}, "no values in the column 'group'"),
    ],
)
def test_missing_columns(rules: dict[str, Any], expected: str) -> None:
    """A relation without its column raises and says what there is."""
    with pytest.raises(DataError, match=expected):
        assign_groups(random_table(5), run(split=rules).split)


def test_hold_out_keeps_groups_sizes_and_classes() -> None:
    """One fold: no group is parted, sizes are right to one group, class shares agree in every subset."""
    rng = np.random.default_rng(6)
    table = random_table(900)
    table["label"] = (rng.random(900) < 0.2).astype(float)
    table["gene"] = rng.integers(0, 250, 900).astype(str)
    rules = run(split={"group_by": ["column"], "column": "gene"}).split
    done = split(table, rules, run().task, seed=1)
    assert list(done.columns) == ["name", "group", "fold_0"]
    assert (done.groupby("group")["fold_0"].nunique() == 1).all()
    shares = done["fold_0"].value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.15, abs=0.01) and shares["validation"] == pytest.approx(0.15, abs=0.01)
    rates = table["label"].groupby(done["fold_0"].to_numpy()).mean()
    assert np.ptp(rates) < 0.03


def test_stratify_off_and_regression_ignore_labels() -> None:
    """Without stratification the split does not depend on the labels; with it, it does."""
    table = random_table(200)
    other = table.assign(label=table["label"].to_numpy()[::-1] * (np.arange(200) < 60))
    plain = run(split={"stratify": False}).split
    assert split(table, plain, run().task, seed=1).equals(split(other, plain, run().task, seed=1))
    assert not split(table, run().split, run().task, seed=1).equals(split(other, run().split, run().task, seed=1))


def test_folds_test_every_sequence_once() -> None:
    """k folds: test sets partition the sequences, validation is its share of the rest, groups stay whole."""
    table = random_table(203)
    table["gene"] = (np.arange(203) // 3).astype(str)
    rules = run(split={"n_folds": 5, "group_by": ["column"], "column": "gene"}).split
    done = split(table, rules, run().task, seed=1)
    folds = [f"fold_{i}" for i in range(5)]
    tests = (done[folds] == "test").to_numpy()
    assert (tests.sum(axis=1) == 1).all()
    for fold in folds:
        assert (done.groupby("group")[fold].nunique() == 1).all()
        sizes = done[fold].value_counts()
        assert sizes["test"] == pytest.approx(203 / 5, abs=4)
        assert sizes["validation"] == pytest.approx(0.15 * (203 - sizes["test"]), abs=4)


def test_group_larger_than_the_test_set_goes_to_training_and_is_reported() -> None:
    """A group that fits no held-out part trains in every fold, with a warning that gives its size."""
    table = random_table(100)
    table["gene"] = ["big"] * 40 + [str(i) for i in range(60)]
    for n_folds in (1, 5):
        rules = run(split={"n_folds": n_folds, "group_by": ["column"], "column": "gene"}).split
        with pytest.warns(BioattnWarning, match="1 group.*stay in training: 40 of 100"):
            done = split(table, rules, run().task, seed=1)
        assert (done.filter(like="fold_").iloc[:40] == "train").all(axis=None)


def test_seed_decides_the_split() -> None:
    """The same seed gives the same split, another seed another."""
    table = random_table(97)
    first, again, other = (split(table, run().split, run().task, seed=seed) for seed in (1, 1, 2))
    assert first.equals(again) and not first.equals(other)


def test_too_few_groups() -> None:
    """Related sequences that make fewer groups than subsets raise with the count and a way out."""
    table = random_table(20)
    table["gene"] = ["a", "b"] * 10
    rules = run(split={"group_by": ["column"], "column": "gene"}).split
    with pytest.raises(DataError, match=r"found 2 group\(s\).*largest 10 of 20.*at least 3"):
        split(table, rules, run().task, seed=1)


def test_class_missing_in_a_subset() -> None:
    """A class too rare to be in every subset raises with fold, class and subset."""
    table = random_table(40)
    table["label"] = [1.0, 1.0] + [0.0] * 38
    with pytest.raises(DataError, match="fold 0: found no sequence of class '1' among the .* in "):
        split(table, run().split, run().task, seed=1)


def test_empty_part() -> None:
    """A held-out part that no group fits raises with the sizes."""
    table = random_table(30)
    table["gene"] = (np.arange(30) // 10).astype(str)
    rules = run(split={"group_by": ["column"], "column": "gene"}).split
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BioattnWarning)
        with pytest.raises(DataError, match=r"fold 0: found no sequence in validation \(train 30"):
            split(table, rules, run().task, seed=1)


def test_predefined_split_is_taken_as_it_is() -> None:
    """A predefined split is used unchanged, and its leaks are in the groups and the leakage table."""
    table = random_table(12)
    table["split_given"] = ["train", "validation", "test"] * 4
    table.loc[11, "sequence"] = reverse_complement(table.loc[0, "sequence"])  # test row, training sequence
    table["label"] = np.repeat([0.0, 1.0], 6)
    rules = run(split={"kind": "predefined"}).split
    done = split(table, rules, run().task, seed=1)
    assert done["fold_0"].tolist() == ["train", "validation", "test"] * 4
    assert done["group"][0] == done["group"][11]
    leaks = leakage(table, done).set_index("subset")
    assert leaks["n_reverse_complement_of_train"].to_dict() == {"validation": 0, "test": 1}


def test_predefined_split_must_be_complete() -> None:
    """A sequence without a predefined subset raises with its name, a subset without sequences with the counts."""
    table = random_table(12)
    table["split_given"] = [*["train", "validation", "test"] * 3, "train", "train", None]
    rules = run(split={"kind": "predefined"}).split
    with pytest.raises(DataError, match="no split for 1 of 12 sequences .first: 's11'"):
        split(table, rules, run().task, seed=1)
    table["split_given"] = ["train", "test"] * 6
    table["label"] = np.repeat([0.0, 1.0], 6)
    with pytest.raises(DataError, match=r"no sequence in validation \(train 6, validation 0, test 6\)"):
        split(table, rules, run().task, seed=1)


def test_ignored_group_column_warns() -> None:
    """Groups in the input that the split does not use are named in a warning."""
    table = random_table(30)
    table["group"] = (np.arange(30) // 2).astype(str)
    with pytest.warns(BioattnWarning, match="column 'group'"):
        split(table, run().split, run().task, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split(table, run(split={"group_by": ["column"], "column": "group"}).split, run().task, seed=1)


def test_leakage_counts_as_planted() -> None:
    """Copies, reverse complements and shared 20-mers between held-out and training sequences are counted exactly."""
    rng = np.random.default_rng(8)
    train = [dna(rng, 41) for _ in range(7)]
    validation = [dna(rng, 41) for _ in range(3)]
    test = [train[0], reverse_complement(train[1]), train[2][:20] + dna(rng, 21), train[3][:19] + "N" + dna(rng, 21)]
    table = table_of([*train, *validation, *test])
    done = pd.DataFrame(
        {"name": table["name"], "group": range(14), "fold_0": ["train"] * 7 + ["validation"] * 3 + ["test"] * 4}
    )
    row = leakage(table, done).set_index("subset")
    assert row.loc["test", ["n", "n_train", "kmer"]].tolist() == [4, 7, 20]
    assert row.loc["test", "n_identical_to_train"] == 1
    assert row.loc["test", "n_reverse_complement_of_train"] == 1
    assert row.loc["test", "n_sharing_kmer_with_train"] == 3
    assert row.loc["test", "fraction_sharing_kmer_with_train"] == 0.75
    assert row.loc["validation"].filter(like="_train").filter(regex="identical|reverse|sharing").eq(0).all()


def test_leakage_refuses_another_table() -> None:
    """A split of other sequences raises."""
    table = random_table(12)
    done = split(random_table(30), run().split, run().task, seed=1).iloc[5:17]
    with pytest.raises(DataError, match="same names"):
        leakage(table, done)


def test_partition_balances_strata_of_single_members() -> None:
    """With single members only, every part has its share of every stratum to one member."""
    strata = np.repeat([0, 1, 2], [100, 300, 70])
    counts = np.eye(3, dtype=np.int64)[strata]
    parts = partition(counts, [0.7, 0.2, 0.1], sink=True, rng=np.random.default_rng(1))
    found = np.array([[((parts == p) & (strata == s)).sum() for s in range(3)] for p in range(3)])
    assert np.abs(found - np.outer([0.7, 0.2, 0.1], [100, 300, 70])).max() <= 1.5


def test_subsets_follow_names_not_rows() -> None:
    """A split in another order gives each sequence its own subset."""
    sequences = pd.DataFrame({"name": ["a", "b", "c"]})
    table = pd.DataFrame({"name": ["c", "a", "b"], "fold_1": ["test", "train", "validation"]})
    assert subset_of(sequences, table, fold=1).tolist() == ["train", "validation", "test"]
