"""The pair track of the DNA model: its bias is what it says, nothing of the rest changes, and it can be looked into."""

import numpy as np
import pandas as pd
import pytest
import torch
from toy_attention import woken
from toy_heads import random_codes

from bioattn.causal.edge_knockout import tail_with_cut, without_pairs
from bioattn.config import ModelConfig, PairTrackConfig, StemConfig
from bioattn.errors import ConfigError, DataError
from bioattn.explain.coattention import pair_states
from bioattn.models import build_model
from bioattn.nn import taps
from bioattn.nn.encoder import Encoder
from bioattn.nn.masks import Window
from bioattn.nn.observe import attention_blocks, attention_rows, attention_sums
from bioattn.nn.pair.encoder import MOST_BINS, PairEncoder

B, L, D, H = 3, 23, 12, 3
SIZES = {"d_pair": 5, "n_pair_heads": 2, "d_pair_head": 3, "d_hidden": 7}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def encoder(**more) -> PairEncoder:
    options = SIZES | {"positions": "rope", "bin_tokens": 1} | more
    made = woken(PairEncoder(D, 2, H, 17, **options))
    assert isinstance(made, PairEncoder)
    return made.eval()


def model(**more):
    pair = PairTrackConfig(bin_tokens=more.pop("bin_tokens", 1), d_pair=5, d_hidden=7, d_pair_head=3)
    config = ModelConfig(
        trunk="pair", pair=pair, d_model=D, n_layers=2, n_heads=H, d_feedforward=17, dropout=0.0,
        **({"stem": StemConfig(kind="conv", n_filters=5, width=5, pool=4)} | more),
    )  # fmt: skip
    return woken(build_model(config, n_readouts=2, seed=1)).eval()


@pytest.mark.parametrize("bin_tokens", [1, 3])
@pytest.mark.parametrize("positions", ["rope", "relative", "alibi"])
def test_scores_are_those_without_the_track_plus_its_bias(positions: str, bin_tokens: int):
    """Layer by layer, entry by entry, from the tapped bias and the block's own projections."""
    made, x = encoder(positions=positions, bin_tokens=bin_tokens), draw(B, L, D)
    names = ["embed", "layer.0.resid", *(f"layer.{i}.attn.scores" for i in (0, 1)), "pair.0.bias", "pair.1.bias"]
    with taps.record(made, names) as store:
        made(x)
    for i, stream in enumerate(("embed", "layer.0.resid")):
        block = made.layer[i]
        with taps.record(block, ["attn.scores"]) as plain:
            block(store[stream])
        bins = torch.arange(L) // bin_tokens
        bias = store[f"pair.{i}.bias"][:, :, bins][..., bins]
        torch.testing.assert_close(store[f"layer.{i}.attn.scores"], plain["attn.scores"] + bias)
        assert bias.abs().max() > 0.1


@pytest.mark.parametrize("bin_tokens", [1, 3])
def test_padding_and_batch_mates_change_nothing(bin_tokens: int):
    """Whatever stands behind the real tokens, and however long it is."""
    made, x = encoder(bin_tokens=bin_tokens), draw(B, L, D)
    keep = torch.ones(B, L, dtype=torch.bool)
    keep[1, 13:] = False
    filled = x.clone()
    filled[1, 13:] = float("nan")
    out = made(filled, keep=keep)
    torch.testing.assert_close(out[1, :13], made(x[1:2, :13])[0])
    torch.testing.assert_close(out[0], made(x[:1])[0])
    assert (out[1, 13:] == 0).all()


def test_kernels_and_ways_of_looking_agree():
    """Fused attention against written-out scores; rows, blocks and sums on demand against the tapped pattern."""
    made = model().double()
    codes = torch.from_numpy(random_codes(4, 92, 0).astype(int))
    readouts = made(codes)
    with taps.record(made, ["layer.1.attn.pattern"]) as store:
        torch.testing.assert_close(made(codes), readouts)
    pattern = store["layer.1.attn.pattern"]
    index = torch.tensor([0, 5, 22])
    torch.testing.assert_close(attention_rows(made, codes, 1, None, index), pattern[:, :, index].float())
    blocks = attention_blocks(made, codes, 1, None, index, index)
    torch.testing.assert_close(blocks, pattern[:, :, index][..., index].float())
    torch.testing.assert_close(attention_sums(made, codes).received[:, 1], pattern.sum(2).float())
    local = encoder(backend="local", mask=Window(4), positions="rope")
    dense = encoder(backend="reference", mask=Window(4), positions="rope")
    dense.load_state_dict(local.state_dict())
    torch.testing.assert_close(local(draw(B, L, D)), dense(draw(B, L, D)))


