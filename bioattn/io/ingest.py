"""From samples.tsv to one checked table: opens the files, leaves the judging to `bioattn.data.sequences`."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bioattn.config import DataConfig, TaskConfig
from bioattn.data.sequences import Ingested, LabelRow, Record, build_table, finish
from bioattn.errors import DataError
from bioattn.io.fasta import read_fasta
from bioattn.io.lines import read_delimited
from bioattn.io.samples import Sample
from bioattn.io.tables import read_parquet


def ingest(samples: Sequence[Sample], data: DataConfig, task: TaskConfig, *, seed: int) -> Ingested:
    """Checked sequences of all samples in one table, with made negatives if asked for.

    Raises
    ------
    DataError
        Names the file, the line or record, what was found and what is allowed.
    ConfigError
        If the header pattern is unusable.
    """
    labels: dict[str, Mapping[str, LabelRow]] = {}
    records: list[Record] = []
    for sample in samples:
        if sample.labels and str(sample.labels) not in labels:
            labels[str(sample.labels)] = read_labels(sample.labels, task.targets)
        records += read_records(sample, task.targets)
    built = build_table(records, labels, rules=data, task=task)
    done = finish(built, task=task, negatives=data.negatives, seed=seed)
    return Ingested(done.table, done.rejected, {**done.summary, "files": _checksums(samples)})


def read_records(sample: Sample, targets: Sequence[str]) -> Iterator[Record]:
    """Unchecked records of one sample's file, FASTA or table."""
    file = str(sample.path)
    labels = str(sample.labels) if sample.labels else None
    constant = {targets[0]: sample.label} if sample.label else {}
    if sample.sequence_column is None:
        for number, read in enumerate(read_fasta(sample.path, allow_empty=True), 1):
            yield Record(
                sample.name, file, read.line, number, read.sequence, read.header, fields=constant, labels=labels
            )
        return
    for number, (line, cells) in enumerate(_table_rows(sample), 1):
        sequence = cells.pop(sample.sequence_column)
        name = cells.pop(sample.name_column or "name", None)
        if constant and targets[0] in cells:
            raise DataError(
                f"{file}: found a column '{targets[0]}' beside the label of samples.tsv, allowed is one of the two"
            )
        yield Record(sample.name, file, line, number, sequence, name=name, fields={**cells, **constant}, labels=labels)


def read_labels(path: str | Path, targets: Sequence[str]) -> dict[str, LabelRow]:
    """Rows of a label table by record name.

    Raises
    ------
    DataError
        If a column is missing, or a name is empty or occurs twice.
    """
    rows: dict[str, LabelRow] = {}
    for line, cells in read_delimited(path, required=("name", *targets)).rows:
        name = cells.pop("name")
        if not name:
            raise DataError(f"{path} line {line}, column 'name': found nothing, every row needs the name of a record")
        if name in rows:
            raise DataError(
                f"{path} line {line}, column 'name': found '{name}', which line {rows[name].line} has already: "
                f"one row each"
            )
        rows[name] = LabelRow(line, cells)
    if not rows:
        raise DataError(f"{path}: found no rows, expected one per record below the header")
    return rows


def _table_rows(sample: Sample) -> Iterator[tuple[int, dict[str, str]]]:
    required = [str(sample.sequence_column), *([sample.name_column] if sample.name_column else [])]
    if sample.path.suffix != ".parquet":
        table = read_delimited(sample.path, required=required)
        if not table.rows:
            raise DataError(f"{sample.path}: found no rows, expected one per sequence below the header")
        yield from table.rows
        return
    frame = read_parquet(sample.path)
    for column in required:
        if column not in frame:
            raise DataError(f"{sample.path}: no column '{column}', found {', '.join(map(str, frame.columns))}")
    text = frame.map(lambda cell: "" if pd.isna(cell) else str(cell))
    for number, row in enumerate(text.to_dict("records"), 1):
        yield number, {str(key): value for key, value in row.items()}


def _checksums(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    files = []
    for sample in samples:
        with sample.path.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        files.append({"sample": sample.name, "file": sample.path.name, "sha256": digest})
    return files
