"""Couplings of alignments whose couplings are known."""

import numpy as np
import pytest

from bioattn.data.residues import (
    GAP,
    Alignment,
    decode_residues,
    encode_residues,
    profile,
    sequence_weights,
    shuffled_columns,
)
from bioattn.errors import DataError
from bioattn.protein.coevolution import average_product_corrected, coupling_scores, mean_field_couplings, zero_sum
from bioattn.protein.factored import FactoredAttention, family_scores, fit_family

#: Columns that are coupled in the made-up family: a chain, so that its ends correlate without being coupled.
CHAIN = ((2, 9), (9, 13), (13, 5))


def family(n: int = 3000, length: int = 17, strength: float = 2.0, seed: int = 0) -> np.ndarray:
    """Gibbs samples of a Potts model of three states; the pairs of `CHAIN` like to be in the same one."""
    draw = np.random.default_rng(seed)
    codes = draw.integers(0, 3, (n, length)).astype(np.uint8)
    partners = {i: [b if a == i else a for a, b in CHAIN if i in (a, b)] for i in range(length)}
    for _ in range(40):
        for i in range(length):
            if partners[i]:
                energy = strength * sum((codes[:, j, None] == np.arange(3)) for j in partners[i])
                p = np.exp(energy) / np.exp(energy).sum(1, keepdims=True)
                codes[:, i] = (draw.random((n, 1)) > p.cumsum(1)[:, :-1]).sum(1)
    return codes


def strongest(scores: np.ndarray, n: int) -> set[tuple[int, int]]:
    i, j = np.triu_indices(len(scores), 1)
    order = np.argsort(-scores[i, j])[:n]
    return {(int(i[k]), int(j[k])) for k in order}


TRUE = {(min(pair), max(pair)) for pair in CHAIN}


def test_mean_field_tells_direct_from_indirect_couplings():
    """The three coupled pairs come first; the ends of the chain, which correlate, are not among them."""
    codes = family()
    correlated = np.corrcoef((codes == 0).T)
    assert abs(correlated[2, 13]) > 0.2 and abs(correlated[2, 5]) > 0.1
    scores = coupling_scores(mean_field_couplings(codes, np.ones(len(codes))))
    assert strongest(scores, 3) == TRUE and (scores == scores.T).all()
    assert scores[2, 13] < 0.5 * scores[2, 9]
    shuffled = shuffled_columns(codes, np.random.default_rng(1))
    assert (np.sort(shuffled, axis=0) == np.sort(codes, axis=0)).all()
    null = coupling_scores(mean_field_couplings(shuffled, np.ones(len(codes))))
    assert np.abs(null).max() < 0.3 * scores.max()


def test_factored_attention_finds_the_same_pairs():
    """Trained by pseudo-likelihood on the same family; on permuted columns it finds nothing as strong."""
    codes = family(1500)
    options = {"n_heads": 4, "d_head": 8, "steps": 150, "batch_size": 64}
    fitted = fit_family(codes, np.ones(len(codes)), **options)
    scores = family_scores(fitted.model)
    assert strongest(scores, 3) == TRUE
    assert fitted.losses[-20:].mean() < fitted.losses[:3].mean()
    again = fit_family(codes, np.ones(len(codes)), **options)
    assert (again.losses == fitted.losses).all()


def test_couplings_of_the_layer_are_what_it_adds_to_logits():
    """Logits by loops over columns and heads; a column does not read itself; rows of the pattern sum to one."""
    import torch

    torch.manual_seed(0)
    model = FactoredAttention(5, n_heads=3, d_head=4).double()
    codes = torch.randint(0, 21, (2, 5))
    pattern = model.pattern()
    assert (
        torch.allclose(pattern.sum(-1), torch.ones(3, 5, dtype=torch.float64))
        and (pattern.diagonal(dim1=1, dim2=2) == 0).all()
    )
    logits = model(codes)
    for s, i in ((0, 3), (1, 0)):
        total = model.field[i].clone()
        for h in range(3):
            for j in range(5):
                total = total + pattern[h, i, j] * model.value[h, codes[s, j]] / 2
                total = total + pattern[h, j, i] * model.value[h, :, codes[s, j]] / 2
        torch.testing.assert_close(logits[s, i], total)
    couplings = model.couplings()
    torch.testing.assert_close(couplings, couplings.permute(2, 3, 0, 1))


def test_weights_are_one_over_the_number_of_likenesses():
    """Three copies, one that differs in a tenth of the columns, and a stranger."""
    draw = np.random.default_rng(0)
    first, stranger = draw.integers(0, 20, (2, 40)).astype(np.uint8)
    near = first.copy()
    near[:4] = (near[:4] + 1) % 20
    weights = sequence_weights(np.stack([first, first, first, near, stranger]))
    assert weights.tolist() == [0.25] * 4 + [1.0]
    assert sequence_weights(np.stack([first, near]), identity=0.95).tolist() == [1, 1]
    with pytest.raises(DataError, match="at least 2 sequences"):
        sequence_weights(first[None])


def test_profiles_are_weighted_frequencies():
    """Rows sum to one, gaps included."""
    codes = np.stack([encode_residues("AC-"), encode_residues("AD-"), encode_residues("AD-")])
    table = profile(codes, np.array([2.0, 1.0, 1.0]))
    assert table.sum(1) == pytest.approx(np.ones(3)) and table[0, 0] == 1 and table[2, GAP] == 1
    assert table[1, [1, 2]].tolist() == [0.5, 0.5]


def test_an_alignment_is_focused_on_a_sequence():
    """Columns in which it has a residue; gappy sequences can be left out."""
    alignment = Alignment(["a x", "b"], np.stack([encode_residues("A-CD"), encode_residues("----")]))
    assert decode_residues(alignment.focused(alignment.index_of("a")).codes[0]) == "ACD"
    assert alignment.without_gappy(most_gaps=0.5).names == ["a x"]
    with pytest.raises(DataError, match="no sequence of the alignment is named 'c'"):
        alignment.index_of("c")


def test_corrections_remove_what_rows_and_columns_explain():
    """A product of two factors has nothing left but its diagonal's share; zero-sum couplings have no fields."""
    factor = np.random.default_rng(0).random(30) + 1
    left = average_product_corrected(np.outer(factor, factor))
    off = ~np.eye(30, dtype=bool)
    assert np.abs(left[off]).max() < 0.06 * np.outer(factor, factor)[off].mean() and (np.diag(left) == 0).all()
    couplings = zero_sum(np.random.default_rng(1).random((3, 21, 3, 21)))
    assert np.abs(couplings.mean(1)).max() < 1e-12 and np.abs(couplings.mean(3)).max() < 1e-12
    with pytest.raises(DataError, match="pseudocount must lie between 0 and 1, got 0"):
        mean_field_couplings(family(10), np.ones(10), pseudocount=0.0)
