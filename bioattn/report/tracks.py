"""Which cheap track of a head says what flows through it: a part of the section about attention heads."""

import pandas as pd

from bioattn.report.blocks import Block, Cell, Column, Heading, Notice, Table, Text
from bioattn.report.files import ResultFiles
from bioattn.report.numbers import count, number
from bioattn.report.tables import measured_cell, records
from bioattn.report.words import TRACKS

_COLUMNS = ("layer", "head", "track", "spearman", "spearman_ci_low", "spearman_ci_high", "n_sequences", "note")


def track_blocks(files: ResultFiles, folder: str) -> list[Block]:
    """How well attention and its gradient order positions as substitutions do that act through one head alone."""
    table = files.table(f"{folder}/tracks.tsv", _COLUMNS, needed_for="comparison of tracks with substitutions")
    heading = Heading("Which track says what flows through a head")
    if isinstance(table, Notice):
        return [heading, table]
    text = (
        "Tracks are cheap, and show where a head looks. What a base does through it is dearer: the base is "
        "substituted, and only this head gets to see that (path patching). The rank correlation of the two, over "
        f"positions of held-out sequences, says how far a track can be believed. {_sentence(table)}"
    )
    return [heading, Text(text), _table(table)]


def _sentence(table: pd.DataFrame) -> str:
    """Which track comes closer, in how many heads."""
    wide = table.pivot(index=["layer", "head"], columns="track", values="spearman").dropna()
    if wide.empty or len(wide.columns) < 2:
        return "Substitutions act through no head, so there is nothing to compare."
    means = wide.mean().sort_values(ascending=False)
    best, other = (str(name) for name in means.index[:2])
    ahead = int((wide[best] > wide[other]).sum())
    return (
        f"Here {TRACKS[best]} comes closer in {ahead} of {count(len(wide), 'head')} "
        f"(mean {number(means[best])}, against {number(means[other])} of {TRACKS[other]})."
    )


def _table(table: pd.DataFrame) -> Table:
    columns = [
        Column("layer", "layer", numeric=True),
        Column("head", "head", numeric=True),
        *(Column(name, title, numeric=True) for name, title in TRACKS.items()),
        Column("n_sequences", "sequences", numeric=True),
        Column("note", "note"),
    ]
    rows = []
    for (layer, head), group in table.groupby(["layer", "head"]):
        by_track = {str(row["track"]): row for row in records(group)}
        any_row = next(iter(by_track.values()))
        note = any_row["note"]
        rows.append(
            [
                Cell(str(layer), sort=str(layer)),
                Cell(str(head), sort=str(head)),
                *(measured_cell(by_track.get(name, {}), "spearman", "spearman") for name in TRACKS),
                Cell(number(any_row["n_sequences"]), sort=str(any_row["n_sequences"])),
                Cell("" if pd.isna(note) else str(note)),
            ]
        )
    caption = "Rank correlation of tracks with the effect of substitutions through one head"
    note = "Mean over sequences; below it its 95 % interval."
    return Table("head-tracks", caption, columns, rows, sortable=True, note=note)
