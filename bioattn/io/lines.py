"""Text files line by line, plain or gzip, with errors that name the file and the line."""

import csv
import difflib
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from bioattn.errors import DataError

#: Longest line, and longest record, in bytes: longer than any human chromosome, and bounds what one line can take up.
LONGEST_LINE = 2**29
#: Gzip data may expand to so many bytes whatever their size; beyond, at most so many times. Text with long runs of N
#: or of equal rows stays well below; what is made to fill memory reaches a thousand.
FREE_BYTES = 2**26
LARGEST_RATIO = 200

_GZIP = b"\x1f\x8b"
#: First bytes of what people try instead, so that the message can name it.
_OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive",
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a rar archive",
}
_BINARY_FORMATS = {
    b"PAR1": "a parquet file",
    b"BAM\x01": "a BAM file",
    b"CRAM": "a CRAM file",
    b"BCF\x02": "a BCF file",
    b"\x26\xfc\x8f\x88": "a bigWig file",
    b"\xeb\xf2\x89\x87": "a bigBed file",
}
_TAR, _TAR_PLACE = b"ustar", 257
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """1-based number and text of each line, without its line end.

    Gzip (and bgzip, which is gzip in blocks) is known by its first bytes, not by
    the file name. Lines may end in LF or CRLF.

    Raises
    ------
    DataError
        If the file is missing, unreadable, in another compression, cut short or
        damaged, or not UTF-8. Names the file and, where there is one, the line.
    """
    number = 0
    try:
        with Path(path).open("rb") as plain:
            read = _decompressed(path, plain).readline
            while raw := read(LONGEST_LINE + 1):
                number += 1
                if len(raw) > LONGEST_LINE:
                    raise DataError(
                        f"{path} line {number}: found a line of more than {LONGEST_LINE:,} bytes, which is the most "
                        f"allowed: is it text at all?"
                    )
                yield number, _decode(path, number, raw)
    except EOFError:
        raise DataError(
            f"{path} line {number + 1}: the gzip data end too early, found a truncated file, allowed is a complete "
            f"one: copy or download it again"
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path} line {number + 1}: damaged gzip data ({error}), allowed is an intact file: copy or download it "
            f"again"
        ) from None
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected a text file, plain or gzip") from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}), expected a readable text file, plain or gzip"
        ) from None


def _decompressed(path: str | Path, plain: io.BufferedReader) -> io.BufferedReader:
    _check_content(path, plain)
    if not plain.peek(2).startswith(_GZIP):
        return plain
    unpacked = cast(io.BufferedReader, io.BufferedReader(_Unpacked(path, plain), buffer_size=2**17))
    _check_content(path, unpacked, inside="gzip data with ")
    return unpacked


class _Unpacked(io.RawIOBase):
    """Content of a gzip file that stops where it grows beyond reason."""

    def __init__(self, path: str | Path, plain: io.BufferedReader) -> None:
        self._path, self._plain = path, plain
        self._gzip = gzip.GzipFile(fileobj=cast(IO[bytes], plain))
        self._total = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n = self._gzip.readinto(buffer)
        self._total += n
        if self._total > FREE_BYTES and self._total > LARGEST_RATIO * self._plain.tell():
            raise DataError(
                f"{self._path}: found gzip data that expand more than {LARGEST_RATIO}-fold, allowed beyond "
                f"{FREE_BYTES // 2**20} MiB is less: is it what you think it is? If so, unpack the file first"
            )
        return n


def _check_content(path: str | Path, data: io.BufferedReader, *, inside: str = "") -> None:
    """Raise `DataError` for what is no text. Archives are refused, never unpacked."""
    head = data.peek(_TAR_PLACE + len(_TAR))
    for magic, kind in _OTHER_FORMATS.items():
        if head.startswith(magic):
            raise DataError(f"{path}: found {inside}{kind}, allowed are plain text and gzip: unpack the file first")
    for magic, kind in _BINARY_FORMATS.items():
        if head.startswith(magic):
            raise DataError(f"{path}: found {inside}{kind}, expected text: is it the wrong file, or the wrong suffix?")
    if head[_TAR_PLACE:].startswith(_TAR):
        raise DataError(f"{path}: found {inside}a tar archive, allowed are plain text and gzip: unpack the file first")
    if inside and head.startswith(_GZIP):
        raise DataError(f"{path}: found gzip data packed by gzip once more: unpack the file first")


