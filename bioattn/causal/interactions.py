"""Evidence on every pair of motifs, brought together, and the verdict that follows."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn.causal.cooccurrence import (
    cooccurrence,
    gc_association,
    gc_content,
    site_interaction,
    statistical_interaction,
)
from bioattn.causal.decide import decide
from bioattn.causal.environments import environment_statistics
from bioattn.causal.epistasis import instance_effects, minimum_effect, pair_statistics, readout_spread
from bioattn.causal.knock_in_statistics import knock_in_statistics
from bioattn.causal.measured import COLUMNS as EVIDENCE
from bioattn.causal.measured import measured_interactions
from bioattn.causal.motif_effects import COLUMNS as MOTIF_COLUMNS
from bioattn.causal.motif_effects import motif_effects
from bioattn.causal.nulls import benjamini_hochberg, benjamini_yekutieli, mean_interval
from bioattn.causal.pair_heads import carrying_heads
from bioattn.causal.sensitivity import sensitivity
from bioattn.causal.syntax import syntax_statistics
from bioattn.config import RunConfig
from bioattn.data import alphabet
from bioattn.errors import BioattnWarning, DataError
from bioattn.explain.coattention import CoAttention, strongest
from bioattn.explain.hits import find_hits
from bioattn.explain.pairs import PairData
from bioattn.io.measured import Measured

_PAIR = ["motif_a", "motif_b"]
#: Effects of two designs agree if neither is more than this many times the other.
_AGREE = float(np.e)


@dataclass(frozen=True)
class Interventions:
    """What was measured in the replicate models: a table for each, of the same instances, backgrounds and pairs.

    Attributes
    ----------
    knockouts : sequence of DataFrame
        `bioattn.causal.motif_ablation.knock_out`.
    screens, knock_ins : sequence of DataFrame
        `bioattn.causal.marginalize.KnockIn.pairs`: of all pairs in few backgrounds, and of the
        tested ones in many, both with pairs of decoys. Empty for fixed sites.
    syntaxes : sequence of DataFrame
        `bioattn.causal.syntax.Syntax.pairs` of the tested pairs. Empty for fixed sites.
    environments : mapping of str to sequence of DataFrame
        Knock-ins of the tested pairs in models that were trained in other environments.
    """

    knockouts: Sequence[pd.DataFrame]
    screens: Sequence[pd.DataFrame] = ()
    knock_ins: Sequence[pd.DataFrame] = ()
    syntaxes: Sequence[pd.DataFrame] = ()
    environments: Mapping[str, Sequence[pd.DataFrame]] = field(default_factory=dict)


def interactions(
    run: RunConfig,
    sequences: pd.DataFrame,
    data: PairData,
    pairs: pd.DataFrame,
    attention: Sequence[CoAttention],
    interventions: Interventions,
    *,
    measured: Measured | None = None,
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
    interventions : Interventions
    measured : Measured, optional
        Of a designed or randomised library; without it the run's own data are that, if its settings say so.

    Returns
    -------
    DataFrame
        Columns as in `bioattn.causal.decide.COLUMNS`.

    Raises
    ------
    DataError
        If no measured sequence holds two of the motifs.
    """
    knockouts = interventions.knockouts
    needed = run.interactions.min_replicates
    if len(knockouts) < needed:
        warnings.warn(
            f"pairs are judged over replicates, found {len(knockouts)} of at least {needed}: every verdict is "
            "'insufficient data'; name more seeds in train.seeds and run again, finished models are kept",
            BioattnWarning,
            stacklevel=2,
        )
    table = pairs.merge(_effects(run, data, interventions), how="left", on=_PAIR)
    table["epistasis_q"] = benjamini_hochberg(table["epistasis_p"])
    table["epistasis_q_by"] = benjamini_yekutieli(table["epistasis_p"])
    table["edge_knockout_q"] = benjamini_hochberg(table["edge_knockout_p"])
    if "head_p" in table:
        table["head_q"] = benjamini_hochberg(table["head_p"])
    clean = pd.concat(list(knockouts)).groupby(_PAIR)["clean"].mean().rename("clean_fraction").reset_index()
    codes = alphabet.encode_batch(sequences["sequence"].tolist())
    gc, length = gc_content(codes), (codes != alphabet.PAD).sum(1)
    target = sequences[run.task.targets[run.task.readout]].to_numpy(dtype=float)
    in_data = [
        cooccurrence(data.presence, gc, data.twice),
        gc_association(data.presence, gc),
        statistical_interaction(data.presence, np.column_stack([gc, length]), target, data.twice),
    ]
    for more in (clean, *in_data, _in_the_world(run, data, codes, target, measured)):
        table = table.merge(more, how="left", on=_PAIR)
    table["sensitivity_w"] = sensitivity(table, data.presence)
    if interventions.syntaxes:
        syntax = syntax_statistics(interventions.syntaxes, minimum=float(table["minimum_effect"].max()))
        table = table.merge(syntax, how="left", on=_PAIR)
    if interventions.environments:
        tested = _of_pairs(interventions.knock_ins, table.loc[table["tested"], _PAIR])
        table = table.merge(environment_statistics(tested, interventions.environments), how="left", on=_PAIR)
    breaches = run.model.bottleneck_breaches(data.geometry.receptive_field_bp)
    table["decomposition"] = f"not exact: {'; '.join(breaches)}" if breaches else "exact"
    table["n_replicates"] = len(knockouts)
    for name in ("n_instances", "n_backgrounds"):
        table[name] = table[name].fillna(0).astype(int)
    return decide(_named(table, data, attention), run.interactions)


