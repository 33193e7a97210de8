"""What is true about motifs, pairs, sites and twins, as tables."""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn import rng
from bioattn.config import SimulateConfig
from bioattn.data.motif import Motif
from bioattn.data.simulate.causes import Bools, Causes, Floats, hidden_pairs, marginal_rates, pair_probabilities
from bioattn.data.simulate.classes import NULL, Pair, partner_of
from bioattn.data.simulate.layout import Ints, Sites
from bioattn.data.simulate.readout import pair_term, saturate, structural_equation, weight_distribution
from bioattn.data.simulate.twins import CELLS, Twins

#: Sequences over which effects on the saturating target are averaged.
_SATURATED_UNITS = 5000


def motif_truth(
    config: SimulateConfig, motifs: Sequence[Motif], pairs: list[Pair], causes: Causes, weights: Floats
) -> pd.DataFrame:
    """Class, rate and total causal effect E[y | do(present)] - E[y | do(absent)] of each motif.

    The effect is averaged over the partner's presence in these sequences, and
    exactly over positions and strands; its standard error is that of taking
    these sequences for all.
    """
    expected = marginal_rates(config, pairs)
    rates = causes.presence.mean(0)
    partners = partner_of(pairs)
    rows = []
    for m, motif in enumerate(motifs):
        k, partner = partners[m]
        pair = pairs[k]
        alone = pair.effect * (pair.grammar.first if m == pair.first else pair.grammar.second)
        together = mean_interaction(config, motifs, pair)
        effect = alone + together * rates[partner]
        error = abs(together) * np.sqrt(rates[partner] * (1 - rates[partner]) / len(causes.presence))
        rows.append((motif.name, motif.motif_id, pair.kind, rates[m], effect, error, expected[m]))
    columns = ["motif", "motif_id", "class", "rate", "total_effect", "total_effect_se", "rate_expected"]
    table = pd.DataFrame(rows, columns=columns)
    if config.saturation is not None:
        sampled = _Saturated(config, pairs, causes, weights)
        effects = [_mean_and_error(sampled.effect(m)) for m in range(len(motifs))]
        table["total_effect_sat"], table["total_effect_sat_se"] = zip(*effects, strict=True)
    return table


def pair_truth(
    config: SimulateConfig, motifs: Sequence[Motif], pairs: list[Pair], causes: Causes, weights: Floats
) -> pd.DataFrame:
    """Class, structural interaction, co-occurrence and right verdicts of each unordered pair.

    `interaction` is the double difference of the latent readout, averaged over
    positions and strands where it depends on them; `interaction_largest` is its
    value where the rule in `depends_on` is fulfilled best. `motif_first` is the
    motif in the first role of the class. `cooccurrence_logodds` is counted in
    these sequences, `cooccurrence_expected` follows from the model.
    """
    designed = {frozenset((pair.first, pair.second)): pair for pair in pairs}
    probabilities = pair_probabilities(config, pairs)
    never = {pair.second for pair in pairs if pair.kind == "PARALOG"}
    sampled = None if config.saturation is None else _Saturated(config, pairs, causes, weights)
    rows = []
    for a, b in itertools.combinations(range(len(motifs)), 2):
        pair = designed.get(frozenset((a, b)))
        form = pair.grammar if pair else NULL
        counted = expected = float("nan")
        if not never & {a, b}:
            counted = _log_odds(causes.presence[:, a], causes.presence[:, b])
            cells = probabilities[a, b]
            expected = _exact(np.log(cells[1, 1] * cells[0, 0] / (cells[1, 0] * cells[0, 1])))
        row = {
            "motif_a": motifs[a].name,
            "motif_b": motifs[b].name,
            "motif_id_a": motifs[a].motif_id,
            "motif_id_b": motifs[b].motif_id,
            "class": pair.kind if pair else "NULL",
            "interaction": mean_interaction(config, motifs, pair) if pair else 0.0,
            "cooccurrence_logodds": counted,
            "cooccurrence_expected": expected,
            "effect": pair.effect if pair else 0.0,
            "interaction_largest": largest_interaction(config, motifs, pair) if pair else 0.0,
            "depends_on": _rule_text(config, form.rule),
            "motif_first": motifs[pair.first].name if pair else None,
            "expected_observational": form.observational,
            "expected_randomised": form.randomised,
        }
        if sampled is not None:
            row["interaction_sat"], row["interaction_sat_se"] = _mean_and_error(sampled.interaction(a, b))
        rows.append(row)
    table = pd.DataFrame(rows)
    table["motif_first"] = text(table["motif_first"].to_list())
    return table


