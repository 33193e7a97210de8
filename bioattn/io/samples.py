"""samples.tsv: which files a run reads, and where their targets come from."""

import difflib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bioattn.errors import BioattnWarning, DataError
from bioattn.io.lines import Row, read_delimited

#: Columns of samples.tsv and what they hold.
COLUMNS = {
    "sample": "name of the sample: letters, digits, '_', '-' and '.'",
    "path": "FASTA file, or TSV, CSV or parquet table with sequences; relative to the folder of samples.tsv",
    "label": "target value of all records of the file (single target)",
    "labels": "TSV or CSV with a column `name` and the target columns, optional `split`, `group` and others",
    "sequence_column": "column with the sequences, if `path` is a table",
    "name_column": "column with the record names, if `path` is a table: default `name`, or numbers if there is none",
}
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_TABLE_SUFFIXES = (".tsv", ".csv", ".txt", ".parquet")


@dataclass(frozen=True)
class Sample:
    """One row of samples.tsv, with its paths found.

    Attributes
    ----------
    label : str or None
        Target value of all records of the file, as written.
    labels : Path or None
        Table of targets by record name.
    sequence_column, name_column : str or None
        For `path` that is a table.
    """

    name: str
    path: Path
    label: str | None = None
    labels: Path | None = None
    sequence_column: str | None = None
    name_column: str | None = None


def read_samples(path: str | Path, targets: Sequence[str]) -> list[Sample]:
    """Rows of a samples.tsv, checked.

    Relative paths are looked up from the folder of samples.tsv, then from the
    working directory. A column that is not in `COLUMNS` is ignored with a
    warning, unless it looks like a misspelt one.

    Parameters
    ----------
    targets : sequence of str
        Target columns of the task; `label` needs exactly one.

    Raises
    ------
    DataError
        Names the file, line and column, what was found and what is allowed.
    """
    path = Path(path)
    table = read_delimited(path, required=("sample", "path"), tabs_only=True)
    _check_columns(path, table.columns)
    if not table.rows:
        raise DataError(f"{path}: found no rows, expected one line per file below the header")
    samples: list[Sample] = []
    lines: dict[str, int] = {}
    for row in table.rows:
        sample = _parse(path, row, targets)
        if sample.name in lines:
            raise DataError(
                f"{path} line {row.line}, column 'sample': found '{sample.name}', which line {lines[sample.name]} has "
                f"already: sample names must differ"
            )
        lines[sample.name] = row.line
        samples.append(sample)
    return samples


def _parse(path: Path, row: Row, targets: Sequence[str]) -> Sample:
    def fail(column: str, found: str, allowed: str) -> DataError:
        return DataError(f"{path} line {row.line}, column '{column}': found {found}, allowed is {allowed}")

    cells = {name: row.values.get(name) or None for name in COLUMNS}
    name, file = cells["sample"], cells["path"]
    if not name or not _NAME.fullmatch(name):
        raise fail("sample", f"'{name or ''}'", "a name of letters, digits, '_', '-' and '.'")
    if not file:
        raise fail("path", "nothing", "the path of a FASTA file or of a table")
    data = _locate(path, row.line, "path", file)
    label, labels = cells["label"], cells["labels"]
    if label and labels:
        raise fail("label", f"'{label}' beside labels '{labels}'", "one of the two")
    if label and len(targets) != 1:
        raise fail(
            "label", f"'{label}' for the targets {', '.join(targets)}", "a single target; use the column 'labels'"
        )
    is_table = data.name.removesuffix(".gz").endswith(_TABLE_SUFFIXES)
    if cells["name_column"] and not cells["sequence_column"]:
        raise fail("sequence_column", "nothing beside a name_column", "the name of the column with the sequences")
    # A .txt may hold FASTA as well as a table; the others cannot be FASTA.
    if is_table and not data.name.removesuffix(".gz").endswith(".txt") and not cells["sequence_column"]:
        raise fail("sequence_column", f"nothing for the table {file}", "the name of the column with the sequences")
    if cells["sequence_column"] and not is_table:
        raise fail(
            "sequence_column",
            f"'{cells['sequence_column']}' for {file}",
            "a table (.tsv, .csv, .txt, .parquet) in path",
        )
    return Sample(
        name=name,
        path=data,
        label=label,
        labels=_locate(path, row.line, "labels", labels) if labels else None,
        sequence_column=cells["sequence_column"],
        name_column=cells["name_column"],
    )


def _locate(path: Path, line: int, column: str, file: str) -> Path:
    beside = path.parent / file
    for candidate in (beside, Path(file)):
        if candidate.is_file():
            return candidate
    raise DataError(
        f"{path} line {line}, column '{column}': no such file '{file}', looked in {path.parent} and in the "
        f"working directory"
    )


def _check_columns(path: Path, columns: list[str]) -> None:
    for name in columns:
        if name in COLUMNS:
            continue
        near = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.75)
        if near:
            raise DataError(f"{path} line 1: '{name}' is not a column of samples.tsv; did you mean '{near[0]}'?")
        warnings.warn(
            f"{path}: column '{name}' is ignored, known are {', '.join(COLUMNS)}", BioattnWarning, stacklevel=3
        )
