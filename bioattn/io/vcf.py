"""VCF and BCF through pysam: records with their lines, and whether their alleles fit a genome."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pysam

from bioattn.config import DataConfig
from bioattn.data.sequences import Unusable
from bioattn.errors import DataError
from bioattn.io.genome import Genome
from bioattn.io.htslib import BGZIP_HEAD, is_bgzip, is_current, quiet
from bioattn.io.lines import read_lines

_LETTERS = frozenset("ACGTNacgtn")
#: What pysam raises on input that it cannot read.
_PYSAM_ERRORS = (OSError, ValueError, KeyError, IndexError, OverflowError, MemoryError, NotImplementedError)


class VcfFile(NamedTuple):
    """An open file; `n_header` lines come before the first record (0 in BCF)."""

    path: Path
    handle: pysam.VariantFile
    n_header: int


class Variant(NamedTuple):
    """One record: its line (number in BCF, 0 if looked up), and its alleles as written.

    `end` is that of REF, or of INFO/END if that is further.
    """

    line: int
    contig: str
    start: int
    end: int
    reference: str
    alternatives: tuple[str, ...]
    record: pysam.VariantRecord

    @property
    def place(self) -> str:
        """Contig and 1-based position, as in the file."""
        return f"{self.contig}:{self.start + 1}"


@contextmanager
def open_vcf(path: Path) -> Iterator[VcfFile]:
    """The file, open for the block. Raises `DataError` if it is missing or has no header of VCF or BCF."""
    expected = "expected VCF (plain, gzip or bgzip; its first line is ##fileformat=VCFv4...) or BCF"
    if not path.is_file():
        raise DataError(f"{path}: no such file, {expected}")
    with _seekable(path) as readable:
        try:
            with quiet():
                handle = pysam.VariantFile(str(readable))
        except _PYSAM_ERRORS as error:
            raise DataError(f"{path}: cannot be read ({_said(error)}), {expected}: copy or make it again") from None
        file = VcfFile(path, handle, 0 if handle.is_bcf else _count_header_lines(path))
        try:
            yield file
        finally:
            with suppress(*_PYSAM_ERRORS), quiet():  # after damaged data closing complains once more
                handle.close()


@contextmanager
def _seekable(path: Path) -> Iterator[Path]:
    """The file, or a bgzip copy of one that is plain gzip, which pysam does not read."""
    try:
        with path.open("rb") as file:
            head = file.read(BGZIP_HEAD)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}), expected VCF or BCF") from None
    if not head.startswith(b"\x1f\x8b") or is_bgzip(head):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        with pysam.BGZFile(str(copy), "wb") as out:
            for _, text in read_lines(path):
                out.write(f"{text}\n".encode())
        yield copy


def _count_header_lines(path: Path) -> int:
    n = 0
    for n, text in read_lines(path):
        if not text.startswith("#"):
            return n - 1
    return n


def variants(file: VcfFile, interval: tuple[str, int, int] | None = None) -> Iterator[Variant]:
    """All records, or those that overlap an interval."""
    records, line = file.handle, file.n_header
    if interval is not None:
        with reading(file, 0):
            records = file.handle.fetch(*interval)
    while True:
        line = line + 1 if interval is None else 0
        with reading(file, line):
            record = next(records, None)
            if record is None:
                return
            start, reference, alternatives = record.start, record.ref or ".", tuple(record.alts or ())
            end = max(record.stop, start + len(reference))
            variant = Variant(line, record.contig, start, end, reference, alternatives, record)
        yield variant


@contextmanager
def reading(file: VcfFile, line: int) -> Iterator[None]:
    """Without messages on stderr; what pysam raises becomes a `DataError` that names the line."""
    try:
        with quiet():
            yield
    except _PYSAM_ERRORS as error:
        if not line:
            raise DataError(
                f"{file.path}: cannot be read ({_said(error)}), expected intact VCF or BCF: copy or make it again"
            ) from None
        place, found = ("record", "") if file.handle.is_bcf else ("line", _line(file.path, line))
        raise DataError(
            f"{file.path} {place} {line}: not a variant ({_said(error)}){found}, expected a record of 8 or more "
            f"columns that fits the header: correct it, or copy the file again"
        ) from None


def _line(path: Path, number: int) -> str:
    """The text of a line, for a message. Raises `DataError` if the file is damaged before it."""
    text = next((text for n, text in read_lines(path) if n == number), None)
    if text is None:
        return ""
    return f", found {shortened(text, 40)!r} ({len(text.split(chr(9)))} columns)"


def _said(error: Exception) -> str:
    return str(error).replace("`b'", "'").replace("'`", "'").strip() or type(error).__name__


def has_index(file: VcfFile) -> bool:
    """Whether places can be looked up: by an index that is not older than the file."""
    fresh = any(is_current(Path(f"{file.path}.{kind}"), file.path) for kind in ("tbi", "csi"))
    # htslib looks up names in the header, and a header need not name contigs.
    return fresh and file.handle.index is not None and len(file.handle.header.contigs) > 0


def as_text(value: object) -> str:
    """A value of INFO or QUAL; floats with as many digits as tell them apart in 32 bits."""
    if value is None:
        return ""
    return str(np.float32(value)) if isinstance(value, float) else str(value)


# ---------------------------------------------------------------- alleles and genome


def window_letters(genome: Genome, contig: str, start: int, end: int, rules: DataConfig) -> str:
    """Letters of an interval; off the contig N, or `Unusable`, by `data.regions.off_end`."""
    length = genome.lengths[contig]
    if 0 <= start and end <= length:
        return genome.sequence(contig, start, end)
    if rules.regions.off_end == "reject" or min(end, length) <= max(start, 0):
        raise Unusable(
            f"found the interval {contig}:{start}-{end}, allowed is within 0-{length}: leave it out, or fill it up "
            f"with N by data.regions.off_end: pad"
        )
    inside = genome.sequence(contig, max(start, 0), min(end, length))
    return "N" * max(-start, 0) + inside + "N" * max(end - length, 0)


def check_reference(genome: Genome, contig: str, variant: Variant) -> str:
    """REF as the genome has it, in its case. Raises `Unusable` if it has other letters there."""
    start, end = variant.start, variant.start + len(variant.reference)
    if start < 0 or end > genome.lengths[contig]:
        raise Unusable(
            f"found position {start + 1}, allowed is within 1-{genome.lengths[contig]} of '{contig}': are VCF and "
            f"genome of one assembly?"
        )
    there = genome.sequence(contig, start, end)
    if there.upper() != variant.reference.upper():
        raise Unusable(
            f"found REF '{shortened(variant.reference)}' where the genome has '{shortened(there)}' "
            f"({contig}:{start + 1}, {genome.path.name}): are VCF and genome of one assembly?"
        )
    return there


def check_allele(allele: str, rules: DataConfig) -> str:
    """An alternative allele of plain letters. Raises `Unusable` for any other."""
    if allele in ("", "."):
        raise Unusable("found no alternative allele, allowed are letters A, C, G, T and N")
    if not is_plain(allele):
        kind = (
            "the allele '*' of a deletion that another record describes"
            if allele == "*"
            else f"the symbolic allele '{shortened(allele)}'"
            if allele.startswith("<")
            else f"the breakend '{shortened(allele)}'"
            if set(allele) & set("[]")
            else f"the allele '{shortened(allele)}'"
        )
        raise Unusable(f"found {kind}, allowed are letters A, C, G, T and N")
    check_length(allele, rules)
    return allele


def check_length(allele: str, rules: DataConfig) -> None:
    longest = rules.variants.max_allele_bp
    if len(allele) > longest:
        raise Unusable(f"found an allele of {len(allele)} bp, allowed are {longest} (data.variants.max_allele_bp)")


def shortened(text: str, longest: int = 20) -> str:
    return text if len(text) <= longest else f"{text[:longest]}..."


def in_case_of(letters: str, replaced: str) -> str:
    """Letters in upper or lower case, as the first of those that they replace."""
    return letters.lower() if replaced[:1].islower() else letters.upper()


def is_plain(allele: str) -> bool:
    """Whether an allele is written in letters, not symbolic, missing or a breakend."""
    return bool(allele) and _LETTERS.issuperset(allele)