def _decode(path: str | Path, number: int, raw: bytes) -> str:
    if number == 1 and raw.startswith(_BYTE_ORDER_MARK):
        raw = raw[len(_BYTE_ORDER_MARK) :]
    try:
        text = raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} line {number}: found byte 0x{raw[error.start]:02x} at column {error.start + 1}, which is not "
            f"UTF-8 text, the only encoding allowed: save the file as UTF-8"
        ) from None
    if "\r" in text:
        raise DataError(
            f"{path} line {number}: found lines that end in CR alone, allowed are LF and CRLF: convert the line ends"
        )
    return text


class Row(NamedTuple):
    """One row of a delimited table: its line, and its cells by column."""

    line: int
    values: dict[str, str]


class Delimited(NamedTuple):
    """A delimited table as text; its rows come one at a time, once."""

    columns: list[str]
    rows: Iterator[Row]


def read_delimited(path: str | Path, *, required: Iterable[str] = (), tabs_only: bool = False) -> Delimited:
    """Cells of a TSV or CSV file, plain or gzip, as text with line numbers.

    The first line names the columns. It decides the separator too: tab if it
    holds one, else comma. Empty lines are skipped. A row is one line: a quoted
    cell does not go on in the next.

    Parameters
    ----------
    required : iterable of str
        Columns that must be there.
    tabs_only : bool
        Refuse commas as the separator.

    Raises
    ------
    DataError
        For an unreadable or empty file, a missing, empty or repeated column
        name, a row with another number of cells than the header, or a quote
        without an end. What is wrong with a row shows when the row is reached.
    """
    lines = read_lines(path)
    first = next(((number, text) for number, text in lines if text.strip()), None)
    if first is None:
        raise DataError(f"{path}: found an empty file, expected a table whose first line names the columns")
    header_line, header = first
    if tabs_only and "\t" not in header and "," in header:
        raise DataError(f"{path} line {header_line}: found columns separated by commas, allowed are tabs")
    separator = "\t" if "\t" in header or tabs_only else ","
    columns = [name.strip() for name in _cells(path, header_line, header, separator)]
    _check_columns(path, header_line, columns, required)
    return Delimited(columns, _rows(path, lines, columns, separator))


def _rows(path: str | Path, lines: Iterator[tuple[int, str]], columns: list[str], separator: str) -> Iterator[Row]:
    for number, text in lines:
        cells = [cell.strip() for cell in _cells(path, number, text, separator)]
        if not any(cells):
            continue
        if len(cells) != len(columns):
            raise DataError(
                f"{path} line {number}: found {len(cells)} cells, expected one for each of the {len(columns)} "
                f"columns ({', '.join(columns)})"
            )
        yield Row(number, dict(zip(columns, cells, strict=True)))


def _cells(path: str | Path, number: int, text: str, separator: str) -> list[str]:
    if '"' not in text:
        return text.split(separator)
    try:
        return next(csv.reader([text], delimiter=separator, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{path} line {number}: found a quote that does not enclose a cell ({error}), allowed are cells without "
            f"quotes, or in one pair of them"
        ) from None


def _check_columns(path: str | Path, line: int, columns: list[str], required: Iterable[str]) -> None:
    for position, name in enumerate(columns, 1):
        if not name:
            raise DataError(f"{path} line {line}: column {position} has no name, every column needs one")
        if columns.index(name) != position - 1:
            raise DataError(f"{path} line {line}: found column '{name}' twice, column names must differ")
    for name in required:
        if name not in columns:
            near = difflib.get_close_matches(name, columns, n=1)
            hint = f": is it '{near[0]}'?" if near else ""
            raise DataError(f"{path} line {line}: no column '{name}', found {', '.join(columns)}{hint}")
