"""Looking into a trunk whose answers can be worked out by hand or in another way."""

import numpy as np
import pandas as pd
import pytest
import torch
from toy_protein import network, proteins

from bioattn.nn import taps
from bioattn.nn.pair.updates import TriangleMultiplication
from bioattn.protein import inside
from bioattn.protein.batches import collate
from bioattn.protein.coevolution import average_product_corrected
from bioattn.protein.evaluate import distances_of_logits, score_protein


def forward(made, protein):
    batch = collate([protein])
    with torch.no_grad():
        return made(batch.single, batch.residue_index, batch.keep)[0].numpy()


def test_cutting_a_third_residue_changes_its_own_pair_alone():
    """By hand, update by update, through a second round too: both orders of the pair lack the residue, no other."""
    made, protein = network(recycles=1), proteins(19)[0]
    pairs = np.array([[2, 11], [0, 18], [5, 12]])
    effects = inside.third_residue_effects(made, protein, pairs)
    assert effects.shape == (19, 3) and np.abs(effects).max() > 2e-3
    batch = collate([protein])
    log_odds = log_odds_of(forward(made, protein), made)
    with torch.no_grad():
        start = made.embedded(*batch.inputs)[1]
        for place, (i, j) in enumerate(pairs.tolist()):
            for k in (0, 7, 18, j):
                pair, own = start, start.clone()
                for round_ in range(2):
                    if round_:
                        pair, own = (start + made.trunk.gate_pair * made.trunk.norm_pair(x) for x in (pair, own))
                    for block in made.trunk.block:
                        for part in ("outgoing", "incoming", "starting", "ending"):
                            update = getattr(block, part)
                            added = torch.zeros_like(own)
                            for one, other in ((i, j), (j, i)):
                                added[0, one, other] = cut_by_hand(update, pair[0], own[0, one, other], one, other, k)
                            own, pair = own + added, pair + update(pair)
                        own, pair = own + block.transition(own), pair + block.transition(pair)
                mixed = pair.clone()
                for one, other in ((i, j), (j, i)):
                    mixed[0, one, other] = own[0, one, other]
                cut = log_odds_of(made.distogram(mixed)[0].numpy(), made)
                assert effects[k, place] == pytest.approx(log_odds[i, j] - cut[i, j], abs=2e-5)
    without = network(without=("outgoing", "incoming", "starting", "ending"))
    assert np.abs(inside.third_residue_effects(without, protein, pairs)).max() < 1e-5


def log_odds_of(logits, made):
    p = distances_of_logits(logits, made.distogram).contact
    return np.log(p) - np.log1p(-p)


def cut_by_hand(update, pair, own, i, j, k):
    """What an update adds to `own`, the pair (i, j), from the triangles of `pair` through all residues but k."""
    thirds = [x for x in range(len(pair)) if x != k]
    if isinstance(update, TriangleMultiplication):
        z = update.norm_in(pair)
        left, right = (update.edges(z) * torch.sigmoid(update.edge_gates(z))).chunk(2, dim=-1)
        outgoing = update.direction == "outgoing"
        product = sum(left[i, x] * right[j, x] if outgoing else left[x, i] * right[x, j] for x in thirds)
        return torch.sigmoid(update.gate(update.norm_in(own))) * update.project_out(update.norm_out(product))
    z, z_own = update.norm(pair), update.norm(own)
    starting = update.node == "starting"
    read = [z[i, x] if starting else z[x, j] for x in thirds]
    other = [z[j, x] if starting else z[x, i] for x in thirds]
    width = update.project_in.weight.shape[0] // (3 * update.n_heads)
    query = update.project_in(z_own).chunk(3)[0]
    values = []
    for head in range(update.n_heads):
        part = slice(head * width, (head + 1) * width)
        keys, held = (torch.stack([update.project_in(x).chunk(3)[n][part] for x in read]) for n in (1, 2))
        scores = keys @ query[part] / width**0.5 + torch.stack([update.bias(x)[head] for x in other])
        values.append(scores.softmax(0) @ held)
    return update.project_out(torch.sigmoid(update.gate(z_own)) * torch.cat(values))


def test_bridging_residues_are_compared_with_those_as_near_in_the_chain():
    """By a plain loop over contacts and residues; a planted effect of bridges is what comes out."""
    protein = proteins(41)[0]
    true = protein.distances_angstrom.astype(float)
    draw = np.random.default_rng(0)
    contact = draw.random((41, 41))
    pairs = sorted(((i, j) for i in range(41) for j in range(i + 6, 41)), key=lambda p: -contact[p])[:41]
    pairs = [p for p in pairs if true[p] < 8]
    chosen = inside.true_contacts_predicted(contact, true)
    assert [tuple(p) for p in chosen.tolist()] == pairs and len(pairs) > 2
    effects = draw.normal(size=(41, len(pairs)))
    found = inside.bridging_effect(effects, chosen, true)
    bridging, matched = [], []
    for place, (i, j) in enumerate(pairs):
        for k in range(41):
            nearest = min(abs(k - i), abs(k - j))
            if not (true[i, k] < 8 and true[k, j] < 8) or nearest < 3:
                continue
            like = [
                m for m in range(41)
                if min(abs(m - i), abs(m - j)) == nearest and not (true[i, m] < 8 and true[m, j] < 8)
            ]  # fmt: skip
            if like:
                bridging.append(effects[k, place])
                matched.append(np.mean([effects[m, place] for m in like]))
    assert found.n == len(bridging) > 5
    assert found.bridging == pytest.approx(np.mean(bridging)) and found.matched == pytest.approx(np.mean(matched))
    touch = true < 8
    planted = np.stack([touch[:, i] & touch[:, j] for i, j in pairs], 1).astype(float)
    told = inside.bridging_effect(planted, chosen, true)
    assert told.bridging == 1 and told.matched == 0
    nothing = inside.bridging_effect(effects, chosen, np.full((41, 41), 50.0))
    assert nothing.n == 0 and np.isnan(nothing.bridging)
    assert inside.true_contacts_predicted(contact, np.full((41, 41), np.nan)).shape == (0, 2)
    # Pairs of unknown distance take no place among the best.
    hidden = true.copy()
    hidden[tuple(np.array(pairs[:1]).T)] = np.nan
    kept = inside.true_contacts_predicted(contact, hidden)
    assert [tuple(p) for p in kept.tolist()][: len(pairs) - 1] == pairs[1:] and len(kept) in (
        len(pairs) - 1,
        len(pairs),
    )


