"""The benchmark through the command line, on models that learn next to nothing: files, resumption, mistakes."""

import json
from pathlib import Path

import pytest
from toy_verbs import call

from bioattn.bench import unit as units
from bioattn.bench.rivals import WITH_MODEL, WITHOUT_MODEL
from bioattn.cli.bench import TABLES
from bioattn.io.tables import read_parquet, read_record, read_tsv

SMALL = ["--suite", "A", "--replicates", 2, "--sequences", 1200, "--epochs", 1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two units, and their scoreboard."""
    work = tmp_path_factory.mktemp("bench")
    call("bench", *SMALL, "--out", work / "a")
    call("bench", *SMALL, "--training", "balanced", "--seed", 2, "--no-rivals", "--out", work / "b")
    call("scoreboard", "--unit", work / "a", "--unit", work / "b", "--out", work / "board")
    return work


@pytest.mark.slow
def test_a_unit_has_all_pairs_with_their_truth_and_every_method(folder: Path):
    """66 pairs; classes as planted; rows for us and all rivals; nothing is left of the training."""
    pairs, scores = read_parquet(folder / "a" / "pairs.parquet"), read_parquet(folder / "a" / "scores.parquet")
    assert len(pairs) == 66
    assert pairs["class"].value_counts().to_dict() == {"NULL": 60, "HIDDEN": 3, "AND": 2, "ADDITIVE": 1}
    assert (pairs["interaction"] != 0).sum() == 2 and {"verdict", "sentence", "truth_logodds"} <= set(pairs)
    assert set(scores["method"]) == {*units.OURS, *units.SANITY, *WITH_MODEL, *WITHOUT_MODEL}
    assert scores.groupby("method").size().eq(66).all()
    assert read_record(folder / "a" / "pairs.parquet")["replicates"] == 2
    seconds = read_tsv(folder / "a" / "costs.tsv").set_index("step")["seconds"]
    assert {"train", "bioattn: knock-in", "DFIM"} <= set(seconds.index) and (seconds >= 0).all()
    summary = json.loads((folder / "a" / "summary.json").read_text())
    assert summary["ceiling"] == pytest.approx(0.76, abs=0.06) and abs(summary["r_attention_truth"]) <= 1
    assert set(read_parquet(folder / "b" / "scores.parquet")["method"]) == set(units.OURS)
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "board"]


@pytest.mark.slow
def test_the_scoreboard_has_its_tables_figures_and_page(folder: Path):
    """Every table, with both arms; the page holds them and needs nothing else."""
    board = folder / "board"
    assert {f"{name}.tsv" for name in TABLES} <= {path.name for path in board.iterdir()}
    ranking = read_tsv(board / "ranking.tsv")
    assert set(ranking["training"]) == {"plain", "balanced"} and ranking["auprc"].between(0, 1).all()
    assert read_tsv(board / "verdicts.tsv")["n_pairs"].sum() == 2 * 66
    assert all((board / f"{name}.svg").read_text().startswith("<?xml") for name in ("precision", "calibration"))
    page = (board / "report.html").read_text()
    assert "Who ranks true interactions first" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_a_stopped_unit_does_not_train_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What was trained before a stop is taken up; other settings train anew."""
    trained: list[int] = []
    keep = units.fit

    def count(*given, seed: int, **more):
        trained.append(seed)
        return keep(*given, seed=seed, **more)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(units, "fit", count)
    monkeypatch.setattr(units, "pair_data", stop)
    for sequences, expected in ((600, [1, 2]), (600, []), (700, [1, 2])):
        trained.clear()
        with pytest.raises(SystemExit):
            call("bench", *SMALL[:4], "--sequences", sequences, "--epochs", 1, "--out", tmp_path / "unit")
        assert trained == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--suite", "Q"], "--suite must be one of A, B, C, D, E, got 'Q'"),
        (["--suite", "A", "--training", "fair"], "--training must be one of plain, balanced, permuted, got 'fair'"),
        (["--suite", "A", "--regime", "int"], "mixed0.25, got 'int'"),
    ],
)
def test_mistakes_are_named(words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """One line, before anything is simulated."""
    with pytest.raises(SystemExit) as stopped:
        call("bench", *words, "--out", tmp_path / "x")
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and message in error and error.count("\n") == 1


@pytest.mark.slow
def test_a_unit_that_is_not_there_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The scoreboard says which unit lacks what."""
    with pytest.raises(SystemExit) as stopped:
        call("scoreboard", "--unit", folder / "a", "--unit", tmp_path / "none", "--out", tmp_path / "board")
    assert stopped.value.code == 2 and str(tmp_path / "none") in capsys.readouterr().err
    assert not (tmp_path / "board").exists()
