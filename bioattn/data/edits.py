"""Random sequences made from given ones: uniform shuffles, and draws from a Markov chain.

A shuffle that keeps dinucleotide counts is a random trail: the letters of a
sequence are the vertices of a multigraph and its neighbouring pairs the edges;
sequences with the same ends and pair counts are its Eulerian trails. By the
BEST theorem a trail is a spanning tree of last exits towards the last letter,
and for every letter an order of its other exits. Parallel edges multiply every
trail by the same factor, so a uniform tree over labelled edges with uniform
orders gives a uniform sequence.

Sources: Altschul and Erickson 1985 (shuffling by last exits); Wilson 1996
(uniform spanning trees by loop-erased walks); van Aardenne-Ehrenfest and de
Bruijn 1951 (the theorem). Picking last exits without the tree's weights, or
walking at random until stuck, is not uniform.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bioattn.data import alphabet
from bioattn.data.composition import kmer_totals
from bioattn.errors import DataError

#: A C G T and the unknown base, which is a letter like the others here.
_N_VERTICES = alphabet.N_LETTERS + 1
#: Sequences at a time: bounds memory to some hundred bytes per letter.
_CHUNK_LETTERS = 4_000_000
#: Sequences sorted and walked at a time, so that they stay in the processor's cache; never fewer rows.
_BLOCK_LETTERS = 300_000
_BLOCK_ROWS = 300
#: A draw of the generator is a multiple of 2^-53.
_RANK_BITS = 53


def dinucleotide_shuffle(sequence: str, rng: np.random.Generator, n: int = 1) -> list[str]:
    """`n` independent shuffles of a sequence with the same dinucleotide counts and ends.

    Each is uniform over all such sequences, the original among them. Ambiguity
    codes count as N.
    """
    codes = alphabet.encode(sequence)
    return [alphabet.decode(row) for row in dinucleotide_shuffle_codes(np.tile(codes, (n, 1)), rng)]


def dinucleotide_shuffle_codes(codes: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """One shuffle of each row with the row's own dinucleotide counts and ends.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
        A C G T = 0 1 2 3, unknown base = 4, no padding.

    Returns
    -------
    ndarray, uint8, shape (N, L)

    Raises
    ------
    DataError
        If a code is padding or no code at all.
    """
    codes = _checked(codes)
    if codes.shape[1] < 4:  # three letters or fewer have one trail
        return codes.copy()
    shuffled = np.empty_like(codes)
    step = max(1, _CHUNK_LETTERS // codes.shape[1])
    for start in range(0, len(codes), step):
        shuffled[start : start + step] = _shuffle(codes[start : start + step], rng)
    return shuffled


def mononucleotide_shuffle_codes(codes: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """One shuffle of the known letters of each row, uniform over all orders; unknown bases stay where they are.

    Takes, returns and raises what `dinucleotide_shuffle_codes` does.
    """
    codes = _checked(codes)
    unknown = codes == alphabet.UNKNOWN
    # As below, a number holds a random rank above a letter. Those of unknown bases come last.
    number = (rng.random(codes.shape) * 2.0**_RANK_BITS).astype(np.int64)
    number[unknown] = 1 << _RANK_BITS
    number <<= 3
    number |= codes
    number.sort(axis=1)
    letters = (number & 7).astype(np.uint8)
    if unknown.any():
        places = np.argsort(unknown, axis=1, kind="stable")
        shuffled = np.empty_like(codes)
        np.put_along_axis(shuffled, places, letters, axis=1)
        return shuffled
    return letters


class MarkovChain(NamedTuple):
    """Chain over A C G T in which the next letter depends on the `order` letters before it.

    Attributes
    ----------
    start : ndarray, float64, shape (4^order,)
        Probability of each context, in order AA.., AA..C, ..., TT...
    following : ndarray, float64, shape (4^order, 4)
        Probability of each letter after each context; rows sum to 1.
    """

    order: int
    start: NDArray[np.float64]
    following: NDArray[np.float64]


def fit_markov(sequences: Sequence[str] | Any, order: int, *, pseudocount: float = 1.0) -> MarkovChain:
    """Chain with the k-mer frequencies of sequences.

    After a context that is seen n times, the letters' observed frequencies
    weigh n and the estimate of the next lower order weighs `pseudocount`; the
    lowest of all is uniform. So rare contexts of a high order fall back to what
    is known about shorter ones. K-mers with an unknown base are not counted.
    """
    following = np.full((1, alphabet.N_LETTERS), 1 / alphabet.N_LETTERS)
    for depth in range(order + 1):
        counts = kmer_totals(sequences, depth + 1).reshape(-1, alphabet.N_LETTERS)
        # Contexts that end alike share the estimate of the shorter context.
        prior = np.tile(following, (len(counts) // len(following), 1))
        following = (counts + pseudocount * prior) / (counts.sum(axis=1, keepdims=True) + pseudocount)
    contexts = kmer_totals(sequences, order) + pseudocount / alphabet.N_LETTERS**order if order else np.ones(1)
    return MarkovChain(order, contexts / contexts.sum(), following)


def sample_markov(chain: MarkovChain, lengths: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Sequences from a chain, codes (N, L of the longest), each with its own length and then padding.

    All sequences grow by a letter at a time; the first `order` letters are a
    context drawn by how often it occurs.
    """
    n_rows, longest = len(lengths), int(lengths.max(initial=0))
    drawn = np.empty((max(longest, chain.order), n_rows), dtype=np.uint8)
    context = _draw_index(np.cumsum(chain.start), rng.random(n_rows))
    for place in range(chain.order):
        drawn[place] = context // alphabet.N_LETTERS ** (chain.order - 1 - place) % alphabet.N_LETTERS
    # The last bound is 1, which no draw reaches: three comparisons decide between four letters.
    bounds = np.cumsum(chain.following, axis=1)[:, :3]
    n_contexts = len(chain.start)
    for place in range(chain.order, longest):
        letter = (rng.random(n_rows)[:, None] >= bounds[context]).sum(axis=1)
        drawn[place] = letter
        context = (context * alphabet.N_LETTERS + letter) % n_contexts
    codes = np.ascontiguousarray(drawn[:longest].T)
    codes[np.arange(longest) >= np.asarray(lengths)[:, None]] = alphabet.PAD
    return codes


