"""The verb bakeoff: a whole folder or none, from step settings to tables, with the share of known motifs."""

import json

import numpy as np
import pytest
from toy_training import SMALL_MODEL, toy_tables

from bioattn.cli import bakeoff as verb
from bioattn.config import parse_run, step_settings
from bioattn.errors import DataError
from bioattn.io.tables import read_record, read_tsv, write_parquet


@pytest.fixture
def call(tmp_path):
    """Function that runs the verb on toy tables with the given settings, and returns its folder."""

    def run(**changes):
        document = {
            "model": SMALL_MODEL | {"stem": {"kind": "none", "pool": 1}},
            "train": {"epochs": 1, "batch_size": 32, "device": "cpu"},
            "bakeoff": {
                "tokenizers": [{"kind": "kmer", "k": 3, "stride": 3}, {"kind": "bpe", "vocabulary": 30}],
                "seeds": [1, 2],
                "language_epochs": 1,
            },
            "explain": {"window_bp": 12, "motif_width_bp": 8, "seqlets_per_head": 50, "n_sequences": 120},
            **changes,
        }
        sequences, split = toy_tables()
        write_parquet(tmp_path / "sequences.parquet", sequences, {})
        write_parquet(tmp_path / "split.parquet", split, {})
        settings = tmp_path / "bakeoff.json"
        settings.write_text(json.dumps(step_settings(parse_run(document), "bakeoff")))
        verb.bakeoff(settings, tmp_path / "sequences.parquet", tmp_path / "split.parquet", tmp_path / "out")
        return tmp_path / "out"

    return run


def test_tables_say_what_they_come_from(call, capsys):
    """bakeoff.tsv has a row per tokenizer, seeds.tsv one per tokenizer and seed, with digest and fold."""
    out = call()
    table, seeds = read_tsv(out / "bakeoff.tsv"), read_tsv(out / "seeds.tsv")
    assert len(table) == 2 and len(seeds) == 4 and table["motif_recovery"].isna().all()
    record = read_record(out / "bakeoff.tsv")
    assert record["step"] == "bakeoff" and record["fold"] == 0 and record["digest"]
    assert sorted(p.name for p in out.iterdir()) == ["bakeoff.json", "bakeoff.tsv", "seeds.json", "seeds.tsv"]
    assert (out.with_name("out.work") / "units").is_dir()
    assert "2 tokenizers, 4 models; best auroc" in capsys.readouterr().out


def test_known_motifs_are_looked_for(call):
    """A run that names motifs gets the share of them that heads show; a library of a whole group is no such list."""
    table = read_tsv(call(motifs={"jaspar_ids": ["MA0093.4", "MA0060.4"]}) / "bakeoff.tsv")
    assert np.isin(table["motif_recovery"] * 4, range(5)).all()
    named = read_tsv(call(motifs={"jaspar_tax_group": "insects"}) / "bakeoff.tsv")
    assert named["motif_recovery"].isna().all()


def test_bad_input_leaves_an_earlier_result(call):
    """Where the comparison cannot be made, the tables of an earlier one stay."""
    out = call()
    before = (out / "bakeoff.tsv").read_text()
    with pytest.raises(DataError, match="no column"):
        call(task={"targets": ["other"]})
    assert (out / "bakeoff.tsv").read_text() == before
