"""Overlap of patterns of heads whose reading is built in."""

import numpy as np
import pytest
import torch
import toy_tokens

from bioattn.config import ModelConfig, StemConfig, TokenizerConfig
from bioattn.data import alphabet
from bioattn.errors import DataError
from bioattn.explain import head_similarity as module
from bioattn.explain.head_similarity import effective_heads, head_similarity
from bioattn.models import SequenceModel, build_model
from bioattn.nn import taps


def random_codes(n: int, length: int, seed: int = 0) -> np.ndarray:
    """Random sequences, every third one shorter."""
    codes = np.random.default_rng(seed).integers(0, 4, (n, length)).astype(np.uint8)
    codes[::3, length - 6 :] = alphabet.PAD
    return codes


def toy(**more) -> SequenceModel:
    """Two layers of three heads on single bases, with a token before them."""
    settings = {
        "stem": StemConfig(kind="none", pool=1), "d_model": 12, "n_layers": 2, "n_heads": 3, "d_feedforward": 5,
        "pooling": "cls", "positions": "rope",
    } | more  # fmt: skip
    bpe = toy_tokens.BPE if getattr(settings.get("tokenizer"), "kind", "") == "bpe" else None
    model = build_model(ModelConfig(**settings), n_readouts=1, seed=2, tokenizer=bpe).eval()
    with torch.no_grad():
        for layer in model.encoder.layer:
            layer.attn.project_in.weight *= 6  # peaked patterns, or all heads are alike
    return model


def letter_reader() -> SequenceModel:
    """One layer whose four heads read A and C, A and C, G and T, and everything: all set by hand."""
    model = toy(n_layers=1, n_heads=4, d_model=8, pooling="mean", positions="none")
    with torch.no_grad():
        stem, attn = model.stem.project, model.encoder.layer[0].attn
        stem.bias.zero_()
        stem.weight.zero_()
        stem.weight[0] = torch.tensor([1.0, 1.0, -1.0, -1.0])  # A and C against G and T
        stem.weight[1] = -stem.weight[0]
        attn.project_in.weight.zero_()
        attn.project_in.bias.zero_()
        attn.project_in.bias[:8] = 60.0  # every query of every head asks
        for head, sign in enumerate((1.0, 1.0, -1.0, 0.0)):
            attn.project_in.weight[8 + 2 * head, 0] = sign
    return model


def test_heads_that_read_the_same_or_nothing_in_common():
    """The same keys give 1, disjoint ones 0, and a head that reads all of them the share of the other's keys."""
    model, codes = letter_reader(), random_codes(40, 31)
    similarity = head_similarity(model, codes, n_sequences=40, n_queries=30)
    real = codes != alphabet.PAD
    share = ((codes <= 1) & real).sum(1) / real.sum(1)
    expected = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=float)
    expected[:2, 3] = expected[3, :2] = share.mean()
    expected[2, 3] = expected[3, 2] = 1 - share.mean()
    np.testing.assert_allclose(similarity, expected, atol=1e-5)


@pytest.mark.parametrize("tokenizer", ["nucleotide", "kmer", "bpe"])
def test_overlap_is_that_of_whole_patterns(tokenizer: str, monkeypatch: pytest.MonkeyPatch):
    """With every real query looked at often, the mean comes close to that over whole patterns, however batched."""
    words = {"nucleotide": TokenizerConfig(), "kmer": TokenizerConfig(kind="kmer", k=3, stride=2)}
    model = toy(tokenizer=words.get(tokenizer, TokenizerConfig(kind="bpe", vocabulary=40)))
    codes = random_codes(5, 19)
    tokens = torch.from_numpy(codes.astype(np.int64))
    names = [f"layer.{layer}.attn.pattern" for layer in range(2)]
    with torch.inference_mode(), taps.record(model, names) as store:
        model.one_strand(tokens)
    pattern = torch.cat([store[name] for name in names], dim=1).numpy()
    real = model.real_tokens(tokens).numpy()
    expected = np.zeros((6, 6))
    for a, b in np.ndindex(6, 6):
        rows = np.minimum(pattern[:, a], pattern[:, b]).sum(-1)[:, 1:]
        expected[a, b] = np.mean([rows[i, real[i]].mean() for i in range(5)])
    similarity = head_similarity(model, codes, n_queries=4000)
    np.testing.assert_allclose(similarity, expected, atol=0.02)
    assert np.ptp(expected) > 0.2
    some = head_similarity(model, codes, n_queries=7)
    monkeypatch.setattr(module, "_MOST_ENTRIES", 1)
    np.testing.assert_allclose(head_similarity(model, codes, n_queries=7), some, atol=1e-6)


def test_similarity_is_symmetric_with_ones_on_the_diagonal():
    """Entries lie in 0 to 1; a copied head is its original's double; sequences of padding alone count for nothing."""
    model, codes = toy(), random_codes(30, 23)
    with torch.no_grad():
        attn = model.encoder.layer[0].attn.project_in
        for part in range(2):  # queries and keys of head 2 become those of head 0
            rows = slice(12 * part + 8, 12 * part + 12), slice(12 * part, 12 * part + 4)
            attn.weight[rows[0]], attn.bias[rows[0]] = attn.weight[rows[1]].clone(), attn.bias[rows[1]].clone()
    similarity = head_similarity(model, codes)
    assert similarity.shape == (6, 6) and np.array_equal(similarity, similarity.T)
    assert (np.diag(similarity) == 1).all() and similarity.min() >= 0 and similarity.max() <= 1
    assert similarity[0, 2] == pytest.approx(1, abs=1e-5) and similarity[0, 1] < 0.95
    empty = np.full((60, 23), alphabet.PAD, dtype=np.uint8)
    diluted = head_similarity(model, np.concatenate([codes, empty]), n_sequences=90)
    assert diluted[0, 2] == pytest.approx(1, abs=1e-5)
    with pytest.raises(DataError, match="at least one base"):
        head_similarity(model, empty)


def test_effective_number_of_heads():
    """Heads without overlap count all, identical ones as one, k equal groups as k; no heads as none."""
    assert effective_heads(np.eye(7)) == pytest.approx(7)
    assert effective_heads(np.ones((7, 7))) == pytest.approx(1)
    assert effective_heads(np.kron(np.eye(3), np.ones((5, 5)))) == pytest.approx(3)
    assert effective_heads(np.zeros((0, 0))) == 0.0
