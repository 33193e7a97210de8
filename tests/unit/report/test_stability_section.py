"""The part of the report about replicates: the numbers of the tables, a figure, and what is not there."""

import base64
import re

import numpy as np
import pandas as pd
import pytest

from bioattn.errors import DataError
from bioattn.io.tables import write_tsv
from bioattn.plot.save import svg_bytes
from bioattn.plot.stability import motif_frequencies
from bioattn.report.blocks import Heading, Notice, Pictures, Section, Table, Text
from bioattn.report.build import render
from bioattn.report.files import ResultFiles
from bioattn.report.stability import stability_blocks

PPM = np.eye(4)[:, [0, 1, 2, 3, 2]] * 0.9 + 0.025


def a_table(**changes) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "cluster": [0, 1, 2, 3],
            "consensus": ["ACGTG", "CCAAT", "TTTTT", "GGGGG"],
            "matches": ["USF1 MA0093.4 (q=1.0e-08) +12 of bHLH-ZIP; X M1 (q=0.04)", "NFYA MA0060.4 (r=0.93)", "", ""],
            "n_replicates": [3, 2, 1, 0],
            "n_total": 3,
            "frequency": [1.0, 2 / 3, 1 / 3, 0.0],
            "frequency_ci_low": [0.44, 0.21, 0.06, 0.0],
            "frequency_ci_high": [1.0, 0.94, 0.79, 0.56],
            "n_reading": [3, 1, 0, 0],
            "q_value": [1e-9, 1e-3, 0.04, 0.6],
            "enrichment_log2": [3.0, 2.0, 1.0, 0.1],
            "representative": ["2:0.1.0", "1:1.0.1", "3:0.0.0", "1:0.0.0"],
            "members": ["1:0.1.0; 2:0.1.0; 3:1.1.0", "1:1.0.1; 2:1.0.0", "3:0.0.0", "1:0.0.0"],
            "note": "",
        }
    )
    return table.assign(**changes)


def matches(**changes) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "seed_a": 1, "layer_a": 0, "head_a": [0, 1, 2, 3], "seed_b": 2, "layer_b": 0, "head_b": [1, 0, 3, 2],
            "similarity": [0.9, 0.8, 0.4, 0.1], "null_similarity": 0.1, "null_q95": 0.5, "note": "",
        }
    )  # fmt: skip
    return table.assign(**changes)


def write(root, motifs: pd.DataFrame, heads: pd.DataFrame | None) -> list:
    (root / "heads" / "seed2").mkdir(parents=True, exist_ok=True)
    np.savez(root / "heads" / "seed2" / "motifs.npz", layer0_head1_motif0=PPM)
    write_tsv(root / "heads" / "stability.tsv", motifs, {"seed": 1})
    if heads is not None:
        write_tsv(root / "heads" / "head_matches.tsv", heads, {"seed": 1})
    return stability_blocks(ResultFiles(root))


def text(blocks) -> str:
    return " ".join(block.text for block in blocks if isinstance(block, Text))


def test_nothing_is_said_where_nothing_was_compared(tmp_path):
    """Without the table there is no block; a damaged one is named."""
    assert stability_blocks(ResultFiles(tmp_path)) == []
    blocks = write(tmp_path, a_table().drop(columns="n_total"), matches())
    assert isinstance(blocks[0], Heading) and isinstance(blocks[1], Notice) and "n_total" in blocks[1].text


def test_numbers_are_those_of_the_tables(tmp_path):
    """How many motifs come back in all replicates and how many in one, with interval, and how alike partners are."""
    blocks = write(tmp_path, a_table(), matches())
    assert "Of 3 motifs that some replicate shows" in text(blocks)
    assert "1 is found in all 3 and 1 in one only" in text(blocks)
    assert "partner is 0.600; 50 % of 4 matches are closer than 95 %" in text(blocks)
    table = next(block for block in blocks if isinstance(block, Table))
    assert len(table.rows) == 3 and table.rows[1][2].text == "2 of 3 (21 % to 94 %)"
    pictures = next(block for block in blocks if isinstance(block, Pictures))
    assert "3 motifs" in pictures.pictures[0].alt
    html = render("t", "r", "", [Section("heads", "Heads", blocks)])
    assert "USF1 (+1 family): 3 of 3" in base64.b64decode(re.findall(r"svg\+xml;base64,([^\"]+)", html)[0]).decode()


def test_little_is_said_of_little(tmp_path):
    """One replicate makes no claim and no figure; no motif at all, and a missing table of heads, are said."""
    one = a_table(n_total=1, n_replicates=[1, 1, 0, 0])
    blocks = write(tmp_path, one, matches().iloc[:1].assign(similarity=np.nan, null_q95=np.nan))
    assert "says nothing about others" in text(blocks) and "no heads to match" in text(blocks)
    assert not any(isinstance(block, Pictures) for block in blocks)
    (tmp_path / "heads" / "head_matches.tsv").unlink()
    blocks = write(tmp_path, a_table(n_replicates=0), None)
    assert "No motif is enriched in held-out sequences in any of 3 replicates." in text(blocks)
    assert isinstance(blocks[-1], Notice) and "head_matches.tsv" in blocks[-1].text


def test_figure_has_a_dot_at_each_frequency():
    """One dot per motif at its frequency with its interval, a logo where there is a matrix and letters where not."""
    figure = motif_frequencies(a_table(), {"2:0.1.0": PPM})
    lines = [line for ax in figure.axes[1::2] for line in ax.lines]
    dots = [line.get_xdata()[0] for line in lines if line.get_marker() == "o"]
    bars = [list(line.get_xdata()) for line in lines if len(line.get_xdata()) == 2]
    assert dots == [1.0, 2 / 3, 1 / 3, 0.0] and bars[1] == [0.21, 0.94] and len(bars) == 4
    words = [label.get_text() for ax in figure.axes for label in ax.texts]
    assert words == ["CCAAT", "TTTTT", "GGGGG"] and figure.axes[0].patches
    titles = [ax.get_title(loc="left") for ax in figure.axes[1::2]]
    assert titles == [
        "USF1 (+1 family): 3 of 3",
        "NFYA: 2 of 3",
        "no known motif like it: 1 of 3",
        "no known motif like it: 0 of 3",
    ]
    assert svg_bytes(figure) == svg_bytes(motif_frequencies(a_table(), {"2:0.1.0": PPM}))
    assert len(motif_frequencies(a_table(), {}, most_rows=2).axes) == 4
    with pytest.raises(DataError, match="needs the columns"):
        motif_frequencies(a_table().drop(columns="frequency"), {})
    with pytest.raises(DataError, match="at least one motif"):
        motif_frequencies(a_table().iloc[:0], {})


def test_names_out_of_the_table_are_text(tmp_path):
    """Markup in a name is shown, not run, and a label that names another folder is not followed."""
    odd = a_table(matches="<script>alert(1)</script> M1 (q=0.01)", representative="../../x:0.0.0")
    html = render("t", "r", "", [Section("heads", "Heads", write(tmp_path, odd, matches()))])
    assert "<script>alert" not in html
    assert all(b"<script" not in base64.b64decode(d) for d in re.findall(r"svg\+xml;base64,([^\"]+)", html))
