"""Records in, one table of checked sequences out; no files here.

A record is bad if a model cannot learn from it as it stands. What happens then
is the user's choice: stop at the first, or leave bad records out and list them.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bioattn.config import DataConfig, NegativesConfig, TaskConfig
from bioattn.data import alphabet
from bioattn.data.negatives import add_shuffled
from bioattn.errors import ConfigError, DataError

#: Fewer usable sequences cannot be split three ways and learned from.
MIN_SEQUENCES = 10
SUBSETS = ("train", "validation", "test")
#: Columns of the table that are ours to fill.
RESERVED = ("sequence", "sample", "length", "split_given")

_AMBIGUOUS = "RYSWKMBDHV"
_TO_N = str.maketrans(dict.fromkeys(_AMBIGUOUS, "N"))
_ILLEGAL = re.compile(f"[^{alphabet.LETTERS}N{_AMBIGUOUS}]")
_PROTEIN = set("ACDEFGHIKLMNPQRSTVWYXBZ*")
#: Amino acids whose letters are no nucleotide code.
_PROTEIN_ONLY = set("EFILPQZ*")
_WHOLE_NUMBER = re.compile(r"\d+(\.0)?")  # binary tables hold 7.0 where others are missing
_MISSING = {"", "NA", "NaN", "nan"}
_STRANDS = {"+": "+", "forward": "+", "plus": "+", "-": "-", "reverse": "-", "minus": "-", ".": "."}


@dataclass(frozen=True)
class Record:
    """A sequence as it was read, before any check.

    Attributes
    ----------
    sample, file : str
        Where it comes from.
    line : int
        1-based line of the header, or row of a binary table.
    number : int
        1-based position in its file.
    header : str or None
        FASTA header; None for a row of a table.
    name : str or None
        Given name; None to derive it by `data.name_from`.
    fields : mapping of str to str
        Cells that come with the record: targets and other columns.
    labels : str or None
        Key of the label table that holds its targets.
    """

    sample: str
    file: str
    line: int
    number: int
    sequence: str
    header: str | None = None
    name: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    labels: str | None = None


class LabelRow(NamedTuple):
    """One row of a label table: its line and its cells without the name."""

    line: int
    values: Mapping[str, str]


@dataclass(frozen=True)
class Ingested:
    """Checked sequences, what was left out, and counts of both.

    Attributes
    ----------
    table : DataFrame
        One row per sequence: name, sequence, sample, length, split_given, group,
        the targets (float64), then any further columns that the input had.
    rejected : DataFrame
        Columns file, line, name, reason.
    summary : dict
        Counts for people and for the report, JSON types only.
    """

    table: pd.DataFrame
    rejected: pd.DataFrame
    summary: dict[str, Any]


class _Bad(Exception):
    """Why one record cannot be used."""


class _Rejected(NamedTuple):
    file: str
    line: int
    name: str
    reason: str


def build_table(
    records: Sequence[Record],
    labels: Mapping[str, Mapping[str, LabelRow]],
    *,
    rules: DataConfig,
    task: TaskConfig,
) -> Ingested:
    """Checked table of records joined with their labels.

    Letters are upper-cased and ambiguity codes become N. A header pattern is
    searched in each FASTA header and its named groups become columns; a group
    called `name` is the record's name. `start` is taken as 0-based.

    Parameters
    ----------
    records : sequence of Record
        In file order.
    labels : mapping
        Label tables by key (their file), each a mapping from record name to row.

    Raises
    ------
    DataError
        With `on_bad_record: fail` at the first bad record; with `skip` if too
        many are bad; if fewer than `MIN_SEQUENCES` remain.
    ConfigError
        If the header pattern is not a usable regular expression.
    """
    taken = sorted({"name", "group", *RESERVED} & set(task.targets))
    if taken:
        raise ConfigError(
            f"task.targets: found '{taken[0]}', which is a column with another meaning: rename the target"
        )
    reader = _Reader(labels, rules=rules, task=task)
    reader.check_pattern(records)
    rejected: list[_Rejected] = []

    def reject(file: str, line: int, name: str, reason: str) -> None:
        if rules.on_bad_record == "fail":
            raise DataError(
                f"{file} line {line}: record '{name}': {reason} (data.on_bad_record: skip leaves bad records out)"
            ) from None
        rejected.append(_Rejected(file, line, name, reason))

    rows = []
    for record in records:
        try:
            rows.append(reader.row(record))
        except _Bad as bad:
            reject(record.file, record.line, reader.shown_name(record), str(bad))
    for file, line, name in reader.unused_labels():
        reject(file, line, name, "found labels for a record that no sequence file has, allowed are names of records")
    n_read, n_bad = len(records), len(rejected)
    if n_bad > rules.max_bad_fraction * max(n_read, 1):
        first = rejected[0]
        raise DataError(
            f"found {n_bad} bad of {n_read} records, allowed are {rules.max_bad_fraction:.3g} of them "
            f"(data.max_bad_fraction); the first is {first.file} line {first.line}, '{first.name}': {first.reason}"
        )
    table = pd.DataFrame.from_records([row.cells for row in rows])
    if rules.duplicate_sequences == "drop" and len(table):
        table, dropped = _drop_duplicates(table, rows)
        rejected += dropped
    if len(table) < MIN_SEQUENCES:
        files = sorted({record.file for record in records})
        raise DataError(
            f"{', '.join(files)}: found {len(table)} usable sequences, at least {MIN_SEQUENCES} are needed "
            f"(read {n_read}, left out {len(rejected)})"
        )
    table = _typed(table, task)
    reasons = pd.DataFrame(rejected, columns=list(_Rejected._fields))
    n_dropped = len(rejected) - n_bad
    counts = {
        "n_read": n_read,
        "n_rejected": n_bad,
        "n_duplicates_dropped": n_dropped,
        "n_ambiguous_letters": reader.n_ambiguous,
    }
    return Ingested(table, reasons, counts)


def finish(ingested: Ingested, *, task: TaskConfig, negatives: NegativesConfig, seed: int) -> Ingested:
    """The same with made negatives added, targets checked as a whole, and a full summary.

    Raises
    ------
    DataError
        If the targets do not vary: one class only, one value only.
    """
    table, rejected = ingested.table, ingested.rejected
    n_made = 0
    if negatives.kind == "dinucleotide_shuffle":
        made = add_shuffled(table, target=task.targets[0], per_positive=negatives.per_positive, seed=seed)
        n_made = len(made.table) - len(table)
        table, rejected = made.table, pd.concat([rejected, made.rejected], ignore_index=True)
    check_targets(table, task)
    return Ingested(table, rejected, {**ingested.summary, "n_negatives_made": n_made, **summarise(table, task)})


def check_targets(table: pd.DataFrame, task: TaskConfig) -> None:
    """Raise `DataError` if a target has one class or one value only."""
    for target in task.targets:
        values = table[target].dropna()
        if task.kind == "multiclass":
            missing = [name for i, name in enumerate(task.classes) if not (values == i).any()]
            if missing:
                raise DataError(
                    f"target '{target}': found no sequence of class {', '.join(missing)}, every one of task.classes "
                    f"({', '.join(task.classes)}) needs some: add sequences or leave the class out"
                )
        elif values.nunique() < 2:
            found = f"{values.iloc[0]:g} for all {len(values)} sequences" if len(values) else "no values"
            if task.kind in ("binary", "multilabel"):
                raise DataError(
                    f"target '{target}': found one class only ({found}), both 0 and 1 are needed: add a file with "
                    f"the other class to samples.tsv, or set data.negatives.kind: dinucleotide_shuffle if these are "
                    f"positives"
                )
            raise DataError(f"target '{target}': found {found}, values that differ are needed")


def summarise(table: pd.DataFrame, task: TaskConfig) -> dict[str, Any]:
    """Counts of a table of sequences, JSON types only."""
    letters = Counter[str]()
    for sequence in table["sequence"]:
        letters.update(sequence)
    n_known = sum(letters[letter] for letter in alphabet.LETTERS)
    lengths = table["length"]
    copies = table[table["sequence"].duplicated(keep=False)].groupby("sequence")[list(task.targets)]
    targets: dict[str, Any] = {}
    for target in task.targets:
        values = table[target].dropna()
        if task.kind in ("regression", "count"):
            quartiles = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
            targets[target] = {
                "n": len(values),
                "mean": float(values.mean()),
                "sd": float(values.std()),
                "quartiles": quartiles,
            }
        else:
            names = dict(enumerate(task.classes)) if task.kind == "multiclass" else {0: "0", 1: "1"}
            targets[target] = {
                "n": len(values),
                "classes": {name: int((values == i).sum()) for i, name in names.items()},
            }
    return {
        "n_sequences": len(table),
        "samples": {str(name): int(n) for name, n in table["sample"].value_counts(sort=False).items()},
        "length": {"min": int(lengths.min()), "median": float(lengths.median()), "max": int(lengths.max())},
        "gc_mean": (letters["G"] + letters["C"]) / max(n_known, 1),
        "n_with_unknown_bases": int(table["sequence"].str.contains("N", regex=False).sum()),
        "n_duplicate_sequences": int(table["sequence"].duplicated().sum()),
        "n_sequences_with_conflicting_targets": int((copies.nunique() > 1).any(axis=1).sum()),
        "targets": targets,
        "columns": list(table.columns),
    }


def clean_sequence(sequence: str, *, min_length: int = 1, max_length: int | None = None) -> str:
    """The sequence in upper case with ambiguity codes as N.

    Raises
    ------
    DataError
        If it is empty, too short or too long, RNA, protein, aligned, holds an
        illegal letter, or has no known base. Names the letter and its position.
    """
    if not sequence:
        raise DataError("found no sequence after the header, expected DNA letters")
    upper = sequence.upper()
    bad = _ILLEGAL.search(upper)
    if bad:
        raise DataError(_illegal(sequence, upper, bad.start()))
    cleaned = upper.translate(_TO_N)
    n_ambiguous = cleaned.count("N") - upper.count("N")
    if 2 * n_ambiguous > len(upper):
        raise DataError(
            f"{n_ambiguous} of {len(upper)} letters are ambiguity codes, allowed is DNA: is it a protein sequence?"
        )
    if cleaned.count("N") == len(cleaned):
        raise DataError("found only unknown bases, at least one A, C, G or T is needed")
    if len(cleaned) < min_length:
        raise DataError(f"found length {len(cleaned)}, allowed is at least {min_length} (data.min_length)")
    if max_length is not None and len(cleaned) > max_length:
        raise DataError(f"found length {len(cleaned)}, allowed is at most {max_length} (data.max_length)")
    return cleaned


def _illegal(sequence: str, upper: str, position: int) -> str:
    letters = set(upper)
    found = f"found {sequence[position]!r} at position {position + 1}"
    allowed = f"allowed are A, C, G, T, N and the ambiguity codes {_AMBIGUOUS}"
    if letters & _PROTEIN_ONLY and letters <= _PROTEIN:
        return f"{found}: it looks like a protein sequence; {allowed}"
    if "U" in letters and not _ILLEGAL.search(upper.replace("U", "T")):
        return f"{found}: it looks like RNA; {allowed}: write T for U"
    if upper[position] in "-.":
        return f"{found}: it looks like an aligned sequence; {allowed}: remove the gaps"
    return f"{found}; {allowed}"


class _Row(NamedTuple):
    cells: dict[str, Any]
    file: str
    line: int


class _Reader:
    """Turns records into rows one by one, and remembers which names and labels were used."""

    def __init__(self, labels: Mapping[str, Mapping[str, LabelRow]], *, rules: DataConfig, task: TaskConfig) -> None:
        self.labels, self.rules, self.task = labels, rules, task
        self.pattern = _compile(rules.header_pattern)
        self.seen: dict[str, str] = {}
        self.used: dict[str, set[str]] = {key: set() for key in labels}
        self.n_ambiguous = 0

    def check_pattern(self, records: Sequence[Record]) -> None:
        headers = [record for record in records if record.header is not None]
        if self.pattern and headers and not any(self.pattern.search(record.header or "") for record in headers):
            first = headers[0]
            raise DataError(
                f"{first.file} line {first.line}: data.header_pattern '{self.pattern.pattern}' matches no header, "
                f"the first is '{first.header}': correct the pattern, or drop it"
            )

    def row(self, record: Record) -> _Row:
        groups = self._groups(record)
        name = groups.pop("name", None) or self._name(record)
        if record.labels is not None:
            self.used[record.labels].add(name)  # even if the record is bad: its labels are not the problem
        place = f"{record.file} line {record.line}"
        if name in self.seen:
            raise _Bad(
                f"found the name a second time (first {self.seen[name]}), names must differ: set data.name_from: "
                f"{'number' if self.rules.name_from == 'full_header' else 'number or full_header'}"
            )
        try:
            sequence = clean_sequence(
                record.sequence, min_length=self.rules.min_length, max_length=self.rules.max_length
            )
        except DataError as error:
            raise _Bad(str(error)) from None
        cells = self._fields(record, name, groups)
        targets = self._targets(cells, record)
        split = cells.pop("split", "")
        if split not in _MISSING and split not in SUBSETS:
            raise _Bad(f"found split '{split}', allowed are {', '.join(SUBSETS)} or nothing")
        if cells.get("strand", "") not in (*_STRANDS, *_MISSING):
            raise _Bad(f"found strand '{cells['strand']}', allowed are {', '.join(_STRANDS)}")
        if cells.get("start", "") not in _MISSING and not _WHOLE_NUMBER.fullmatch(cells["start"]):
            raise _Bad(f"found start '{cells['start']}', allowed is a whole number of at least 0")
        self.seen[name] = place
        self.n_ambiguous += sequence.count("N") - record.sequence.upper().count("N")
        extra = {key: value for key, value in cells.items() if key not in (*RESERVED, "name", "group", *targets)}
        group = cells.get("group", "")
        known = {
            "name": name,
            "sequence": sequence,
            "sample": record.sample,
            "length": len(sequence),
            "split_given": None if split in _MISSING else split,
            "group": None if group in _MISSING else group,
        }
        return _Row({**known, **targets, **extra}, record.file, record.line)

    def unused_labels(self) -> list[tuple[str, int, str]]:
        return [
            (key, row.line, name)
            for key, table in self.labels.items()
            for name, row in table.items()
            if name not in self.used[key]
        ]

    def shown_name(self, record: Record) -> str:
        """Name for messages, of a record whose real name may not be known."""
        words = (record.header or "").split()
        return record.name or (words[0] if words else f"{record.sample}_{record.number:06d}")

    def _name(self, record: Record) -> str:
        if record.name is not None:
            if not record.name:
                raise _Bad("found no name, every row needs one")
            return record.name
        if self.rules.name_from == "number" or record.header is None:
            return f"{record.sample}_{record.number:06d}"
        name = record.header if self.rules.name_from == "full_header" else (record.header.split() or [""])[0]
        if not name:
            raise _Bad("found a header without a name, expected '>name': or set data.name_from: number")
        return name

    def _groups(self, record: Record) -> dict[str, str]:
        if self.pattern is None or record.header is None:
            return {}
        match = self.pattern.search(record.header)
        if match is None:
            raise _Bad(f"data.header_pattern does not match its header '{record.header}', it must match every header")
        return {key: value for key, value in match.groupdict().items() if value is not None}

    def _fields(self, record: Record, name: str, groups: Mapping[str, str]) -> dict[str, str]:
        sources = [("its file or samples.tsv", record.fields), ("data.header_pattern", groups)]
        if record.labels is not None:
            row = self.labels[record.labels].get(name)
            if row is None:
                raise _Bad(f"found no row for it in the labels {record.labels}, every record needs one")
            sources.append((record.labels, row.values))
        merged: dict[str, str] = {}
        origin: dict[str, str] = {}
        for source, values in sources:
            for key, value in values.items():
                if key in merged:
                    raise _Bad(f"found '{key}' in {origin[key]} and in {source}, allowed is one source")
                merged[key], origin[key] = value, source
        return merged

    def _targets(self, cells: Mapping[str, str], record: Record) -> dict[str, float]:
        values: dict[str, float] = {}
        for target in self.task.targets:
            if target not in cells:
                raise _Bad(
                    f"found no value of the target '{target}', give it by the column label or labels of samples.tsv, "
                    f"as a column of the table, or as (?P<{target}>...) in data.header_pattern"
                )
            values[target] = parse_target(cells[target], target, self.task)
        if all(np.isnan(value) for value in values.values()):
            raise _Bad(f"found no value of any target ({', '.join(values)}), at least one is needed")
        return values


def parse_target(text: str, target: str, task: TaskConfig) -> float:
    """Value of a target as a number: the class index for multiclass, NaN where missing is allowed."""
    if text in _MISSING:
        if task.kind in ("multilabel", "regression"):
            return float("nan")
        raise _Bad(f"found no value of the target '{target}', a {task.kind} target needs one")
    if task.kind == "multiclass":
        if text not in task.classes:
            raise _Bad(f"found '{text}' as target '{target}', allowed are {', '.join(task.classes)} (task.classes)")
        return float(list(task.classes).index(text))
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if task.kind in ("binary", "multilabel") and value not in (0.0, 1.0):
        missing = ", or NA" if task.kind == "multilabel" else ""
        raise _Bad(f"found '{text}' as target '{target}', allowed are 0 and 1{missing} ({task.kind})")
    if task.kind == "count" and not (value >= 0 and value.is_integer()):
        raise _Bad(f"found '{text}' as target '{target}', allowed are whole numbers of at least 0 (count)")
    if not np.isfinite(value):
        raise _Bad(f"found '{text}' as target '{target}', allowed are finite numbers ({task.kind})")
    return value


def _compile(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"data.header_pattern: found '{pattern}', not a regular expression ({error})") from None
    if not compiled.groupindex:
        raise ConfigError(
            f"data.header_pattern: found '{pattern}' without named groups, expected some, as (?P<start>\\d+)"
        )
    taken = sorted(set(compiled.groupindex) & set(RESERVED))
    if taken:
        raise ConfigError(f"data.header_pattern: found the group '{taken[0]}', not allowed are {', '.join(RESERVED)}")
    return compiled


def _drop_duplicates(table: pd.DataFrame, rows: Sequence[_Row]) -> tuple[pd.DataFrame, list[_Rejected]]:
    first = dict(zip(table["sequence"][::-1], table["name"][::-1], strict=True))
    again = table["sequence"].duplicated().to_numpy()
    dropped = [
        _Rejected(row.file, row.line, row.cells["name"], f"same sequence as '{first[row.cells['sequence']]}', dropped")
        for row, is_copy in zip(rows, again, strict=True)
        if is_copy
    ]
    return table[~again].reset_index(drop=True), dropped


def _typed(table: pd.DataFrame, task: TaskConfig) -> pd.DataFrame:
    known = ["name", "sequence", "sample", "length", "split_given", "group", *task.targets]
    table = table[[*known, *(name for name in table.columns if name not in known)]].copy()
    for name in table.columns:
        if name == "strand":
            table[name] = _text(table[name].map(_STRANDS).fillna("."))
        elif name == "start":
            table[name] = _numbers_or_text(table[name]).astype("Int64")
        elif name in ("split_given", "group", "chromosome"):
            table[name] = _text(table[name])
        elif name in task.targets:
            table[name] = table[name].astype(np.float64)
        elif name not in ("name", "sequence", "sample", "length"):
            table[name] = _numbers_or_text(table[name])
    return table


def _text(column: pd.Series) -> pd.Series:
    """Column of str and None: the one way to hold missing text that pandas 2 and 3 share."""
    kept = column.astype(object)
    return kept.where(~(kept.isna() | kept.isin(list(_MISSING))), None)


def _numbers_or_text(column: pd.Series) -> pd.Series:
    blank = column.isna() | column.isin(list(_MISSING))
    numbers = pd.to_numeric(column.where(~blank), errors="coerce")
    return _text(column) if (numbers.isna() & ~blank).any() else numbers.astype(np.float64)
