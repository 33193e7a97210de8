"""Promoters from a structural causal model: the truth about every motif and pair is known.

Motifs are placed into random background, and the readout follows one structural
equation in every regime. The classes of pairs are chosen so that correlation and
causation come apart:

========== ===================================================================
AND        both motifs together raise the readout; placed independently
INERT      the two motifs share a common cause, and do nothing
ADDITIVE   the two motifs share a common cause, and each adds its own effect
HIDDEN     a cause that is not in the sequence raises the readout and makes
           both motifs likely; the motifs do nothing
GC         motifs that are likely where GC is high; GC itself raises the readout
DECOY      motifs placed independently that do nothing
========== ===================================================================
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn import rng
from bioattn.config import SimulateConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif, sharpen
from bioattn.errors import ConfigError

#: Class of each consecutive pair of the run's motifs.
PAIR_CLASSES = ("AND", "INERT", "ADDITIVE", "HIDDEN", "GC", "DECOY")

#: Presence of a motif that has no cause.
_BASE_RATE = 1 / 3
#: Common cause of the INERT and ADDITIVE pairs: its rate, and presence with and without it.
_COMMON_RATE, _COMMON_PRESENCE = 0.35, (0.85, 0.06)
#: Background GC content ~ Beta(a, a): mean 0.5, standard deviation 0.12.
_GC_SHAPE = 8.0
#: GC pair: log odds of presence per unit of GC, and the GC at which presence is one half.
_GC_SLOPE, _GC_MIDDLE = 12.0, 0.55


@dataclass(frozen=True)
class Simulation:
    """Simulated promoters and the truth about them.

    Attributes
    ----------
    sequences : list of str
    table : DataFrame
        One row per sequence: name, y, and the hidden columns of the truth (`gc`,
        `hidden_cause`, `expected`, `expected_given_hidden`).
    presence : ndarray, bool, shape (N, M)
        Which motif was placed into which sequence.
    motifs, pairs : DataFrame
        Truth per motif and per unordered pair.
    ceiling : float
        Pearson r between y and its expectation given everything that is in the
        sequence: what a perfect reader of the sequence would reach.
    ceiling_given_hidden : float
        The same when the hidden cause is known too; no reader of the sequence can.
    """

    sequences: list[str]
    table: pd.DataFrame
    presence: NDArray[np.bool_]
    motifs: pd.DataFrame
    pairs: pd.DataFrame
    ceiling: float
    ceiling_given_hidden: float


def simulate(config: SimulateConfig, motifs: Sequence[Motif], *, seed: int) -> Simulation:
    """Promoters with known causes.

    Parameters
    ----------
    motifs : sequence of Motif
        12 motifs; consecutive pairs take the classes of `PAIR_CLASSES` in an
        order drawn from the seed, so that no class is tied to a motif.
    seed : int
        Run seed.

    Returns
    -------
    Simulation

    Raises
    ------
    ConfigError
        If the number of motifs is wrong, or a motif or all of them do not fit.
    """
    n_motifs = 2 * len(PAIR_CLASSES)
    n_slots = config.length // config.slot_bp
    if len(motifs) != n_motifs:
        raise ConfigError(
            f"the simulator needs {n_motifs} motifs (two of each class), got {len(motifs)}: see motifs.jaspar_ids"
        )
    widest = max(motifs, key=lambda m: m.width)
    if widest.width > config.slot_bp:
        raise ConfigError(
            f"data.simulate.slot_bp must be at least the widest motif ({widest.name}, {widest.width} bp), "
            f"got {config.slot_bp}"
        )
    order = rng.stream(seed, "simulate", "classes").permutation(n_motifs)
    members = {name: order[2 * i : 2 * i + 2] for i, name in enumerate(PAIR_CLASSES)}

    draw = rng.stream(seed, "simulate", "causes")
    gc = draw.beta(_GC_SHAPE, _GC_SHAPE, config.n_sequences)
    hidden = draw.random(config.n_sequences) < config.hidden_rate
    probability = _presence_probability(config, members, gc, hidden, draw)
    if config.regime == "randomised":  # the same marginal rates, no causes
        probability = np.broadcast_to(_marginal_rates(config, members), probability.shape)
    presence = draw.random(probability.shape) < probability
    presence &= _fits(presence, n_slots, draw)

    signal = _structural_equation(config, members, presence, gc)
    noise = config.noise_sd * draw.standard_normal(config.n_sequences)
    y = signal + config.hidden_effect * hidden + noise
    expected = signal + config.hidden_effect * _hidden_given_presence(config, members, presence)
    given_hidden = signal + config.hidden_effect * hidden

    sequences = _write_sequences(config, motifs, presence, gc, n_slots, rng.stream(seed, "simulate", "letters"))
    table = pd.DataFrame(
        {
            "name": [f"seq{i:06d}" for i in range(config.n_sequences)],
            "y": y,
            "gc": gc,
            "hidden_cause": hidden,
            "expected": expected,
            "expected_given_hidden": given_hidden,
        }
    )
    return Simulation(
        sequences,
        table,
        presence,
        _motif_truth(config, motifs, members, presence),
        _pair_truth(config, motifs, members, presence),
        float(np.corrcoef(expected, y)[0, 1]),
        float(np.corrcoef(given_hidden, y)[0, 1]),
    )


def _presence_probability(
    config: SimulateConfig,
    members: dict[str, NDArray[np.intp]],
    gc: NDArray[np.float64],
    hidden: NDArray[np.bool_],
    draw: np.random.Generator,
) -> NDArray[np.float64]:
    """Probability (N, M) of each motif given its causes."""
    probability = np.full((len(gc), 2 * len(members)), _BASE_RATE)
    for name in ("INERT", "ADDITIVE"):
        cause = draw.random(len(gc)) < _COMMON_RATE
        probability[:, members[name]] = np.where(cause, *_COMMON_PRESENCE)[:, None]
    probability[:, members["HIDDEN"]] = np.where(hidden, *config.hidden_presence)[:, None]
    probability[:, members["GC"]] = (1 / (1 + np.exp(-_GC_SLOPE * (gc - _GC_MIDDLE))))[:, None]
    return probability


def _marginal_rates(config: SimulateConfig, members: dict[str, NDArray[np.intp]]) -> NDArray[np.float64]:
    """Presence rate (M,) of each motif, its causes averaged out."""
    rates = np.full(2 * len(members), _BASE_RATE)
    common = _COMMON_RATE * _COMMON_PRESENCE[0] + (1 - _COMMON_RATE) * _COMMON_PRESENCE[1]
    rates[members["INERT"]] = rates[members["ADDITIVE"]] = common
    present, absent = config.hidden_presence
    rates[members["HIDDEN"]] = config.hidden_rate * present + (1 - config.hidden_rate) * absent
    grid = (np.arange(1000) + 0.5) / 1000
    weight = (grid * (1 - grid)) ** (_GC_SHAPE - 1)
    rates[members["GC"]] = np.average(1 / (1 + np.exp(-_GC_SLOPE * (grid - _GC_MIDDLE))), weights=weight)
    return rates


def _fits(presence: NDArray[np.bool_], n_slots: int, draw: np.random.Generator) -> NDArray[np.bool_]:
    """Mask that drops motifs at random from sequences with more motifs than slots."""
    rank = np.argsort(np.argsort(np.where(presence, draw.random(presence.shape), 2.0), axis=1), axis=1)
    return rank < n_slots


def _structural_equation(
    config: SimulateConfig, members: dict[str, NDArray[np.intp]], presence: NDArray[np.bool_], gc: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Effect (N,) of what is in the sequence."""
    both = presence[:, members["AND"]].all(1)
    additive = presence[:, members["ADDITIVE"]].sum(1)
    return config.and_effect * both + config.additive_effect * additive + config.gc_effect * (gc - 0.5)


