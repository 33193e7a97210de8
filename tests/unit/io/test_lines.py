"""Text files with line numbers, whatever is wrong with them."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from bioattn.errors import DataError
from bioattn.io import lines
from bioattn.io.lines import FREE_BYTES, read_delimited, read_lines


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def tarred() -> bytes:
    """A tar archive with one FASTA file."""
    packed, content = io.BytesIO(), b">a\nACGT\n"
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("a.fa")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


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
        (b"7z\xbc\xaf\x27\x1c..", "found a 7z archive"),
        (b"PAR1....", "found a parquet file, expected text"),
        (gzip.compress(b"BAM\x01....", mtime=0), "found gzip data with a BAM file, expected text"),
        (tarred(), "found a tar archive, allowed are plain text and gzip: unpack the file first"),
        (gzip.compress(tarred(), mtime=0), "found gzip data with a tar archive"),
        (gzip.compress(gzip.compress(b"one", mtime=0), mtime=0), "found gzip data packed by gzip once more"),
    ],
)
def test_unreadable_content(tmp_path: Path, data: bytes, expected: str) -> None:
    """Each kind of damage has its own message with file, place and what is allowed."""
    path = write(tmp_path / "broken", data)
    with pytest.raises(DataError, match=expected) as caught:
        list(read_lines(path))
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("line", [b"A" * 2**20, (b"A" * 1023 + b"\n") * 2**10], ids=["one line", "many lines"])
def test_gzip_that_expands_beyond_reason_is_stopped(tmp_path: Path, line: bytes) -> None:
    """A small file that would fill the memory ends in an error with the limits, long before its end."""
    bomb = gzip.compress(line * (2 * FREE_BYTES // len(line)))
    assert len(bomb) < FREE_BYTES / 200
    seen = 0
    with pytest.raises(
        DataError, match="bomb.gz: found gzip data that expand more than 200-fold, allowed beyond 64 MiB"
    ):
        for _, text in read_lines(write(tmp_path / "bomb.gz", bomb)):
            seen += len(text)
    assert seen < 1.1 * FREE_BYTES


def test_gzip_of_ordinary_text_may_be_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the free size, text that packs well but not absurdly is read to its end."""
    monkeypatch.setattr(lines, "FREE_BYTES", 1000)
    text = "".join(f"record_{i}\t1\ttrain\n" for i in range(3000)).encode()
    assert len(list(read_lines(write(tmp_path / "a.gz", gzip.compress(text))))) == 3000


def test_endless_lines_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line beyond the limit raises with its number and the limit; one at the limit is read."""
    monkeypatch.setattr(lines, "LONGEST_LINE", 100)
    assert list(read_lines(write(tmp_path / "a.txt", b"x\n" + b"A" * 99 + b"\n"))) == [(1, "x"), (2, "A" * 99)]
    with pytest.raises(DataError, match="a.txt line 2: found a line of more than 100 bytes, which is the most allowed"):
        list(read_lines(write(tmp_path / "a.txt", b"x\n" + b"A" * 101 + b"\n")))


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
    commas = read_delimited(write(tmp_path / "b.csv", b'name,y\n"r1, x",1\n5"UTR,2\n'))
    assert commas.columns == ["name", "y"]
    assert [row.values for row in commas.rows] == [{"name": "r1, x", "y": "1"}, {"name": '5"UTR', "y": "2"}]


def test_rows_come_as_they_are_read(tmp_path: Path) -> None:
    """A row is there before the next is read: what is wrong further down shows only when reached."""
    rows = read_delimited(write(tmp_path / "a.tsv", b"name\ty\nr1\t1\nr2\n")).rows
    assert next(rows).values == {"name": "r1", "y": "1"}
    with pytest.raises(DataError, match="line 3: found 1 cells"):
        next(rows)


def test_long_cells_are_read(tmp_path: Path) -> None:
    """A sequence of a million letters fits into a cell."""
    rows = read_delimited(write(tmp_path / "a.csv", b"name,sequence\nx," + b"ACGT" * 250_000 + b"\n")).rows
    assert len(next(rows).values["sequence"]) == 1_000_000


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "found an empty file, expected a table"),
        (b"\n \n", "found an empty file"),
        (b"name\ty\nr1\t1\t2\n", r"line 2: found 3 cells, expected one for each of the 2 columns \(name, y\)"),
        (b"name\tname\n", "line 1: found column 'name' twice"),
        (b"name\t\n", "line 1: column 2 has no name"),
        (b"Name\tx\n", "line 1: no column 'name', found Name, x: is it 'Name'"),
        (b'name\ty\nr1\t"1\nr2\t2\nr3\t3"\n', "line 2: found a quote that does not enclose a cell"),
        (b'name\ty\nr1\t"1" 2\n', "line 2: found a quote that does not enclose a cell"),
    ],
)
def test_bad_tables(tmp_path: Path, data: bytes, expected: str) -> None:
    """Tables that do not hold together raise with line, found and expected."""
    with pytest.raises(DataError, match=expected):
        list(read_delimited(write(tmp_path / "t.tsv", data), required=["name"]).rows)
