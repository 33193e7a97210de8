"""Knock-outs of sites: composition kept, motif gone, everything else untouched."""

import numpy as np
import pytest

from bioattn.data import alphabet
from bioattn.data.motif import log_odds, scan_both_strands
from bioattn.data.replacement import FLANK_BP, RESIDUE, replace_sites
from bioattn.errors import DataError
from bioattn.io.motifs import jaspar_motif

IDS = ["MA0060.4", "MA0093.4", "MA0785.2", "MA0148.5"]  # NFYA, USF1, POU2F1, FOXA1: hard for dinucleotide shuffles


def planted(seed: int = 0, n: int = 101, length: int = 61, start: int = 23):
    """Random sequences with the consensus of one motif each."""
    generator = np.random.default_rng(seed)
    motifs = [jaspar_motif(i) for i in IDS]
    codes = generator.integers(0, 4, (n, length)).astype(np.uint8)
    own = generator.integers(0, len(motifs), n)
    for row, m in zip(codes, own, strict=True):
        row[start : start + motifs[m].width] = alphabet.encode(motifs[m].consensus)
    starts = np.full(n, start)
    ends = starts + np.array([motifs[m].width for m in own])
    return codes, starts, ends, own, [log_odds(m.ppm) for m in motifs]


def test_replacement_keeps_composition_and_leaves_the_rest():
    """Letters move inside the site and its flanks only."""
    codes, starts, ends, own, pwms = planted()
    result = replace_sites(codes, starts, ends, own, pwms, rng=np.random.default_rng(1))
    assert (np.sort(result.codes, axis=1) == np.sort(codes, axis=1)).all()
    position = np.arange(codes.shape[1])
    inside = (position >= starts[:, None] - FLANK_BP) & (position < ends[:, None] + FLANK_BP)
    assert (result.codes == codes)[~inside].all()
    assert (result.codes != codes).any(1).all()


def test_replacement_is_free_of_the_motif_on_both_strands():
    """A scan of both strands finds no window over the residue threshold where the site was."""
    codes, starts, ends, own, pwms = planted()
    result = replace_sites(codes, starts, ends, own, pwms, rng=np.random.default_rng(1))
    assert result.clean.mean() > 0.99
    for m, pwm in enumerate(pwms):
        rows = np.flatnonzero((own == m) & result.clean)
        window = np.arange(codes.shape[1] - pwm.shape[1] + 1)
        score = scan_both_strands(result.codes[rows], pwm)
        touches = (window + pwm.shape[1] > starts[rows, None] - FLANK_BP) & (window < ends[rows, None] + FLANK_BP)
        assert score[touches].max() <= RESIDUE * pwm.max(0).sum()


def test_site_that_cannot_be_shuffled_away_is_reported():
    """A poly-A site has one arrangement: the row says that it is not clean."""
    codes = np.zeros((1, 31), dtype=np.uint8)
    pwm = np.full((4, 6), -3.0)
    pwm[0] = 1.5
    result = replace_sites(codes, np.array([12]), np.array([18]), np.array([0]), [pwm], rng=np.random.default_rng(0))
    assert not result.clean[0] and result.residue[0] == pytest.approx(1.0)


def test_interval_outside_its_sequence_is_refused():
    """The message names the interval, the sequence and its length."""
    codes = alphabet.encode_batch(["ACGTACGTAC", "ACGT"])
    with pytest.raises(DataError, match="interval 2-8 of sequence 1 is empty or leaves its 4 bp"):
        replace_sites(codes, np.array([2, 2]), np.array([8, 8]), np.array([-1, -1]), [], rng=np.random.default_rng(0))
