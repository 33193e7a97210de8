"""Does an attribution rank bases as the model uses them: deletion, insertion, and agreement with mutagenesis."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.stats import spearmanr

from bioattn import rng
from bioattn.data import alphabet
from bioattn.data.weighted import interval
from bioattn.errors import DataError
from bioattn.explain.attribution import UNSIGNED
from bioattn.explain.ism import contribution, importance
from bioattn.explain.predict import predict
from bioattn.explain.tracks import shuffled
from bioattn.models import SequenceModel

#: Shares of the bases that are replaced or restored: close to each other where a motif is lost.
FRACTIONS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
DIRECTIONS = ("deletion", "insertion")
RANDOM = "random"
#: Random orders that every attribution is held against.
_ORDERS = 4
#: Draws of the bootstrap over sequences.
_BOOTSTRAP = 1000
_SUMMARY_COLUMNS = [
    "kind", "direction", "area", "area_ci_low", "area_ci_high", "spearman_ism", "spearman_ci_low", "spearman_ci_high",
    "n", "note",
]  # fmt: skip


class Faithfulness(NamedTuple):
    """How far attributions say what the model does.

    Attributes
    ----------
    curves : DataFrame
        kind, direction, fraction; mean of the readout over sequences, ci_low, ci_high, n.
    summary : DataFrame
        kind, direction; area, area_ci_low, area_ci_high: between the curve and that of
        random orders, in units of the readout, more than 0 where the attribution ranks
        bases better than chance; spearman_ism, spearman_ci_low, spearman_ci_high: mean
        over sequences of the rank correlation with mutagenesis; n; note.
    """

    curves: pd.DataFrame
    summary: pd.DataFrame


class _Mixes:
    """Sequences, copies that replace their bases, and the readouts of both and of all mixtures."""

    def __init__(self, model: SequenceModel, codes: NDArray[np.uint8], copies: NDArray[np.uint8], readout: int) -> None:
        self.model, self.codes, self.copies, self.readout = model, codes, copies, readout
        self.length = (codes != alphabet.PAD).sum(1)
        # What all orders share is computed once.
        self.ends = self._mean(codes[None]), self._mean(copies)

    def _mean(self, mixed: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Readout (N,) of sequences (D, N, L), the mean over draws."""
        values = predict(self.model, mixed.reshape(-1, mixed.shape[2]))[:, self.readout]
        return values.reshape(mixed.shape[:2]).mean(0, dtype=np.float64)

    def curves(self, rank: NDArray[np.int64], fractions: Sequence[float]) -> NDArray[np.float64]:
        """Readouts (2, N, F) with the first bases of a ranking replaced, and with all but these."""
        found = np.empty((2, len(self.codes), len(fractions)))
        for i, fraction in enumerate(fractions):
            first = rank < np.rint(fraction * self.length)[:, None]
            for direction, replaced in enumerate((first, ~first)):
                if fraction in (0, 1):
                    found[direction, :, i] = self.ends[int(fraction) if direction == 0 else 1 - int(fraction)]
                else:
                    found[direction, :, i] = self._mean(np.where(replaced, self.copies, self.codes))
        return found


def deletion_insertion(
    model: SequenceModel,
    codes: NDArray[np.uint8],
    importance: NDArray[np.floating],
    *,
    readout: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    replacements: NDArray[np.uint8] | None = None,
    draws: int = 4,
    seed: int = 0,
) -> pd.DataFrame:
    """Readout of each sequence while its bases are replaced, or restored, the most important first.

    Deletion starts with the sequence and puts in bases of a copy; insertion starts
    with the copy and puts in those of the sequence. Bases are taken as they are ranked:
    where importance has a sign, from what raises the readout most to what lowers it
    most, so that a faithful one lets deletion fall, and insertion rise, at once.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    importance : ndarray, shape (N, L)
        Ties are broken at random; NaN at a real base ranks it last.
    fractions : sequence of float
        Shares of the bases, 0 to 1, rounded to whole bases of each sequence.
    replacements : ndarray, uint8, shape (D, N, L), optional
        The copies; by default `draws` dinucleotide shuffles of each sequence, so that
        composition stays.
    draws, seed : int
        Of the default copies; the seed also breaks ties.

    Returns
    -------
    DataFrame
        Columns sequence (row of `codes`), direction, fraction, readout (mean over copies).

    Raises
    ------
    DataError
        If there is no sequence, shapes do not fit, or fractions do not increase inside 0 to 1.
    """
    mixes = _mixes(model, codes, readout, fractions, replacements, draws, seed)
    found = mixes.curves(_ranks(importance, codes, seed, "ties"), fractions)
    index = pd.MultiIndex.from_product(
        [DIRECTIONS, range(len(codes)), fractions], names=["direction", "sequence", "fraction"]
    )
    table = pd.DataFrame({"readout": found.ravel()}, index=index).reset_index()
    return table[["sequence", "direction", "fraction", "readout"]]


