"""Interventions on models whose answer is built in: additive models show no epistasis, cut edges carry nothing."""

import numpy as np
import pandas as pd
import pytest
import torch
from toy_attention import without_attention

from bioattn.causal.edge_knockout import cut_edges, edges_between, matched_shift, strand_interval
from bioattn.causal.epistasis import instance_effects
from bioattn.causal.motif_ablation import CELLS, choose_instances, knock_out
from bioattn.config import ModelConfig, StemConfig
from bioattn.data import alphabet
from bioattn.data.motif import log_odds
from bioattn.data.replacement import FLANK_BP
from bioattn.explain.hits import find_hits, pair_instances
from bioattn.io.motifs import jaspar_motif
from bioattn.models import build_model
from bioattn.nn import taps

MOTIFS = [jaspar_motif("MA0060.4"), jaspar_motif("MA0090.4"), jaspar_motif("MA0093.4")]
PWMS = [log_odds(m.ppm) for m in MOTIFS]


def build(positions: str = "relative", strands: str = "none", pooling: str = "sum"):
    config = ModelConfig(
        stem=StemConfig(kind="pwm", n_filters=3, width=5, pool=7),
        d_model=12, n_layers=2, n_heads=3, d_feedforward=16, dropout=0.0,
        positions=positions, reverse_complement=strands, pooling=pooling,
    )  # fmt: skip
    return build_model(config, n_readouts=2, motifs=MOTIFS, seed=5).double().eval()


def sequences(n: int = 60, seed: int = 0, lengths: tuple[int, ...] = (97, 83)) -> np.ndarray:
    """Random sequences with the consensus of all three motifs in slots of their own, some shorter than others."""
    draw = np.random.default_rng(seed)
    texts = []
    for i in range(n):
        row = draw.integers(0, 4, lengths[i % len(lengths)]).astype(np.uint8)
        for slot, m in enumerate(draw.permutation(3)):
            site = alphabet.encode(MOTIFS[m].consensus)
            start = 3 + slot * 27 + draw.integers(0, 4)
            row[start : start + len(site)] = site
        texts.append(alphabet.decode(row))
    return alphabet.encode_batch(texts)


def run(model, codes, **more):
    hits = find_hits(codes, MOTIFS, p_value=1e-4)
    margin = FLANK_BP + model.receptive_field_bp // 2
    instances = pair_instances(hits, margin_bp=margin, token_bp=model.token_bp)
    arguments = {"occupied": hits, "flank_bp": FLANK_BP, "draws": 2, "readout": 1, "seed": 0} | more
    return hits, instances, knock_out(model, codes, hits, instances, PWMS, **arguments)


@pytest.mark.parametrize("strands", ["none", "average"])
def test_without_attention_there_is_no_epistasis_and_no_edge(strands: str):
    """Tokens that never meet cannot interact: the double difference is zero to float precision, the sites still act."""
    # Long enough for a control locus beside all three sites.
    _, _, cells = run(without_attention(build(strands=strands)), sequences(lengths=(163, 149)))
    effects = instance_effects(cells)
    scale = effects[["main_a", "main_b"]].abs().mean().mean()
    assert scale > 1e-3
    for name in ("epistasis", "epistasis_cut", "control", "edge", "edge_moved"):
        assert effects[name].abs().max() < 1e-9 * max(scale, 1)


def test_with_attention_the_same_model_has_epistasis():
    """The zero above is not the zero of a broken measurement."""
    effects = instance_effects(run(build(), sequences())[2])
    assert effects["epistasis"].abs().mean() > 1e-4 and effects["edge"].abs().mean() > 1e-4


@pytest.mark.parametrize("strands", ["none", "average"])
def test_cells_are_what_their_names_say(strands: str):
    """Knock-outs recomputed by hand through the model's own forward: same sites, same replacements, same numbers."""
    model, codes = build(strands=strands), sequences(8)
    hits, instances, cells = run(model, codes, draws=1)
    with torch.inference_mode():
        intact = model(torch.from_numpy(codes.astype(int)))[:, 1].numpy()
    np.testing.assert_allclose(cells["y11"], intact[instances["sequence"]], rtol=1e-6)
    changed = cells.set_index("instance")
    assert (changed["y10"] != changed["y11"]).all() and (changed["y00"] != changed["y10"]).all()
    assert cells["clean"].all() and set(CELLS) <= set(cells)


