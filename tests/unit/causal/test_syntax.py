"""Syntax: distances, strands and orders on which a planted epistasis depends are found, and no others."""

import numpy as np
import pandas as pd
import pytest
from toy_heads import random_codes

from bioattn.causal.sites import drawn_sites
from bioattn.causal.syntax import Syntax, spacing_curves, syntax_statistics
from bioattn.config import ModelConfig, StemConfig
from bioattn.explain.hits import HIT_COLUMNS
from bioattn.io.motifs import jaspar_motif
from bioattn.models import build_model

MOTIFS = [jaspar_motif("MA0060.4"), jaspar_motif("MA0090.4"), jaspar_motif("MA0093.4")]


def arrangements(rule, *, n: int = 16, noise: float = 0.05, seed: int = 0) -> list[pd.DataFrame]:
    """Five replicates of one pair whose epistasis is `rule(distance, same strand)` and noise."""
    draw = np.random.default_rng(seed)
    rows = [
        (0, 1, i, d, same)
        for i in range(n)
        for d in (-70, -60, -50, -40, -30, 30, 40, 50, 60, 70)
        for same in (True, False)
    ]
    table = pd.DataFrame(rows, columns=["motif_a", "motif_b", "instance", "distance_bp", "same_strand"])
    value = np.array([rule(d, same) for d, same in zip(table["distance_bp"], table["same_strand"], strict=True)])
    shared = draw.normal(0, noise, len(table))
    return [table.assign(epistasis=value + shared + draw.normal(0, noise, len(table))) for _ in range(5)]


def of(rule, *, minimum: float = 0.1, **more) -> pd.Series:
    return syntax_statistics(arrangements(rule, **more), minimum=minimum).iloc[0]


def test_a_preferred_distance_is_found():
    """Epistasis at 50 bp alone, on either side."""
    row = of(lambda d, same: 1.0 * (abs(d) == 50))
    assert row["spacing_peak"] == 50 and row["spacing_contrast"] == pytest.approx(1, abs=0.1)
    assert row["spacing_q"] < 1e-3 and row["orientation_q"] > 0.05 and row["order_q"] > 0.05


def test_a_strand_and_an_order_are_found():
    """Twice as much on the same strand; then only where b lies to the right."""
    row = of(lambda d, same: 1.0 + same)
    assert row["orientation_effect"] == pytest.approx(1, abs=0.1) and row["orientation_q"] < 0.02
    assert row["spacing_q"] > 0.05 and row["order_q"] > 0.05
    row = of(lambda d, same: 0.6 * (d > 0))
    assert row["order_effect"] == pytest.approx(0.6, abs=0.1) and row["order_q"] < 0.02 and row["orientation_q"] > 0.05


def test_without_syntax_none_is_found():
    """Noise around a constant, part of it shared by all replicates; then a difference as large as the minimum."""
    rows = [of(lambda d, same: 0.5, seed=seed) for seed in range(60)]
    for name in ("spacing_q", "orientation_q", "order_q"):  # one pair: q is p
        assert np.mean([row[name] <= 0.1 for row in rows]) < 0.05
    assert abs(np.mean([row["spacing_contrast"] for row in rows])) < 0.02
    border = [of(lambda d, same: 0.5 + 0.1 * same, noise=0.3, seed=seed)["orientation_q"] for seed in range(60)]
    assert np.mean([q <= 0.1 for q in border]) < 0.25


def test_a_small_dependence_counts_only_beyond_the_minimum():
    """The same strand adds 0.2 to an epistasis of 1: told where 0.1 counts, and not where only 0.3 does."""
    rule = lambda d, same: 1.0 + 0.2 * same  # noqa: E731
    assert of(rule)["orientation_q"] < 0.01 and of(rule, minimum=0.3)["orientation_q"] > 0.5
    assert of(rule)["orientation_effect"] == pytest.approx(0.2, abs=0.05)


def test_a_peak_of_one_replicate_is_none():
    """Each replicate has its peak at another distance: every one is large, no other replicate supports it."""
    tables = [
        arrangements(lambda d, same, far=far: 1.0 * (abs(d) == far))[r] for r, far in enumerate((30, 40, 50, 60, 70))
    ]
    assert syntax_statistics(tables, minimum=0.1).iloc[0]["spacing_q"] > 0.5


def test_one_replicate_has_numbers_and_no_test():
    row = syntax_statistics(arrangements(lambda d, same: 1.0 * (abs(d) == 50))[:1], minimum=0.1).iloc[0]
    assert row["spacing_peak"] == 50 and row[["spacing_q", "orientation_q", "order_q"]].isna().all()
    # Nor has one without any peak: nothing is known of it, which is not p = 1.
    flat = syntax_statistics(arrangements(lambda d, same: 1.0, noise=0.0)[:1], minimum=0.1).iloc[0]
    assert flat["spacing_contrast"] == 0 and flat[["spacing_q", "orientation_q", "order_q"]].isna().all()


