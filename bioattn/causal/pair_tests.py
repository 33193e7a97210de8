"""What a run's settings say about its pairs, done in one model: for the steps of the workflow and the benchmark."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn.causal.knock_in_statistics import screened
from bioattn.causal.marginalize import KnockIn, backgrounds_of, lowest
from bioattn.causal.motif_ablation import choose_instances, knock_out
from bioattn.causal.sites import drawn_sites
from bioattn.causal.syntax import Syntax
from bioattn.config import RunConfig
from bioattn.errors import ConfigError
from bioattn.explain.coattention import (
    FLAVOURS,
    PAIR_FLAVOUR,
    CoAttention,
    candidate_table,
    pair_attention,
    pair_states,
)
from bioattn.explain.coattention import coattention as centred
from bioattn.explain.pairs import PairData, choose_pairs
from bioattn.models import SequenceModel

Pair = tuple[int, int]


def measure_coattention(run: RunConfig, model: SequenceModel, data: PairData) -> CoAttention:
    """Co-attention of all pairs, with its null, and what it is in other flavours."""
    raw, *others = (
        pair_attention(model, data.codes, data.hits, data.instances, flavour=flavour, readout=run.task.readout)
        for flavour in FLAVOURS
    )
    flavours = dict(zip(map(str, FLAVOURS[1:]), others, strict=True))
    if model.has_pairs:
        flavours[PAIR_FLAVOUR] = pair_states(model, data.codes, data.hits, data.instances)
    return centred(
        raw,
        data.hits,
        data.instances,
        n_motifs=data.n_motifs,
        n_heads=model.n_heads,
        n_tokens=-(-data.codes.shape[1] // model.token_bp),
        token_bp=model.token_bp,
        permutations=run.interactions.permutations,
        seed=run.seed,
        flavours=flavours,
    )


def knock_in(run: RunConfig, model: SequenceModel, data: PairData, sequences: pd.DataFrame, *, n: int) -> KnockIn:
    """Motifs and decoys in `n` backgrounds.

    Raises
    ------
    ConfigError
        If the run names fixed sites.
    """
    if run.motifs.sites:
        raise ConfigError("motifs.sites are part of every sequence and are knocked out, not put into others")
    rules, readout = run.interactions, run.task.readout
    shuffle = rules.background_kind == "shuffled"
    backgrounds = backgrounds_of(
        data.codes if shuffle else _quiet(run, data, sequences),
        n=n,
        widest=max(motif.width for motif in data.motifs),
        model=model,
        seed=run.seed,
        shuffle=shuffle,
    )
    return KnockIn(model, backgrounds, data.motifs, _sites(run, data, n), readout=readout, seed=run.seed)


def screen_pairs(data: PairData, made: KnockIn) -> list[Pair]:
    """All pairs of motifs, of a motif with itself where these occur often enough to be judged, and with a decoy."""
    return [*itertools.combinations(range(data.n_motifs), 2), *data.homotypic, *made.decoy_pairs()]


def pairs_to_test(
    run: RunConfig, data: PairData, attention: Sequence[CoAttention], screens: Sequence[pd.DataFrame]
) -> pd.DataFrame:
    """All pairs with what attention says, which of them are candidates, and which are tested at full depth.

    Tested are candidates, pairs with half the epistasis that counts in the screen or some co-attention, and
    a random sample of the others.
    """
    rules = run.interactions
    table = candidate_table(attention, floor_bits=rules.attention_floor_bits, q_value=rules.q_value)
    # Of pairs of a motif with itself those that occur often enough: there is no end to what might stand twice.
    judged = [motif for motif, _ in data.homotypic]
    table = table[(table["motif_a"] != table["motif_b"]) | table["motif_a"].isin(judged)].reset_index(drop=True)
    promising: NDArray[np.bool_] | None = None
    if screens:
        table = table.merge(screened(screens, n_motifs=data.n_motifs, config=rules), how="left")
        shows = table["screen_epistasis"].abs() > table.pop("minimum_effect") / 2
        promising = (shows | (table["attention_effect_bits"] >= rules.screen_floor_bits)).to_numpy()
    return choose_pairs(table, data, n_noncandidates=rules.n_noncandidates, seed=run.seed, promising=promising)


def tested(pairs: pd.DataFrame) -> list[Pair]:
    """The pairs that are tested at full depth."""
    return list(pairs.loc[pairs["tested"], ["motif_a", "motif_b"]].itertuples(index=False, name=None))


def syntax(run: RunConfig, model: SequenceModel, data: PairData, sequences: pd.DataFrame) -> Syntax:
    """Motifs at all distances of each other."""
    rules = run.interactions
    shuffle = rules.background_kind == "shuffled"
    return Syntax(
        model,
        data.codes if shuffle else _quiet(run, data, sequences),
        _sites(run, data, rules.syntax_backgrounds),
        step_bp=rules.spacing_step_bp,
        readout=run.task.readout,
        seed=run.seed,
        shuffle=shuffle,
    )


def knock_outs(
    run: RunConfig,
    model: SequenceModel,
    data: PairData,
    pairs: pd.DataFrame,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Knock-outs of the tested pairs in real sequences; `progress` is called with draws done and to do."""
    rules = run.interactions
    instances = choose_instances(data.instances, set(tested(pairs)), most=rules.instances_per_pair, seed=run.seed)
    return knock_out(
        model,
        data.codes,
        data.hits,
        instances,
        data.pwms,
        occupied=data.occupied,
        flank_bp=data.flank_bp,
        draws=rules.draws,
        readout=run.task.readout,
        seed=run.seed,
        progress=progress,
    )


def _sites(run: RunConfig, data: PairData, n: int) -> list[NDArray[np.uint8]]:
    """Sites of each motif for `n` backgrounds."""
    p_value = run.interactions.hit_p_value
    return drawn_sites(data.codes, data.best_hits, data.motifs, n=n, hit_p_value=p_value, seed=run.seed)


def _quiet(run: RunConfig, data: PairData, sequences: pd.DataFrame) -> NDArray[np.uint8]:
    """The held-out sequences with the lowest targets."""
    target = sequences[run.task.targets[run.task.readout]].to_numpy(dtype=float)
    return lowest(data.codes, target[data.rows])
