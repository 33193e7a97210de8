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
    "tf_a": "name of the first motif or site",
    "tf_b": "name of the second motif or site",
    "motif_id_a": "accession of the first motif",
    "motif_id_b": "accession of the second motif",
    "family_a": "structural family of the first motif's factor",
    "family_b": "structural family of the second motif's factor",
    "members_a": "motifs that the first one stands for: they look so much alike that they share their sites",
    "members_b": "motifs that the second one stands for",
    "verdict": "what the evidence supports; see the rules in the report",
    "evidence_level": "highest level of evidence behind the verdict: L0 data, L1 attention, L2 interventions on the "
    "sequence, L3 on the attention edge too, L4a in balanced data too, L4b interventional data",
    "sentence": "the verdict in words, made from the numbers of the row",
    "candidate": "co-attention passed its statistic and its effect floor",
    "tested": "interventions were made on this pair at full depth; of the others, the screen alone speaks",
    "design": "intervention behind epistasis_effect. knock-in: motifs put into backgrounds, alone and together; "
    "knock-out: sites replaced in real sequences, for sites that have a fixed place",
    "n_hits_a": "held-out sequences with a hit of the first motif",
    "n_hits_b": "held-out sequences with a hit of the second motif",
    "n_pairs": "usable instances: sequences in which both motifs were hit far enough apart, one for each",
    "n_seqs": "sequences with a hit of both, whatever their distance",
    "n_too_close": "sequences with hits of both that share a token or lie within the reach of one filter: left out",
    "n_instances": "sequences in which the pair was knocked out",
    "n_backgrounds": "backgrounds into which the pair was put",
    "attention_effect": "co-attention above what motif identity, distance and sequence predict, log2 units; "
    "strongest head and direction, mean over replicates",
    "attention_ci_low": "2.5 % bound, t interval over replicates",
    "attention_ci_high": "97.5 % bound, likewise",
    "attention_p": "permutation p of attention_effect; identities of hits permuted within sequences",
    "attention_q": "attention_p after Benjamini-Hochberg over all pairs",
    "attention_maxt_p": "p that holds for all pairs at once: largest statistic under permuted identities",
    "attention_norm_bits": "attention_effect of attention times the length of what it carries: the value that an "
    "entry adds to the reading token",
    "attention_attr_bits": "attention_effect of attention times its gradient, sizes: what an entry does to the readout",
    "attention_pair_bits": "likewise of the size of what the pair track holds of the two sites (model.trunk pair; else "
    "NA)",
    "attention_direction": "which motif reads which in the strongest head: a<-b means that a's position reads b's",
    "best_layer_head": "layer.head with the largest co-attention, per replicate model",
    "main_a": "effect of the first site without the second, pre-link scale",
    "main_b": "effect of the second site without the first, pre-link scale",
    "epistasis_effect": "f(both) - f(a) - f(b) + f(neither), pre-link scale, mean over replicates and sequences",
    "epistasis_ci_low": "2.5 % bound, replicates and sequences both as random draws (two-way random effects, t)",
    "epistasis_ci_high": "97.5 % bound, likewise",
    "epistasis_p": "p of |epistasis| <= minimum_effect, t-test over replicates",
    "epistasis_q": "epistasis_p after Benjamini-Hochberg over pairs",
    "epistasis_q_by": "epistasis_p after Benjamini-Yekutieli, which holds for any dependence between pairs",
    "epistasis_maxt_p": "p that holds for all tested pairs at once: largest statistic when backgrounds flip their sign",
    "epistasis_decoy_q": "false discovery rate by counting pairs with a decoy motif that have as large an effect",
    "permutation_p": "sign-flip permutation p of the epistasis being larger, in its own direction, than that with the "
    "control in the same sequences; two-sided",
    "control_epistasis": "epistasis of the first site with the control: a decoy of the second motif in its place "
    "(knock-in), or a locus that holds no motif (knock-out)",
    "minimum_effect": "smallest epistasis that counts, pre-link scale",
    "epistasis_ko": "epistasis when sites are knocked out of real sequences, pre-link scale",
    "design_agreement": "knock-in and knock-out give the same sign, and sizes within a factor of e: yes or no",
    "scale": "scale on which the verdict rests: readout (pre-link), or latent where a global nonlinearity bends it",
    "latent_correlation": "Pearson correlation of readouts with themselves on the latent scale, on which motifs add up "
    "best; the verdict rests on the readout itself from 0.98, or if that scale does not halve most pairs' epistasis",
    "epistasis_latent": "epistasis on the latent scale, in units of the readout's main effects",
    "epistasis_latent_q": "minimum-effect test over replicates on the latent scale, after Benjamini-Hochberg",
    "epistasis_latent_permutation_p": "permutation_p on the latent scale",
    "epistasis_latent_supporting": "seeds_supporting on the latent scale",
    "epistasis_latent_minimum": "minimum_effect on the latent scale",
    "cell_neither": "mean readout with neither site",
    "cell_a": "mean readout with only the first site",
    "cell_b": "mean readout with only the second site",
    "cell_both": "mean readout with both sites",
    "logic": "shape of the interaction: AND, synergy, redundancy, XOR, masking or additive",
    "edge_knockout_effect": "f(intact) - f(attention edge cut), pre-link scale",
    "edge_patch_effect": "f(intact) - f(what either site tells the other replaced by what it would without its motif), "
    "pre-link scale; attention itself is left as it is",
    "edge_knockout_p": "one-sided sign-flip permutation p against an edge moved to the same distance elsewhere",
    "edge_knockout_q": "edge_knockout_p after Benjamini-Hochberg over tested pairs",
    "mediated_fraction": "share of the epistasis that is gone when the edges between the two sites are cut in all four "
    "cells; NA when epistasis is below minimum_effect. Shares need not lie in 0 to 1",
    "third_party_fraction": "share that is gone only when no other token reads the sites either",
    "readout_fraction": "share that is left then: the sites meet in the readout",
    "carrying_head": "layer.head that carries most of the epistasis, per replicate model: the one with whose edges cut "
    "most of it is gone, or layer.pair for what the pair track holds of the sites; chosen in every second background",
    "head_fraction": "share of the epistasis that is gone then, in the other backgrounds",
    "head_q": "of that share being larger than the other heads' of its layer: sign flips of backgrounds; "
    "Benjamini-Hochberg",
    "decomposition": "exact: the model is a bottleneck in which sites can meet in one attention layer only; else why "
    "the shares are not exact",
    "spacing_peak": "distance in bp, centre to centre, at which the size of the epistasis is largest",
    "spacing_contrast": "its size there less the median size over distances, of each replicate at the others' peak",
    "spacing_q": "of that contrast being at most minimum_effect, t-test over replicates; Benjamini-Hochberg",
    "orientation_effect": "epistasis with both sites on the same strand less that on opposite ones",
    "orientation_q": "of that difference being at most minimum_effect, likewise",
    "order_effect": "epistasis with the second site to the right of the first less that to its left",
    "order_q": "of that difference being at most minimum_effect, likewise",
    "cooccurrence_logodds": "log odds ratio of both motifs being present, pooled over GC deciles",
    "cooccurrence_ci_low": "2.5 % bound",
    "cooccurrence_ci_high": "97.5 % bound",
    "cooccurrence_q": "Benjamini-Hochberg q of no co-occurrence",
    "gc_confound_r": "larger of the two motifs' correlations with GC content, its size",
    "stat_interaction": "coefficient of the product of both motifs in a least squares fit of the target on all motifs, "
    "GC, length and that product: the interaction in the data, hidden causes included",
    "stat_interaction_se": "its standard error, heteroscedasticity-consistent",
    "stat_interaction_q": "of no such interaction; Benjamini-Hochberg",
    "sensitivity_w": "smallest effect of a hidden common cause on the readout that would give this epistasis by "
    "itself, the motifs doing nothing; infinite where they do not co-occur",
    "env_q_p": "of the epistasis being the same in all environments (interactions.environments): Welch's test over "
    "replicates; NA without any",
    "sign_stable": "epistasis has the same sign in all environments: yes or no; NA without any",
    "balanced_epistasis": "epistasis of models trained on sequences weighted so that motifs do not co-occur; a hidden "
    "cause survives this",
    "gc_balanced_epistasis": "epistasis of models trained on sequences weighted so that no motif goes with GC",
    "interventional_effect": "interaction in the measured values of a designed or randomised library: double "
    "difference over the four cells, or coefficient of both motifs (of fixed sites per unit of damage squared); NA "
    "without such data",
    "interventional_ci_low": "2.5 % bound",
    "interventional_ci_high": "97.5 % bound",
    "interventional_se": "standard error of interventional_effect",
    "interventional_agree": "whether it has the sign of the epistasis and its interval excludes zero: yes, no, or NA "
    "without such data",
    "interventional_q": "Benjamini-Hochberg q of no interaction in the measured values",
    "interventional_source": "four cells, with the number of backgrounds, or regression, with that of sequences",
    "seeds_supporting": "replicates with the same sign and more than minimum_effect",
    "n_replicates": "trained models, each on its own resample of the data",
    "clean_fraction": "share of replacements that a scan found free of motifs",
}


