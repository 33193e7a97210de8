"""FASTA in and out."""

import gzip
from pathlib import Path

import pytest

from bioattn.errors import DataError
from bioattn.io import fasta
from bioattn.io.fasta import FastaRecord, read_fasta, write_fasta


def test_records_with_their_header_lines(tmp_path: Path) -> None:
    """Wrapped lines join, blank lines and CRLF vanish, and each record knows the line of its header."""
    path = tmp_path / "a.fa"
    path.write_bytes(b"\n>one first\r\nacgt\r\nAC\r\n\r\n>two\nGG\n\n")
    assert list(read_fasta(path)) == [FastaRecord("one first", "acgtAC", 2), FastaRecord("two", "GG", 6)]


def test_records_stream(tmp_path: Path) -> None:
    """Records come before the rest of the file is read: an error further down shows only when reached."""
    path = tmp_path / "a.fa"
    path.write_bytes(b">one\nAC\n>two\nGG\n>thr\xe9e\nAC\n")
    reader = read_fasta(path)
    assert next(reader).header == "one"
    with pytest.raises(DataError, match="line 5"):
        list(reader)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "found an empty file, expected FASTA records"),
        (b"  \n\n", "found an empty file"),
        (gzip.compress(b"", mtime=0), "found an empty file"),
        (b"ACGT\n>a\nACGT\n", "line 1: found 'ACGT' before the first record, allowed is a header"),
        (b"\n@read\nACGT\n+\nIIII\n", "line 2: found '@read' .*is it FASTQ"),
        (b">a\nACGT\n>b\n>c\nACGT\n", "line 3: record 'b' has no sequence"),
        (b">a\nACGT\n>b\n", "line 3: record 'b' has no sequence"),
    ],
)
def test_bad_fasta(tmp_path: Path, data: bytes, expected: str) -> None:
    """What is not FASTA raises with file, line, found and allowed."""
    path = tmp_path / "bad.fa"
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"bad.fa.*{expected}"):
        list(read_fasta(path))


def test_one_long_line_and_mixed_line_ends(tmp_path: Path) -> None:
    """A byte order mark, CRLF beside LF, and ten million letters in one line are read as they are."""
    path = tmp_path / "a.fa"
    path.write_bytes(b"\xef\xbb\xbf>one\r\n" + b"ACGTN" * 2_000_000 + b"\n>two\nAC\r\nGT")
    one, two = read_fasta(path)
    assert (one.header, one.line, len(one.sequence)) == ("one", 1, 10_000_000)
    assert one.sequence[-6:] == "NACGTN" and two == FastaRecord("two", "ACGT", 3)


def test_endless_records_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A record beyond the limit raises with its line, over however many lines it goes."""
    monkeypatch.setattr(fasta, "LONGEST_LINE", 100)
    path = tmp_path / "a.fa"
    path.write_text(">one\n" + "ACGTACGTAC\n" * 10)
    assert len(next(read_fasta(path)).sequence) == 100
    path.write_text(">one\nAC\n>two\n" + "ACGTACGTAC\n" * 11)
    with pytest.raises(
        DataError, match="a.fa line 3: record 'two' has more than 100 letters, which is the most allowed"
    ):
        list(read_fasta(path))


def test_empty_records_may_be_passed_on(tmp_path: Path) -> None:
    """A caller that lists bad records gets empty ones too."""
    path = tmp_path / "a.fa"
    path.write_text(">a\n>b\nACGT\n")
    assert list(read_fasta(path, allow_empty=True)) == [FastaRecord("a", "", 1), FastaRecord("b", "ACGT", 2)]


@pytest.mark.parametrize("name", ["out.fa", "out.fa.gz"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    """Writing and reading are inverse, and the same records give the same bytes."""
    records = [("one first", "ACGTN" * 37), ("two", "A")]
    write_fasta(tmp_path / name, records, width=61)
    assert [(r.header, r.sequence) for r in read_fasta(tmp_path / name)] == records
    again = tmp_path / "again" / name
    write_fasta(again, iter(records), width=61)
    assert again.read_bytes() == (tmp_path / name).read_bytes()
    if name.endswith(".gz"):
        assert again.read_bytes()[:8] == b"\x1f\x8b\x08\x00\0\0\0\0", "gzip without file name and time"


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """An error between records leaves what stood there, and nothing beside it."""
    path = tmp_path / "out.fa"
    write_fasta(path, [("one", "ACGT")])
    for bad in [("two\nlines", "ACGT"), ("empty", "")]:
        with pytest.raises(DataError):
            write_fasta(path, [("one", "GGGG"), bad])
    assert path.read_text() == ">one\nACGT\n"
    assert list(tmp_path.iterdir()) == [path]
