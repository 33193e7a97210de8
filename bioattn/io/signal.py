"""Targets from experiments: values of a bigWig, or reads of a BAM, over the regions."""

import contextlib
import gzip
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyBigWig
import pysam
from numpy.typing import NDArray

from bioattn.config import SignalConfig
from bioattn.data.regions import Region
from bioattn.errors import DataError
from bioattn.io.htslib import is_current, keep, quiet

#: Name of a contig in a file: takes the region's name, the contigs of the file with their lengths, and the file.
Resolve = Callable[[str, Mapping[str, int], Path], str]

_BIGWIG, _BIGBED, _CHROMOSOMES, _INDEX = 0x888FFC26, 0x8789F2EB, 0x78CA8C91, 0x2468ACE0
_HEADER, _ZOOM = struct.Struct("<IHHQQQHHQQIQ"), struct.Struct("<IIQQ")
#: Regions nearer than this are read at one go, up to the second number of bases: a look-up costs as much as these.
_BIGWIG_GAP, _BIGWIG_STRETCH = 4_096, 2**22
_BAM_GAP, _BAM_STRETCH = 16_384, 2**26
#: Bases of a bigWig in memory before their statistics are taken.
_BATCH = 2**22
#: A .bai index cannot count further.
_LONGEST_BAI = 2**29


def signal_targets(
    regions: Sequence[Region], sources: Mapping[str, Path], rules: SignalConfig, *, resolve: Resolve
) -> dict[str, NDArray[np.float64]]:
    """Value of every target for every region.

    bigWig: a statistic of the values that the file holds for each base, not of
    its summaries at lower resolution. The strand of a region does not matter.
    BAM: the number of reads whose 5' end lies in the region, on either strand,
    so that no read counts in two regions that touch; mates of a pair are two
    reads. Unmapped, secondary, supplementary and QC-failed reads do not count.
    The index of a BAM (.bai, .csi) is used if it is there and not older than the
    file, else made: beside the file, or in memory only where that folder cannot
    be written.

    Parameters
    ----------
    regions : sequence of Region
        In any order, overlapping or not. What lies before base 0 counts as not there.
    sources : mapping of str to Path
        bigWig or BAM file of each target, known by their first bytes.
    resolve : callable
        Takes the contig of a region, the contigs of the file (name to length) and
        the file; returns the file's name of it, or raises `DataError`.

    Returns
    -------
    dict of str to ndarray, float64, shape (N,)
        In the order of `sources`. NaN, with `uncovered: missing`, where a region has no value at all.

    Raises
    ------
    DataError
        If a file is missing, neither bigWig nor BAM, damaged or (BAM) not sorted
        by coordinate; if a region lies on a contig that the file lacks, is empty
        or ends beyond its contig; if a value is infinite, or negative where its
        logarithm is taken.
    """
    readers = {target: _open(Path(path)) for target, path in sources.items()}
    return {
        target: _transformed(target, reader(regions, rules, resolve), regions, Path(sources[target]), rules)
        for target, reader in readers.items()
    }


_Reader = Callable[[Sequence[Region], SignalConfig, Resolve], NDArray[np.float64]]


def _open(path: Path) -> _Reader:
    """Function that reads the file, by what its first bytes say it is."""
    allowed = "allowed are bigWig and BAM"
    try:
        with path.open("rb") as handle:
            head = handle.read(4)
            inner = _first_inflated(path) if head[:2] == b"\x1f\x8b" else b""
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, {allowed}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}), {allowed}") from None
    if head == struct.pack("<I", _BIGWIG):
        return lambda regions, rules, resolve: _bigwig_statistic(path, regions, rules, resolve)
    if inner == b"BAM\1":
        return lambda regions, rules, resolve: _bam_counts(path, regions, rules, resolve)
    what = {
        struct.pack(">I", _BIGWIG): "a bigWig in the byte order of another kind of machine",
        struct.pack("<I", _BIGBED): "bigBed, which holds regions and no values",
        b"CRAM": "CRAM: convert it with `samtools view -b`",
        b"@HD\t": "SAM as text: convert it with `samtools sort -o sorted.bam`",
        b"@SQ\t": "SAM as text: convert it with `samtools sort -o sorted.bam`",
        b"": "an empty file",
    }.get(head, "a packed file that is no BAM" if head[:2] == b"\x1f\x8b" else f"{head!r} at the start")
    raise DataError(f"{path}: found {what}; {allowed}")


