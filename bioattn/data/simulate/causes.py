"""Which motifs are present: the causes of presence, in every regime, and the probabilities that follow."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bioattn import rng
from bioattn.config import SimulateConfig
from bioattn.data.simulate.classes import Pair

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Causes(NamedTuple):
    """Everything that is drawn before a letter is.

    Attributes
    ----------
    gc : ndarray, (N,)
        GC content of the background.
    hidden : ndarray, bool, (N, H)
        The hidden cause of each HIDDEN pair.
    randomised : ndarray, bool, (N,)
        Sequences whose motifs are independent of all causes.
    presence : ndarray, bool, (N, M)
    noise : ndarray, (N,)
        What is added to the readout.
    crowded : float
        Share of sequences that had more motifs than slots and lost some.
    """

    gc: Floats
    hidden: Bools
    randomised: Bools
    presence: Bools
    noise: Floats
    crowded: float


def hidden_pairs(pairs: list[Pair]) -> list[Pair]:
    """Pairs with a hidden cause, in the order of the columns of `Causes.hidden`."""
    return [pair for pair in pairs if pair.kind == "HIDDEN"]


def randomised_share(config: SimulateConfig) -> float:
    """Probability that a sequence is randomised."""
    return {"randomised": 1.0, "mixed": config.randomised_fraction}.get(config.regime, 0.0)


# ------------------------------------------------------------------------ drawing


def draw_causes(config: SimulateConfig, pairs: list[Pair], *, seed: int) -> Causes:
    """Causes, presence and noise of each sequence.

    One seed draws the same causes and noise in every regime.
    """
    # The order of these draws is fixed: it makes the sequences of a seed.
    draw = rng.stream(seed, "simulate", "causes")
    n, n_motifs = config.n_sequences, 2 * len(pairs)
    gc = draw.beta(config.gc_shape, config.gc_shape, n)
    causes: dict[int, Bools] = {}
    for kind, rate in (("hidden", config.hidden_rate), ("common", config.common_rate)):
        for k, pair in enumerate(pairs):
            if pair.grammar.presence == kind:
                causes[k] = draw.random(n) < rate
    uniform = draw.random((n, n_motifs))
    randomised = rng.stream(seed, "simulate", "mix").random(n) < randomised_share(config)
    presence = _presence(config, pairs, uniform, gc, causes, randomised)
    n_slots = config.length // config.slot_bp
    kept = presence & _fits(presence, n_slots, draw)
    noise = config.noise_sd * draw.standard_normal(n)
    hidden = [causes[k] for k, pair in enumerate(pairs) if pair.kind == "HIDDEN"]
    columns = np.column_stack(hidden) if hidden else np.zeros((n, 0), dtype=bool)
    return Causes(gc, columns, randomised, kept, noise, float((presence.sum(1) > n_slots).mean()))


def _presence(
    config: SimulateConfig, pairs: list[Pair], uniform: Floats, gc: Floats, causes: dict[int, Bools], randomised: Bools
) -> Bools:
    """Presence (N, M): one uniform number a motif, below its probability given its causes or else its rate."""
    rates = marginal_rates(config, pairs)
    presence = np.zeros(uniform.shape, dtype=bool)

    def place(motif: int, probability: float | Floats) -> None:
        presence[:, motif] = uniform[:, motif] < np.where(randomised, rates[motif], probability)

    for k, pair in enumerate(pairs):
        first, second = _given_causes(config, pair, gc, causes.get(k))
        place(pair.first, first)
        if pair.grammar.presence == "chain":
            second = np.where(presence[:, pair.first], *config.chain_presence)
        place(pair.second, second)
    return presence


def _given_causes(
    config: SimulateConfig, pair: Pair, gc: Floats, cause: Bools | None
) -> tuple[float | Floats, float | Floats]:
    """Presence probability of both motifs of a pair given its causes; a chain's second is left to the first."""
    kind = pair.grammar.presence
    if kind == "gc":
        return (_given_gc(config, gc),) * 2
    if cause is not None:
        return (np.where(cause, *(config.hidden_presence if kind == "hidden" else config.common_presence)),) * 2
    rate = config.syntax_rate if kind == "syntax" else config.base_rate
    return rate, 0.0 if kind in ("chain", "look-alike") else rate


def _fits(presence: Bools, n_slots: int, draw: np.random.Generator) -> Bools:
    """Mask that drops motifs at random from sequences with more motifs than slots."""
    rank = np.argsort(np.argsort(np.where(presence, draw.random(presence.shape), 2.0), axis=1), axis=1)
    return rank < n_slots


# ------------------------------------------------------------------ probabilities


def _given_gc(config: SimulateConfig, gc: Floats) -> Floats:
    return 1 / (1 + np.exp(-config.gc_slope * (gc - config.gc_middle)))


