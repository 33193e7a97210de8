"""A null for covariation: sequences that descend from each other as those of an alignment do, columns by themselves.

Relatives share residues because they descend from one ancestor. That alone makes columns vary together, and contact
scores see it. Here a tree is built from the alignment and every column evolves along it without regard to
the others, so whatever couplings are found in the result are those of the tree.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage, to_tree
from scipy.spatial.distance import pdist

from bioattn.data.residues import N_AMINO_ACIDS, profile
from bioattn.errors import DataError

_STATES = N_AMINO_ACIDS + 1


def descend(
    codes: NDArray[np.uint8], weights: NDArray[np.float64], draw: np.random.Generator, *, most_sequences: int = 10_000
) -> NDArray[np.uint8]:
    """An alignment (S, L) of the same family tree with independent columns.

    The tree joins the nearest groups by their mean share of different residues (UPGMA). On a branch a column keeps its
    residue, or draws a new one from its own frequencies; the rate is such that two sequences differ in as many
    columns as the alignment's do where the tree has them join.

    Parameters
    ----------
    codes, weights : ndarray
        See `bioattn.data.residues`.
    most_sequences : int
        Of a larger alignment so many are drawn: the tree needs every pair of sequences.

    Raises
    ------
    DataError
        If there are fewer than two sequences.
    """
    if len(codes) < 2:
        raise DataError(f"a tree of the family needs at least 2 sequences, got {len(codes)}")
    if len(codes) > most_sequences:
        rows = draw.choice(len(codes), most_sequences, replace=False)
        codes, weights = codes[rows], weights[rows]
    n, length = codes.shape
    frequencies = profile(codes, weights)
    # Two draws from the frequencies of a column differ so often: where the tree ends, nothing is shared any more.
    unrelated = float(1 - (frequencies**2).sum(1).mean())
    tree = linkage(pdist(codes, "hamming"), "average")
    # Two sequences that join at a height t have both evolved for t: they differ with probability
    # unrelated * (1 - exp(-2 t)).
    different = np.minimum(tree[:, 2], 0.995 * unrelated)
    heights = np.concatenate([np.zeros(n), -0.5 * np.log1p(-different / unrelated)])
    cumulative = frequencies.cumsum(1)

    def drawn() -> NDArray[np.uint8]:
        return np.minimum((draw.random((length, 1)) > cumulative).sum(1), _STATES - 1).astype(np.uint8)

    made = np.empty((n, length), dtype=np.uint8)
    stack = [(to_tree(tree), drawn())]
    while stack:
        node, state = stack.pop()
        if node.is_leaf():
            made[node.id] = state
            continue
        for child in (node.left, node.right):
            changed = draw.random(length) > np.exp(-(heights[node.id] - heights[child.id]))
            stack.append((child, np.where(changed, drawn(), state)))
    return made
