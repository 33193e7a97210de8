"""The pair trunk: its parts against loops, and what must not change its answers."""

import pytest
import torch
from torch import Tensor
from toy_attention import woken

from bioattn.errors import ConfigError, DataError
from bioattn.nn import taps
from bioattn.nn.pair.distogram import Distogram, contact_probability, expected_distance
from bioattn.nn.pair.inputs import OuterProductMean, RelativePositions, SingleToPair
from bioattn.nn.pair.trunk import PARTS, PairTrunk

B, S, N, D, P = 2, 5, 7, 12, 11


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trunk(**more) -> PairTrunk:
    options = {"n_heads": 3, "n_pair_heads": 2, "d_pair_head": 3, "d_hidden": 5} | more
    made = woken(PairTrunk(D, P, 2, **options))
    assert isinstance(made, PairTrunk)
    return made.eval()


def test_outer_product_mean_is_a_mean_over_known_sequences():
    """By loops: weighted outer products of the sequences that hold both residues, over the weight of these."""
    module = woken(OuterProductMean(D, 3, P))
    rows, weight = draw(B, S, N, D), draw(B, S, seed=1).abs()
    keep = torch.rand(B, S, N, generator=torch.Generator().manual_seed(2)) < 0.7
    keep[0, :, 3] = False
    got = module(rows, keep=keep, weight=weight)
    x = module.norm(rows)
    left, right = module.left(x), module.right(x)
    for b, i, j in ((0, 1, 4), (1, 2, 2), (1, 6, 0)):
        both = [s for s in range(S) if keep[b, s, i] and keep[b, s, j]]
        total = sum(weight[b, s] * torch.outer(left[b, s, i], right[b, s, j]) for s in both)
        expected = module.project_out((total / sum(weight[b, s] for s in both)).flatten())
        torch.testing.assert_close(got[b, i, j], expected)
    torch.testing.assert_close(got[0, 3, 1], module.project_out.bias)


def test_pairs_know_their_residues_and_their_distance():
    """Pairs from singles depend on the two residues alone; relative positions are clipped and signed."""
    module, single = woken(SingleToPair(D, P)), draw(B, N, D)
    changed = single.clone()
    changed[:, 3] += draw(B, D, seed=4)
    moved = (module(changed) - module(single)).abs().sum(-1) > 1e-9
    assert moved[:, 3].all() and moved[:, :, 3].all() and moved.sum() == B * (2 * N - 1)
    positions = RelativePositions(P, furthest=4)
    pair = positions(torch.tensor([[0, 1, 2, 30, 31]]))
    torch.testing.assert_close(pair[0, 0, 3], positions.table.weight[8])
    torch.testing.assert_close(pair[0, 3, 0], positions.table.weight[0])
    torch.testing.assert_close(pair[0, 1, 2], pair[0, 3, 4])


@pytest.mark.parametrize("backend", ["reference", "sdpa_exact"])
def test_padding_does_not_matter(backend: str):
    """Whatever padded residues hold and however many there are, real ones get the same."""
    model = trunk(backend=backend)
    single, pair = draw(B, N, D), draw(B, N, N, P, seed=1)
    expected = [x[:, :4] for x in model(single[:, :4], pair[:, :4, :4])]
    keep = torch.ones(B, N, dtype=torch.bool)
    keep[:, 4:] = False
    pair[:, 5], single[:, 6] = 1e6, -1e6
    got_single, got_pair = model(single, pair, keep=keep)
    torch.testing.assert_close(got_single[:, :4], expected[0])
    torch.testing.assert_close(got_pair[:, :4, :4], expected[1])
    assert (got_single[:, 4:] == 0).all() and (got_pair[:, 4:] == 0).all() and (got_pair[:, :, 4:] == 0).all()


def test_residues_have_no_order_but_what_the_input_says():
    """Permuted residues give permuted answers."""
    model, order = trunk(), torch.randperm(N, generator=torch.Generator().manual_seed(0))
    single, pair = draw(B, N, D), draw(B, N, N, P, seed=1)
    plain = model(single, pair)
    turned = model(single[:, order], pair[:, order][:, :, order])
    torch.testing.assert_close(turned[0], plain[0][:, order])
    torch.testing.assert_close(turned[1], plain[1][:, order][:, :, order])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointing_changes_neither_values_nor_gradients(dropout: float):
    """Kept or computed again, with the same dropout."""
    results = []
    for checkpointing in (False, True):
        model = trunk(checkpointing=checkpointing, dropout=dropout).train()
        single, pair = draw(B, N, D).requires_grad_(), draw(B, N, N, P, seed=1).requires_grad_()
        torch.manual_seed(5)
        out = model(single, pair)
        gradients = torch.autograd.grad(
            out[0].square().sum() + out[1].square().sum(), [single, pair, *model.block.parameters()]
        )
        results.append([*out, *gradients])
    for kept, again in zip(*results, strict=True):
        torch.testing.assert_close(again, kept)


