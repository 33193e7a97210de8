"""The section about the split: what it says about near training sequences, memory and leak-free scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy_results import Made

from bioattn.config import RunConfig, parse_run
from bioattn.io.tables import read_parquet, read_tsv, write_parquet, write_tsv
from bioattn.report.blocks import Heading, Notice, Pictures, Section, Table, Text
from bioattn.report.files import ResultFiles
from bioattn.report.model import headline_score, held_out_scores
from bioattn.report.split import LEAK_FREE, split_section, split_sentence
from bioattn.report.words import MODEL_NAMES

LEAKY = 0.25


@pytest.fixture
def audited(editable: Made) -> Made:
    """A results folder with neighbours, an audit and leak-free scores."""
    write_audit(editable.root, share=LEAKY)
    return editable


def write_audit(root: Path, *, share: float, memory: float | None = 0.31, gap: float | None = 0.07) -> None:
    """Neighbours and audit with a share of near test sequences, and leak-free scores that are lower by a gap."""
    split = read_parquet(root / "split/split.parquet")
    held = split[split["fold_0"] != "train"]
    near = np.arange(len(held)) < round(share * len(held))
    neighbours = pd.DataFrame(
        {
            "name": held["name"].to_numpy(),
            "fold": 0,
            "subset": held["fold_0"].to_numpy(),
            "nearest": np.where(near, "seq0001", None),
            "identity": np.where(near, 0.93, np.nan),
            "strand": np.where(near, "+", None),
        }
    )
    write_parquet(root / "split/neighbours.parquet", neighbours, {})
    rows = [
        {
            "fold": 0, "subset": subset, "n": 80, "measure": "related", "readout": None, "identity": identity,
            "count": 80 * share, "value": share, "chance": 0.01, "sensitivity": 0.98,
        }
        for subset in ("validation", "test")
        for identity in (0.7, 0.8)
    ]  # fmt: skip
    rows += [
        {
            "fold": 0, "subset": "test", "n": 80, "measure": "nearest_pearson", "readout": "y", "identity": None,
            "count": 20, "value": memory, "chance": 0.0, "sensitivity": None,
        }
    ]  # fmt: skip
    write_tsv(root / "split/audit.tsv", pd.DataFrame(rows), {})
    metrics = read_tsv(root / "evaluation/metrics.tsv")
    free = metrics[metrics["subset"] == "test"].assign(subset=LEAK_FREE, n=60)
    if gap is None:
        free = free.assign(value=np.nan, ci_low=np.nan, ci_high=np.nan, note="undefined: 3 leak-free test sequences")
    else:
        free["value"] -= gap
    write_tsv(root / "evaluation/metrics.tsv", pd.concat([metrics, free]), {})


def section(made: Made) -> Section:
    return split_section(ResultFiles(made.root), made.run)


def text_of(found: Section) -> str:
    return " ".join(block.text for block in found.blocks if isinstance(block, Text))


def table_of(found: Section, name: str) -> Table:
    return next(block for block in found.blocks if isinstance(block, Table) and block.id == name)


def test_near_test_sequences_and_the_score_without_them(audited: Made) -> None:
    """One sentence says how many test sequences are near to training, and the score without them beside that with."""
    metrics = read_tsv(audited.root / "evaluation/metrics.tsv")
    score = headline_score(metrics, audited.run)
    assert score is not None
    text = text_of(section(audited))
    assert "25 % of the test sequences have a training neighbour at 80 % identity or more." in text
    assert f"of the trained model is {score.model['value'] - 0.07:.3f} instead of {score.model['value']:.3f}" in text
    assert "the target of the nearest training sequence, memory and nothing else, reaches Pearson r 0.31" in text


def test_scores_stand_side_by_side_for_every_model(audited: Made) -> None:
    """The table has each model's score on all test sequences and on the leak-free ones, with their numbers."""
    metrics = read_tsv(audited.root / "evaluation/metrics.tsv")
    table = table_of(section(audited), "leak-free")
    assert [column.title for column in table.columns] == ["model", "readout", "all", "n", "leak-free", "n"]
    scores = held_out_scores(metrics)
    values = scores[scores["metric"] == "pearson"].set_index("model")["value"].rename(MODEL_NAMES)
    assert [cells[0].text for cells in table.rows] == [name for name in MODEL_NAMES.values() if name in values]
    for cells in table.rows:
        value = values[cells[0].text]
        assert cells[2].text.startswith(f"{value:.3f}".rstrip("0")[:4])
        assert cells[4].text.startswith(f"{value - 0.07:.3f}".rstrip("0")[:4])
        assert cells[5].text == "60"


