"""Alignments in their formats, and what is refused."""

import gzip
from pathlib import Path

import pytest

from bioattn.data.residues import decode_residues
from bioattn.errors import DataError
from bioattn.io.msa import read_alignment

ROWS = {"one": "ACDE-G", "two": "ACD-FG", "three": "-CDEFW"}


def letters(path: Path, **more) -> dict[str, str]:
    made = read_alignment(path, **more)
    return dict(zip(made.names, map(decode_residues, made.codes), strict=True))


def test_fasta_a3m_and_stockholm_give_the_same(tmp_path: Path):
    """Insertions of a3m and blocks of Stockholm are gone; dots are gaps."""
    fasta = tmp_path / "x.fasta"
    fasta.write_text("".join(f">{name}\n{row[:3]}\n{row[3:]}\n" for name, row in ROWS.items()))
    a3m = tmp_path / "x.a3m.gz"
    a3m.write_bytes(gzip.compress(b">one\nACDE-G\n>two\nACDkk-FG\n>three\n-CDE..FaW\n"))
    stockholm = tmp_path / "x.sto"
    stockholm.write_text(
        "# STOCKHOLM 1.0\n#=GF ID x\none ACD\ntwo ACD\nthree .CD\n\none E.G\ntwo -FG\nthree EFW\n#=GC SS xxx\n//\n"
    )
    assert letters(fasta) == letters(a3m) == letters(stockholm) == ROWS
    mixed = tmp_path / "y.fasta"
    mixed.write_text(">one\nACDe-G\n>two\nACd-FG\n>three\n-CDEFW\n")
    assert letters(mixed, lower_case="columns") == ROWS
    mixed.write_text(">one\nACDE-G\n>two\nACDkk-FG\n>three\n-CDEFaW\n")
    assert letters(mixed, lower_case="insertions") == ROWS
    other = tmp_path / "x.txt"
    other.write_bytes(fasta.read_bytes())
    assert letters(other, kind="fasta") == ROWS
    with pytest.raises(DataError, match=r"the ending '.txt' says nothing"):
        read_alignment(other)


def test_residues_that_are_no_single_one_are_gaps():
    """X, B, Z and J are unknown; U and O are what they are made from."""
    from bioattn.data.residues import encode_residues

    assert decode_residues(encode_residues("AXBZJUO-.")) == "A----CK--"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.fasta", ">one\nACDE\n>two\nACD\n", r"x.fasta line 3: 'two' has 3 columns, but 'one' has 4"),
        ("x.fasta", ">one\nACDE\n>two\nACdE\n", r"line 3: 'two' has lower-case letters, which in a3m are insertions"),
        ("x.fasta", ">one\nACDE\n", r"needs at least 2 sequences, found 1"),
        ("x.fasta", ">one\nAC1E\n>two\nACDE\n", r"line 1: 'one' holds '1'; allowed"),
        ("x.a3m", ">one\nACDE\n>two\nacde\n", r"line 3: 'two' has 0 columns"),
        ("x.sto", "one ACD\n//\n", r"line 1: expected a name|begins with '# STOCKHOLM"),
        ("x.sto", "# STOCKHOLM 1.0\none ACD\ntwo ACD\n", r"ends without '//'"),
        ("x.sto", "# STOCKHOLM 1.0\none ACD E\n//\n", r"line 2: expected a name and its letters"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, name: str, text: str, message: str):
    """File, line, what was found and what is allowed."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_alignment(path)
