"""Text files line by line, plain or gzip, with errors that name the file and the line."""

import csv
import difflib
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

from bioattn.errors import DataError

_GZIP = b"\x1f\x8b"
#: First bytes of what people try instead, so that the message can name it.
_OTHER_FORMATS = {b"PK\x03\x04": "a zip archive", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd"}
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
            for number, raw in enumerate(_decompressed(path, plain), 1):
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


def _decompressed(path: str | Path, plain: io.BufferedReader) -> Iterable[bytes]:
    head = plain.peek(8)[:8]
    for magic, kind in _OTHER_FORMATS.items():
        if head.startswith(magic):
            raise DataError(f"{path}: found {kind}, allowed are plain text and gzip: unpack the file first")
    if head.startswith(_GZIP):
        return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=cast(IO[bytes], plain))))
    return plain


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
    """One row of a delimited table: the line it ends on, and its cells by column."""

    line: int
    values: dict[str, str]


class Delimited(NamedTuple):
    """A delimited table as text."""

    columns: list[str]
    rows: list[Row]


def read_delimited(path: str | Path, *, required: Iterable[str] = (), tabs_only: bool = False) -> Delimited:
    """Cells of a TSV or CSV file, plain or gzip, as text with line numbers.

    The first line names the columns. It decides the separator too: tab if it
    holds one, else comma. Empty lines are skipped.

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
        name, or a row with another number of cells than the header.
    """
    lines = ((number, text) for number, text in read_lines(path))
    first = next(((number, text) for number, text in lines if text.strip()), None)
    if first is None:
        raise DataError(f"{path}: found an empty file, expected a table whose first line names the columns")
    header_line, header = first
    if tabs_only and "\t" not in header and "," in header:
        raise DataError(f"{path} line {header_line}: found columns separated by commas, allowed are tabs")
    separator = "\t" if "\t" in header or tabs_only else ","
    columns = [name.strip() for name in next(csv.reader([header], delimiter=separator))]
    _check_columns(path, header_line, columns, required)
    reader = csv.reader((text for _, text in lines), delimiter=separator)
    rows = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            number = header_line + reader.line_num
            if len(cells) != len(columns):
                raise DataError(
                    f"{path} line {number}: found {len(cells)} cells, expected one for each of the {len(columns)} "
                    f"columns ({', '.join(columns)})"
                )
            rows.append(Row(number, {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}))
    except csv.Error as error:
        raise DataError(f"{path} line {header_line + reader.line_num}: not a table row ({error})") from None
    return Delimited(columns, rows)


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
