"""Evidence on every pair of motifs, brought together, and the verdict that follows."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn.causal.cooccurrence import cooccurrence, gc_content, site_interaction
from bioattn.causal.decide import decide
from bioattn.causal.epistasis import instance_effects, minimum_effect, pair_statistics
from bioattn.config import RunConfig
from bioattn.data import alphabet
from bioattn.explain.coattention import CoAttention
from bioattn.explain.pairs import PairData

_PAIR = ["motif_a", "motif_b"]


def interactions(
    run: RunConfig,
    sequences: pd.DataFrame,
    data: PairData,
    pairs: pd.DataFrame,
    attention: Sequence[CoAttention],
    knockouts: Sequence[pd.DataFrame],
) -> pd.DataFrame:
    """Table of all pairs with evidence at every level and a verdict.

    Parameters
    ----------
    sequences : DataFrame
        All sequences of the run with their targets.
    data : PairData
    pairs : DataFrame
        From `bioattn.explain.pairs.choose_pairs`.
    attention : sequence of CoAttention
        One for each replicate model.
    knockouts : sequence of DataFrame
        `bioattn.causal.motif_ablation.knock_out` of each replicate model, on the same instances.

    Returns
    -------
    DataFrame
        Columns as in `bioattn.causal.decide.COLUMNS`.
    """
    config = run.interactions
    effects = [instance_effects(cells) for cells in knockouts]
    minimum = (
        config.minimum_effect if config.minimum_effect is not None else minimum_effect(effects, controls=data.controls)
    )
    statistics = pair_statistics(effects, minimum=minimum, permutations=config.permutations, seed=run.seed)
    clean = pd.concat(list(knockouts)).groupby(_PAIR)["clean"].mean().rename("clean_fraction").reset_index()
    codes = alphabet.encode_batch(sequences["sequence"].tolist())
    table = pairs.merge(statistics, how="left", on=_PAIR).merge(clean, how="left", on=_PAIR)
    table = table.merge(cooccurrence(data.presence, gc_content(codes)), how="left", on=_PAIR)
    table = table.merge(_measured(run, sequences, codes), how="left", on=_PAIR)
    table["n_replicates"] = len(knockouts)
    table["minimum_effect"] = minimum
    table["n_instances"] = table["n_instances"].fillna(0).astype(int)
    return decide(_named(table, data, attention), config)


def _measured(run: RunConfig, sequences: pd.DataFrame, codes: NDArray[np.uint8]) -> pd.DataFrame:
    """Interactions in the measured values, if they come from a randomised library with fixed sites."""
    columns = ["interventional_effect", "interventional_ci_low", "interventional_ci_high", "interventional_q"]
    if not (run.data.interventional and run.motifs.sites):
        return pd.DataFrame(columns=[*_PAIR, *columns], dtype=float)
    spans = [(site.start, site.end) for site in run.motifs.sites]
    target = sequences[run.task.targets[run.task.readout]].to_numpy(dtype=float)
    usable = np.isfinite(target)
    return site_interaction(codes[usable], spans, target[usable])[[*_PAIR, *columns]]


def _named(table: pd.DataFrame, data: PairData, attention: Sequence[CoAttention]) -> pd.DataFrame:
    """Table with motif names in place of indices, and which head reads which motif."""
    table = table.copy()
    effect = np.stack([a.effect for a in attention])
    heads, directions = [], []
    for a, b in table[_PAIR].to_numpy():
        both = np.stack([effect[:, :, a, b], effect[:, :, b, a]], axis=-1)  # (R, C, direction)
        if not np.isfinite(both).all():
            heads.append("")
            directions.append("")
            continue
        best = both.max(axis=2).argmax(axis=1)
        heads.append(", ".join(attention[r].head_name(c) for r, c in enumerate(best)))
        a_reads_b = both[np.arange(len(both)), best].argmax(axis=1) == 0
        directions.append("a<-b" if a_reads_b.mean() > 0.5 else "b<-a")
    table["best_layer_head"], table["attention_direction"] = heads, directions
    for side in ("a", "b"):
        index = table[f"motif_{side}"].to_numpy()
        table[f"motif_id_{side}"] = [data.motifs[i].motif_id for i in index]
        table[f"motif_{side}"] = [data.motifs[i].name for i in index]
    return table
