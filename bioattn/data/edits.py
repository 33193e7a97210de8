"""Shuffles that keep dinucleotide counts, drawn uniformly.

The letters of a sequence are the vertices of a multigraph and its neighbouring
pairs the edges; sequences with the same ends and pair counts are its Eulerian
trails. By the BEST theorem a trail is a spanning tree of last exits towards the
last letter, and for every letter an order of its other exits. Parallel edges
multiply every trail by the same factor, so a uniform tree over labelled edges
with uniform orders gives a uniform sequence.

Sources: Altschul and Erickson 1985 (shuffling by last exits); Wilson 1996
(uniform spanning trees by loop-erased walks); van Aardenne-Ehrenfest and de
Bruijn 1951 (the theorem). Picking last exits without the tree's weights, or
walking at random until stuck, is not uniform.
"""

import numpy as np
from numpy.typing import NDArray

from bioattn.data import alphabet
from bioattn.errors import DataError

#: A C G T and the unknown base, which is a letter like the others here.
_N_VERTICES = alphabet.N_LETTERS + 1
#: Sequences at a time: bounds memory to some hundred bytes per letter.
_CHUNK_LETTERS = 4_000_000


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
    codes = np.asarray(codes, dtype=np.uint8)
    if codes.size and int(codes.max()) >= _N_VERTICES:
        raise DataError(
            f"codes to shuffle must be 0 to {_N_VERTICES - 1}, got {int(codes.max())}: shuffle without padding"
        )
    if codes.shape[1] < 4:  # three letters or fewer have one trail
        return codes.copy()
    shuffled = np.empty_like(codes)
    step = max(1, _CHUNK_LETTERS // codes.shape[1])
    for start in range(0, len(codes), step):
        shuffled[start : start + step] = _shuffle(codes[start : start + step], rng)
    return shuffled


def _shuffle(codes: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    n_rows, length = codes.shape
    rows = np.arange(n_rows)
    leave, enter = codes[:, :-1].astype(np.int64), codes[:, 1:].astype(np.int64)
    edge_counts = _edge_counts(leave, enter)
    last_exit = _spanning_trees(edge_counts, codes[:, -1].astype(np.int64), rng)
    key = rng.random(leave.shape)
    for vertex in range(_N_VERTICES):
        # Parallel edges look alike, so the first one may stand for the tree's edge.
        is_last = (leave == vertex) & (enter == last_exit[:, vertex, None])
        chosen = rows[is_last.any(axis=1)]
        key[chosen, is_last[chosen].argmax(axis=1)] = 1.0  # draws are below 1: it comes last among its vertex's exits
    order = np.argsort(leave + key / 2, axis=1)
    exits = np.take_along_axis(enter, order, axis=1)
    n_exits = edge_counts.sum(axis=2)
    pointer = np.cumsum(n_exits, axis=1) - n_exits
    shuffled = np.empty_like(codes)
    vertex_now = codes[:, 0].astype(np.int64)
    shuffled[:, 0] = vertex_now
    for position in range(1, length):
        exit_now = pointer[rows, vertex_now]
        pointer[rows, vertex_now] += 1
        vertex_now = exits[rows, exit_now]
        shuffled[:, position] = vertex_now
    return shuffled


def _edge_counts(leave: NDArray[np.int64], enter: NDArray[np.int64]) -> NDArray[np.int64]:
    """Edges from each vertex to each other, shape (N, 5, 5)."""
    n_rows = len(leave)
    flat = (np.arange(n_rows)[:, None] * _N_VERTICES + leave) * _N_VERTICES + enter
    counts = np.bincount(flat.ravel(), minlength=n_rows * _N_VERTICES**2)
    return counts.reshape(n_rows, _N_VERTICES, _N_VERTICES)


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
