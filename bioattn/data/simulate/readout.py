"""The structural equation, and what a perfect reader of the sequence expects of it."""

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bioattn.config import SaturationConfig, SimulateConfig, SpacingConfig
from bioattn.data.motif import Motif
from bioattn.data.simulate.causes import Bools, Floats, hidden_pairs, joint, marginal_rates, randomised_share
from bioattn.data.simulate.classes import Pair, partner_of

#: Below this a probability is taken as this, so that a cell that is impossible in observational data can be divided by.
_TINY = 1e-12


# ----------------------------------------------------------- the structural equation


def site_weights(pairs: list[Pair], centre: Floats, reverse: Bools, spacing: SpacingConfig) -> Floats:
    """What the rule of each pair says about its two sites, (N, P): NaN where one is missing, 1 without a rule."""
    weights = np.ones((len(centre), len(pairs)))
    for k, pair in enumerate(pairs):
        a, b = centre[:, pair.first], centre[:, pair.second]
        missing = np.isnan(a) | np.isnan(b)
        if pair.grammar.rule == "spacing":
            weights[:, k] = spacing_weight(np.abs(a - b), spacing)
        elif pair.grammar.rule == "orientation":
            weights[:, k] = reverse[:, pair.first] == reverse[:, pair.second]
        elif pair.grammar.rule == "order":
            weights[:, k] = a < b
        weights[missing, k] = np.nan
    return weights


def spacing_weight(distance: Floats, spacing: SpacingConfig) -> Floats:
    """Weight, 0 to 1, of a distance in bp between the centres of two sites."""
    if spacing.kind == "preferred":
        return np.exp(-((distance - spacing.preferred_bp) ** 2) / (2 * spacing.width_bp**2))
    near = (distance <= spacing.max_bp).astype(float)
    if spacing.kind == "helical":
        return near * (1 + np.cos(2 * np.pi * distance / spacing.period_bp)) / 2
    return near


def weight_distribution(config: SimulateConfig, pair: Pair, first: Motif, second: Motif) -> tuple[Floats, Floats]:
    """Values of the rule's weight and their exact probabilities, for two sites in random slots."""
    if pair.grammar.rule is None:
        return np.ones(1), np.ones(1)
    if pair.grammar.rule != "spacing":  # a coin decides the strand; the order of two slots is even by symmetry
        return np.array([0.0, 1.0]), np.array([0.5, 0.5])
    n_slots = config.length // config.slot_bp
    apart = np.arange(1, n_slots)
    slack = [config.slot_bp - motif.width + 1 for motif in (first, second)]
    shift = np.arange(slack[0])[:, None] - np.arange(slack[1]) + (first.width - second.width) / 2
    distance = np.abs(np.concatenate([apart, -apart])[:, None, None] * config.slot_bp + shift)
    chance = np.concatenate([n_slots - apart] * 2) / (n_slots * (n_slots - 1)) / shift.size
    values, which = np.unique(spacing_weight(distance, config.spacing), return_inverse=True)
    return values, np.bincount(which.ravel(), weights=np.repeat(chance, shift.size)).astype(np.float64)


def pair_term(pair: Pair, first: NDArray[np.generic], second: NDArray[np.generic], weight: Floats) -> Floats:
    """Effect of one pair on the readout, for presence and weight of any shape; the weight counts for both only."""
    form = pair.grammar
    together = np.where(np.logical_and(first, second), form.both * weight, 0.0)
    return pair.effect * (form.first * first.astype(float) + form.second * second.astype(float) + together)


def structural_equation(
    config: SimulateConfig, pairs: list[Pair], presence: Bools, weights: Floats, gc: Floats
) -> Floats:
    """Effect (N,) of what is in the sequence."""
    effect = np.zeros(len(presence))
    for k, pair in enumerate(pairs):
        effect = effect + pair_term(pair, presence[:, pair.first], presence[:, pair.second], weights[:, k])
    return effect + config.gc_effect * (gc - 0.5)


def saturate(latent: Floats, saturation: SaturationConfig) -> Floats:
    """Saturating readout of the latent one."""
    return saturation.maximum / (1 + np.exp(-saturation.slope * (latent - saturation.middle)))