def test_fewer_distances_are_compared_where_memory_is_short(monkeypatch: pytest.MonkeyPatch):
    """Of the grid four are left, from the nearest to the farthest."""
    config = ModelConfig(
        stem=StemConfig(kind="pwm", n_filters=3, width=5, pool=5), d_model=8, n_layers=1, n_heads=2, d_feedforward=8
    )
    model = build_model(config, n_readouts=1, motifs=MOTIFS, seed=1).eval()
    sites = drawn_sites(
        np.zeros((1, 30), np.uint8), pd.DataFrame(columns=list(HIT_COLUMNS)), MOTIFS, n=8, hit_p_value=1e-3, seed=0
    )
    whole = Syntax(model, random_codes(8, 200, 0), sites, step_bp=5, readout=0, seed=0).distances
    monkeypatch.setattr("bioattn.causal.syntax._MOST_BYTES", 1)
    few = Syntax(model, random_codes(8, 200, 0), sites, step_bp=5, readout=0, seed=0).distances
    assert len(whole) > 8 and len(few) == 4 and few[0] == whole[0] and few[-1] == whole[-1]


def test_curves_are_means_with_intervals():
    """One row for each distance and strand, whose interval holds what was put in."""
    curves = spacing_curves(arrangements(lambda d, same: 0.01 * d + same))
    assert len(curves) == 20 and (curves["n"] == 16).all()
    truth = 0.01 * curves["distance_bp"] + curves["same_strand"]
    assert np.abs(curves["epistasis"] - truth).max() < 0.06
    assert ((curves["ci_low"] <= curves["epistasis"]) & (curves["epistasis"] <= curves["ci_high"])).all()
    assert spacing_curves([]).empty and syntax_statistics([], minimum=0.1).empty


def test_intervals_of_curves_know_that_replicates_differ():
    """Five replicates that lie far apart: the interval is as wide as they allow, however many backgrounds."""
    tables = [table.assign(epistasis=table["epistasis"] + r) for r, table in enumerate(arrangements(lambda d, s: 0.0))]
    width = (curves := spacing_curves(tables))["ci_high"] - curves["ci_low"]
    assert width.min() > 2 * 2.77 * np.std(range(5), ddof=1) / 5**0.5 * 0.95
    assert spacing_curves(tables[:1])["ci_low"].isna().all()


def model(**more):
    config = ModelConfig(
        stem=StemConfig(kind="pwm", n_filters=3, width=5, pool=7), d_model=12, n_layers=1, n_heads=3,
        d_feedforward=16, dropout=0.0, positions="relative", pooling="sum", **more,
    )  # fmt: skip
    return build_model(config, n_readouts=1, motifs=MOTIFS, seed=5).double().eval()


def syntax_of(network, codes) -> Syntax:
    no_hits = pd.DataFrame(columns=list(HIT_COLUMNS))
    sites = drawn_sites(codes, no_hits, MOTIFS, n=8, hit_p_value=1e-3, seed=2)
    return Syntax(network, codes, sites, step_bp=15, readout=0, seed=2)


def test_arrangements_are_complete_and_as_named():
    """Every background has every distance on both sides and both kinds of strands, whatever other pairs there are."""
    network = model()
    made = syntax_of(network, random_codes(12, 210, 0))
    table = made.pairs([(0, 2), (2, 1)])
    widest = max(motif.width for motif in MOTIFS)
    assert made.distances.min() >= widest + 2 * (network.receptive_field_bp // 2) + 7
    assert 105 - 15 < made.distances.max() <= 105
    assert len(table) == 2 * 8 * 2 * len(made.distances) * 2
    first = table[(table["motif_a"] == 0) & (table["motif_b"] == 2)]
    assert set(first["distance_bp"]) == {*made.distances, *-made.distances}
    again = syntax_of(network, random_codes(12, 210, 0)).pairs([(2, 1)])
    np.testing.assert_allclose(
        again["epistasis"], table[table["motif_a"] == 2].reset_index(drop=True)["epistasis"], rtol=1e-10
    )


def test_long_sequences_have_twenty_distances():
    """Evenly spread up to half of the length."""
    made = syntax_of(model(), random_codes(9, 900, 0))
    steps = np.diff(made.distances)
    assert len(made.distances) == 20 and made.distances.max() > 430 and steps.max() - steps.min() <= 15


def test_short_sequences_have_no_arrangement():
    """Where two motifs do not fit on one side of the middle, the table is empty and the statistics too."""
    table = syntax_of(model(), random_codes(9, 50, 0)).pairs([(0, 1)])
    assert table.empty and syntax_statistics([table], minimum=0.1).empty and spacing_curves([table]).empty
