"""Scores of the benchmark: made-up units whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bioattn.bench import scores
from bioattn.bench.suites import SUITES, check_regime, run_of
from bioattn.bench.unit import OURS, _ours
from bioattn.causal.decide import CAUSAL, COLUMNS, CONFOUNDED
from bioattn.config import InteractionsConfig
from bioattn.errors import ConfigError

ARM = {"suite": "A", "regime": "observational", "training": "plain"}
NAN = float("nan")


def scored(seed: int, method: str, values: list[float], called: list[float] | None = None) -> pd.DataFrame:
    """Five pairs, of which the first two interact."""
    return pd.DataFrame(
        {
            "tf_a": "x", "tf_b": list("abcde"), "class": ["AND", "AND", "HIDDEN", "NULL", "NULL"],
            "interaction": [1.0, 0.5, 0.0, 0.0, 0.0], "method": method, "score": values,
            "called": called or [NAN] * 5, **ARM, "seed": seed,
        }
    )  # fmt: skip


def test_ranking_is_average_precision_over_units():
    """True pairs first gives 1; missing scores come last; a mean over seeds with its interval."""
    table = scores.ranking(
        pd.concat(
            [
                scored(1, "good", [5, 4, 3, 2, 1]),
                scored(2, "good", [5, 4, 3, 2, 1]),
                scored(1, "bad", [1, 2, 3, 4, 5]),
                scored(2, "bad", [5, 1, 2, 3, NAN]),
            ]
        )  # fmt: skip
    ).set_index("method")
    assert list(table.index) == ["good", "bad"]
    assert table.loc["good", ["auprc", "ci_low", "ci_high"]].tolist() == [1, 1, 1]
    worst, middle = (1 / 4 + 2 / 5) / 2, (1 + 2 / 4) / 2
    assert table.loc["bad", "auprc"] == pytest.approx((worst + middle) / 2)
    assert table.loc["bad", "ci_low"] == pytest.approx(worst) and table.loc["bad", "ci_high"] == pytest.approx(middle)
    assert (table["base_rate"] == 0.4).all() and (table["n_seeds"] == 2).all()


def test_calls_are_counted_by_class():
    """Methods that make no calls are left out."""
    table = scores.calls(pd.concat([scored(1, "m", [0] * 5, [1, 0, 1, 1, 0]), scored(1, "rank", [0] * 5)]))
    assert set(table["method"]) == {"m"}
    share = table.set_index("class")["share_called"]
    assert share.to_dict() == {"AND": 0.5, "HIDDEN": 1.0, "NULL": 0.5}
    assert table.set_index("class")["n_pairs"].to_dict() == {"AND": 2, "HIDDEN": 1, "NULL": 2}


def pairs(q_values: list[float]) -> pd.DataFrame:
    """Pairs with every sign of an interaction but for their q-values; the first half interact."""
    n = len(q_values)
    base = dict.fromkeys(COLUMNS, NAN) | {
        "tf_a": "A", "motif_id_a": "M", "tf_b": "B", "motif_id_b": "N", "tested": True, "candidate": True,
        "n_pairs": 300, "n_instances": 60, "n_replicates": 5, "seeds_supporting": 5, "attention_effect": 2.0,
        "main_a": 0.1, "main_b": 0.1, "permutation_p": 0.002, "minimum_effect": 0.1, "mediated_fraction": 0.9,
        "cooccurrence_logodds": 0.0, "cooccurrence_q": 0.9, "scale": "readout", "design": "knock-in",
    }  # fmt: skip
    table = pd.DataFrame([base] * n).assign(epistasis_q=q_values, **ARM, seed=1)
    acts = np.arange(n) < n // 2
    effect = np.where(acts, 0.8, 0.3) + 0.01 * np.arange(n)
    return table.assign(
        epistasis_effect=effect, epistasis_ci_low=effect - 0.1, epistasis_ci_high=effect + 0.1,
        interaction=np.where(acts, 1.6, 0.0), **{"class": np.where(acts, "AND", "NULL")},
    )  # fmt: skip


def test_calibration_makes_verdicts_anew():
    """At 1 % two true pairs are claimed, at 20 % all four, of which two are false."""
    table = scores.calibration(pairs([0.005, 0.005, 0.15, 0.03]), InteractionsConfig()).set_index("nominal")
    assert table["n_claims"].to_dict() == {0.01: 2, 0.05: 3, 0.1: 3, 0.2: 4}
    assert table["n_false"].to_dict() == {0.01: 0, 0.05: 1, 0.1: 1, 0.2: 2}
    assert table.loc[0.2, "observed"] == 0.5 and (table["n_true_found"] == 2).all() and (table["n_true"] == 2).all()


def test_coverage_is_against_what_models_learn():
    """The slope is that of the effects through zero; wide intervals hold it; null effects far from zero do not."""
    table = scores.coverage(pairs([0.01] * 8)).iloc[0]
    assert table["slope"] == pytest.approx(0.815 / 1.6, abs=1e-3)
    assert table["interacting"] == 1 and table["n_interacting"] == 4 and table["null"] == 0 and table["n_null"] == 4


def test_verdicts_are_held_against_what_is_right():
    """A hidden cause may be called confounded in observational data only."""
    table = pd.concat(
        [
            pd.DataFrame({"class": ["HIDDEN", "AND"], "verdict": "co-occurrence confounded", **ARM}),
            pd.DataFrame({"class": ["HIDDEN"], "verdict": "co-occurrence confounded", **ARM, "regime": "randomised"}),
            pd.DataFrame({"class": ["HIDDEN"], "verdict": "co-occurrence confounded", **ARM, "regime": "mixed0.5"}),
        ]
    )
    right = scores.verdicts(table).set_index(["regime", "class"])["as_expected"]
    assert right.to_dict() == {
        ("observational", "HIDDEN"): True, ("observational", "AND"): False, ("randomised", "HIDDEN"): False,
        ("mixed0.5", "HIDDEN"): True,
    }  # fmt: skip


def test_rules_of_syntax_are_counted():
    """Found in their own class, false elsewhere; the error of the peak for spacing only."""
    table = pd.DataFrame(
        {
            "class": ["SPC", "ORI", "AND", "NULL"], "interaction": [1.0, 1.0, 1.0, 0.0],
            "spacing_q": [0.01, 0.5, 0.01, 0.01],
            "orientation_q": [0.5, 0.01, 0.5, 0.5], "order_q": 0.5, "spacing_peak": [68.0, 30, 40, 50], **ARM,
        }
    )  # fmt: skip
    found = scores.syntax(table, within_bp=60).set_index("rule")
    assert found.loc["SPC", ["found", "n", "false", "n_other", "error_bp"]].tolist() == [1, 1, 0.5, 2, 8]
    assert found.loc["ORI", "found"] == 1 and found.loc["ORI", "false"] == 0 and "ORD" not in found.index


def test_demonstration_joins_summaries_and_ranks():
    """Means over seeds, beside the average precision of our two scores."""
    summaries = pd.DataFrame([{**ARM, "seed": s, "r_attention_truth": r} for s, r in ((1, 0.2), (2, 0.4))])
    ranked = pd.concat([scored(s, method, [5, 4, 3, 2, 1]) for s in (1, 2) for method in OURS[1:3]])
    row = scores.demonstration(summaries, ranked).iloc[0]
    assert row["r_attention_truth"] == pytest.approx(0.3) and row["n_seeds"] == 2
    assert row["auprc_attention"] == row["auprc_epistasis"] == 1


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_is_a_valid_run(suite: str):
    """Settings of each suite in each regime; replicates and sizes are those asked for."""
    for regime in ("observational", "randomised", "twins", "mixed0.25"):
        run = run_of(suite, regime, 3, replicates=4, n_sequences=500, epochs=2)
        assert run.data.simulate is not None and run.data.simulate.n_sequences == 500
        assert run.train.seeds == [1, 2, 3, 4] and run.train.epochs == 2
        assert len(run.motifs.jaspar_ids) == 2 * len(run.data.simulate.pairs)
    assert run.data.simulate.randomised_fraction == 0.25
    assert run_of(suite, "randomised", 1, replicates=2, training="permuted").train.permute_labels


@pytest.mark.parametrize("regime", ["obs", "mixed", "mixed2", "mixed0.5x"])
def test_an_unknown_regime_is_named(regime: str):
    """What is allowed stands in the message."""
    with pytest.raises(ConfigError, match=f"mixed0.25, got '{regime}'"):
        check_regime(regime)


def test_confounded_pairs_rank_last_and_unclaimed_ones_by_their_size():
    """The verdict's score claims or not; for ranking, only what a common cause may explain is put aside."""
    pairs = pd.DataFrame(
        {
            "motif_id_a": ["m0", "m0", "m1"], "motif_id_b": ["m1", "m2", "m2"],
            "verdict": [CAUSAL, CONFOUNDED, "not supported"], "epistasis_effect": [-0.5, 2.0, 0.1],
            "attention_effect": [1.0, 2.0, 3.0], "candidate": [True, True, False],
            "edge_knockout_effect": [0.1, -0.2, 0.3],
        }
    )  # fmt: skip
    data = SimpleNamespace(motifs=[SimpleNamespace(motif_id=f"m{i}") for i in range(3)], n_motifs=3)
    found = _ours(pairs.iloc[::-1], data)
    assert list(found) == list(OURS)
    assert found["bioattn, verdict"].score.tolist() == [0.5, 0.0, 0.0]
    assert found["bioattn, verdict"].called.tolist() == [1.0, 0.0, 0.0]
    assert found["bioattn, epistasis"].score.tolist() == [0.5, 2.0, 0.1]
    assert found["bioattn, epistasis unless confounded"].score.tolist() == [0.5, 0.0, 0.1]
