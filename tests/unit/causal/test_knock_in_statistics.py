"""Statistics of knock-ins: planted effects come back on both scales, decoys set the limit."""

import numpy as np
import pandas as pd
import pytest

from bioattn.causal.interactions import _agreement
from bioattn.causal.knock_in_statistics import knock_in_statistics, screened
from bioattn.causal.nulls import benjamini_hochberg, benjamini_yekutieli, decoy_q, max_statistic_p
from bioattn.config import InteractionsConfig

N_MOTIFS = 6
CONFIG = InteractionsConfig(permutations=199)
PAIRS = [(a, b) for a in range(N_MOTIFS) for b in range(a + 1, N_MOTIFS)]
DECOYS = [(a, b + N_MOTIFS) for a in range(N_MOTIFS) for b in range(N_MOTIFS) if a != b]


def cells_of(pairs, n: int, seed: int, curve=lambda x: x, edges: bool = False) -> pd.DataFrame:
    """Cells of pairs in n backgrounds; the pair (0, 1) has 1.0 more together, half of it through the edge."""
    fixed, draw = np.random.default_rng(99), np.random.default_rng(seed)
    main = np.concatenate([fixed.normal(0.7, 0.3, N_MOTIFS), np.zeros(N_MOTIFS)])
    base = fixed.normal(0, 0.3, n)
    tables = []
    for a, b in pairs:
        more = 1.0 if (a, b) == (0, 1) else 0.0

        def cells(extra, a=a, b=b):
            parts = (main[a] + main[b] + extra, main[a], main[b], 0.0)
            return [curve(base + part) + draw.normal(0, 0.02, n) for part in parts]

        columns = dict(zip(("y11", "y10", "y01", "y00"), cells(more), strict=True))
        columns["y0c"] = columns["y00"] + draw.normal(0, 0.02, n) if b < N_MOTIFS else np.full(n, np.nan)
        columns["y1c"] = columns["y10"] + draw.normal(0, 0.02, n) if b < N_MOTIFS else np.full(n, np.nan)
        if edges:
            for ending, share in (("cut", 0.5), ("isolated", 0.2)):
                columns |= dict(
                    zip((f"{c}_{ending}" for c in ("y11", "y10", "y01", "y00")), cells(share * more), strict=True)
                )
            columns["y11_moved"] = columns["y11"] + draw.normal(0, 0.02, n)
        tables.append(pd.DataFrame(columns).assign(motif_a=a, motif_b=b, instance=np.arange(n)))
    return pd.concat(tables, ignore_index=True)


def statistics(curve=lambda x: x) -> pd.DataFrame:
    tested = [(0, 1), (2, 3), (0, 4)]
    screens = [cells_of(PAIRS + DECOYS, 16, seed, curve) for seed in range(5)]
    full = [
        pd.concat([cells_of(tested, 40, 10 + s, curve, edges=True), cells_of(DECOYS, 40, 20 + s, curve)])
        for s in range(5)
    ]
    return knock_in_statistics(screens, full, n_motifs=N_MOTIFS, spread=0.0, config=CONFIG, seed=0).set_index(
        ["motif_a", "motif_b"]
    )


def test_planted_effects_come_back():
    """One pair interacts: size, shares and tests; others do not; those that were not tested come from the screen."""
    table = statistics()
    assert len(table) == len(PAIRS)
    row = table.loc[(0, 1)]
    assert row["epistasis_effect"] == pytest.approx(1, abs=0.03) and row["seeds_supporting"] == 5
    assert row["mediated_fraction"] == pytest.approx(0.5, abs=0.05)
    assert row["third_party_fraction"] == pytest.approx(0.3, abs=0.05)
    assert row["readout_fraction"] == pytest.approx(0.2, abs=0.05)
    assert row["epistasis_p"] < 1e-4 and row["permutation_p"] == 2 * row["epistasis_maxt_p"] == 2 / 200
    assert row["epistasis_decoy_q"] < 0.15 and row["epistasis_latent"] == pytest.approx(1, abs=0.05)
    others = table.drop(index=(0, 1))
    assert (others["epistasis_effect"].abs() < 0.03).all() and (others["epistasis_p"] > 0.2).all()
    assert table["n_backgrounds"].value_counts().to_dict() == {16: len(PAIRS) - 3, 40: 3}
    assert table["epistasis_maxt_p"].notna().sum() == 3 and (table["scale"] == "readout").all()
    assert row["minimum_effect"] == pytest.approx(0.1 * 0.7, rel=0.5)


