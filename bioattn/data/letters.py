"""From letters as they were read to letters that a model may see: which are legal, and what becomes of the others."""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from bioattn.config import DataConfig, LengthConfig
from bioattn.data import alphabet
from bioattn.data.composition import masked_spans
from bioattn.errors import DataError

#: IUPAC code of several bases -> these bases.
AMBIGUOUS = {
    "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC", "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG",
}  # fmt: skip
_CODES = "".join(AMBIGUOUS)
_KNOWN = f"{alphabet.LETTERS}N".encode()
#: One of these is drawn: 12 can be divided by 2 and by 3, so every base of a code is as likely.
_DRAWS = 12

_TO_N = bytes.maketrans(_CODES.encode(), b"N" * len(_CODES))
_LOWER_TO_N = bytes.maketrans(bytes(range(ord("a"), ord("z") + 1)), b"N" * 26)
_CHOICES = np.zeros((256, _DRAWS), dtype=np.uint8)
for _code, _bases in AMBIGUOUS.items():
    _CHOICES[ord(_code)] = np.resize(np.frombuffer(_bases.encode(), dtype=np.uint8), _DRAWS)
_ILLEGAL = re.compile(f"[^{alphabet.LETTERS}N{_CODES}]", re.IGNORECASE | re.ASCII)
_PROTEIN = set("ACDEFGHIKLMNPQRSTVWYXBZ*")
#: Amino acids whose letters are no nucleotide code.
_PROTEIN_ONLY = set("EFILPQZ*")


class Letters(NamedTuple):
    """Letters of one sequence, and what was done to get them.

    Attributes
    ----------
    sequence : str
        Of A, C, G, T and N.
    soft_masked : str
        Spans of it that were lower case, as "0-12,55-80"; "" for none.
    n_ambiguous : int
        IUPAC codes that became N or one of their letters.
    before, after : int
        Letters that were added at either end; negative if letters were cut off.
    """

    sequence: str
    soft_masked: str
    n_ambiguous: int
    before: int
    after: int


def clean(sequence: str, rules: DataConfig, *, rng: Callable[[], np.random.Generator]) -> Letters:
    """The letters of a sequence by the rules of a run.

    The lengths that `min_length` and `max_length` allow are those of the
    sequence as it was read, before it is brought to the length of `length`.

    Parameters
    ----------
    rng : callable
        Makes the random generator of this sequence, for `ambiguous: sample`.

    Raises
    ------
    DataError
        If it is empty, too short or too long, RNA, protein, aligned, holds an
        illegal letter, or has no known base. Names the letter and its position.
    """
    if not sequence:
        raise DataError("found no sequence after the header, expected DNA letters")
    _check_legal(sequence)
    if len(sequence) < rules.min_length:
        raise DataError(f"found length {len(sequence)}, allowed is at least {rules.min_length} (data.min_length)")
    if rules.max_length is not None and len(sequence) > rules.max_length:
        raise DataError(f"found length {len(sequence)}, allowed is at most {rules.max_length} (data.max_length)")
    before, after = ends(len(sequence), rules.length)
    piece = "N" * before + sequence[max(-before, 0) : len(sequence) + min(after, 0)] + "N" * after
    letters, n_ambiguous = _resolved(piece, rules, rng, n_added=before)
    if letters.count(b"N") == len(letters):
        masked = ": are all lower case, which data.soft_masked: mask turns to N?" if rules.soft_masked == "mask" else ""
        raise DataError(f"found only unknown bases, at least one A, C, G or T is needed{masked}")
    spans = "" if rules.soft_masked == "mask" or piece == piece.upper() else masked_spans(piece)
    return Letters(letters.decode("ascii"), spans, n_ambiguous, before, after)


def ends(length: int, rules: LengthConfig) -> tuple[int, int]:
    """Letters to add at the start and at the end of a sequence, negative to cut off, so that it gets its length.

    Raises
    ------
    DataError
        If the sequence is longer or shorter and the rules do not take such.
    """
    if rules.bp is None or length == rules.bp:
        return 0, 0
    if length > rules.bp and rules.longer == "reject":
        raise DataError(f"found length {length}, allowed is at most {rules.bp} (data.length.longer: crop cuts it)")
    if length < rules.bp and rules.shorter == "reject":
        raise DataError(f"found length {length}, allowed is at least {rules.bp} (data.length.shorter: pad adds N)")
    if length < rules.bp and rules.shorter == "keep":
        return 0, 0
    difference = abs(rules.bp - length)
    at_start = {"start": 0, "center": difference // 2, "end": difference}[rules.anchor]
    sign = 1 if rules.bp > length else -1
    return sign * at_start, sign * (difference - at_start)


def _resolved(
    sequence: str, rules: DataConfig, rng: Callable[[], np.random.Generator], *, n_added: int
) -> tuple[bytes, int]:
    """Letters in upper case, soft-masked ones and codes replaced as the rules say, and how many codes there were."""
    raw = sequence.encode("ascii")
    letters = (raw.translate(_LOWER_TO_N) if rules.soft_masked == "mask" else raw).upper()
    n_ambiguous = len(letters.translate(None, delete=_KNOWN))
    if not n_ambiguous:
        return letters, 0
    if rules.ambiguous == "mask":
        return letters.translate(_TO_N), n_ambiguous
    codes = np.frombuffer(letters, dtype=np.uint8).copy()
    at = np.flatnonzero(_CHOICES[codes, 0])
    if rules.ambiguous == "reject":
        raise DataError(
            f"found the ambiguity code '{chr(codes[at[0]])}' at position {at[0] + 1 - n_added}, allowed are A, C, G, T "
            f"and N (data.ambiguous: mask takes it as N, sample as one of its bases)"
        )
    codes[at] = _CHOICES[codes[at], rng().integers(_DRAWS, size=len(at))]
    return codes.tobytes(), n_ambiguous


def _check_legal(sequence: str) -> None:
    # ASCII first: upper() makes legal letters of some that are not.
    others = sequence.encode("ascii").upper().translate(None, delete=_KNOWN) if sequence.isascii() else None
    if others is None or others.translate(None, delete=_CODES.encode()):
        bad = _ILLEGAL.search(sequence)
        assert bad is not None
        raise DataError(_illegal(sequence, bad.start()))
    if 2 * len(others) > len(sequence):
        raise DataError(
            f"{len(others)} of {len(sequence)} letters are ambiguity codes, allowed is DNA: is it a protein sequence?"
        )


def _illegal(sequence: str, position: int) -> str:
    letters = set(sequence.upper())
    found = f"found {sequence[position]!r} at position {position + 1}"
    allowed = f"allowed are A, C, G, T, N and the ambiguity codes {_CODES}"
    if letters & _PROTEIN_ONLY and letters <= _PROTEIN:
        return f"{found}: it looks like a protein sequence; {allowed}"
    if sequence[position] in "Uu" and not _ILLEGAL.search(sequence.upper().replace("U", "T")):
        return f"{found}: it looks like RNA; {allowed}: write T for U"
    if sequence[position] in "-.":
        return f"{found}: it looks like an aligned sequence; {allowed}: remove the gaps"
    return f"{found}; {allowed}"
