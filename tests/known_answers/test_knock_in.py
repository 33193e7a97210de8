"""Knock-ins: assembled tokens are those of whole sequences, and models with a built-in answer give it."""

import numpy as np
import pandas as pd
import pytest
import torch
from toy_attention import without_attention
from toy_heads import random_codes

from bioattn.causal.decoys import decoy_orders
from bioattn.causal.insertions import Insertions, Placed, Slots
from bioattn.causal.marginalize import KnockIn, backgrounds_of, between, clear_bp, isolating
from bioattn.causal.sites import drawn_sites
from bioattn.causal.token_edits import assembled, edited_tokens
from bioattn.config import ModelConfig, PairTrackConfig, StemConfig, TokenizerConfig
from bioattn.data import alphabet
from bioattn.data.motif import best_correlation
from bioattn.errors import DataError
from bioattn.explain.hits import HIT_COLUMNS, find_hits
from bioattn.io.motifs import jaspar_motif
from bioattn.models import build_model
from bioattn.nn import taps

MOTIFS = [jaspar_motif("MA0060.4"), jaspar_motif("MA0090.4"), jaspar_motif("MA0093.4")]


NO_HITS = pd.DataFrame(columns=list(HIT_COLUMNS))


def build(stem: StemConfig | None = None, tokenizer: TokenizerConfig | None = None, n_layers: int = 1, **more):
    config = ModelConfig(
        stem=stem or StemConfig(kind="pwm", n_filters=3, width=5, pool=7),
        tokenizer=tokenizer or TokenizerConfig(),
        d_model=12, n_layers=n_layers, n_heads=3, d_feedforward=16, dropout=0.0,
        **({"positions": "relative", "pooling": "sum"} | more),
    )  # fmt: skip
    return build_model(config, n_readouts=2, motifs=MOTIFS, seed=5).double().eval()


NO_STEM = StemConfig(kind="none", pool=1)
MODELS = {
    "pwm": build(),
    "both strands": build(reverse_complement="average"),
    "strands apart": build(StemConfig(kind="pwm", n_filters=3, width=5, pool=7, motif_strands="separate")),
    "conv": build(StemConfig(kind="conv", n_filters=4, width=9, pool=4, activation="gelu"), pooling="cls"),
    "wide": build(StemConfig(kind="conv", n_filters=4, width=25, pool=3, activation="exp")),
    "bases": build(NO_STEM),
    "pairs": build(
        trunk="pair",
        n_layers=2,
        pair=PairTrackConfig(bin_tokens=2, d_pair=5, d_hidden=3, d_pair_head=3),
        pooling="mean",
    ),
    "words": build(NO_STEM, TokenizerConfig(kind="kmer", k=4, stride=4), pooling="mean"),
    "words, both strands": build(
        NO_STEM, TokenizerConfig(kind="kmer", k=4, stride=4), n_layers=2, reverse_complement="average"
    ),
}


def padded(n: int, length: int, seed: int) -> np.ndarray:
    """Random codes of which every second sequence is shorter."""
    codes = random_codes(n, length, seed)
    for i, row in enumerate(codes[1::2]):
        row[length - 1 - 3 * i :] = alphabet.PAD
    return codes


# ------------------------------------------------------------------------- tokens


@pytest.mark.parametrize("name", MODELS)
def test_tokens_of_an_edit_are_those_of_the_whole_sequence(name: str):
    """A window gives the very tokens that the whole edited sequence has, at both ends and next to padding."""
    model = MODELS[name]
    codes = torch.from_numpy(padded(12, 67, 0).astype(int))
    length = (codes != alphabet.PAD).sum(1)
    draw = np.random.default_rng(1)
    width = 9
    start = torch.from_numpy(draw.integers(0, 67 - width, 12)).minimum(length - width)
    start[0], start[1], start[2] = 0, length[1] - width, length[2] - width
    edited = codes.clone()
    for row, at in zip(edited, start.tolist(), strict=True):
        row[at : at + width] = (row[at : at + width] + 1) % 4
    whole, before = (model.embed(each)[0] for each in (edited, codes))
    patch = edited_tokens(model, edited, start, start + width)
    torch.testing.assert_close(assembled(before, patch), whole, rtol=1e-12, atol=1e-12)
    assert patch.hidden.shape[1] < whole.shape[1]
    wider = edited_tokens(model, edited, start, start + width, width=patch.hidden.shape[1] + 2)
    assert wider.hidden.shape[1] == patch.hidden.shape[1] + 2
    torch.testing.assert_close(assembled(before, wider), whole, rtol=1e-12, atol=1e-12)


