"""Sequences that descend along a tree: relatedness stays, what varies together does not."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from bioattn.data.residues import profile, sequence_weights
from bioattn.errors import DataError
from bioattn.protein.coevolution import coupling_scores, mean_field_couplings
from bioattn.protein.phylogeny import descend


def family(n_clans: int = 12, each: int = 25, length: int = 60) -> np.ndarray:
    """Clans of sequences that keep 70 % of their ancestor; columns 5 and 40 are always the same residue."""
    draw = np.random.default_rng(0)
    clans = draw.integers(0, 4, (n_clans, length))
    codes = np.repeat(clans, each, axis=0)
    changed = draw.random(codes.shape) > 0.7
    codes[changed] = draw.integers(0, 4, changed.sum())
    codes[:, 40] = codes[:, 5]
    return codes.astype(np.uint8)


def test_the_tree_stays_and_couplings_go():
    """Distances between sequences correlate with those of the alignment and have their mean; frequencies stay; the
    coupled pair, first in the alignment, is one of many in what descends."""
    codes = family()
    weights = sequence_weights(codes)
    made = descend(codes, weights, np.random.default_rng(1))
    before, after = pdist(codes, "hamming"), pdist(made, "hamming")
    assert np.corrcoef(before, after)[0, 1] > 0.6 and after.mean() == pytest.approx(before.mean(), abs=0.05)
    drift = np.abs(profile(made, np.ones(len(made))) - profile(codes, weights)).mean()
    assert drift < 0.06
    ranks = []
    for each, weight in ((codes, weights), (made, sequence_weights(made))):
        scores = coupling_scores(mean_field_couplings(each, weight))
        i, j = np.triu_indices(60, 1)
        order = np.argsort(-scores[i, j])
        ranks.append(int(np.flatnonzero((i[order] == 5) & (j[order] == 40))[0]))
    assert ranks[0] == 0 and ranks[1] > 20


def test_strangers_share_nothing_and_copies_everything():
    """Unrelated sequences come out unrelated; two copies come out alike."""
    draw = np.random.default_rng(0)
    strangers = draw.integers(0, 20, (40, 200)).astype(np.uint8)
    apart = pdist(descend(strangers, np.ones(40), np.random.default_rng(2)), "hamming")
    assert apart.mean() == pytest.approx(pdist(strangers, "hamming").mean(), abs=0.03)
    twice = np.concatenate([strangers, strangers[:1]])
    made = descend(twice, np.ones(41), np.random.default_rng(3))
    assert (made[0] == made[40]).all() and (made[0] != made[1]).any()


def test_large_alignments_are_thinned_and_single_ones_refused():
    """As many sequences as were asked for."""
    codes = family()
    assert descend(codes, np.ones(len(codes)), np.random.default_rng(0), most_sequences=50).shape == (50, 60)
    with pytest.raises(DataError, match="needs at least 2 sequences, got 1"):
        descend(codes[:1], np.ones(1), np.random.default_rng(0))
