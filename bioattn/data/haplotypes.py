"""Sequence variants as edits of a reference sequence; no files here.

An edit replaces the letters from `start` to `end` by others: as many
(substitution), none (deletion), or, between two letters, new ones (insertion).
"""

from collections.abc import Iterable
from typing import NamedTuple

from bioattn.errors import DataError


class Edit(NamedTuple):
    """Letters `start` to `end` (0-based, half-open) become `letters`."""

    start: int
    end: int
    letters: str

    def __str__(self) -> str:
        return f"{self.start}-{self.end} to '{self.letters}'"


def trimmed(start: int, reference: str, alternative: str) -> Edit:
    """The smallest edit that turns `reference`, which lies at `start`, into `alternative`.

    Letters that both share are taken off the end first, then off the beginning,
    so an edit within a repeat stays as far left as it was given. Upper and lower
    case are the same letter. Alleles that are the same give an edit of nothing.
    """
    a, b = reference.upper(), alternative.upper()
    n_end = _shared(a[::-1], b[::-1])
    n_begin = _shared(a[: len(a) - n_end], b[: len(b) - n_end])
    return Edit(start + n_begin, start + len(a) - n_end, alternative[n_begin : len(b) - n_end])


def _shared(a: str, b: str) -> int:
    """Length of the common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def apply_edits(sequence: str, edits: Iterable[Edit], *, offset: int = 0) -> str:
    """The sequence with all edits made at once, each in the coordinates of the unedited sequence.

    Edits may touch: an insertion between two letters goes before an edit that
    starts there.

    Parameters
    ----------
    edits : iterable of Edit
        In any order.
    offset : int
        Coordinate of the first letter.

    Raises
    ------
    DataError
        If an edit does not lie within the sequence, or two overlap: then their
        result is not defined, as for two insertions at one place.
    """
    parts = []
    place, last = offset, None
    end = offset + len(sequence)
    for edit in sorted(edits):
        if last is not None and (edit.start < last.end or (edit.start, edit.end) == (last.start, last.end)):
            raise DataError(f"found edits that overlap ({last} and {edit}), allowed are edits apart from each other")
        if not offset <= edit.start <= edit.end <= end:
            raise DataError(f"found an edit beyond the sequence ({edit}), allowed is within {offset}-{end}")
        parts += [sequence[place - offset : edit.start - offset], edit.letters]
        place, last = edit.end, edit
    return "".join([*parts, sequence[place - offset :]])