def _mixes(
    model: SequenceModel,
    codes: NDArray[np.uint8],
    readout: int,
    fractions: Sequence[float],
    replacements: NDArray[np.uint8] | None,
    draws: int,
    seed: int,
) -> _Mixes:
    if not len(codes):
        raise DataError("there is no sequence to look at")
    if not len(fractions) or not 0 <= fractions[0] <= fractions[-1] <= 1 or list(fractions) != sorted(fractions):
        raise DataError(f"fractions must lie between 0 and 1, in increasing order, got {list(fractions)}")
    if replacements is None:
        if draws < 1:
            raise DataError(f"draws must be at least 1, got {draws}")
        replacements = np.stack([shuffled(codes, seed, "faithfulness", "copy", i) for i in range(draws)])
    if replacements.ndim != 3 or replacements.shape[1:] != codes.shape or not len(replacements):
        raise DataError(f"replacements must have shape {('draws', *codes.shape)}, got {replacements.shape}")
    if ((replacements == alphabet.PAD) != (codes == alphabet.PAD)).any():
        raise DataError("replacements must be padded where the sequences are")
    return _Mixes(model, codes, replacements, readout)


def _ranks(
    importance: NDArray[np.floating], codes: NDArray[np.uint8], seed: int, *names: str | int
) -> NDArray[np.int64]:
    """Rank (N, L) of each base, 0 for the most important; padding comes last."""
    if importance.shape != codes.shape:
        raise DataError(f"importance must have the shape of the sequences {codes.shape}, got {importance.shape}")
    real = codes != alphabet.PAD
    noise = rng.stream(seed, "faithfulness", *names).random(codes.shape)
    # The last key decides first.
    order = np.lexsort((noise, -np.where(np.isnan(importance), -np.inf, importance), ~real), axis=-1)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(codes.shape[1]), codes.shape), axis=-1)
    return ranks


