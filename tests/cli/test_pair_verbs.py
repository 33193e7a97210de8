"""From models to verdicts through the command line, on models that were never trained: the null of everything."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from toy_verbs import call

from bioattn.causal.decide import CAUSAL, COLUMNS, HIDDEN, NOT_TESTED, VERDICTS
from bioattn.config import load_run
from bioattn.io.motifs import load_motifs
from bioattn.io.tables import read_parquet, read_record, read_tsv
from bioattn.models import build_model, save_model

SEEDS = (1, 2, 3)
#: What the last verb about pairs reads of each replicate.
TABLES = ("coattention", "knockout", "screen", "knockin", "syntax")


@pytest.fixture(scope="module")
def folder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the verbs about heads and pairs write, from 600 simulated promoters and three random models."""
    work = tmp_path_factory.mktemp("verbs")
    document = yaml.safe_load((root / "config" / "config.yaml").read_text())
    planted = document["runs"]["planted"]
    planted["data"]["simulate"] = {"n_sequences": 600}
    planted["explain"] = {"ism_sequences": 3, "motifs_per_head": 1}
    planted["motifs"]["naming_tax_group"] = None
    planted["interactions"] = {
        "instances_per_pair": 10, "draws": 1, "permutations": 99, "min_instances": 5, "n_noncandidates": 20,
        "backgrounds": 16, "screen_backgrounds": 8, "syntax_backgrounds": 8, "spacing_step_bp": 30,
    }  # fmt: skip
    (work / "config.yaml").write_text(yaml.safe_dump({"runs": {"planted": planted}}))
    settings = ["--settings", work / "config.yaml"]
    data = ["--sequences", work / "data" / "sequences.parquet", "--split", work / "split" / "split.parquet"]
    call("simulate", *settings, "--out", work / "input")
    call("ingest", *settings, "--samples", work / "input" / "samples.tsv", "--out", work / "data")
    call("split", *settings, *data[:2], "--out", work / "split")
    call("hits", *settings, *data, "--out", work / "hits")
    data += ["--hits", work / "hits"]
    run = load_run(work / "config.yaml")
    motifs = load_motifs(run.motifs)
    for seed in SEEDS:
        model = build_model(run.model, n_readouts=1, motifs=motifs, seed=seed)
        record = {"digest": "untrained", "seed": seed, "fold": 0}
        save_model(work / f"model{seed}", model, config=run.model, motifs=motifs, record=record)
        inputs = [*settings, *data, "--model", work / f"model{seed}"]
        call("coattention", *inputs, "--out", work / f"coattention{seed}.npz")
        call("screen", *inputs, "--out", work / f"screen{seed}.parquet")
    call("candidates", *settings, *data, *tables(work, "coattention", "screen"), "--out", work / "candidates.tsv")
    candidates = ["--candidates", work / "candidates.tsv"]
    for seed in SEEDS:
        inputs = [*settings, *data, "--model", work / f"model{seed}"]
        call("knockout", *inputs, *candidates, "--out", work / f"knockout{seed}.parquet")
        knocked_in = ["--out", work / f"knockin{seed}.parquet", "--syntax", work / f"syntax{seed}.parquet"]
        call("knockin", *inputs, *candidates, *knocked_in)
    call("interactions", *settings, *data, *candidates, *tables(work, *TABLES), "--out", work / "table")
    call("heads", *settings, *data[:4], "--model", work / "model1", "--out", work / "heads")
    return work


def tables(work: Path, *names: str) -> list[object]:
    """Options that name the tables of all replicates."""
    endings = {"coattention": "npz"}
    return [
        word
        for name in names
        for seed in SEEDS
        for word in (f"--{name}", work / f"{name}{seed}.{endings.get(name, 'parquet')}")
    ]


def test_every_pair_has_a_row_with_every_defined_column(folder: Path):
    """66 pairs; the columns are those of the dictionary beside the table; each row says how it came about."""
    table = read_tsv(folder / "table" / "interactions.tsv")
    dictionary = read_tsv(folder / "table" / "columns.tsv")
    assert len(table) == 66 and list(table.columns) == list(COLUMNS) == dictionary["column"].tolist()
    assert (table[["n_hits_a", "n_hits_b"]].min(axis=1) >= table["n_seqs"]).all()
    again = read_parquet(folder / "table" / "interactions.parquet")
    assert list(again) == list(table) and again["sentence"].tolist() == table["sentence"].tolist()
    assert set(table["verdict"]) <= set(VERDICTS) and table["sentence"].str.len().min() > 10
    assert (table["n_instances"] > 0).equals(table["tested"]) and 0 < table["tested"].sum() < 66
    assert (table["n_backgrounds"] == np.where(table["tested"], 16, 8)).all()
    assert table["epistasis_effect"].notna().all() and (table["verdict"] != NOT_TESTED).all()
    assert read_record(folder / "table" / "interactions.tsv")["n_replicates"] == len(SEEDS)


def test_single_motifs_have_a_row_each(folder: Path):
    """Twelve motifs with the columns of the dictionary; those of the tested pairs come from many backgrounds."""
    table = read_tsv(folder / "table" / "motifs.tsv")
    dictionary = read_tsv(folder / "table" / "motif_columns.tsv")
    assert len(table) == 12 and list(table) == dictionary["column"].tolist()
    assert table["effect"].abs().is_monotonic_decreasing and table["effect"].notna().all()
    assert set(table["n_backgrounds"]) <= {8, 16} and (table["n_hits"] > 0).all()


