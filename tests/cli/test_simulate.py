"""Verb `simulate`: what it writes goes through ingest and split like anybody's data."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from bioattn.cli.app import main
from bioattn.config import digest, load_config, parse_run, step_settings
from bioattn.data import alphabet
from bioattn.io.fasta import read_fasta
from bioattn.io.motifs import load_motifs
from bioattn.io.tables import read_parquet, read_record, read_tsv

EXAMPLE = "config/examples/grammar.yaml"
TABLES = ["labels.tsv", "truth_motifs.tsv", "truth_pairs.tsv", "truth_sequences.tsv", "truth_sites.parquet"]


def call(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code


def example(**changes: Any) -> dict[str, Any]:
    """Settings of the example run, smaller."""
    run: dict[str, Any] = load_config(EXAMPLE).runs["grammar"].model_dump(mode="json")
    run["data"]["simulate"] |= {"n_sequences": 400} | changes
    return run


def run_verbs(folder: Path, run: dict[str, Any]) -> None:
    """simulate, ingest and split in a folder."""
    (folder / "run.json").write_text(json.dumps(run))
    settings = ("--settings", f"{folder}/run.json")
    call("simulate", *settings, "--out", f"{folder}/input")
    call("ingest", *settings, "--samples", f"{folder}/input/samples.tsv", "--out", f"{folder}/data")
    call("split", *settings, "--sequences", f"{folder}/data/sequences.parquet", "--out", f"{folder}/split")


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder, run = tmp_path_factory.mktemp("observed"), example()
    run_verbs(folder, run)
    return folder, run


@pytest.fixture(scope="module")
def twinned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder, run = tmp_path_factory.mktemp("twinned"), example(regime="twins", saturation={})
    run["task"]["targets"] = ["y", "y_sat"]
    run["split"] |= {"group_by": ["column"], "column": "group"}
    run_verbs(folder, run)
    return folder, run


def test_example_has_the_ten_classes_of_the_benchmark():
    """The example's run is valid and its truth names each class once."""
    assert len(set(load_config(EXAMPLE).runs["grammar"].data.simulate.pairs)) == 10


def test_every_file_is_written_with_its_record(observed):
    """Tables and truth.json carry seed and digest of the step; nothing else lies in the folder."""
    folder, run = observed
    settings = parse_run(run)
    for name in TABLES:
        record = read_record(folder / "input" / name)
        assert (record["seed"], record["digest"]) == (1, digest(step_settings(settings, "simulate"))), name
    assert sorted(path.name for path in (folder / "input").iterdir() if path.suffix != ".json") == sorted(
        [*TABLES, "samples.tsv", "sequences.fa"]
    )


def test_truth_document_holds_ceilings_and_settings(observed):
    """Ceilings are those of the table of sequences; the settings are those of the step, so that it can be repeated."""
    folder, run = observed
    truth = json.loads((folder / "input/truth.json").read_text())
    table = read_tsv(folder / "input/truth_sequences.tsv")
    assert truth["ceiling"] == truth["ceilings"]["y"]["ceiling"]
    assert truth["ceiling"] == pytest.approx(np.corrcoef(table["expected"], table["y"])[0, 1], abs=1e-5)
    assert truth["settings"] == step_settings(parse_run(run), "simulate")
    assert truth["n_sequences"] == len(table) == 400 and truth["n_with_twins"] == 0


def test_ingested_sequences_are_the_simulated_ones(observed):
    """Ingest rejects none; names and readouts come back, and the split covers all."""
    folder, _ = observed
    table = read_parquet(folder / "data/sequences.parquet").set_index("name")
    truth = read_tsv(folder / "input/truth_sequences.tsv").set_index("name")
    assert len(read_tsv(folder / "data/rejected.tsv")) == 0
    assert (table["y"] == truth["y"].reindex(table.index)).all() and len(table) == 400
    split = read_parquet(folder / "split/split.parquet")
    assert set(split["name"]) == set(table.index)
    assert split["fold_0"].value_counts().min() > 20