#: An epistasis of which less than this share is left in balanced data was that of what is balanced.
_KEPT = 0.5
#: Syntax is told in the sentence up to this q-value.
_TOLD_Q = 0.05


def decide(pairs: pd.DataFrame, config: InteractionsConfig) -> pd.DataFrame:
    """Pairs with `logic`, `verdict`, `evidence_level` and `sentence`, most epistatic first.

    Parameters
    ----------
    pairs : DataFrame
        One row per pair with the columns of `COLUMNS` except those; what was not measured may be missing.
    config : InteractionsConfig
        Thresholds of the rules.
    """
    # What was not measured, such as arrangements of fixed sites, is unknown.
    pairs = pairs.reindex(columns=list(COLUMNS))
    pairs["interventional_agree"] = [_agrees(row) for row in pairs.to_dict("records")]
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
    larger than with a control in the same sequences, and of one sign in most replicates: on the latent
    scale where a global nonlinearity bends the readout, else on the readout's own.
    """
    too_few = row["n_pairs"] < config.min_instances or row["n_replicates"] < config.min_replicates
    if too_few:
        return INSUFFICIENT, "L0"
    attention = bool(row["candidate"])
    associated = (
        abs(row["cooccurrence_logodds"]) >= config.cooccurrence_floor and row["cooccurrence_q"] < config.q_value
    ) or (row["gc_confound_r"] >= config.gc_floor and _kept(row, "gc_balanced_epistasis") is False)
    epistasis, effect = _interacts(row, config)
    # A pair that the screen alone has seen can be found without an interaction, but not with one.
    if not row["tested"] and (epistasis or not np.isfinite(effect)):
        return NOT_TESTED, "L0"
    measured = row["interventional_q"] < config.q_value  # NaN, no interventional data, compares false
    agrees = measured and np.sign(row["interventional_effect"]) == np.sign(effect)
    if epistasis and measured and not agrees:
        return CONFOUNDED, "L4b"
    if epistasis and agrees:
        return CAUSAL, "L4b"
    if epistasis and associated:
        return CONFOUNDED, "L2"
    if epistasis:
        level = "L4a" if _robust(row) else "L3"
        return (CAUSAL, level) if row["mediated_fraction"] >= config.mediated_floor else (HIDDEN, level)
    if attention and associated:
        return CONFOUNDED, "L1"
    if attention:
        return ATTENTION_ONLY, "L1"
    return NOT_SUPPORTED, "L2"


def _interacts(row: Mapping[Hashable, Any], config: InteractionsConfig) -> tuple[bool, float]:
    """Whether there is an epistasis that counts, and its size, on the scale that the verdict rests on."""
    names = _LATENT if row["scale"] == "latent" else _READOUT
    effect, q_value, p_value, supporting, minimum = (row[name] for name in names)
    return bool(
        q_value < config.q_value
        and abs(effect) > minimum
        and p_value < config.q_value
        and supporting >= math.ceil(config.support * row["n_replicates"])
    ), effect


def _kept(row: Mapping[Hashable, Any], environment: str) -> bool | None:
    """Whether half of the epistasis is left in an environment; None if it was not measured there."""
    if not np.isfinite(row[environment]):
        return None
    return bool(row[environment] * np.sign(row["epistasis_effect"]) >= _KEPT * abs(row["epistasis_effect"]))


def _robust(row: Mapping[Hashable, Any]) -> bool:
    """Whether the epistasis is left in all balanced environments that there are, and there is one."""
    kept = [_kept(row, name) for name in ("balanced_epistasis", "gc_balanced_epistasis")]
    return any(kept) and False not in kept and row["sign_stable"] != "no"


_READOUT = ("epistasis_effect", "epistasis_q", "permutation_p", "seeds_supporting", "minimum_effect")
_LATENT = (
    "epistasis_latent", "epistasis_latent_q", "epistasis_latent_permutation_p", "epistasis_latent_supporting",
    "epistasis_latent_minimum",
)  # fmt: skip


def _agrees(row: Mapping[Hashable, Any]) -> str:
    """Whether measured values show an interaction of the sign that the model's has."""
    low, high = row["interventional_ci_low"], row["interventional_ci_high"]
    if not np.isfinite(row["interventional_effect"]) or not np.isfinite(row["epistasis_effect"]):
        return "NA"
    return "yes" if (low if row["epistasis_effect"] > 0 else -high) > 0 else "no"


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
    if main_a <= 0 or main_b <= 0:
        return "masking"
    return "XOR" if abs(effect + main_a + main_b) < 0.25 * abs(effect) else "redundancy"


