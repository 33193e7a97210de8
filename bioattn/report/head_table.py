"""The table of all heads and motifs of all replicates: a part of the section about attention heads."""

from typing import Any

import pandas as pd

from bioattn.plot.contact_sheet import best_match
from bioattn.report.blocks import Block, Cell, Column, Notice, Table, tsv_uri
from bioattn.report.files import ResultFiles
from bioattn.report.numbers import MISSING, as_float, count, p_value
from bioattn.report.tables import definitions, is_known, is_numeric, measured_cell, readable, records, value_cell
from bioattn.report.words import HEAD_VERDICTS

#: Columns in their order; those that are not compact come with 'all columns'.
_HEAD_COLUMNS = [
    "seed", "layer", "head", "motif", "verdict", "evidence", "consensus", "best_match", "enrichment_log2",
    "ablation_drop", "p_random", "matches", "note", "track", "n_seqlets", "n_sites", "information_bits", "p_value",
    "q_value", "reader_consensus", "reader_p_value", "distance_bp", "distance_iqr_bp", "ablation_loss",
    "ablation_effect", "motif_response", "motif_response_lost", "through_head", "through_head_q_value",
    "positional_share", "similarity",
]  # fmt: skip
_COMPACT = _HEAD_COLUMNS[: _HEAD_COLUMNS.index("matches")]
_HEAD_TITLES = {
    "track": "found in",
    "n_seqlets": "seqlets",
    "n_sites": "sites",
    "information_bits": "bits",
    "enrichment_log2": "enrichment (log2)",
    "p_value": "p",
    "q_value": "q",
    "reader_consensus": "around readers",
    "reader_p_value": "p, readers",
    "distance_bp": "distance (bp)",
    "distance_iqr_bp": "distance, IQR (bp)",
    "ablation_loss": "loss gained",
    "ablation_drop": "score lost",
    "ablation_effect": "RMS change",
    "p_random": "p, random",
    "motif_response": "motif response",
    "motif_response_lost": "response lost",
    "through_head": "sites through head",
    "through_head_q_value": "q, sites through head",
    "positional_share": "positional share",
}
#: Numbers that have an interval.
_WITH_INTERVAL = (
    "ablation_loss", "ablation_drop", "ablation_effect", "motif_response", "motif_response_lost", "through_head",
)  # fmt: skip


def head_table(files: ResultFiles, heads: pd.DataFrame, folder: str) -> list[Block]:
    """All heads of all replicates, with filters by verdict and word, and a download."""
    dictionary = files.table(f"{folder}/columns.tsv", ["column", "definition"], needed_for="definition of the columns")
    missing = isinstance(dictionary, Notice)
    tips = {} if isinstance(dictionary, Notice) else definitions(dictionary)
    shown = heads.assign(best_match=heads["matches"].map(best_match)) if "matches" in heads else heads
    names = [name for name in _HEAD_COLUMNS if name in shown]
    columns = [
        Column(
            name,
            _HEAD_TITLES.get(name, readable(name)),
            tips.get(name, tips.get("matches", "") if name == "best_match" else ""),
            numeric=is_numeric(shown[name]),
            compact=name in _COMPACT,
        )
        for name in names
    ]
    rows = [[_cell(name, row) for name in names] for row in records(shown)]
    n = heads["seed"].nunique()
    verdicts = [name for name in HEAD_VERDICTS if (heads["verdict"] == name).any()]
    table = Table(
        "head-table",
        f"All heads and motifs of {count(n, 'trained model')}",
        columns,
        rows,
        sortable=True,
        tools=True,
        verdicts=verdicts,
        download=tsv_uri(heads),
        download_name="heads.tsv",
        note="" if missing else "Point at a column name for its definition.",
    )
    return [dictionary, table] if isinstance(dictionary, Notice) else [table]


def _cell(name: str, row: dict[str, Any]) -> Cell:
    if name == "verdict":
        return verdict_cell(str(row[name]))
    cell = value_cell(name, row[name])
    if name == "best_match":
        return Cell(cell.text, below=str(row["note"]) if is_known(row.get("note")) else "", sort=cell.sort)
    value = as_float(row[name])
    if value is None:
        return cell
    if name == "motif" and value < 0:
        return Cell(MISSING, sort=cell.sort)
    if name == "p_random":
        return Cell(p_value(value), sort=cell.sort)
    if name == "enrichment_log2" and is_known(row.get("q_value")):
        return Cell(cell.text, below=f"q = {p_value(row['q_value'])}", sort=cell.sort)
    return measured_cell(row, name, name) if name in _WITH_INTERVAL else cell


def verdict_cell(verdict: str) -> Cell:
    return Cell(verdict, sort=verdict, verdict=verdict_class(verdict), full=verdict)


def verdict_class(verdict: str) -> str:
    """Class of a verdict in the style sheet."""
    return f"kind-{verdict}" if verdict in HEAD_VERDICTS else "kind-none"
