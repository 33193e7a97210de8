"""Shuffles: exact counts, and uniform over everything reachable. Markov chains: the frequencies they were fitted to."""

from collections import Counter
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from bioattn.data import alphabet, edits
from bioattn.data.edits import (
    MarkovChain,
    dinucleotide_shuffle,
    dinucleotide_shuffle_codes,
    fit_markov,
    mononucleotide_shuffle_codes,
    sample_markov,
)
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
    for shuffle in (dinucleotide_shuffle_codes, mononucleotide_shuffle_codes):
        with pytest.raises(DataError, match="got 5"):
            shuffle(np.array([[0, 1, 2, 5]], dtype=np.uint8), np.random.default_rng(1))


def slow_shuffle(codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same draws turned into sequences one by one: exits of each letter in random order, the tree's last."""
    counts = np.zeros((len(codes), 5, 5), dtype=np.int64)
    for row, sequence in enumerate(codes):
        for a, b in pairwise(sequence):
            counts[row, a, b] += 1
    trees = edits._spanning_trees(counts, codes[:, -1].astype(np.int64), rng)
    ranks = rng.random((len(codes), codes.shape[1] - 1))
    shuffled = []
    for sequence, tree, rank in zip(codes, trees, ranks, strict=True):
        exits: dict[int, list[int]] = {}
        for letter in range(5):
            places = [i for i in range(len(sequence) - 1) if sequence[i] == letter]
            places.sort(key=lambda i: rank[i])
            if tree[letter] >= 0:
                last = min(i for i in places if sequence[i + 1] == tree[letter])
                places.remove(last)
                places.append(last)
            exits[letter] = [sequence[i + 1] for i in places]
        made = [sequence[0]]
        while len(made) < len(sequence):
            made.append(exits[made[-1]].pop(0))
        shuffled.append(made)
    return np.array(shuffled, dtype=np.uint8)


@pytest.mark.parametrize("n_letters", [2, 4, 5])
def test_fast_shuffles_are_those_of_the_slow_loop(n_letters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorting and walking many rows at once gives what a loop over letters gives, block borders included."""
    codes = np.random.default_rng(n_letters).integers(0, n_letters, (31, 43)).astype(np.uint8)
    expected = slow_shuffle(codes, np.random.default_rng(2))
    assert np.array_equal(dinucleotide_shuffle_codes(codes, np.random.default_rng(2)), expected)
    monkeypatch.setattr(edits, "_BLOCK_ROWS", 7)
    monkeypatch.setattr(edits, "_BLOCK_LETTERS", 1)
    assert np.array_equal(dinucleotide_shuffle_codes(codes, np.random.default_rng(2)), expected)


# ------------------------------------------------------------ mononucleotide shuffles


@pytest.mark.parametrize("sequence", ["AACGT", "ANCCNG", "ACGTN"])
def test_every_order_of_the_letters_comes_at_the_same_rate(sequence: str) -> None:
    """All orders of the known letters appear, unknown bases stay, and a chi-square test finds no preference."""
    known = [letter for letter in sequence if letter != "N"]
    expected = sorted({"".join(order) for order in permutations(known)})
    codes = np.tile(alphabet.encode(sequence), (300 * len(expected), 1))
    shuffled = [alphabet.decode(row) for row in mononucleotide_shuffle_codes(codes, np.random.default_rng(3))]
    places = [i for i, letter in enumerate(sequence) if letter == "N"]
    assert all([i for i, letter in enumerate(text) if letter == "N"] == places for text in shuffled)
    counts = Counter(text.replace("N", "") for text in shuffled)
    assert sorted(counts) == expected
    assert chisquare([counts[key] for key in expected]).pvalue > 1e-3


@given(sequences=st.lists(st.text(alphabet="ACGTN", min_size=23, max_size=23), min_size=1, max_size=7))
@settings(max_examples=50, deadline=None)
def test_rows_keep_their_letters(sequences: list[str]) -> None:
    """Each row of a batch keeps its own letters, and its unknown bases in their places."""
    codes = np.stack([alphabet.encode(sequence) for sequence in sequences])
    shuffled = mononucleotide_shuffle_codes(codes, np.random.default_rng(3))
    assert np.array_equal(np.sort(shuffled, axis=1), np.sort(codes, axis=1))
    assert np.array_equal(shuffled == alphabet.UNKNOWN, codes == alphabet.UNKNOWN)


# --------------------------------------------------------------------- Markov chains


def slow_following(sequences: list[str], order: int, context: str, pseudocount: float) -> list[float]:
    """Probabilities after a context, by counting words one by one and falling back to shorter contexts."""
    if order < 0:
        return [0.25] * 4
    prior = slow_following(sequences, order - 1, context[1:], pseudocount)
    counts = [
        sum(text[i : i + order + 1] == context + letter for text in sequences for i in range(len(text) - order))
        for letter in "ACGT"
    ]
    return [(n + pseudocount * p) / (sum(counts) + pseudocount) for n, p in zip(counts, prior, strict=True)]


@given(
    sequences=st.lists(st.text(alphabet="ACGTN", min_size=1, max_size=30), min_size=1, max_size=5),
    order=st.integers(0, 3),
    pseudocount=st.sampled_from([0.5, 1.0, 4.0]),
)
@settings(max_examples=50, deadline=None)
def test_chain_is_that_of_the_slow_count(sequences: list[str], order: int, pseudocount: float) -> None:
    """Probabilities are counts of words plus those of the next lower order; rows sum to 1."""
    chain = fit_markov(sequences, order, pseudocount=pseudocount)
    contexts = ["".join("ACGT"[i // 4 ** (order - 1 - j) % 4] for j in range(order)) for i in range(4**order)]
    expected = [slow_following(sequences, order, context, pseudocount) for context in contexts]
    np.testing.assert_allclose(chain.following, expected)
    np.testing.assert_allclose(chain.following.sum(axis=1), 1)
    np.testing.assert_allclose(chain.start.sum(), 1)


@given(weights=st.lists(st.integers(1, 9), min_size=16, max_size=16), order=st.integers(0, 1))
@settings(max_examples=20, deadline=None)
def test_drawn_frequencies_converge(weights: list[int], order: int) -> None:
    """In 10^5 draws letters follow each context at the chain's rates, within five standard errors."""
    following = np.array(weights, dtype=float).reshape(4, 4)[: 4**order]
    following /= following.sum(axis=1, keepdims=True)
    chain = MarkovChain(order, np.full(4**order, 1 / 4**order), following)
    codes = sample_markov(chain, np.full(1000, 101), np.random.default_rng(1))
    context = codes[:, :-1].ravel() if order else np.zeros(codes[:, 1:].size, dtype=int)
    for value in range(4**order):
        letters = codes[:, 1:].ravel()[context == value]
        found = np.bincount(letters, minlength=4) / len(letters)
        error = np.sqrt(following[value] * (1 - following[value]) / len(letters))
        assert (np.abs(found - following[value]) < 5 * error + 1e-12).all()


def test_first_letters_are_a_context_as_frequent_as_in_the_positives() -> None:
    """Sequences begin with contexts at their own rates: none of them begins in a place that never occurs."""
    chain = fit_markov(["ACGACGACGACG" * 50] * 5, 2, pseudocount=1e-9)
    codes = sample_markov(chain, np.full(3000, 7), np.random.default_rng(4))
    counts = Counter(alphabet.decode(row) for row in codes)
    assert set(counts) == {"ACGACGA", "CGACGAC", "GACGACG"}
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_draws_have_their_lengths() -> None:
    """Each draw has its own length, also below the order, and padding behind; one generator gives one result."""
    chain = fit_markov(["ACGTTGCAAC"], 3)
    lengths = np.array([1, 2, 3, 5, 11, 0])
    first, second = (sample_markov(chain, lengths, np.random.default_rng(6)) for _ in range(2))
    assert ((first != alphabet.PAD).sum(axis=1) == lengths).all() and first.shape == (6, 11)
    assert all((row[n:] == alphabet.PAD).all() for row, n in zip(first, lengths, strict=True))
    assert np.array_equal(first, second)