def _sentence(row: Mapping[Hashable, Any]) -> str:
    name = f"{row['tf_a']} x {row['tf_b']}: {row['verdict']}"
    if row["verdict"] == INSUFFICIENT:
        return f"{name} ({row['n_pairs']:.0f} sequences hold both, {row['n_replicates']:.0f} replicates)."
    if row["verdict"] == NOT_TESTED:
        return f"{name}."
    parts = [
        f"epistasis {row['epistasis_effect']:.2f} [{row['epistasis_ci_low']:.2f}, {row['epistasis_ci_high']:.2f}], "
        f"q = {row['epistasis_q']:.2g}, {row['seeds_supporting']:.0f}/{row['n_replicates']:.0f} replicates"
    ]
    if np.isfinite(row["mediated_fraction"]):
        parts.append(f"{100 * row['mediated_fraction']:.0f} % of it through the attention edge between them")
    if row["scale"] == "latent":
        parts.append(f"{row['epistasis_latent']:.2f} on the latent scale (q = {row['epistasis_latent_q']:.2g})")
    if row["spacing_q"] < _TOLD_Q:
        parts.append(f"largest at a distance of {row['spacing_peak']:.0f} bp")
    if row["orientation_q"] < _TOLD_Q:
        larger = (row["orientation_effect"] > 0) == (row["epistasis_effect"] > 0)
        parts.append(f"larger on {'the same strand' if larger else 'opposite strands'}")
    if np.isfinite(row["attention_effect"]):
        parts.append(f"co-attention {row['attention_effect']:+.1f} bits")
    if np.isfinite(row["cooccurrence_logodds"]):
        parts.append(f"co-occurrence log odds {row['cooccurrence_logodds']:+.1f}")
    if np.isfinite(row["balanced_epistasis"]):
        parts.append(f"{row['balanced_epistasis']:.2f} where motifs are balanced not to co-occur")
    if np.isfinite(row["gc_balanced_epistasis"]):
        parts.append(f"{row['gc_balanced_epistasis']:.2f} where GC is balanced")
    if np.isfinite(row["interventional_effect"]):
        agreement = "same" if np.sign(row["interventional_effect"]) == np.sign(row["epistasis_effect"]) else "opposite"
        parts.append(f"measured interaction of the {agreement} sign (q = {row['interventional_q']:.2g})")
    return f"{name} ({'; '.join(parts)})."
