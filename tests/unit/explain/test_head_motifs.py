"""Motif discovery, naming and head motifs on heads whose reading is built in."""

import numpy as np
import pandas as pd
import pytest
import torch

from bioattn.config import ExplainConfig, ModelConfig, StemConfig, TokenizerConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif
from bioattn.errors import DataError
from bioattn.explain import recovery
from bioattn.explain.head_motifs import (
    HeadMotifs,
    _background,
    _received,
    ablate_head,
    head_motifs,
    received_attention,
)
from bioattn.explain.ism import contribution, importance, ism, ism_table
from bioattn.explain.motif_discovery import discover
from bioattn.explain.naming import name_motifs
from bioattn.explain.recovery import best_correlation, motif_recovery
from bioattn.io.motifs import jaspar_group, jaspar_motif
from bioattn.models import build_model
from bioattn.tokens import BpeTokenizer
from bioattn.tokens.base import PAD_ID

USF1, HNF1A = jaspar_motif("MA0093.4"), jaspar_motif("MA0046.3")
CONFIG = ExplainConfig(n_sequences=600, windows_per_head=400, motifs_per_head=1)


def with_sites(motif: Motif | None, n: int, length: int, seed: int) -> np.ndarray:
    """Random sequences; each gets one sampled site of the motif at a random place and strand."""
    draw = np.random.default_rng(seed)
    codes = draw.integers(0, 4, (n, length)).astype(np.uint8)
    if motif is None:
        return codes
    for row in codes:
        site = np.array([draw.choice(4, p=p) for p in motif.ppm.T], dtype=np.uint8)
        if draw.random() < 0.5:
            site = alphabet.reverse_complement_codes(site)
        start = draw.integers(0, length - len(site) + 1)
        row[start : start + len(site)] = site
    return codes


def correlation(found: np.ndarray, truth: np.ndarray) -> float:
    """Best correlation of two PPMs over offsets and strands, on at least 6 shared columns."""
    best = -1.0
    for other in (truth, truth[::-1, ::-1]):
        for offset in range(-found.shape[1] + 6, other.shape[1] - 5):
            low, high = max(0, offset), min(other.shape[1], offset + found.shape[1])
            if high - low >= 6:
                a, b = found[:, low - offset : high - offset], other[:, low:high]
                best = max(best, np.corrcoef(a.ravel(), b.ravel())[0, 1])
    return best


def reading_model(motif: Motif) -> torch.nn.Module:
    """Model whose only head attends to tokens in proportion to their motif feature: its weights are set by hand."""
    config = ModelConfig(
        stem=StemConfig(kind="pwm", n_filters=1, width=1, pool=5),
        d_model=4, n_layers=1, n_heads=1, d_feedforward=4, positions="none", dropout=0.0,
    )  # fmt: skip
    model = build_model(config, n_readouts=1, motifs=[motif], seed=0).eval()
    with torch.no_grad():
        stem, attn = model.stem, model.encoder.layer[0].attn
        stem.project.weight.zero_()
        # After normalisation a token with the motif is (+, -, ., .) and one without (-, +, ., .).
        stem.project.weight[:, 0] = torch.tensor([4.0, -4.0, 0.0, 0.0])
        stem.project.bias.copy_(torch.tensor([-1.0, 1.0, 0.0, 0.0]))
        attn.project_in.weight.zero_()
        attn.project_in.bias.zero_()
        attn.project_in.bias[0] = 4.0  # every query asks
        attn.project_in.weight[4, 0] = 1.0  # a key answers with the motif
        attn.project_in.weight[8:, :] = torch.eye(4)
    return model


