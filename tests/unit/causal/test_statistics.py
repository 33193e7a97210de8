"""Null distributions, co-occurrence and measured interactions: calibrated on data with known truth."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bioattn.causal.cooccurrence import cooccurrence, gc_content, site_interaction, statistical_interaction
from bioattn.causal.epistasis import minimum_effect, pair_statistics, readout_spread
from bioattn.causal.nulls import benjamini_hochberg, crossed_interval, mean_interval, minimum_effect_p, sign_flip_p
from bioattn.data import alphabet


def test_sign_flip_p_is_uniform_under_the_null_and_one_sided():
    """A tenth of symmetric samples get p <= 0.1; a mean below zero is no evidence."""
    draw = np.random.default_rng(0)
    p = np.array([sign_flip_p(draw.normal(size=23), permutations=199, rng=draw) for _ in range(600)])
    assert abs((p <= 0.1).mean() - 0.1) < 4 * np.sqrt(0.09 / 600)
    assert sign_flip_p(np.full(23, 1.0), permutations=199, rng=draw) == pytest.approx(1 / 200)
    assert sign_flip_p(np.full(23, -1.0), permutations=199, rng=draw) > 0.9
    assert np.isnan(sign_flip_p(np.array([np.nan]), permutations=199, rng=draw))


def test_minimum_effect_p_is_a_t_test_at_the_border():
    """At a true effect equal to the minimum a tenth is below 0.1; with minimum zero it is half the two-sided p."""
    draw = np.random.default_rng(0)
    p = np.array([minimum_effect_p(draw.normal(2.0, 0.5, 5), 2.0) for _ in range(2000)])
    assert abs((p <= 0.1).mean() - 0.1) < 4 * np.sqrt(0.09 / 2000)
    x = np.array([0.2, 0.5, 0.9, 0.4])
    assert minimum_effect_p(x, 0.0) == pytest.approx(stats.ttest_1samp(x, 0).pvalue / 2)
    assert minimum_effect_p(-x, 0.0) == pytest.approx(minimum_effect_p(x, 0.0))
    assert np.isnan(minimum_effect_p(np.array([1.0]), 0.1))
    assert minimum_effect_p(x, 0.1, positive=True) == minimum_effect_p(x, 0.1)
    assert minimum_effect_p(-x, 0.1, positive=True) > 0.5 > minimum_effect_p(-x, 0.1)


@pytest.mark.parametrize(("replicates", "instances"), [(0.3, 0.5), (0.0, 0.5), (0.3, 0.0), (0.0, 0.0)])
def test_crossed_interval_holds_the_truth_as_often_as_it_says(replicates: float, instances: float):
    """Five replicates, noise of replicates, of instances, of both or of neither: the 95 % interval holds the mean."""
    draw = np.random.default_rng(0)
    covered = []
    for _ in range(600):
        values = 1 + draw.normal(0, replicates, (5, 1)) + draw.normal(0, instances, (1, 37)) + draw.normal(size=(5, 37))
        low, high = crossed_interval(values)
        covered.append(low <= 1 <= high)
    assert 0.92 < np.mean(covered) <= 1.0


def test_crossed_interval_is_a_t_interval_where_only_replicates_differ():
    """Instances that all say the same leave the t interval over replicates; one replicate has none."""
    replicates = np.array([0.2, 0.5, 0.9, 0.4])
    low, high = crossed_interval(np.repeat(replicates[:, None], 23, axis=1))
    expected = stats.t.interval(0.95, 3, replicates.mean(), stats.sem(replicates))
    assert (low, high) == pytest.approx(expected)
    assert np.isnan(crossed_interval(np.ones((1, 23)))).all() and crossed_interval(np.ones((3, 5))) == (1.0, 1.0)


def test_mean_interval_is_that_of_a_t_test():
    """Over the first axis; one replicate has none."""
    values = np.random.default_rng(0).normal(size=(5, 3))
    low, high = mean_interval(values)
    expected = stats.t.interval(0.95, 4, values.mean(0), stats.sem(values))
    np.testing.assert_allclose([low, high], expected)
    assert np.isnan(mean_interval(values[:1])).all()


def test_permutation_p_of_pairs_is_two_sided():
    """A tenth of pairs without an effect get p <= 0.1, although the side is chosen after looking."""
    draw = np.random.default_rng(0)
    made = [made_up_effects(0, epistasis=0.0).query("motif_b == 2").assign(motif_b=m) for m in range(1, 301)]
    table = pd.concat(made).assign(epistasis=draw.normal(size=300 * 30))
    p = pair_statistics([table, table], minimum=0.0, permutations=199, seed=0)["permutation_p"]
    assert abs((p <= 0.1).mean() - 0.1) < 4 * np.sqrt(0.09 / 300)


def test_adjusted_p_values_leave_out_missing_tests():
    """NaN is no test and stays NaN."""
    np.testing.assert_allclose(benjamini_hochberg([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])


def made_up_effects(seed: int, *, epistasis: float, control: float = 0.0, n: int = 30) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    rows = []
    for pair, effect in (((0, 1), epistasis), ((0, 2), 0.0)):
        for i in range(n):
            value = effect + draw.normal(0, 0.05)
            rows.append(
                {
                    "motif_a": pair[0],
                    "motif_b": pair[1],
                    "instance": i,
                    "epistasis": value,
                    "epistasis_cut": 0.25 * value,
                    "epistasis_isolated": 0.05 * value,
                    "control": control,
                    "main_a": 1.0,
                    "main_b": 0.2,
                    "neither": 3.0,
                    "edge": 0.1 + draw.normal(0, 0.01),
                    "edge_moved": 0.0,
                    "patch": 0.3,
                }
            )
    return pd.DataFrame(rows)


def test_pair_statistics_give_back_what_was_put_in():
    """Effect, mediated share, support and cells; the pair without an effect is not significant."""
    replicates = [made_up_effects(seed, epistasis=0.8) for seed in range(5)]
    table = pair_statistics(replicates, minimum=0.1, permutations=199, seed=0).set_index(["motif_a", "motif_b"])
    row, null = table.loc[(0, 1)], table.loc[(0, 2)]
    assert row["epistasis_effect"] == pytest.approx(0.8, abs=0.03)
    assert row["epistasis_ci_low"] < 0.8 < row["epistasis_ci_high"]
    assert row["mediated_fraction"] == pytest.approx(0.75) and row["seeds_supporting"] == 5
    assert row["third_party_fraction"] == pytest.approx(0.2) and row["readout_fraction"] == pytest.approx(0.05)
    assert row["edge_patch_effect"] == pytest.approx(0.3)
    assert row["epistasis_p"] < 1e-4 and row["permutation_p"] == 2 / 200 and row["edge_knockout_p"] == 1 / 200
    assert [row[f"cell_{c}"] for c in ("neither", "a", "b")] == pytest.approx([3.0, 4.0, 3.2])
    assert row["cell_both"] == pytest.approx(5.0, abs=0.03)
    assert null["epistasis_p"] > 0.9 and np.isnan(null["mediated_fraction"]) and null["seeds_supporting"] == 0


def test_minimum_effect_comes_from_mains_or_from_decoys():
    """A tenth of the median main effect, unless decoys reach further; control motifs are the decoys where named."""
    quiet = [made_up_effects(0, epistasis=0.0)]
    assert minimum_effect(quiet) == pytest.approx(0.1 * 0.6)
    loud = [made_up_effects(0, epistasis=0.0, control=-0.5)]
    assert minimum_effect(loud) == pytest.approx(0.5)
    assert minimum_effect(quiet, spread=2.0) == pytest.approx(0.2)
    cells = pd.DataFrame({"sequence": [0, 0, 1], "y11": [1.0, 1.0, 3.0]})
    assert readout_spread([cells, cells.assign(y11=0.0)]) == pytest.approx(np.sqrt(2) / 2) and readout_spread([]) == 0
    named = [made_up_effects(0, epistasis=0.3, control=-0.5)]
    assert minimum_effect(named, controls=[False, True, False]) == pytest.approx(0.3, abs=0.03)


def test_cooccurrence_is_found_and_shared_gc_is_none():
    """Motifs with a common cause have log odds; motifs that both like GC have next to none once GC is adjusted for."""
    draw = np.random.default_rng(0)
    n = 8000
    gc = draw.beta(8, 8, n)
    cause = draw.random(n) < 0.35
    joint = draw.random((n, 2)) < np.where(cause, 0.85, 0.06)[:, None]
    by_gc = draw.random((n, 2)) < (1 / (1 + np.exp(-12 * (gc - 0.55))))[:, None]
    table = cooccurrence(np.hstack([joint, by_gc]), gc).set_index(["motif_a", "motif_b"])
    crude = pd.crosstab(by_gc[:, 0], by_gc[:, 1]).to_numpy() + 0.5
    crude_log_odds = np.log(crude[1, 1] * crude[0, 0] / (crude[0, 1] * crude[1, 0]))
    row = table.loc[(0, 1)]
    assert row["cooccurrence_ci_low"] < row["cooccurrence_logodds"] < row["cooccurrence_ci_high"]
    assert row["cooccurrence_logodds"] > 2 and row["cooccurrence_q"] < 1e-6
    assert crude_log_odds > 0.8 and abs(table.loc[(2, 3), "cooccurrence_logodds"]) < 0.25
    assert abs(table.loc[(0, 2), "cooccurrence_logodds"]) < 0.25


def test_copies_at_random_are_no_cooccurrence_of_a_motif_with_itself():
    """Poisson numbers of hits, of a rate that GC sets, have log odds near zero; hits in twos have them high."""
    draw = np.random.default_rng(0)
    n = 20_000
    gc = draw.beta(8, 8, n)
    number = np.stack([draw.poisson(2 * gc**2), 2 * draw.poisson(0.2, n)], axis=1)
    table = cooccurrence(number > 0, gc, number > 1).set_index(["motif_a", "motif_b"])
    assert table.index.tolist() == [(0, 0), (0, 1), (1, 1)]
    low, high = table.loc[(0, 0), ["cooccurrence_ci_low", "cooccurrence_ci_high"]]
    assert low < 0 < high and high - low < 0.3
    assert table.loc[(1, 1), "cooccurrence_logodds"] > 1.5 and table.loc[(1, 1), "cooccurrence_q"] < 1e-6


def test_second_hits_interact_if_they_do_more_than_first_ones():
    """Additive copies have none; of copies that count only in twos the interaction is the effect of the second."""
    draw = np.random.default_rng(0)
    n = 6000
    number = np.minimum(draw.poisson(0.6, (n, 2)), 2)
    y = number[:, 0] + 1.5 * (number[:, 1] == 2) + draw.normal(0, 0.5, n)
    y[:5] = np.nan
    table = statistical_interaction(number > 0, draw.random((n, 1)), y, number > 1).set_index(["motif_a", "motif_b"])
    for pair, truth in (((0, 0), 0.0), ((0, 1), 0.0), ((1, 1), 1.5)):
        row = table.loc[pair]
        assert abs(row["stat_interaction"] - truth) < 4 * row["stat_interaction_se"] < 0.4


def test_motif_in_every_sequence_has_no_odds():
    """A constant column gives NaN, never a p-value."""
    presence = np.ones((500, 2), dtype=bool)
    presence[::2, 1] = False
    row = cooccurrence(presence, np.linspace(0, 1, 500)).iloc[0]
    assert np.isnan(row["cooccurrence_logodds"]) and np.isnan(row["cooccurrence_q"])


def test_gc_content_counts_known_bases_only():
    """N and padding are left out."""
    np.testing.assert_allclose(gc_content(alphabet.encode_batch(["GCAT", "GGNNA", "NN"])), [0.5, 2 / 3, 0.0])


def test_measured_interaction_of_sites_in_a_randomised_library():
    """Damage to two sites that interact is found with its sign; sites that add up have none."""
    draw = np.random.default_rng(0)
    wild = draw.integers(0, 4, 30)
    codes = np.where(draw.random((9000, 30)) < 0.15, draw.integers(0, 4, (9000, 30)), wild).astype(np.uint8)
    spans = [(2, 8), (12, 18), (22, 28)]
    damage = [(codes[:, a:b] != wild[a:b]).mean(1) for a, b in spans]
    y = -2 * damage[0] - damage[1] - damage[2] + 6 * damage[0] * damage[1] + draw.normal(0, 0.2, 9000)
    table = site_interaction(codes, spans, y).set_index(["motif_a", "motif_b"])
    row = table.loc[(0, 1)]
    assert row["interventional_ci_low"] < 6 < row["interventional_ci_high"] and row["interventional_q"] < 1e-6
    assert abs(table.loc[(0, 2), "interventional_effect"]) < 1 and abs(table.loc[(1, 2), "interventional_effect"]) < 1
