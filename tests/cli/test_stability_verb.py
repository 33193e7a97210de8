"""The verb stability: from folders of the verb heads to two tables beside them."""

import json

import numpy as np
import pandas as pd
import pytest

from bioattn.cli.stability import stability
from bioattn.data.motif import ppm_from_counts
from bioattn.errors import DataError
from bioattn.io.motifs import jaspar_motif
from bioattn.io.tables import read_record, read_tsv, write_parquet, write_tsv

RECORD = {"digest": "abc", "seed": 5, "fold": 0}
READ = [jaspar_motif(f"MA{name}").ppm for name in ("0093.4", "0046.3")]


def write_heads(folder, draw: np.random.Generator, record: dict, *, n_motifs: int = 2) -> None:
    """Results of two heads that read the two motifs (or the first only), as the verb heads writes them."""
    rows, motifs = [], {}
    for head, ppm in enumerate(READ):
        has = head < n_motifs
        if has:
            counts = np.stack([draw.multinomial(90, column / column.sum()) for column in ppm.T], axis=1)
            motifs[f"layer0_head{head}_motif0"] = ppm_from_counts(counts)
        rows.append(
            {
                "layer": 0, "head": head, "motif": 0 if has else -1, "verdict": "motif" if has else "dead",
                "consensus": "ACGT" if has else "", "enrichment_log2": 2.0 if has else np.nan,
                "q_value": 1e-4 if has else np.nan, "matches": "",
            }
        )  # fmt: skip
    places = pd.DataFrame({"layer": 0, "head": np.repeat([0, 1], 7), "position": np.tile(np.arange(7) * 5, 2)})
    folder.mkdir(parents=True)
    write_tsv(folder / "heads.tsv", pd.DataFrame(rows), record)
    write_parquet(folder / "positions.parquet", places.assign(received=draw.random(14)), record)
    np.savez(folder / "motifs.npz", **motifs)


@pytest.fixture
def heads(tmp_path):
    """Three replicates beside each other, the third without the second motif."""
    folder = tmp_path / "heads"
    for seed in (1, 2, 11):
        record = RECORD | {"model_seed": seed}
        write_heads(folder / f"seed{seed}", np.random.default_rng(seed), record, n_motifs=2 - (seed == 11))
    return folder


def test_tables_stand_beside_the_replicates(heads, capsys):
    """Two tables with their record, the replicates' folders untouched, and a line that says what was found."""
    stability([heads / f"seed{seed}" for seed in (11, 2, 1)], heads)
    motifs, matches = read_tsv(heads / "stability.tsv"), read_tsv(heads / "head_matches.tsv")
    assert motifs["n_replicates"].tolist() == [3, 2] and (motifs["n_total"] == 3).all()
    assert motifs["members"].tolist() == ["1:0.0.0; 2:0.0.0; 11:0.0.0", "1:0.1.0; 2:0.1.0"]
    assert matches[["seed_a", "seed_b"]].drop_duplicates().to_numpy().tolist() == [[1, 2], [1, 11], [2, 11]]
    assert len(matches) == 6 and matches["similarity"].between(0, 1).all()
    record = read_record(heads / "stability.tsv")
    assert [record[key] for key in ("step", "digest", "seed", "model_seeds")] == ["stability", "abc", 5, [1, 2, 11]]
    assert sorted(path.name for path in heads.iterdir()) == [
        "head_matches.json", "head_matches.tsv", "seed1", "seed11", "seed2", "stability.json", "stability.tsv",
    ]  # fmt: skip
    assert "2 enriched motifs in 3 replicates, 1 of them in all" in capsys.readouterr().out


def test_one_replicate_is_no_mistake(heads):
    """Of one replicate there are both tables, with a note that there is nothing to compare."""
    stability([heads / "seed2"], heads / "alone")
    motifs, matches = read_tsv(heads / "alone" / "stability.tsv"), read_tsv(heads / "alone" / "head_matches.tsv")
    assert motifs["note"].str.startswith("one replicate").all() and len(motifs) == 2
    assert len(matches) == 1 and matches["note"][0].startswith("one replicate")


def test_what_are_no_replicates_is_refused(heads, tmp_path):
    """The same seed twice, other settings, a folder that names no seed, one without results: each is named."""
    with pytest.raises(DataError, match="both of seed 1"):
        stability([heads / "seed1", heads / "seed1"], heads)
    draw = np.random.default_rng(3)
    write_heads(tmp_path / "other" / "seed3", draw, RECORD | {"digest": "xyz", "model_seed": 3})
    with pytest.raises(DataError, match="seed1 and .*seed3 were made with different settings"):
        stability([heads / "seed1", tmp_path / "other" / "seed3"], heads)
    write_heads(tmp_path / "folder", draw, {})
    with pytest.raises(DataError, match="folder: neither heads.json nor the folder's name"):
        stability([tmp_path / "folder"], heads)
    with pytest.raises(DataError, match="heads.tsv: no such file"):
        stability([tmp_path / "seed9"], heads)
    assert not (heads / "stability.tsv").exists()


def test_seed_of_a_folder_without_a_record(heads):
    """Results whose record is gone are taken for the seed that their folder names."""
    (heads / "seed2" / "heads.json").unlink()
    stability([heads / "seed1", heads / "seed2"], heads)
    assert json.loads((heads / "stability.json").read_text())["model_seeds"] == [1, 2]
