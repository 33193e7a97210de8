"""The section about the data: what composition can tell, in plain words, and what was left out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from toy_results import Made, binary_run, record

from bioattn.config import RunConfig, parse_run
from bioattn.data.balance import BALANCE_COLUMNS, COMPOSITION_COLUMNS
from bioattn.data.composition import FEATURES
from bioattn.errors import DataError
from bioattn.io.tables import read_tsv, write_tsv
from bioattn.plot.balance import love_plot
from bioattn.report import data as section
from bioattn.report.blocks import Block, Notice, Pictures, Table, Text
from bioattn.report.data import data_section
from bioattn.report.files import ResultFiles

BALANCE, COMPOSITION, REJECTED = "data/balance.tsv", "data/composition.tsv", "data/rejected.tsv"


@pytest.fixture
def mine(sites: Made, tmp_path: Path, empty_figures: None) -> Made:
    """A results folder with the files of this section, that a test may change."""
    for path in (sites.root / "data").iterdir():
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / path.name).write_bytes(path.read_bytes())
    return Made(tmp_path, sites.run)


def blocks(made: Made, run: RunConfig | None = None) -> Sequence[Block]:
    return data_section(ResultFiles(made.root), run or made.run).blocks


def text_of(found: Sequence[Block]) -> str:
    return " ".join(block.text for block in found if isinstance(block, Text))


def table_of(found: Sequence[Block], id: str) -> Table:
    return next(block for block in found if isinstance(block, Table) and block.id == id)


def cells(table: Table) -> list[dict[str, str]]:
    return [dict(zip([c.title for c in table.columns], [c.text for c in row], strict=True)) for row in table.rows]


def set_differences(made: Made, after: dict[str, float], before: dict[str, float] | None = None) -> None:
    """Write a table of differences with means 0.6 and 0.4."""
    rows = [
        {
            **dict.fromkeys(BALANCE_COLUMNS, 7),
            **{"target": "label", "group": "1", "reference": "0", "feature": feature, "stage": stage, "smd": smd},
            **{"mean_group": 0.6, "mean_reference": 0.4},
        }
        for stage, sizes in (("before", before or {}), ("after", after))
        for feature, smd in sizes.items()
    ]
    write_tsv(made.root / BALANCE, pd.DataFrame(rows), record(made.run, "ingest"))


def set_scores(made: Made, value: float, metric: str = "auroc") -> None:
    rows = [
        {
            **dict.fromkeys(COMPOSITION_COLUMNS, 5),
            **{"target": "label", "group": "1", "reference": "0", "features": name, "metric": metric, "n": 600},
            **{"value": score, "ci_low": score - 0.01, "ci_high": score + 0.01},
        }
        for name, score in (("GC", value - 0.1), ("dinucleotides", value), ("trinucleotides", value - 0.02))
    ]
    write_tsv(made.root / COMPOSITION, pd.DataFrame(rows), record(made.run, "ingest"))


# --------------------------------------------------------------------- differences


def test_every_feature_has_a_name() -> None:
    """The report has words for exactly the features that the table has."""
    assert section._FEATURES == FEATURES


def test_large_differences_are_said_in_words(mine: Made) -> None:
    """A difference of 0.25 or more is stated with its size and both means, and what it means; a small one is named."""
    set_differences(mine, {"gc": -0.93, "length": 0.25, "cpg_ratio": 0.1, "top_dinucleotide": 0.0999})
    text = text_of(blocks(mine))
    assert "GC content differs by 0.93 standard deviations (0.600 in positives, 0.400 in negatives)." in text
    assert "Length differs by 0.25 standard deviations" in text
    assert "A model can use such differences instead of motifs." in text
    assert "Small differences (0.1 to 0.25): CpG observed over expected." in text
    assert "most frequent dinucleotide" not in text


def test_no_difference_is_said_too(mine: Made) -> None:
    """Where nothing differs by 0.1, the text says so and warns of nothing."""
    set_differences(mine, {"gc": 0.05, "length": 0.0})
    text = text_of(blocks(mine))
    assert "No feature differs by 0.1 standard deviations or more between positives and negatives." in text
    assert "instead of motifs" not in text and "Small differences" not in text


def test_constants_that_differ(mine: Made) -> None:
    """An infinite difference is a difference in every sequence, not a number."""
    set_differences(mine, {"gc": 0.0})
    assert "No feature of composition differs at all." in text_of(blocks(mine))
    set_differences(mine, {"length": np.inf, "gc": 0.0})
    assert "Length differs in every sequence (0.600 in positives, 0.400 in negatives)." in text_of(blocks(mine))


def test_case_is_no_letter(mine: Made) -> None:
    """A difference in lower case is stated, but not as something that a model can read."""
    set_differences(mine, {"soft_masked": np.inf, "gc": 0.0})
    text = text_of(blocks(mine))
    assert "Soft-masked share differs in every sequence" in text and "Models do not see lower case" in text
    assert "instead of motifs" not in text


def test_matching_is_shown(mine: Made) -> None:
    """With a stage before matching, the text says from where to where; without one the column is left out."""
    set_differences(mine, {"gc": 0.02, "length": 0.0, "cpg_ratio": 0.4}, {"gc": -1.2, "length": 0.0, "cpg_ratio": 0.3})
    found = blocks(mine)
    assert "Matching took the difference in GC content from 1.2 to 0.020." in text_of(found)
    assert [row["stage"] for row in cells(table_of(found, "balance"))] == ["before"] * 2 + ["after"] * 2
    set_differences(mine, {"gc": 0.02})
    assert "stage" not in [column.key for column in table_of(blocks(mine), "balance").columns]


def test_features_that_never_vary_are_left_out(mine: Made) -> None:
    """A feature without any difference has no row; the others have theirs, with the sides by name."""
    set_differences(mine, {"gc": 0.02, "length": 0.0, "unknown": 0.0})
    rows = cells(table_of(blocks(mine), "balance"))
    assert [row["feature"] for row in rows] == ["GC content"]
    assert rows[0]["standardised difference"] == "0.020" and rows[0]["mean, positives"] == "0.600"


def test_many_comparisons(mine: Made) -> None:
    """Of many classes the three that differ most get a sentence and a figure, in that order; the table has all."""
    run = parse_run({"data": {"samples": "s.tsv"}, "task": {"kind": "multiclass", "classes": list("abcde")}})
    sizes = dict(zip("abcde", (0.0, 0.5, -0.9, 0.3, 0.05), strict=True))
    rows = [
        {**dict.fromkeys(BALANCE_COLUMNS, 7), "target": "label", "group": name, "reference": "the rest",
         "feature": "gc", "stage": "after", "smd": smd}
        for name, smd in sizes.items()
    ]  # fmt: skip
    write_tsv(mine.root / BALANCE, pd.DataFrame(rows), {})
    found = blocks(mine, run)
    pictures = next(block for block in found if isinstance(block, Pictures)).pictures
    assert [drawn.caption for drawn in pictures] == [f"Class {name} against the rest." for name in "cbd"]
    assert pictures[0].alt == "Dots: GC content 0.90"
    assert "The 3 of 5 comparisons that differ most are shown; the table has all." in text_of(found)
    assert [row["comparison"] for row in cells(table_of(found, "balance"))] == [
        f"Class {name} against the rest" for name in "abcde"
    ]


# --------------------------------------------------------------- composition alone


@pytest.mark.parametrize(
    ("value", "metric", "words"),
    [
        (0.55, "auroc", "Composition alone hardly tells positives from negatives (AUROC 0.550 [0.540, 0.560], from"),
        (0.70, "auroc", "Composition alone tells positives from negatives to some degree (AUROC 0.700"),
        (0.90, "auroc", "Composition alone tells positives from negatives well (AUROC 0.900 [0.890, 0.910], from di"),
        (0.15, "pearson", "Composition alone hardly predicts label (Pearson r 0.150"),
        (0.40, "pearson", "Composition alone predicts label to some degree (Pearson r 0.400"),
        (0.60, "pearson", "Composition alone predicts label well (Pearson r 0.600"),
    ],
)
def test_verdict(mine: Made, value: float, metric: str, words: str) -> None:
    """The best score decides what is said, with the interval and the features that reach it."""
    set_scores(mine, value, metric)
    assert words in text_of(blocks(mine))


def test_a_way_out_is_named_where_there_is_one(mine: Made) -> None:
    """Matched negatives are advised if composition tells well and the negatives are the user's own."""
    set_scores(mine, 0.9)
    assert "Negatives that are matched in composition (data.negatives)" in text_of(blocks(mine))
    made_run = binary_run(data={"samples": "samples.tsv", "negatives": {"kind": "markov"}})
    assert "data.negatives)" not in text_of(blocks(mine, made_run))


