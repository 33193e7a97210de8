"""Records in, one table of checked sequences out; no files here.

A record is bad if a model cannot learn from it as it stands. What happens then
is the user's choice: stop at the first, or leave bad records out and list them.
"""

import re
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from bioattn.config import DataConfig, NegativesConfig, TaskConfig
from bioattn.data import alphabet
from bioattn.data.letters import clean
from bioattn.data.matching import GenomeLike, Interval
from bioattn.data.negatives import add_negatives
from bioattn.data.rows import Rows, copies
from bioattn.errors import ConfigError, DataError
from bioattn.rng import stream

#: Fewer usable sequences cannot be split three ways and learned from.
MIN_SEQUENCES = 10
SUBSETS = ("train", "validation", "test")
#: Columns of the table that are ours to fill.
RESERVED = ("sequence", "sample", "length", "split_given", "soft_masked")

#: Binary tables hold 7.0 where others are missing.
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,15}(\.0)?")
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


class BadRecord(NamedTuple):
    """What a reader found in place of a record that it cannot make a sequence of, and why."""

    file: str
    line: int
    name: str
    reason: str


class LeftOut(NamedTuple):
    """A record that a reader leaves out because a setting says so: it is listed, but not bad."""

    file: str
    line: int
    name: str
    reason: str


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
        the targets (float64), then any further columns that the input had, among
        them chromosome, start and end (0-based, half-open; start is negative
        where unknown bases stand for what lies before the contig), strand, and
        soft_masked (spans as "0-12,55-80"; only if any letter was lower case in
        a sample that is not in lower case throughout).
    rejected : DataFrame
        Columns file, line, name, reason.
    summary : dict
        Counts for people and for the report, JSON types only.
    before : DataFrame, optional
        What negatives were matched from, for the balance table.
    """

    table: pd.DataFrame
    rejected: pd.DataFrame
    summary: dict[str, Any]
    before: pd.DataFrame | None = None


class Unusable(Exception):
    """Why a record, or the place it comes from, gives no sequence."""


def build_table(
    records: Iterable[Record | BadRecord | LeftOut],
    labels: Mapping[str, Mapping[str, LabelRow]],
    *,
    rules: DataConfig,
    task: TaskConfig,
    seed: int,
) -> Ingested:
    """Checked table of records joined with their labels.

    Records are judged one by one as they come. A header pattern is searched in
    each FASTA header and its named groups become columns; a group called `name`
    is the record's name. `start` is taken as 0-based, and moves with the letters
    that are cut off or added.

    Parameters
    ----------
    records : iterable of Record, BadRecord and LeftOut
        In file order.
    labels : mapping
        Label tables by key (their file), each a mapping from record name to row.
    seed : int
        Run seed, for `ambiguous: sample`: what is drawn for a record depends on
        it and the record's name alone.

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
    reader = _Reader(labels, rules=rules, task=task, seed=seed)
    sorted_out = _SortedOut(rules)
    rows = Rows({"length": pa.int64(), **dict.fromkeys(task.targets, pa.float64())})
    files: dict[str, None] = {}
    records = iter(records)
    for record in records:
        files[record.file] = None
        sorted_out.n_read += 1
        if isinstance(record, LeftOut):
            reader.use_labels(record.name)
            sorted_out.leave_out(record)
        elif isinstance(record, BadRecord):
            reader.use_labels(record.name)
            sorted_out.reject(record)
        else:
            try:
                rows.add(reader.row(record))
            except Unusable as bad:
                if rules.on_bad_record == "fail":
                    reader.check_pattern(records)
                sorted_out.reject(BadRecord(record.file, record.line, reader.shown_name(record), str(bad)))
    reader.check_pattern(())
    for bad_label in reader.unused_labels():
        sorted_out.reject(bad_label)
    sorted_out.check()
    table, rejected = _without_plain_lower_case(rows.frame(), reader.soft_masked_samples), sorted_out.rejected
    n_dropped = 0
    if rules.duplicate_sequences == "drop" and len(table):
        table, dropped = _drop_duplicates(table, reader.places)
        rejected, n_dropped = [*rejected, *dropped], len(dropped)
    if len(table) < MIN_SEQUENCES:
        raise DataError(
            f"{', '.join(sorted(files)) or 'samples.tsv'}: found {len(table)} usable sequences, at least "
            f"{MIN_SEQUENCES} are needed (read {sorted_out.n_read}, left out {len(rejected)})"
        )
    counts = {
        "n_read": sorted_out.n_read,
        "n_rejected": sorted_out.n_bad,
        "n_merged": sorted_out.n_left_out,
        "n_duplicates_dropped": n_dropped,
        "n_ambiguous_letters": reader.n_ambiguous,
    }
    return Ingested(_typed(table, task), pd.DataFrame(rejected, columns=list(BadRecord._fields)), counts)