def _draw_index(cumulative: NDArray[np.float64], draws: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index that each draw of [0, 1) falls to, given cumulative probabilities."""
    return np.minimum(np.searchsorted(cumulative, draws, side="right"), len(cumulative) - 1)


def _checked(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    codes = np.asarray(codes, dtype=np.uint8)
    if codes.size and int(codes.max()) >= _N_VERTICES:
        raise DataError(
            f"codes to shuffle must be 0 to {_N_VERTICES - 1}, got {int(codes.max())}: shuffle without padding"
        )
    return codes


def _shuffle(codes: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    n_rows = len(codes)
    edges = codes[:, :-1] * np.uint8(_N_VERTICES) + codes[:, 1:]
    flat = edges + np.arange(n_rows)[:, None] * _N_VERTICES**2
    edge_counts = np.bincount(flat.ravel(), minlength=n_rows * _N_VERTICES**2).reshape(-1, _N_VERTICES, _N_VERTICES)
    last_exit = _spanning_trees(edge_counts, codes[:, -1].astype(np.int64), rng)
    shuffled = np.empty_like(codes)
    step = max(_BLOCK_ROWS, _BLOCK_LETTERS // codes.shape[1])
    for start in range(0, n_rows, step):
        block = slice(start, start + step)
        exits = _ordered_exits(codes[block], edges[block], last_exit[block], rng)
        shuffled[block] = _walk(exits, codes[block, 0], edge_counts[block].sum(axis=2))
    return shuffled


def _ordered_exits(
    codes: NDArray[np.uint8], edges: NDArray[np.uint8], last_exit: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Letters that the edges of each row enter, (n, L - 1), sorted by the letter they leave, then in random order.

    A number holds all three, from its highest bits on: the letter left, the
    random rank, the letter entered. So sorting numbers sorts edges, which is
    several times as fast as sorting their places.
    """
    number = (rng.random(edges.shape) * 2.0**_RANK_BITS).astype(np.int64)
    for vertex in range(_N_VERTICES):
        rows = np.flatnonzero(last_exit[:, vertex] >= 0)
        edge = (vertex * _N_VERTICES + last_exit[rows, vertex]).astype(np.uint8)
        # Parallel edges look alike, so the first one may stand for the tree's edge.
        first = (edges[rows] == edge[:, None]).argmax(axis=1)
        number[rows, first] = 1 << _RANK_BITS  # above all ranks: it comes last among its vertex's exits
    number <<= 3
    number |= codes[:, 1:]
    number |= codes[:, :-1].astype(np.int64) << (_RANK_BITS + 4)
    number.sort(axis=1)
    number &= 7
    return number


def _walk(exits: NDArray[np.int64], first: NDArray[np.uint8], n_exits: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Letters met on leaving each letter by its exits in their order, (n, L)."""
    n_rows, n_edges = exits.shape
    # Vertices and exits of all rows are numbered through: one flat look-up a step instead of one with two indices.
    offset = np.arange(n_rows) * _N_VERTICES
    exits = (exits + offset[:, None]).ravel()
    pointer = (np.cumsum(n_exits, axis=1) - n_exits + np.arange(n_rows)[:, None] * n_edges).ravel()
    met = np.empty((n_edges + 1, n_rows), dtype=np.int64)
    met[0] = vertex = first + offset
    for position in range(1, n_edges + 1):
        exit_now = pointer[vertex]
        pointer[vertex] = exit_now + 1
        met[position] = vertex = exits[exit_now]
    return (met - offset).T.astype(np.uint8)


def _spanning_trees(
    edge_counts: NDArray[np.int64], root: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """For every vertex the next one on the way to the root, (N, 5); -1 for the root and absent vertices.

    Wilson's algorithm on all rows at once. Trees come with probability
    proportional to the product of their edge counts: uniform over labelled edges.
    """
    n_rows = len(edge_counts)
    loopless = edge_counts * (1 - np.eye(_N_VERTICES, dtype=np.int64))  # a loop is never a last exit
    cumulative = loopless.cumsum(axis=2)
    n_exits = cumulative[:, :, -1]
    successor = np.full((n_rows, _N_VERTICES), -1)
    in_tree = n_exits == 0
    in_tree[np.arange(n_rows), root] = True
    for vertex in range(_N_VERTICES):
        walking = np.flatnonzero(~in_tree[:, vertex])
        here = np.full(len(walking), vertex)
        starters = walking
        while len(walking):
            draw = rng.random(len(walking)) * n_exits[walking, here]
            to = (draw[:, None] >= cumulative[walking, here]).sum(axis=1)
            successor[walking, here] = to  # a later exit overwrites an earlier one: loops erase themselves
            on = ~in_tree[walking, to]
            walking, here = walking[on], to[on]
        here = np.full(len(starters), vertex)
        while len(starters):
            in_tree[starters, here] = True
            here = successor[starters, here]
            on = ~in_tree[starters, here]
            starters, here = starters[on], here[on]
    successor[np.arange(n_rows), root] = -1
    return successor