def test_scores_are_in_the_table(mine: Made) -> None:
    """Each set of features has a row with its score, interval and number of sequences."""
    set_scores(mine, 0.9)
    rows = cells(table_of(blocks(mine), "composition"))
    assert rows[1] == {
        "features": "dinucleotides", "metric": "AUROC", "score": "0.900 [0.890, 0.910]", "sequences": "600",
    }  # fmt: skip


# ------------------------------------------------------------------- missing files


def test_missing_files_are_noticed(mine: Made) -> None:
    """Without a table there is a notice with the command that makes it, and the rest of the section is there."""
    for path in (BALANCE, COMPOSITION):
        (mine.root / path).unlink()
    found = blocks(mine)
    notices = [block for block in found if isinstance(block, Notice)]
    assert [notice.text.split()[0] for notice in notices] == [BALANCE, COMPOSITION]
    assert all(notice.command.startswith("snakemake") for notice in notices)
    assert table_of(found, "classes").rows and table_of(found, "rejected").rows


def test_tables_without_rows(mine: Made) -> None:
    """Too few sequences to fit a model is said as that, not as a missing file."""
    write_tsv(mine.root / COMPOSITION, read_tsv(mine.root / COMPOSITION)[:0], {})
    assert "too few sequences to see how far composition alone predicts" in text_of(blocks(mine))


