"""Verdicts on motif pairs, from evidence at every level, by rules that are read top to bottom.

"Causal in model" means that an intervention on the input changes the model's
output as an interaction. Whether the world does the same is another question,
which only interventional data can answer.
"""

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from bioattn.config import InteractionsConfig

CAUSAL = "causal in model"
HIDDEN = "hidden (causal without attention)"
CONFOUNDED = "co-occurrence confounded"
ATTENTION_ONLY = "attention-only (correlational)"
NOT_SUPPORTED = "not supported"
INSUFFICIENT = "insufficient data"
NOT_TESTED = "not tested"

#: Every verdict, from most to least said.
VERDICTS = (CAUSAL, HIDDEN, CONFOUNDED, ATTENTION_ONLY, NOT_SUPPORTED, INSUFFICIENT, NOT_TESTED)

#: Definition of every column of interactions.tsv.
COLUMNS = {
    "motif_a": "name of the first motif or site",
    "motif_b": "name of the second motif or site",
    "motif_id_a": "accession of the first motif",
    "motif_id_b": "accession of the second motif",
    "verdict": "what the evidence supports; see the rules in the report",
    "evidence_level": "highest level of evidence behind the verdict: L0 data, L1 attention, L2 knock-out of sites, "
    "L3 knock-out of the edge, L4b interventional data",
    "sentence": "the verdict in words, made from the numbers of the row",
    "candidate": "co-attention passed its statistic and its effect floor",
    "tested": "interventions were made on this pair",
    "n_sequences": "sequences in which both motifs were hit far enough apart",
    "n_instances": "sequences in which the pair was knocked out",
    "attention_effect_bits": "co-attention above what motif identity, distance and sequence predict, log2 units; "
    "strongest head and direction, mean over replicates",
    "attention_p": "permutation p of attention_effect_bits; identities of hits permuted within sequences",
    "attention_q": "attention_p after Benjamini-Hochberg over all pairs",
    "attention_direction": "which motif reads which in the strongest head: a<-b means that a's position reads b's",
    "best_layer_head": "layer.head with the largest co-attention, per replicate model",
    "main_a": "effect of the first site when the second is knocked out, pre-link scale",
    "main_b": "effect of the second site when the first is knocked out, pre-link scale",
    "epistasis_effect": "f(both) - f(a) - f(b) + f(neither), pre-link scale, mean over replicates and sequences",
    "epistasis_ci_low": "2.5 % bound, bootstrap over replicates and sequences",
    "epistasis_ci_high": "97.5 % bound, bootstrap over replicates and sequences",
    "epistasis_p": "p of |epistasis| <= minimum_effect, t-test over replicates",
    "epistasis_q": "epistasis_p after Benjamini-Hochberg over tested pairs",
    "permutation_p": "one-sided sign-flip permutation p of epistasis beyond that with a control locus in the same "
    "sequences",
    "control_epistasis": "epistasis of the first site with a control locus that holds no motif",
    "minimum_effect": "smallest epistasis that counts, pre-link scale",
    "cell_neither": "mean readout with both sites knocked out",
    "cell_a": "mean readout with only the first site",
    "cell_b": "mean readout with only the second site",
    "cell_both": "mean readout with both sites",
    "logic": "shape of the interaction: AND, synergy, redundancy, masking or additive",
    "edge_knockout_effect": "f(intact) - f(attention edge cut), pre-link scale",
    "edge_knockout_p": "one-sided sign-flip permutation p against an edge moved to the same distance elsewhere",
    "edge_knockout_q": "edge_knockout_p after Benjamini-Hochberg over tested pairs",
    "mediated_fraction": "1 - epistasis with the edge cut / epistasis; NA when epistasis is below minimum_effect",
    "cooccurrence_logodds": "log odds ratio of both motifs being present, pooled over GC deciles",
    "cooccurrence_ci_low": "2.5 % bound",
    "cooccurrence_ci_high": "97.5 % bound",
    "cooccurrence_q": "Benjamini-Hochberg q of no co-occurrence",
    "interventional_effect": "interaction in the measured values of a randomised library, per unit of site damage "
    "squared; NA unless the data are interventional",
    "interventional_ci_low": "2.5 % bound",
    "interventional_ci_high": "97.5 % bound",
    "interventional_q": "Benjamini-Hochberg q of no interaction in the measured values",
    "seeds_supporting": "replicates with the same sign and more than minimum_effect",
    "n_replicates": "trained models, each on its own resample of the data",
    "clean_fraction": "share of replacements that a scan found free of motifs",
}


