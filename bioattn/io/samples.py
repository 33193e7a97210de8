"""samples.tsv: which files a run reads, and where their targets come from."""

import difflib
import errno
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bioattn.errors import BioattnWarning, DataError
from bioattn.io.lines import Row, read_delimited

#: Columns of samples.tsv and what they hold.
COLUMNS = {
    "sample": "name of the sample: letters, digits, '_', '-' and '.', the first a letter, digit or '_'",
    "path": "sequences (FASTA, or a TSV, CSV or parquet table), regions of a genome (BED, narrowPeak, broadPeak, GTF, "
    "GFF3) or variants (VCF, BCF); relative to the folder of samples.tsv",
    "label": "target value of all records of the file (single target)",
    "labels": "TSV or CSV with a column `name` and the target columns, optional `split`, `group` and others",
    "sequence_column": "column with the sequences, if `path` is a table",
    "name_column": "column with the record names, if `path` is a table: default `name`, or numbers if there is none",
    "genome": "FASTA file, plain or bgzip, that the regions or variants of `path` lie in",
    "regions": "BED, GTF or GFF3 file, if `path` holds variants: sequences are haplotypes of these regions",
    "signal": "bigWig or BAM files whose values over the regions of `path` are targets: one path for a single target, "
    "or `target=path,target=path`",
}
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

