"""Seqlets: peaks of a track, which of them count, and the windows around them."""

import numpy as np
import pytest
from toy_heads import padded, random_codes

from bioattn.data import alphabet
from bioattn.explain.seqlets import Peaks, Windows, find_peaks, threshold, windows_at, windows_elsewhere

# ---------------------------------------------------------------------- peaks


def slow_peaks(track: np.ndarray, centre: np.ndarray, apart_bp: int, per_sequence: int) -> list[tuple]:
    """Tokens of each sequence from the highest on, without those too near to one that was taken before."""
    found = []
    for row, (values, middles) in enumerate(zip(track, centre, strict=True)):
        taken: list[int] = []
        for token in sorted(range(len(values)), key=lambda t: -np.nan_to_num(values[t], nan=-np.inf)):
            apart = all(abs(middles[token] - middles[other]) >= apart_bp for other in taken)
            if not np.isnan(values[token]) and apart and len(taken) < per_sequence:
                taken.append(token)
        found += [(row, token, values[token]) for token in taken]
    return found


@pytest.mark.parametrize("apart_bp", [1, 7, 30])
def test_peaks_are_those_of_a_slow_loop(apart_bp: int):
    """Peaks go from the highest on, apart from each other, at most so many in a sequence, never at padding."""
    draw = np.random.default_rng(0)
    track = draw.normal(size=(11, 29)).astype(np.float32)
    centre = np.sort(draw.integers(0, 97, (11, 29)), axis=1)
    for row in range(11):
        n_tokens = max(29 - 3 * row, 0)  # ever fewer, of the last sequence none
        track[row, n_tokens:], centre[row, n_tokens:] = np.nan, 0
    assert np.isnan(track[10]).all() and not np.isnan(track[0]).any()
    found = find_peaks(track, centre, apart_bp=apart_bp, per_sequence=3)
    expected = sorted(slow_peaks(track, centre, apart_bp, 3), key=lambda peak: -peak[2])
    assert list(zip(found.row, found.token, found.score, strict=True)) == expected
    assert len(expected) > 11 and 10 not in found.row


@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_nothing_has_no_peaks(shape: tuple[int, int]):
    """Without sequences or without tokens there are no peaks."""
    found = find_peaks(np.zeros(shape, np.float32), np.zeros(shape, np.int64), apart_bp=5)
    assert len(found.row) == len(found.token) == len(found.score) == 0


# ------------------------------------------------------------------ threshold


def slow_threshold(peaks: np.ndarray, null: np.ndarray, share: float, fdr: float, fewest: int, most: int) -> tuple:
    """Every score tried, from the lowest on."""
    rates = {s: (1 + sum(n >= s for n in null)) * share / sum(p >= s for p in peaks) for s in peaks}
    passed = [s for s in sorted(rates) if rates[s] <= fdr]
    enough = bool(passed) and sum(p >= passed[0] for p in peaks) >= fewest
    score = passed[0] if enough else sorted(peaks)[-min(most, len(peaks))]
    return score, min(rates[score], 1.0)


@pytest.mark.parametrize("seed", range(7))
@pytest.mark.parametrize("fewest", [1, 30])
def test_threshold_is_that_of_a_slow_loop(seed: int, fewest: int):
    """The lowest score whose rate is low enough is found, also among ties and with fewer shuffles than sequences."""
    draw = np.random.default_rng(seed)
    peaks = np.round(draw.normal(0.3 * seed, 1, 61), 1).astype(np.float32)  # rounded: many ties
    null = np.round(draw.normal(0, 1, 37), 1).astype(np.float32)
    share, fdr, most = 61 / 37, 0.2, 43
    found = threshold(peaks, null, share=share, fdr=fdr, fewest=fewest, most=most)
    score, rate = slow_threshold(peaks, null, share, fdr, fewest, most)
    assert found.score == score
    if found.fdr <= fdr:  # where the highest are taken, the last of a tie may be left out
        assert found.n == (peaks >= score).sum() and found.fdr == pytest.approx(rate)
    else:
        assert found.n == most


def discoveries(draw: np.random.Generator, n_true: int, **settings) -> tuple[float, float, int]:
    """False share among the seqlets of made-up peaks, the share that was stated, and how many true ones are found."""
    peaks = np.concatenate([draw.normal(2.5, 1, n_true), draw.normal(0, 1, 307 - n_true)])
    found = threshold(peaks, draw.normal(0, 1, 307), share=1.0, **settings)
    taken = np.sort(np.argsort(-peaks)[: found.n])
    return float((taken >= n_true).mean()), found.fdr, int((taken < n_true).sum())