# --------------------------------------------------------------------- insertions


def inserted(model, codes: np.ndarray) -> tuple[Insertions, list[np.ndarray]]:
    draw = np.random.default_rng(3)
    n = len(codes)
    centre = np.stack([draw.integers(8, 20, n), draw.integers(56, 66, n), np.full(n, 92)], 1)
    slots = Slots(centre, draw.random((n, 3)) < 0.5)
    sites = some_sites(n)
    return Insertions(model, codes, sites, slots, readout=1), sites


def some_sites(n: int) -> list[np.ndarray]:
    """Sites of each motif, drawn from its matrix: there are no hits."""
    return drawn_sites(np.zeros((1, 30), np.uint8), NO_HITS, MOTIFS, n=n, hit_p_value=1e-3, seed=4)


def by_hand(model, slots: Slots, sites: list[np.ndarray], codes: np.ndarray, placed: list[Placed]) -> np.ndarray:
    """Readouts of sequences with the sites written into their letters."""
    codes = codes.copy()
    for each in placed:
        for i, (m, s) in enumerate(zip(each.motif, each.slot, strict=True)):
            site = sites[m][i]
            site = 3 - site[::-1] if slots.reverse[i, s] else site
            start = slots.centre[i, s] - len(site) // 2
            codes[i, start : start + len(site)] = site
    with torch.inference_mode():
        return model(torch.from_numpy(codes.astype(int)))[:, 1].numpy()


@pytest.mark.parametrize("name", MODELS)
def test_assembled_readouts_are_those_of_the_sequences(name: str):
    """Without, with one and with two motifs: as if the letters had been written and the model run on them."""
    model = MODELS[name]
    codes = random_codes(10, 103, 2)
    codes[1::2, 100:] = alphabet.PAD
    made, sites = inserted(model, codes)
    row = np.arange(10)
    a, b = Placed(row % 3, np.zeros(10, int)), Placed((row + 1) % 3, 1 + row % 2)
    np.testing.assert_allclose(made.plain, by_hand(model, made.slots, sites, codes, []), rtol=1e-9)
    np.testing.assert_allclose(
        made.single[a.motif, row, a.slot], by_hand(model, made.slots, sites, codes, [a]), rtol=1e-9
    )
    np.testing.assert_allclose(
        made.single[b.motif, row, b.slot], by_hand(model, made.slots, sites, codes, [b]), rtol=1e-9
    )
    both = made.both(row, a, b)
    np.testing.assert_allclose(both, by_hand(model, made.slots, sites, codes, [a, b]), rtol=1e-9)
    back = row[::-1]
    np.testing.assert_allclose(
        made.both(back, Placed(*(x[back] for x in a)), Placed(*(x[back] for x in b))), both[back]
    )


def test_sites_are_those_that_sequences_hold():
    """Letters of hits on the motif's strand; of a rare motif sites are drawn from its matrix."""
    codes = random_codes(300, 90, 0)
    for i, row in enumerate(codes):
        site = alphabet.encode(MOTIFS[0].consensus)
        row[20 : 20 + len(site)] = site if i % 2 else 3 - site[::-1]
    hits = find_hits(codes, MOTIFS, p_value=1e-6)
    first, _, third = drawn_sites(codes, hits, MOTIFS, n=50, hit_p_value=1e-3, seed=0)
    assert (first == alphabet.encode(MOTIFS[0].consensus)).mean() > 0.95
    score = np.log2(np.maximum(MOTIFS[2].ppm, 1e-4) / 0.25)[third, np.arange(MOTIFS[2].width)].sum(1)
    assert (hits["motif"] == 2).sum() < 10 and (score >= 6).all() and len(np.unique(third, axis=0)) > 3
    alone = drawn_sites(codes, hits[hits["motif"] == 0], MOTIFS[:1], n=50, hit_p_value=1e-3, seed=0)
    assert (alone[0] == first).all()
    codes[:, 22] = alphabet.UNKNOWN
    assert (drawn_sites(codes, hits, MOTIFS, n=50, hit_p_value=1e-3, seed=0)[0] < 4).all()