def _first_inflated(path: Path) -> bytes:
    try:
        with gzip.open(path) as handle:
            return handle.read(4)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return b""


def _transformed(
    target: str, values: NDArray[np.float64], regions: Sequence[Region], path: Path, rules: SignalConfig
) -> NDArray[np.float64]:
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        raise DataError(
            f"{path}: target '{target}': found {values[infinite[0]]} in {_shown(regions[infinite[0]])}, allowed are "
            f"finite values"
        )
    if rules.transform == "none":
        return values
    negative = np.flatnonzero(values < 0)
    if len(negative):
        raise DataError(
            f"{path}: target '{target}': found {values[negative[0]]:.6g} in {_shown(regions[negative[0]])}, allowed "
            f"are values of at least 0 with data.signal.transform: log1p; set it to none for signed values"
        )
    return np.log1p(values)


def _shown(region: Region) -> str:
    return f"region '{region.name}' ({region.contig}:{region.start}-{region.end}, {region.file} line {region.line})"


# ------------------------------------------------------------------------ places


class _OnContig(NamedTuple):
    """Regions of one contig by start: their rows among all regions, starts and ends (R,)."""

    contig: str
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


def _by_contig(
    regions: Sequence[Region], lengths: Mapping[str, int], path: Path, resolve: Resolve
) -> Iterator[_OnContig]:
    """Regions contig by contig, in the order of the file."""
    starts = np.fromiter((max(region.start, 0) for region in regions), np.int64, len(regions))
    ends = np.fromiter((region.end for region in regions), np.int64, len(regions))
    rows_of: dict[str, list[int]] = {}
    for row, region in enumerate(regions):
        rows_of.setdefault(region.contig, []).append(row)
    placed: dict[str, list[int]] = {}
    for members in rows_of.values():
        contig = _resolved(regions[members[0]], lengths, path, resolve)
        _check_within(regions, np.array(members), starts, ends, contig, lengths[contig], path)
        placed.setdefault(contig, []).extend(members)
    for contig in lengths:
        if contig in placed:
            rows = np.array(placed[contig], dtype=np.int64)
            rows = rows[np.lexsort((ends[rows], starts[rows]))]
            yield _OnContig(contig, rows, starts[rows], ends[rows])


def _resolved(region: Region, lengths: Mapping[str, int], path: Path, resolve: Resolve) -> str:
    try:
        contig = resolve(region.contig, lengths, path)
    except DataError as error:
        raise DataError(f"{error} (needed for {_shown(region)})") from None
    return contig


def _check_within(
    regions: Sequence[Region],
    rows: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    contig: str,
    length: int,
    path: Path,
) -> None:
    beyond = rows[ends[rows] > length]
    if len(beyond):
        raise DataError(
            f"{path}: found no values at the end of {_shown(regions[beyond[0]])}: '{contig}' ends at {length} in this "
            f"file: are file and regions of one assembly?"
        )
    empty = rows[starts[rows] >= ends[rows]]
    if len(empty):
        raise DataError(f"{path}: found no base of '{contig}' in {_shown(regions[empty[0]])}, allowed is at least one")


def _stretches(starts: NDArray[np.int64], ends: NDArray[np.int64], gap: int, longest: int) -> Iterator[slice]:
    """Slices of regions (sorted by start) that lie near each other, to be read at one go."""
    first, begin, reach = 0, 0, 0
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        if i > first and (start - reach > gap or end - begin > longest):
            yield slice(first, i)
            first = i
        if i == first:
            begin, reach = start, end
        reach = max(reach, end)
    if len(starts):
        yield slice(first, len(starts))


# ------------------------------------------------------------------------ bigWig