def test_checkpointing_changes_no_gradient():
    """Same output and gradients, with dropout too."""
    plain = encoder(dropout=0.3).train()
    kept = encoder(dropout=0.3, checkpointing=True).train()
    kept.load_state_dict(plain.state_dict())
    found = []
    for made in (plain, kept):
        torch.manual_seed(3)
        out = made(draw(B, L, D))
        out.square().sum().backward()
        found.append([out.detach(), *(p.grad for p in made.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_run_goes_on_from_any_layer():
    """With the stream after the first block and its pairs, the rest gives what the whole gives; as without pairs."""
    made, x = encoder(), draw(B, L, D)
    with taps.record(made, ["layer.0.resid", "pair.0.state"]) as store:
        whole = made(x)
    torch.testing.assert_close(made.after(0, store["layer.0.resid"], pair=store["pair.0.state"]), whole)
    plain = woken(Encoder(D, 2, H, 17)).eval()
    with taps.record(plain, ["layer.0.resid"]) as store:
        whole = plain(x)
    torch.testing.assert_close(plain.after(0, store["layer.0.resid"]), whole)


@pytest.mark.parametrize("bin_tokens", [1, 3])
def test_states_between_sites_are_the_largest_between_their_bins(bin_tokens: int):
    """By a loop over bins; padding shorter sequences with the batch changes nothing."""
    made = model(bin_tokens=bin_tokens).double()
    codes = random_codes(5, 96, 1)
    hits = pd.DataFrame({"sequence": [0, 0, 2, 2], "start": [4, 50, 8, 71], "end": [13, 61, 17, 90]})
    instances = pd.DataFrame({"hit_a": [0, 2], "hit_b": [1, 3], "sequence": [0, 2]})
    found = pair_states(made, codes, hits, instances)
    with taps.record(made, ["pair.0.state", "pair.1.state"]) as store:
        made.one_strand(torch.from_numpy(codes.astype(int)))
    assert found.shape == (2, 2, 2)
    for row, (a, b, n) in enumerate(instances.to_numpy()):
        span = made.token_bp * bin_tokens
        first, second = (range(hits["start"][h] // span, (hits["end"][h] - 1) // span + 1) for h in (a, b))
        for layer in (0, 1):
            size = store[f"pair.{layer}.state"][n].norm(dim=-1)
            assert found[row, layer, 0] == pytest.approx(max(size[i, j] for i in first for j in second).item(), 1e-5)
            assert found[row, layer, 1] == pytest.approx(max(size[j, i] for i in first for j in second).item(), 1e-5)


@pytest.mark.parametrize("bin_tokens", [1, 3])
def test_pairs_can_be_cut_out_and_attention_stays(bin_tokens: int):
    """Zeros where an edge touches a bin, in that layer alone; what is left out is exactly what a tap of zeros does."""
    made = model(bin_tokens=bin_tokens).double()
    codes = torch.from_numpy(random_codes(2, 96, 2).astype(int))
    hidden, keep = made.embed(codes)
    edges = torch.zeros(2, 24, 24, dtype=torch.bool)
    edges[:, 4, 19] = edges[:, 19, 4] = True
    with without_pairs(made, edges, 1), taps.record(made, ["pair.1.state", "pair.0.state"]) as store:
        made.tail(hidden, keep)
    gone = store["pair.1.state"].abs().sum(-1) == 0
    i, j = 4 // bin_tokens, 19 // bin_tokens
    assert gone[:, i, j].all() and gone[:, j, i].all() and gone.sum() == 4
    assert not (store["pair.0.state"].abs().sum(-1) == 0).any()
    cut = tail_with_cut(made, hidden, keep, edges, pair_layer=1)
    assert not torch.equal(cut, made.tail(hidden, keep))
    with taps.edit(made, {"pair.1.state": taps.zero(np.s_[:, [i, j], [j, i]])}):
        torch.testing.assert_close(cut, made.tail(hidden, keep))


def test_what_cannot_be_is_named():
    """Too many bins, settings that exclude each other, a model without pairs."""
    with pytest.raises(
        DataError, match=r"300 tokens make 300 bins of .*, at most 128 are allowed: .*bin_tokens to at least 3"
    ):
        encoder()(draw(1, 300, D))
    assert encoder(bin_tokens=3)(draw(1, 300, D)).shape == (1, 300, D) and MOST_BINS == 128
    with pytest.raises(ConfigError, match="bin_tokens must be at least 1"):
        encoder(bin_tokens=0)
    with pytest.raises(ValueError, match="biases attention, which model.encoder 'gru' has not"):
        ModelConfig(trunk="pair", encoder="gru")
    with pytest.raises(ValueError, match="pooling must not be 'cls'"):
        ModelConfig(trunk="pair", pooling="cls")
    with pytest.raises(ValueError, match="sites meet in the pair track too"):
        ModelConfig(trunk="pair", interaction_bottleneck=True, n_layers=1, pooling="sum")
    plain = build_model(ModelConfig(d_model=8, n_heads=2), n_readouts=1)
    with (
        pytest.raises(DataError, match="no pair track"),
        without_pairs(plain, torch.ones(1, 3, 3, dtype=torch.bool), 0),
    ):
        pass