class _SortedOut:
    """Records that do not become sequences: listed, counted, and too many refused."""

    def __init__(self, rules: DataConfig) -> None:
        self.rules = rules
        self.rejected: list[BadRecord | LeftOut] = []
        self.n_read = self.n_bad = self.n_left_out = 0

    def reject(self, bad: BadRecord) -> None:
        if self.rules.on_bad_record == "fail":
            raise DataError(
                f"{bad.file} line {bad.line}: record '{bad.name}': {bad.reason} (data.on_bad_record: skip leaves bad "
                f"records out)"
            ) from None
        self.rejected.append(bad)
        self.n_bad += 1

    def leave_out(self, record: LeftOut) -> None:
        self.rejected.append(record)
        self.n_left_out += 1

    def check(self) -> None:
        if self.n_bad > self.rules.max_bad_fraction * max(self.n_read, 1):
            first = next(record for record in self.rejected if isinstance(record, BadRecord))
            raise DataError(
                f"found {self.n_bad} bad of {self.n_read} records, allowed are {self.rules.max_bad_fraction:.3g} of "
                f"them (data.max_bad_fraction); the first is {first.file} line {first.line}, '{first.name}': "
                f"{first.reason}"
            )


def finish(
    ingested: Ingested,
    *,
    task: TaskConfig,
    negatives: NegativesConfig,
    seed: int,
    genome: GenomeLike | None = None,
    exclude: Iterable[Interval] = (),
) -> Ingested:
    """The same with made negatives added, targets checked as a whole, and a full summary.

    Parameters
    ----------
    genome, exclude
        For genomic negatives: where they come from, and places to avoid.

    Raises
    ------
    DataError
        If the targets do not vary: one class only, one value only.
    """
    made = add_negatives(
        ingested.table, target=task.targets[0], rules=negatives, seed=seed, genome=genome, exclude=exclude
    )
    check_targets(made.table, task)
    rejected = ingested.rejected
    if len(made.rejected):
        rejected = pd.concat([rejected, made.rejected], ignore_index=True)
    n_made = len(made.table) - len(ingested.table)
    summary = {**ingested.summary, "n_negatives_made": n_made, **summarise(made.table, task)}
    return Ingested(made.table, rejected, summary, made.before)


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
    letters = sum(
        (np.bincount(codes, minlength=alphabet.PAD + 1) for codes, _ in alphabet.encode_flat(table["sequence"])),
        start=np.zeros(alphabet.PAD + 1, dtype=np.int64),
    )
    lengths = table["length"]
    first = copies(table["sequence"])
    copied = first[first.duplicated(keep=False)]
    conflicts = table[list(task.targets)].iloc[copied.index].groupby(copied.to_numpy()).nunique()
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
        "gc_mean": float(letters[1] + letters[2]) / max(int(letters[: alphabet.N_LETTERS].sum()), 1),
        "n_with_unknown_bases": int(table["sequence"].str.contains("N", regex=False).sum()),
        "n_duplicate_sequences": int(first.duplicated().sum()),
        "n_sequences_with_conflicting_targets": int((conflicts > 1).any(axis=1).sum()),
        "targets": targets,
        "columns": list(table.columns),
    }