# ---------------------------------------------------------------- rejected records


def test_rejected_records_are_grouped(mine: Made) -> None:
    """Reasons that differ in numbers or quoted text are one, the commonest first, with the first three places."""
    rows = [("x.fa", 3, "odd", "found 'E' at position 3: it looks like a protein sequence")]
    rows += [("y.fa", 2 * i + 1, f"r{i}", f"found length {i}, allowed is at least 10") for i in range(5)]
    rows += [("(made)", 0, "p|genomic1", "found no free region")]
    rows += [("x.fa", 9, "odder", "found 'L' at position 17: it looks like a protein sequence")]
    write_tsv(mine.root / REJECTED, pd.DataFrame(rows, columns=["file", "line", "name", "reason"]), {})
    table = table_of(blocks(mine), "rejected")
    assert table.caption == "8 rejected records, by reason"
    assert [(row["records"], row["first of them"]) for row in cells(table)] == [
        ("5", "y.fa line 1: r0; y.fa line 3: r1; y.fa line 5: r2; …"),
        ("2", "x.fa line 3: odd; x.fa line 9: odder"),
        ("1", "p|genomic1"),
    ]
    assert cells(table)[0]["reason"] == "found length 0, allowed is at least 10"


def test_nothing_rejected(mine: Made) -> None:
    """A table without rows is good news, in words."""
    write_tsv(mine.root / REJECTED, read_tsv(mine.root / REJECTED)[:0], {})
    assert "No record was rejected." in text_of(blocks(mine))


# -------------------------------------------------------------------------- figure


def marks(ax: Axes) -> list[tuple[float, float, str, str, str]]:
    """Place, shape, face and edge of every dot that stands for a number."""
    return [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]), str(line.get_marker()), *map(
            to_hex, (line.get_markerfacecolor(), line.get_color())
        ))
        for line in ax.get_lines()
        if line.get_marker() in ("o", ">") and len(line.get_xdata())
    ]  # fmt: skip


def test_love_plot_draws_the_sizes() -> None:
    """Dots lie at the size of the difference, rings for before; large ones differ in colour; features from the top."""
    table = pd.DataFrame(
        {
            "feature": ["a", "b", "a", "b"],
            "stage": ["before", "before", "after", "after"],
            "smd": [-0.8, 0.2, -0.05, 0.3],
        }
    )
    ax = love_plot(table)
    found = {(x, y): (marker, face, edge) for x, y, marker, face, edge in marks(ax)}
    assert set(found) == {(0.8, 0), (0.2, 1), (0.05, 0), (0.3, 1)}
    assert found[0.8, 0][1] == found[0.2, 1][1] == "#ffffff"
    assert found[0.05, 0][1] == found[0.2, 1][2] != found[0.3, 1][1] == found[0.8, 0][2]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["a", "b"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1] and ax.get_legend() is not None


def test_love_plot_keeps_what_is_beyond_the_axis() -> None:
    """An infinite difference is a triangle at the end of the axis; a missing one is not drawn."""
    table = pd.DataFrame({"feature": ["a", "b", "c"], "stage": "after", "smd": [np.inf, 0.3, np.nan]})
    ax = love_plot(table)
    right = ax.get_xlim()[1]
    assert [(x, y, marker) for x, y, marker, *_ in marks(ax)] == [(right, 0, ">"), (0.3, 1, "o")]
    assert ax.get_legend() is None
    with pytest.raises(DataError, match="smd"):
        love_plot(table.drop(columns="smd"))