def _bigwig_statistic(
    path: Path, regions: Sequence[Region], rules: SignalConfig, resolve: Resolve
) -> NDArray[np.float64]:
    _check_bigwig(path)
    result = np.full(len(regions), np.nan)
    try:
        with contextlib.closing(pyBigWig.open(str(path))) as file:
            for placed in _by_contig(regions, file.chroms() or {}, path, resolve):
                for batch, values in _bigwig_batches(file, placed):
                    result[batch.rows] = _statistic(values, batch.starts, batch.ends, rules)
    except RuntimeError as error:
        raise DataError(
            f"{path}: damaged bigWig data ({str(error).strip()}), allowed is an intact file: copy or download it again"
        ) from None
    return result


def _check_bigwig(path: Path) -> None:
    """Raise `DataError` if a bigWig is cut short or its parts are not where its header says.

    pyBigWig follows such offsets blindly, up to a crash of the interpreter.
    """
    size = path.stat().st_size
    with path.open("rb") as file:

        def word(offset: int) -> int:
            file.seek(offset)
            return int.from_bytes(file.read(4), "little")

        head = file.read(_HEADER.size)
        fits = size >= _HEADER.size + 4 and word(size - 4) == _BIGWIG
        if fits:
            _, _, n_zooms, *offsets, _, _, _, summary, _, extension = _HEADER.unpack(head)
            fits = _HEADER.size + n_zooms * _ZOOM.size <= size and max(*offsets, summary, extension) <= size - 4
        if fits:
            file.seek(_HEADER.size)
            zooms = _ZOOM.iter_unpack(file.read(n_zooms * _ZOOM.size))
            fits = max((max(zoom[2:]) for zoom in zooms), default=0) <= size - 4
            fits = fits and (word(offsets[0]), word(offsets[2])) == (_CHROMOSOMES, _INDEX)
    if not fits:
        raise DataError(
            f"{path}: found a bigWig that is cut short or damaged ({size} bytes), allowed is an intact file: copy or "
            f"download it again"
        )


def _bigwig_batches(file: "pyBigWig.pyBigWig", placed: _OnContig) -> Iterator[tuple[_OnContig, NDArray[np.float32]]]:
    """Many regions at a time with an array of values, in which their starts and ends are indices."""
    parts: list[_OnContig] = []
    pieces: list[NDArray[np.float32]] = []
    n_bases = 0
    for near in _stretches(placed.starts, placed.ends, _BIGWIG_GAP, _BIGWIG_STRETCH):
        starts, ends = placed.starts[near], placed.ends[near]
        begin, end = int(starts[0]), int(ends.max())
        pieces.append(file.values(placed.contig, begin, end, numpy=True))
        shift = n_bases - begin
        parts.append(_OnContig(placed.contig, placed.rows[near], starts + shift, ends + shift))
        n_bases += end - begin
        if n_bases >= _BATCH:
            yield _joined(parts), np.concatenate(pieces)
            parts, pieces, n_bases = [], [], 0
    if pieces:
        yield _joined(parts), np.concatenate(pieces)


def _joined(parts: Sequence[_OnContig]) -> _OnContig:
    rows, starts, ends = (np.concatenate([part[i] for part in parts]) for i in (1, 2, 3))
    return _OnContig(parts[0].contig, rows, starts, ends)


def _statistic(
    values: NDArray[np.float32], starts: NDArray[np.int64], ends: NDArray[np.int64], rules: SignalConfig
) -> NDArray[np.float64]:
    """Statistic of intervals (R,) of values (L,), NaN where there is no value; sums in float64."""
    # `reduceat` takes from each index to the next, and one letter where the next is smaller: every second is ours.
    bounds = np.column_stack((starts, ends)).ravel()
    padded = np.append(values.astype(np.float64), np.nan)  # an end may be the array's end
    covered = ~np.isnan(padded)
    n_bases = ends - starts
    n_covered = np.add.reduceat(covered, bounds, dtype=np.int64)[::2]
    if rules.statistic == "coverage":
        return n_covered / n_bases
    if rules.statistic == "max":
        result = np.maximum.reduceat(np.where(covered, padded, -np.inf), bounds)[::2]
        if rules.uncovered == "zero":
            result = np.where(n_covered < n_bases, np.maximum(result, 0), result)
    else:
        result = np.add.reduceat(np.where(covered, padded, 0), bounds)[::2]
        if rules.statistic == "mean":
            result = result / (n_bases if rules.uncovered == "zero" else np.maximum(n_covered, 1))
    return result if rules.uncovered == "zero" else np.where(n_covered > 0, result, np.nan)