@pytest.mark.parametrize("fdr", [0.05, 0.2])
@pytest.mark.parametrize("n_true", [0, 101])
def test_false_discovery_rate_is_what_was_asked_for(fdr: float, n_true: int):
    """Among peaks beyond a threshold that was found, the mean share of false ones is at most the rate asked for."""
    draw = np.random.default_rng(3)
    runs = [discoveries(draw, n_true, fdr=fdr, fewest=1, most=50) for _ in range(400)]
    # No threshold found: nothing is claimed at this rate.
    false = np.array([share if stated <= fdr else 0.0 for share, stated, _ in runs])
    assert false.mean() <= fdr + 3 * false.std() / 20
    if n_true:
        assert np.mean([true for _, _, true in runs]) > (30 if fdr == 0.05 else 60)


def test_rate_of_the_highest_peaks_is_stated():
    """Where too few peaks pass, the highest are taken; their stated rate is the false share, as if none were true."""
    draw = np.random.default_rng(4)
    runs = [discoveries(draw, 41, fdr=0.01, fewest=300, most=101) for _ in range(400)]
    false, stated = np.array(runs)[:, :2].T
    # Shuffles stand for every peak, of which 41 are true; and one is added to their count.
    expected = (stated.mean() - 1 / 101) * (307 - 41) / 307
    assert false.mean() == pytest.approx(expected, abs=0.015) and stated.min() > 0.3


def test_no_peaks_no_threshold():
    """Without peaks none reaches the threshold, whose rate is unknown."""
    found = threshold(np.zeros(0, np.float32), np.ones(5, np.float32), share=1.0, fdr=0.1, fewest=1, most=5)
    assert found.score == np.inf and found.n == 0 and np.isnan(found.fdr)


# -------------------------------------------------------------------- windows

#: Sequences of 53 and of 17 bases.
CODES = padded(random_codes(12, 53, 0), 17)


@pytest.mark.parametrize("width", [13, 16, 17])
def test_windows_lie_around_their_middle_or_at_the_end(width: int):
    """A window is the bases around its middle; at the ends of its sequence it is moved inwards, never into padding."""
    row = np.repeat(np.arange(12), 53)
    middle = np.tile(np.arange(53), 12)
    inside = middle < (CODES[row] != alphabet.PAD).sum(1)
    row, middle = row[inside], middle[inside]
    found = windows_at(CODES, row, middle, width)
    assert np.array_equal(found.row, row) and found.codes.shape == (len(row), width)
    for codes, r, start, m in zip(found.codes, found.row, found.start, middle, strict=True):
        assert np.array_equal(codes, CODES[r, start : start + width]) and (codes != alphabet.PAD).all()
        assert start <= m < start + width
        length = (CODES[r] != alphabet.PAD).sum()
        assert start == m - width // 2 or start == (0 if m < width // 2 else length - width)


def test_sequences_shorter_than_a_window_have_none():
    """Of sequences of 17 and 53 bases only the latter have windows of 18, however near to the end the middle is."""
    found = windows_at(CODES, np.arange(12), np.full(12, 16), 18)
    assert found.row.tolist() == [1, 3, 5, 7, 9, 11]


def test_windows_elsewhere_are_elsewhere():
    """Controls lie in the same sequence, at least half a window away, at every such place alike."""
    width = 12
    start = np.tile([0, 3, 20, 41], 1000)
    row = np.tile([1, 3, 5, 7], 1000)
    windows = Windows(CODES[row[:, None], start[:, None] + np.arange(width)], row, start)
    found = windows_elsewhere(CODES, windows, np.random.default_rng(0))
    assert np.array_equal(found.row, row)
    assert np.array_equal(found.codes, CODES[row[:, None], found.start[:, None] + np.arange(width)])
    assert (np.abs(found.start - start) >= width // 2).all()
    assert found.start.min() == 0 and found.start.max() == 53 - width
    # Half a window is kept away from the other side of the circle too: so many places are left of the 42.
    for first in (0, 3, 20, 41):
        places, counts = np.unique(found.start[start == first], return_counts=True)
        assert len(places) == 42 - (2 * 6 - 1) and counts.min() > 10


def test_windows_elsewhere_where_there_is_no_room():
    """A sequence as long as its window has that window only; one a little longer has another, never padding."""
    codes = padded(random_codes(2, 19, 0), 17)
    windows = windows_at(codes, np.array([0, 1]), np.array([8, 8]), 17)
    found = windows_elsewhere(codes, windows, np.random.default_rng(0))
    assert found.start[0] == windows.start[0] == 0
    assert 0 <= found.start[1] <= 2 and (found.codes != alphabet.PAD).all()


def test_parts_of_peaks_and_windows_keep_their_fields_together():
    """Taking some rows takes them from every field."""
    peaks = Peaks(np.arange(5), np.arange(5) + 10, np.arange(5, dtype=np.float32) + 20)
    assert [field.tolist() for field in peaks.take(np.array([3, 1]))] == [[3, 1], [13, 11], [23, 21]]
    windows = Windows(np.arange(10, dtype=np.uint8).reshape(5, 2), np.arange(5), np.arange(5) + 7)
    assert [field.tolist() for field in windows.take(slice(1, 3))] == [[[2, 3], [4, 5]], [1, 2], [8, 9]]
