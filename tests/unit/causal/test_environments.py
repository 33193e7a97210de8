"""Balanced data, and what becomes of epistasis in them."""

import numpy as np
import pandas as pd
import pytest

from bioattn.causal.cooccurrence import cooccurrence, gc_content
from bioattn.causal.environments import balanced_tables, balancing_weights, environment_statistics
from bioattn.config import InteractionsConfig
from bioattn.data import alphabet
from bioattn.errors import BioattnWarning, DataError

CONFIG = InteractionsConfig()


def confounded(n: int = 6000, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Sequences, split and presence: motifs 0 and 1 have a common cause, 2 likes GC, 3 is by itself."""
    draw = np.random.default_rng(seed)
    gc = draw.beta(8, 8, n)
    letters = np.where(
        draw.random((n, 60)) < gc[:, None], draw.integers(1, 3, (n, 60)), draw.integers(0, 2, (n, 60)) * 3
    )
    cause = draw.random(n) < 0.3
    presence = np.stack(
        [
            draw.random(n) < np.where(cause, 0.8, 0.1),
            draw.random(n) < np.where(cause, 0.7, 0.2),
            draw.random(n) < 1 / (1 + np.exp(-9 * (gc - 0.5))),
            draw.random(n) < 0.3,
        ],
        axis=1,
    )
    names = [f"s{i}" for i in range(n)]
    sequences = pd.DataFrame({"name": names, "sequence": [alphabet.decode(row) for row in letters.astype(np.uint8)]})
    part = np.where(np.arange(n) < 5 * n // 6, "train", "test")
    return sequences, pd.DataFrame({"name": names, "fold_0": part}), presence


def test_weights_balance_what_they_are_asked_to_and_stay_even():
    """Means are zero; of all such weights they have the largest entropy: those of a normal shift are exponential."""
    draw = np.random.default_rng(0)
    x = draw.normal(0.5, 1, (40_000, 1))
    weights = balancing_weights(x)
    assert weights.sum() == pytest.approx(1) and abs(weights @ x[:, 0]) < 1e-3
    slope = np.polyfit(x[:, 0], np.log(weights), 1)[0]
    assert slope == pytest.approx(-x.mean() / x.var(), rel=0.02)
    assert (balancing_weights(np.zeros((7, 0))) == 1 / 7).all()


def test_impossible_balance_is_said():
    """A product that has one sign in all sequences has no mean of zero."""
    with pytest.raises(DataError, match=r"no weights balance the 50 training sequences \(1 constraints\)"):
        balancing_weights(np.random.default_rng(0).random((50, 1)) + 0.1)


@pytest.mark.parametrize("environment", ["cooccurrence", "gc"])
def test_training_sequences_are_balanced_and_held_out_ones_stay(environment: str):
    """Motifs of the common cause, or motif and GC, are independent then; rates stay; the other company stays."""
    sequences, split, presence = confounded()
    made, parts, summary = balanced_tables(environment, sequences, split, presence, fold=0, config=CONFIG, seed=0)
    assert made["name"].is_unique and (made["name"] == parts["name"]).all() and len(made) == len(sequences)
    assert made["sequence"][5000:].tolist() == sequences["sequence"][5000:].tolist()
    assert (parts["fold_0"] == split["fold_0"]).all() and 0.3 < summary["effective_share"] < 1
    origin = made["name"].str.extract(r"s(\d+)\.")[0].astype(int).to_numpy()[:5000]
    before, after = presence[:5000], presence[origin]
    gc = gc_content(alphabet.encode_batch(sequences["sequence"].tolist()))
    assert np.abs(before.mean(0) - after.mean(0)).max() < 0.03
    for now, rows in ((False, np.arange(5000)), (True, origin)):
        together = cooccurrence(presence[rows], gc[rows])["cooccurrence_logodds"].iloc[0]
        with_gc = abs(np.corrcoef(presence[rows, 2], gc[rows])[0, 1])
        assert (together < 0.3) == (now and environment == "cooccurrence")
        assert (with_gc < 0.08) == (now and environment == "gc")


def test_few_sequences_that_count_are_warned_of():
    """Motifs that are nearly never apart leave next to nothing."""
    sequences, split, presence = confounded(3000)
    presence[:, 1] = presence[:, 0]
    presence[:6, 1] = ~presence[:6, 0]
    with pytest.warns(BioattnWarning, match=r"environment 'cooccurrence': weights leave \d\.\d% of the training"):
        balanced_tables("cooccurrence", sequences, split, presence, fold=0, config=CONFIG, seed=0)


def cells(effects: dict[tuple[int, int], float], seed: int) -> pd.DataFrame:
    """Knock-ins in 20 backgrounds with these epistases, and what one replicate differs by."""
    draw = np.random.default_rng(seed)
    tables = []
    for (a, b), effect in effects.items():
        y = {"y11": effect + draw.normal(0, 0.05) + draw.normal(0, 0.1, 20), "y10": 0.0, "y01": 0.0, "y00": 0.0}
        tables.append(pd.DataFrame({"motif_a": a, "motif_b": b, "instance": range(20), **y, "y1c": 0.0, "y0c": 0.0}))
    return pd.concat(tables, ignore_index=True)


def test_epistasis_that_goes_when_data_are_balanced_is_told_from_one_that_stays():
    """Means in each environment, and a test that they are the same; signs."""
    plain = [cells({(0, 1): 1.0, (0, 2): 1.0, (1, 2): 0.8}, seed) for seed in range(5)]
    balanced = [cells({(0, 1): 1.0, (0, 2): 0.1, (1, 2): -0.8}, seed) for seed in range(5, 10)]
    folds = [cells({(0, 1): 1.0, (0, 2): 1.0, (1, 2): 0.8}, seed) for seed in range(10, 15)]
    table = environment_statistics(plain, {"cooccurrence": balanced, "fold1": folds})
    assert table["balanced_epistasis"].to_numpy() == pytest.approx([1.0, 0.1, -0.8], abs=0.1)
    assert table["gc_balanced_epistasis"].isna().all()
    assert (table["env_q_p"] < 1e-4).tolist() == [False, True, True]
    assert table["sign_stable"].tolist() == ["yes", "yes", "no"]
    assert environment_statistics(plain[:1], {"gc": balanced[:1]})["env_q_p"].isna().all()