def test_untrained_models_support_no_pair(folder: Path):
    """Random weights read sequences, but no pair survives the interventions in all replicates."""
    verdicts = read_tsv(folder / "table" / "interactions.tsv")["verdict"]
    assert not verdicts.isin([CAUSAL, HIDDEN]).any()


def test_heads_verb_writes_all_its_files(folder: Path):
    """Table, motifs, matrices and logos agree with each other."""
    heads = read_tsv(folder / "heads" / "heads.tsv")
    assert set(zip(heads["layer"], heads["head"], strict=True)) == {(0, h) for h in range(4)}
    matrices = np.load(folder / "heads" / "motifs.npz")
    with_motif = heads[heads["motif"] >= 0]
    assert len(matrices) == len(with_motif)
    assert all((folder / "heads" / logo).read_text().startswith("<?xml") for logo in with_motif["logo"])
    assert (folder / "heads" / "contact_sheet.svg").stat().st_size > 1000


@pytest.mark.parametrize("spoilt", ["coattention2.npz", "knockin2.parquet", "candidates.tsv"])
def test_missing_replicates_are_named(folder: Path, spoilt: str, capsys: pytest.CaptureFixture[str]):
    """A missing table ends in status 2 and its name; the earlier result stays."""
    before = (folder / "table" / "interactions.tsv").read_bytes()
    hidden = (folder / spoilt).rename(folder / "hidden")
    words = ["interactions", "--settings", folder / "config.yaml", "--candidates", folder / "candidates.tsv"]
    words += ["--sequences", folder / "data/sequences.parquet", "--split", folder / "split/split.parquet"]
    words += ["--hits", folder / "hits"]
    try:
        with pytest.raises(SystemExit) as stopped:
            call(*words, *tables(folder, *TABLES), "--out", folder / "table")
    finally:
        hidden.rename(folder / spoilt)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and spoilt in error and error.count("\n") == 1
    assert (folder / "table" / "interactions.tsv").read_bytes() == before


def test_too_few_replicates_are_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Tables of two models make a table without verdicts, and a warning says how to make more."""
    words = ["interactions", "--settings", folder / "config.yaml", "--candidates", folder / "candidates.tsv"]
    words += ["--sequences", folder / "data/sequences.parquet", "--split", folder / "split/split.parquet"]
    words += ["--hits", folder / "hits"]
    two = [word for name in TABLES for word in tables(folder, name)[:4]]
    call(*words, *two, "--out", tmp_path / "table")
    assert "found 2 of at least 3" in capsys.readouterr().err
    verdicts = read_tsv(tmp_path / "table" / "interactions.tsv")["verdict"]
    assert set(verdicts) <= {"insufficient data", "not tested"}


def test_a_measured_library_is_evidence(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Values of other sequences reach every pair; a library without the motifs is refused by name."""
    document = yaml.safe_load((folder / "config.yaml").read_text())
    library = tmp_path / "library.tsv"
    document["runs"]["planted"]["interactions"]["measured"] = {"path": str(library), "value_column": "y"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    words = ["interactions", "--settings", tmp_path / "config.yaml", "--candidates", folder / "candidates.tsv"]
    words += ["--sequences", folder / "data/sequences.parquet", "--split", folder / "split/split.parquet"]
    words += ["--hits", folder / "hits", *tables(folder, *TABLES), "--out", tmp_path / "table"]
    read_parquet(folder / "data/sequences.parquet")[["sequence", "y"]].to_csv(library, sep="\t", index=False)
    call(*words)
    table = read_tsv(tmp_path / "table" / "interactions.tsv")
    assert table["interventional_source"].str.startswith("regression, n = 600").sum() > 50
    assert table["interventional_q"].notna().sum() > 50
    library.write_text("sequence\ty\n" + "AAAAAAAAAAAAAAAAAAAA\t1\n" * 3)
    with pytest.raises(SystemExit) as stopped:
        call(*words)
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert f"{library}: none of 3 measured sequences holds two motifs at p <= 0.0001" in told


def test_models_of_other_environments_are_compared(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Balanced sequences are drawn; knock-ins in another model of them fill the columns; a wrong word is named."""
    settings = ["--settings", folder / "config.yaml"]
    data = ["--sequences", folder / "data/sequences.parquet", "--split", folder / "split/split.parquet"]
    data += ["--hits", folder / "hits"]
    call("environment", *settings, *data, "--kind", "gc", "--out", tmp_path / "gc")
    assert len(read_parquet(tmp_path / "gc" / "sequences.parquet")) == 600
    assert read_record(tmp_path / "gc" / "split.parquet")["environment"] == "gc"
    candidates = ["--candidates", folder / "candidates.tsv"]
    options = []
    for seed in SEEDS[:2]:
        out = tmp_path / f"{seed}.parquet"
        call("knockin", *settings, *data, *candidates, "--model", folder / f"model{seed}", "--out", out)
        options += ["--environment", f"gc={out}"]
    assert not any(name.endswith("_cut") for name in read_parquet(out))
    words = ["interactions", *settings, *data, *candidates, *tables(folder, *TABLES), "--out", tmp_path / "table"]
    call(*words, *options)
    table = read_tsv(tmp_path / "table" / "interactions.tsv")
    tested = table["tested"]
    assert table.loc[tested, ["gc_balanced_epistasis", "env_q_p"]].notna().all(axis=None)
    assert table.loc[~tested, "gc_balanced_epistasis"].isna().all() and table["balanced_epistasis"].isna().all()
    # Two of the same three models, so that nothing has changed.
    assert (table.loc[tested, "env_q_p"] > 0.01).all()
    with pytest.raises(SystemExit):
        call(*words, "--environment", "gc")
    assert "--environment must be NAME=FILE, got 'gc'" in capsys.readouterr().err