def test_recycling_starts_from_the_output_and_learns_from_the_last_round():
    """Another round changes the answer, with the gradient of the last one; with gates of zero it changes nothing."""
    model = trunk()
    single, pair = draw(B, N, D), draw(B, N, N, P, seed=1)
    once = model(single, pair)
    again = model(single, pair, recycles=1)
    by_hand = model(
        single + model.gate_single * model.norm_single(once[0].detach()),
        pair + model.gate_pair * model.norm_pair(once[1].detach()),
    )
    torch.testing.assert_close(again, by_hand)
    assert (again[1] - once[1]).abs().max() > 1e-3
    weight = model.block[0].outgoing.edges.weight
    torch.testing.assert_close(
        torch.autograd.grad(again[1].sum(), weight), torch.autograd.grad(by_hand[1].sum(), weight)
    )
    with torch.no_grad():
        model.gate_single.zero_()
        model.gate_pair.zero_()
    torch.testing.assert_close(model(single, pair, recycles=3), model(single, pair))


@pytest.mark.parametrize("part", PARTS)
def test_parts_can_be_left_out(part: str):
    """Without a part its parameters are gone, and the answer is that of a block in which it adds nothing."""
    whole, less = trunk(), trunk(without=[part])
    names = dict(whole.named_parameters())
    with torch.no_grad():
        for name, parameter in less.named_parameters():
            parameter.copy_(names[name])
    single, pair = draw(B, N, D), draw(B, N, N, P, seed=1)
    module = {"single": "attn"}.get(part, part)
    edits = {f"block.{i}.{module}.output": taps.zero() for i in range(2)}
    with taps.edit(whole, edits):
        torch.testing.assert_close(less(single, pair), whole(single, pair))
    assert len(names) > len(dict(less.named_parameters()))


def test_pairs_apart_with_all_third_residues_are_those_of_the_trunk():
    """In copies that lack nothing; a copy that lacks a residue differs, and copies do not touch each other."""
    model = trunk(without=["single"])
    single, pair = draw(1, N, D), draw(1, N, N, P, seed=1)
    rows, columns = torch.tensor([0, 3, 6]), torch.tensor([5, 1, 6])
    third = torch.ones(3, N, dtype=torch.bool)
    third[1, 2] = False
    for recycles in (0, 2):
        whole = model(single, pair, recycles=recycles)[1][0, rows, columns]
        own = model.apart(pair[0], rows, columns, third, recycles=recycles)
        torch.testing.assert_close(own[0], whole)
        torch.testing.assert_close(own[2], whole)
        assert (own[1] - whole).abs().amax(-1).min() > 1e-3
        torch.testing.assert_close(
            model.apart(pair[0], rows[1:], columns[1:], third[1:], recycles=recycles), own[1:, 1:]
        )


def test_what_does_not_fit_is_named():
    """Shapes and parts."""
    model = trunk()
    with pytest.raises(DataError, match=r"pairs of 7 residues must have shape \(batch, 7, 7, channels\)"):
        model(draw(B, N, D), draw(B, N, 3, P))
    with pytest.raises(DataError, match="keep must be boolean"):
        model(draw(B, N, D), draw(B, N, N, P), keep=torch.ones(B, N))
    with pytest.raises(ConfigError, match="no such part of a pair block: triangles"):
        trunk(without=["triangles"])


def test_distograms_are_symmetric_and_their_bins_hold_the_distances():
    """Logits of (i, j) and (j, i) agree; probabilities of contact add up the bins below 8; the mean lies in between."""
    edges = torch.tensor([4.0, 6.0, 8.0, 12.0])
    module = woken(Distogram(P, edges))
    logits = module(draw(B, N, N, P))
    torch.testing.assert_close(logits, logits.transpose(1, 2))
    assert logits.shape == (B, N, N, 5) and module.centres_angstrom.tolist() == [3, 5, 7, 10, 14]
    assert module.bins(torch.tensor([1.0, 4.5, 8.0, 11.0, 99.0])).tolist() == [0, 1, 3, 3, 4]
    p = logits.softmax(-1)
    torch.testing.assert_close(contact_probability(logits, module.edges_angstrom.float()), p[..., :3].sum(-1))
    mean = expected_distance(logits, module.centres_angstrom)
    torch.testing.assert_close(mean[0, 1, 2], (p[0, 1, 2] * module.centres_angstrom).sum())
    with pytest.raises(ConfigError, match="no border between distance bins at 9 angstrom"):
        contact_probability(logits, edges, below_angstrom=9)
    with pytest.raises(ConfigError, match="must rise"):
        Distogram(P, torch.tensor([4.0, 4.0]))