def independent(first: Floats, second: Floats) -> Floats:
    """Probabilities (..., 2, 2) of the four cells of two independent motifs, present with the given ones (...)."""
    a, b = (np.stack([1 - p, p], axis=-1) for p in (np.asarray(first), np.asarray(second)))
    return a[..., :, None] * b[..., None, :]


def joint(config: SimulateConfig, pair: Pair, gc: Floats) -> Floats:
    """Observational probability of (hidden cause, first motif, second motif) given GC: shape (U, G, 2, 2).

    U is 2 for a HIDDEN pair and else 1; G is the number of values of `gc` for a
    GC pair and else 1.
    """
    kind = pair.grammar.presence
    if kind == "gc":
        p = _given_gc(config, gc)
        return independent(p, p)[None]
    if kind == "hidden":
        present, absent = (np.array([p]) for p in config.hidden_presence)
        causes = ((1 - config.hidden_rate, absent), (config.hidden_rate, present))
        return np.stack([weight * independent(p, p) for weight, p in causes])
    if kind == "common":
        present, absent = (np.array([p]) for p in config.common_presence)
        rate = config.common_rate
        return (rate * independent(present, present) + (1 - rate) * independent(absent, absent))[None]
    rate = config.syntax_rate if kind == "syntax" else config.base_rate
    if kind == "chain":
        follows = np.array(config.chain_presence[::-1])
        return (np.array([1 - rate, rate])[:, None] * np.stack([1 - follows, follows], axis=-1))[None, None]
    other = 0.0 if kind == "look-alike" else rate
    return independent(np.array([rate]), np.array([other]))[None]


def gc_grid(config: SimulateConfig, n: int = 1000) -> tuple[Floats, Floats]:
    """Values of GC and their probabilities, to average over."""
    grid = (np.arange(n) + 0.5) / n
    weight = (grid * (1 - grid)) ** (config.gc_shape - 1)
    return grid, weight / weight.sum()


def marginal_rates(config: SimulateConfig, pairs: list[Pair]) -> Floats:
    """Presence rate (M,) of each motif, all its causes averaged out."""
    grid, weight = gc_grid(config)
    rates = np.empty(2 * len(pairs))
    for pair in pairs:
        cells = np.average(_spread(joint(config, pair, grid).sum(0), len(grid)), axis=0, weights=weight)
        rates[pair.first], rates[pair.second] = cells[1].sum(), cells[:, 1].sum()
    return rates


def _spread(table: Floats, n: int) -> Floats:
    return np.broadcast_to(table, (n, *table.shape[1:]))


def pair_probabilities(config: SimulateConfig, pairs: list[Pair]) -> dict[tuple[int, int], Floats]:
    """Probability (2, 2) of presence of any two motifs a < b in the regime of the run."""
    grid, weight = gc_grid(config)
    rates, share = marginal_rates(config, pairs), randomised_share(config)
    tables = [_spread(joint(config, pair, grid).sum(0), len(grid)) for pair in pairs]
    present = np.empty((2 * len(pairs), len(grid)))
    for pair, table in zip(pairs, tables, strict=True):
        present[pair.first], present[pair.second] = table[:, 1].sum(-1), table[:, :, 1].sum(-1)
    found = {}
    for a in range(len(rates)):
        for b in range(a + 1, len(rates)):
            observed = independent(present[a], present[b])
            for pair, table in zip(pairs, tables, strict=True):
                if (pair.first, pair.second) == (a, b):
                    observed = table
                elif (pair.second, pair.first) == (a, b):
                    observed = table.transpose(0, 2, 1)
            cells = np.average(observed, axis=0, weights=weight)
            found[a, b] = (1 - share) * cells + share * independent(rates[a], rates[b])
    return found


def crowding(config: SimulateConfig, pairs: list[Pair]) -> float:
    """Probability that a sequence has more motifs than slots."""
    grid, weight = gc_grid(config, 100)
    counts = []
    for pair in pairs:
        table = _spread(joint(config, pair, grid).sum(0), len(grid))
        counts.append(np.stack([table[:, 0, 0], table[:, 0, 1] + table[:, 1, 0], table[:, 1, 1]], axis=-1))
    observed = np.average(_count_distribution(counts), axis=0, weights=weight)
    rates = marginal_rates(config, pairs)
    randomised = _count_distribution([np.array([[1 - rate, rate]]) for rate in rates])[0]
    share = randomised_share(config)
    return float(((1 - share) * observed + share * randomised)[config.length // config.slot_bp + 1 :].sum())


def _count_distribution(parts: list[Floats]) -> Floats:
    """Distribution (G, total + 1) of the sum of independent counts, each with its distribution (G, k)."""
    total = np.ones((len(parts[0]), 1))
    for part in parts:
        longer = np.zeros((len(total), total.shape[1] + part.shape[1] - 1))
        for i in range(part.shape[1]):
            longer[:, i : i + total.shape[1]] += part[:, i : i + 1] * total
        total = longer
    return total
