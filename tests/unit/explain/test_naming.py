"""Names of motifs: known answers, calibrated p-values, families, and the ambiguity shown."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import false_discovery_control

from bioattn.data.motif import Motif, best_correlation, information, ppm_from_counts
from bioattn.errors import DataError
from bioattn.explain.naming import (
    ALIKE,
    FEWEST_FOR_P_VALUES,
    NAMEABLE_BITS,
    _tomtom,
    ambiguous,
    calibrated,
    name_motifs,
    read_matches,
    shuffled_p_values,
)
from bioattn.explain.recovery import RECOVERY_COLUMNS, recovery_table
from bioattn.explain.similar_motifs import align, groups
from bioattn.io.motifs import jaspar_group, jaspar_motif

LIBRARY = jaspar_group("vertebrates")
USF1, HNF1A, SP1 = jaspar_motif("MA0093.4"), jaspar_motif("MA0046.3"), jaspar_motif("MA0079.5")
PLANTED = [jaspar_motif(f"MA{name}") for name in ("0028.3", "0060.4", "0148.5", "0046.3", "0102.5", "0090.4")]


def sharp(word: str, p: float = 0.91) -> np.ndarray:
    """A matrix that shows a word, each letter with probability p."""
    ppm = np.full((4, len(word)), (1 - p) / 3)
    ppm["ACGT".index("A"), [letter == "A" for letter in word]] = p
    for i, letter in enumerate(word):
        ppm["ACGT".index(letter), i] = p
    return ppm


def sampled(ppm: np.ndarray, draw: np.random.Generator, *, sites: int = 60, noise: float = 0.15) -> np.ndarray:
    """Matrix of some sites, a share of which is random sequence."""
    mixed = (1 - noise) * ppm + noise / 4
    return ppm_from_counts(np.stack([draw.multinomial(sites, column / column.sum()) for column in mixed.T], axis=1))


def shuffled(ppm: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    return ppm[:, draw.permutation(ppm.shape[1])]


def families(motif: Motif) -> set[str]:
    return set(motif.family.split("; ")) - {""}


# ------------------------------------------------------------------------- alignment


def test_all_pairs_at_once_are_the_loop_over_pairs():
    """Correlations of all pairs equal `best_correlation`, for flat, short and wide matrices too."""
    draw = np.random.default_rng(0)
    first = [draw.dirichlet(np.full(4, 0.3), width).T for width in (1, 3, 7, 11, 23)] + [np.full((4, 5), 0.25)]
    second = [draw.dirichlet(np.full(4, 0.3), width).T for width in (2, 5, 13)]
    second += [first[3][::-1, ::-1], first[4][:, 4:]]
    slow = np.array([[best_correlation(a, b) for b in second] for a in first])
    np.testing.assert_allclose(align(first, second).correlation, slow, atol=1e-12)
    assert align([], second).correlation.shape == (0, 5)


def test_a_part_of_a_motif_is_found_where_it_was_cut_out():
    """A motif without its first two columns begins at column 2; reversed, at column 0 of the other strand."""
    whole = HNF1A.ppm
    for part, offset, reverse in ((whole[:, 2:], 2, False), (whole[:, 2:][::-1, ::-1], 0, True)):
        found = align([part], [whole])
        assert found.correlation[0, 0] == pytest.approx(1) and found.overlap[0, 0] == 11
        assert (found.offset[0, 0], found.reverse[0, 0]) == (offset, reverse)


def test_groups_are_of_motifs_that_are_alike():
    """Noisy copies of two motifs, on both strands, form two groups; what is halfway between two joins none."""
    draw = np.random.default_rng(1)
    ppms = [sampled(motif.ppm, draw) for motif in (USF1, HNF1A, USF1, HNF1A, USF1)]
    ppms[2] = ppms[2][::-1, ::-1]
    assert groups(ppms, least=0.8).tolist() == [0, 1, 0, 1, 0]
    assert groups(ppms[:1], least=0.8).tolist() == [0] and groups([], least=0.8).tolist() == []
    ends = sharp("TTGACCATAG"), sharp("TTGATCATGG")
    halfway = 0.52 * ends[0] + 0.48 * ends[1]
    assert align(ends, [halfway]).correlation.min() > 0.9 > align(ends[:1], ends[1:]).correlation[0, 0]
    assert groups([ends[0], ends[0], halfway, ends[1]], least=0.9).tolist() == [0, 0, 0, 1]


# -------------------------------------------------------------------------- p-values


def test_a_motif_and_its_reverse_complement_match_itself_best():
    """The best match of a library matrix is itself, whole, at offset 0; reversed, the same on the other strand."""
    chosen = [USF1, HNF1A, *PLANTED[:3]]
    forward = name_motifs([m.ppm for m in chosen], LIBRARY, q_value=0.05)
    backward = name_motifs([m.ppm[::-1, ::-1].copy() for m in chosen], LIBRARY, q_value=0.05)
    for motif, (first, *_), (second, *_) in zip(chosen, forward, backward, strict=True):
        assert first.motif.motif_id == second.motif.motif_id == motif.motif_id
        assert first.correlation == pytest.approx(1) and (first.offset, first.overlap) == (0, motif.width)
        palindrome = np.corrcoef(motif.ppm.ravel(), motif.ppm[::-1, ::-1].ravel())[0, 1] > 0.8
        assert palindrome or (first.strand, second.strand) == ("+", "-")
        assert first.p_value is not None and first.p_value < 1e-6


def test_where_a_match_lies():
    """Flat columns before a motif make the offset negative; a motif without its first columns has them as offset."""
    flat = np.full((4, 3), 0.25)
    padded, cut = name_motifs([np.concatenate([flat, HNF1A.ppm], 1), HNF1A.ppm[:, 2:]], LIBRARY, q_value=0.05)
    named = [next(m for m in found if m.motif.motif_id == HNF1A.motif_id) for found in (padded, cut)]
    assert [(m.offset, m.overlap) for m in named] == [(-3, 13), (2, 11)]


def test_what_says_nothing_gets_no_name():
    """Flat, nearly flat, single-letter and too short matrices have no match, though to TomTom flat ones match."""
    draw = np.random.default_rng(2)
    weak = draw.dirichlet(np.full(4, 60.0), 9).T
    queries = [np.full((4, 8), 0.25), weak, sharp("A", 0.999), sharp("TATA", 0.85)]
    assert all(information(query).sum() < NAMEABLE_BITS for query in queries)
    assert name_motifs(queries, LIBRARY, q_value=0.05) == [[], [], [], []]


def test_p_values_of_shuffled_motifs_are_not_too_small():
    """Of p-values of shuffled motifs, no more than 1.3 times the level lie below it; uncorrected, 1.5 times as many."""
    draw = np.random.default_rng(3)
    picked = draw.permutation(len(LIBRARY))[:100]
    queries = [shuffled(LIBRARY[i].ppm, draw) for i in picked]
    targets = [motif.ppm for motif in LIBRARY]
    # Targets shuffled once more, so that none is related to the query by chance of the shuffle.
    fresh = [shuffled(ppm, draw) for ppm in targets]
    raw = _tomtom(queries, fresh).p_value
    corrected = calibrated(raw, shuffled_p_values(queries, targets))
    for level in (0.05, 0.01, 0.001):
        assert (corrected <= level).mean() < 1.3 * level
    assert (raw <= 0.001).mean() > 1.5 * 0.001
    assert (corrected >= raw).all()


def test_calibration_has_the_tail_that_it_was_given():
    """P-values that are powers of uniform ones become uniform in the tail; uniform ones stay about as they are."""
    draw = np.random.default_rng(4)
    uniform = draw.random((3, 200_000))
    for power, slack in ((1.0, 1.35), (2.5, 1.35)):
        null, real = uniform[:, :50_000] ** power, uniform[:, 50_000:] ** power
        result = calibrated(real, null)
        for level in (1e-2, 1e-3, 1e-4):
            share = (result <= level).mean() / level
            assert 1 / slack < share < slack, (power, level)
        order = np.argsort(real[0])
        assert (np.diff(result[0][order]) >= 0).all()


def test_few_shuffled_motifs_get_a_name():
    """At q < 0.05 about one in twenty motifs that are like none gets a name."""
    draw = np.random.default_rng(5)
    sources = [LIBRARY[i].ppm for i in draw.permutation(len(LIBRARY))[:150]]
    queries = [shuffled(ppm, draw) for ppm in sources if information(ppm).sum() >= NAMEABLE_BITS]
    named = [bool(found) for found in name_motifs(queries, LIBRARY, q_value=0.05)]
    assert len(named) > 120 and np.mean(named) < 0.1  # some shuffles leave a motif as it was


def test_composition_is_no_name():
    """Motifs of nearly one letter, in shuffled order, get names by TomTom's p-values, and few by the corrected ones."""
    draw = np.random.default_rng(10)
    mean = np.array([motif.ppm.mean(1).max() for motif in LIBRARY])
    queries = [shuffled(LIBRARY[i].ppm, draw) for i in np.flatnonzero(mean > 0.65)]
    raw = false_discovery_control(_tomtom(queries, [motif.ppm for motif in LIBRARY]).p_value, axis=1)
    named = [bool(found) for found in name_motifs(queries, LIBRARY, q_value=0.05)]
    assert len(queries) > 30 and np.mean(named) < 0.15 < 0.3 < (raw.min(1) <= 0.05).mean()