def single_motifs(run: RunConfig, data: PairData, interventions: Interventions) -> pd.DataFrame:
    """What each motif does alone: from the knock-ins of the tested pairs, or for motifs in none of them, the screen.

    Returns
    -------
    DataFrame
        Columns as in `bioattn.causal.motif_effects.COLUMNS`, largest effects first.
    """
    options = {"n_motifs": data.n_motifs, "permutations": run.interactions.permutations, "seed": run.seed}
    deep, shallow = (motif_effects(cells, **options) for cells in (interventions.knock_ins, interventions.screens))
    table = pd.concat([deep, shallow[~shallow["motif"].isin(deep["motif"])]], ignore_index=True)
    table["q_value"] = benjamini_hochberg(table["p_value"].to_numpy(dtype=np.float64))
    index = table.pop("motif").to_numpy(dtype=np.int64)
    table = pd.concat([table, _described(data, index)], axis=1)
    order = table["effect"].abs().sort_values(ascending=False).index
    return table.loc[order, list(MOTIF_COLUMNS)].reset_index(drop=True)


def _effects(run: RunConfig, data: PairData, interventions: Interventions) -> pd.DataFrame:
    """Statistics of pairs: of knock-ins with what knock-outs say beside them, or of knock-outs alone."""
    config = run.interactions
    effects = [instance_effects(cells) for cells in interventions.knockouts]
    spread = readout_spread(interventions.knockouts)
    if interventions.knock_ins:
        found = knock_in_statistics(
            interventions.screens,
            interventions.knock_ins,
            n_motifs=data.n_motifs,
            spread=spread,
            config=config,
            seed=run.seed,
        )
        carrying = carrying_heads(
            interventions.knock_ins,
            minimum=float(found["minimum_effect"].iloc[0]),
            permutations=config.permutations,
            seed=run.seed,
        )
        found = found.merge(carrying, how="left", on=_PAIR)
        groups = pd.concat(effects).groupby(_PAIR)["epistasis"]
        sizes = effects[0].groupby(_PAIR).size().rename("n_instances")
        found = found.merge(pd.concat([groups.mean().rename("epistasis_ko"), sizes], axis=1), how="left", on=_PAIR)
        return found.assign(
            design="knock-in", design_agreement=_agreement(found["epistasis_effect"], found["epistasis_ko"])
        )
    minimum = config.minimum_effect
    minimum = minimum_effect(effects, controls=data.controls, spread=spread) if minimum is None else minimum
    found = pair_statistics(effects, minimum=minimum, permutations=config.permutations, seed=run.seed)
    found["epistasis_ko"] = found["epistasis_effect"]
    return found.assign(n_backgrounds=0, minimum_effect=minimum, scale="readout", design="knock-out")


