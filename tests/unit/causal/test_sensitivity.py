"""Strength of a hidden cause: causes of known strength are bounded from below."""

import numpy as np
import pandas as pd
import pytest

from bioattn.causal.cooccurrence import gc_association, statistical_interaction
from bioattn.causal.sensitivity import hidden_cause_strength, sensitivity


def cells(
    rate: float, with_a: float, without_a: float, with_b: float, without_b: float
) -> tuple[float, float, float, float]:
    """Double difference of P(U | cell), and shares of both, the first and the second motif."""
    joint = {
        (u, x, y): (rate if u else 1 - rate)
        * ((with_a if u else without_a) if x else 1 - (with_a if u else without_a))
        * ((with_b if u else without_b) if y else 1 - (with_b if u else without_b))
        for u in (0, 1) for x in (0, 1) for y in (0, 1)
    }  # fmt: skip
    p = {(x, y): joint[1, x, y] / (joint[1, x, y] + joint[0, x, y]) for x in (0, 1) for y in (0, 1)}
    both = joint[1, 1, 1] + joint[0, 1, 1]
    a = sum(v for (_, x, _), v in joint.items() if x)
    b = sum(v for (_, _, y), v in joint.items() if y)
    return p[1, 1] - p[1, 0] - p[0, 1] + p[0, 0], both, a, b


@pytest.mark.parametrize("seed", range(20))
def test_no_cause_of_a_tried_rate_is_weaker(seed: int):
    """Any cause with effect w gives an epistasis that needs at most w; up to the grid of causes that are tried."""
    draw = np.random.default_rng(seed)
    rate = draw.choice([0.05, 0.1, 0.2, 0.3, 0.5])
    with_a, without_a, with_b, without_b = draw.random(4)
    difference, both, a, b = cells(rate, with_a, without_a, with_b, without_b)
    found = hidden_cause_strength(2.0 * difference, both, a, b)
    assert found <= 2.0 * 1.02


def test_a_strong_cause_of_both_motifs():
    """The epistasis that a strong cause makes needs a cause of about its strength."""
    difference, both, a, b = cells(0.2, 0.95, 0.3, 0.95, 0.3)
    assert 0.5 < hidden_cause_strength(2.4 * difference, both, a, b) / 2.4 <= 1.01


def test_independent_motifs_have_no_common_cause():
    """Without co-occurrence nothing hidden can do it; the more of it, the weaker a cause suffices."""
    assert hidden_cause_strength(1.0, 0.25, 0.5, 0.5) == np.inf
    strengths = [hidden_cause_strength(1.0, both, 0.4, 0.4) for both in (0.17, 0.2, 0.25, 0.3)]
    assert strengths == sorted(strengths, reverse=True) and np.isfinite(strengths).all()
    assert np.isnan(hidden_cause_strength(1.0, 0.0, 0.0, 0.5)) and np.isnan(
        hidden_cause_strength(np.nan, 0.1, 0.3, 0.3)
    )


def test_the_table_is_rated_row_by_row():
    """Shares are counted in the presence of motifs."""
    draw = np.random.default_rng(0)
    cause = draw.random(4000) < 0.3
    presence = draw.random((4000, 3)) < np.where(cause[:, None], [0.9, 0.9, 0.4], [0.1, 0.1, 0.4])
    table = pd.DataFrame({"motif_a": [0, 0], "motif_b": [1, 2], "epistasis_effect": [0.5, 0.5]})
    first, second = sensitivity(table, presence)
    assert first < 2 and second > 3 * first


def test_interaction_in_the_data_is_found_beside_main_effects_and_gc():
    """The product has 1.5; motifs that only add up, and a constant one, have none; a missing target is left out."""
    draw = np.random.default_rng(0)
    presence = draw.random((4000, 4)) < 0.4
    presence[:, 3] = True
    gc = draw.beta(8, 8, 4000)
    y = presence[:, 0] + 2.0 * presence[:, 2] + 1.5 * (presence[:, 0] & presence[:, 1]) + 3 * gc
    y = y + draw.normal(0, 0.3, 4000)
    y[:10] = np.nan
    table = statistical_interaction(presence, gc[:, None], y).set_index(["motif_a", "motif_b"])
    row = table.loc[(0, 1)]
    assert (
        row["stat_interaction"] == pytest.approx(1.5, abs=4 * row["stat_interaction_se"])
        and row["stat_interaction_q"] < 1e-9
    )
    assert table.loc[(1, 2), "stat_interaction_q"] > 0.01 and np.isnan(table.loc[(0, 3), "stat_interaction"])


def test_gc_goes_with_motifs_that_like_it():
    """The larger of two correlations; none for a motif in all sequences."""
    draw = np.random.default_rng(0)
    gc = draw.beta(8, 8, 3000)
    presence = np.column_stack([draw.random(3000) < gc, draw.random(3000) < 0.5, np.ones(3000, bool)])
    r = gc_association(presence, gc).set_index(["motif_a", "motif_b"])["gc_confound_r"]
    expected = abs(np.corrcoef(presence[:, 0], gc)[0, 1])
    assert r[0, 1] == r[0, 2] == pytest.approx(expected) and r[1, 2] < 0.06
