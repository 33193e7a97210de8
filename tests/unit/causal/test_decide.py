"""The rules of the verdict, one by one."""

import numpy as np
import pandas as pd
import pytest

from bioattn.causal.decide import (
    ATTENTION_ONLY,
    CAUSAL,
    COLUMNS,
    CONFOUNDED,
    HIDDEN,
    INSUFFICIENT,
    NOT_SUPPORTED,
    NOT_TESTED,
    VERDICTS,
    decide,
)
from bioattn.config import InteractionsConfig

NAN = float("nan")
#: A pair with every sign of an interaction and none of a common cause.
INTERACTING = dict.fromkeys(COLUMNS, NAN) | {
    "scale": "readout", "design": "knock-in",
    "tf_a": "A", "tf_b": "B", "motif_id_a": "M1", "motif_id_b": "M2", "tested": True, "candidate": True,
    "n_pairs": 300, "n_instances": 60, "n_replicates": 5, "seeds_supporting": 5, "attention_effect": 2.0,
    "main_a": 0.1, "main_b": 0.1, "epistasis_effect": 1.0, "epistasis_ci_low": 0.9, "epistasis_ci_high": 1.1,
    "epistasis_q": 0.001, "permutation_p": 0.002, "minimum_effect": 0.1, "mediated_fraction": 0.9,
    "cooccurrence_logodds": 0.0, "cooccurrence_q": 0.9, "best_layer_head": "0.1", "attention_direction": "a<-b",
}  # fmt: skip
ABSENT = {"epistasis_effect": 0.01, "epistasis_q": 0.9, "permutation_p": 0.6, "seeds_supporting": 0}
LATENT = {
    "scale": "latent", "epistasis_latent": 0.6, "epistasis_latent_q": 0.001, "epistasis_latent_permutation_p": 0.002,
    "epistasis_latent_supporting": 5, "epistasis_latent_minimum": 0.1,
}  # fmt: skip
COOCCURS = {"cooccurrence_logodds": 1.2, "cooccurrence_q": 1e-9}
MEASURED = {"interventional_effect": 3.0, "interventional_q": 1e-6}


@pytest.mark.parametrize(
    ("change", "verdict", "level"),
    [
        ({}, CAUSAL, "L3"),
        ({"mediated_fraction": 0.2}, HIDDEN, "L3"),
        ({"candidate": False}, CAUSAL, "L3"),
        (COOCCURS, CONFOUNDED, "L2"),
        ({"cooccurrence_logodds": 0.4, "cooccurrence_q": 1e-9}, CAUSAL, "L3"),
        ({"cooccurrence_logodds": -1.2, "cooccurrence_q": 1e-9}, CONFOUNDED, "L2"),
        ({"cooccurrence_logodds": NAN, "cooccurrence_q": NAN}, CAUSAL, "L3"),
        (COOCCURS | MEASURED, CAUSAL, "L4b"),
        (MEASURED | {"interventional_effect": -3.0}, CONFOUNDED, "L4b"),
        ({"interventional_effect": -3.0, "interventional_q": 0.5}, CAUSAL, "L3"),
        ({"gc_confound_r": 0.4}, CAUSAL, "L3"),
        ({"gc_confound_r": 0.4, "gc_balanced_epistasis": 0.4}, CONFOUNDED, "L2"),
        ({"gc_confound_r": 0.4, "gc_balanced_epistasis": -0.9}, CONFOUNDED, "L2"),
        ({"gc_confound_r": 0.2, "gc_balanced_epistasis": 0.4}, CAUSAL, "L3"),
        ({"gc_confound_r": 0.4, "gc_balanced_epistasis": 0.8}, CAUSAL, "L4a"),
        ({"balanced_epistasis": 0.8, "sign_stable": "yes"}, CAUSAL, "L4a"),
        ({"balanced_epistasis": 0.8, "sign_stable": "no"}, CAUSAL, "L3"),
        ({"balanced_epistasis": 0.8, "gc_balanced_epistasis": 0.1}, CAUSAL, "L3"),
        ({"balanced_epistasis": 0.8, "mediated_fraction": 0.2}, HIDDEN, "L4a"),
        (COOCCURS | {"balanced_epistasis": 1.0}, CONFOUNDED, "L2"),
        (ABSENT, ATTENTION_ONLY, "L1"),
        (ABSENT | COOCCURS, CONFOUNDED, "L1"),
        (ABSENT | {"candidate": False}, NOT_SUPPORTED, "L2"),
        ({"epistasis_q": 0.06, "candidate": False}, NOT_SUPPORTED, "L2"),
        ({"permutation_p": 0.2, "candidate": False}, NOT_SUPPORTED, "L2"),
        ({"seeds_supporting": 3, "candidate": False}, NOT_SUPPORTED, "L2"),
        ({"epistasis_effect": 0.09, "candidate": False}, NOT_SUPPORTED, "L2"),
        ({"epistasis_q": NAN, "candidate": False}, NOT_SUPPORTED, "L2"),
        ({"tested": False, "candidate": False, "epistasis_effect": NAN}, NOT_TESTED, "L0"),
        ({"tested": False}, NOT_TESTED, "L0"),
        ({"tested": False, "candidate": False} | ABSENT, NOT_SUPPORTED, "L2"),
        (LATENT | ABSENT, CAUSAL, "L3"),
        (LATENT | {"epistasis_latent_q": 0.9}, ATTENTION_ONLY, "L1"),
        (LATENT | {"epistasis_latent": 0.05}, ATTENTION_ONLY, "L1"),
        (LATENT | {"epistasis_latent": -0.6} | MEASURED, CONFOUNDED, "L4b"),
        ({"n_pairs": 49}, INSUFFICIENT, "L0"),
        ({"n_replicates": 2}, INSUFFICIENT, "L0"),
    ],
)
def test_first_rule_that_applies_decides(change: dict, verdict: str, level: str):
    """Each rule is reached by changing one piece of evidence of an interacting pair."""
    row = decide(pd.DataFrame([INTERACTING | change]), InteractionsConfig()).iloc[0]
    assert (row["verdict"], row["evidence_level"]) == (verdict, level)
    assert row["sentence"].startswith(f"A x B: {verdict}")


