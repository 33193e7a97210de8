"""Parts of the benchmark of head motifs: what rivals do with known scores, and how reports are counted. No timing."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import hypergeom
from toy_heads import random_codes, reading_model

from bioattn.config import ModelConfig, StemConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif
from bioattn.models import build_model

WORD = "TGACGTCA"


@pytest.fixture
def rivals(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Module with the other ways."""
    monkeypatch.syspath_prepend(root / "tests" / "benchmarks")
    return importlib.import_module("rivals")


@pytest.fixture
def cases(rivals: ModuleType) -> ModuleType:
    """Module with what is measured."""
    return importlib.import_module("head_motif_cases")


@pytest.fixture
def model() -> torch.nn.Module:
    config = ModelConfig(
        stem=StemConfig(kind="conv", n_filters=7, width=5, pool=5), d_model=12, n_layers=2, n_heads=3, d_feedforward=9
    )
    return build_model(config, n_readouts=1, seed=3).eval()


def ppm_of(word: str) -> np.ndarray:
    ppm = np.full((4, len(word)), 0.01)
    ppm[alphabet.encode(word), np.arange(len(word))] = 0.97
    return ppm


# ----------------------------------------------------------------------- patterns


def test_scores_of_bases_are_heads_summed_and_brought_to_unit_norm(rivals: ModuleType, model: torch.nn.Module) -> None:
    """Rows of the last layer's patterns sum to one, and every base of a token has the token's share."""
    codes = random_codes(4, 23, 0)
    patterns = rivals.last_patterns(model, codes)
    assert patterns.shape == (4, 3, 5, 5) and patterns.dtype == np.float64
    np.testing.assert_allclose(patterns.sum(-1), 1, atol=1e-6)
    scores = rivals.base_scores(patterns, 5, 23)
    np.testing.assert_allclose(np.linalg.norm(scores, axis=1), 1)
    assert (scores[:, :5] == scores[:, :1]).all() and (scores[:, 20:] == scores[:, 20:21]).all()
    ratio = patterns.sum((1, 2))[0, 1] / patterns.sum((1, 2))[0, 0]
    assert scores[0, 5] / scores[0, 0] == pytest.approx(ratio)


# ------------------------------------------------------------------------ DNABERT


def test_stretches_are_above_the_mean_and_ten_times_the_minimum(rivals: ModuleType) -> None:
    """A stretch must be long enough, and high against both."""
    scores = np.full((2, 20), 0.01)
    scores[0, 4:10] = 1.0
    scores[0, 14:17] = 1.0  # too short
    scores[1] = 0.5
    scores[1, 3:9] = 1.0  # above the mean, not ten times the minimum
    assert rivals.high_attention(scores, least_bp=5) == [(0, 4, 10)]


def test_words_are_tested_by_how_many_sequences_hold_them(rivals: ModuleType) -> None:
    """One word: the p-value is that of the hypergeometric distribution, and its adjusted value is itself."""
    positives, negatives = ["AACGTA", "CGTTTT", "GGGGGG"], ["CGTAAA", "TTTTTT", "AAAAAA", "CCCCCC"]
    found = rivals.word_q_values(["CGT"], positives, negatives)
    assert found == pytest.approx([hypergeom.sf(1, 7, 3, 3)])
    assert len(rivals.word_q_values([], positives, negatives)) == 0


def test_words_that_agree_are_merged_where_they_agree(rivals: ModuleType) -> None:
    """A longer word joins the shorter one at its place, and one that shares nothing stays alone."""
    assert rivals.best_offset("GACG", "TGACGT") == (4, 1)
    groups = rivals.merged_words(["GACGT", "TGACGTC", "CCCCC"], least_bp=5)
    assert groups == {"GACGT": [("GACGT", 0), ("TGACGTC", -1)], "CCCCC": [("CCCCC", 0)]}