def test_a_name_does_not_depend_on_other_queries():
    """A motif is named the same alone and beside motifs with many matches."""
    draw = np.random.default_rng(11)
    queries = [shuffled(LIBRARY[i].ppm, draw) for i in draw.permutation(len(LIBRARY))[:60]]
    alone = name_motifs(queries, LIBRARY, q_value=0.2)
    beside = name_motifs([*[USF1.ppm] * 7, *queries], LIBRARY, q_value=0.2)[7:]
    assert any(alone) and [list(map(str, found)) for found in alone] == [list(map(str, found)) for found in beside]


def test_found_motifs_are_named_after_their_family():
    """Matrices of 60 sites, a sixth of them chance, are named after the family they come from."""
    draw = np.random.default_rng(6)
    named = name_motifs([sampled(motif.ppm, draw) for motif in [*PLANTED, SP1]], LIBRARY, q_value=0.05)
    for motif, found in zip([*PLANTED, SP1], named, strict=True):
        assert any(families(motif) & families(match.motif) for match in found), motif.name


def test_short_but_sharp_motifs_can_be_named():
    """A -10 box of six columns is named in a large library that has it and in a small one of a user."""
    box = Motif("-10", "box10", sharp("TATAAT", 0.85))
    query = [sharp("TATAAT", 0.87)]
    assert information(query[0]).sum() > NAMEABLE_BITS
    large, small = (name_motifs(query, library, q_value=0.05)[0] for library in ([*LIBRARY, box], [USF1, box, SP1]))
    assert large[0].motif is box and small[0].motif is box


