"""Motif matrices: thresholds, scans, trimming."""

import itertools

import numpy as np
import pytest

from bioattn.data import alphabet
from bioattn.data.motif import (
    Motif,
    information,
    log_odds,
    ppm_from_counts,
    scan,
    scan_both_strands,
    score_threshold,
    trim,
)
from bioattn.errors import DataError


def random_ppm(width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(4, 0.4), width).T


@pytest.mark.parametrize("p_value", [0.1, 0.01, 1e-3])
def test_threshold_is_exact_against_all_words(p_value: float):
    """Of all 4^6 words, at most the stated share reaches the threshold, and no much lower score would do."""
    pwm = log_odds(random_ppm(6))
    words = np.array(list(itertools.product(range(4), repeat=6)), dtype=np.uint8)
    score = scan(words, pwm)[:, 0]
    threshold = score_threshold(pwm, p_value)
    slack = 6 * 0.02  # rounding of six positions
    assert (score >= threshold + slack).mean() <= p_value
    assert (score >= threshold - slack).mean() >= p_value - 1 / len(words)


def test_scan_equals_a_loop_and_handles_unknown_bases():
    """Scores are sums over the window; N counts zero; a window in the padding is minus infinity."""
    pwm = log_odds(random_ppm(3))
    codes = alphabet.encode_batch(["ACGNT", "GGT"])
    got = scan(codes, pwm)
    for i, j in itertools.product(range(2), range(3)):
        window = codes[i, j : j + 3]
        expected = -np.inf if (window == alphabet.PAD).any() else sum(pwm[c, w] for w, c in enumerate(window) if c < 4)
        assert got[i, j] == pytest.approx(expected)


def test_both_strands_find_the_reverse_complement():
    """A site scores the same on either strand."""
    motif = Motif("m", "m", random_ppm(5))
    site = motif.consensus
    codes = alphabet.encode_batch([f"TT{site}TT", f"AA{alphabet.reverse_complement(site)}AA"])
    pwm = log_odds(motif.ppm)
    best = scan_both_strands(codes, pwm).max(1)
    assert best[0] == pytest.approx(best[1]) and best[0] == pytest.approx(pwm.max(0).sum())
    assert motif.reverse_complement().consensus == alphabet.reverse_complement(site)


def test_trimming_keeps_the_informative_core():
    """Flat flanks go, weak columns between strong ones stay."""
    flat, strong = np.full(4, 0.25), np.array([0.97, 0.01, 0.01, 0.01])
    ppm = np.stack([flat, strong, flat, strong, flat, flat], axis=1)
    assert trim(ppm) == slice(1, 4)
    assert information(ppm)[0] == pytest.approx(0) and information(ppm)[1] == pytest.approx(1.758, abs=1e-3)


def test_what_is_no_motif_is_refused():
    """Shapes and columns that are no probabilities are named."""
    with pytest.raises(DataError, match=r"motif 'x': expected a matrix of shape \(4, width > 0\), found \(5, 3\)"):
        Motif("x", "x", np.full((5, 3), 0.2))
    with pytest.raises(DataError, match="sum to one"):
        Motif("x", "x", np.full((4, 3), 0.3))
    assert ppm_from_counts(np.zeros((4, 2))).tolist() == np.full((4, 2), 0.25).tolist()