def test_a_planted_word_under_high_scores_is_found(rivals: ModuleType) -> None:
    """Positives hold a word where scores are high: the search gives its matrix, and nothing without the scores."""
    draw = np.random.default_rng(0)
    codes = random_codes(300, 60, 1)
    positive = np.arange(300) < 150
    scores = np.full((300, 60), 0.001)
    for row in np.flatnonzero(positive):
        start = draw.integers(20, 35)
        codes[row, start : start + len(WORD)] = alphabet.encode(WORD)
        scores[row, start : start + len(WORD)] = 1.0
    found = rivals.dnabert_motifs_of_scores(scores, codes, positive)
    assert len(found) == 1 and found[0].shape == (4, 24)
    letters = "".join(alphabet.LETTERS[i] for i in found[0].argmax(0))
    assert letters[8:16] == WORD and (found[0][:, 8:16].max(0) > 0.9).all()
    assert rivals.dnabert_motifs_of_scores(np.ones((300, 60)), codes, positive) == []


# ------------------------------------------------------------------------- SATORI


def test_bases_are_active_above_a_share_of_the_way_to_the_maximum(rivals: ModuleType) -> None:
    """With mean 1 and maximum 11, a filter is active above 1 + 0.65 x 10."""
    outputs = np.zeros((1, 1, 12))
    outputs[0, 0, [2, 5]] = [11.0, 1.0]  # mean of twelve is 1
    assert np.argwhere(rivals.active_bases(outputs)).tolist() == [[0, 0, 2]]
    outputs[0, 0, 7], outputs[0, 0, 5] = 7.0, 0.0
    assert 7 not in np.argwhere(rivals.active_bases(outputs))[:, 2]


def test_filters_are_joined_by_attention_between_their_tokens(rivals: ModuleType) -> None:
    """Filters 0 and 2 stand at tokens of which one reads the other enough; filter 1 is read too little."""
    active = np.zeros((1, 3, 15), dtype=bool)
    active[0, 0, 1], active[0, 1, 6], active[0, 2, 14] = True, True, True
    attention = np.zeros((1, 3, 3))
    attention[0, 0, 2], attention[0, 0, 1] = 0.05, 0.03
    assert rivals.joined_filters(active, attention, 5).tolist() == [True, False, True]
    attention[0, np.arange(3), np.arange(3)] = 1.0  # a token that reads itself joins nothing
    assert rivals.joined_filters(active, attention, 5).tolist() == [True, False, True]


def test_matrices_of_filters_are_what_stands_under_them(rivals: ModuleType, model: torch.nn.Module) -> None:
    """Windows are centred on the active base, those that leave the sequence are left out, few sites give none."""
    codes = random_codes(12, 23, 2)
    codes[:, 8:13] = alphabet.encode("TATAA")
    active = np.zeros((12, 2, 23), dtype=bool)
    active[:, 0, 10], active[:, 0, 0], active[:9, 1, 10] = True, True, True
    found = rivals.motifs_of_sites(active, codes, width=5)
    assert len(found) == 1 and "".join(alphabet.LETTERS[i] for i in found[0].argmax(0)) == "TATAA"
    outputs = rivals.filter_outputs(model, codes)
    assert outputs.shape == (12, 7, 23) and (outputs >= 0).all()


def test_satori_runs_on_a_model(rivals: ModuleType, model: torch.nn.Module) -> None:
    """From the model's own filters to matrices of their width."""
    codes = random_codes(60, 50, 3)
    found = rivals.satori_motifs(model, codes, np.arange(60) < 40)
    assert all(ppm.shape == (4, 5) for ppm in found) and found


# ------------------------------------------------------------------------ MoDISco


def test_scores_for_modisco_have_no_part_that_letters_share(rivals: ModuleType, model: torch.nn.Module) -> None:
    """Contributions of the four letters of a position sum to zero, by mutagenesis and by gradients."""
    codes = random_codes(3, 23, 4)
    for scores in (rivals.ism_scores(model, codes), rivals.gradient_scores(model, codes)):
        assert scores.shape == (3, 4, 23) and np.abs(scores).max() > 0
        np.testing.assert_allclose(scores.sum(1), 0, atol=1e-5)


def test_patterns_are_cut_to_their_strong_columns(rivals: ModuleType) -> None:
    """Columns before the first and after the last strong one are cut, weak ones between stay."""
    contributions = np.zeros((4, 8))
    contributions[1, [2, 5]], contributions[0, [3, 7]] = [1.0, -0.4], [0.1, 0.2]
    cut = rivals.trimmed(np.tile(np.arange(1.0, 9), (4, 1)), contributions)
    assert cut.shape == (4, 4) and cut == pytest.approx(0.25)