def test_a_plateau_puts_the_verdict_on_the_latent_scale():
    """Behind a curve all pairs seem to interact; on the latent scale the planted one stands out."""
    table = statistics(lambda x: 3 / (1 + np.exp(-2.5 * (x - 0.2))))
    assert (table["scale"] == "latent").all() and table["latent_correlation"].iloc[0] < 0.98
    others = table.drop(index=(0, 1))
    assert others["epistasis_latent"].abs().median() < 0.5 * others["epistasis_effect"].abs().median()


def test_the_screen_tells_which_pairs_show_something():
    """Mean epistasis of each pair of motifs, without decoys, and what counts."""
    table = screened([cells_of(PAIRS + DECOYS, 16, seed) for seed in range(3)], n_motifs=N_MOTIFS, config=CONFIG)
    assert len(table) == len(PAIRS) and table["minimum_effect"].nunique() == 1
    assert table.set_index(["motif_a", "motif_b"]).loc[(0, 1), "screen_epistasis"] == pytest.approx(1, abs=0.05)
    assert (table["screen_epistasis"].abs() > table["minimum_effect"] / 2).sum() == 1
    own = screened(
        [cells_of(PAIRS, 16, 0)], n_motifs=N_MOTIFS, config=CONFIG.model_copy(update={"minimum_effect": 0.4})
    )
    assert (own["minimum_effect"] == 0.4).all()


def test_designs_agree_in_sign_and_size():
    """Within a factor of e."""
    one, other = pd.Series([1.0, 1.0, -1.0, 1.0, np.nan]), pd.Series([2.0, 3.0, 0.5, np.nan, 1.0])
    assert _agreement(one, other) == ["yes", "no", "no", "NA", "NA"]


def test_max_statistic_holds_for_all_tests_at_once():
    """Under the null a tenth of data sets have any p <= 0.1; an effect is found; correlated tests cost nothing."""
    draw = np.random.default_rng(0)
    smallest = []
    for _ in range(200):
        shared = draw.normal(size=25)
        values = 0.7 * shared + draw.normal(size=(30, 25))
        smallest.append(max_statistic_p(values, permutations=99, rng=draw).min())
    assert abs(np.mean(np.array(smallest) <= 0.1) - 0.1) < 4 * np.sqrt(0.09 / 200)
    values = draw.normal(size=(30, 25))
    values[3] += 2
    p = max_statistic_p(values, permutations=199, rng=draw)
    assert p[3] == 1 / 200 and np.delete(p, 3).min() > 0.05
    assert max_statistic_p(np.zeros((2, 5)), permutations=99, rng=draw).tolist() == [1.0, 1.0]


def test_decoys_count_false_discoveries():
    """Thirty of 100 targets are real: about the nominal rate among those found is false."""
    draw = np.random.default_rng(0)
    rates = []
    for _ in range(50):
        targets = np.concatenate([np.abs(draw.normal(4, 1, 30)), np.abs(draw.normal(0, 1, 70))])
        q = decoy_q(targets, np.abs(draw.normal(0, 1, 100)))
        found = q <= 0.1
        rates.append((found[30:].sum(), found.sum()))
        assert (np.diff(q[np.argsort(-targets)]) >= 0).all()
    false, total = np.sum(rates, axis=0)
    assert false / total < 0.13 and total > 50 * 24
    assert decoy_q(np.array([1.0, 5.0]), np.array([0.1])).tolist() == [1.0, 1.0]


def test_yekutieli_is_stricter_by_the_harmonic_sum():
    """Two tests: 1 + 1/2 times Benjamini-Hochberg; NaN is no test."""
    p = [0.01, np.nan, 0.04]
    np.testing.assert_allclose(benjamini_yekutieli(p), 1.5 * benjamini_hochberg(p))
