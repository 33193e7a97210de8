"""What becomes of the letters of a sequence."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioattn.config import DataConfig, parse_run
from bioattn.data.letters import AMBIGUOUS, Letters, clean, ends
from bioattn.errors import DataError

ANCHORS = st.sampled_from(["start", "center", "end"])


def rules(**data: Any) -> DataConfig:
    return parse_run({"data": {"min_length": 2, **data}}).data


def cleaned(sequence: str, seed: int = 1, **data: Any) -> Letters:
    return clean(sequence, rules(**data), rng=lambda: np.random.default_rng(seed))


def lower_positions(spans: str) -> set[int]:
    pairs = [span.split("-") for span in spans.split(",") if span]
    return {position for start, end in pairs for position in range(int(start), int(end))}


def test_ambiguity_codes_become_n() -> None:
    """IUPAC ambiguity codes are kept as N, at their place, and counted."""
    done = cleaned("acgtRYSWKMBDHVNacgtacgta")
    assert (done.sequence, done.n_ambiguous) == ("ACGTNNNNNNNNNNNACGTACGTA", 10)


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        ("ACGUACGU", r"'U' at position 4: it looks like RNA.*write T"),
        ("acguacgu", r"'u' at position 4: it looks like RNA"),
        ("MKLVINLPQE", r"'L' at position 3: it looks like a protein sequence; allowed are A, C, G, T"),
        ("MKKVDSRWHYSKM", "is it a protein sequence"),
        ("ACG-TACGT", r"'-' at position 4: it looks like an aligned"),
        ("ACGT7ACGT", r"'7' at position 5; allowed are A, C, G, T, N"),
        ("ACGT ACGT", r"' ' at position 5"),
        ("ACGTÄCGT", r"'Ä' at position 5"),
        ("ACGTACGßACGT", r"'ß' at position 8"),
        ("ACGTACGſACGT", r"'ſ' at position 8"),
        ("NNNNNNNN", "only unknown bases"),
        ("", "no sequence after the header"),
        ("A", r"length 1, allowed is at least 4 \(data.min_length\)"),
        ("ACGTACGTACGTACGT", r"length 16, allowed is at most 13 \(data.max_length\)"),
    ],
)
def test_bad_sequences_say_what_is_wrong(sequence: str, expected: str) -> None:
    """Each kind of unusable sequence gets its own message; letters that only upper case makes legal are not."""
    with pytest.raises(DataError, match=expected):
        cleaned(sequence, min_length=4, max_length=13)


def test_sampled_codes_are_their_bases_equally_often() -> None:
    """With sample each code becomes each of its bases equally often, and nothing else changes."""
    n = 3000
    sequence = "".join(code * n + "ACGTN" * n for code in AMBIGUOUS)
    done = cleaned(sequence, ambiguous="sample")
    for i, bases in enumerate(AMBIGUOUS.values()):
        block = done.sequence[6 * n * i : 6 * n * (i + 1)]
        drawn = block[:n]
        assert set(drawn) == set(bases)
        for base in bases:
            assert abs(drawn.count(base) / n - 1 / len(bases)) < 4 * (0.25 / n) ** 0.5
        assert block[n:] == "ACGTN" * n
    assert done.n_ambiguous == 10 * n


def test_rejected_codes_are_named_with_their_position() -> None:
    """With reject the first code is named where it stands in the file; N is no code, nor is what is cut off."""
    with pytest.raises(DataError, match=r"code 'Y' at position 9, allowed are A, C, G, T and N \(data.ambiguous: mask"):
        cleaned("ACGTNACGyR", ambiguous="reject")
    with pytest.raises(DataError, match=r"code 'Y' at position 9"):
        cleaned("ACGTNACGYR", ambiguous="reject", length={"bp": 4, "anchor": "end"})
    assert cleaned("ACGTNACGYR", ambiguous="reject", length={"bp": 8, "anchor": "start"}).sequence == "ACGTNACG"


@settings(deadline=None)
@given(st.text("ACGTNacgtnRy", min_size=2, max_size=60), st.integers(2, 70), ANCHORS)
def test_soft_masked_spans_are_the_lower_case_letters(sequence: str, bp: int, anchor: str) -> None:
    """Spans say which letters of the result were lower case, also after cutting and padding; mask makes them N."""
    sequence += "A" * len(sequence)  # known bases, and more letters than codes
    length = {"bp": bp, "shorter": "pad", "anchor": anchor}
    before, after = ends(len(sequence), rules(length=length).length)
    kept = "N" * before + sequence[max(-before, 0) : len(sequence) + min(after, 0)] + "N" * after
    if set(kept.upper()) & set("ACGT"):
        done = cleaned(sequence, length=length)
        assert lower_positions(done.soft_masked) == {i for i, letter in enumerate(kept) if letter.islower()}
    if set(kept) & set("ACGT"):
        masked = cleaned(sequence, length=length, soft_masked="mask")
        expected = "".join("N" if letter.islower() or letter == "R" else letter for letter in kept)
        assert (masked.sequence, masked.soft_masked) == (expected, "")


def test_all_masked_says_why() -> None:
    """A lower-case file with mask has no bases left: the message names the setting."""
    with pytest.raises(DataError, match="only unknown bases.*lower case, which data.soft_masked: mask turns to N"):
        cleaned("acgtacgt", soft_masked="mask")


@settings(deadline=None)
@given(st.text("ACGT", min_size=2, max_size=40), st.integers(2, 40), ANCHORS)
def test_length_is_as_asked_and_the_anchor_stays(sequence: str, bp: int, anchor: str) -> None:
    """Cut sequences are a piece at the anchor; padding is undone by cutting at the same anchor."""
    done = cleaned(sequence, length={"bp": bp, "shorter": "pad", "anchor": anchor})
    assert len(done.sequence) == bp == len(sequence) + done.before + done.after
    if bp <= len(sequence):
        cut = len(sequence) - bp
        first = {"start": 0, "center": cut // 2, "end": cut}[anchor]
        assert done.sequence == sequence[first : first + bp]
    else:
        back = cleaned(done.sequence, length={"bp": len(sequence), "anchor": anchor})
        assert back.sequence == sequence and (back.before, back.after) == (-done.before, -done.after)
        assert done.sequence.strip("N") == sequence


def test_what_happens_to_longer_and_shorter_sequences() -> None:
    """Longer and shorter sequences are cut, padded, kept or rejected as each setting says."""
    with pytest.raises(DataError, match=r"length 12, allowed is at most 8 \(data.length.longer: crop cuts it\)"):
        cleaned("ACGTACGTACGT", length={"bp": 8, "longer": "reject"})
    with pytest.raises(DataError, match=r"length 6, allowed is at least 8 \(data.length.shorter: pad adds N\)"):
        cleaned("ACGTAC", length={"bp": 8, "shorter": "reject"})
    assert cleaned("ACGTAC", length={"bp": 8}).sequence == "ACGTAC"
    assert cleaned("ACGTACGT", length={"bp": 8, "longer": "reject", "shorter": "reject"}).sequence == "ACGTACGT"


def test_limits_are_for_the_sequence_as_read() -> None:
    """Padding does not save a sequence that is too short, nor does cutting one that is too long."""
    with pytest.raises(DataError, match="length 5, allowed is at least 6"):
        cleaned("ACGTA", min_length=6, length={"bp": 9, "shorter": "pad"})
    with pytest.raises(DataError, match="length 9, allowed is at most 8"):
        cleaned("ACGTACGTA", max_length=8, length={"bp": 4})


def test_long_sequences_are_no_problem() -> None:
    """Ten million bases in one sequence, with codes and lower case, come out as they should."""
    sequence = ("ACGTACGTAC" * 10 + "acgtacgtaR") * 90_000
    done = cleaned(sequence)
    assert len(done.sequence) == len(sequence) and done.n_ambiguous == 90_000
    assert done.sequence[100:110] == "ACGTACGTAN" and done.soft_masked.startswith("100-109,210-219,")
