"""Multiple sequence alignments: FASTA, a3m or a2m, and Stockholm."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from bioattn.data.residues import ALLOWED, Alignment, encode_residues
from bioattn.errors import DataError
from bioattn.io.fasta import read_fasta
from bioattn.io.lines import read_lines

Format = Literal["fasta", "a3m", "stockholm"]
#: What a lower-case letter of plain FASTA is: refused, a residue in its column, or an insertion as in a3m.
LowerCase = Literal["refused", "columns", "insertions"]
_SUFFIXES: dict[str, Format] = {
    ".a3m": "a3m", ".a2m": "a3m", ".sto": "stockholm", ".stk": "stockholm", ".stockholm": "stockholm",
    ".fasta": "fasta", ".fa": "fasta", ".faa": "fasta", ".aln": "fasta", ".afa": "fasta",
}  # fmt: skip


def read_alignment(path: str | Path, *, kind: Format | None = None, lower_case: LowerCase = "refused") -> Alignment:
    """Alignment of a file, plain or gzip.

    In a3m and a2m, lower-case letters and dots are insertions beside the columns of the alignment, and
    are left out. In plain FASTA a lower-case letter may be that or not, so it is refused.

    Parameters
    ----------
    kind : {"fasta", "a3m", "stockholm"}, optional
        By the ending of the name, if not given.
    lower_case : {"refused", "columns", "insertions"}
        What lower-case letters of plain FASTA are.

    Raises
    ------
    DataError
        If the file cannot be read, holds fewer than two sequences, rows of different length (which, by line),
        or letters that are no residues.
    """
    path = Path(path)
    kind = kind or _kind_of(path)
    means: LowerCase = "insertions" if kind == "a3m" else lower_case
    rows = list(_stockholm(path) if kind == "stockholm" else _fasta(path, means))
    if len(rows) < 2:
        raise DataError(f"{path}: an alignment needs at least 2 sequences, found {len(rows)}")
    width = len(rows[0][1])
    for name, sequence, line in rows:
        if len(sequence) != width:
            raise DataError(
                f"{path} line {line}: '{name}' has {len(sequence)} columns, but '{rows[0][0]}' has {width}: rows of an "
                "alignment are equally long"
            )
        wrong = set(sequence) - ALLOWED
        if wrong:
            found = ", ".join(repr(letter) for letter in sorted(wrong))
            raise DataError(
                f"{path} line {line}: '{name}' holds {found}; allowed are the letters of residues, '-' and '.'"
            )
    if width == 0:
        raise DataError(f"{path}: the alignment has no columns")
    return Alignment([name for name, _, _ in rows], np.stack([encode_residues(sequence) for _, sequence, _ in rows]))


def _kind_of(path: Path) -> Format:
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    suffix = suffixes[-1].lower() if suffixes else ""
    if suffix not in _SUFFIXES:
        raise DataError(
            f"{path}: the ending '{suffix}' says nothing of the format of the alignment; allowed are "
            f"{', '.join(_SUFFIXES)}, or name the format: fasta, a3m or stockholm"
        )
    return _SUFFIXES[suffix]


def _fasta(path: Path, lower_case: LowerCase) -> Iterator[tuple[str, str, int]]:
    for record in read_fasta(path):
        sequence = record.sequence
        if lower_case == "insertions":
            sequence = "".join(letter for letter in sequence if not (letter.islower() or letter == "."))
        elif lower_case == "columns":
            sequence = sequence.upper()
        elif any(letter.islower() for letter in sequence):
            raise DataError(
                f"{path} line {record.line}: '{record.header}' has lower-case letters, which in a3m are insertions and "
                "in FASTA may be residues: say which (lower_case: columns or insertions)"
            )
        yield record.header, sequence, record.line


def _stockholm(path: Path) -> Iterator[tuple[str, str, int]]:
    """Rows of the first alignment of a Stockholm file, whose blocks are joined."""
    parts: dict[str, list[str]] = {}
    first: dict[str, int] = {}
    begun = ended = False
    for number, text in read_lines(path):
        text = text.strip()
        if number == 1 and text.startswith("# STOCKHOLM"):
            begun = True
        elif text == "//":
            ended = True
            break
        elif text and not text.startswith("#"):
            words = text.split()
            if not begun or len(words) != 2:
                raise DataError(f"{path} line {number}: expected a name and its letters in a Stockholm file")
            parts.setdefault(words[0], []).append(words[1].upper())
            first.setdefault(words[0], number)
    if not begun:
        raise DataError(f"{path} line 1: a Stockholm file begins with '# STOCKHOLM 1.0'")
    if not ended:
        raise DataError(f"{path}: the Stockholm file ends without '//': is it whole?")
    for name, blocks in parts.items():
        yield name, "".join(blocks), first[name]
