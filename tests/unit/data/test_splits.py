"""Groups of related sequences, splits that keep them whole, and what leaks."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_alignment import exact_alignment

from bioattn.config import RunConfig, parse_run
from bioattn.data import splits
from bioattn.data.alphabet import reverse_complement
from bioattn.data.homology import chance_score
from bioattn.data.partition import partition, strata
from bioattn.data.seeds import Bases
from bioattn.data.splits import assign_groups, kmers, leakage, split, subset_of
from bioattn.errors import BioattnWarning, ConfigError, DataError


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


@settings(max_examples=60, deadline=None)
@given(
    intervals=st.lists(
        st.tuples(st.sampled_from(["c1", "c2", None]), st.integers(-5, 60) | st.none(), st.integers(1, 20)),
        min_size=1,
        max_size=25,
    ),
    distance=st.integers(0, 5),
)
def test_overlapping_intervals_share_a_group(intervals: list[tuple[Any, ...]], distance: int) -> None:
    """Groups are the closure of "at most so far apart on one chromosome"; without a start a row is alone."""
    table = random_table(len(intervals))
    table["chromosome"] = pd.Series([chromosome for chromosome, _, _ in intervals], dtype=object)
    table["start"] = pd.array([start for _, start, _ in intervals], dtype="Int64")
    table["end"] = pd.array([None if start is None else start + n for _, start, n in intervals], dtype="Int64")
    rules = run(split={"group_by": ["overlap"], "overlap_distance_bp": distance}).split
    if table["start"].isna().all():
        with pytest.raises(DataError, match="'overlap' needs a column 'start'"):
            assign_groups(table, rules)
        return
    group = list(range(len(intervals)))
    for one, (chromosome, start, length) in enumerate(intervals):
        for other, (chromosome_b, start_b, length_b) in enumerate(intervals[:one]):
            if None in (start, start_b) or chromosome != chromosome_b:
                continue
            if max(start, start_b) - min(start + length, start_b + length_b) <= distance:
                group = [group[other] if each == group[one] else each for each in group]
    assert assign_groups(table, rules).tolist() == pd.factorize(np.array(group))[0].tolist()


def test_an_interval_inside_another_does_not_end_the_cluster() -> None:
    """What overlaps a long interval joins it, though shorter ones begin and end in between."""
    table = random_table(4)
    table["start"], table["end"] = [0, 10, 50, 101], [100, 20, 60, 130]
    assert assign_groups(table, run(split={"group_by": ["overlap"]}).split).tolist() == [0, 0, 0, 1]


def test_an_interval_without_an_end_is_as_long_as_its_sequence() -> None:
    """Where no end is given, the start and the sequence's length make the interval."""
    table = random_table(3, length=40)
    table["start"] = [100, 140, 181]
    rules = run(split={"group_by": ["overlap"]}).split
    assert assign_groups(table, rules).tolist() == [0, 0, 1]
    table["end"] = pd.array([139, None, None], dtype="Int64")
    assert assign_groups(table, rules).tolist() == [0, 1, 2]


def test_relatives_share_a_group_beside_other_relations() -> None:
    """Homology joins what overlaps or differs a little, on either strand, and chains with the other relations."""
    rng = np.random.default_rng(12)
    one, other = dna(rng, 80), dna(rng, 80)
    mutated = "".join({"A": "C", "C": "A"}.get(x, x) if at % 9 == 0 else x for at, x in enumerate(other))
    sequences = [one, dna(rng, 12) + one[:68], reverse_complement(other), dna(rng, 80), mutated]
    table = table_of(sequences)
    rules = run(split={"group_by": ["homology"], "identity": 0.8}).split
    assert assign_groups(table, rules).tolist() == [0, 0, 1, 2, 1]
    table["gene"] = ["x", None, None, None, "x"]
    rules = run(split={"group_by": ["column", "homology"], "identity": 0.8, "column": "gene"}).split
    assert assign_groups(table, rules).tolist() == [0, 0, 0, 1, 0]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), identity=st.sampled_from([0.75, 0.85]), n_folds=st.sampled_from([1, 3]))
