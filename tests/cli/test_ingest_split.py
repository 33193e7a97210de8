"""Verbs `ingest` and `split` on good input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from bioattn.cli.app import main
from bioattn.config import digest, parse_run, step_settings
from bioattn.io.tables import read_parquet, read_record


def call(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    for name in "pn":
        text = "".join(f">{name}{i}\n{''.join(rng.choice(list('acgt'), 37))}\n" for i in range(50))
        (tmp_path / f"{name}.fa").write_text(text)
    (tmp_path / "samples.tsv").write_text("sample\tpath\tlabel\np\tp.fa\t1\nn\tn.fa\t0\n")
    return tmp_path


def both(folder: Path, settings: str) -> None:
    call("ingest", "--settings", settings, "--samples", f"{folder}/samples.tsv", "--out", f"{folder}/data")
    call("split", "--settings", settings, "--sequences", f"{folder}/data/sequences.parquet", "--out", f"{folder}/split")


def test_files_carry_their_record(folder: Path) -> None:
    """Every output says seed and digest of the settings that its step reads, and no more."""
    sections: dict[str, Any] = {"seed": 7, "split": {"n_folds": 5}}
    (folder / "settings.json").write_text(json.dumps(sections))
    both(folder, f"{folder}/settings.json")
    run = parse_run(sections)
    for step, names in {
        "ingest": ["data/sequences.parquet", "data/rejected.tsv", "data/balance.tsv", "data/composition.tsv"],
        "split": ["split/split.parquet", "split/leakage.tsv", "split/neighbours.parquet", "split/audit.tsv"],
    }.items():
        for name in names:
            record = read_record(folder / name)
            assert (record["seed"], record["digest"]) == (7, digest(step_settings(run, step))), name
    summary = json.loads((folder / "data" / "summary.json").read_text())
    assert summary["n_sequences"] == 100 and summary["record"]["digest"] == digest(step_settings(run, "ingest"))
    assert sorted(p.name for p in (folder / "data").iterdir()) == [
        "balance.json",
        "balance.tsv",
        "composition.json",
        "composition.tsv",
        "rejected.json",
        "rejected.tsv",
        "sequences.parquet",
        "summary.json",
    ]


def test_split_names_the_sequences_in_order(folder: Path) -> None:
    """split.parquet has the names of sequences.parquet in order, and the leakage table a row per fold and subset."""
    (folder / "settings.json").write_text(json.dumps({"split": {"n_folds": 5}}))
    both(folder, f"{folder}/settings.json")
    sequences, subsets = read_parquet(folder / "data/sequences.parquet"), read_parquet(folder / "split/split.parquet")
    assert subsets["name"].tolist() == sequences["name"].tolist()
    assert list(subsets.columns) == ["name", "group", *(f"fold_{i}" for i in range(5))]
    leaks = pd.read_csv(folder / "split" / "leakage.tsv", sep="\t")
    assert leaks[["fold", "subset"]].to_numpy().tolist() == [[i, s] for i in range(5) for s in ("validation", "test")]


def test_split_finds_the_nearest_training_sequences(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The planted copy of a sequence is its neighbour where they part, and grouping by homology keeps them together."""
    lines = (folder / "p.fa").read_text().splitlines()
    copies = "".join(f">copy{i}\n{lines[2 * i + 1][2:]}\n" for i in range(20))
    (folder / "c.fa").write_text(copies)
    with (folder / "samples.tsv").open("a") as table:
        table.write("c\tc.fa\t1\n")
    for name, rules in {"plain": {}, "grouped": {"group_by": ["homology"], "identity": 0.9}}.items():
        (folder / "settings.json").write_text(json.dumps({"split": rules}))
        both(folder, f"{folder}/settings.json")
        neighbours = read_parquet(folder / "split/neighbours.parquet")
        subsets = read_parquet(folder / "split/split.parquet")
        held = subsets[subsets["fold_0"] != "train"]
        assert sorted(neighbours["name"]) == sorted(held["name"])
        found = neighbours.dropna(subset=["nearest"])
        pairs = found["name"].str.replace("copy", "p") == found["nearest"].str.replace("copy", "p")
        assert pairs.all() and (found["identity"] == 1).all() and (found["strand"] == "+").all()
        assert (len(found) > 0) == (name == "plain")
        audit = pd.read_csv(folder / "split/audit.tsv", sep="\t")
        test = (audit["measure"] == "related") & (audit["subset"] == "test") & (audit["identity"] == 0.8)
        assert audit.loc[test, "count"].item() == (found["subset"] == "test").sum()
        assert set(read_record(folder / "split/audit.tsv")["search"]) >= {"patterns", "sensitivity"}
        share = audit.loc[test, "value"].item()
        assert f"{share:.1%} of the test sequences have a training neighbour" in capsys.readouterr().out


def test_same_settings_give_the_same_tables(folder: Path) -> None:
    """A second run, by step settings instead of the whole configuration, gives identical tables."""
    document = {"seed": 3, "data": {"samples": "samples.tsv", "negatives": {"kind": "dinucleotide_shuffle"}}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"runs": {"one": document, "two": {**document, "seed": 4}}}))
    tables = []
    for settings, extra in [("config.yaml", ["--run", "one"]), ("step.json", []), ("config.yaml", ["--run", "two"])]:
        (folder / "step.json").write_text(json.dumps(step_settings(parse_run(document), "ingest")))
        out = folder / f"data{len(tables)}"
        call(
            "ingest",
            "--settings",
            f"{folder}/{settings}",
            *extra,
            "--samples",
            f"{folder}/samples.tsv",
            "--out",
            str(out),
        )
        tables.append(read_parquet(out / "sequences.parquet"))
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])
    assert len(tables[0]) == 150
