"""Scores and calls on pairs of motifs by ways that others published, written anew from their descriptions.

All look at the same hits in the same held-out sequences, with the same trained model. A score
ranks pairs; a call is what the method itself names significant, where it does (else NaN).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import fisher_exact, mannwhitneyu, ttest_1samp

from bioattn import rng
from bioattn.causal.cooccurrence import gc_content, statistical_interaction
from bioattn.causal.nulls import benjamini_hochberg
from bioattn.data import alphabet
from bioattn.data.motif import log_odds
from bioattn.explain.attribution import input_x_gradient
from bioattn.explain.coattention import pair_attention
from bioattn.explain.hits import find_hits, pair_instances
from bioattn.explain.pairs import PairData
from bioattn.explain.predict import predict
from bioattn.explain.tracks import shuffled
from bioattn.models import SequenceModel

Codes = NDArray[np.uint8]
Floats = NDArray[np.float64]
#: SATORI's least attention of a pair, and the level of its test.
_SATORI_LEAST, _Q = 0.12, 0.05
#: Sequences per pair for ways that change sequences.
_INSTANCES = 50


class Looked(NamedTuple):
    """What every way gets.

    Attributes
    ----------
    model : SequenceModel
    data : PairData
        Held-out sequences, hits, and pairs of hits.
    target : ndarray, shape (N,)
        Of these sequences.
    everything, presence, targets : ndarray
        Codes, presence of motifs and targets of all sequences, for ways without a model.
    hit_p_value : float
    seed : int
    """

    model: SequenceModel
    data: PairData
    target: Floats
    everything: Codes
    targets: Floats
    hit_p_value: float
    seed: int

    @property
    def margin_bp(self) -> int:
        """How far beyond a site an edit of it may be felt."""
        return self.data.flank_bp + self.model.receptive_field_bp // 2


class Rated(NamedTuple):
    """Scores (P,) and calls (P,) of pairs, in the order of `all_pairs`; NaN where a way says nothing."""

    score: Floats
    called: Floats


Way = Callable[[Looked], Rated]


def all_pairs(n_motifs: int) -> list[tuple[int, int]]:
    """Pairs in the order of scores."""
    return [(a, b) for a in range(n_motifs) for b in range(a + 1, n_motifs)]


def _by_pair(looked: Looked, instances: pd.DataFrame) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Place of each pair of different motifs that occurs, and the rows of its instances."""
    place = {pair: i for i, pair in enumerate(all_pairs(looked.data.n_motifs))}
    rows = instances.reset_index(drop=True).groupby(["motif_a", "motif_b"]).indices
    for pair, index in rows.items():
        if pair in place:
            yield place[pair], np.asarray(index, dtype=np.int64)


def _empty(looked: Looked) -> Floats:
    return np.full(len(all_pairs(looked.data.n_motifs)), np.nan)


# ---------------------------------------------------------------------- attention


def satori(looked: Looked, *, background: str) -> Rated:
    """SATORI: largest attention over heads and directions, against a background by Mann-Whitney, BH below 0.05.

    Foreground are sequences with a target above the median. Pairs below 0.12 are left out
    before the adjustment, and pairs that the background lacks have zeros there, as in the authors' code.

    Parameters
    ----------
    background : {"shuffled", "low"}
        Shuffles of the foreground, or sequences with a target below the median.

    Source: Ullah & Ben-Hur 2021; process_attention.py of fahadahaf/satori_v2.
    """
    data, high = looked.data, looked.target > np.median(looked.target)
    instances, values = data.instances, _largest(looked.model, data.codes, data.hits, data.instances)
    front = high[instances["sequence"].to_numpy()]
    if background == "shuffled":
        codes = shuffled(data.codes[high], looked.seed, "bench", "satori")
        hits = find_hits(codes, data.motifs, p_value=looked.hit_p_value)
        behind = pair_instances(hits, margin_bp=looked.margin_bp, token_bp=looked.model.token_bp)
        values_behind = _largest(looked.model, codes, hits, behind)
    else:
        behind, values_behind = instances[~front], values[~front]
    instances, values = instances[front], values[front]
    score, p_value, called = _empty(looked), _empty(looked), np.zeros(len(_empty(looked)))
    rows_behind = dict(_by_pair(looked, behind))
    for i, rows in _by_pair(looked, instances):
        mine = values[rows]
        other = values_behind[rows_behind[i]] if i in rows_behind else np.zeros(len(mine))
        test = mannwhitneyu(mine, other, alternative="greater")
        score[i] = -np.log10(max(test.pvalue, 1e-300))
        if mine.max() >= _SATORI_LEAST:
            p_value[i] = test.pvalue
    called[benjamini_hochberg(p_value) < _Q] = 1  # NaN compares false
    return Rated(score, called)


