"""The data that all steps about pairs share."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bioattn.config import parse_run
from bioattn.data import alphabet
from bioattn.data.motif import log_odds, scan
from bioattn.errors import BioattnWarning, ConfigError, DataError
from bioattn.explain.pairs import Geometry, choose_pairs, pair_data
from bioattn.io.motifs import jaspar_motif

IDS = ["MA0060.4", "MA0090.4", "MA0093.4"]
GEOMETRY = Geometry(receptive_field_bp=9, token_bp=5)


def tables(n: int = 200, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Random sequences, two of three motifs in each; the first half is training."""
    draw = np.random.default_rng(seed)
    texts = []
    for _ in range(n):
        row = draw.integers(0, 4, 90).astype(np.uint8)
        for slot, m in enumerate(draw.permutation(3)[:2]):
            site = alphabet.encode(jaspar_motif(IDS[m]).consensus)
            row[10 + 45 * slot : 10 + 45 * slot + len(site)] = site
        texts.append(alphabet.decode(row))
    names = [f"s{i}" for i in range(n)]
    fold = np.where(np.arange(n) < n // 2, "train", np.where(np.arange(n) % 2, "test", "validation"))
    return pd.DataFrame({"name": names, "sequence": texts}), pd.DataFrame({"name": names, "fold_0": fold})


def run_with(**sections):
    return parse_run({"motifs": {"jaspar_ids": IDS}} | sections)


def test_only_held_out_sequences_are_looked_at_and_hits_point_to_them():
    """Rows of the hits are rows of the held-out codes: the motif stands there."""
    sequences, split = tables()
    data = pair_data(run_with(), sequences, split, fold=0, geometry=GEOMETRY)
    assert len(data.codes) == 100 and data.presence.shape == (200, 3)
    held = sequences["sequence"][100:].tolist()
    assert [alphabet.decode(row) for row in data.codes] == held
    for hit in data.hits[data.hits["strand"] == "+"].head(30).itertuples():
        window = data.codes[hit.sequence : hit.sequence + 1, hit.start : hit.end]
        assert scan(window, log_odds(data.motifs[hit.motif].ppm))[0, 0] == pytest.approx(hit.score)
    assert data.flank_bp == 2 and data.controls == [False] * 3


def test_large_sets_are_sampled_the_same_way_every_time():
    """The cap holds, and the sample depends on the run seed only."""
    sequences, split = tables()
    run = run_with(interactions={"n_sequences": 50})
    first, again = (pair_data(run, sequences, split, fold=0, geometry=GEOMETRY) for _ in range(2))
    assert len(first.codes) == 50 and (first.codes == again.codes).all() and first.hits.equals(again.hits)


def test_a_large_library_is_cut_to_its_most_frequent_families():
    """Of all vertebrate motifs, ten are kept, of ten families, the planted one among them; and it is said."""
    sequences, split = tables()
    run = parse_run({"motifs": {"jaspar_tax_group": "vertebrates"}, "interactions": {"most_motifs": 10}})
    with pytest.warns(BioattnWarning, match=r"pairs are made of 10 of \d+ motifs"):
        data = pair_data(run, sequences, split, fold=0, geometry=GEOMETRY)
    families = [m.family for m in data.motifs]
    assert len(set(families)) == 10
    assert jaspar_motif("MA0060.4").family in families


def test_fixed_sites_count_where_they_are_intact():
    """Half of the sequences, those that match best, have a site; a control locus must avoid functional sites only."""
    sequences, split = tables()
    sites = [{"name": "x", "start": 10, "end": 18}, {"name": "gap", "start": 30, "end": 36, "control": True}]
    data = pair_data(parse_run({"motifs": {"sites": sites}}), sequences, split, fold=0, geometry=GEOMETRY)
    assert ((0.45 < data.presence.mean(0)) & (data.presence.mean(0) < 0.75)).all()
    assert data.controls == [False, True] and data.flank_bp == 0
    assert set(data.occupied["start"]) == {10} and len(data.occupied) == 100


def test_too_few_motifs_or_no_pair_is_said():
    """The messages name the numbers and the settings to change."""
    sequences, split = tables()
    with pytest.raises(ConfigError, match="pairs need at least 2 motifs or sites, got 1"):
        pair_data(run_with(motifs={"jaspar_ids": IDS[:1]}), sequences, split, fold=0, geometry=GEOMETRY)
    wide = Geometry(receptive_field_bp=99, token_bp=50)
    with pytest.raises(
        DataError, match=r"none of 100 held-out sequences .* \(50 bp per token, receptive field 99 bp\)"
    ):
        pair_data(run_with(), sequences, split, fold=0, geometry=wide)


def test_candidates_and_a_random_sample_of_the_others_are_tested():
    """All candidates that occur, exactly the asked number of others, never a pair that does not occur."""
    sequences, split = tables()
    data = pair_data(run_with(), sequences, split, fold=0, geometry=GEOMETRY)
    # A fourth motif that is nowhere.
    data = replace(data, motifs=[*data.motifs, data.motifs[0]])
    pairs = pd.DataFrame({"motif_a": [0, 0, 1, 0], "motif_b": [1, 2, 2, 3], "candidate": [True, False, False, True]})
    table = choose_pairs(pairs, data, n_noncandidates=1, seed=0)
    assert table["tested"].tolist()[0] and table["tested"].sum() == 2 and not table["tested"].iloc[3]
    assert (table["n_sequences"] > 0).tolist() == [True, True, True, False]
    hits = data.hits.groupby("motif")["sequence"].agg(set)
    both = [len(hits[a] & hits[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert (table["n_sequences"] + table["n_too_close"]).tolist() == [*both, 0]
