"""How good predicted distances are, protein by protein, and what the difference of two networks is worth."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from bioattn.data.structure import CONTACT_ANGSTROM
from bioattn.nn.pair.distogram import Distogram, contact_probability, expected_distance
from bioattn.protein.batches import Protein
from bioattn.protein.contacts import LEAST_SEPARATION, Violations, contact_precision, known_pairs, triangle_violations
from bioattn.rng import stream
from bioattn.train.metrics import group_bootstrap

#: Differences of distances that count in lDDT, and how far true distances may be.
LDDT_ANGSTROM, LDDT_RADIUS_ANGSTROM = (0.5, 1.0, 2.0, 4.0), 15.0
#: Widths of a bin that the rounding of three distances to the middle of their bins may add up to.
_ROUNDING_BINS = 1.5

#: Residues on either side of a pair's own that are next to it.
_NEXT = 2

Floats = NDArray[np.float64]


class Distances(NamedTuple):
    """What a distogram says of each pair, (L, L) each: probability of a contact, mean and most probable distance."""

    contact: Floats
    expected_angstrom: Floats
    likeliest_angstrom: Floats


def distances_of_logits(logits: NDArray[np.float32], distogram: Distogram) -> Distances:
    """Contacts and distances of logits (L, L, bins)."""
    tensor = torch.from_numpy(logits)[None]
    contact = contact_probability(tensor, distogram.edges_angstrom, below_angstrom=CONTACT_ANGSTROM)[0]
    centres = distogram.centres_angstrom
    expected, likeliest = expected_distance(tensor, centres)[0], centres[tensor[0].argmax(-1)]
    found = Distances(contact.double().numpy(), expected.double().numpy(), likeliest.double().numpy())
    for distance in found[1:]:
        np.fill_diagonal(distance, 0.0)
    return found


def predicted_violations(likeliest_angstrom: Floats, distogram: Distogram) -> Violations:
    """Violations of the triangle inequality by most probable distances, beyond what the width of bins explains.

    Means of distributions hardly ever violate it, whatever they are means of: they all lie in the middle.
    """
    width = float(distogram.edges_angstrom.diff().max())
    return triangle_violations(likeliest_angstrom, tolerance_angstrom=_ROUNDING_BINS * width)


def lddt(predicted: Floats, true: Floats) -> float:
    """Local distance difference test of predicted distances (L, L), 0 to 1; NaN without a pair.

    The share of pairs, `LEAST_SEPARATION` or more apart in the sequence and truly within 15 angstrom, whose distance
    is right to 0.5, 1, 2 and 4 angstrom, averaged over the four.

    Source: Mariani et al. 2013, on distances instead of coordinates.
    """
    i, j = known_pairs(true, least_separation=LEAST_SEPARATION)
    near = true[i, j] < LDDT_RADIUS_ANGSTROM
    error = np.abs(predicted[i, j] - true[i, j])[near]
    return float(np.mean([(error < most).mean() for most in LDDT_ANGSTROM])) if len(error) else float("nan")


def score_protein(logits: NDArray[np.float32], protein: Protein, distogram: Distogram) -> dict[str, float]:
    """Scores of one protein.

    Returns
    -------
    dict
        precision_{long,medium,short}_{L,L2,L5}; precision_all_L5 (all pairs of `LEAST_SEPARATION` or more); lddt;
        log_loss of the distance bins; violation_rate and violation_angstrom (triangle inequality of the most probable
        distances, see `predicted_violations`); n_residues.
    """
    predicted = distances_of_logits(logits, distogram)
    true = protein.distances_angstrom.astype(np.float64)
    found: dict[str, float] = {}
    for row in contact_precision(predicted.contact, true).to_dict("records"):
        found[f"precision_{row['range']}_{row['top'].replace('/', '')}"] = float(row["precision"])
    found["precision_all_L5"] = precision_all(predicted.contact, true)
    found["lddt"] = lddt(predicted.expected_angstrom, true)
    found["log_loss"] = _log_loss(logits, true, distogram)
    violations = predicted_violations(predicted.likeliest_angstrom, distogram)
    found["violation_rate"], found["violation_angstrom"] = violations.rate, violations.size_angstrom
    found["n_residues"] = float(len(true))
    return found


def untold_distances(protein: Protein) -> Floats:
    """True distances (L, L), NaN for pairs that the network is told to be contacts, and for those next to them.

    Next to a pair are those whose residues are within `_NEXT` of its own: a contact makes them likely by itself.
    """
    distances = protein.distances_angstrom.astype(np.float64)
    if protein.told is not None:
        near = binary_dilation(protein.told, np.ones((2 * _NEXT + 1, 2 * _NEXT + 1), dtype=bool))
        distances[near] = np.nan
    return distances


def score_untold(logits: NDArray[np.float32], protein: Protein, distogram: Distogram) -> dict[str, float]:
    """precision_all_L5 and lddt of one protein over pairs away from those that are told."""
    predicted, true = distances_of_logits(logits, distogram), untold_distances(protein)
    return {
        "precision_all_L5": precision_all(predicted.contact, true),
        "lddt": lddt(predicted.expected_angstrom, true),
    }


def precision_all(scores: Floats, true: Floats, *, share: float = 0.2) -> float:
    """Precision of the best scored pairs of any separation from `LEAST_SEPARATION` on; NaN without a pair."""
    i, j = known_pairs(true, least_separation=LEAST_SEPARATION)
    n = max(int(round(share * np.isfinite(np.diag(true)).sum())), 1)
    best = np.argsort(-scores[i, j], kind="stable")[:n]
    return float((true[i, j][best] < CONTACT_ANGSTROM).mean()) if len(best) else float("nan")


def _log_loss(logits: NDArray[np.float32], true: Floats, distogram: Distogram) -> float:
    i, j = known_pairs(true)
    log_p = torch.from_numpy(logits[i, j]).double().log_softmax(-1)
    bins = distogram.bins(torch.from_numpy(true[i, j]))
    return float(-log_p.gather(1, bins[:, None]).mean()) if len(i) else float("nan")


def mean_scores(
    scores: pd.DataFrame, groups: NDArray[np.int64], *, by: str, draws: int, seed: int, level: float = 0.95
) -> pd.DataFrame:
    """Mean of every score over proteins, with bootstrap intervals over groups of related ones.

    Parameters
    ----------
    scores : DataFrame
        A row for each protein and value of the column `by`; proteins in the order of `groups` for each value.
    groups : ndarray, int64, shape (N,)

    Returns
    -------
    DataFrame
        `by`, score, mean, ci_low, ci_high, n (proteins with a value).
    """
    weights = group_bootstrap(groups, draws, stream(seed, "protein", "bootstrap"))
    rows = []
    for name, part in scores.groupby(by, sort=False):
        for score in _numeric(part, by):
            rows.append([name, score, *_mean_interval(part[score].to_numpy(np.float64), weights, level)])
    return pd.DataFrame(rows, columns=[by, "score", "mean", "ci_low", "ci_high", "n"])


def differences(
    scores: pd.DataFrame,
    groups: NDArray[np.int64],
    *,
    by: str,
    base: str,
    draws: int,
    seed: int,
    level: float = 0.95,
) -> pd.DataFrame:
    """Differences of every other network to `base`, paired over proteins, with bootstrap intervals over groups.

    Returns
    -------
    DataFrame
        `by`, score, difference (base less the other), ci_low, ci_high, n.
    """
    weights = group_bootstrap(groups, draws, stream(seed, "protein", "bootstrap"))
    first = scores[scores[by] == base].reset_index(drop=True)
    rows = []
    for name, part in scores.groupby(by, sort=False):
        if name == base:
            continue
        other = part.reset_index(drop=True)
        for score in _numeric(part, by):
            paired = first[score].to_numpy(np.float64) - other[score].to_numpy(np.float64)
            rows.append([name, score, *_mean_interval(paired, weights, level)])
    return pd.DataFrame(rows, columns=[by, "score", "difference", "ci_low", "ci_high", "n"])


def _numeric(table: pd.DataFrame, by: str) -> Sequence[str]:
    return [name for name in table.columns if name not in (by, "name") and table[name].dtype.kind == "f"]


def _mean_interval(values: Floats, weights: Floats, level: float) -> tuple[float, float, float, int]:
    known = np.isfinite(values)
    n = int(known.sum())
    if not n:
        return float("nan"), float("nan"), float("nan"), 0
    used, each = weights[:, known], values[known]
    total = used.sum(1)
    drawn = (used @ each)[total > 0] / total[total > 0]
    if not len(drawn):
        return float(each.mean()), float("nan"), float("nan"), n
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(each.mean()), float(low), float(high), n


def calibration(contacts: Sequence[Floats], true: Sequence[Floats], *, n_bins: int = 10) -> pd.DataFrame:
    """Predicted against observed share of contacts, over all pairs of `LEAST_SEPARATION` or more.

    Returns
    -------
    DataFrame
        low, high (bin of predicted probability), predicted (mean), observed (share of contacts), n.
    """
    predicted, observed = [], []
    for probability, distance in zip(contacts, true, strict=True):
        i, j = known_pairs(distance, least_separation=LEAST_SEPARATION)
        predicted.append(probability[i, j])
        observed.append(distance[i, j] < CONTACT_ANGSTROM)
    p, o = np.concatenate(predicted), np.concatenate(observed)
    borders = np.linspace(0, 1, n_bins + 1)
    place = np.clip((p * n_bins).astype(int), 0, n_bins - 1)
    rows = [
        [borders[b], borders[b + 1], p[place == b].mean(), o[place == b].mean(), int((place == b).sum())]
        for b in range(n_bins)
        if (place == b).any()
    ]
    return pd.DataFrame(rows, columns=["low", "high", "predicted", "observed", "n"])