def test_sites_on_file_fit_the_fasta(observed):
    """The average of the letters at a motif's listed sites, read on their strand, is the motif."""
    folder, run = observed
    letters = {record.header: record.sequence for record in read_fasta(folder / "input/sequences.fa")}
    sites = read_parquet(folder / "input/truth_sites.parquet")
    for motif in load_motifs(parse_run(run).motifs):
        here = sites[sites["motif_id"] == motif.motif_id]
        words = [letters[s][a:b] for s, a, b in zip(here["sequence"], here["start"], here["end"], strict=True)]
        words = [alphabet.reverse_complement(w) if s == "-" else w for w, s in zip(words, here["strand"], strict=True)]
        found = pd.DataFrame([list(word) for word in words]).mode().iloc[0]
        strong = motif.ppm.max(0) > 0.6
        assert len(here) > 80 and (here["end"] - here["start"] == motif.width).all()
        assert "".join(found[strong]) == "".join(np.array(list(motif.consensus))[strong])


def test_twins_of_a_unit_are_never_parted(twinned):
    """All records of a unit share group and subset; what was set in each comes through ingest."""
    folder, _ = twinned
    table = read_parquet(folder / "data/sequences.parquet")
    twins = read_tsv(folder / "input/truth_twins.tsv")
    assert (table["group"] == table["unit"]).all() and len(table) == 400 + 4 * len(twins)
    assert table["cell"].notna().sum() == 4 * len(twins) > 1500
    split = read_parquet(folder / "split/split.parquet").merge(table, on="name")
    assert (split.groupby("unit")["fold_0"].nunique() == 1).all()
    assert set(split["fold_0"]) == {"train", "validation", "test"}


def test_unit_truth_is_the_readout_of_the_four_records(twinned):
    """truth_twins.tsv holds for each target what the four records of the unit are labelled with."""
    folder, _ = twinned
    table = read_parquet(folder / "data/sequences.parquet").dropna(subset="cell")
    for target, suffix in (("y", ""), ("y_sat", "_sat")):
        wide = table.pivot(index="unit", columns="cell", values=target)
        twins = read_tsv(folder / "input/truth_twins.tsv").set_index("unit")
        for cell in ("x00", "x01", "x10", "x11"):
            assert (twins[cell + suffix] == wide[cell].reindex(twins.index)).all()
    truth = json.loads((folder / "input/truth.json").read_text())
    assert set(truth["ceilings"]) == {"y", "y_sat"} and truth["n_with_twins"] == len(twins)


def test_a_ceiling_that_does_not_exist_is_null(tmp_path: Path):
    """Without effects truth.json is valid JSON and states no ceiling."""
    run = example(pairs=["DECOY"] * 10, gc_effect=0.0)
    (tmp_path / "run.json").write_text(json.dumps(run))
    call("simulate", "--settings", f"{tmp_path}/run.json", "--out", f"{tmp_path}/input")
    text = (tmp_path / "input/truth.json").read_text()
    assert json.loads(text)["ceiling"] is None and "NaN" not in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 160}, "of sequences would have more motifs than the 8 slots"),
        ({"pairs": ["AND"]}, "needs 2 motifs .* got 20"),
        ({"pairs": ["NAND"]}, "found 'NAND'"),
        ({"pairs": ["PARALOG"] + ["AND"] * 9}, "ELK1 and NFYA do not look alike"),
        ({"slot_bp": 15}, "at least the widest motif"),
    ],
)
def test_impossible_settings_end_with_a_message(changes: dict[str, Any], message: str, tmp_path: Path, capsys):
    """Exit code 1 or 2 and one plain message; no folder is left."""
    run = load_config(EXAMPLE).runs["grammar"].model_dump(mode="json")
    run["data"]["simulate"] |= changes
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"runs": {"grammar": run}}))
    with pytest.raises(SystemExit) as ended:
        main(["simulate", "--settings", f"{tmp_path}/config.yaml", "--out", f"{tmp_path}/input"])
    assert ended.value.code
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(message, error), error
    assert "Traceback" not in error and not (tmp_path / "input").exists()