EBOX = "CACGTG"
#: Words of a tokenizer in which the E-box is a word; its parts and a few others too.
EBOX_WORDS = BpeTokenizer(
    ["A", "C", "G", "T", "CG", "CA", "TG", "CACG", EBOX, "TT", "GG"],
    [("C", "G"), ("C", "A"), ("T", "G"), ("CA", "CG"), ("CACG", "TG"), ("T", "T"), ("G", "G")],
    bases_per_token=1.3,
    fewest_bases_per_token=1.0,
)
WORDS = {
    "overlapping": TokenizerConfig(kind="kmer", k=6, stride=1),
    "tiling": TokenizerConfig(kind="kmer", k=3, stride=3),
    "bpe": TokenizerConfig(kind="bpe", vocabulary=16),
}


def word_model(words: str) -> torch.nn.Module:
    """Model whose only head attends to the tokens whose word holds the E-box, or a whole third of it."""
    config = ModelConfig(
        tokenizer=WORDS[words], stem=StemConfig(kind="none", pool=1),
        d_model=4, n_layers=1, n_heads=1, d_feedforward=4, positions="none", dropout=0.0,
    )  # fmt: skip
    model = build_model(config, n_readouts=1, tokenizer=EBOX_WORDS if words == "bpe" else None, seed=0).eval()
    read = ("CAC", "GTG") if words == "tiling" else (EBOX,)
    with torch.no_grad():
        table, attn = model.stem.table.weight, model.encoder.layer[0].attn
        table.copy_(torch.tensor([-1.0, 1.0, 0.0, 0.0]))
        for i in range(model.tokenizer.n_tokens):
            if model.tokenizer.word(i) in read:
                table[i] = torch.tensor([3.0, -3.0, 0.0, 0.0])
        attn.project_in.weight.zero_()
        attn.project_in.bias.zero_()
        attn.project_in.bias[0] = 4.0
        attn.project_in.weight[4, 0] = 1.0
    return model


def with_ebox(n: int, length: int, seed: int) -> np.ndarray:
    """Random sequences without the E-box, into each of which one is planted at a random place."""
    draw = np.random.default_rng(seed)
    codes = draw.integers(0, 4, (n, length)).astype(np.uint8)
    for row in codes:
        start = draw.integers(0, length - 5)
        row[start : start + 6] = alphabet.encode(EBOX)
    return codes


@pytest.mark.parametrize("words", list(WORDS))
def test_motif_of_a_head_that_reads_words(words: str):
    """A head that attends to the word of a planted site shows it, wherever the word's token begins."""
    model = word_model(words)
    lengths = np.array([80, 71])
    discovery, held_out = (with_ebox(n, 80, seed) for n, seed in ((500, 0), (300, 1)))
    discovery[::2, lengths[1] :] = alphabet.PAD  # of two lengths, so that some tokens are padding
    result = head_motifs(model, discovery, held_out, CONFIG)
    row = result.table.iloc[0]
    # On a grid of three only one site in three is read, as two words that also occur alone.
    assert row["kind"] == "motif" and row["q_value"] < (1e-3 if words == "tiling" else 1e-6)
    assert EBOX in row["consensus"] or (words == "tiling" and EBOX[1:5] in row["consensus"])
    rows = len(discovery[0]) if words == "bpe" else model.tokenizer.most_tokens(80)
    assert len(result.positions) == rows


def test_windows_of_words_have_the_word_in_their_middle():
    """The window around the most attended token is centred on the middle of its span, for words of any length."""
    for words in ("overlapping", "bpe"):
        model = word_model(words)
        codes = alphabet.encode_batch(["T" * 31 + EBOX + "A" * 40, "G" * 36 + EBOX + "A" * 27])
        seen = _received(model, codes)
        flat = np.zeros((1, seen.profile.shape[-1]), dtype=np.float32)
        peak = np.nanargmax(seen.excess(0, flat), axis=1)
        assert seen.centre[[0, 1], peak].tolist() == [34, 39]


