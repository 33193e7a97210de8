"""Negatives made from positives."""

import gzip
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_genome import ToyGenome

from bioattn.config import NegativesConfig, TaskConfig
from bioattn.data.alphabet import reverse_complement
from bioattn.data.balance import balance_table, composition_table
from bioattn.data.matching import Interval
from bioattn.data.negatives import WithNegatives, add_negatives
from bioattn.errors import DataError
from bioattn.io.fasta import read_fasta
from bioattn.io.genome import Genome

DRAWN = ("dinucleotide_shuffle", "mononucleotide_shuffle", "markov")


def positives(sequences: list[str]) -> pd.DataFrame:
    n = len(sequences)
    table = pd.DataFrame({"name": [f"p{i}" for i in range(n)], "sequence": sequences, "sample": "s"})
    table["length"] = table["sequence"].str.len()
    table["split_given"] = ["train", "test"] * (n // 2) + ["train"] * (n % 2)
    table["group"] = [f"g{i % 3}" for i in range(n)]
    table["label"] = 1.0
    table["start"] = pd.array(range(n), dtype="Int64")
    return table


def random_sequences(n: int) -> list[str]:
    rng = np.random.default_rng(11)
    return ["".join(rng.choice(list("ACGT"), 19 + 4 * (i % 3))) for i in range(n)]


def add(table: pd.DataFrame, kind: str = "dinucleotide_shuffle", *, seed: int = 1, **rules: Any) -> WithNegatives:
    return add_negatives(
        table, target="label", rules=NegativesConfig.model_validate({"kind": kind, **rules}), seed=seed
    )


# ------------------------------------------------------------- shuffles and chains


@pytest.mark.parametrize("kind", DRAWN)
def test_negatives_belong_to_their_parents(kind: str) -> None:
    """Each positive gets the wished number of negatives of its length with target 0, never itself, named after it."""
    table = positives(random_sequences(7))
    made = add(table, kind, per_positive=3).table
    pd.testing.assert_frame_equal(made.iloc[:7], table)
    negatives = made.iloc[7:]
    assert len(negatives) == 21 and negatives["label"].eq(0).all()
    assert negatives["sample"].eq("markov" if kind == "markov" else "shuffled").all()
    label = "markov" if kind == "markov" else "shuffle"
    assert negatives["name"].tolist()[:3] == [f"p0|{label}{copy}" for copy in (1, 2, 3)]
    parent = table.set_index("name")["sequence"]
    for name, sequence, length in negatives[["name", "sequence", "length"]].itertuples(index=False):
        source = parent[name.split("|")[0]]
        assert sequence != source and len(sequence) == length == len(source)
        if kind == "dinucleotide_shuffle":
            assert Counter(pairwise(sequence)) == Counter(pairwise(source))
        elif kind == "mononucleotide_shuffle":
            assert Counter(sequence) == Counter(source)


def test_a_shuffle_that_equals_its_parent_is_drawn_again() -> None:
    """Where half of all shuffles are the parent itself, every negative is the other half."""
    made = add(positives(["AACA"] * 29))
    assert made.table["sequence"].tolist() == ["AACA"] * 29 + ["ACAA"] * 29
    assert made.rejected.empty


@pytest.mark.parametrize("kind", DRAWN)
def test_negatives_follow_their_parents_split_and_group_but_lie_nowhere(kind: str) -> None:
    """Split and group are the parent's; coordinates are empty; column types stay."""
    table = positives(random_sequences(5)).assign(strand="+", soft_masked="0-3")
    table["other"] = pd.Series(["x"] * 5, dtype=object)
    made = add(table, kind).table
    assert made["split_given"].tolist()[5:] == table["split_given"].tolist()
    assert made["group"].tolist()[5:] == table["group"].tolist()
    assert made["start"][5:].isna().all() and made["other"].tolist() == ["x"] * 5 + [None] * 5
    assert made["strand"][5:].eq(".").all() and made["soft_masked"][5:].eq("").all()
    assert made.dtypes.to_dict() == table.dtypes.to_dict()


def test_negatives_of_the_table_are_left_alone() -> None:
    """Only positives are shuffled."""
    table = positives(random_sequences(6))
    table.loc[:2, "label"] = 0.0
    made = add(table).table
    assert made["name"].tolist()[6:] == ["p3|shuffle1", "p4|shuffle1", "p5|shuffle1"]


@pytest.mark.parametrize(("kind", "reason"), [(DRAWN[0], "dinucleotide counts"), (DRAWN[1], "the letters")])
def test_sequence_with_one_order_is_listed(kind: str, reason: str) -> None:
    """A positive that equals all its shuffles gives no negative and is listed with the reason."""
    made = add(positives(["A" * 19, *random_sequences(3)]), kind, per_positive=2)
    assert not made.table["name"].str.startswith("p0|").any()
    assert made.rejected["name"].tolist() == ["p0|shuffle1"]
    assert reason in made.rejected["reason"][0]


@pytest.mark.parametrize("kind", DRAWN[1:])
def test_unknown_bases_stay_in_their_places(kind: str) -> None:
    """A negative has unknown bases where its parent has them and nowhere else: their number tells nothing."""
    table = positives(["ACGTNNACGTTGCAACGTAN", "NACGTTGACGTTGC"])
    made = add(table, kind, per_positive=5).table
    for row in made.iloc[2:].to_dict("records"):
        parent = table["sequence"][int(row["name"][1])]
        assert [letter == "N" for letter in row["sequence"]] == [letter == "N" for letter in parent]


def test_chain_draws_look_like_positives() -> None:
    """Draws from a chain of order 2 have the positives' trinucleotides, at the rates at which they occur."""
    rng = np.random.default_rng(2)
    steps = rng.choice(["AAC", "CGT", "TTG"], size=(300, 40), p=[0.5, 0.3, 0.2])
    table = positives(["".join(row) for row in steps])
    made = add(table, "markov", markov_order=2).table
    counts = [
        Counter(text[i : i + 3] for text in part for i in range(len(text) - 2))
        for part in (made["sequence"][:300], made["sequence"][300:])
    ]
    total = sum(counts[0].values())
    for word, n in counts[0].items():
        # Neighbouring words are dependent: a wide margin, still far from any other chain.
        assert abs(n - counts[1][word]) < 10 * np.sqrt(n) + 10
    assert sum(counts[1].values()) == total and sum(counts[1][word] for word in counts[0]) > 0.99 * total


def test_long_and_short_parents_are_drawn_in_batches() -> None:
    """One very long positive costs its own length, not that of a table of such positives."""
    rng = np.random.default_rng(4)
    lengths = [11] * 3000 + [30_000]
    table = positives(["".join(rng.choice(list("ACGT"), n)) for n in lengths])
    made = add(table, "markov", markov_order=0).table
    assert made["sequence"].str.len().tolist() == lengths * 2


@pytest.mark.parametrize("kind", DRAWN)
def test_nothing_to_make(kind: str) -> None:
    """No positive that gives a negative, or no positive at all, raises."""
    if kind != "markov":
        with pytest.raises(DataError, match="first: 'p0'"):
            add(positives(["A" * 19, "C" * 19]), kind)
    with pytest.raises(DataError, match="no positive"):
        add(positives(random_sequences(3)).assign(label=0.0), kind)


def test_no_negatives_are_asked_for() -> None:
    """Kind 'none' leaves the table as it is, whether or not it has positives."""
    table = positives(random_sequences(3)).assign(label=0.0)
    made = add(table, "none")
    assert made.table is table and made.rejected.empty and made.before is None


def test_names_that_are_taken() -> None:
    """A sequence that already has a negative's name raises."""
    table = positives(random_sequences(4))
    table.loc[3, "name"] = "p0|shuffle1"
    with pytest.raises(DataError, match=r"p0\|shuffle1"):
        add(table)


@pytest.mark.parametrize("kind", DRAWN)
def test_seed_decides(kind: str) -> None:
    """The same seed gives the same negatives, another seed others."""
    table = positives(random_sequences(9))
    first, again, other = (add(table, kind, seed=seed).table["sequence"].tolist() for seed in (1, 1, 2))
    assert first == again != other


# ------------------------------------------------------------------ genomic regions


def genome_text(n: int, seed: int, *, gc: float = 0.5) -> str:
    rng = np.random.default_rng(seed)
    return "".join(rng.choice(list("ACGT"), n, p=[(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2]))


def from_genome(genome: ToyGenome, places: list[Interval], *, columns: bool = True) -> pd.DataFrame:
    """Positives that are cut out of a genome."""
    letters = [genome.texts[contig][start:end] for contig, start, end in places]
    table = positives([text.upper() for text in letters])
    if not columns:
        return table.drop(columns="start")
    table["chromosome"] = pd.Series([place.contig for place in places], dtype=object)
    table["start"] = pd.array([place.start for place in places], dtype="Int64")
    table["end"] = pd.array([place.end for place in places], dtype="Int64")
    return table.assign(strand=pd.Series(["+"] * len(places), dtype=object))


def add_genomic(
    table: pd.DataFrame, genome: ToyGenome, exclude: list[Interval] | None = None, *, seed: int = 1, **rules: Any
) -> WithNegatives:
    settings_ = NegativesConfig.model_validate({"kind": "genomic", "genome": "genome.fa", **rules})
    return add_negatives(table, target="label", rules=settings_, seed=seed, genome=genome, exclude=exclude or [])


def gc_of(text: str) -> float:
    known = sum(text.count(letter) for letter in "ACGT")
    return sum(text.count(letter) for letter in "GC") / known


GENOME = ToyGenome({"1": genome_text(4001, 1), "2": genome_text(2003, 2, gc=0.35)})


@given(
    starts=st.lists(st.integers(0, 1900), min_size=2, max_size=12, unique=True),
    size=st.integers(20, 60),
    exclude=st.lists(st.tuples(st.sampled_from(["1", "chr2", "elsewhere"]), st.integers(0, 4000), st.integers(1, 500))),
    tolerance=st.sampled_from([0.005, 0.02, 0.1]),
    per_positive=st.integers(1, 3),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_regions_match_and_keep_apart(
    starts: list[int],
    size: int,
    exclude: list[tuple[str, int, int]],
    tolerance: float,
    per_positive: int,
    seed: int,
) -> None:
    """Regions have their positive's length and GC, and overlap no positive, no place to avoid and not one another."""
    own = [Interval("12"[i % 2], start, start + size + 2 * (i % 2)) for i, start in enumerate(starts)]
    avoid = [Interval(contig, start, start + n) for contig, start, n in exclude]
    if avoid and all(place.contig == "elsewhere" for place in avoid):
        avoid = []
    table = from_genome(GENOME, own)
    made = add_genomic(table, GENOME, avoid, seed=seed, gc_tolerance=tolerance, per_positive=per_positive)
    negatives = made.table[len(table) :]
    parent = table.set_index("name")["sequence"]
    blocked = [*own, *(place._replace(contig=place.contig.removeprefix("chr")) for place in avoid)]
    for row in negatives.to_dict("records"):
        source = parent[row["name"].split("|")[0]]
        assert len(row["sequence"]) == len(source) == row["length"] == row["end"] - row["start"]
        assert abs(gc_of(row["sequence"]) - gc_of(source)) <= tolerance + 1e-9
        letters = GENOME.texts[row["chromosome"]][row["start"] : row["end"]]
        assert row["sequence"] == (letters if row["strand"] == "+" else reverse_complement(letters))
        place = (row["chromosome"], row["start"], row["end"])
        assert not any(place[0] == c and place[1] < end and start < place[2] for c, start, end in blocked)
        blocked.append(Interval(*place))
    asked = {f"{name}|genomic{copy + 1}" for name in table["name"] for copy in range(per_positive)}
    assert set(negatives["name"]) | set(made.rejected["name"]) == asked
    assert len(negatives) + len(made.rejected) == len(asked)


def test_regions_carry_what_negatives_carry() -> None:
    """Split and group are the parent's, target 0, sample 'genomic', both strands occur, and types stay."""
    table = from_genome(GENOME, [Interval("1", 50 * i, 50 * i + 30) for i in range(23)])
    made = add_genomic(table, GENOME).table
    negatives = made[23:]
    pd.testing.assert_frame_equal(made[:23], table)
    assert negatives["sample"].eq("genomic").all() and negatives["label"].eq(0).all()
    parents = table.set_index("name").loc[negatives["name"].str.partition("|")[0]]
    assert len(negatives) > 20
    assert negatives["split_given"].tolist() == parents["split_given"].tolist()
    assert negatives["group"].tolist() == parents["group"].tolist()
    assert set(negatives["strand"]) == {"+", "-"}
    assert made.dtypes.to_dict() == table.dtypes.to_dict()


def test_positives_without_places_are_known_by_sequence() -> None:
    """Where positives have no coordinates, no region equals one of them or its reverse complement."""
    genome = ToyGenome({"1": "ACGTTGCATC", "2": reverse_complement("ACGTTGCATC"), "3": "ACGTTGCAAG"})
    table = from_genome(genome, [Interval("1", 0, 10)], columns=False)
    made = add_genomic(table, genome, gc_tolerance=0.01).table
    assert made["chromosome"].tolist() == [None, "3"] and made["start"].tolist() == [pd.NA, 0]
    assert made["strand"][0] == "." and pd.isna(made["end"][0])


def test_positive_without_a_match_is_listed() -> None:
    """A positive whose GC no region has gives no negative; the reason names its length, its GC and the setting."""
    table = positives([genome_text(30, 5), "G" * 30]).drop(columns="start")
    made = add_genomic(table, GENOME)
    assert made.rejected["name"].tolist() == ["p1|genomic1"]
    assert "(30 bp, 1.000), allowed is a difference of 0.02 (data.negatives.gc_tolerance)" in made.rejected["reason"][0]
    assert made.rejected.columns.tolist() == ["file", "line", "name", "reason"]
    with pytest.raises(DataError, match="first: 'p1'.*30 bp, 1.000"):
        add_genomic(table[1:], GENOME)


def test_unknown_bases_count() -> None:
    """A region may have the share of unknown bases that is allowed, and its GC is that of the known ones."""
    genome = ToyGenome({"1": "ACGTNACGTN", "2": "AAAAAAAAAA"})
    table = positives(["ACGTACGTAC"]).drop(columns="start")
    with pytest.raises(DataError, match="no free region"):
        add_genomic(table, genome, max_unknown=0.1)
    made = add_genomic(table, genome, max_unknown=0.2).table
    assert made["sequence"][1] in ("ACGTNACGTN", "NACGTNACGT")


def test_soft_masked_share_is_matched() -> None:
    """With `match_repeats` regions have their positive's share of lower-case letters; spans follow the strand."""
    rng = np.random.default_rng(8)
    text = "".join(letter.lower() if i % 40 < 20 else letter for i, letter in enumerate(genome_text(6000, 7)))
    genome = ToyGenome({"1": text})
    shares = rng.integers(0, 11, 30)
    sequences = [genome_text(20, 100 + i) for i in range(30)]
    spans = [f"0-{2 * share}" if share else "" for share in shares]
    table = positives(sequences).drop(columns="start").assign(soft_masked=spans)
    made = add_genomic(table, genome, match_repeats=True, repeat_tolerance=0.05, gc_tolerance=0.2).table[30:]
    assert len(made) > 20
    for row in made.to_dict("records"):
        letters = genome.texts["1"][row["start"] : row["end"]]
        covered = np.zeros(20, dtype=bool)
        for span in filter(None, row["soft_masked"].split(",")):
            first, last = map(int, span.split("-"))
            covered[first:last] = True
        assert covered.tolist() == [letter.islower() for letter in letters][:: 1 if row["strand"] == "+" else -1]
        assert abs(covered.mean() - shares[int(row["name"][1:].split("|")[0])] / 10) <= 0.05 + 1e-9
    loose = add_genomic(table, genome, gc_tolerance=0.2).table[30:]
    found = [sum(letter.islower() for letter in text[row.start : row.end]) / 20 for row in loose.itertuples()]
    wanted = [shares[int(name[1:].split("|")[0])] / 10 for name in loose["name"]]
    assert np.mean(np.abs(np.array(found) - wanted) > 0.05) > 0.3, "without it they differ"


def test_pool_shows_what_matching_changed() -> None:
    """The random pool has the genome's GC, the regions that of the positives."""
    genome = ToyGenome({"1": genome_text(60_000, 3, gc=0.4)})
    table = positives([genome_text(50, 50 + i, gc=0.55) for i in range(60)]).drop(columns="start")
    made = add_genomic(table, genome, per_positive=5, gc_tolerance=0.01)
    assert made.before is not None and len(made.before) == 300
    # The mean of 300 windows of 50 letters has a standard deviation of 0.004.
    assert abs(made.before["gc"].mean() - 0.4) < 0.02
    negatives = made.table[60:]
    parents = table.set_index("name").loc[negatives["name"].str.partition("|")[0], "sequence"]
    assert abs(negatives["sequence"].map(gc_of).mean() - parents.map(gc_of).mean()) <= 0.01


def test_places_of_another_genome_raise() -> None:
    """Places on no contig of the genome are a sign of another one: an error that names a contig."""
    table = from_genome(GENOME, [Interval("1", 50 * i, 50 * i + 30) for i in range(5)])
    with pytest.raises(DataError, match="column 'chromosome'.*'NC_1'"):
        add_genomic(table.assign(chromosome="NC_1"), GENOME)
    with pytest.raises(DataError, match="data.negatives.exclude.*'NC_2'"):
        add_genomic(table, GENOME, [Interval("NC_2", 0, 9)])
    with pytest.raises(DataError, match="data.negatives.genome"):
        add_negatives(
            table, target="label", rules=NegativesConfig.model_validate({"kind": "genomic", "genome": "g"}), seed=1
        )


def test_seed_decides_regions() -> None:
    """The same seed gives the same regions, another seed others."""
    table = from_genome(GENOME, [Interval("1", 50 * i, 50 * i + 30) for i in range(23)])
    first, again, other = (add_genomic(table, GENOME, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first.table, again.table)
    assert first.before is not None and again.before is not None
    pd.testing.assert_frame_equal(first.before, again.before)
    assert first.table["start"].tolist() != other.table["start"].tolist()


@pytest.mark.slow
def test_promoters_of_e_coli(tmp_path: Path, shared_data: Callable[[str], Path]) -> None:
    """Sigma-70 promoters are AT-rich against random places and against the set's own negatives; matched ones are not.

    The set's own negatives are told by GC alone at an AUROC of 0.87, as measured independently.
    """
    source = shared_data("dna/ipromoter2l")
    path = tmp_path / "genome.fa"
    path.write_bytes(gzip.open(shared_data("dna/debian_ecoli536") / "NC_008253.fna.gz").read())
    texts = [
        [record.sequence.upper() for record in read_fasta(source / name)]
        for name in ("sigma70promoter.txt", "negative2860.txt")
    ]
    table = positives(texts[0]).drop(columns="start")
    own = pd.concat([table, positives(texts[1]).assign(label=0.0, name=[f"n{i}" for i in range(2860)])])
    own = own.reset_index(drop=True).drop(columns="start")
    rules = NegativesConfig(kind="genomic", genome=str(path))
    made = add_negatives(table, target="label", rules=rules, seed=1, genome=Genome(path))
    assert len(made.table) == 2 * len(table) == 3388 and made.rejected.empty
    found = balance_table(made.table, TaskConfig(), before=made.before, seed=1).set_index(["stage", "feature"])["smd"]
    assert found["before", "gc"] < -1 and abs(found["after", "gc"]) < 0.05
    scores = {
        name: composition_table(part, TaskConfig(), seed=1).set_index("features")["value"]["GC"]
        for name, part in (("own", own), ("genomic", made.table))
    }
    assert scores["own"] == pytest.approx(0.87, abs=0.01) and scores["genomic"] == pytest.approx(0.5, abs=0.02)
