"""Motif discovery: planted motifs are found with their matrix, sites and strands, and nothing else is changed."""

import numpy as np
import pytest
from toy_heads import HNF1A, USF1, random_codes, with_sites

from bioattn.data import alphabet
from bioattn.data.motif import Motif, best_correlation, ppm_from_counts
from bioattn.explain.motif_discovery import Discovered, _presence, discover, larger_part
from bioattn.io.motifs import jaspar_motif

#: No palindrome, unlike the motifs of the reading models.
NFYA = jaspar_motif("MA0060.4")
WORD = "TCCAAGGTAA"


def with_word(n: int, length: int, seed: int, word: str = WORD) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random windows with a word at a random place and strand, its starts, and whether it is on the other strand."""
    draw = np.random.default_rng(seed)
    codes, start = random_codes(n, length, seed + 1000), draw.integers(0, length - len(word) + 1, n)
    reverse = draw.random(n) < 0.5
    for row, first, other in zip(codes, start, reverse, strict=True):
        site = alphabet.encode(word)
        row[first : first + len(word)] = alphabet.reverse_complement_codes(site) if other else site
    return codes, start, reverse


def sites_of(found: Discovered, windows: np.ndarray) -> np.ndarray:
    """Codes (S, W) of the sites of a motif, on their own strands."""
    sites = windows[found.window[:, None], found.start[:, None] + np.arange(found.ppm.shape[1])]
    return np.where(found.reverse[:, None], alphabet.reverse_complement_codes(sites), sites)


def consensus(found: Discovered) -> str:
    return "".join(alphabet.LETTERS[i] for i in found.ppm.argmax(0))


def test_discovery_recovers_a_planted_motif():
    """The motif of the windows is found to a correlation above 0.9, trimmed to its core."""
    (found,) = discover(with_sites(HNF1A, 300, 30, 0), random_codes(300, 30, 1), width=16, n_motifs=1)
    assert best_correlation(found.ppm, HNF1A.ppm) > 0.9 and found.ppm.shape[1] <= HNF1A.width
    assert found.n_sites > 240 and found.window.max() < 300


def test_sites_are_where_they_were_planted():
    """Each site has the start, width and strand with which its word was planted."""
    windows, start, reverse = with_word(300, 30, 0)
    (found,) = discover(windows, random_codes(300, 30, 1), width=12, n_motifs=1)
    turned = consensus(found) != WORD  # on which strand a motif is found is arbitrary
    assert consensus(found) in (WORD, alphabet.decode(alphabet.reverse_complement_codes(alphabet.encode(WORD))))
    # Up to a quarter of all sites may be what controls have too.
    assert found.n_sites > 260
    assert (found.start == start[found.window]).mean() > 0.9
    assert ((found.reverse ^ turned) == reverse[found.window]).mean() > 0.9


@pytest.mark.parametrize("both_strands", [True, False])
def test_the_matrix_is_that_of_its_sites(both_strands: bool):
    """Counting the letters of the stated sites, on their strands, gives the matrix again."""
    windows = with_sites(NFYA, 200, 30, 0)
    (found,) = discover(windows, random_codes(200, 30, 1), width=12, n_motifs=1, both_strands=both_strands)
    letters = alphabet.one_hot(sites_of(found, windows))
    np.testing.assert_allclose(ppm_from_counts(letters.sum(0)), found.ppm, atol=1e-12)
    assert len(np.unique(found.window)) == found.n_sites and found.reverse.any() == both_strands


def test_one_strand_has_the_sites_of_one_strand():
    """Only sites of the given strand are found where the other does not count: about half as many."""
    windows, controls = with_sites(NFYA, 300, 30, 0), random_codes(300, 30, 1)
    one, both = (discover(windows, controls, width=10, n_motifs=1, both_strands=b)[0] for b in (False, True))
    assert not one.reverse.any() and both.reverse.mean() == pytest.approx(0.5, abs=0.1)
    assert best_correlation(one.ppm, NFYA.ppm) > 0.9 and one.n_sites < 0.7 * both.n_sites


def test_second_motif_is_found_beside_the_first():
    """Sites are masked once found: two motifs in two parts of the windows are both recovered, each in its part."""
    windows = np.concatenate([with_sites(HNF1A, 250, 30, 0), with_sites(USF1, 150, 30, 1)])
    found = discover(windows, random_codes(400, 30, 2), width=12, n_motifs=2)
    for motif, inside in ((HNF1A, np.arange(400) < 250), (USF1, np.arange(400) >= 250)):
        best = max(found, key=lambda one: best_correlation(one.ppm, motif.ppm))
        assert best_correlation(best.ppm, motif.ppm) > 0.9
        # In the other part, a masked site of the other motif is none of this one.
        assert inside[best.window].mean() > 0.85 and inside[best.window].sum() > 0.75 * inside.sum()


def test_both_motifs_of_a_window_are_found():
    """Windows that hold two motifs have a site of each, at places that do not overlap."""
    windows = with_sites(HNF1A, 200, 50, 0)
    draw = np.random.default_rng(2)
    for row in windows:
        start = int(draw.integers(0, 41))
        row[start : start + 10] = alphabet.encode(WORD)
    first, second = discover(windows, random_codes(200, 50, 1), width=12, n_motifs=2)
    assert consensus(first) in (WORD, alphabet.decode(alphabet.reverse_complement_codes(alphabet.encode(WORD))))
    assert best_correlation(second.ppm, HNF1A.ppm) > 0.9 and first.n_sites > 180
    both = np.intersect1d(first.window, second.window, return_indices=True)
    apart = np.abs((first.start[both[1]] + first.ppm.shape[1] / 2) - (second.start[both[2]] + second.ppm.shape[1] / 2))
    assert len(both[0]) > 80 and (apart >= (first.ppm.shape[1] + second.ppm.shape[1]) / 2 - 3).mean() > 0.9


def test_a_motif_wider_than_what_was_sought_grows():
    """Flanks that carry information are taken in, up to what leaves a site some places in its window."""
    word = "ACGTTGCAAGCTTACGGATC"
    windows, _, _ = with_word(200, 40, 5, word)
    for width, least in ((8, 12), (12, 20)):
        (found,) = discover(windows, random_codes(200, 40, 6), width=width, n_motifs=1)
        text = consensus(found)
        assert least <= len(text) <= 26
        assert text in word or alphabet.decode(alphabet.reverse_complement_codes(alphabet.encode(text))) in word


def test_few_windows_with_a_motif_are_told_from_the_others():
    """A motif in one of six windows is found; most of its sites are true, the rest what controls have too."""
    windows = random_codes(300, 30, 7)
    windows[:50] = with_sites(HNF1A, 50, 30, 8)
    (found,) = discover(windows, random_codes(300, 30, 9), width=12, n_motifs=1)
    assert best_correlation(found.ppm, HNF1A.ppm) > 0.9
    assert (found.window < 50).mean() > 0.6 and len(set(found.window) & set(range(50))) > 40


def test_fewer_than_ten_sites_are_no_motif():
    """Nine windows with the very same word have no motif, some more have one."""
    for n, n_found in ((9, 0), (16, 1)):
        windows, _, _ = with_word(n, 30, 0)
        assert len(discover(windows, random_codes(50, 30, 1), width=10, n_motifs=1)) == n_found


def test_no_seed_no_motif():
    """Windows like the controls, or without a known base, have no seed; narrow ones no room: nothing is found."""
    codes, alike = random_codes(40, 30, 0), with_sites(HNF1A, 40, 30, 0)
    assert discover(alike, alike, width=12, n_motifs=2) == [] != discover(alike, codes, width=12, n_motifs=2)
    assert discover(np.full_like(codes, alphabet.UNKNOWN), codes, width=12, n_motifs=2) == []
    assert discover(with_sites(HNF1A, 40, 13, 0)[:, :11], codes[:, :11], width=12, n_motifs=2) == []
    assert discover(with_sites(HNF1A, 40, 13, 0), codes, width=12, n_motifs=0) == []


def test_no_window_that_stands_out_is_no_motif():
    """Where no window holds the refined motif with any certainty there is none, and no error."""
    draw = np.random.default_rng(11)
    n, length = int(draw.integers(10, 20)), int(draw.integers(30, 120))
    p = draw.dirichlet([1, 1, 1, 1])
    windows, controls = (draw.choice(4, (n, length), p=p).astype(np.uint8) for _ in range(2))
    assert discover(windows, controls, width=6, n_motifs=1) == []


def test_windows_are_left_as_they_were():
    """Masking found sites changes no array of the caller, and the same call gives the same again."""
    windows, controls = with_sites(HNF1A, 60, 30, 0), random_codes(60, 30, 1)
    before = windows.copy(), controls.copy()
    first, again = (discover(windows, controls, width=12, n_motifs=2) for _ in range(2))
    assert np.array_equal(windows, before[0]) and np.array_equal(controls, before[1])
    assert len(first) == len(again) > 0
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.ppm, other.ppm) and np.array_equal(one.window, other.window)


@pytest.mark.parametrize("both_strands", [True, False])
def test_presence_of_hexamers_is_that_of_a_slow_loop(both_strands: bool):
    """A hexamer is in a window if its letters are, on either strand if both count; unknown bases are in none."""
    windows = random_codes(7, 17, 0)
    windows[2, 5] = windows[3, 0] = alphabet.UNKNOWN
    windows[4] = alphabet.UNKNOWN
    expected = np.zeros((7, 4**6), dtype=bool)
    for n, row in enumerate(windows):
        for start in range(12):
            word = row[start : start + 6]
            if (word < 4).all():
                codes = [int("".join(map(str, w)), 4) for w in (word, alphabet.reverse_complement_codes(word))]
                expected[n, min(codes) if both_strands else codes[0]] = True
    assert np.array_equal(_presence(windows, both_strands), expected) and expected.sum() > 40


# ----------------------------------------------------- two motifs on each other


def drawn(ppm: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Sites (n, W) of a matrix."""
    upto = ppm.cumsum(0)[:-1].T
    return (np.random.default_rng(seed).random((n, ppm.shape[1], 1)) > upto).sum(2).astype(np.uint8)