def test_bases_share_what_their_token_receives():
    """For learned words the profile of a sequence sums up to its tokens, over its own bases, the last one included."""
    model = word_model("bpe")
    codes = alphabet.encode_batch([alphabet.decode(row) for row in with_ebox(3, 40, 0)] + ["CACGTGTTN"])
    seen = _received(model, codes)
    n_tokens = (model.tokenizer.encode(torch.from_numpy(codes)).ids != PAD_ID).sum(1).numpy()
    np.testing.assert_allclose(np.nansum(seen.profile[:, 0], axis=1), n_tokens, rtol=1e-5)
    assert np.isnan(seen.profile[3, :, 9:]).all() and np.isfinite(seen.profile[3, :, :9]).all()
    box = seen.profile[3, 0, :6]
    assert (box == box[0]).all() and box[0] * 6 == pytest.approx(seen.values[3, 0, 0], rel=1e-6)


def test_excess_of_words_is_against_what_their_bases_are_expected_to_get():
    """A token's expectation is that of its bases: the mean of a sequence with itself as background is its own."""
    model = word_model("bpe")
    codes = with_ebox(1, 40, 0)
    seen = _received(model, codes)
    real = seen.end[0] > seen.start[0]
    np.testing.assert_allclose(seen.excess(0, seen.profile[0])[0][real], 0, atol=1e-5)
    longer = np.concatenate([codes, with_ebox(1, 40, 1)], axis=1)
    excess = _received(model, longer).excess(0, seen.profile[0])[0]
    assert np.isfinite(excess[:20]).all() and np.isnan(excess[-5:]).all()


