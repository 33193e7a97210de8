"""How strong a hidden common cause of two motifs must be to look like their interaction."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

#: Probabilities of the cause that are tried, and differences that it makes to the first motif.
_RATES = tuple(np.linspace(0.02, 0.5, 25))
_STEPS = 200


def hidden_cause_strength(effect: float, both: float, a: float, b: float) -> float:
    """Smallest effect of a binary hidden cause on the readout that gives an epistasis of that size by itself.

    Given the cause, the motifs are independent and do nothing. Its rate and how often it brings
    each motif are free, but for the rates at which the motifs occur: the cause that makes the
    double difference of its own probability over the four cells largest is the weakest one
    that will do (in the manner of an E-value, VanderWeele & Ding 2017).

    Parameters
    ----------
    effect : float
        Epistasis, in units of the readout.
    both, a, b : float
        Share of the sequences that hold both motifs, the first, the second.

    Returns
    -------
    float
        In units of the readout; infinite where the motifs do not occur together more (or less)
        often than by chance, so that no common cause is seen; NaN for a motif in no or all sequences.
    """
    if not (0 < a < 1 and 0 < b < 1 and np.isfinite(effect)):
        return float("nan")
    largest = max(_largest_difference(both - a * b, a, b, rate) for rate in _RATES)
    return float(abs(effect) / largest) if largest > 0 else float("inf")


def _largest_difference(covariance: float, a: float, b: float, rate: float) -> float:
    """Largest size of P(U|11) - P(U|10) - P(U|01) + P(U|00) that a cause U of that rate can have."""
    difference_a = np.concatenate([-np.linspace(1, 1 / _STEPS, _STEPS), np.linspace(1 / _STEPS, 1, _STEPS)])
    difference_b = covariance / (rate * (1 - rate) * difference_a)
    with_a, without_a = a + (1 - rate) * difference_a, a - rate * difference_a
    with_b, without_b = b + (1 - rate) * difference_b, b - rate * difference_b
    possible = np.ones(len(difference_a), dtype=bool)
    for share in (with_a, without_a, with_b, without_b):
        possible &= (share >= 0) & (share <= 1)
    if not possible.any():
        return 0.0
    with_a, without_a, with_b, without_b = (x[possible] for x in (with_a, without_a, with_b, without_b))

    def posterior(first: NDArray, first_without: NDArray, second: NDArray, second_without: NDArray) -> NDArray:
        caused = rate * first * second
        whole = caused + (1 - rate) * first_without * second_without
        return np.divide(caused, whole, out=np.zeros_like(whole), where=whole > 0)

    difference = (
        posterior(with_a, without_a, with_b, without_b)
        - posterior(with_a, without_a, 1 - with_b, 1 - without_b)
        - posterior(1 - with_a, 1 - without_a, with_b, without_b)
        + posterior(1 - with_a, 1 - without_a, 1 - with_b, 1 - without_b)
    )
    return float(np.abs(difference).max())


def sensitivity(pairs: pd.DataFrame, presence: NDArray[np.bool_]) -> list[float]:
    """`hidden_cause_strength` of each row of a table with motif_a, motif_b (indices) and epistasis_effect.

    NaN for pairs of a motif with itself, whose presence is one thing.
    """
    rates = presence.mean(0)
    joint = presence.T.astype(np.float64) @ presence / len(presence)
    return [
        hidden_cause_strength(effect, joint[a, b], rates[a], rates[b]) if a != b else float("nan")
        for a, b, effect in pairs[["motif_a", "motif_b", "epistasis_effect"]].itertuples(index=False)
    ]