def test_counts_at_each_identity_are_tabled(audited: Made) -> None:
    """The table of near sequences has a row for each subset and identity, with chance and the search's sensitivity."""
    table = table_of(section(audited), "audit")
    titles = [column.title for column in table.columns]
    assert titles == ["subset", "identity", "n", "so near", "share", "share, shuffled", "found"]
    assert [[cell.text for cell in row[:5]] for row in table.rows] == [
        [subset, identity, "80", "20", "0.250"] for subset in ("validation", "test") for identity in ("70 %", "80 %")
    ]
    pictures = [block for block in section(audited).blocks if isinstance(block, Pictures)]
    assert any("nearest training sequence" in picture.alt for block in pictures for picture in block.pictures)


def test_nothing_near_means_the_whole_score_is_leak_free(editable: Made) -> None:
    """Without near test sequences the text says that the score is leak-free; undefined memory is not named."""
    write_audit(editable.root, share=0.0, memory=None, gap=0.0)
    text = text_of(section(editable))
    assert "No test sequence has a training neighbour at 80 % identity or more. So the whole test score is" in text
    assert "memory and nothing else" not in text and "instead of" not in text


def test_too_few_leak_free_sequences_are_explained(editable: Made) -> None:
    """Where the leak-free sequences could not be scored the reason stands in the text, and there is no table."""
    write_audit(editable.root, share=0.95, gap=None)
    found = section(editable)
    assert "95 % of the test sequences have" in text_of(found)
    assert "no score of their own: 3 leak-free test sequences." in text_of(found)
    assert not any(isinstance(block, Table) and block.id == "leak-free" for block in found.blocks)


def test_leak_free_rows_change_no_other_number(audited: Made, planted: Made) -> None:
    """The headline and the scores of the test part are the same with and without leak-free rows."""
    for name in ("pearson", "r2"):
        with_rows, without = (
            held_out_scores(read_tsv(made.root / "evaluation/metrics.tsv")) for made in (audited, planted)
        )
        pd.testing.assert_frame_equal(
            with_rows[with_rows["metric"] == name].reset_index(drop=True),
            without[without["metric"] == name].reset_index(drop=True),
        )
    scores = [headline_score(read_tsv(made.root / "evaluation/metrics.tsv"), made.run) for made in (audited, planted)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("piece", ["split/audit.tsv", "split/neighbours.parquet"])
def test_missing_results_are_named(piece: str, audited: Made) -> None:
    """A missing file costs its part only, and the section says how to make it."""
    (audited.root / piece).unlink()
    found = section(audited)
    notices = [block for block in found.blocks if isinstance(block, Notice)]
    assert [piece in notice.text and piece in notice.command for notice in notices] == [True]
    assert any(isinstance(block, Heading) for block in found.blocks)
    assert any(isinstance(block, Table) and block.id == "leakage" for block in found.blocks)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"group_by": ["homology"], "identity": 0.75}, "sequences of at least 75 % identity on either strand"),
        ({"group_by": ["overlap"], "overlap_distance_bp": 30}, "overlapping intervals, or at most 30 bp apart."),
        ({"group_by": ["overlap"]}, "overlapping intervals."),
        ({"group_by": ["shared_kmer", "homology"]}, "share a 20-mer on either strand, sequences of at least 80 %"),
        (
            {"kind": "chromosome", "test_chromosomes": ["chr2", "chr8"], "validation_chromosomes": ["chr9"]},
            "chr2 and chr8 for the test and chr9 for early stopping",
        ),
    ],
)
def test_the_split_is_put_into_words(rules: dict, expected: str) -> None:
    """Every way of holding out has its words."""
    run: RunConfig = parse_run({"split": rules})
    assert expected in split_sentence(run)
