"""Text files with line numbers, whatever is wrong with them."""

import gzip
from pathlib import Path

import pytest

from bioattn.errors import DataError
from bioattn.io.lines import read_delimited, read_lines


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_plain_gzip_and_bgzip_read_alike(tmp_path: Path) -> None:
    """Compression is known by content: the name may lie, and gzip may come in several blocks."""
    text = b"one\ntwo\n\nfour"
    blocks = gzip.compress(text[:5]) + gzip.compress(text[5:])
    expected = [(1, "one"), (2, "two"), (3, ""), (4, "four")]
    for name, data in [("a.txt", text), ("b.txt", gzip.compress(text)), ("c.gz", text), ("d.gz", blocks)]:
        assert list(read_lines(write(tmp_path / name, data))) == expected, name


def test_crlf_and_byte_order_mark_are_dropped(tmp_path: Path) -> None:
    """Files from Windows give the same lines."""
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert list(read_lines(path)) == [(1, "one"), (2, "two")]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"good\nb\xe4d\n", "line 2: found byte 0xe4 at column 2, which is not UTF-8"),
        (b">a\rACGT\r>b\rACGT\r", "line 1: found lines that end in CR alone, allowed are LF and CRLF"),
        (gzip.compress(b"one\ntwo\n" * 50, mtime=0)[:-12], "line .*found a truncated file, allowed is a complete one"),
        (gzip.compress(b"one\n", mtime=0)[:3], "found a truncated file"),
        (gzip.compress(b"one\n", mtime=0)[:-8] + b"\0" * 8, "damaged gzip data"),
        (b"PK\x03\x04rest", "found a zip archive, allowed are plain text and gzip"),
        (b"BZh91AY", "found bzip2"),
    ],
)
def test_unreadable_content(tmp_path: Path, data: bytes, expected: str) -> None:
    """Each kind of damage has its own message with file, place and what is allowed."""
    path = write(tmp_path / "broken", data)
    with pytest.raises(DataError, match=expected) as caught:
        list(read_lines(path))
    assert str(caught.value).startswith(str(path))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    """A path without a file, and a folder, raise with the path."""
    with pytest.raises(DataError, match="absent.txt: no such file, expected"):
        list(read_lines(tmp_path / "absent.txt"))
    with pytest.raises(DataError, match="cannot be read.*directory"):
        list(read_lines(tmp_path))


def test_delimited_by_tab_or_comma_with_quotes(tmp_path: Path) -> None:
    """The header decides the separator; quotes protect it; lines are those of the file, empty ones counted."""
    tabs = read_delimited(write(tmp_path / "a.tsv", b"name\ty\nr1, x\t1\n\nr2\t2\n"))
    assert [(row.line, row.values["name"]) for row in tabs.rows] == [(2, "r1, x"), (4, "r2")]
    commas = read_delimited(write(tmp_path / "b.csv", b'name,y\n"r1, x",1\n'))
    assert commas.columns == ["name", "y"] and commas.rows[0].values == {"name": "r1, x", "y": "1"}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "found an empty file, expected a table"),
        (b"\n \n", "found an empty file"),
        (b"name\ty\nr1\t1\t2\n", r"line 2: found 3 cells, expected one for each of the 2 columns \(name, y\)"),
        (b"name\tname\n", "line 1: found column 'name' twice"),
        (b"name\t\n", "line 1: column 2 has no name"),
        (b"Name\tx\n", "line 1: no column 'name', found Name, x: is it 'Name'"),
    ],
)
def test_bad_tables(tmp_path: Path, data: bytes, expected: str) -> None:
    """Tables that do not hold together raise with line, found and expected."""
    with pytest.raises(DataError, match=expected):
        read_delimited(write(tmp_path / "t.tsv", data), required=["name"])
