"""The page of the benchmark: ranking, verdicts against the truth, calibration, syntax, demonstration and costs."""

from collections.abc import Mapping

import pandas as pd

from bioattn.plot.bench import arm_name, calibration_curves, dose_response, has_doses, precision_bars
from bioattn.report.blocks import Block, Pictures, Section, Text, picture
from bioattn.report.build import render
from bioattn.report.tables import plain_table

_METHODS = (
    "Rivals look at the same hits of the same held-out sequences in the same models; each was written anew from its "
    "description. Scores of ways that need a model are means over the replicate models, and a pair counts as called if "
    "most models' tests call it. Average precision is against pairs that truly interact. Ours: the verdict "
    "ranks what it claims by its epistasis and all else last; unless confounded: all pairs by their epistasis, those "
    "of that verdict last.",
    "SATORI: largest attention over heads, Mann-Whitney against shuffles or low sequences. TIANA: attention times "
    "gradient, high less low sequences. DFIM: change of one site's attribution when the other is shuffled. Pairwise "
    "ablation: double difference of shuffled sites, t-test over sequences. Substitutions: the same with one letter of "
    "each site. Co-occurrence: log odds in sequences with a high target. Regression: product of two motifs in a "
    "linear model of the target.",
)


def build_scoreboard(tables: Mapping[str, pd.DataFrame], suites: Mapping[str, str]) -> str:
    """One self-contained HTML page.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        As `bioattn.bench.scores` makes them: ranking, calls, verdicts, calibration, coverage,
        syntax, costs, demonstration.
    suites : mapping of str to str
        What each suite is about.
    """
    used = [name for name in suites if (tables["ranking"]["suite"] == name).any()]
    about = " ".join(f"Suite {name}: {suites[name]}." for name in used)
    sections = [
        Section("summary", "Summary", [Text(_headline(tables), "lead"), Text(about)]),
        Section("ranking", "Who ranks true interactions first", _ranking(tables)),
        Section("verdicts", "Verdicts against the truth", _verdicts(tables)),
        Section("calibration", "Is the error rate what it says", _calibration(tables)),
        Section("syntax", "Distance, strands and order", [_table("syntax", "Rules that were planted", tables)]),
        Section("demonstration", "What training data do to attention", _demonstration(tables)),
        Section("costs", "Costs", [_table("costs", "Mean seconds of a unit, all replicates together", tables)]),
        Section("methods", "Methods", [Text(text) for text in _METHODS]),
    ]
    return render("bioattn benchmark", "benchmark", "Simulated pairs of motifs with known truth.", sections)


def _headline(tables: Mapping[str, pd.DataFrame]) -> str:
    claims = tables["calibration"]
    at = claims[claims["nominal"] == 0.05]
    parts = []
    for row in at.to_dict("records"):
        arm = arm_name(str(row["suite"]), str(row["regime"]), str(row["training"]))
        parts.append(
            f"{arm}: {row['n_true_found']} of {row['n_true']} interactions claimed, {row['n_false']} false claims"
        )
    return f"At a nominal rate of 5 %: {'; '.join(parts)}."


def _ranking(tables: Mapping[str, pd.DataFrame]) -> list[Block]:
    return [
        Pictures(
            [
                picture(
                    precision_bars(tables["ranking"]),
                    alt="Markers: average precision of each method in each arm",
                    caption="Mean over structural causal models; bars: 95 % bootstrap interval over these.",
                )
            ]
        ),
        _table("ranking", "Average precision", tables),
        _table("calls", "Share of pairs that each method calls, by class", tables),
    ]


def _verdicts(tables: Mapping[str, pd.DataFrame]) -> list[Block]:
    return [_table("verdicts", "Classes of pairs and their verdicts", tables)]


def _calibration(tables: Mapping[str, pd.DataFrame]) -> list[Block]:
    return [
        Pictures(
            [
                picture(
                    calibration_curves(tables["calibration"]),
                    alt="Lines: observed against nominal share of false claims",
                    caption="Grey: up to two points above the nominal rate.",
                )
            ]
        ),
        _table("calibration", "Claims (causal in model, hidden) when verdicts are made at other rates", tables),
        _table("coverage", "How often intervals hold what models learn of the truth", tables),
    ]


def _demonstration(tables: Mapping[str, pd.DataFrame]) -> list[Block]:
    text = (
        "The same structural equation, trained on data in which motifs follow their causes, or are placed "
        "at random. Attention agrees with the model everywhere (r_attention_epistasis); with the truth it agrees only "
        "where the data are interventional. Balanced: training sequences weighted so that motifs occur independently, "
        "which does not remove a hidden cause. Permuted: targets shuffled."
    )
    table = tables["demonstration"]
    dose = (
        picture(
            dose_response(table),
            alt="Lines: agreement of attention and epistasis with the truth against the share of randomised sequences",
            caption="Mean over structural causal models.",
        )
        if has_doses(table)
        else None
    )
    pictures = [Pictures([dose])] if dose else []
    return [Text(text), *pictures, _table("demonstration", "Means over structural causal models", tables)]


def _table(name: str, title: str, tables: Mapping[str, pd.DataFrame]) -> Block:
    return plain_table(f"bench-{name}", title, tables[name], sortable=True)