# -------------------------------------------------------------------------- families


def test_families_collapse_and_their_members_are_counted():
    """An E-box has one match per family, with the names of its other members; several families are ambiguous."""
    found = name_motifs([sharp("CACGTG", 0.97)], LIBRARY, q_value=0.05)[0]
    seen: set[str] = set()
    for match in found:
        own = families(match.motif)
        assert not own & seen
        seen |= own
    best = next(match for match in found if "bHLH-ZIP" in families(match.motif))
    assert best.n_in_family == len(best.members) > 5 and "MAX" in (best.motif.name, *best.members)
    assert ambiguous(found) == (len(found) > 1) and not ambiguous(found[:1])
    p = [match.p_value for match in found]
    assert p == sorted(p)


def test_a_dimer_joins_the_family_of_either_half():
    """A matrix of two families is no family of its own beside a match of one of them."""
    half = replace(USF1, motif_id="half", family="B")
    both = replace(USF1, motif_id="both", name="A::B", family="A; B")
    found = name_motifs([USF1.ppm], [half, both], q_value=0.05)[0]
    assert len(found) == 1 and found[0].members == ("A::B",)


def test_motifs_without_a_family_collapse_by_likeness():
    """Near copies under several names, of no family, are one archetype named after one of them; others stay alone."""
    draw = np.random.default_rng(7)
    copies = [Motif(f"x{i}", f"m{i}", sampled(HNF1A.ppm, draw, sites=900, noise=0.02)) for i in range(3)]
    other = Motif("other", "o", sharp("CCGGCCGG"))
    found = name_motifs([HNF1A.ppm], [other, *copies], q_value=0.05)[0]
    assert len(found) == 1 and found[0].n_in_family == 2
    assert found[0].family == "archetype x0" and str(found[0]).endswith("+2 of archetype x0")
    alone = name_motifs([HNF1A.ppm], [other, copies[0]], q_value=0.05)[0]
    assert alone[0].family == "" and str(alone[0]).startswith("x0 m0 (r=")


# --------------------------------------------------------------------- small libraries


def test_a_small_library_names_by_correlation():
    """Below 50 motifs there is no q-value: a match says its correlation, and unlike motifs do not match."""
    small = [USF1, SP1, *PLANTED]
    assert len(small) < FEWEST_FOR_P_VALUES
    draw = np.random.default_rng(8)
    first, none = name_motifs([sampled(HNF1A.ppm, draw)[:, ::-1][::-1], sharp("TGTGTGCACA")], small, q_value=0.05)
    assert first[0].motif.name == "HNF1A" and first[0].q_value is None and first[0].p_value is None
    assert first[0].correlation >= ALIKE and f"(r={first[0].correlation:.2f})" in str(first[0])
    assert none == [] and name_motifs([USF1.ppm], [], q_value=0.05) == [[]]
    assert name_motifs([], LIBRARY, q_value=0.05) == []


