"""The data that all steps about pairs share."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bioattn.config import parse_run
from bioattn.data import alphabet
from bioattn.data.motif import log_odds, scan
from bioattn.errors import BioattnWarning, ConfigError, DataError
from bioattn.explain.library import load_library, save_library, scan_library
from bioattn.explain.pairs import Geometry, PairData, choose_pairs
from bioattn.explain.pairs import pair_data as data_of_pairs
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


def pair_data(run, sequences, split, *, fold: int, geometry: Geometry) -> PairData:
    """Data about pairs with their library, as the steps make them one after the other."""
    library = scan_library(run, sequences, split, fold=fold)
    return data_of_pairs(run, sequences, split, library, fold=fold, geometry=geometry)


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


def test_similar_motifs_are_one_and_their_names_are_kept():
    """ELK1 and ETV4 share their sites: the one with most hits stands for both; alone they are no pair."""
    sequences, split = tables()
    look_alike = ["MA0028.3", "MA0764.4"]
    names = {jaspar_motif(motif_id).name for motif_id in look_alike}
    library = scan_library(run_with(motifs={"jaspar_ids": [*IDS, *look_alike]}), sequences, split, fold=0)
    assert len(library.motifs) == 4 and set(library.members[3]) == names
    assert library.members[3][0] == library.motifs[3].name and library.members[0] == (library.motifs[0].name,)
    apart = run_with(motifs={"jaspar_ids": [*IDS, *look_alike]}, interactions={"similar_motifs": 1.0})
    assert len(scan_library(apart, sequences, split, fold=0).motifs) == 5
    with pytest.raises(ConfigError, match="the 2 that are named all look alike"):
        scan_library(run_with(motifs={"jaspar_ids": look_alike}), sequences, split, fold=0)


def test_a_library_comes_back_from_its_files(tmp_path: Path):
    """Matrices to the last bit, names, members and hits."""
    sequences, split = tables()
    library = scan_library(run_with(), sequences, split, fold=0)
    save_library(tmp_path / "hits", library, {"step": "test"})
    again = load_library(tmp_path / "hits")
    assert [vars(m) | {"ppm": 0} for m in again.motifs] == [vars(m) | {"ppm": 0} for m in library.motifs]
    assert all((a.ppm == b.ppm).all() for a, b in zip(again.motifs, library.motifs, strict=True))
    assert again.members == library.members and again.hits.equals(library.hits)
    with pytest.raises(DataError, match=r"no library\.parquet and no hits\.parquet; a folder of the verb hits"):
        load_library(tmp_path)


def test_a_motif_pairs_with_itself_where_it_stands_twice_often_enough():
    """Two sites of one motif in a third of the sequences: a pair from the least number of sequences on."""
    sequences, split = tables(300)
    site = jaspar_motif(IDS[0]).consensus
    texts = sequences["sequence"].tolist()
    texts[::3] = [text[:40] + site + text[40 + len(site) :] if site in text[:30] else text for text in texts[::3]]
    n = sum(text.count(site) == 2 for text in texts[150:])
    assert n > 10
    for least, expected in ((n // 2, [(0, 0)]), (2 * n, [])):
        run = run_with(interactions={"min_instances": least})
        data = pair_data(run, sequences.assign(sequence=texts), split, fold=0, geometry=GEOMETRY)
        assert data.homotypic == expected
    own = data.instances[data.instances["motif_a"] == data.instances["motif_b"]]
    first, second = data.hits.loc[own["hit_a"]], data.hits.loc[own["hit_b"]]
    assert len(own) >= n and (first["copy"] == 0).all() and (second["copy"] == 1).all()
    assert (first["sequence"].to_numpy() == second["sequence"].to_numpy()).all()
    assert data.twice[:, 0].sum() >= n and not (data.twice & ~data.presence).any()
    table = choose_pairs(
        pd.DataFrame({"motif_a": [0], "motif_b": [0], "candidate": [True]}), data, n_noncandidates=0, seed=0
    )
    n_apart = (own["motif_a"] == 0).sum()
    assert table["n_sequences"].iloc[0] == n_apart
    assert table["n_too_close"].iloc[0] == len(data.hits.query("motif == 0 and copy == 1")) - n_apart
