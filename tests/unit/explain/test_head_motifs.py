"""Motif discovery, naming and head motifs on heads whose reading is built in."""

import numpy as np
import pandas as pd
import pytest
import torch

from bioattn.config import ExplainConfig, ModelConfig, StemConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif
from bioattn.explain.head_motifs import ablate_head, head_motifs, received_attention
from bioattn.explain.ism import contribution, importance, ism, ism_table
from bioattn.explain.motif_discovery import discover
from bioattn.explain.naming import name_motifs
from bioattn.io.motifs import jaspar_group, jaspar_motif
from bioattn.models import build_model

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