def _hidden_given_presence(
    config: SimulateConfig, members: dict[str, NDArray[np.intp]], presence: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Probability (N,) of the hidden cause given the two motifs that it makes likely (Bayes)."""
    if config.regime == "randomised":
        return np.full(len(presence), config.hidden_rate)
    likelihood = []
    for rate in config.hidden_presence:
        z = presence[:, members["HIDDEN"]]
        likelihood.append(np.where(z, rate, 1 - rate).prod(1))
    with_cause, without = config.hidden_rate * likelihood[0], (1 - config.hidden_rate) * likelihood[1]
    return with_cause / (with_cause + without)


def _write_sequences(
    config: SimulateConfig,
    motifs: Sequence[Motif],
    presence: NDArray[np.bool_],
    gc: NDArray[np.float64],
    n_slots: int,
    draw: np.random.Generator,
) -> list[str]:
    """Sequences with a sampled site of each present motif in a slot of its own, on a random strand."""
    n = len(presence)
    is_gc = draw.random((n, config.length)) < gc[:, None]
    second = draw.random((n, config.length)) < 0.5
    codes = np.where(is_gc, np.where(second, 1, 2), np.where(second, 0, 3)).astype(np.uint8)
    slots = np.argsort(draw.random((n, n_slots)), axis=1)
    slot_of = np.cumsum(presence, axis=1) - 1
    for m, motif in enumerate(motifs):
        rows = np.flatnonzero(presence[:, m])
        cumulative = sharpen(motif.ppm, config.motif_sharpening).cumsum(0)
        site = (draw.random((len(rows), 1, motif.width)) > cumulative[None, :-1]).sum(1).astype(np.uint8)
        flip = draw.random(len(rows)) < 0.5
        site[flip] = alphabet.reverse_complement_codes(site[flip])
        slack = draw.integers(0, config.slot_bp - motif.width + 1, len(rows))
        start = slots[rows, slot_of[rows, m]] * config.slot_bp + slack
        codes[rows[:, None], start[:, None] + np.arange(motif.width)] = site
    return [alphabet.decode(row) for row in codes]


def _class_of(members: dict[str, NDArray[np.intp]], *indices: int) -> str:
    for name, pair in members.items():
        if set(indices) <= set(pair.tolist()):
            return name
    return "NULL"


def _motif_truth(
    config: SimulateConfig, motifs: Sequence[Motif], members: dict[str, NDArray[np.intp]], presence: NDArray[np.bool_]
) -> pd.DataFrame:
    """Class, rate and total causal effect E[y | do(present)] - E[y | do(absent)] of each motif."""
    rates = presence.mean(0)
    rows = []
    for m, motif in enumerate(motifs):
        name = _class_of(members, m)
        partner = next(i for i in members[name] if i != m)
        effect = {"AND": config.and_effect * rates[partner], "ADDITIVE": config.additive_effect}.get(name, 0.0)
        rows.append((motif.name, motif.motif_id, name, rates[m], effect))
    return pd.DataFrame(rows, columns=["motif", "motif_id", "class", "rate", "total_effect"])


def _pair_truth(
    config: SimulateConfig, motifs: Sequence[Motif], members: dict[str, NDArray[np.intp]], presence: NDArray[np.bool_]
) -> pd.DataFrame:
    """Class, structural interaction and co-occurrence log odds of each unordered pair."""
    rows = []
    for a, b in itertools.combinations(range(len(motifs)), 2):
        name = _class_of(members, a, b)
        interaction = config.and_effect if name == "AND" else 0.0
        cells = [np.sum((presence[:, a] == x) & (presence[:, b] == y)) + 0.5 for x in (1, 0) for y in (1, 0)]
        log_odds_ratio = float(np.log(cells[0] * cells[3] / (cells[1] * cells[2])))
        rows.append(
            (motifs[a].name, motifs[b].name, motifs[a].motif_id, motifs[b].motif_id, name, interaction, log_odds_ratio)
        )
    columns = ["motif_a", "motif_b", "motif_id_a", "motif_id_b", "class", "interaction", "cooccurrence_logodds"]
    return pd.DataFrame(rows, columns=columns)