def _largest(model: SequenceModel, codes: Codes, hits: pd.DataFrame, instances: pd.DataFrame) -> Floats:
    """Largest attention (P,) over heads, layers and directions."""
    if not len(instances):
        return np.zeros(0)
    return pair_attention(model, codes, hits, instances).max(axis=(1, 2)).astype(np.float64)


def mean_attention(looked: Looked) -> Rated:
    """Mean over sequences of the largest attention between the sites: what one reads off a heat map."""
    values = _largest(looked.model, looked.data.codes, looked.data.hits, looked.data.instances)
    score = _empty(looked)
    for i, rows in _by_pair(looked, looked.data.instances):
        score[i] = values[rows].mean()
    return Rated(score, _empty(looked))


def tiana(looked: Looked) -> Rated:
    """TIANA: attribution of attention (entry times gradient) in sequences above the median less those below; a rank.

    Source: Li et al. 2023, from its description; gradients stand for integrated gradients.
    """
    data, high = looked.data, looked.target > np.median(looked.target)
    entries = pair_attention(looked.model, data.codes, data.hits, data.instances, flavour="attr")
    values = np.abs(entries).max(axis=(1, 2)).astype(np.float64)
    front = high[data.instances["sequence"].to_numpy()]
    score = _empty(looked)
    for i, rows in _by_pair(looked, data.instances):
        ahead, behind = (values[rows[front[rows] == side]] for side in (True, False))
        score[i] = (ahead.mean() if len(ahead) else 0.0) - (behind.mean() if len(behind) else 0.0)
    return Rated(score, _empty(looked))


# ------------------------------------------------------------------ interventions


def dfim(looked: Looked) -> Rated:
    """DFIM: how much the attribution of one site changes when the other is shuffled; the larger of both ways; a rank.

    Source: Greenside et al. 2018, from its description; gradients times input stand for DeepLIFT.
    """
    data, model = looked.data, looked.model
    score = _empty(looked)
    for i, rows in _by_pair(looked, data.instances):
        some = data.instances.iloc[rows[:_INSTANCES]]
        codes = data.codes[some["sequence"].to_numpy()]
        before = _contributions(model, codes)
        sides = [data.hits.loc[some[c], ["start", "end"]].to_numpy() for c in ("hit_a", "hit_b")]
        changes = []
        for source, other in ((0, 1), (1, 0)):
            edited = _shuffled_sites(codes, sides[source], rng.stream(looked.seed, "bench", "dfim", i, source))
            difference = np.abs(_contributions(model, edited) - before)
            changes.append(np.mean([row[s:e].sum() for row, (s, e) in zip(difference, sides[other], strict=True)]))
        score[i] = max(changes)
    return Rated(score, _empty(looked))


def _contributions(model: SequenceModel, codes: Codes) -> NDArray[np.float32]:
    return np.nan_to_num(input_x_gradient(model, codes) * alphabet.one_hot(codes)).sum(1)


def pairwise_ablation(looked: Looked) -> Rated:
    """Pairwise ablation as with tangermeme: sites shuffled alone and together, mean double difference, t-test, BH.

    Shuffles are not scanned for what they leave, and sequences count as independent.
    """
    return _double_difference(looked, "ablation", lambda codes, sites, motif, draw: _shuffled_sites(codes, sites, draw))


