"""Dinucleotide shuffles: exact counts, and uniform over everything reachable."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from bioattn.data.edits import dinucleotide_shuffle, dinucleotide_shuffle_codes
from bioattn.errors import DataError

SEQUENCES = st.text(alphabet="ACGTN", min_size=1, max_size=60)


def pairs(sequence: str) -> Counter[tuple[str, str]]:
    return Counter(pairwise(sequence))


def reachable(sequence: str) -> set[str]:
    """Every sequence with the same pair counts and ends, by walking all trails one by one."""
    found = set()

    def walk(prefix: str, left: Counter[tuple[str, str]]) -> None:
        if not left.total():
            found.add(prefix)
            return
        for (a, b), n in list(left.items()):
            if n and a == prefix[-1]:
                left[a, b] -= 1
                walk(prefix + b, left)
                left[a, b] += 1

    walk(sequence[0], pairs(sequence))
    return found


@pytest.mark.parametrize(
    ("sequence", "n_reachable"),
    # The last two have trees of unequal weight: they tell a uniform tree over edges from one over letters.
    [("ACCCACGATGATA", 72), ("AAGAATTTCAGA", None), ("ANGATNNGATCA", None), ("ACACGCAGA", None), ("ACACACGCAGA", None)],
)
def test_every_reachable_sequence_comes_at_the_same_rate(sequence: str, n_reachable: int | None) -> None:
    """All sequences with the same dinucleotide counts appear, and a chi-square test finds no preference."""
    expected = reachable(sequence)
    assert n_reachable is None or len(expected) == n_reachable
    draws = 600 * len(expected)
    counts = Counter(dinucleotide_shuffle(sequence, np.random.default_rng(7), draws))
    assert set(counts) == expected
    assert chisquare([counts[key] for key in sorted(expected)]).pvalue > 1e-3


@given(sequence=SEQUENCES, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_counts_and_ends_are_kept(sequence: str, seed: int) -> None:
    """A shuffle has the dinucleotide counts, and so the letters and ends, of its parent, N included."""
    for shuffled in dinucleotide_shuffle(sequence, np.random.default_rng(seed), 3):
        assert pairs(shuffled) == pairs(sequence)
        assert (shuffled[0], shuffled[-1]) == (sequence[0], sequence[-1])


@given(sequences=st.lists(st.text(alphabet="ACGT", min_size=23, max_size=23), min_size=2, max_size=7))
@settings(max_examples=50, deadline=None)
def test_rows_do_not_mix(sequences: list[str]) -> None:
    """Each row of a batch is shuffled within itself."""
    codes = np.array([["ACGT".index(letter) for letter in sequence] for sequence in sequences], dtype=np.uint8)
    shuffled = dinucleotide_shuffle_codes(codes, np.random.default_rng(3))
    for row, sequence in zip(shuffled, sequences, strict=True):
        assert pairs("".join("ACGT"[code] for code in row)) == pairs(sequence)


def test_same_generator_gives_same_shuffles() -> None:
    """The draws depend on the generator alone."""
    first, second = (dinucleotide_shuffle("ACGTTGCAACGGTATCC", np.random.default_rng(5), 11) for _ in range(2))
    assert first == second
    assert len(set(first)) > 1


def test_padding_is_refused() -> None:
    """Codes with padding raise instead of shuffling the padding in."""
    with pytest.raises(DataError, match="got 5"):
        dinucleotide_shuffle_codes(np.array([[0, 1, 2, 5]], dtype=np.uint8), np.random.default_rng(1))
