"""The simulation as a whole: from settings and motifs to sequences and the truth about them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn import rng
from bioattn.config import SimulateConfig
from bioattn.data.motif import Motif
from bioattn.data.simulate import truth
from bioattn.data.simulate.causes import Bools, Causes, Floats, draw_causes, hidden_pairs
from bioattn.data.simulate.check import check_number, check_pairs
from bioattn.data.simulate.classes import Pair, make_pairs
from bioattn.data.simulate.layout import draw_layout, geometry, write_sequences
from bioattn.data.simulate.readout import hidden_effects, hidden_posterior, saturate, site_weights, structural_equation
from bioattn.data.simulate.twins import Twins, draw_twins, twinned_shares


@dataclass(frozen=True)
class Simulation:
    """Simulated promoters and the truth about them.

    Attributes
    ----------
    sequences : list of str
        N of them; with twins, the sequences and then the four twins of each that has any.
    table : DataFrame
        One row per sequence: name, y, and the hidden columns of the truth (`gc`,
        `hidden_cause` with one further column for each further HIDDEN pair,
        `expected`, `expected_given_hidden`). With saturation the same of `y_sat`;
        mixed: `randomised`; twins: `unit`, `pair`, `cell`.
    presence : ndarray, bool, shape (N, M)
        Which motif was placed into which sequence.
    motifs, pairs : DataFrame
        Truth per motif and per unordered pair.
    ceiling : float
        Pearson r between y and its expectation given everything that is in the
        sequence, its sites and GC content: what a perfect reader would reach.
    ceiling_given_hidden : float
        The same when the hidden cause is known too; no reader of the sequence can.
    ceilings : dict
        Target -> both of these, by the names above.
    sites : DataFrame
        Every placed site: sequence, motif, motif_id, start, end, strand.
    twins : DataFrame or None
        One row per sequence with twins: the readout of the four cells.
    crowded : float
        Share of sequences that had more motifs than slots and lost some at random.
    """

    sequences: list[str]
    table: pd.DataFrame
    presence: NDArray[np.bool_]
    motifs: pd.DataFrame
    pairs: pd.DataFrame
    ceiling: float
    ceiling_given_hidden: float
    ceilings: dict[str, dict[str, float]] = field(default_factory=dict)
    sites: pd.DataFrame = field(default_factory=pd.DataFrame)
    twins: pd.DataFrame | None = None
    crowded: float = 0.0

    @property
    def targets(self) -> list[str]:
        """Columns of `table` to learn."""
        return list(self.ceilings)


def simulate(config: SimulateConfig, motifs: Sequence[Motif], *, seed: int) -> Simulation:
    """Promoters with known causes.

    Parameters
    ----------
    motifs : sequence of Motif
        Two motifs for each entry of `config.pairs`. Which motifs form which pair
        is drawn from the seed, so that no class is tied to a motif.
    seed : int
        Run seed. It draws the same causes and noise in every regime.

    Returns
    -------
    Simulation

    Raises
    ------
    ConfigError
        If the number of motifs is wrong, a motif or all of them do not fit, or
        the motifs of a PARALOG pair do not look alike.
    """
    check_number(config, motifs)
    pairs = make_pairs(config, seed)
    check_pairs(config, motifs, pairs)
    causes = draw_causes(config, pairs, seed=seed)
    letters = rng.stream(seed, "simulate", "letters")
    layout = draw_layout(config, motifs, causes.presence, causes.gc, letters)
    weights = site_weights(pairs, *geometry(layout, motifs), config.spacing)
    potential = truth.potential_weights(config, motifs, pairs, weights, seed=seed)

    twins, presence = None, causes.presence
    if config.regime == "twins":
        twins = draw_twins(config, motifs, pairs, causes.presence, layout, seed=seed)
        layout, presence = twins.layout, np.concatenate([causes.presence, twins.presence])
        weights = site_weights(pairs, *geometry(layout, motifs), config.spacing)
    source = truth.sources(config.n_sequences, twins)
    sequences, placed = write_sequences(layout, presence, source)

    names = np.array([f"seq{i:06d}" for i in range(config.n_sequences)], dtype=object)
    columns, readouts = _readouts(config, pairs, causes, presence, weights, source, twins)
    labelled: dict[str, pd.Series] = {} if twins is None else truth.twin_columns(names, motifs, twins)
    record_names = _record_names(names, labelled)
    table = pd.DataFrame({"name": record_names, **columns, **labelled})
    ceilings = {target: _ceilings(table, target) for target in readouts}
    units = {} if twins is None else {target: values[config.n_sequences :] for target, values in readouts.items()}
    return Simulation(
        sequences,
        table,
        presence,
        truth.motif_truth(config, motifs, pairs, causes, potential),
        truth.pair_truth(config, motifs, pairs, causes, potential),
        ceilings["y"]["ceiling"],
        ceilings["y"]["ceiling_given_hidden"],
        ceilings,
        truth.site_truth(record_names, motifs, placed),
        None if twins is None else truth.twin_truth(names, motifs, pairs, twins, causes.presence, units),
        causes.crowded,
    )


def _readouts(
    config: SimulateConfig,
    pairs: list[Pair],
    causes: Causes,
    presence: Bools,
    weights: Floats,
    source: NDArray[np.int64],
    twins: Twins | None,
) -> tuple[dict[str, NDArray[np.generic]], dict[str, Floats]]:
    """Columns of the table of sequences, and the targets among them."""
    gc, hidden, noise = causes.gc[source], causes.hidden[source], causes.noise[source]
    signal = structural_equation(config, pairs, presence, weights[source], gc)
    added = hidden_effects(pairs)
    latent = signal
    for k, pair in enumerate(hidden_pairs(pairs)):
        latent = latent + pair.effect * hidden[:, k]
    n = config.n_sequences
    shares = [] if twins is None else twinned_shares(config, pairs, n, len(twins.units))
    posterior = hidden_posterior(config, pairs, presence, gc, shares)
    columns: dict[str, NDArray[np.generic]] = {"y": latent + noise, "gc": gc}
    columns["hidden_cause"] = hidden[:, 0] if hidden.shape[1] else np.zeros(len(gc), dtype=bool)
    columns |= {f"hidden_cause_{k + 1}": hidden[:, k] for k in range(1, hidden.shape[1])}
    columns |= {"expected": signal + posterior @ added, "expected_given_hidden": latent}
    readouts = {"y": latent + noise}
    if config.saturation is not None:
        by_state = [saturate(signal + more, config.saturation) for more in added]
        best = saturate(latent, config.saturation)
        readouts["y_sat"] = best + noise
        columns["y_sat"] = readouts["y_sat"]
        columns["expected_sat"] = (posterior * np.column_stack(by_state)).sum(1)
        columns["expected_given_hidden_sat"] = best
    if config.regime == "mixed":
        columns["randomised"] = causes.randomised
    return columns, readouts


def _record_names(names: NDArray[np.object_], labelled: dict[str, pd.Series]) -> NDArray[np.object_]:
    if not labelled:
        return names
    parts = zip(labelled["unit"], labelled["cell"], strict=True)
    return np.array([unit if cell is None else f"{unit}_{cell}" for unit, cell in parts], dtype=object)


def _ceilings(table: pd.DataFrame, target: str) -> dict[str, float]:
    suffix = target.removeprefix("y")
    return {
        "ceiling": _correlation(table[f"expected{suffix}"], table[target]),
        "ceiling_given_hidden": _correlation(table[f"expected_given_hidden{suffix}"], table[target]),
    }


def _correlation(expected: pd.Series, readout: pd.Series) -> float:
    """Pearson r; NaN if nothing in the sequence matters."""
    if expected.std() == 0 or readout.std() == 0:
        return float("nan")
    return float(np.corrcoef(expected, readout)[0, 1])
