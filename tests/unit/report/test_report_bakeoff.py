"""The section and the figure about tokenizers: there where they were compared, with the numbers of the table."""

import base64
import re

import numpy as np
import pandas as pd
import pytest

from bioattn.errors import DataError
from bioattn.io.tables import write_tsv
from bioattn.plot.bakeoff import bakeoff_panels
from bioattn.plot.save import svg_bytes
from bioattn.report.bakeoff import bakeoff_section
from bioattn.report.blocks import Notice, Pictures, Table, Text
from bioattn.report.build import render
from bioattn.report.files import ResultFiles

MEASURED = (
    "metric", "bits_per_base", "motif_recovery", "train_sequences_per_second", "predict_sequences_per_second",
)  # fmt: skip
PANELS = [("metric", "AUROC"), ("bits_per_base", "bits per base")]


def a_table(**changes) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "tokenizer": ["nucleotides", "6-mers, stride 6", "BPE, 1024 words"],
            "metric_name": "auroc",
            "metric": [0.93, 0.88, 0.90],
            "bits_per_base": [1.95, 1.97, 1.99],
            "motif_recovery": [0.5, 0.25, 0.25],
            "train_sequences_per_second": [900.0, 3000.0, 2500.0],
            "predict_sequences_per_second": [2000.0, 8000.0, 5000.0],
            "n_words": [np.nan, 5463, 1024],
            "n_parameters": [72_001, 417_153, 133_000],
            "tokens_per_sequence": [21.0, 14.0, 19.4],
            "markov3_bits_per_base": 1.96,
            "n_train": 4000,
            "n_test": 860,
            "n_bits": 860,
            "n_seeds": 3,
        }
    )
    for name in MEASURED:
        table[f"{name}_sd"] = 0.01
    return table.assign(**changes)


def section_of(tmp_path, table: pd.DataFrame):
    (tmp_path / "bakeoff").mkdir(exist_ok=True)
    write_tsv(tmp_path / "bakeoff" / "bakeoff.tsv", table, {"seed": 1})
    return bakeoff_section(ResultFiles(tmp_path))


def texts(section) -> str:
    return " ".join(block.text for block in section.blocks if isinstance(block, Text))


def test_no_comparison_no_section(tmp_path):
    """Where tokenizers were not compared, nothing is said; where the table is damaged, that is said."""
    assert bakeoff_section(ResultFiles(tmp_path)) is None
    damaged = section_of(tmp_path, a_table().drop(columns="metric_sd"))
    assert isinstance(damaged.blocks[0], Notice) and "lacks the columns metric_sd" in damaged.blocks[0].text


def test_section_shows_the_numbers_of_the_table(tmp_path):
    """The best tokenizer by name and score, how many sequences and seeds, a figure, and each mean with its spread."""
    section = section_of(tmp_path, a_table())
    assert "3 kinds of tokens, 3 times each, on 4,000 sequences, and scored (AUROC) on 860 held-out ones" in texts(
        section
    )
    assert "The best are nucleotides with AUROC 0.930." in texts(section)
    table = next(block for block in section.blocks if isinstance(block, Table))
    assert [cell.text for cell in table.rows[1]][:3] == ["6-mers, stride 6", "0.880 ± 0.010", "1.97 ± 0.010"]
    assert [column.title for column in table.columns][:2] == ["tokens", "AUROC"]
    assert any(isinstance(block, Pictures) for block in section.blocks)
    html = render("t", "r", "", [section])
    assert 'id="tokenizers"' in html and "5,463" in html


def test_no_winner_where_seeds_differ_as_much(tmp_path):
    """A lead smaller than the spread of seeds is called none, and with one seed nothing is claimed."""
    close = texts(section_of(tmp_path, a_table(metric=[0.93, 0.925, 0.90])))
    assert "The best two, nucleotides and 6-mers, stride 6, differ by less than seeds do." in close
    single = texts(section_of(tmp_path, a_table(n_seeds=1, metric_sd=np.nan)))
    assert "With one seed" in single and "best" not in single


def test_missing_numbers_are_left_out(tmp_path):
    """What was not measured has neither a column nor a panel; a table of missing numbers has no figure."""
    section = section_of(tmp_path, a_table(motif_recovery=np.nan, motif_recovery_sd=np.nan))
    table = next(block for block in section.blocks if isinstance(block, Table))
    assert "known motifs found" not in [column.title for column in table.columns]
    empty = {name: np.nan for name in ("metric", "bits_per_base", "motif_recovery")}
    assert not any(isinstance(block, Pictures) for block in section_of(tmp_path, a_table(**empty)).blocks)


def test_figure_has_a_dot_for_each_number():
    """One dot per tokenizer and panel at its value, none for a missing one, a dashed line at the reference."""
    table = a_table(bits_per_base=[1.95, np.nan, 1.99])
    figure = bakeoff_panels(table, PANELS, references={"bits_per_base": 1.96})
    dots = [[line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"] for ax in figure.axes]
    assert dots == [[0.93, 0.88, 0.90], [1.95, 1.99]]
    dashed = [line.get_xdata()[0] for line in figure.axes[1].lines if line.get_linestyle() == "--"]
    assert dashed == [1.96]
    svg = svg_bytes(figure)
    assert svg == svg_bytes(bakeoff_panels(table, PANELS, references={"bits_per_base": 1.96}))
    assert b"6-mers, stride 6" in svg
    with pytest.raises(DataError, match=r"a figure of tokenizers needs the columns \['metric_sd'\]"):
        bakeoff_panels(table.drop(columns="metric_sd"), PANELS)


def test_section_is_safe(tmp_path):
    """Names out of the table are text, not markup."""
    section = section_of(tmp_path, a_table(tokenizer=["<script>alert(1)</script>", "a", "b"]))
    html = render("t", "r", "", [section])
    assert "<script>alert" not in html
    drawings = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", html)
    assert drawings and all(b"<script" not in base64.b64decode(d) for d in drawings)
