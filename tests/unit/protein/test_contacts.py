"""Precision of contacts, and violations of the triangle inequality, against counts by hand."""

import numpy as np
import pytest

from bioattn.data.structure import pair_distances
from bioattn.errors import DataError
from bioattn.protein.contacts import columns_on_chain, contact_precision, triangle_violations


def helix(n: int, seed: int = 0) -> np.ndarray:
    """Places of a wound-up chain (n, 3)."""
    draw = np.random.default_rng(seed)
    return np.cumsum(draw.normal(0, 2.2, (n, 3)), axis=0)


def test_precision_is_that_of_a_loop():
    """Every range and share by sorting pairs one by one; unresolved residues take no part and shorten L."""
    distances = pair_distances(helix(60))
    distances[7] = distances[:, 7] = np.nan
    scores = np.random.default_rng(1).random((60, 60)) - 0.02 * np.nan_to_num(distances)
    table = contact_precision(scores, distances).set_index(["range", "top"])
    for name, (least, most) in {"long": (24, 99), "medium": (12, 23), "short": (6, 11)}.items():
        pairs = [
            (scores[i, j], distances[i, j] < 8)
            for i in range(60) for j in range(i + 1, 60)
            if least <= j - i <= most and 7 not in (i, j)
        ]  # fmt: skip
        pairs.sort(key=lambda pair: -pair[0])
        for top, n in (("L", 59), ("L/2", 30), ("L/5", 12)):
            row = table.loc[(name, top)]
            assert row["precision"] == pytest.approx(np.mean([touch for _, touch in pairs[:n]])) and row["n"] == n
        assert row["n_pairs"] == len(pairs) and row["n_contacts"] == sum(touch for _, touch in pairs)


def test_a_perfect_score_has_the_best_precision():
    """Scores that are minus distances find all contacts first; a short chain has no long range."""
    distances = pair_distances(helix(70, seed=2))
    table = contact_precision(-distances, distances).set_index(["range", "top"])
    for name in ("long", "medium", "short"):
        row = table.loc[(name, "L/5")]
        assert row["precision"] == pytest.approx(min(1, row["n_contacts"] / row["n"]))
    short = contact_precision(-distances[:20, :20], distances[:20, :20])
    assert short.loc[short["range"] == "long", "precision"].isna().all()
    with pytest.raises(DataError, match="of the same residues"):
        contact_precision(distances[:5], distances)


def test_points_in_space_violate_nothing_and_a_stretched_pair_does():
    """One pair is made ten angstrom too long: counted by loops."""
    distances = pair_distances(helix(13))
    assert triangle_violations(distances).rate == 0
    distances[2, 9] = distances[9, 2] = distances[2, 9] + 10
    distances[4] = distances[:, 4] = np.nan
    over = [
        distances[i, j] - distances[i, k] - distances[k, j]
        for i in range(13) for j in range(13) for k in range(13)
        if len({i, j, k, 4}) == 4
    ]  # fmt: skip
    wrong = [x for x in over if x > 1e-6]
    found = triangle_violations(distances)
    assert found.n == len(over) and found.rate == pytest.approx(len(wrong) / len(over)) and wrong
    assert found.size_angstrom == pytest.approx(np.mean(wrong))


def test_a_structure_is_laid_on_the_query():
    """Residues that the structure lacks have no place; another protein is refused with the first difference."""
    query = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"
    shown = "GS" + query[:10] + query[14:]
    place = columns_on_chain(query, shown, name="x.pdb:A")
    assert len(place) == 33 and (place[10:14] == -1).all()
    assert [shown[at] for at in place if at >= 0] == list(query[:10] + query[14:])
    with pytest.raises(DataError, match=r"x.pdb:A does not fit the alignment: \d+ of \d+ aligned residues"):
        columns_on_chain(query, "WWPGHCWPNDHHWCGGPPNDYWWHHCCGGPPNN", name="x.pdb:A")