# -------------------------------------------------------------------------- edges


def tokens(*ends: int) -> list[torch.Tensor]:
    return [torch.tensor([end]) for end in ends]


def test_edges_between_and_around_places():
    """Places of tokens 1-2 and 5: edges between them, and all by which others read them."""
    edge = between(*tokens(1, 2, 5, 5), 7)[0]
    expected = torch.zeros(7, 7, dtype=torch.bool)
    expected[1:3, 5] = expected[5, 1:3] = True
    assert torch.equal(edge, expected)
    alone = isolating(*tokens(1, 2, 5, 5), 7)[0]
    for query in range(7):
        for key in range(7):
            outside = (key in (1, 2) and query not in (1, 2)) or (key == 5 and query != 5)
            assert alone[query, key] == outside


# ----------------------------------------------------------------------- knock-in


def knocked_in(model, pairs=((0, 1), (0, 2)), n: int = 16, length: int = 160, **more):
    codes = random_codes(20, length, 7)
    backgrounds = backgrounds_of(codes, n=n, widest=max(m.width for m in MOTIFS), model=model, seed=1)
    made = KnockIn(model, backgrounds, MOTIFS, some_sites(n), readout=0, seed=1)
    return made, made.pairs(list(pairs), edges=True, **more)


def epistasis(table, ending: str = ""):
    return table[f"y11{ending}"] - table[f"y10{ending}"] - table[f"y01{ending}"] + table[f"y00{ending}"]


@pytest.mark.parametrize("strands", ["none", "average"])
def test_tokens_that_never_meet_do_not_interact(strands: str):
    """Without attention and with an additive readout the double difference is zero, while motifs act."""
    _, table = knocked_in(without_attention(build(reverse_complement=strands)))
    assert (table["y10"] - table["y00"]).abs().mean() > 1e-4
    for ending in ("", "_cut", "_isolated"):
        assert epistasis(table, ending).abs().max() < 1e-9
    assert (table["y1c"] - table["y10"] - table["y0c"] + table["y00"]).abs().max() < 1e-9
    assert (table["y11_patched"] - table["y11"]).abs().max() < 1e-9


def test_isolated_places_do_not_interact_in_one_layer_with_an_additive_readout():
    """What the shares rest on: cut from all others, nothing is left but the readout, which adds; else something is."""
    _, table = knocked_in(build())
    assert epistasis(table).abs().mean() > 1e-4 and epistasis(table, "_cut").abs().mean() > 1e-5
    assert epistasis(table, "_isolated").abs().max() < 1e-9
    _, table = knocked_in(build(pooling="attention"))
    assert epistasis(table, "_isolated").abs().mean() > 1e-6