def old_windows_start(peak, token_bp, window_bp, last):
    """Start of a window as it was computed from the index of a token."""
    return np.clip(peak * token_bp + token_bp // 2 - window_bp // 2, 0, last)


@pytest.mark.parametrize("pool", [1, 4, 5, 40])
def test_windows_of_a_stem_are_where_they_were(pool: int):
    """With a stem, centres are index times bases per token plus half a token, for every token, the cut one included."""
    config = ModelConfig(stem=StemConfig(pool=pool), d_model=8, n_layers=1, n_heads=2, d_feedforward=8)
    model = build_model(config, n_readouts=1, seed=0).eval()
    codes = with_sites(None, 70, 83, 0)
    codes[::3, 61:] = alphabet.PAD
    seen = _received(model, codes)
    received = received_attention(model, codes)
    assert seen.profile is seen.values and np.array_equal(seen.values, received, equal_nan=True)
    background = _background(model, codes, np.random.default_rng(0))
    excess = seen.excess(1, background)
    assert np.array_equal(excess, received[:, 1] - background[1], equal_nan=True)
    peak = np.nanargmax(excess, axis=1)
    last = (codes != alphabet.PAD).sum(1) - 6
    start = np.clip(seen.centre[np.arange(70), peak] - 3, 0, last)
    assert np.array_equal(start, old_windows_start(peak, pool, 6, last))
    assert np.array_equal(seen.places, np.arange(received.shape[2]) * pool)


def test_held_out_sequences_may_be_longer_or_shorter():
    """Discovery and held-out sequences of different lengths go together; beyond the former nothing is sought."""
    model = reading_model(USF1)
    for lengths in ((60, 83), (83, 60)):
        result = head_motifs(model, with_sites(USF1, 300, lengths[0], 0), with_sites(USF1, 100, lengths[1], 1), CONFIG)
        assert result.table["kind"].iloc[0] == "motif"
        assert len(result.positions) == -(-lengths[0] // 5)


def test_discovery_recovers_a_planted_motif():
    """The motif of the windows is found to a correlation above 0.9, trimmed to its core."""
    windows, controls = with_sites(HNF1A, 500, 30, 0), with_sites(None, 500, 30, 1)
    found = discover(windows, controls, width=14, n_motifs=1)
    assert correlation(found[0].ppm, HNF1A.ppm) > 0.9
    assert found[0].n_sites > 400


def test_second_motif_is_found_beside_the_first():
    """Sites are masked once found: two motifs in two halves of the windows are both recovered."""
    windows = np.concatenate([with_sites(HNF1A, 400, 30, 0), with_sites(USF1, 300, 30, 1)])
    found = discover(windows, with_sites(None, 700, 30, 2), width=12, n_motifs=2)
    for motif in (HNF1A, USF1):
        assert max(correlation(f.ppm, motif.ppm) for f in found) > 0.9


def test_names_are_those_of_jaspar_with_the_ambiguity_shown():
    """A noisy copy of a matrix is named after it or its family, and a flat matrix after nothing."""
    noisy = 0.9 * USF1.ppm + 0.025
    flat = np.full((4, 8), 0.25)
    named = name_motifs([noisy, flat], jaspar_group("vertebrates"), q_value=0.05)
    assert USF1.family in {match.motif.family for match in named[0]}
    assert [m.q_value for m in named[0]] == sorted(m.q_value for m in named[0])
    assert named[1] == []


def test_head_that_reads_a_motif_is_recovered_and_tested_on_held_out_sequences():
    """A hand-made head that attends to USF1 sites is called "motif", with the right matrix and name."""
    model = reading_model(USF1)
    result = head_motifs(
        model, with_sites(USF1, 600, 80, 0), with_sites(USF1, 300, 80, 1), CONFIG, library=jaspar_group("vertebrates")
    )
    row = result.table.iloc[0]
    assert row["kind"] == "motif" and row["q_value"] < 1e-6 and row["enrichment_log2"] > 3
    assert correlation(result.motifs[0].ppm, USF1.ppm) > 0.9
    assert "USF" in row["matches"] and row["logo"] == "logos/layer0_head0_motif0.svg"


def test_head_has_no_motif_where_there_is_none():
    """The same head on random sequences reads chance sites only: the share of its windows is small."""
    result = head_motifs(reading_model(USF1), with_sites(None, 600, 80, 0), with_sites(None, 300, 80, 1), CONFIG)
    uniform = build_model(
        ModelConfig(stem=StemConfig(pool=5), d_model=8, n_layers=1, n_heads=2, d_feedforward=8), n_readouts=1
    )
    with torch.no_grad():
        uniform.encoder.layer[0].attn.project_in.weight.zero_()
    null = head_motifs(uniform.eval(), with_sites(None, 600, 80, 0), with_sites(None, 300, 80, 1), CONFIG)
    assert result.table["n_windows"].iloc[0] == 400
    assert set(null.table["kind"]) <= {"diffuse", "positional"}


def test_too_few_windows_are_said():
    """Sequences shorter than a window, or too few of them, give a row that says so."""
    result = head_motifs(reading_model(USF1), with_sites(None, 20, 80, 0), with_sites(None, 20, 80, 1), CONFIG)
    assert result.table["note"].tolist() == ["too few windows (n = 20)"] and result.motifs == []
    short = head_motifs(reading_model(USF1), with_sites(None, 90, 20, 0), with_sites(None, 90, 20, 1), CONFIG)
    assert short.table["note"].tolist() == ["too few windows (n = 0)"]


def test_received_attention_sums_to_the_number_of_tokens():
    """Each sequence's received attention has mean one over its real tokens, whatever the padding."""
    codes = alphabet.encode_batch([alphabet.decode(r) for r in with_sites(None, 3, 47, 0)] + ["ACGTACGTACGTA"])
    received = received_attention(reading_model(USF1), codes)
    np.testing.assert_allclose(np.nanmean(received, axis=2), 1.0, rtol=1e-5)
    assert np.isnan(received[3, :, 3:]).all() and np.isfinite(received[3, :, :3]).all()


def test_ablating_a_head_without_output_changes_nothing():
    """A head whose values are zero has no effect; a real one has, with an interval around it."""
    model = reading_model(USF1)
    codes = with_sites(USF1, 200, 80, 0)
    effect, low, high = ablate_head(model, codes, 0, 0)
    assert 0 < low < effect < high
    with torch.no_grad():
        model.encoder.layer[0].attn.project_in.weight[8:, :] = 0
    assert ablate_head(model, codes, 0, 0) == (0.0, 0.0, 0.0)


def test_mutagenesis_equals_single_predictions():
    """Every entry is the difference of two predictions; original letters are zero; padding is NaN."""
    model = reading_model(USF1)
    codes = alphabet.encode_batch(["ACGTCACGTGACCTTG", "ACGTN"])
    effect = ism(model, codes)
    with torch.inference_mode():
        original = model(torch.from_numpy(codes.astype(int)))[:, 0]
        changed = codes.copy()
        changed[0, 7] = 0
        assert effect[0, 0, 7] == pytest.approx(
            float(model(torch.from_numpy(changed.astype(int)))[0, 0] - original[0]), abs=1e-6
        )
    assert (np.take_along_axis(effect[:1], codes[:1, None].astype(int), axis=1) == 0).all()
    assert np.isnan(effect[1, :, 5:]).all() and np.isfinite(effect[1, :, :5]).all()
    np.testing.assert_allclose(contribution(effect[:1]).mean(1), 0, atol=1e-7)
    assert importance(effect).shape == (2, 16)
    table = ism_table(effect, codes, ["x", "y"])
    assert table.groupby("name").size().to_dict() == {"x": 16, "y": 5}
    assert table["reference"].str.cat() == "ACGTCACGTGACCTTGACGTN"
    assert isinstance(table, pd.DataFrame)


# ------------------------------------------------------------------- recovery


def test_a_matrix_is_found_in_part_shifted_and_turned():
    """A matrix correlates fully with itself, its other strand and an excerpt of it; a flat one with nothing."""
    ppm = HNF1A.ppm
    for other in (ppm, ppm[::-1, ::-1], ppm[:, 3:11], np.concatenate([np.full((4, 5), 0.25), ppm], axis=1)):
        assert best_correlation(other, ppm) == pytest.approx(1)
        assert best_correlation(ppm, other) == pytest.approx(1)
    assert best_correlation(np.full((4, 8), 0.25), ppm) == -1
    assert best_correlation(USF1.ppm, ppm) < 0.8


def test_a_narrow_overlap_does_not_count():
    """Two matrices that share their ends only are no match, though these columns are equal."""
    draw = np.random.default_rng(0)
    first, second = (np.eye(4)[draw.integers(0, 4, 12)].T * 0.9 + 0.025 for _ in range(2))
    second[:, :4] = first[:, -4:]
    assert best_correlation(first, second) < 0.8


def test_share_of_the_known_motifs_that_a_head_reads():
    """A head made to read one of two motifs shows half of them, on sequences that hold both."""
    both = [with_sites(USF1, n, 80, seed) for n, seed in ((500, 0), (300, 1))]
    assert motif_recovery(reading_model(USF1), *both, [USF1, HNF1A], CONFIG) == 0.5


def test_only_enriched_motifs_count(monkeypatch: pytest.MonkeyPatch):
    """The very matrix that is known counts if it is enriched in held-out sequences, and not if it may be chance."""
    model, codes = reading_model(USF1), with_sites(None, 60, 80, 0)
    for q, share in ((0.01, 1.0), (0.3, 0.0), (np.nan, 0.0)):
        table = pd.DataFrame({"motif": [-1, 0], "q_value": [np.nan, q]})
        result = HeadMotifs(table, [USF1], pd.DataFrame())
        monkeypatch.setattr(recovery, "head_motifs", lambda *a, result=result, **k: result)
        assert motif_recovery(model, codes, codes, [USF1], CONFIG) == share


def test_where_there_is_nothing_to_recover():
    """Random sequences show no motif; a model without attention has no answer; without known motifs it is refused."""
    model = reading_model(USF1)
    none = [with_sites(None, n, 80, seed) for n, seed in ((300, 0), (200, 1))]
    assert motif_recovery(model, *none, [HNF1A], CONFIG) == 0.0
    config = ModelConfig(encoder="gru", stem=StemConfig(pool=5), d_model=8, n_layers=1)
    assert np.isnan(motif_recovery(build_model(config, n_readouts=1), *none, [HNF1A], CONFIG))
    with pytest.raises(DataError, match="no motif is known"):
        motif_recovery(model, *none, [], CONFIG)
