"""Hits and pair instances."""

import numpy as np
import pandas as pd
import pytest

from bioattn.config import SiteConfig
from bioattn.data import alphabet
from bioattn.errors import DataError
from bioattn.explain.hits import find_hits, pair_instances, site_hits, site_motifs
from bioattn.io.motifs import jaspar_motif

NFYA, TEAD = jaspar_motif("MA0060.4"), jaspar_motif("MA0090.4")


def test_planted_sites_are_found_with_place_and_strand():
    """Consensus sites on either strand are hits where they were put."""
    left, right = NFYA.consensus, alphabet.reverse_complement(TEAD.consensus)
    codes = alphabet.encode_batch([f"ACG{left}GATTGCATGC{right}AC", "ACGTAC"])
    hits = find_hits(codes, [NFYA, TEAD], p_value=1e-4)
    assert hits[["sequence", "motif", "start", "strand"]].to_numpy().tolist() == [
        [0, 0, 3, "+"],
        [0, 1, 3 + len(left) + 10, "-"],
    ]
    assert (hits["end"] - hits["start"]).tolist() == [NFYA.width, TEAD.width]


def test_further_copies_are_the_next_best_that_do_not_overlap():
    """Two sites and a half: the better one is copy 0, the other copy 1, and a third there is not."""
    site, rest = NFYA.consensus, "ACGTTGATCA"
    weaker = "C" + site[1:] if site[0] != "C" else "A" + site[1:]
    codes = alphabet.encode_batch([rest + weaker + rest + site + rest, rest + site + rest + rest + rest])
    hits = find_hits(codes, [NFYA], p_value=1e-3, copies=3)
    assert hits[["sequence", "start", "copy"]].to_numpy().tolist() == [
        [0, 10, 1],
        [0, 20 + len(site), 0],
        [1, 10, 0],
    ]
    assert find_hits(codes, [NFYA], p_value=1e-3)["copy"].tolist() == [0, 0]


def test_hits_do_not_depend_on_how_many_sequences_are_scanned_at_a_time(monkeypatch: pytest.MonkeyPatch):
    """The same table in parts of three sequences."""
    codes = np.random.default_rng(0).integers(0, 4, (100, 300)).astype(np.uint8)
    whole = find_hits(codes, [NFYA, TEAD], p_value=1e-2, copies=2)
    monkeypatch.setattr("bioattn.explain.hits._BASES", 900)
    assert len(whole) > 50 and find_hits(codes, [NFYA, TEAD], p_value=1e-2, copies=2).equals(whole)


def test_chance_hits_are_as_rare_as_the_p_value_says():
    """In random sequence the rate of hits per window and strand is that of the threshold."""
    codes = np.random.default_rng(0).integers(0, 4, (4000, 60)).astype(np.uint8)
    n_windows = 2 * (60 - NFYA.width + 1)
    rate = len(find_hits(codes, [NFYA], p_value=1e-3)) / (4000 * n_windows)
    assert 0.5e-3 < rate < 1.2e-3  # one hit per sequence, and the threshold is at most the p-value


def test_instances_are_pairs_of_different_motifs_that_share_no_token():
    """Order of motifs, not of places; the gap is between footprints."""
    hits = pd.DataFrame(
        {"sequence": [0, 0, 0, 1, 2], "motif": [1, 0, 1, 0, 1], "start": [0, 11, 40, 3, 3], "end": [8, 19, 48, 9, 9]}
    ).assign(copy=0)
    instances = pair_instances(hits, margin_bp=2, token_bp=10)  # 0-8 and 11-19 share token 0
    assert instances.to_numpy().tolist() == [[0, 1, 2, 0, 1, 21]]


@pytest.mark.parametrize("token_bp", [1, 3, 7])
@pytest.mark.parametrize("margin_bp", [0, 2, 5])
def test_pairs_are_instances_exactly_if_no_changed_base_shares_a_token(margin_bp: int, token_bp: int):
    """Against sets of tokens, for all distances of two sites around the border."""
    for start in range(20, 60):
        hits = pd.DataFrame({"sequence": [0, 0], "motif": [0, 1], "start": [20, start], "end": [26, start + 5]})
        hits["copy"] = 0
        tokens = [
            {i // token_bp for i in range(s - margin_bp, e + margin_bp)}
            for s, e in zip(hits.start, hits.end, strict=True)
        ]
        apart = len(pair_instances(hits, margin_bp=margin_bp, token_bp=token_bp)) == 1
        assert apart == (not tokens[0] & tokens[1])


def test_sites_of_an_aligned_library_become_motifs_and_hits():
    """A fixed site's PPM is the library's letter frequency there; every sequence has it, with a score."""
    sequences = ["AACGTT"] * 3 + ["AATGTT"]
    codes = alphabet.encode_batch(sequences)
    sites = [SiteConfig(name="x", start=2, end=4), SiteConfig(name="y", start=4, end=6)]
    motifs = site_motifs(codes, sites)
    assert motifs[0].consensus == "CG" and motifs[0].ppm[1, 0] == pytest.approx(3.25 / 5)
    hits = site_hits(codes, sites, motifs)
    assert len(hits) == 8
    score = hits[hits["motif"] == 0]["score"].to_numpy()
    assert score[0] > score[3]
    with pytest.raises(DataError, match="site 'z' ends at 7, but the shortest sequence has 6 bp"):
        site_motifs(codes, [SiteConfig(name="z", start=2, end=7)])