class _Reader:
    """Turns records into rows one by one, and remembers which names and labels were used."""

    def __init__(
        self, labels: Mapping[str, Mapping[str, LabelRow]], *, rules: DataConfig, task: TaskConfig, seed: int
    ) -> None:
        self.labels, self.rules, self.task, self.seed = labels, rules, task, seed
        self.pattern = _compile(rules.header_pattern)
        self.first_header: Record | None = None
        self.pattern_matched = False
        self.seen: dict[str, int] = {}
        self.places = Places()
        self.used: dict[str, set[str]] = {key: set() for key in labels}
        self.soft_masked_samples: set[str] = set()
        self.n_ambiguous = 0

    def check_pattern(self, rest: Iterable[Record | BadRecord | LeftOut]) -> None:
        """Raise `DataError` if the header pattern matched no header so far, nor any of the rest."""
        first = self.first_header
        if self.pattern is None or first is None or self.pattern_matched:
            return
        headers = (record.header for record in rest if isinstance(record, Record) and record.header is not None)
        if not any(self.pattern.search(header) for header in headers):
            raise DataError(
                f"{first.file} line {first.line}: data.header_pattern '{self.pattern.pattern}' matches no header, "
                f"the first is '{first.header}': correct the pattern, or drop it"
            )

    def row(self, record: Record) -> dict[str, Any]:
        groups = self._groups(record)
        name = groups.pop("name", None) or self._name(record)
        if record.labels is not None:
            self.used[record.labels].add(name)  # even if the record is bad: its labels are not the problem
        if name in self.seen:
            raise Unusable(
                f"found the name a second time (first {self.places.shown(self.seen[name])}), names must differ: set "
                f"data.name_from: {'number' if self.rules.name_from == 'full_header' else 'number or full_header'}"
            )
        try:
            letters = clean(record.sequence, self.rules, rng=lambda: stream(self.seed, "ambiguous", name))
        except DataError as error:
            raise Unusable(str(error)) from None
        cells = self._fields(record, name, groups)
        targets = self._targets(cells)
        split = cells.pop("split", "")
        if split not in _MISSING and split not in SUBSETS:
            raise Unusable(f"found split '{split}', allowed are {', '.join(SUBSETS)} or nothing")
        cells.update(_place(cells, letters.before, letters.after))
        self.seen[name] = self.places.add(record.file, record.line)
        self.n_ambiguous += letters.n_ambiguous
        extra = {key: value for key, value in cells.items() if key not in (*RESERVED, "name", "group", *targets)}
        group = cells.get("group", "")
        known = {
            "name": name,
            "sequence": letters.sequence,
            "sample": record.sample,
            "length": len(letters.sequence),
            "split_given": None if split in _MISSING else split,
            "group": None if group in _MISSING else group,
        }
        if letters.soft_masked:
            extra["soft_masked"] = letters.soft_masked
            self._note_case(record)
        else:
            self.soft_masked_samples.add(record.sample)
        return {**known, **targets, **extra}

    def _note_case(self, record: Record) -> None:
        """Lower case marks repeats in a sample that has upper case too, or whose letters come from a genome."""
        if record.sample not in self.soft_masked_samples and (
            record.sequence != record.sequence.lower() or {"chromosome", "end"} <= set(record.fields)
        ):
            self.soft_masked_samples.add(record.sample)

    def use_labels(self, name: str) -> None:
        """Note that a record of this name was read, though it makes no sequence: its labels are not the problem."""
        for used in self.used.values():
            used.add(name)

    def unused_labels(self) -> Iterator[BadRecord]:
        for key, table in self.labels.items():
            for name, row in table.items():
                if name not in self.used[key]:
                    yield BadRecord(
                        key,
                        row.line,
                        name,
                        "found labels for a record that no sequence file has, allowed are names of records",
                    )

    def shown_name(self, record: Record) -> str:
        """Name for messages, of a record whose real name may not be known."""
        words = (record.header or "").split()
        return record.name or (words[0] if words else f"{record.sample}_{record.number:06d}")

    def _name(self, record: Record) -> str:
        # A region has a name and a header: the name is the header's first word.
        if record.name is not None and (record.header is None or self.rules.name_from == "first_word"):
            if not record.name:
                raise Unusable("found no name, every row needs one")
            return record.name
        if self.rules.name_from == "number" or record.header is None:
            return f"{record.sample}_{record.number:06d}"
        name = record.header if self.rules.name_from == "full_header" else (record.header.split() or [""])[0]
        if not name:
            raise Unusable("found a header without a name, expected '>name': or set data.name_from: number")
        return name

    def _groups(self, record: Record) -> dict[str, str]:
        if self.pattern is None or record.header is None:
            return {}
        self.first_header = self.first_header or record
        match = self.pattern.search(record.header)
        if match is None:
            raise Unusable(
                f"data.header_pattern does not match its header '{record.header}', it must match every header"
            )
        self.pattern_matched = True
        return {key: value for key, value in match.groupdict().items() if value is not None}

    def _fields(self, record: Record, name: str, groups: Mapping[str, str]) -> dict[str, str]:
        sources = [("its file or samples.tsv", record.fields), ("data.header_pattern", groups)]
        if record.labels is not None:
            row = self.labels[record.labels].get(name)
            if row is None:
                raise Unusable(f"found no row for it in the labels {record.labels}, every record needs one")
            sources.append((record.labels, row.values))
        merged: dict[str, str] = {}
        origin: dict[str, str] = {}
        for source, values in sources:
            for key, value in values.items():
                if key in merged:
                    raise Unusable(f"found '{key}' in {origin[key]} and in {source}, allowed is one source")
                merged[key], origin[key] = value, source
        return merged

    def _targets(self, cells: Mapping[str, str]) -> dict[str, float]:
        values: dict[str, float] = {}
        for target in self.task.targets:
            if target not in cells:
                raise Unusable(
                    f"found no value of the target '{target}', give it by the column label or labels of samples.tsv, "
                    f"as a column of the table, or as (?P<{target}>...) in data.header_pattern"
                )
            values[target] = parse_target(cells[target], target, self.task)
        if all(np.isnan(value) for value in values.values()):
            raise Unusable(f"found no value of any target ({', '.join(values)}), at least one is needed")
        return values


