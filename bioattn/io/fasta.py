"""FASTA in and out: records with their line numbers, whole files or none."""

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from bioattn.errors import DataError
from bioattn.io.files import replacing
from bioattn.io.lines import LONGEST_LINE, read_lines


class FastaRecord(NamedTuple):
    """One FASTA record: header without '>', sequence as written, 1-based line of the header."""

    header: str
    sequence: str
    line: int


def read_fasta(path: str | Path, *, allow_empty: bool = False) -> Iterator[FastaRecord]:
    """Records of a FASTA file, plain, gzip or bgzip, one at a time.

    Letters are not judged here: that needs to know what the sequences are for.

    Parameters
    ----------
    allow_empty : bool
        Pass on records without a sequence instead of raising, for a caller
        that lists bad records.

    Raises
    ------
    DataError
        If the file is missing, unreadable, empty, truncated or not UTF-8; if it
        has text before the first '>'; if a record has no sequence, or a longer
        one than `LONGEST_LINE`.
    """
    header: str | None = None
    line = 0
    parts: list[str] = []
    size = 0
    for number, text in read_lines(path):
        text = text.strip()
        if not text:
            continue
        if text.startswith(">"):
            if header is not None:
                yield _record(path, header, parts, line, allow_empty)
            header, line, parts, size = text[1:].strip(), number, [], 0
        elif header is None:
            hint = ": is it FASTQ?" if text.startswith("@") else ""
            raise DataError(
                f"{path} line {number}: found {_shortened(text)} before the first record, allowed is a header that "
                f"starts with '>'{hint}"
            )
        else:
            parts.append(text)
            size += len(text)
            if size > LONGEST_LINE:
                raise DataError(
                    f"{path} line {line}: record {_shortened(header)} has more than {LONGEST_LINE:,} letters, which "
                    f"is the most allowed: cut it into windows first"
                )
    if header is None:
        raise DataError(f"{path}: found an empty file, expected FASTA records (a line '>name', then the sequence)")
    yield _record(path, header, parts, line, allow_empty)


def write_fasta(path: str | Path, records: Iterable[tuple[str, str]], *, width: int = 80) -> None:
    """Write (header, sequence) pairs as FASTA, whole or not at all.

    A path that ends in ``.gz`` is compressed, always to the same bytes for the
    same records.

    Raises
    ------
    DataError
        If a header holds a line break, a sequence is empty, or the file cannot
        be written.
    """
    path = Path(path)
    with replacing(path) as temporary, temporary.open("wb") as plain:
        if path.suffix == ".gz":
            with gzip.GzipFile(filename="", mode="wb", fileobj=plain, mtime=0) as packed:
                for record in records:
                    packed.write(_format(*record, width=width))
        else:
            for record in records:
                plain.write(_format(*record, width=width))


def _format(header: str, sequence: str, *, width: int) -> bytes:
    if "\n" in header or "\r" in header:
        raise DataError(f"FASTA header {header!r} holds a line break: it must be one line")
    if not sequence:
        raise DataError(f"FASTA record '{header}' has no sequence: it cannot be written")
    lines = [sequence[start : start + width] for start in range(0, len(sequence), width)]
    return ("\n".join([f">{header}", *lines]) + "\n").encode()


def _record(path: str | Path, header: str, parts: list[str], line: int, allow_empty: bool) -> FastaRecord:
    if not parts and not allow_empty:
        raise DataError(f"{path} line {line}: record '{header}' has no sequence, expected letters after its header")
    return FastaRecord(header, "".join(parts), line)


def _shortened(text: str, longest: int = 30) -> str:
    return repr(text if len(text) <= longest else text[:longest] + "...")
