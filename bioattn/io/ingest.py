"""From samples.tsv to one checked table: opens the files, leaves the judging to `bioattn.data.sequences`."""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bioattn.config import DataConfig, TaskConfig
from bioattn.data.matching import GenomeLike, HardMasked
from bioattn.data.regions import Region
from bioattn.data.sequences import BadRecord, Ingested, LabelRow, LeftOut, Record, build_table, finish
from bioattn.errors import DataError
from bioattn.io.fasta import read_fasta
from bioattn.io.genome import Genome, resolve_contig
from bioattn.io.lines import read_delimited
from bioattn.io.regions import read_excluded, read_regions, sequences_of
from bioattn.io.samples import REGIONS, Sample
from bioattn.io.tables import text_rows


def ingest(samples: Sequence[Sample], data: DataConfig, task: TaskConfig, *, seed: int) -> Ingested:
    """Checked sequences of all samples in one table, with made negatives if asked for.

    Raises
    ------
    DataError
        Names the file, the line or record, what was found and what is allowed.
    ConfigError
        If the header pattern is unusable, or settings do not fit the files.
    """
    opened: dict[Path, Genome] = {}

    def genome(path: Path) -> Genome:
        if path not in opened:
            opened[path] = Genome(path)
        return opened[path]

    labels: dict[str, Mapping[str, LabelRow]] = {}
    for sample in samples:
        if sample.labels and str(sample.labels) not in labels:
            labels[str(sample.labels)] = read_labels(sample.labels, _label_targets(sample, data, task.targets))
    records = itertools.chain.from_iterable(read_records(sample, data, task.targets, genome) for sample in samples)
    built = build_table(records, labels, rules=data, task=task, seed=seed)
    negatives = data.negatives
    source: GenomeLike | None = genome(Path(negatives.genome)) if negatives.genome else None
    if source is not None and data.soft_masked == "mask":
        source = HardMasked(source)
    excluded = read_excluded(negatives.exclude, data.regions)
    done = finish(built, task=task, negatives=negatives, seed=seed, genome=source, exclude=excluded)
    files = [(sample.name, column, path) for sample in samples for column, path in sample.files.items()]
    if negatives.genome:
        files += [("negatives", "genome", Path(negatives.genome))]
        files += [("negatives", "exclude", Path(path)) for path in negatives.exclude]
    return replace(done, summary={**done.summary, "files": _checksums(files)})


def read_records(
    sample: Sample, data: DataConfig, targets: Sequence[str], genome: Callable[[Path], Genome]
) -> Iterator[Record | BadRecord | LeftOut]:
    """Unchecked records of one sample's file, whatever its kind.

    Parameters
    ----------
    genome : callable
        Opens the genome of a path, or returns it if it is open.
    """
    constant = {targets[0]: sample.label} if sample.label else {}
    if sample.kind == "fasta":
        return _fasta_records(sample, constant)
    if sample.kind == "table":
        return _table_records(sample, constant, targets)
    assert sample.genome is not None  # `read_samples` sees to it
    if sample.kind == "variants":
        return _variant_records(sample, constant, data, targets, genome(sample.genome))
    return _region_records(sample, constant, data, genome(sample.genome))


def _fasta_records(sample: Sample, constant: Mapping[str, str]) -> Iterator[Record]:
    file, labels = str(sample.path), _labels_key(sample)
    for number, read in enumerate(read_fasta(sample.path, allow_empty=True), 1):
        yield Record(sample.name, file, read.line, number, read.sequence, read.header, fields=constant, labels=labels)


def _table_records(sample: Sample, constant: Mapping[str, str], targets: Sequence[str]) -> Iterator[Record]:
    file, labels = str(sample.path), _labels_key(sample)
    required = [str(sample.sequence_column), *([sample.name_column] if sample.name_column else [])]
    is_parquet = sample.path.suffix.lower() == ".parquet"
    rows = (
        text_rows(sample.path, required=required) if is_parquet else read_delimited(sample.path, required=required).rows
    )
    number = 0
    for number, (line, cells) in enumerate(rows, 1):
        sequence = cells.pop(str(sample.sequence_column))
        name = cells.pop(sample.name_column or "name", None)
        fields = _with_label(cells, constant, file)
        yield Record(sample.name, file, line, number, sequence, name=name, fields=fields, labels=labels)
    if not number:
        raise DataError(f"{file}: found no rows, expected one per sequence below the header")