def beside_truth(found: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """What was found of pairs, with the truth about them, whichever way round a pair is written.

    Parameters
    ----------
    found : DataFrame
        motif_id_a, motif_id_b, and what else there is.
    pairs : DataFrame
        `Simulation.pairs`.

    Returns
    -------
    DataFrame
        Columns of both. Pairs of a motif with itself are left out: no sequence has two sites of one, so nothing is
        known about them.
    """
    truth = _keyed(pairs).drop(columns=["motif_a", "motif_b", "motif_id_a", "motif_id_b"])
    return _keyed(found).merge(truth, how="inner", on="_key", validate="one_to_one").drop(columns="_key")


def _keyed(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a column that names each pair, whichever way round it is written."""
    ids = np.sort(table[["motif_id_a", "motif_id_b"]].to_numpy(dtype=str), axis=1)
    return table.assign(_key=np.char.add(np.char.add(ids[:, 0], "+"), ids[:, 1]))


def text(values: Sequence[str | None] | NDArray[np.object_]) -> pd.Series:
    """Column of str and None: the one way to hold missing text that pandas 2 and 3 share."""
    series = pd.Series(list(values), dtype=object)
    return series.where(series.notna(), None)


def _exact(value: float) -> float:
    """The value without the last digits, where a zero is a sum of others that cancel."""
    return round(float(value), 12) + 0.0


def mean_interaction(config: SimulateConfig, motifs: Sequence[Motif], pair: Pair) -> float:
    """Double difference of the latent readout over the four cells, averaged over positions and strands."""
    if pair.grammar.both == 0:
        return 0.0
    values, chance = weight_distribution(config, pair, motifs[pair.first], motifs[pair.second])
    return float(pair.effect * pair.grammar.both * (values @ chance))


def largest_interaction(config: SimulateConfig, motifs: Sequence[Motif], pair: Pair) -> float:
    """The same where positions and strands are best."""
    if pair.grammar.both == 0:
        return 0.0
    values, _ = weight_distribution(config, pair, motifs[pair.first], motifs[pair.second])
    return float(pair.effect * pair.grammar.both * values.max())


def _log_odds(first: Bools, second: Bools) -> float:
    """Log odds ratio of two motifs' presence, half a count added to every cell."""
    cells = [np.sum((first == x) & (second == y)) + 0.5 for x in (1, 0) for y in (1, 0)]
    return float(np.log(cells[0] * cells[3] / (cells[1] * cells[2])))


def _rule_text(config: SimulateConfig, rule: str | None) -> str:
    spacing = config.spacing
    if rule == "spacing":
        return {
            "within": f"centres at most {spacing.max_bp:g} bp apart",
            "preferred": f"centres about {spacing.preferred_bp:g} bp apart (sd {spacing.width_bp:g})",
            "helical": f"centres at most {spacing.max_bp:g} bp apart, in phase ({spacing.period_bp:g} bp)",
        }[spacing.kind]
    return {"orientation": "same strand", "order": "motif_first lies before the other"}.get(str(rule), "")


class _Saturated:
    """Effects on the saturating target, on sequences of the simulation with two motifs set."""

    def __init__(self, config: SimulateConfig, pairs: list[Pair], causes: Causes, weights: Floats) -> None:
        assert config.saturation is not None
        n = min(_SATURATED_UNITS, len(causes.presence))
        self.saturation, self.pairs, self.partners = config.saturation, pairs, partner_of(pairs)
        self.presence, self.weights = causes.presence[:n], weights[:n]
        hidden = [pair.effect for pair in hidden_pairs(pairs)]
        self.latent = structural_equation(config, pairs, self.presence, self.weights, causes.gc[:n])
        self.latent = self.latent + causes.hidden[:n] @ np.array(hidden)

    def effect(self, motif: int) -> Floats:
        """Effect (n,) of setting a motif present instead of absent."""
        return self._readout({motif: True}) - self._readout({motif: False})

    def interaction(self, a: int, b: int) -> Floats:
        """Double difference (n,) over the four cells of two motifs."""
        cells = [self._readout({a: x, b: y}) for x in (True, False) for y in (True, False)]
        return cells[0] - cells[1] - cells[2] + cells[3]

    def _readout(self, chosen: dict[int, bool]) -> Floats:
        latent = self.latent
        for k in {self.partners[m][0] for m in chosen}:
            pair, weight = self.pairs[k], self.weights[:, k]
            now = [self.presence[:, m] for m in (pair.first, pair.second)]
            then = [
                np.full(len(old), chosen[m]) if m in chosen else old
                for m, old in zip((pair.first, pair.second), now, strict=True)
            ]
            latent = latent + pair_term(pair, then[0], then[1], weight) - pair_term(pair, now[0], now[1], weight)
        return saturate(latent, self.saturation)


def potential_weights(
    config: SimulateConfig, motifs: Sequence[Motif], pairs: list[Pair], weights: Floats, *, seed: int
) -> Floats:
    """Weights (N, P) with those of absent sites drawn as if they had been placed."""
    draw = rng.stream(seed, "simulate", "potential")
    filled = weights.copy()
    for k, pair in enumerate(pairs):
        values, chance = weight_distribution(config, pair, motifs[pair.first], motifs[pair.second])
        drawn = draw.choice(values, len(weights), p=chance / chance.sum())
        filled[:, k] = np.where(np.isnan(weights[:, k]), drawn, weights[:, k])
    return filled


def _mean_and_error(values: Floats) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def site_truth(names: NDArray[np.object_], motifs: Sequence[Motif], placed: list[Sites]) -> pd.DataFrame:
    """Every placed site: sequence, motif, motif_id, start, end (0-based, half-open), strand; in reading order."""
    rows = np.concatenate([sites.rows for sites in placed])
    start = np.concatenate([sites.start for sites in placed])
    which = np.repeat(np.arange(len(motifs)), [len(sites.rows) for sites in placed])
    order = np.lexsort((start, rows))
    rows, start, which = rows[order], start[order], which[order]
    reverse = np.concatenate([sites.reverse for sites in placed])[order]
    return pd.DataFrame(
        {
            "sequence": names[rows],
            "motif": np.array([motif.name for motif in motifs], dtype=object)[which],
            "motif_id": np.array([motif.motif_id for motif in motifs], dtype=object)[which],
            "start": start,
            "end": start + np.array([motif.width for motif in motifs])[which],
            "strand": np.where(reverse, "-", "+").astype(object),
        }
    )


def twin_truth(
    names: NDArray[np.object_],
    motifs: Sequence[Motif],
    pairs: list[Pair],
    twins: Twins,
    presence: Bools,
    readouts: dict[str, Floats],
) -> pd.DataFrame:
    """One row per unit with twins: what was set, the readout of the four cells, and their double difference.

    Parameters
    ----------
    presence : ndarray, bool, shape (N, M)
        Of the sequences themselves, which tells the cell that was observed.
    readouts : dict
        Target -> readout (4 T,) of the twins, in the order of their records.
    """
    designed = {frozenset((pair.first, pair.second)): pair.kind for pair in pairs}
    observed = 2 * presence[twins.units, twins.first] + presence[twins.units, twins.second]
    name = np.array([motif.name for motif in motifs], dtype=object)
    table = pd.DataFrame(
        {
            "unit": names[twins.units],
            "motif_a": name[twins.first],
            "motif_b": name[twins.second],
            "class": [designed.get(frozenset(ab), "NULL") for ab in zip(twins.first, twins.second, strict=True)],
            "observed_cell": np.array(CELLS, dtype=object)[observed.astype(int)],
        }
    )
    for target, values in readouts.items():
        suffix = "" if target == "y" else target.removeprefix("y")
        cells = values.reshape(-1, 4)
        for cell, column in zip(CELLS, cells.T, strict=True):
            table[cell + suffix] = column
        table["double_difference" + suffix] = np.round(cells[:, 3] - cells[:, 2] - cells[:, 1] + cells[:, 0], 12) + 0.0
    return table


def twin_columns(names: NDArray[np.object_], motifs: Sequence[Motif], twins: Twins) -> dict[str, pd.Series]:
    """Columns unit, pair and cell of all records: the sequences first, which were not set, then their twins."""
    unit = np.concatenate([names, np.repeat(names[twins.units], 4)])
    label = [f"{motifs[a].name}+{motifs[b].name}" for a, b in zip(twins.first, twins.second, strict=True)]
    nothing = np.full(len(names), None, dtype=object)
    pair = np.concatenate([nothing, np.repeat(np.array(label, dtype=object), 4)])
    cell = np.concatenate([nothing, np.tile(np.array(CELLS, dtype=object), len(twins.units))])
    return {"unit": text(unit), "pair": text(pair), "cell": text(cell)}


def sources(n_sequences: int, twins: Twins | None) -> Ints:
    """Sequence that each record is made from: itself, or the unit of a twin."""
    own = np.arange(n_sequences)
    return own if twins is None else np.concatenate([own, np.repeat(twins.units, 4)])