def core_of_two(n: int, share: float) -> np.ndarray:
    """Sites of HNF1A, and of NFYA laid on it where both have AATCA; a share is of the former."""
    core = "".join(alphabet.LETTERS[i] for i in HNF1A.ppm.argmax(0)).index("TTAAT") + 1
    hnf1a = drawn(HNF1A.ppm, round(n * share), 0)[:, core - 1 : core + 8]
    other = drawn(NFYA.ppm, n - len(hnf1a), 1)
    first = "".join(alphabet.LETTERS[i] for i in NFYA.ppm.argmax(0)).index("CCAAT")
    nfya = np.random.default_rng(2).integers(0, 4, (len(other), 9)).astype(np.uint8)
    width = min(8, other.shape[1] - first)
    nfya[:, :width] = other[:, first : first + width]
    return np.concatenate([hnf1a, nfya])


@pytest.mark.parametrize("share", [0.6, 0.3])
def test_two_motifs_with_a_common_core_are_told_apart(share: float):
    """Of sites of two motifs that share AAT, the larger part is that of the more frequent one, site by site."""
    sites = core_of_two(500, share)
    larger = larger_part(sites)
    assert larger is not None
    is_first = np.arange(500) < 500 * share
    assert (larger == (is_first if share > 0.5 else ~is_first)).mean() > 0.95