def test_cut_cells_are_those_of_sequences_with_cut_edges():
    """The cells of one pair, again through the model's own forward, with the edges of the tokens that changed."""
    from bioattn.causal.edge_knockout import cut_edges

    model = build(n_layers=2)
    made, table = knocked_in(model, pairs=[(0, 1)])
    row = np.arange(16)
    slot = np.where(made.backgrounds.a_left, 0, 1)
    a, b = Placed(np.zeros(16, int), slot), Placed(np.ones(16, int), 1 - slot)
    reach, bp = model.receptive_field_bp // 2, model.token_bp
    for ending, edges_of in (("_cut", between), ("_isolated", isolating)):
        ends = []
        for m, place in ((0, slot), (1, 1 - slot)):
            start = made.backgrounds.slots.centre[row, place] - MOTIFS[m].width // 2
            ends += [(start - reach).clip(0) // bp, (start + MOTIFS[m].width - 1 + reach).clip(max=159) // bp]
        edges = edges_of(*(torch.from_numpy(end) for end in ends), -(-160 // bp))
        for name, placed in (("y11", [a, b]), ("y10", [a]), ("y01", [b]), ("y00", [])):
            with cut_edges(model, edges):
                found = by_hand_knock_in(model, made, placed)
            np.testing.assert_allclose(table[name + ending], found, rtol=1e-9)


def by_hand_knock_in(model, made: KnockIn, placed: list[Placed]) -> np.ndarray:
    codes = made.backgrounds.codes.copy()
    for each in placed:
        for i, (m, s) in enumerate(zip(each.motif, each.slot, strict=True)):
            site = some_sites(16)[m][i]
            site = 3 - site[::-1] if made.backgrounds.slots.reverse[i, s] else site
            start = made.backgrounds.slots.centre[i, s] - len(site) // 2
            codes[i, start : start + len(site)] = site
    with torch.inference_mode():
        return model(torch.from_numpy(codes.astype(int)))[:, 0].numpy()


def test_patched_messages_are_those_of_the_runs_without_the_other_motif():
    """By hand in one layer: the pattern of both, with values from the runs without the one where the other reads it."""
    model = build()
    made, table = knocked_in(model, pairs=[(0, 1)])
    row = np.arange(16)
    slot = np.where(made.backgrounds.a_left, 0, 1)
    a, b = Placed(np.zeros(16, int), slot), Placed(np.ones(16, int), 1 - slot)
    names = ["layer.0.attn.pattern", "layer.0.attn.value", "layer.0.attn.head_output"]
    seen = []
    for placed in ([a, b], [a], [b]):
        with taps.record(model, names) as store:
            by_hand_knock_in(model, made, placed)
        seen.append(dict(store))
    pattern, value, output = (seen[0][name] for name in names)
    changed = output.clone()
    spans = [np.stack(made.inserted.spans(row, each), 1) for each in (a, b)]
    for i in row:
        in_a, in_b = (slice(first, last + 1) for first, last in (span[i] for span in spans))
        for reader, source, without in ((in_a, in_b, seen[1]), (in_b, in_a, seen[2])):
            message = without[names[1]][i, :, source] - value[i, :, source]
            changed[i, :, reader] += pattern[i, :, reader, source] @ message
    with taps.edit(model, {names[2]: taps.replace(changed)}):
        expected = by_hand_knock_in(model, made, [a, b])
    np.testing.assert_allclose(table["y11_patched"], expected, rtol=1e-9)
    assert (table["y11_patched"] - table["y11"]).abs().mean() > 1e-6
    assert (table["y11_patched"] - table["y11_cut"]).abs().mean() > 1e-6


def test_moved_edges_are_elsewhere_at_the_same_distance():
    """A shift keeps both places in the sequence and off their own tokens; cutting other edges does something else."""
    made, table = knocked_in(build(), n=40, length=260)
    assert table["y11_moved"].notna().mean() > 0.6
    assert (table["y11_moved"] - table["y11_cut"]).abs().mean() > 1e-7
    row = np.arange(40)
    a, b = Placed(np.zeros(40, int), np.zeros(40, int)), Placed(np.ones(40, int), np.ones(40, int))
    shift, room = made._shift(row, a, b)
    for first, last in (made.inserted.spans(row, a), made.inserted.spans(row, b)):
        assert (first + shift >= 0)[room].all() and (last + shift < 38)[room].all()
        assert (np.abs(shift) > last - first)[room].all()
    assert len(np.unique(shift)) > 5


def test_a_pair_has_the_same_numbers_alone_and_among_others():
    """Backgrounds, places, sites and decoys do not depend on which pairs are asked for."""
    model = build()
    _, among = knocked_in(model, pairs=[(0, 1), (1, 2), (0, 4)])
    _, alone = knocked_in(model, pairs=[(1, 2)])
    chosen = among[(among["motif_a"] == 1) & (among["motif_b"] == 2)].reset_index(drop=True)
    np.testing.assert_allclose(chosen.to_numpy(float), alone.to_numpy(float), rtol=1e-12)
    assert among.loc[among["motif_b"] == 4, "y1c"].isna().all() and alone["y1c"].notna().all()


# -------------------------------------------------------------------- backgrounds


def test_places_fit_and_take_turns():
    """Two motifs of the greatest width fit and share no token; orders and strands are balanced; distances vary."""
    model, codes = build(), padded(30, 150, 5)
    found = backgrounds_of(codes, n=80, widest=20, model=model, seed=3)
    left, right = found.slots.centre.T
    length = (found.codes != alphabet.PAD).sum(1)
    assert (left - 10 >= 0).all() and (right - 10 + 20 <= length).all()
    assert ((right - left) - 20 >= clear_bp(model)).all() and len(np.unique(right - left)) > 20
    turns = found.slots.reverse @ [1, 2] + 4 * found.a_left
    assert np.bincount(turns).tolist() == [10] * 8
    # Shuffles keep their composition.
    source = {tuple(np.bincount(row, minlength=6)) for row in codes}
    assert {tuple(np.bincount(row, minlength=6)) for row in found.codes} <= source
    plain = backgrounds_of(codes, n=80, widest=20, model=model, seed=3, shuffle=False)
    assert {row.tobytes() for row in plain.codes} <= {row.tobytes() for row in codes}


def test_too_short_sequences_are_refused():
    """The message says how long they are, and how long they must be."""
    with pytest.raises(DataError, match=r"longest of 4 has 40 bp, and 49 are needed"):
        backgrounds_of(random_codes(4, 40, 0), n=8, widest=16, model=build(), seed=0)


def test_decoys_have_the_columns_of_their_motif_and_resemble_none():
    """Orders are permutations; the matrix in that order is like no motif of the library; the seed draws them."""
    orders = decoy_orders(MOTIFS, seed=0)
    for motif, order in zip(MOTIFS, orders, strict=True):
        assert sorted(order) == list(range(motif.width))
        assert max(best_correlation(motif.ppm[:, order], other.ppm) for other in MOTIFS) < 0.75
    assert all((a == b).all() for a, b in zip(orders, decoy_orders(MOTIFS, seed=0), strict=True))
    assert any((a != b).any() for a, b in zip(orders, decoy_orders(MOTIFS, seed=1), strict=True))


def test_decoy_pairs_join_a_motif_with_the_decoy_of_another():
    """Six ordered pairs of three motifs, none with its own decoy."""
    made = KnockIn(
        build(),
        backgrounds_of(random_codes(4, 160, 0), n=4, widest=16, model=build(), seed=0),
        MOTIFS, some_sites(4), readout=0, seed=0,
    )  # fmt: skip
    assert sorted(made.decoy_pairs()) == [(0, 4), (0, 5), (1, 3), (1, 5), (2, 3), (2, 4)]


def test_edges_cut_in_one_head_are_cut_in_no_other():
    """Cut in the head whose output is all that counts, everything is as if cut in all heads; in another, as before."""
    model = build(n_layers=2)
    with torch.no_grad():
        for layer in model.encoder.layer:
            layer.attn.project_out.weight[:, 4:] = 0  # all but the first of three heads of width four
        model.encoder.layer[1].attn.project_out.weight.zero_()
    _, table = knocked_in(model)
    assert epistasis(table).abs().max() > 1e-6
    np.testing.assert_allclose(table["epistasis_cut_0.0"], epistasis(table, "_cut"), atol=1e-9)
    for head in ("0.1", "0.2", "1.0"):
        np.testing.assert_allclose(table[f"epistasis_cut_{head}"], epistasis(table), atol=1e-9)
    assert sum(name.startswith("epistasis_cut_") for name in table) == 6


def test_a_motif_is_put_beside_itself():
    """Both copies are the same site: exchanging the places changes nothing, and main effects are those of one copy."""
    model = build()
    made, table = knocked_in(model, pairs=((1, 1), (0, 1)))
    own = table[table["motif_a"] == 1]
    row = own["instance"].to_numpy()
    slot = np.where(made.backgrounds.a_left, 0, 1)[row]
    one = np.ones(len(row), dtype=int)
    swapped = made.inserted.both(row, Placed(one, 1 - slot), Placed(one, slot))
    np.testing.assert_allclose(own["y11"], swapped, rtol=1e-9)
    np.testing.assert_allclose(own["y10"], made.inserted.single[1, row, slot], rtol=1e-12)
