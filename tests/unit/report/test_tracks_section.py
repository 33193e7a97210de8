"""The part of the report about tracks: which of them says what flows through a head."""

import numpy as np
from toy_results import Made

from bioattn.io.tables import read_tsv, write_tsv
from bioattn.report.blocks import Notice, Table, Text
from bioattn.report.files import ResultFiles
from bioattn.report.tracks import track_blocks

FOLDER = "heads/seed1"
TABLE = f"{FOLDER}/tracks.tsv"


def blocks(made: Made) -> list[object]:
    return list(track_blocks(ResultFiles(made.root), FOLDER))


def sentence(made: Made) -> str:
    return next(block.text for block in blocks(made) if isinstance(block, Text))


def test_the_closer_track_is_named_with_the_heads_where_it_is(editable: Made):
    """Of seven heads with effects, the gradient is ahead in all; the means are those of these heads."""
    # received 0, .1, .2, .3, 0, .1, .2 and gradient four times .6, three times .4
    assert "attention × gradient comes closer in 7 of 7 heads (mean 0.514, against 0.129 of" in sentence(editable)


def test_the_sentence_follows_the_numbers(editable: Made):
    """With the tracks exchanged, the other one is named."""
    path = editable.root / TABLE
    table = read_tsv(path)
    other = {"received": "gradient", "gradient": "received"}
    write_tsv(path, table.assign(track=table["track"].map(other)), {})
    assert "attention received comes closer in 7 of 7 heads" in sentence(editable)


def test_every_head_has_a_row_with_both_tracks_and_its_note(editable: Made):
    """Numbers stand with their intervals, and a head through which nothing flows has its note in their place."""
    table = next(block for block in blocks(editable) if isinstance(block, Table))
    assert len(table.rows) == 8
    layer, head, received, gradient, n, note = table.rows[1]
    assert (layer.text, head.text, received.text, gradient.text, n.text) == ("0", "1", "0.100", "0.600", "20")
    assert received.below == "[0.050, 0.150]" and note.text == ""
    silent = table.rows[-1]
    assert silent[2].text == silent[3].text == "–" and "do nothing through this head" in silent[5].text


def test_nothing_to_compare_is_said(editable: Made):
    """Where no substitution acts through any head, the sentence says so."""
    path = editable.root / TABLE
    write_tsv(path, read_tsv(path).assign(spearman=np.nan), {})
    assert "act through no head" in sentence(editable)


def test_a_missing_table_is_a_notice(editable: Made):
    """Without the file there is a notice with the command that makes it."""
    (editable.root / TABLE).unlink()
    notice = next(block for block in blocks(editable) if isinstance(block, Notice))
    assert TABLE in notice.text or TABLE in (notice.command or "")