@pytest.mark.parametrize("motif", [HNF1A, USF1, NFYA, jaspar_motif("MA0079.5"), jaspar_motif("MA0139.2")])
def test_sites_of_one_motif_are_not_parted(motif: Motif):
    """Independent columns, however degenerate, are one motif; nor are few sites, or the same motif in two variants."""
    assert larger_part(drawn(motif.ppm, 400, 3)) is None
    assert larger_part(drawn(motif.ppm, 12, 4)) is None
    variant = motif.ppm.copy()
    variant[:, 0] = np.roll(variant[:, 0], 1)
    assert larger_part(np.concatenate([drawn(motif.ppm, 200, 5), drawn(variant, 200, 6)])) is None


def test_a_rare_second_motif_does_not_part_the_sites():
    """Fewer than 15 % of other sites leave the motif as it is."""
    assert larger_part(core_of_two(500, 0.95)) is None


def test_both_of_two_motifs_with_a_common_core_are_found():
    """Where windows hold either of two motifs that share a core, each comes out as its own matrix."""
    draw = np.random.default_rng(7)
    windows = random_codes(600, 30, 8)
    for row, motif in zip(windows, [HNF1A, NFYA] * 300, strict=True):
        site = drawn(motif.ppm, 1, int(draw.integers(2**31)))[0]
        start = draw.integers(0, 30 - len(site) + 1)
        row[start : start + len(site)] = site
    found = discover(windows, random_codes(600, 30, 9), width=12, n_motifs=2)
    for motif in (HNF1A, NFYA):
        assert max(best_correlation(each.ppm, motif.ppm) for each in found) > 0.95