def test_no_held_out_sequence_is_related_to_training(seed: int, identity: float, n_folds: int) -> None:
    """Grouped by homology, no held-out sequence has that identity with training, by alignment of every pair."""
    rng = np.random.default_rng(seed)
    sequences = [dna(rng, int(length)) for length in rng.integers(60, 91, 18)]
    for parent in list(sequences[:12]):
        cut = int(rng.integers(0, len(parent) // 3))
        relative = parent[cut:] + dna(rng, cut)
        letters = [str(rng.choice(list("ACGT"))) if rng.random() < 0.1 else letter for letter in relative]
        relative = "".join(letters[: len(letters) // 2] + letters[len(letters) // 2 + int(rng.integers(0, 3)) :])
        sequences.append(reverse_complement(relative) if rng.random() < 0.5 else relative)
    table = table_of(sequences, labels=rng.permutation(len(sequences)) * 1.0)
    sections = {"split": {"group_by": ["homology"], "identity": identity, "n_folds": n_folds}}
    task = {"kind": "regression", "targets": ["label"]}
    chosen = run(**sections, task=task)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BioattnWarning)  # a family may be larger than a held-out set
        done = split(table, chosen.split, chosen.task, seed=1)
    lowest = chance_score(Bases(sequences), sum(map(len, sequences)))
    for one in range(len(sequences)):
        for other in range(one):
            score, found = exact_alignment(sequences[one], sequences[other])
            related = found >= identity + 1.1 / 60 and score > lowest
            for fold in range(n_folds):
                train = done[f"fold_{fold}"].iloc[[one, other]] == "train"
                assert not related or train.nunique() == 1, (found, score, sequences[one], sequences[other])


def test_homology_warns_where_the_search_is_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the budget lets most scattered relatives slip, a warning says which share is found."""
    monkeypatch.setattr("bioattn.data.seeds.MOST_HITS", 1)
    rules = run(split={"group_by": ["homology"], "identity": 0.7}).split
    with pytest.warns(BioattnWarning, match=r"finds an estimated \d+% of the relatives of identity 0.7"):
        assign_groups(random_table(30, length=80), rules)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"group_by": ["coordinate"]}, "needs a column 'start', found name"),
        ({"group_by": ["overlap"]}, "'overlap' needs a column 'start', found name"),
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
    with pytest.warns(BioattnWarning, match="1 held-out sequence.* equal a training sequence"):
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


CHROMOSOMES = {
    "kind": "chromosome", "test_chromosomes": ["chr2", "chrX"], "validation_chromosomes": ["chr3"],
}  # fmt: skip


def on_chromosomes(n: int = 40) -> pd.DataFrame:
    table = random_table(n)
    table["label"] = np.arange(n) // 4 % 2.0
    return table.assign(chromosome=np.array(["chr1", "chr2", "chr3", "chrX"], dtype=object)[np.arange(n) % 4])


def test_chromosomes_are_held_out_whole() -> None:
    """Named chromosomes are the test and validation sets, every other one trains."""
    table = on_chromosomes()
    done = split(table, run(split=CHROMOSOMES).split, run().task, seed=1)
    expected = {"chr1": "train", "chr2": "test", "chr3": "validation", "chrX": "test"}
    assert done["fold_0"].tolist() == table["chromosome"].map(expected).tolist()


@pytest.mark.parametrize(
    ("named", "found", "hint"),
    [
        ("2", ["chr1", "chr2", "chr3", "chrX"], "did you mean 'chr2'"),
        ("chr2", ["1", "2", "3", "X"], "did you mean '2'"),
        ("chrx", ["chr1", "chr2", "chr3", "chrX"], "did you mean 'chr"),
        ("plasmid", ["chr1", "chr2", "chr3", "chrX"], "chrX .10.$"),
    ],
)
def test_unknown_chromosome_lists_those_there_are(named: str, found: list[str], hint: str) -> None:
    """A chromosome without a sequence is an error with all names found, their counts, and the nearest name."""
    table = on_chromosomes().assign(chromosome=np.array(found, dtype=object)[np.arange(40) % 4])
    rules = run(split={**CHROMOSOMES, "test_chromosomes": [named], "validation_chromosomes": [found[2]]}).split
    with pytest.raises(DataError, match=f"test_chromosomes: found no sequence on '{named}'.*{found[0]} .10.*{hint}"):
        split(table, rules, run().task, seed=1)


def test_chromosome_split_needs_the_column_in_every_row() -> None:
    """Without the column, or in a row without a value, the error names what there is or the sequence."""
    rules = run(split=CHROMOSOMES).split
    with pytest.raises(DataError, match="needs a column 'chromosome', found name, sequence"):
        split(random_table(20), rules, run().task, seed=1)
    table = on_chromosomes()
    table.loc[[5, 9], "chromosome"] = None
    with pytest.raises(DataError, match="no chromosome for 2 of 40 sequences .first: 's5'"):
        split(table, rules, run().task, seed=1)


def test_a_made_negative_goes_where_its_parent_goes() -> None:
    """A negative that lies nowhere is held out with the chromosome of the positive it was made from."""
    table = on_chromosomes()
    table.loc[[4, 5, 6], "name"] = ["s0|shuffle1", "s1|shuffle1", "s2|markov1"]
    table.loc[[4, 5, 6], "chromosome"] = None
    done = split(table, run(split=CHROMOSOMES).split, run().task, seed=1)["fold_0"]
    assert done[4:7].tolist() == done[0:3].tolist() == ["train", "test", "validation"]


def test_copies_on_other_chromosomes_are_reported() -> None:
    """A held-out sequence that equals one of a training chromosome stays, with a warning that counts it."""
    table = on_chromosomes()
    table.loc[1, "sequence"] = reverse_complement(table.loc[0, "sequence"])
    table.loc[2, "sequence"] = table.loc[0, "sequence"]
    with pytest.warns(BioattnWarning, match="2 held-out sequence.*equal a training sequence"):
        split(table, run(split=CHROMOSOMES).split, run().task, seed=1)


def test_audit_identities_below_chance_are_refused() -> None:
    """Identities that the audit cannot count are an error of the settings."""
    with pytest.raises(ConfigError, match="audit_identities must be from 0.5"):
        run(split={"audit_identities": [0.3, 0.8]})


def values_of(task: dict[str, Any], rng: np.random.Generator, n: int) -> pd.DataFrame:
    """Targets with a heavy tail, many equal values, or rare combinations."""
    if task["kind"] == "regression":
        return pd.DataFrame({"y": np.where(rng.random(n) < 0.1, np.nan, rng.standard_cauchy(n))})
    if task["kind"] == "count":
        return pd.DataFrame({"y": rng.poisson(np.where(rng.random(n) < 0.6, 0.1, 30)).astype(float)})
    common = rng.random((n, 3)) < [0.5, 0.2, 0.05]
    return pd.DataFrame(common.astype(float), columns=["a", "b", "c"])


@pytest.mark.parametrize(
    "task",
    [
        {"kind": "regression", "targets": ["y"]},
        {"kind": "count", "targets": ["y"]},
        {"kind": "multilabel", "targets": ["a", "b", "c"]},
    ],
)
def test_numbers_and_label_combinations_are_stratified(task: dict[str, Any]) -> None:
    """Every stratum has its share of every part to a few sequences; without stratification some do not."""
    rng = np.random.default_rng(13)
    n = 600
    table = pd.concat([random_table(n), values_of(task, rng, n)], axis=1)
    worst = {}
    for stratify in (True, False):
        chosen = run(split={"stratify": stratify}, task=task)
        subsets = split(table, chosen.split, chosen.task, seed=1)["fold_0"].to_numpy()
        shares = {"train": 0.7, "validation": 0.15, "test": 0.15}
        stratum = strata(table, chosen.task)
        assert len(set(stratum)) > 4
        gaps = [
            abs(((subsets == subset) & (stratum == s)).sum() - share * (stratum == s).sum())
            for subset, share in shares.items()
            for s in set(stratum.tolist())
        ]
        worst[stratify] = max(gaps)
    assert worst[True] <= 2 < 3 < worst[False]


def test_strata_of_numbers_are_quantiles() -> None:
    """Bins of a number follow its order, hold equal shares, keep equal values together and missing ones apart."""
    values = np.array([5.0] * 100 + list(range(10, 110)) + [np.nan] * 7)
    stratum = strata(pd.DataFrame({"y": values}), run(task={"kind": "regression", "targets": ["y"]}).task)
    assert len(set(stratum[:100])) == 1 and len(set(stratum[200:])) == 1
    assert stratum[200] not in stratum[:200]
    assert (np.diff(stratum[100:200]) >= 0).all()
    assert set(np.bincount(stratum[100:200])[1:].tolist()) <= {0, 19, 20, 21}


def test_rare_label_combinations_share_a_stratum() -> None:
    """Combinations too rare to be spread are one stratum, so that they cannot all go to training."""
    rng = np.random.default_rng(14)
    targets = [f"t{i}" for i in range(9)]
    table = pd.DataFrame((rng.random((300, 9)) < 0.5).astype(float), columns=targets)
    task = run(task={"kind": "multilabel", "targets": targets}).task
    assert set(strata(table, task).tolist()) == {0}
    whole = pd.concat([random_table(300), table], axis=1)
    done = split(whole, run().split, task, seed=1)["fold_0"].value_counts()
    assert done["test"] == pytest.approx(45, abs=2) and done["validation"] == pytest.approx(45, abs=2)


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


@given(seed=st.integers(0, 2**32 - 1))
def test_held_out_parts_are_not_overfilled(seed: int) -> None:
    """No held-out part takes more than its size and 2 %, however groups and strata go together."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.exponential(3, (60, 4)) * rng.exponential(1, (60, 1)))
    counts[0, 0] += 1
    parts = partition(counts, [0.7, 0.2, 0.1], sink=True, rng=rng)
    sizes = [counts[parts == part].sum() for part in range(3)]
    assert sizes[1] <= max(1, 1.02 * 0.2 * counts.sum()) and sizes[2] <= max(1, 1.02 * 0.1 * counts.sum())


def test_subsets_follow_names_not_rows() -> None:
    """A split in another order gives each sequence its own subset."""
    sequences = pd.DataFrame({"name": ["a", "b", "c"]})
    table = pd.DataFrame({"name": ["c", "a", "b"], "fold_1": ["test", "train", "validation"]})
    assert subset_of(sequences, table, fold=1).tolist() == ["train", "validation", "test"]
