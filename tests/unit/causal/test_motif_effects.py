"""Effects of single motifs."""

import numpy as np
import pandas as pd
import pytest

from bioattn.causal.motif_effects import COLUMNS, motif_effects

N = 40


def cells(effects: dict[int, float], seed: int, noise: float = 0.1) -> pd.DataFrame:
    """Pairs of motifs 0 to 2 and of motif 0 with decoys 3 to 5, whose sites have these effects in 40 backgrounds."""
    shared = np.random.default_rng(99).normal(0, noise, (6, N))
    draw = np.random.default_rng(seed)
    single = {m: effects.get(m, 0.0) + draw.normal(0, 0.02) + shared[m] for m in range(6)}
    tables = []
    for a, b in ((0, 1), (0, 2), (1, 2), (0, 4), (1, 3), (0, 5)):
        y = {"y00": 5.0, "y10": 5 + single[a], "y01": 5 + single[b], "y11": 5 + single[a] + single[b]}
        tables.append(pd.DataFrame({"motif_a": a, "motif_b": b, "instance": range(N), **y}))
    return pd.concat(tables, ignore_index=True)


def test_effects_come_back_and_decoys_are_held_against_them():
    """One motif raises, one lowers the readout; one does what its letters do in any order."""
    replicates = [cells({0: 1.0, 1: -0.5, 2: 0.4, 5: 0.4}, seed) for seed in range(5)]
    table = motif_effects(replicates, n_motifs=3, permutations=199, seed=0).set_index("motif")
    assert table["effect"].tolist() == pytest.approx([1.0, -0.5, 0.4], abs=0.06)
    assert (table["effect_ci_low"] < table["effect"]).all() and table.loc[0, "effect_ci_low"] > 0.9
    assert table["decoy_effect"].tolist() == pytest.approx([0, 0, 0.4], abs=0.06)
    assert (table["q_value"] < 0.02).tolist() == [True, True, False]
    assert table.loc[[0, 1], "seeds_supporting"].tolist() == [5, 5] and (table["n_backgrounds"] == N).all()
    assert set(table) <= set(COLUMNS)


def test_nothing_is_called_in_a_tenth_of_all_cases_at_most():
    """Motifs that do what their decoys do: p-values are uniform, two-sided."""
    p = []
    for seed in range(150):
        draw = np.random.default_rng(seed)
        table = cells({}, seed)
        table["y10"] += draw.normal(0, 1, len(table))
        table["y01"] += draw.normal(0, 1, len(table))
        p += motif_effects([table], n_motifs=3, permutations=99, seed=seed)["p_value"].tolist()
    # Motifs of one table share backgrounds, not noise.
    assert abs((np.array(p) <= 0.1).mean() - 0.1) < 4 * np.sqrt(0.09 / len(p))
    one = motif_effects([table], n_motifs=3, permutations=99, seed=0)
    assert one["effect_ci_low"].isna().all() and (one["n_replicates"] == 1).all()


def test_a_decoy_that_was_not_put_in_leaves_no_test():
    """The effect is told all the same."""
    table = cells({0: 1.0}, 0)
    table = table[table["motif_b"] != 3]
    row = motif_effects([table, table], n_motifs=3, permutations=99, seed=0).set_index("motif").loc[0]
    assert row["effect"] == pytest.approx(1, abs=0.1) and np.isnan(row["p_value"]) and np.isnan(row["decoy_effect"])