def _region_records(
    sample: Sample, constant: Mapping[str, str], data: DataConfig, genome: Genome
) -> Iterator[Record | BadRecord | LeftOut]:
    regions: list[Region] = []
    for found in read_regions(sample.path, data.regions, genome):
        if isinstance(found, Region):
            regions.append(found)
        else:
            yield found
    signal = _signal(sample, regions, data, genome)
    labels = _labels_key(sample)
    for number, (region, letters) in enumerate(zip(regions, sequences_of(regions, genome), strict=True), 1):
        place = {
            "chromosome": region.contig,
            "start": str(region.start),
            "end": str(region.end),
            "strand": region.strand,
        }
        values = {target: repr(float(column[number - 1])) for target, column in signal.items()}
        fields = _with_label(region.fields, {**constant, **values}, region.file)
        where = f"{region.contig}:{region.start}-{region.end}({region.strand})"
        yield Record(
            sample.name,
            region.file,
            region.line,
            number,
            letters,
            header=where if region.name == where else f"{region.name} {where}",
            name=region.name,
            fields={**place, **fields},
            labels=labels,
        )


def _signal(sample: Sample, regions: list[Region], data: DataConfig, genome: Genome) -> dict[str, NDArray[np.float64]]:
    """Targets of the regions from the files of the column `signal`, of the bases that lie on the contigs."""
    if not sample.signal or not regions:
        return {}
    from bioattn.io.signal import signal_targets

    def resolve(name: str, contigs: Mapping[str, int], path: Path) -> str:
        return resolve_contig(name, contigs, path, data.regions.contig_names)

    inside = [
        region._replace(start=max(region.start, 0), end=min(region.end, genome.lengths[region.contig]))
        for region in regions
    ]
    return signal_targets(inside, dict(sample.signal), data.signal, resolve=resolve)


def _variant_records(
    sample: Sample, constant: Mapping[str, str], data: DataConfig, targets: Sequence[str], genome: Genome
) -> Iterator[Record | BadRecord | LeftOut]:
    from bioattn.io.variants import variant_records

    regions: list[Region] | None = None
    if sample.regions:
        regions = []
        for found in read_regions(sample.regions, data.regions, genome):
            if isinstance(found, Region):
                regions.append(found)
            else:
                yield found
    wanted = () if constant else targets
    for record in variant_records(
        sample.path, genome, sample=sample.name, rules=data, targets=wanted, regions=regions, labels=_labels_key(sample)
    ):
        if constant and isinstance(record, Record):
            record = replace(record, fields=_with_label(record.fields, constant, record.file))
        yield record


def _with_label(fields: Mapping[str, str], constant: Mapping[str, str], file: str) -> dict[str, str]:
    """Cells of a record with the targets that samples.tsv gives for it."""
    for target in constant:
        if target in fields:
            raise DataError(
                f"{file}: found a column '{target}' beside the label or signal of samples.tsv, allowed is one of them"
            )
    return {**fields, **constant}


def _labels_key(sample: Sample) -> str | None:
    return str(sample.labels) if sample.labels else None


def _label_targets(sample: Sample, data: DataConfig, targets: Sequence[str]) -> list[str]:
    """Targets that a label table must have: those that come with the records themselves it may lack."""
    if sample.kind in REGIONS or (sample.kind == "variants" and data.variants.target_from == "info"):
        return []
    return list(targets)


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


def _checksums(files: Sequence[tuple[str, str, Path]]) -> list[dict[str, Any]]:
    """Every file that was read, once for each sample."""
    digests: dict[Path, str] = {}
    for _, _, path in files:
        if path not in digests:
            with path.open("rb") as handle:
                digests[path] = hashlib.file_digest(handle, "sha256").hexdigest()
    return [
        {"sample": sample, "column": column, "file": path.name, "sha256": digests[path]}
        for sample, column, path in files
    ]
