"""The protein track through the command line: a made-up family, made-up chains, their tables, and the page."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from toy_protein import TINY, chain, places, sequence, write_pdb
from toy_verbs import call

from bioattn.config import load_protein
from bioattn.data.structure import Chain
from bioattn.io.tables import read_parquet, read_record, read_tsv
from bioattn.report.protein import rejected_proteins


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and all results of the track."""
    folder = tmp_path_factory.mktemp("protein")
    draw = np.random.default_rng(0)
    query = sequence(40, 99)
    write_pdb(folder / "family.pdb", Chain("family", query, [str(i + 1) for i in range(40)], places(40, 99)))
    rows = [query] + [
        "".join(letter if draw.random() < 0.6 else draw.choice(list("ACDEFGHIKLMNPQ")) for letter in query)
        for _ in range(60)
    ]
    (folder / "family.fasta").write_text("".join(f">s{i}\n{row}\n" for i, row in enumerate(rows)))
    lines = ["name\tpath"]
    for seed in range(24):
        write_pdb(folder / f"c{seed}.pdb", chain(26 + seed % 9, seed))
        lines.append(f"c{seed}\tc{seed}.pdb")
    (folder / "chains.tsv").write_text("\n".join([*lines, "gone\tgone.pdb"]) + "\n")
    document = {
        "protein": {
            "families": {
                "made": {"alignment": str(folder / "family.fasta"), "structure": str(folder / "family.pdb")},
                "lost": {"alignment": str(folder / "lost.fasta"), "structure": str(folder / "family.pdb")},
            },
            "factored": {"seeds": [1, 2], "n_heads": 3, "d_head": 4, "steps": 12, "batch_size": 16},
            "chains": {"source": str(folder / "chains.tsv"), "test_fraction": 0.3, "validation_fraction": 0.2},
            "trunk": TINY.model_dump(mode="json"),
            "bootstrap": 50,
        }
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    settings, results = ("--settings", folder / "config.yaml"), folder / "results"
    for name in ("made", "lost"):
        call("family", *settings, "--name", name, "--reject", "--out", results / "families" / name)
    call("chains", *settings, "--out", results / "chains")
    chains = ("--chains", results / "chains")
    for variant in TINY.variants:
        call("trunk", *settings, *chains, "--variant", variant, "--out", results / "trunks" / variant)
    networks = [word for variant in TINY.variants for word in ("--network", results / "trunks" / variant)]
    call("distances", *settings, *chains, *networks, "--out", results / "distances")
    page = ("--out", results / "report.html", "--rejected", results / "rejected.tsv")
    call("protein", *settings, "--results", results, *page)
    return folder


@pytest.mark.slow
def test_a_family_has_its_tables(work: Path):
    """Both methods on the alignment and its nulls; each pair once; a row for each head; a record."""
    folder = work / "results" / "families" / "made"
    table = read_tsv(folder / "precision.tsv")
    assert set(table["control"]) == {"alignment", "permuted columns", "phylogeny alone"}
    own = table[(table["control"] == "alignment") & (table["method"] == "factored attention")]
    assert set(own["seed"].astype(str)) == {"1", "2", "mean"}
    pairs = read_parquet(folder / "pairs.parquet")
    assert len(pairs) == 40 * 39 // 2 and not pairs.duplicated(["i", "j"]).any()
    assert pairs["contact"].equals(pairs["distance_angstrom"].lt(8).astype("boolean"))
    assert len(read_tsv(folder / "heads.tsv")) == 2 * 3
    assert np.load(folder / "patterns.npz")["patterns"].shape == (3, 40, 40)
    assert read_record(folder / "precision.tsv")["step"] == "family"


@pytest.mark.slow
def test_chains_have_their_split_and_rejects(work: Path):
    """All chains in one of three parts; the missing file is listed."""
    folder = work / "results" / "chains"
    assert read_parquet(folder / "chains.parquet")["subset"].value_counts().sum() == 24
    assert read_tsv(folder / "rejected.tsv")["name"].tolist() == ["gone"]


@pytest.mark.slow
def test_networks_are_judged_and_looked_into(work: Path):
    """Scores of each network, differences to the trunk, audits, knock-outs, probe; nothing is left of training."""
    folder = work / "results" / "distances"
    scores = read_tsv(folder / "scores.tsv")
    assert list(dict.fromkeys(scores["network"])) == TINY.variants
    assert set(read_tsv(folder / "differences.tsv")["network"]) == {"told", "no_triangles", "window"}
    n = json.loads((folder / "summary.json").read_text())["n_test"]
    assert len(read_tsv(folder / "proteins.tsv")) == 4 * n
    thirds = read_tsv(folder / "thirds_summary.tsv")[["network", "told_share"]].drop_duplicates()
    assert thirds.values.tolist() == [["trunk", 0.0], ["told", 0.0], ["told", 0.3]]
    assert len(read_tsv(folder / "thirds.tsv")) == 3 * min(TINY.inside_chains, n)
    told = read_tsv(folder / "told.tsv")
    assert told["told_share"].unique().tolist() == [0.0, 0.1, 0.2, 0.3] and len(told) == 4 * 5 * 2
    assert set(told["network"]) == {*TINY.variants, "told_nothing"}
    none = told[told["told_share"] == 0].set_index(["network", "score"])["mean"]
    assert none["told"].equals(none["told_nothing"])
    assert len(read_tsv(folder / "told_differences.tsv")) == 4 * 4 * 2
    assert len(read_tsv(folder / "heads.tsv")) == 2 * (2 + 2 * 3 + 2)
    assert set(read_tsv(folder / "probe.tsv")["network"]) == {"trunk", "untrained"}
    assert sorted(p.name for p in (work / "results" / "trunks" / "trunk").iterdir())[:1] == ["history.json"]


@pytest.mark.slow
def test_the_page_holds_everything_and_needs_nothing(work: Path):
    """Sections and pictures; no address of another file."""
    text = (work / "results" / "report.html").read_text()
    assert read_tsv(work / "results" / "rejected.tsv")["name"].tolist() == ["lost", "gone"]
    assert "Family lost" in text and 'id="family-lost"' not in text
    for words in (
        "Family made",
        "Many chains",
        "Told some contacts",
        "What each part is needed for",
        "Third residues",
        "gone.pdb",
    ):
        assert words in text
    assert text.count("data:image/svg+xml") >= 15 and not re.search(r'(src|href)="(?!#|data:)', text)


def test_a_family_that_cannot_be_used_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Alone it stops the page, which says why; without --reject its own verb fails and writes nothing."""
    (tmp_path / "ragged.fasta").write_text(">a\nACD\n>b\nAC\n")
    write_pdb(tmp_path / "a.pdb", chain(20, 1))
    family = {"alignment": str(tmp_path / "ragged.fasta"), "structure": str(tmp_path / "a.pdb")}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"protein": {"families": {"bad": family}}}))
    settings, results = ("--settings", tmp_path / "c.yaml"), tmp_path / "results"
    with pytest.raises(SystemExit):
        call("family", *settings, "--out", results / "families" / "bad")
    assert "ragged.fasta line 3" in capsys.readouterr().err and not results.exists()
    call("family", *settings, "--reject", "--out", results / "families" / "bad")
    assert "rejected: " in capsys.readouterr().out
    assert read_tsv(results / "families" / "bad" / "precision.tsv").empty
    with pytest.raises(SystemExit):
        call("protein", *settings, "--results", results, "--out", tmp_path / "p.html", "--rejected", tmp_path / "r.tsv")
    assert "no family can be used, first 'bad': " in capsys.readouterr().err and not (tmp_path / "r.tsv").exists()
    config = load_protein(tmp_path / "c.yaml")
    assert rejected_proteins(results, config)["name"].tolist() == ["bad"]


@pytest.mark.slow
def test_mistakes_end_in_one_line(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """No such family, variant or section; a network twice; a missing alignment."""

    def fail(*words: object) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit):
            call(*words)
        return capsys.readouterr().err

    settings = ("--settings", work / "config.yaml")
    assert "the families are ['lost', 'made'] and 'x' is not one of them" in fail(
        "family", *settings, "--name", "x", "--out", tmp_path / "o"
    )
    chains = ("--chains", work / "results" / "chains")
    assert "no network 'tree'; there are trunk" in fail(
        "trunk", *settings, *chains, "--variant", "tree", "--out", tmp_path / "o"
    )
    twice = ("--network", work / "results" / "trunks" / "window") * 2
    assert "a network 'window' was given before" in fail(
        "distances", *settings, *chains, *twice, "--out", tmp_path / "o"
    )
    alone = {"protein": {"families": {"a": {"alignment": "none.fasta", "structure": "none.pdb"}}}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(alone))
    assert "none.fasta" in fail("family", "--settings", tmp_path / "c.yaml", "--out", tmp_path / "o")
    assert "protein.chains is missing" in fail("chains", "--settings", tmp_path / "c.yaml", "--out", tmp_path / "o")
    assert not (tmp_path / "o").exists()