def decide(pairs: pd.DataFrame, config: InteractionsConfig) -> pd.DataFrame:
    """Pairs with `logic`, `verdict`, `evidence_level` and `sentence`, most epistatic first.

    Parameters
    ----------
    pairs : DataFrame
        One row per pair with the columns of `COLUMNS` except those.
    config : InteractionsConfig
        Thresholds of the rules.
    """
    pairs = pairs.copy()
    pairs["logic"] = [_logic(row) for row in pairs.to_dict("records")]
    decisions = [_verdict(row, config) for row in pairs.to_dict("records")]
    pairs["verdict"] = [verdict for verdict, _ in decisions]
    pairs["evidence_level"] = [level for _, level in decisions]
    pairs["sentence"] = [_sentence(row) for row in pairs.to_dict("records")]
    order = pairs["epistasis_effect"].abs().sort_values(ascending=False, na_position="last").index
    return pairs.loc[order, list(COLUMNS)].reset_index(drop=True)


def _verdict(row: Mapping[Hashable, Any], config: InteractionsConfig) -> tuple[str, str]:
    """Verdict and evidence level of one pair: the first rule that applies.

    Epistasis counts if it is significant and of a size that counts over replicates,
    larger than with a control locus in the same sequences, and of one sign in most replicates.
    """
    too_few = row["n_sequences"] < config.min_instances or row["n_replicates"] < config.min_replicates
    if too_few:
        return INSUFFICIENT, "L0"
    attention = bool(row["candidate"])
    associated = (
        abs(row["cooccurrence_logodds"]) >= config.cooccurrence_floor and row["cooccurrence_q"] < config.q_value
    )
    if not row["tested"]:
        return NOT_TESTED, "L0"
    effect = row["epistasis_effect"]
    epistasis = (
        row["epistasis_q"] < config.q_value
        and abs(effect) > row["minimum_effect"]
        and row["permutation_p"] < config.q_value
        and row["seeds_supporting"] >= math.ceil(config.support * row["n_replicates"])
    )
    measured = row["interventional_q"] < config.q_value  # NaN, no interventional data, compares false
    agrees = measured and np.sign(row["interventional_effect"]) == np.sign(effect)
    if epistasis and measured and not agrees:
        return CONFOUNDED, "L4b"
    if epistasis and agrees:
        return CAUSAL, "L4b"
    if epistasis and associated:
        return CONFOUNDED, "L2"
    if epistasis:
        return (CAUSAL, "L3") if row["mediated_fraction"] >= config.mediated_floor else (HIDDEN, "L3")
    if attention and associated:
        return CONFOUNDED, "L1"
    if attention:
        return ATTENTION_ONLY, "L1"
    return NOT_SUPPORTED, "L2"


def _logic(row: Mapping[Hashable, Any]) -> str:
    """Shape of the interaction from its sign and the main effects of the sites without each other."""
    effect, minimum = row["epistasis_effect"], row["minimum_effect"]
    if not np.isfinite(effect):
        return "NA"
    if abs(effect) <= minimum:
        return "additive"
    main_a, main_b = row["main_a"], row["main_b"]
    if effect > 0:
        return "AND" if max(abs(main_a), abs(main_b)) < 0.25 * effect else "synergy"
    return "redundancy" if main_a > 0 and main_b > 0 else "masking"


def _sentence(row: Mapping[Hashable, Any]) -> str:
    name = f"{row['motif_a']} x {row['motif_b']}: {row['verdict']}"
    if row["verdict"] == INSUFFICIENT:
        return f"{name} ({row['n_sequences']:.0f} sequences hold both, {row['n_replicates']:.0f} replicates)."
    if row["verdict"] == NOT_TESTED:
        return f"{name}."
    parts = [
        f"epistasis {row['epistasis_effect']:.2f} [{row['epistasis_ci_low']:.2f}, {row['epistasis_ci_high']:.2f}], "
        f"q = {row['epistasis_q']:.2g}, {row['seeds_supporting']:.0f}/{row['n_replicates']:.0f} replicates"
    ]
    if np.isfinite(row["mediated_fraction"]):
        parts.append(f"{100 * row['mediated_fraction']:.0f} % of it lost when the attention edge is cut")
    parts.append(f"co-attention {row['attention_effect_bits']:+.1f} bits")
    if np.isfinite(row["cooccurrence_logodds"]):
        parts.append(f"co-occurrence log odds {row['cooccurrence_logodds']:+.1f}")
    if np.isfinite(row["interventional_effect"]):
        agreement = "same" if np.sign(row["interventional_effect"]) == np.sign(row["epistasis_effect"]) else "opposite"
        parts.append(f"measured interaction of the {agreement} sign (q = {row['interventional_q']:.2g})")
    return f"{name} ({'; '.join(parts)})."
