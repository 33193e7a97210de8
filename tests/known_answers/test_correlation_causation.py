"""Attention agrees with the model whatever the data, and with the truth only if these are interventional."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from bioattn.bench.suites import run_of
from bioattn.bench.unit import run_unit

SEEDS = (11, 12, 13)
ARMS = (("observational", "plain"), ("randomised", "plain"), ("observational", "balanced"))


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Scores of one model for each of three structural causal models with strong hidden causes, in three arms."""
    rows = []
    for regime, training in ARMS:
        for seed in SEEDS:
            run = run_of("A", regime, seed, replicates=1, training=training)
            folder: Path = tmp_path_factory.mktemp("unit")
            unit = run_unit(run, training=training, work_dir=folder, rivals=False)
            pairs = unit.pairs
            size, bits = pairs["epistasis_effect"].abs(), pairs["attention_effect"]
            acts = pairs["interaction"] != 0
            rows.append(
                {
                    "regime": regime, "training": training, "hidden": size[pairs["class"] == "HIDDEN"].mean(),
                    "attention": average_precision_score(acts, bits.fillna(bits.min())),
                    "epistasis": average_precision_score(acts, size), "r": np.corrcoef(bits, size)[0, 1],
                    "odds": pairs.loc[pairs["class"] == "HIDDEN", "cooccurrence_logodds"].mean(),
                }
            )  # fmt: skip
    return pd.DataFrame(rows).groupby(["regime", "training"]).mean()


@pytest.mark.slow
def test_attention_finds_causes_only_after_randomised_training(arms: pd.DataFrame):
    """Average precision of co-attention against true interactions, 66 pairs: at most .7 against at least .9."""
    assert arms.loc[("observational", "plain"), "attention"] <= 0.7
    assert arms.loc[("randomised", "plain"), "attention"] >= 0.9
    assert arms.loc[("randomised", "plain"), "epistasis"] >= 0.9


@pytest.mark.slow
def test_a_hidden_cause_becomes_an_interaction_of_the_model(arms: pd.DataFrame):
    """Pairs that share a cause interact in the model, unless they were placed at random; balancing does not help."""
    assert arms.loc[("observational", "plain"), "hidden"] >= 0.4
    assert arms.loc[("observational", "balanced"), "hidden"] >= 0.4
    assert arms.loc[("randomised", "plain"), "hidden"] <= 0.05


@pytest.mark.slow
def test_attention_is_faithful_to_the_model_in_every_arm(arms: pd.DataFrame):
    """Over pairs, co-attention goes with the size of the model's epistasis."""
    assert (arms["r"] >= 0.6).all()