def mutagenesis(looked: Looked) -> Rated:
    """Epistasis by substitutions: the most informative base of a site becomes its least likely letter; t-test, BH."""
    pwms = [log_odds(motif.ppm) for motif in looked.data.motifs]

    def substitute(codes: Codes, sites: NDArray[np.int64], motif: int, draw: np.random.Generator) -> Codes:
        pwm = pwms[motif]
        column = int((pwm.max(0) - pwm.min(0)).argmax())
        worst = int(pwm[:, column].argmin())
        edited = codes.copy()
        for row, (start, end) in enumerate(sites):
            forward, reverse = start + column, end - 1 - column
            # The strand on which the letter fits better.
            fits = pwm[codes[row, forward] % 4, column] >= pwm[3 - codes[row, reverse] % 4, column]
            edited[row, forward if fits else reverse] = worst if fits else 3 - worst
        return edited

    return _double_difference(looked, "substitutions", substitute)


Edit = Callable[[Codes, NDArray[np.int64], int, np.random.Generator], Codes]


def _double_difference(looked: Looked, name: str, edit: Edit) -> Rated:
    data = looked.data
    score, p_value = _empty(looked), _empty(looked)
    pairs = all_pairs(data.n_motifs)
    for i, rows in _by_pair(looked, data.instances):
        some = data.instances.iloc[rows[:_INSTANCES]]
        codes = data.codes[some["sequence"].to_numpy()]
        draw = rng.stream(looked.seed, "bench", name, i)
        sides = [data.hits.loc[some[c], ["start", "end"]].to_numpy().astype(np.int64) for c in ("hit_a", "hit_b")]
        without = [edit(codes, sites, motif, draw) for sites, motif in zip(sides, pairs[i], strict=True)]
        neither = np.where(without[1] != codes, without[1], without[0])
        y = [predict(looked.model, each)[:, 0].astype(np.float64) for each in (codes, *without, neither)]
        epistasis = y[0] - y[1] - y[2] + y[3]
        score[i] = abs(epistasis.mean())
        if len(epistasis) > 1 and epistasis.std() > 0:
            p_value[i] = ttest_1samp(epistasis, 0).pvalue
    return Rated(score, _called(p_value))


def _shuffled_sites(codes: Codes, sites: NDArray[np.int64], draw: np.random.Generator) -> Codes:
    """Sequences with the letters of one interval each in random order."""
    edited = codes.copy()
    for row, (start, end) in zip(edited, sites, strict=True):
        row[start:end] = draw.permutation(row[start:end])
    return edited


# ------------------------------------------------------------------ without a model


def cooccurrence_odds(looked: Looked) -> Rated:
    """Co-occurrence as in TF-COMB: log odds of both motifs in sequences above the median of the target, Fisher, BH."""
    presence = looked.data.presence[looked.targets > np.median(looked.targets)]
    score, p_value = _empty(looked), _empty(looked)
    for i, (a, b) in enumerate(all_pairs(looked.data.n_motifs)):
        table = np.array([[(presence[:, a] == x) & (presence[:, b] == y) for y in (1, 0)] for x in (1, 0)]).sum(-1)
        odds = np.log((table[0, 0] + 0.5) * (table[1, 1] + 0.5) / ((table[0, 1] + 0.5) * (table[1, 0] + 0.5)))
        score[i], p_value[i] = abs(odds), fisher_exact(table).pvalue
    return Rated(score, _called(p_value))


def regression(looked: Looked) -> Rated:
    """Least squares of the target on all motifs, GC and one product at a time: size and test of the product, BH."""
    gc = gc_content(looked.everything)
    table = statistical_interaction(looked.data.presence, gc[:, None], looked.targets)
    score = table["stat_interaction"].abs().to_numpy(np.float64)
    return Rated(score, (table["stat_interaction_q"].to_numpy() < _Q).astype(np.float64))


def _called(p_value: Floats) -> Floats:
    """1 where the adjusted p-value is below 0.05, else 0."""
    return (benjamini_hochberg(p_value) < _Q).astype(np.float64)


#: Ways by name; those that need a model, and those that do not.
WITH_MODEL: dict[str, Way] = {
    "SATORI, shuffled background": lambda it: satori(it, background="shuffled"),
    "SATORI, low background": lambda it: satori(it, background="low"),
    "attention, mean": mean_attention,
    "TIANA": tiana,
    "DFIM": dfim,
    "pairwise ablation": pairwise_ablation,
    "substitutions": mutagenesis,
}
WITHOUT_MODEL: dict[str, Way] = {"co-occurrence": cooccurrence_odds, "regression": regression}