# ------------------------------------------------------------------- the best reader


class Twinned(NamedTuple):
    """Two motifs set to all four combinations, and the share of records in which these two are."""

    first: int
    second: int
    share: float


def hidden_effects(pairs: list[Pair]) -> Floats:
    """What each combination of hidden causes adds to the readout (S,): the first cause changes slowest."""
    effects = [pair.effect for pair in hidden_pairs(pairs)]
    return np.array([np.dot(state, effects) for state in itertools.product([0.0, 1.0], repeat=len(effects))])


def hidden_posterior(
    config: SimulateConfig, pairs: list[Pair], presence: Bools, gc: Floats, twinned: list[Twinned]
) -> Floats:
    """Probability (N, S) of each combination of hidden causes given all that is in the sequence (Bayes).

    The reader does not know whether a sequence was randomised, nor whether and
    which two motifs were set, but weighs these by how well they explain the
    sequence. Sites and GC content count as seen. Sequences so crowded that a
    motif may have been dropped are taken as they are.
    """
    tables = [joint(config, pair, gc) for pair in pairs]
    seen = [_at(table, presence[:, p.first], presence[:, p.second]) for p, table in zip(pairs, tables, strict=True)]
    chance = [np.maximum(part.sum(0), _TINY) for part in seen]
    hidden = [k for k, pair in enumerate(pairs) if pair.kind == "HIDDEN"]
    natural = {k: seen[k] / chance[k] for k in hidden}
    prior = {k: tables[k].sum((2, 3)) for k in hidden}

    share = randomised_share(config)
    if share == 1:  # presence says nothing
        return _combine(prior, len(presence)).T
    rates = marginal_rates(config, pairs)
    everything = np.where(presence, rates, 1 - rates).prod(1) / np.prod(chance, axis=0)
    weight_natural = np.full(len(presence), 1 - share - sum(part.share for part in twinned))
    total = share * everything * _combine(prior, len(presence))
    for part in twinned:
        odds, changed = _set_by_us(pairs, tables, chance, presence, part)
        weight = part.share * odds / 4
        if not changed.keys() & natural.keys():
            weight_natural = weight_natural + weight
        else:
            replaced = {k: changed.get(k, value) for k, value in natural.items()}
            total = total + weight * _combine(replaced, len(presence))
    total = total + weight_natural * _combine(natural, len(presence))
    return (total / total.sum(0)).T


def _set_by_us(
    pairs: list[Pair], tables: list[Floats], chance: list[Floats], presence: Bools, part: Twinned
) -> tuple[Floats, dict[int, Floats]]:
    """If two motifs were set: how much less their presence needs explaining (N,), and what the rest says of causes.

    Returns the odds of the other motifs alone against all of them, and for each
    pair that was touched the distribution (U, N or 1) of its hidden cause.
    """
    odds, changed = np.ones(len(presence)), {}
    partners = partner_of(pairs)
    for motif, twin in ((part.first, part.second), (part.second, part.first)):
        k, other = partners[motif]
        if other == twin:  # nothing is left that tells about the cause of this pair
            return 1 / chance[k], {k: tables[k].sum((2, 3))}
        left = _at_one(tables[k].sum(2 if motif == pairs[k].first else 3), presence[:, other])
        known = np.maximum(left.sum(0), _TINY)
        odds, changed[k] = odds * known / chance[k], left / known
    return odds, changed


def _at(table: Floats, first: Bools, second: Bools) -> Floats:
    """Entries (U, N) of a table (U, G, 2, 2) at the presence of two motifs, where G is N or 1."""
    rows = np.arange(len(first)) if table.shape[1] > 1 else 0
    return table[:, rows, first.astype(int), second.astype(int)]


def _at_one(table: Floats, present: Bools) -> Floats:
    rows = np.arange(len(present)) if table.shape[1] > 1 else 0
    return table[:, rows, present.astype(int)]


def _combine(parts: dict[int, Floats], n: int) -> Floats:
    """Joint distribution (S, N) of independent binary causes, each (2, N or 1), in the order of `hidden_effects`."""
    combined = np.ones((1, n))
    for part in parts.values():
        combined = (combined[:, None] * part[None]).reshape(-1, n)
    return combined