Kind = Literal["fasta", "table", "bed", "narrowpeak", "broadpeak", "gtf", "gff", "variants"]
#: Kind of a file by its suffix, after .gz or .bgz; any other is FASTA.
SUFFIXES: dict[str, Kind] = {
    ".tsv": "table",
    ".csv": "table",
    ".parquet": "table",
    ".bed": "bed",
    ".narrowpeak": "narrowpeak",
    ".broadpeak": "broadpeak",
    ".gtf": "gtf",
    ".gff": "gff",
    ".gff2": "gff",
    ".gff3": "gff",
    ".vcf": "variants",
    ".bcf": "variants",
}
#: Kinds whose records are intervals of a genome.
REGIONS: tuple[Kind, ...] = ("bed", "narrowpeak", "broadpeak", "gtf", "gff")


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
    genome : Path or None
        For `path` that holds regions or variants.
    regions : Path or None
        For `path` that holds variants.
    signal : tuple of (str, Path)
        Targets that come from a bigWig or BAM, for `path` that holds regions.
    """

    name: str
    path: Path
    label: str | None = None
    labels: Path | None = None
    sequence_column: str | None = None
    name_column: str | None = None
    genome: Path | None = None
    regions: Path | None = None
    signal: tuple[tuple[str, Path], ...] = ()

    @property
    def kind(self) -> Kind:
        """What the file holds."""
        # A .txt may hold FASTA as well as a table.
        return "table" if self.sequence_column else kind_of(self.path)

    @property
    def files(self) -> dict[str, Path]:
        """Every file of the row by the column that names it."""
        named = {"path": self.path, "labels": self.labels, "genome": self.genome, "regions": self.regions}
        signal = {f"signal {target}": path for target, path in self.signal}
        return {column: path for column, path in named.items() if path} | signal


def kind_of(path: Path) -> Kind:
    """What a file holds, by its name."""
    name = path.name.lower().removesuffix(".gz").removesuffix(".bgz")
    return SUFFIXES.get(Path(name).suffix, "fasta")


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
    if not samples:
        raise DataError(f"{path}: found no rows, expected one line per file below the header")
    return samples


def files_named(path: str | Path) -> list[Path]:
    """Files that a samples.tsv names, as far as they exist; none if it cannot be read.

    For a workflow that must know its inputs before anything is checked:
    whatever is wrong is left to `read_samples`.
    """
    path = Path(path)
    try:
        rows = list(read_delimited(path).rows)
    except DataError:
        return []
    cells = [row.values.get(column, "") for row in rows for column in ("path", "labels", "genome", "regions")]
    for cell in (row.values.get("signal", "") for row in rows):
        cells += [cell, *(part.partition("=")[2].strip() for part in cell.split(","))]
    found = (next(filter(os.path.isfile, _places(path, cell)), None) for cell in dict.fromkeys(cells) if cell)
    return list(dict.fromkeys(place for place in found if place))


def _parse(path: Path, row: Row, targets: Sequence[str]) -> Sample:
    def fail(column: str, found: str, allowed: str) -> DataError:
        return DataError(f"{path} line {row.line}, column '{column}': found {found}, allowed is {allowed}")

    def locate(column: str) -> Path | None:
        file = cells[column]
        return _locate(path, row.line, column, file) if file else None

    cells = {name: row.values.get(name) or None for name in COLUMNS}
    name, file = cells["sample"], cells["path"]
    if not name or not _NAME.fullmatch(name):
        raise fail("sample", f"'{name or ''}'", COLUMNS["sample"].replace("name of the sample: ", "a name of "))
    if not file:
        raise fail("path", "nothing", "the path of a file with sequences, regions or variants")
    sample = Sample(
        name=name,
        path=_locate(path, row.line, "path", file),
        label=cells["label"],
        labels=locate("labels"),
        sequence_column=cells["sequence_column"],
        name_column=cells["name_column"],
        genome=locate("genome"),
        regions=locate("regions"),
        signal=_signal(path, row.line, cells["signal"], targets),
    )
    label, labels = cells["label"], cells["labels"]
    if label and labels:
        raise fail("label", f"'{label}' beside labels '{labels}'", "one of the two")
    if label and len(targets) != 1:
        raise fail(
            "label", f"'{label}' for the targets {', '.join(targets)}", "a single target; use the column 'labels'"
        )
    if label and cells["signal"]:
        raise fail("label", f"'{label}' beside signal '{cells['signal']}'", "one of the two")
    _check_table(sample, file, fail)
    _check_genome(sample, file, cells, fail)
    return sample


def _check_table(sample: Sample, file: str, fail: Callable[[str, str, str], DataError]) -> None:
    kind = kind_of(sample.path)
    is_text = sample.path.name.lower().removesuffix(".gz").removesuffix(".bgz").endswith(".txt")
    if sample.name_column and not sample.sequence_column:
        raise fail("sequence_column", "nothing beside a name_column", "the name of the column with the sequences")
    if kind == "table" and not sample.sequence_column:
        raise fail("sequence_column", f"nothing for the table {file}", "the name of the column with the sequences")
    if sample.sequence_column and not (kind == "table" or is_text):
        raise fail(
            "sequence_column", f"'{sample.sequence_column}' for {file}", "a table (.tsv, .csv, .txt, .parquet) in path"
        )


def _check_genome(
    sample: Sample, file: str, cells: Mapping[str, str | None], fail: Callable[[str, str, str], DataError]
) -> None:
    """Columns that only go with regions or variants."""
    has_regions, has_variants = sample.kind in REGIONS, sample.kind == "variants"
    what = "regions" if has_regions else "variants"
    if (has_regions or has_variants) and not sample.genome:
        raise fail("genome", f"nothing for the {what} of {file}", "the FASTA file of the genome that they lie in")
    if sample.genome and not (has_regions or has_variants):
        raise fail("genome", f"'{cells['genome']}' for the sequences of {file}", "a BED, GTF, GFF3 or VCF file in path")
    if sample.regions and not has_variants:
        raise fail("regions", f"'{cells['regions']}' for {file}", "a VCF or BCF file in path")
    if sample.regions and kind_of(sample.regions) not in REGIONS:
        raise fail("regions", f"'{cells['regions']}'", "a BED, narrowPeak, broadPeak, GTF or GFF3 file")
    if sample.signal and not has_regions:
        raise fail(
            "signal", f"'{cells['signal']}' for {file}", "a BED, narrowPeak, broadPeak, GTF or GFF3 file in path"
        )


def _signal(path: Path, line: int, cell: str | None, targets: Sequence[str]) -> tuple[tuple[str, Path], ...]:
    """Targets and files of the cell `signal`: a path, or target=path,target=path."""
    if not cell:
        return ()
    if (
        cell.partition("=")[0].strip() not in targets
        and len(targets) == 1
        and ("=" not in cell or _is_file(path, cell))
    ):
        return ((targets[0], _locate(path, line, "signal", cell)),)
    found: dict[str, Path] = {}
    for part in cell.split(","):
        target, _, file = (word.strip() for word in part.partition("="))
        if target not in targets or target in found or not file:
            raise DataError(
                f"{path} line {line}, column 'signal': found '{part.strip()}', allowed are one path for a single "
                f"target, or target=path,target=path with each of the targets at most once: {', '.join(targets)}"
            )
        found[target] = _locate(path, line, "signal", file)
    return tuple(found.items())


def _places(path: Path, file: str) -> list[Path]:
    return [path.parent / file, Path(file)]


def _is_file(path: Path, file: str) -> bool:
    return any(os.path.isfile(place) for place in _places(path, file))


def _locate(path: Path, line: int, column: str, file: str) -> Path:
    for place in _places(path, file):
        if os.path.isfile(place):  # False for what the system refuses as a path, rather than an exception
            return place
    found = next((place for place in _places(path, file) if os.path.lexists(place)), None)
    problem = f"no such file '{file}'"
    if found is not None:
        problem = f"'{file}' is {_what_is(found)}, not a file"
    raise DataError(
        f"{path} line {line}, column '{column}': {problem}, looked in {path.parent} and in the working directory"
    )


def _what_is(path: Path) -> str:
    if os.path.isdir(path):
        return "a folder"
    if not os.path.islink(path):
        return "a device or pipe"
    target = os.readlink(path)
    try:
        os.stat(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return f"a link to '{target}' that leads back to itself"
        return f"a link to '{target}', where there is nothing"
    return f"a link to '{target}', a device or pipe"


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