# ------------------------------------------------------------------------------- text


def test_text_of_matches_is_read_back():
    """Name, accession, q or r, number of others and families of each match survive, whatever family names hold."""
    found = name_motifs([USF1.ppm, sharp("TGACTCA", 0.95)], LIBRARY, q_value=0.05)
    for matches in found:
        again = read_matches("; ".join(map(str, matches)))
        assert len(again) == len(matches) > 0
        for text, match in zip(again, matches, strict=True):
            assert (text.name, text.motif_id) == (match.motif.name, match.motif.motif_id)
            assert text.q_value == pytest.approx(match.q_value, rel=0.1) and text.correlation is None
            assert text.n_in_family == match.n_in_family and set(text.families) == families(match.motif)
    assert read_matches("") == [] and read_matches("nan") == []
    (small,) = read_matches("my motif (x) m1 (r=0.93)")
    assert (small.name, small.motif_id, small.correlation, small.families) == ("my motif (x)", "m1", 0.93, ())


# --------------------------------------------------------------------------- recovery


def found_table(*rows: tuple[int, int, int, float, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["layer", "head", "motif", "q_value", "verdict", "matches"])


def test_recovery_table_has_the_closest_enriched_motif_of_each_known_one():
    """An enriched motif goes before a closer one that may be chance, and names are judged by family."""
    draw = np.random.default_rng(9)
    table = found_table(
        (0, 0, -1, np.nan, "dead", ""),
        (0, 1, 0, 0.4, "diffuse", ""),
        (1, 0, 0, 1e-9, "motif", "MAX MA0058.4 (q=1.0e-08) +3 of bHLH-ZIP"),
        (1, 1, 1, 1e-3, "motif", "NFYA MA0060.4 (q=1.0e-05) of Heteromeric CCAAT-binding; SP1 MA0079.5 (q=0.01)"),
    )
    motifs = [
        Motif("", "layer0_head1_motif0", USF1.ppm),
        Motif("", "layer1_head0_motif0", sampled(USF1.ppm, draw)),
        Motif("", "layer1_head1_motif1", sampled(SP1.ppm, draw)),
    ]
    result = recovery_table(table, motifs, [USF1, SP1, HNF1A])
    assert tuple(result.columns) == RECOVERY_COLUMNS
    assert result[["layer", "head", "number"]].to_numpy()[:2].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert result["named"].tolist() == [True, True, False] and result["verdict"][0] == "motif"
    assert (result["correlation"][:2] > 0.9).all() and result["correlation"][2] < 0.9
    assert result["correlation"][0] == pytest.approx(best_correlation(motifs[1].ppm, USF1.ppm))


def test_recovery_of_motifs_without_a_family():
    """A user's motif that was collapsed under a near copy is named right if the library says that the two are alike."""
    near = sampled(HNF1A.ppm, np.random.default_rng(0), noise=0)
    own, copy = Motif("own", "u1", HNF1A.ppm), Motif("copy", "u2", near)
    table = found_table((0, 0, 0, 0.0, "motif", "copy u2 (r=0.99) +1 of archetype copy"))
    motifs = [Motif("", "layer0_head0_motif0", HNF1A.ppm)]
    assert not recovery_table(table, motifs, [own])["named"][0]
    assert recovery_table(table, motifs, [own], library=[own, copy])["named"][0]


def test_recovery_where_there_is_nothing():
    """Without any motif every known one has a row that says so; without known motifs, or with others, it is refused."""
    empty = found_table((0, 0, -1, np.nan, "dead", ""))
    result = recovery_table(empty, [], [USF1])
    assert result[["layer", "head", "number"]].to_numpy().tolist() == [[-1, -1, -1]] and not result["named"][0]
    assert np.isnan(result["correlation"][0]) and np.isnan(result["q_value"][0])
    with pytest.raises(DataError, match="no motif is known"):
        recovery_table(empty, [], [])
    with pytest.raises(DataError, match="0 rows with a motif, found 1 motifs"):
        recovery_table(empty, [USF1], [USF1])


def test_naming_leaves_the_threads_of_pytorch_as_they_were():
    """Motifs are compared by another library, which sets the number of threads of this process."""
    before = torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            name_motifs([jaspar_motif("MA0093.4").ppm], jaspar_group("vertebrates")[:60], q_value=0.1)
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(before)