def parse_target(text: str, target: str, task: TaskConfig) -> float:
    """Value of a target as a number: the class index for multiclass, NaN where missing is allowed."""
    if text in _MISSING:
        if task.kind in ("multilabel", "regression"):
            return float("nan")
        raise Unusable(f"found no value of the target '{target}', a {task.kind} target needs one")
    if task.kind == "multiclass":
        if text not in task.classes:
            raise Unusable(f"found '{text}' as target '{target}', allowed are {', '.join(task.classes)} (task.classes)")
        return float(list(task.classes).index(text))
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if task.kind in ("binary", "multilabel") and value not in (0.0, 1.0):
        missing = ", or NA" if task.kind == "multilabel" else ""
        raise Unusable(f"found '{text}' as target '{target}', allowed are 0 and 1{missing} ({task.kind})")
    if task.kind == "count" and not (value >= 0 and value.is_integer()):
        raise Unusable(f"found '{text}' as target '{target}', allowed are whole numbers of at least 0 (count)")
    if not np.isfinite(value):
        raise Unusable(f"found '{text}' as target '{target}', allowed are finite numbers ({task.kind})")
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


class Places:
    """File and line of many rows, kept small."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._file, self._line = array("q"), array("q")

    def add(self, file: str, line: int) -> int:
        """Number of the new row."""
        self._file.append(self._files.setdefault(file, len(self._files)))
        self._line.append(line)
        return len(self._line) - 1

    def __getitem__(self, row: int) -> tuple[str, int]:
        return list(self._files)[self._file[row]], self._line[row]

    def shown(self, row: int) -> str:
        """For messages."""
        file, line = self[row]
        return f"{file} line {line}"


def _place(cells: Mapping[str, str], before: int, after: int) -> dict[str, str]:
    """Coordinates that are checked, and moved by the letters that were added at either end."""
    strand = cells.get("strand", "")
    if strand not in (*_STRANDS, *_MISSING):
        raise Unusable(f"found strand '{strand}', allowed are {', '.join(_STRANDS)}")
    place = {}
    for key in ("start", "end"):
        if cells.get(key, "") not in _MISSING:
            if not _WHOLE_NUMBER.fullmatch(cells[key]):
                raise Unusable(f"found {key} '{cells[key]}', allowed is a whole number of at least 0")
            place[key] = int(cells[key].removesuffix(".0"))
    start, end = place.get("start"), place.get("end")
    # A region that begins before its contig has a negative start, but ends on the contig.
    if start is not None and start < 0 and (end is None or end <= 0):
        raise Unusable(f"found start '{start}', allowed is a whole number of at least 0")
    if end is not None and end <= (start or 0):
        raise Unusable(f"found end '{end}', allowed is a whole number above the start")
    if _STRANDS.get(strand) == "-":
        before, after = after, before
    return {key: str(value + {"start": -before, "end": after}[key]) for key, value in place.items()}


def _without_plain_lower_case(table: pd.DataFrame, soft_masked: Collection[str]) -> pd.DataFrame:
    """The table without spans of samples that are in lower case throughout: there it marks nothing."""
    if "soft_masked" not in table:
        return table
    spans = table["soft_masked"].where(table["sample"].isin(list(soft_masked)), "").fillna("")
    return table.assign(soft_masked=spans) if (spans != "").any() else table.drop(columns="soft_masked")


def _drop_duplicates(table: pd.DataFrame, places: Places) -> tuple[pd.DataFrame, list[LeftOut]]:
    first = copies(table["sequence"]).to_numpy()
    again = first != np.arange(len(table))
    names = table["name"]
    dropped = [
        LeftOut(*places[int(row)], names[row], f"same sequence as '{names[first[row]]}', dropped")
        for row in np.flatnonzero(again)
    ]
    return table[~again].reset_index(drop=True), dropped


def _typed(table: pd.DataFrame, task: TaskConfig) -> pd.DataFrame:
    known = ["name", "sequence", "sample", "length", "split_given", "group", *task.targets]
    table = table[[*known, *(name for name in table.columns if name not in known)]].copy()
    for name in table.columns:
        if name == "strand":
            table[name] = _text(table[name].map(_STRANDS).fillna("."))
        elif name in ("start", "end"):
            table[name] = _numbers_or_text(table[name]).astype("Int64")
        elif name in ("split_given", "group", "chromosome"):
            table[name] = _text(table[name])
        elif name in task.targets:
            table[name] = table[name].astype(np.float64)
        elif name not in ("name", "sequence", "sample", "length", "soft_masked"):
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
