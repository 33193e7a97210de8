"""Negatives made from positives."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from bioattn.data.negatives import add_shuffled
from bioattn.errors import DataError


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


def test_negatives_have_their_parents_counts_and_differ_from_them() -> None:
    """Each positive gets the wished number of negatives with its dinucleotide counts, never itself."""
    table = positives(random_sequences(7))
    made = add_shuffled(table, target="label", per_positive=3, seed=1).table
    pd.testing.assert_frame_equal(made.iloc[:7], table)
    negatives = made.iloc[7:]
    assert len(negatives) == 21 and negatives["label"].eq(0).all() and negatives["sample"].eq("shuffled").all()
    parent = table.set_index("name")["sequence"]
    for name, sequence in zip(negatives["name"], negatives["sequence"], strict=True):
        source = parent[name.split("|")[0]]
        assert sequence != source
        assert Counter(pairwise(sequence)) == Counter(pairwise(source))
    assert negatives["name"].tolist()[:3] == ["p0|shuffle1", "p0|shuffle2", "p0|shuffle3"]


def test_a_shuffle_that_equals_its_parent_is_drawn_again() -> None:
    """Where half of all shuffles are the parent itself, every negative is the other half."""
    made = add_shuffled(positives(["AACA"] * 29), target="label", per_positive=1, seed=1)
    assert made.table["sequence"].tolist() == ["AACA"] * 29 + ["ACAA"] * 29
    assert made.rejected.empty


def test_negatives_follow_their_parents_split_and_group_but_lie_nowhere() -> None:
    """Split and group are the parent's; coordinates are empty; column types stay."""
    table = positives(random_sequences(5))
    made = add_shuffled(table, target="label", per_positive=1, seed=1).table
    assert made["split_given"].tolist()[5:] == table["split_given"].tolist()
    assert made["group"].tolist()[5:] == table["group"].tolist()
    assert made["start"][5:].isna().all()
    assert made.dtypes.to_dict() == table.dtypes.to_dict()


def test_negatives_of_the_table_are_left_alone() -> None:
    """Only positives are shuffled."""
    table = positives(random_sequences(6))
    table.loc[:2, "label"] = 0.0
    made = add_shuffled(table, target="label", per_positive=1, seed=1).table
    assert made["name"].tolist()[6:] == ["p3|shuffle1", "p4|shuffle1", "p5|shuffle1"]


def test_sequence_with_one_trail_is_listed() -> None:
    """A positive that equals all its shuffles gives no negative and is listed with the reason."""
    made = add_shuffled(positives(["A" * 19, *random_sequences(3)]), target="label", per_positive=2, seed=1)
    assert not made.table["name"].str.startswith("p0|").any()
    assert made.rejected["name"].tolist() == ["p0|shuffle1"]
    assert "dinucleotide counts" in made.rejected["reason"][0]


def test_nothing_to_shuffle() -> None:
    """No positive that can be shuffled, or no positive at all, raises."""
    with pytest.raises(DataError, match="first: 'p0'"):
        add_shuffled(positives(["A" * 19, "C" * 19]), target="label", per_positive=1, seed=1)
    table = positives(random_sequences(3))
    with pytest.raises(DataError, match="no positive"):
        add_shuffled(table.assign(label=0.0), target="label", per_positive=1, seed=1)


def test_seed_decides() -> None:
    """The same seed gives the same negatives, another seed others."""
    table = positives(random_sequences(9))
    first, again, other = (
        add_shuffled(table, target="label", per_positive=1, seed=seed).table["sequence"].tolist() for seed in (1, 1, 2)
    )
    assert first == again != other