def test_blocks_are_read_where_the_trunk_ends():
    """The last block's violations and precision are those of the network; there is a stage for each block."""
    made, some = network(), proteins(17, 23)
    table = inside.audit_blocks(made, some)
    assert list(dict.fromkeys(table["stage"])) == ["embedding", "block 0", "block 1"] and len(table) == 6
    for protein in some:
        scores = score_protein(forward(made, protein), protein, made.distogram)
        last = table[(table["name"] == protein.name) & (table["stage"] == "block 1")].iloc[0]
        assert last["violation_rate"] == pytest.approx(scores["violation_rate"])
        assert last["precision_all_L5"] == pytest.approx(scores["precision_all_L5"], nan_ok=True)


def test_every_head_and_update_is_taken_out_by_itself():
    """Two blocks of two multiplications, two times three triangle heads, two heads; one of them by a tap of our own."""
    made, protein = network(), proteins(19)[0]
    table = inside.audit_heads(made, [protein])
    assert len(table) == 2 * (2 + 2 * 3 + 2) and not table.duplicated(["block", "part", "head"]).any()
    row = table[(table["block"] == 1) & (table["part"] == "ending") & (table["head"] == 2)].iloc[0]
    edit = {"trunk.block.1.ending.head_output": lambda x: torch.cat([x[:, :, :2], 0 * x[:, :, 2:]], dim=2)}
    with taps.edit(made, edit):
        without = score_protein(forward(made, protein), protein, made.distogram)["log_loss"]
    whole = score_protein(forward(made, protein), protein, made.distogram)["log_loss"]
    assert row["rise_log_loss"] == pytest.approx(without - whole, abs=1e-6) and abs(row["rise_log_loss"]) > 1e-6


def test_maps_of_heads_are_their_patterns():
    """Symmetrised, corrected; a triangle head is the mean over columns of how much each row reads a third residue."""
    made, protein = network(), proteins(13)[0]
    names, maps = inside.head_features(made, protein)
    assert len(names) == len(maps) == 2 * (2 + 3 + 3) and maps.shape[1:] == (13, 13)
    taps_ = ["trunk.block.0.attn.pattern", "trunk.block.1.starting.pattern"]
    with taps.record(made, taps_) as store:
        forward(made, protein)
    single = average_product_corrected(store[taps_[0]][0, 1].double().numpy())
    np.testing.assert_allclose(maps[names.index((0, "single", 1))], single, atol=1e-6)
    triangle = store[taps_[1]][0].double().numpy()  # row, head, column, third
    by_hand = np.array([[triangle[i, 2, :, k].mean() for k in range(13)] for i in range(13)])
    np.testing.assert_allclose(maps[names.index((1, "starting", 2))], average_product_corrected(by_hand), atol=1e-6)


def test_the_probe_names_the_head_that_carries_contacts(monkeypatch: pytest.MonkeyPatch):
    """Of four made-up heads one holds contacts: it gets the weight, and the probe ranks contacts first."""
    some = proteins(31, 37, 29, 41)

    def features(_network, protein):
        draw = np.random.default_rng(len(protein.single))
        noise = draw.normal(size=(4, len(protein.single), len(protein.single)))
        noise[2] += 4.0 * (protein.distances_angstrom < 8)
        return [(0, "single", h) for h in range(4)], noise + noise.transpose(0, 2, 1)

    monkeypatch.setattr(inside, "head_features", features)
    probe = inside.probe_heads(network(), some[:2], some[2:])
    weights = probe.heads.set_index("head")["weight"]
    assert weights.abs().idxmax() == 2 and weights[2] > 5 * weights.drop(2).abs().max()
    assert (probe.precision["precision_all_L5"] > 0.95).all()


def test_knock_outs_have_a_row_for_each_protein():
    """Differences are bridging less matched; the callback counts proteins."""
    ticks: list[int] = []
    table = inside.knock_out_thirds(network(), proteins(31, 37), tick=ticks.append)
    assert isinstance(table, pd.DataFrame) and table["name"].tolist() == ["chain0", "chain1"] and ticks == [0, 1]
    known = table[table["n"] > 0]
    assert len(known) and np.allclose(known["difference"], known["bridging"] - known["matched"])