def faithfulness(
    model: SequenceModel,
    codes: NDArray[np.uint8],
    kinds: Mapping[str, NDArray[np.floating]],
    effect: NDArray[np.float32],
    *,
    readout: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    draws: int = 4,
    seed: int = 0,
    unsigned: Collection[str] = UNSIGNED,
    left_out: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Faithfulness:
    """Deletion and insertion curves of attributions against random orders, and rank correlation with mutagenesis.

    All orders get the same copies, so that their differences are theirs alone.
    Intervals are 95 % percentile intervals of a bootstrap over sequences, with the
    same draws for all kinds. Kind "random" is added: its curve is the mean of several
    random orders, and its area that of one of them against the others, which should
    not differ from 0.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    kinds : mapping of ndarray, shape (N, L)
        Importance of each base by kind. That called "ism" is not correlated with itself.
    effect : ndarray, float32, shape (N, A, L)
        Of these sequences, from `ism`.
    fractions, draws, seed :
        As for `deletion_insertion`.
    unsigned : collection of str
        Kinds without a sign. These are correlated with the size of the effects, the
        others with the contribution of the base that is there.
    left_out : mapping of str, optional
        Kinds that could not be computed, and why: they get rows with that note.
    progress : callable, optional
        Called with the orders done and their number.

    Raises
    ------
    DataError
        As `deletion_insertion`.
    """
    mixes = _mixes(model, codes, readout, fractions, None, draws, seed)
    truth = _Truth(effect, codes)
    orders = [_ranks(np.zeros(codes.shape), codes, seed, RANDOM, i) for i in range(_ORDERS)]
    ranks = [*orders, *(_ranks(values, codes, seed, "ties") for values in kinds.values())]
    curves = []
    for i, rank in enumerate(ranks):
        curves.append(mixes.curves(rank, fractions))
        if progress is not None:
            progress(i + 1, len(ranks))
    random, by_kind = np.stack(curves[:_ORDERS]), dict(zip(kinds, curves[_ORDERS:], strict=True))
    areas = {kind: _areas(curve, random.mean(0), fractions) for kind, curve in by_kind.items()}
    areas[RANDOM] = _areas(random[0], random[1:].mean(0), fractions)
    agreement = {kind: truth.correlation(values, kind in unsigned) for kind, values in kinds.items()}
    agreement[RANDOM] = truth.correlation(-orders[0].astype(np.float64), False)
    n = len(codes)
    weights = rng.stream(seed, "faithfulness", "bootstrap").multinomial(n, np.full(n, 1 / n), _BOOTSTRAP)
    rows, summary = [], []
    for kind, curve in (by_kind | {RANDOM: random.mean(0)}).items():
        rows += _curve_rows(kind, curve, fractions, weights)
        summary += _summary_rows(kind, areas[kind], agreement[kind], weights, kind in unsigned)
    for kind, reason in (left_out or {}).items():
        summary += [{"kind": kind, "direction": direction, "n": 0, "note": reason} for direction in DIRECTIONS]
    return Faithfulness(pd.DataFrame(rows), pd.DataFrame(summary).reindex(columns=_SUMMARY_COLUMNS))


def _areas(curve: NDArray[np.float64], random: NDArray[np.float64], fractions: Sequence[float]) -> NDArray[np.float64]:
    """Area (2, N) by which deletion falls below, and insertion rises above, random orders."""
    better = np.stack([random[0] - curve[0], curve[1] - random[1]])
    area: NDArray[np.float64] = trapezoid(better, fractions, axis=-1)
    return area


class _Truth:
    """What mutagenesis says of each base: its contribution, and how much it counts whichever way."""

    def __init__(self, effect: NDArray[np.float32], codes: NDArray[np.uint8]) -> None:
        if effect.shape != (len(codes), alphabet.N_LETTERS, codes.shape[1]):
            raise DataError(f"effects are of other sequences: shape {effect.shape}, sequences {codes.shape}")
        self.known = codes < alphabet.N_LETTERS
        self.own = (contribution(effect) * alphabet.one_hot(codes)).sum(1)
        self.size = importance(effect)

    def correlation(self, values: NDArray[np.floating], unsigned: bool) -> NDArray[np.float64]:
        """Spearman correlation (N,) over the known bases of each sequence; NaN where either side is constant."""
        truth = self.size if unsigned else self.own
        return np.array([spearman(v[k], t[k]) for v, t, k in zip(values, truth, self.known, strict=True)])


def spearman(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Rank correlation over the places that both know; NaN where either does not vary."""
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)


def _curve_rows(
    kind: str, curve: NDArray[np.float64], fractions: Sequence[float], weights: NDArray[np.int64]
) -> list[dict[str, object]]:
    return [
        {
            "kind": kind, "direction": direction, "fraction": fraction, "mean": float(column.mean()),
            **_ends("", column, weights), "n": len(column),
        }
        for direction, values in zip(DIRECTIONS, curve, strict=True)
        for fraction, column in zip(fractions, values.T, strict=True)
    ]  # fmt: skip


def _summary_rows(
    kind: str,
    areas: NDArray[np.float64],
    correlation: NDArray[np.float64],
    weights: NDArray[np.int64],
    unsigned: bool,
) -> list[dict[str, object]]:
    n, defined = areas.shape[1], np.isfinite(correlation)
    known = bool(defined.any()) and kind != "ism"
    agreement = {
        "spearman_ism": float(correlation[defined].mean()) if known else float("nan"),
        **_ends("spearman_", correlation if known else np.full(n, np.nan), weights),
    }
    notes = {
        "one random order against the others": kind == RANDOM,
        "without a sign: compared with the size of effects": unsigned,
        "not compared with itself": kind == "ism",
        f"no rank correlation in {n - int(defined.sum())} of {n} sequences, whose values are all equal": (
            kind != "ism" and not defined.all()
        ),
        "one sequence: no intervals": n == 1,
    }
    note = "; ".join(text for text, holds in notes.items() if holds)
    return [
        {
            "kind": kind, "direction": direction, "area": float(area.mean()), **_ends("area_", area, weights),
            **agreement, "n": n, "note": note,
        }
        for direction, area in zip(DIRECTIONS, areas, strict=True)
    ]  # fmt: skip


def _ends(name: str, values: NDArray[np.float64], weights: NDArray[np.int64]) -> dict[str, float]:
    low, high = _interval(values, weights)
    return {f"{name}ci_low": low, f"{name}ci_high": high}


def _interval(values: NDArray[np.float64], weights: NDArray[np.int64]) -> tuple[float, float]:
    """95 % interval of the mean of values (N,) that are defined, over draws (B, N) of sequences."""
    if len(values) < 2:
        return float("nan"), float("nan")
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (weights @ np.where(defined, values, 0.0)) / (weights @ defined)
    return interval(means)
