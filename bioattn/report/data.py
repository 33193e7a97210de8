"""Section about the data: counts, lengths, composition, and records that were left out."""

from typing import Any

import pandas as pd

from bioattn.config import RunConfig
from bioattn.report.blocks import Block, Fact, Facts, Notice, Section, Text
from bioattn.report.files import ResultFiles
from bioattn.report.numbers import count, number, percent
from bioattn.report.tables import plain_table

_SEQUENCES = "data/sequences.parquet"
_SUMMARY = "data/summary.json"
#: Counts of the summary that are shown unless they are 0.
_COUNTS = {
    "n_read": "records read",
    "n_rejected": "records rejected",
    "n_duplicates_dropped": "duplicates dropped",
    "n_negatives_made": "negatives made",
}


def data_section(files: ResultFiles, run: RunConfig) -> Section:
    """What was read: counts, lengths, GC per class, and rejected records."""
    table = files.table(_SEQUENCES, ["name", "sequence", "length"], needed_for="summary of the sequences")
    blocks: list[Block] = (
        [table] if isinstance(table, Notice) else _sequences(table, run, files.document(_SUMMARY) or {})
    )
    blocks += _rejected(files)
    return Section("data", "Data", blocks)


def _sequences(table: pd.DataFrame, run: RunConfig, summary: dict[str, Any]) -> list[Block]:
    lengths = table["length"]
    span = f"{lengths.min():,} bp" if lengths.min() == lengths.max() else f"{lengths.min():,} to {lengths.max():,} bp"
    facts = [
        Fact("sequences", f"{len(table):,}"),
        Fact("distinct sequences", f"{table['sequence'].nunique():,}"),
        Fact("length", span),
        Fact("GC content", percent(_gc(table["sequence"]).mean())),
    ]
    if "sample" in table:
        facts.append(Fact("input files", f"{table['sample'].nunique():,}"))
    facts += [Fact(text, number(summary[key])) for key, text in _COUNTS.items() if summary.get(key)]
    groups = _by_class(table, run)
    title = "Sequences by class" if run.task.kind in ("binary", "multilabel", "multiclass") else "Sequences by target"
    note = (
        "A difference in length or GC between classes is something a model can use instead of motifs. The baseline "
        "'composition only' shows how far that goes."
    )
    return [Facts(facts), plain_table("classes", title, groups, note=note)]


def _by_class(table: pd.DataFrame, run: RunConfig) -> pd.DataFrame:
    """Counts, lengths and GC per class; for numeric targets per third of the values."""
    table = table.assign(_gc=_gc(table["sequence"]))
    rows = []
    for target in [t for t in run.task.targets if t in table]:
        order = table[target].sort_values(kind="stable").index
        for label, part in table.loc[order].groupby(_labels(table[target], run), sort=False):
            rows.append(
                {
                    "target": target,
                    "class": str(label),
                    "sequences": len(part),
                    "mean length (bp)": part["length"].mean(),
                    "GC, mean": part["_gc"].mean(),
                    "GC, standard deviation": part["_gc"].std(),
                }
            )
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else ["target", "class", "sequences"])


def _labels(values: pd.Series, run: RunConfig) -> pd.Series:
    if run.task.kind in ("regression", "count"):
        labels = pd.qcut(values.rank(method="first"), 3, labels=["lowest third", "middle third", "highest third"])
        return labels.astype("object").fillna("missing")
    if run.task.kind == "multiclass":
        names = dict(enumerate(run.task.classes))
        return values.map(lambda value: names.get(int(value), str(value)) if pd.notna(value) else "missing")
    return values.map({0.0: "0 (negative)", 1.0: "1 (positive)"}).fillna("missing")


def _gc(sequences: pd.Series) -> pd.Series:
    """GC share of the known letters of each sequence."""
    gc = sequences.str.count("[GC]")
    return gc / (gc + sequences.str.count("[AT]")).clip(lower=1)


def _rejected(files: ResultFiles) -> list[Block]:
    if not (files.root / "data/rejected.tsv").exists():
        return []
    rejected = files.table("data/rejected.tsv", [], needed_for="list of rejected records")
    if isinstance(rejected, Notice):
        return [Text("No record was rejected.", "small")] if "no rows" in rejected.text else [rejected]
    return [plain_table("rejected", f"{count(len(rejected), 'rejected record')}", rejected, most_rows=10)]
