"""Few edges kept, the others uniform: against loops, uniform attention, and a model that reads one key per query."""

import numpy as np
import pytest
import torch
import toy_tokens

from bioattn.config import ModelConfig, StemConfig, TokenizerConfig
from bioattn.data import alphabet
from bioattn.errors import DataError
from bioattn.explain import edge_sufficiency as module
from bioattn.explain.edge_sufficiency import RANKINGS, _ranks, _reduced, edge_sufficiency
from bioattn.models import SequenceModel, build_model
from bioattn.nn import taps

SIZES = {"d_model": 12, "n_layers": 2, "n_heads": 3, "d_feedforward": 17, "dropout": 0.0}
BASES = StemConfig(kind="none", pool=1)
MODELS = {
    "stem, both strands": {
        "stem": StemConfig(kind="conv", n_filters=5, width=5, pool=3), "reverse_complement": "average",
    },
    "bases, cls": {"stem": BASES, "positions": "learned", "pooling": "cls"},
    "bpe": {"stem": BASES, "tokenizer": TokenizerConfig(kind="bpe", vocabulary=40), "pooling": "sum"},
    "pair track": {"stem": BASES, "trunk": "pair", "pair": {"d_pair": 8}},
}  # fmt: skip


def some_codes(n: int = 13, longest: int = 29) -> np.ndarray:
    """Random sequences, every third one shorter."""
    codes = np.random.default_rng(0).integers(0, 4, (n, longest)).astype(np.uint8)
    codes[::3, -7:] = alphabet.PAD
    return codes


def made(name: str) -> SequenceModel:
    config = ModelConfig.model_validate(SIZES | MODELS[name])
    words = toy_tokens.BPE if name == "bpe" else None
    return build_model(config, n_readouts=2, seed=1, tokenizer=words).eval()


def test_edges_are_ranked_together_and_the_rest_is_spread_evenly():
    """Two layers of other sizes, entries of zero among them, against a loop over edges."""
    draw = torch.Generator().manual_seed(0)
    weights = [torch.rand(2, 3, 5, 5, generator=draw), torch.rand(2, 2, 4, 4, generator=draw)]
    weights[0][:, :, :, 4] = 0
    weights = [w / w.sum(-1, keepdim=True) for w in weights]
    values = [torch.rand(w.shape, generator=draw) for w in weights]
    ranks = _ranks(weights, values)
    for b in range(2):
        edges = [
            (float(v[b][at]), layer, at)
            for layer, (w, v) in enumerate(zip(weights, values, strict=True))
            for at in zip(*np.nonzero(w[b].numpy()), strict=True)
        ]
        for place, (_, layer, at) in enumerate(sorted(edges, reverse=True)):
            assert int(ranks[layer][0][b][at]) == place
        assert int(ranks[0][1][b]) == len(edges) == 3 * 5 * 4 + 2 * 4 * 4
    first = ranks[0][0] < 17
    reduced = _reduced(weights[0], first)
    for (b, h, q), row in np.ndenumerate(np.zeros((2, 3, 5))):
        own, kept = weights[0][b, h, q], first[b, h, q]
        others = [k for k in range(4) if not kept[k]]
        left = 1 - sum(float(own[k]) for k in range(4) if kept[k])
        for k in range(5):
            expected = float(own[k]) if k < 4 and kept[k] else left / len(others) if k in others else 0.0
            assert float(reduced[b, h, q, k]) == pytest.approx(expected, abs=1e-6) and row == 0


@pytest.mark.parametrize("name", MODELS)
def test_ends_are_uniform_attention_and_the_model_itself(name: str):
    """With no edge kept it is the model with uniform patterns, with all it explains everything."""
    model, codes = made(name), some_codes()
    table = edge_sufficiency(model, codes, readout=1, kept=(0.0, 0.3, 1.0), seed=2)
    assert list(table["ranking"].unique()) == list(RANKINGS) and (table["n"] == len(codes)).all()
    by = table.set_index(["ranking", "kept"])["explained"]
    tokens = torch.from_numpy(codes.astype(np.int64))
    uniform = {
        f"layer.{layer}.attn.pattern": lambda p: (p > 0).to(p.dtype) / (p > 0).sum(-1, keepdim=True).clamp(min=1)
        for layer in range(2)
    }
    with torch.no_grad():
        intact = model.one_strand(tokens)[:, 1].double()
        with taps.edit(model, uniform):
            flat = model.one_strand(tokens)[:, 1].double()
    expected = float(1 - (flat - intact).square().sum() / (intact - intact.mean()).square().sum())
    for ranking in RANKINGS:
        assert by[(ranking, 0.0)] == pytest.approx(expected, abs=1e-4)
        assert by[(ranking, 1.0)] == pytest.approx(1, abs=1e-5)
    assert not any(tap.active for tap in taps.find_taps(model).values())


def test_a_sharp_model_needs_one_edge_for_each_query():
    """Where each query reads one key, a share of one over their number is enough, and random edges are not."""
    model, codes = made("bases, cls"), np.random.default_rng(1).integers(0, 4, (40, 24)).astype(np.uint8)
    with torch.no_grad():
        for block in model.encoder.layer:
            block.attn.project_in.weight[:24] *= 10  # queries and keys
    table = edge_sufficiency(model, codes, kept=(0.0, 2 / 25, 1.0)).set_index(["ranking", "kept"])
    few = table.xs(2 / 25, level="kept")
    assert few.loc["gradient", "explained"] > 0.95 and few.loc["random", "explained"] < 0
    assert few.loc["gradient", "area_ci_low"] > 0 and few.loc["random", "area"] == 0
    assert (few["ci_low"] <= few["explained"]).all() and (few["explained"] <= few["ci_high"]).all()


def test_what_cannot_be_measured_is_said(monkeypatch: pytest.MonkeyPatch):
    """No variance, sequences too long, none at all, shares that are none."""
    model, codes = made("bases, cls"), some_codes()
    same = edge_sufficiency(model, np.repeat(codes[1:2], 3, axis=0))
    assert same["explained"].isna().all() and same["note"].str.contains("all readouts are the same").all()
    with pytest.raises(DataError, match="no sequence"):
        edge_sufficiency(model, codes[:0])
    with pytest.raises(DataError, match=r"increasing order, got \[0.5, 0.1\]"):
        edge_sufficiency(model, codes, kept=(0.5, 0.1))
    monkeypatch.setattr(module, "_MOST_EDGES", 5399)
    long = edge_sufficiency(model, codes)
    assert long["explained"].isna().all() and long["note"].str.startswith("left out: 5400 edges").all()
    recurrent = build_model(ModelConfig(encoder="gru", d_model=12, n_layers=1), n_readouts=1, seed=0)
    with pytest.raises(DataError, match="no attention"):
        edge_sufficiency(recurrent, codes)