# -------------------------------------------------------------------------- scores


def test_reports_are_counted_as_what_they_resemble(cases: ModuleType) -> None:
    """Two of three causal motifs are recovered, one of them named; one report is inert and one is nothing planted."""
    words = {"A": "TGACGTCATT", "B": "CCATATTAGG", "C": "GGGACTTTCC", "D": "CACGTGACCA"}
    planted = {name: Motif(name, name, ppm_of(word), family=f"family {name}") for name, word in words.items()}
    reported = [ppm_of(word) for word in (words["A"], words["B"], words["D"], "TTTTTTTTTT")]
    rows = pd.DataFrame(
        {
            "layer": 0, "head": [0, 0, 1, 2], "motif": [0, 1, 0, 0],
            "matches": ["A A (q=1e-9) of family A", "C C (q=1e-3) of family C", "", ""],
        }
    )  # fmt: skip
    found = cases.Found(reported, rows, 4, 4, np.array([True, True, True, False]))
    scores = cases.score(found, [planted[name] for name in "ABC"], [planted["D"]])
    assert (scores.n, scores.recovered, scores.found, scores.named) == (4, 2, 2, 1)
    assert (scores.decoys, scores.strangers, scores.inert, scores.false, scores.unread) == (1, 1, 1, 2, 1)
    assert scores.precision == 0.5 and found.heads_with_motif == 3
    nothing = cases.score(cases.Found([], pd.DataFrame(), 4, 0, np.array([], bool)), [planted["A"]], [])
    assert (nothing.n, nothing.recovered, nothing.false) == (0, 0, 0) and np.isnan(nothing.precision)


def test_only_enriched_motifs_of_heads_that_matter_count(cases: ModuleType) -> None:
    """Motifs that may be chance, and those of heads that do not matter, are left out."""
    rows = pd.DataFrame(
        {
            "layer": 0, "head": range(5), "motif": 0, "matches": "", "q_value": [0.01, 0.2, 0.01, 0.01, 0.01],
            "verdict": ["motif", "motif", "weak", "redundant", "dead"],
        }
    )  # fmt: skip
    kept = cases.read_by_heads(cases.Found([np.full((4, 1), i) for i in range(5)], rows, 8, 5, np.arange(5) < 3))
    assert [int(ppm[0, 0]) for ppm in kept.ppms] == [0, 3] and kept.heads_with_motif == 2
    assert kept.read.tolist() == [True, False]


def test_a_model_responds_to_the_motif_it_counts(cases: ModuleType) -> None:
    """A model that reads a word responds to its matrix, and not to that of another word."""
    model = reading_model(Motif("CRE", "CRE", ppm_of(WORD)))
    sequences = random_codes(20, 60, 5)
    read = cases.responds(model, [ppm_of(WORD), ppm_of("CCCAAATT")], sequences, 0)
    assert read.tolist() == [True, False]


def test_half_of_the_motifs_of_each_seed_have_an_effect(cases: ModuleType) -> None:
    """Six motifs are causal and six are not; discovery and held-out sequences are disjoint."""
    data = cases.planted(1, cases.Scale((1,), 400, 1, 100, 60, 10, 60, False))
    assert len(data.causal) == len(data.inert) == 6
    assert {m.motif_id for m in data.causal}.isdisjoint(m.motif_id for m in data.inert)
    assert data.discovery.shape == (100, 200) and len(data.targets) == len(data.held_out) == 60
    assert not {row.tobytes() for row in data.discovery} & {row.tobytes() for row in data.held_out}
    assert 0.9 < data.ceiling < 1


def test_all_patterns_in_float64(cases: ModuleType) -> None:
    """5,000 sequences of 600 tokens and 32 heads: 5,000 x 32 x 600 x 600 x 8 bytes."""
    assert cases.stored_mib(5000, 32, 600) == pytest.approx(5000 * 32 * 360_000 * 8 / 2**20)
