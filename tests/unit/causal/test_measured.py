"""Evidence of measured values: planted interactions of designed and randomised libraries come back."""

import numpy as np
import pandas as pd
import pytest
from toy_heads import random_codes

from bioattn.causal.measured import measured_interactions
from bioattn.data import alphabet
from bioattn.explain.hits import find_hits
from bioattn.io.motifs import jaspar_motif

MOTIFS = [jaspar_motif("MA0060.4"), jaspar_motif("MA0090.4"), jaspar_motif("MA0093.4")]
STARTS = (8, 40, 75)


def library(presence: np.ndarray, backgrounds: np.ndarray) -> tuple[np.ndarray, pd.DataFrame]:
    """Backgrounds with consensus sites where they are present, and their hits."""
    codes = backgrounds.copy()
    for m, (motif, start) in enumerate(zip(MOTIFS, STARTS, strict=True)):
        codes[presence[:, m], start : start + motif.width] = alphabet.encode(motif.consensus)
    return codes, find_hits(codes, MOTIFS, p_value=1e-5)


def designed(n: int, *, effect: float, seed: int = 0):
    """Four cells of motifs 0 and 1 in n backgrounds, some of which hold motif 2; both together add `effect`."""
    draw = np.random.default_rng(seed)
    presence = np.array([[i & 1, i >> 1 & 1, b % 3 == 0] for b in range(n) for i in range(4)], dtype=bool)
    codes, hits = library(presence, np.repeat(random_codes(n, 110, seed), 4, axis=0))
    base = np.repeat(draw.normal(0, 2, n), 4)
    y = base + presence[:, 0] - 0.5 * presence[:, 1] + effect * (presence[:, 0] & presence[:, 1])
    return codes, hits, y + draw.normal(0, 0.1, len(y)), np.repeat([f"b{i}" for i in range(n)], 4).astype(object)


def row(table: pd.DataFrame, a: int, b: int) -> pd.Series:
    return table.set_index(["motif_a", "motif_b"]).loc[(a, b)]


@pytest.mark.parametrize("named", [True, False])
def test_four_cells_give_the_double_difference(named: bool):
    """Twenty backgrounds, with their names or found: the planted interaction, in spite of their levels."""
    codes, hits, y, names = designed(20, effect=1.5)
    order = np.random.default_rng(1).permutation(len(y))
    codes, y, names = codes[order], y[order], names[order]
    hits = hits.assign(sequence=np.argsort(order)[hits["sequence"].to_numpy()])
    table = measured_interactions(codes, hits, y, n_motifs=3, backgrounds=names if named else None)
    found = row(table, 0, 1)
    assert found["interventional_effect"] == pytest.approx(1.5, abs=0.15)
    assert found["interventional_ci_low"] < 1.5 < found["interventional_ci_high"] and found["interventional_q"] < 1e-6
    assert found["interventional_source"] == "four cells, 20 backgrounds"
    assert row(table, 0, 2)["interventional_source"].startswith("regression")


def test_few_backgrounds_leave_a_pair_to_the_regression():
    """Seven designs are fewer than eight; with a lower bound they count."""
    codes, hits, y, names = designed(7, effect=1.5)
    found = row(measured_interactions(codes, hits, y, n_motifs=3, backgrounds=names), 0, 1)
    assert found["interventional_source"] == "regression, n = 28"
    table = measured_interactions(codes, hits, y, n_motifs=3, backgrounds=names, least_backgrounds=7)
    assert row(table, 0, 1)["interventional_source"] == "four cells, 7 backgrounds"


def test_cells_differ_in_nothing_else():
    """A background whose cells hold different other motifs is no design."""
    codes, hits, y, names = designed(20, effect=1.5)
    third = hits["motif"] == 2
    # Of each background, only the cell with both keeps its third motif.
    hits = hits[~third | (hits["sequence"] % 4 == 3)]
    table = measured_interactions(codes, hits, y, n_motifs=3, backgrounds=names)
    assert row(table, 0, 1)["interventional_source"] == "four cells, 13 backgrounds"


def test_a_randomised_library_is_read_by_regression():
    """Motifs at random in other backgrounds: one pair interacts, the others do not; the interval holds the truth."""
    draw = np.random.default_rng(0)
    presence = draw.random((1500, 3)) < 0.4
    codes, hits = library(presence, random_codes(1500, 110, 3))
    y = 1.0 * presence[:, 0] + presence[:, 2] + 1.2 * (presence[:, 0] & presence[:, 1]) + draw.normal(0, 0.5, 1500)
    table = measured_interactions(codes, hits, y, n_motifs=3)
    found = row(table, 0, 1)
    assert found["interventional_source"] == "regression, n = 1500" and found["interventional_q"] < 1e-6
    assert found["interventional_ci_low"] < 1.2 < found["interventional_ci_high"]
    assert row(table, 0, 2)["interventional_q"] > 0.05 and row(table, 1, 2)["interventional_q"] > 0.05


def test_pairs_that_never_meet_have_no_evidence():
    """NaN and no source, not a p-value of one."""
    presence = np.zeros((60, 3), dtype=bool)
    presence[:30, 0] = presence[20:50, 1] = True
    codes, hits = library(presence, random_codes(60, 110, 3))
    table = measured_interactions(codes, hits, np.random.default_rng(0).normal(size=60), n_motifs=3)
    assert np.isnan(row(table, 0, 2)["interventional_q"]) and row(table, 0, 2)["interventional_source"] == ""
    assert np.isfinite(row(table, 0, 1)["interventional_q"])
