"""Variants as edits of a sequence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioattn.data.haplotypes import Edit, apply_edits, trimmed
from bioattn.errors import DataError

LETTERS = st.text(alphabet="ACGTN", max_size=7)
SEQUENCES = st.text(alphabet="ACGTN", min_size=1, max_size=41)


def chosen(sequence: str, cuts: list[int], letters: list[str], offset: int) -> list[Edit]:
    """Edits between every other pair of cuts: apart from each other."""
    places = sorted({cut % (len(sequence) + 1) for cut in cuts})
    pairs = zip(places[::2], places[1::2], letters, strict=False)
    return [Edit(start + offset, end + offset, new) for start, end, new in pairs]


@given(SEQUENCES, st.lists(st.integers(0, 41), max_size=8), st.lists(LETTERS, max_size=4), st.integers(-3, 1000))
def test_edits_are_those_of_a_loop(sequence: str, cuts: list[int], letters: list[str], offset: int) -> None:
    """Letter by letter: inside an edit nothing is kept, at its start its letters are put in; any order of edits."""
    edits = chosen(sequence, cuts, letters, offset)
    slow = ""
    for place in range(len(sequence) + 1):
        slow += "".join(edit.letters for edit in edits if edit.start == place + offset)
        if place < len(sequence) and not any(edit.start <= place + offset < edit.end for edit in edits):
            slow += sequence[place]
    assert apply_edits(sequence, edits[::-1], offset=offset) == slow


@given(SEQUENCES, st.lists(st.integers(0, 41), max_size=8), st.lists(LETTERS, max_size=4))
def test_undoing_edits_restores_the_reference(sequence: str, cuts: list[int], letters: list[str]) -> None:
    """Each edit has an inverse in the coordinates of the edited sequence; all of them together give it back."""
    edits = chosen(sequence, cuts, letters, 0)
    back, moved = [], 0
    for edit in edits:
        start = edit.start + moved
        back.append(Edit(start, start + len(edit.letters), sequence[edit.start : edit.end]))
        moved += len(edit.letters) - (edit.end - edit.start)
    assert apply_edits(apply_edits(sequence, edits), back) == sequence


@given(st.text(alphabet="ACacg", max_size=9), st.text(alphabet="ACacg", max_size=9), SEQUENCES, SEQUENCES)
def test_a_trimmed_edit_does_the_same_with_the_fewest_letters(ref: str, alt: str, before: str, after: str) -> None:
    """It turns REF into ALT, shares no letter with it at either end, and stays as far left as it was."""
    edit = trimmed(len(before), ref, alt)
    assert apply_edits(before + ref + after, [edit]).upper() == (before + alt + after).upper()
    old, new = ref[edit.start - len(before) : edit.end - len(before)].upper(), edit.letters.upper()
    assert len(before) <= edit.start <= edit.end <= len(before + ref)
    assert not (old and new) or (old[0] != new[0] and old[-1] != new[-1])


@pytest.mark.parametrize(
    ("ref", "alt", "expected"),
    [
        ("CA", "C", Edit(11, 12, "")),
        ("C", "CTT", Edit(11, 11, "TT")),
        ("CAAA", "CA", Edit(11, 13, "")),
        ("CA", "CAAA", Edit(11, 11, "AA")),
        ("ACGT", "ATGT", Edit(11, 12, "T")),
        ("a", "A", Edit(10, 10, "")),
    ],
)
def test_known_trims(ref: str, alt: str, expected: Edit) -> None:
    """Common letters go from the end first: a deletion in a run of A is that of its first ones."""
    assert trimmed(10, ref, alt) == expected


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ([Edit(1, 3, ""), Edit(2, 4, "")], "overlap"),
        ([Edit(2, 2, "A"), Edit(2, 2, "C")], "overlap"),
        ([Edit(1, 3, ""), Edit(2, 2, "A")], "overlap"),
        ([Edit(1, 1, ""), Edit(1, 1, "")], "overlap"),
        ([Edit(-1, 2, "")], "beyond the sequence.*within 0-5"),
        ([Edit(4, 6, "")], "beyond the sequence"),
        ([Edit(3, 2, "")], "beyond the sequence"),
    ],
)
def test_edits_without_one_result(edits: list[Edit], expected: str) -> None:
    """Overlapping edits, two insertions at one place and edits beyond the sequence raise, in either order."""
    for order in (edits, edits[::-1]):
        with pytest.raises(DataError, match=expected):
            apply_edits("ACGTA", order)


def test_edits_may_touch() -> None:
    """A deletion up to an insertion, and an insertion before a substitution, each have one result."""
    assert apply_edits("ACGTA", [Edit(1, 3, ""), Edit(3, 3, "GG"), Edit(3, 4, "C")]) == "AGGCA"