def test_each_pair_gets_the_same_numbers_alone_and_among_others():
    """Nothing couples instances: a subset of sequences in one batch gives what all give."""
    model, codes = build(), sequences(20)
    hits, instances, together = run(model, codes, draws=1)
    cut_names = [c for c in together if c.startswith("y11")]
    alone = run(model, codes[:1], draws=1)[2]
    np.testing.assert_allclose(alone["y11"], together["y11"][: len(alone)], rtol=1e-9)
    np.testing.assert_allclose(alone["y11_cut"], together["y11_cut"][: len(alone)], rtol=1e-9)
    assert len(cut_names) == 3


def test_cut_edges_carry_no_attention_and_the_rest_is_renormalised():
    """Cut entries of the pattern are zero, rows still sum to one, and the model is as before afterwards."""
    model = build()
    tokens = torch.from_numpy(sequences(4, lengths=(97,)).astype(int))
    plain = model(tokens)
    edges = edges_between(
        np.array([3] * 4), np.array([11] * 4), np.array([60] * 4), np.array([69] * 4), n_tokens=14, token_bp=7
    )
    names = ["layer.0.attn.pattern", "layer.1.attn.pattern"]
    with cut_edges(model, torch.from_numpy(edges)), taps.record(model, names) as store:
        cut = model(tokens)
    for pattern in store.values():
        assert (pattern[torch.from_numpy(edges)[:, None].expand_as(pattern)] == 0).all()
        torch.testing.assert_close(pattern.sum(-1), torch.ones_like(pattern.sum(-1)))
    assert not torch.allclose(cut, plain)
    torch.testing.assert_close(model(tokens), plain, rtol=0, atol=0)


def test_edges_are_both_directions_between_dilated_footprints_and_never_the_diagonal():
    """Bases 14-20 are token 2, bases 35-41 tokens 5-5; with a token on either side 1-3 and 4-6."""
    edges = edges_between(np.array([14]), np.array([21]), np.array([35]), np.array([42]), n_tokens=8, token_bp=7)[0]
    expected = np.zeros((8, 8), bool)
    expected[1:4, 4:7] = expected[4:7, 1:4] = True
    assert (edges == expected).all()
    near = edges_between(np.array([0]), np.array([7]), np.array([7]), np.array([14]), n_tokens=4, token_bp=7)[0]
    assert not near.diagonal().any()


def test_strand_intervals_cover_the_same_bases():
    """The interval on the other strand holds the reverse complement of the site."""
    text = "ACGTTTGACCA"
    (start,), (end,) = strand_interval(np.array([[2], [6]]), np.array([len(text)]), reverse=True)
    assert alphabet.reverse_complement(text)[start:end] == alphabet.reverse_complement(text[2:6])


def test_moved_edge_keeps_the_distance_and_leaves_its_place():
    """A shift keeps both footprints inside the sequence and off their old tokens; without room it is NaN."""
    draw = np.random.default_rng(0)
    shift = matched_shift(
        np.array([20] * 50), np.array([29] * 50), np.array([60] * 50), np.array([69] * 50),
        length=np.array([160] * 50), token_bp=10, rng=draw,
    )  # fmt: skip
    assert ((20 + shift >= 0) & (69 + shift <= 160) & (np.abs(shift) >= 30)).all()
    crowded = matched_shift(
        np.array([0]), np.array([9]), np.array([90]), np.array([99]), length=np.array([100]), token_bp=10, rng=draw
    )
    assert np.isnan(crowded).all()


def test_instances_are_the_same_for_every_model_and_bounded():
    """The choice depends on the seed and the pair only."""
    table = pd.DataFrame({"motif_a": [0] * 30 + [0] * 4, "motif_b": [1] * 30 + [2] * 4, "sequence": range(34)})
    first, again = (choose_instances(table, {(0, 1), (0, 2)}, most=10, seed=3) for _ in range(2))
    assert first.equals(again) and first.groupby("motif_b").size().to_dict() == {1: 10, 2: 4}
    only = choose_instances(table, {(0, 2)}, most=10, seed=3)
    assert only["sequence"].tolist() == [30, 31, 32, 33]