# --------------------------------------------------------------------------- BAM


def _bam_counts(path: Path, regions: Sequence[Region], rules: SignalConfig, resolve: Resolve) -> NDArray[np.float64]:
    result = np.zeros(len(regions))
    with quiet(), _open_bam(path) as file:
        lengths = dict(zip(file.references, file.lengths, strict=True))
        for placed in _by_contig(regions, lengths, path, resolve):
            for near in _stretches(placed.starts, placed.ends, _BAM_GAP, _BAM_STRETCH):
                starts, ends = placed.starts[near], placed.ends[near]
                try:
                    reads = file.fetch(placed.contig, int(starts[0]), int(ends.max()))
                    positions = np.sort(np.fromiter(_five_prime_ends(reads, rules), np.int64))
                except (OSError, ValueError) as error:
                    raise _damaged_bam(path, error) from None
                result[placed.rows[near]] = np.searchsorted(positions, ends) - np.searchsorted(positions, starts)
    return result


def _five_prime_ends(reads: Iterator[pysam.AlignedSegment], rules: SignalConfig) -> Iterator[int]:
    leave_out = pysam.FUNMAP | pysam.FSECONDARY | pysam.FSUPPLEMENTARY | pysam.FQCFAIL
    if not rules.keep_duplicates:
        leave_out |= pysam.FDUP
    for read in reads:
        flag = read.flag
        if not flag & leave_out and read.mapping_quality >= rules.min_mapping_quality:
            # Without a CIGAR there is no end; htslib takes such a read for one base.
            yield (read.reference_end or read.reference_start + 1) - 1 if flag & 16 else read.reference_start


def _open_bam(path: Path) -> pysam.AlignmentFile:
    """The file with an index in memory."""
    for index in (Path(f"{path}.bai"), path.with_suffix(".bai"), Path(f"{path}.csi")):
        if is_current(index, path):
            with contextlib.suppress(DataError):  # a damaged index is made anew
                return _load_bam(path, index)
    with tempfile.TemporaryDirectory() as folder:
        made, place = _make_bam_index(path, Path(folder))
        keep(made, place)
        return _load_bam(path, made)


def _load_bam(path: Path, index: Path | None) -> pysam.AlignmentFile:
    try:
        return pysam.AlignmentFile(str(path), "rb", index_filename=str(index) if index else None)
    except (OSError, ValueError) as error:
        raise _damaged_bam(path, error) from None


def _make_bam_index(path: Path, folder: Path) -> tuple[Path, Path]:
    """A new index in a folder, and where it belongs."""
    with _load_bam(path, None) as file:
        kind = "bai" if max(file.lengths, default=0) < _LONGEST_BAI else "csi"
        order = file.header.to_dict().get("HD", {}).get("SO", "unknown")
    try:
        pysam.index("--bai" if kind == "bai" else "--csi", "-o", str(folder / kind), str(path))
    except pysam.SamtoolsError as error:
        if "sorted" in str(error) or "NO_COOR" in str(error) or order in ("unsorted", "queryname"):
            raise DataError(
                f"{path}: found a BAM that is not sorted by coordinate (its header says '{order}'), allowed are sorted "
                f"ones: samtools sort -o sorted.bam {path.name}"
            ) from None
        raise _damaged_bam(path, error) from None
    return folder / kind, Path(f"{path}.{kind}")


def _damaged_bam(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: cannot be read as BAM ({str(error).strip() or 'unknown reason'}): copy or download it again"
    )