@pytest.mark.parametrize(
    ("change", "logic"),
    [
        ({}, "AND"),
        ({"main_a": 0.8}, "synergy"),
        ({"epistasis_effect": -1.0, "main_a": 1.0, "main_b": 0.9}, "redundancy"),
        ({"epistasis_effect": -1.0, "main_a": 1.0, "main_b": -0.1}, "masking"),
        ({"epistasis_effect": -1.8, "main_a": 0.9, "main_b": 0.8}, "XOR"),
        ({"epistasis_effect": 0.05}, "additive"),
        ({"epistasis_effect": NAN}, "NA"),
    ],
)
def test_logic_follows_from_signs_and_mains(change: dict, logic: str):
    """The shape of an interaction is named from the four cells."""
    assert decide(pd.DataFrame([INTERACTING | change]), InteractionsConfig())["logic"].iloc[0] == logic


def test_the_sentence_tells_syntax_and_scale_where_they_matter():
    """Distance and strands below q = 0.05, by the sign of the effect; the latent effect on its scale."""
    change = {"spacing_peak": 42.0, "spacing_q": 0.01, "orientation_effect": -0.4, "orientation_q": 0.01}
    table = decide(pd.DataFrame([INTERACTING | {"epistasis_effect": 2.0}, INTERACTING | change]), InteractionsConfig())
    plain, told = table["sentence"]
    assert "at a distance of 42 bp" in told and "larger on opposite strands" in told
    assert "distance of" not in plain and "strand" not in plain and "latent" not in plain
    repressed = decide(pd.DataFrame([INTERACTING | change | {"epistasis_effect": -1.0}]), InteractionsConfig())
    assert "larger on the same strand" in repressed["sentence"].iloc[0]
    latent = decide(pd.DataFrame([INTERACTING | LATENT]), InteractionsConfig())["sentence"].iloc[0]
    assert "0.60 on the latent scale (q = 0.001)" in latent


def test_what_was_not_measured_may_be_missing():
    """Knock-outs of fixed sites have no arrangements, latent scale or further shares: the verdict does without."""
    row = {name: value for name, value in INTERACTING.items() if value == value}
    table = decide(pd.DataFrame([row | {"interventional_effect": NAN}]), InteractionsConfig())
    assert table["verdict"].iloc[0] == CAUSAL and list(table.columns) == list(COLUMNS)
    assert table["spacing_q"].isna().all() and "through the attention edge" in table["sentence"].iloc[0]


def test_rows_are_sorted_by_effect_with_every_column_defined():
    """Strongest first, untested last; columns are those of the data dictionary, in its order."""
    rows = [INTERACTING | {"epistasis_effect": e} for e in (0.2, NAN, -0.9)]
    table = decide(pd.DataFrame(rows), InteractionsConfig())
    np.testing.assert_array_equal(table["epistasis_effect"], [-0.9, 0.2, NAN])
    assert list(table.columns) == list(COLUMNS)
    assert set(VERDICTS) >= set(table["verdict"])


def test_causal_alone_is_never_said():
    """Without interventional data the word stands only with what it is about: the model."""
    assert all("causal" not in v or "in model" in v or "without attention" in v for v in VERDICTS)


@pytest.mark.parametrize(
    ("effect", "low", "high", "expected"),
    [
        (1.0, 0.2, 0.9, "yes"),
        (1.0, -0.1, 0.9, "no"),
        (1.0, -0.9, -0.2, "no"),
        (-1.0, -0.9, -0.2, "yes"),
        (1.0, NAN, NAN, "NA"),
    ],
)
def test_measured_interactions_agree_if_their_interval_has_the_sign_of_the_epistasis(effect, low, high, expected):
    """An interval that holds zero agrees with nothing; without measurements there is no word."""
    given = {"interventional_effect": (low + high) / 2, "interventional_ci_low": low, "interventional_ci_high": high}
    table = decide(pd.DataFrame([INTERACTING | given | {"epistasis_effect": effect}]), InteractionsConfig())
    assert table["interventional_agree"].tolist() == [expected]