def _of_pairs(replicates: Sequence[pd.DataFrame], pairs: pd.DataFrame) -> list[pd.DataFrame]:
    """Cells of these pairs alone, without those of decoys."""
    return [cells.merge(pairs, on=_PAIR) for cells in replicates]


def _agreement(knock_in: pd.Series, knock_out: pd.Series) -> list[str]:
    """Whether two designs give effects of the same sign and of sizes within a factor of e; "NA" without one."""
    words = []
    for one, other in zip(knock_in, knock_out, strict=True):
        if not (np.isfinite(one) and np.isfinite(other)):
            words.append("NA")
        else:
            ratio = one / other if other else np.inf
            words.append("yes" if 1 / _AGREE < ratio < _AGREE else "no")
    return words


def _in_the_world(
    run: RunConfig,
    data: PairData,
    codes: NDArray[np.uint8],
    target: NDArray[np.float64],
    measured: Measured | None,
) -> pd.DataFrame:
    """Interactions in measured values: of a library that was given, or of the run's data if they are interventional."""
    if run.motifs.sites:
        if not run.data.interventional:
            return pd.DataFrame(columns=[*_PAIR, *EVIDENCE], dtype=float)
        usable = np.isfinite(target)
        spans = [(site.start, site.end) for site in run.motifs.sites]
        found = site_interaction(codes[usable], spans, target[usable])
        return found.assign(interventional_source=f"regression on damage, n = {usable.sum()}")[[*_PAIR, *EVIDENCE]]
    backgrounds, least, source = None, 8, "data.interventional: the run's own sequences"
    if measured is not None and run.interactions.measured is not None:
        codes, target = alphabet.encode_batch(measured.sequences), measured.values
        least, source = run.interactions.measured.least_backgrounds, run.interactions.measured.path
        if measured.backgrounds is not None:
            backgrounds = np.array(measured.backgrounds, dtype=object)
    elif not run.data.interventional:
        return pd.DataFrame(columns=[*_PAIR, *EVIDENCE], dtype=float)
    usable = np.isfinite(target)
    codes, target = codes[usable], target[usable]
    hits = find_hits(codes, data.motifs, p_value=run.interactions.hit_p_value, copies=2)
    if not hits[hits["copy"] == 0].duplicated("sequence").any():
        raise DataError(
            f"{source}: none of {len(codes)} measured sequences holds two motifs at p <= "
            f"{run.interactions.hit_p_value:g}; check that table, motifs and interactions.hit_p_value"
        )
    return measured_interactions(
        codes, hits, target, n_motifs=data.n_motifs, backgrounds=backgrounds, least_backgrounds=least
    )


def _named(table: pd.DataFrame, data: PairData, attention: Sequence[CoAttention]) -> pd.DataFrame:
    """Table with motif names in place of indices, and which head reads which motif."""
    table = table.copy()
    a, b = table["motif_a"].to_numpy(), table["motif_b"].to_numpy()
    for flavour in attention[0].flavours:
        values = np.mean([strongest(each.flavours[flavour]) for each in attention], axis=0)
        table[f"attention_{flavour}_bits"] = values[a, b]
    low, high = mean_interval(np.stack([each.strongest for each in attention])[:, a, b])
    table["attention_ci_low"], table["attention_ci_high"] = low, high
    table["n_seqs"] = table["n_sequences"] + table["n_too_close"]
    effect = np.stack([each.effect for each in attention])
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
        about = _described(data, table[f"motif_{side}"].to_numpy())
        table = pd.concat([table, about.add_suffix(f"_{side}").set_index(table.index)], axis=1)
    return table.drop(columns=_PAIR).rename(
        columns={"attention_effect_bits": "attention_effect", "n_sequences": "n_pairs"}
    )


def _described(data: PairData, index: NDArray[np.int64]) -> pd.DataFrame:
    """Name (tf), motif_id, family, members and n_hits (held-out sequences with a hit) of motifs by their index."""
    n_hits = np.bincount(data.best_hits["motif"].to_numpy(dtype=np.int64), minlength=data.n_motifs)
    rows = [(data.motifs[i].name, data.motifs[i].motif_id, data.motifs[i].family, data.members[i]) for i in index]
    table = pd.DataFrame(rows, columns=["tf", "motif_id", "family", "members"])
    return table.assign(members=table["members"].map(", ".join), n_hits=n_hits[index])
