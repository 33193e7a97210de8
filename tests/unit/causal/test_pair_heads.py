"""The head that carries an interaction."""

import numpy as np
import pandas as pd
import pytest

from bioattn.causal.pair_heads import carrying_heads

HEADS = ("0.0", "0.1", "0.2", "1.0")


def knock_ins(shares: tuple[float, ...], effect: float, *, noise: float = 0.05, seed: int = 0) -> pd.DataFrame:
    """Cells of one pair in 16 backgrounds, with these shares of the epistasis gone by head; then one without heads."""
    draw = np.random.default_rng(seed)
    whole = effect + draw.normal(0, 0.1, 16)
    cells = {"y11": whole, "y10": 0.0, "y01": 0.0, "y00": 0.0}
    cut = {
        f"epistasis_cut_{head}": whole * (1 - share) + draw.normal(0, noise, 16)
        for head, share in zip(HEADS, shares, strict=True)
    }
    pair = pd.DataFrame({"motif_a": 0, "motif_b": 1, "instance": range(16), **cells, **cut})
    decoy = pair.assign(motif_b=9, **dict.fromkeys(cut, np.nan))
    return pd.concat([decoy, pair], ignore_index=True)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_head_with_the_largest_share_is_found_in_each_model(sign: int):
    """Heads are numbered anew in every model; the share is that of each model's own head."""
    tables = [knock_ins((0.1, 0.7, 0.0, 0.2), sign, seed=1), knock_ins((0.8, 0.1, 0.0, 0.1), sign, seed=2)]
    row = carrying_heads(tables, minimum=0.2, permutations=199, seed=0).iloc[0]
    assert (row["motif_a"], row["motif_b"], row["carrying_head"]) == (0, 1, "0.1, 0.0")
    assert row["head_fraction"] == pytest.approx(0.75, abs=0.06) and row["head_p"] < 0.01


def test_choosing_the_largest_share_does_not_make_it_large():
    """Where all heads are noise, p-values are uniform and shares are about zero."""
    found = [
        carrying_heads(
            [knock_ins((0.0,) * 4, 1.0, noise=0.3, seed=seed)], minimum=0.2, permutations=199, seed=seed
        ).iloc[0]
        for seed in range(200)
    ]
    p = np.array([row["head_p"] for row in found])
    assert abs((p <= 0.2).mean() - 0.2) < 4 * np.sqrt(0.16 / 200)
    assert abs(np.mean([row["head_fraction"] for row in found])) < 0.03


def test_small_effects_have_no_head_and_a_layer_of_one_head_no_test():
    """Shares of an epistasis that does not count say nothing; a head without others has nothing to be compared with."""
    assert carrying_heads([knock_ins((0.5, 0, 0, 0), 0.1)], minimum=0.2, permutations=99, seed=0).empty
    row = carrying_heads([knock_ins((0, 0, 0, 0.9), 1.0)], minimum=0.2, permutations=99, seed=0).iloc[0]
    assert row["carrying_head"] == "1.0" and np.isnan(row["head_p"]) and row["head_fraction"] > 0.8
