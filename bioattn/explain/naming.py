"""Names for discovered motifs: matches in a library, by TomTom, with the ambiguity shown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from bioattn import rng
from bioattn.data.motif import Motif, information
from bioattn.explain.similar_motifs import align, groups

#: A matrix with less information in all is not named: to a (nearly) flat query every place of a wide motif looks alike,
#: and TomTom gives it p = 1e-13. Six bits are three sharp columns; of JASPAR's vertebrate matrices, 1 in 100 has less.
NAMEABLE_BITS = 6.0
#: Fewer motifs give TomTom no distribution of columns to draw p-values from.
FEWEST_FOR_P_VALUES = 50
#: Least correlation of a match in a library that is too small for p-values. Among 12 motifs, 9 % of matrices with
#: shuffled columns reach it (19 % reach 0.8).
ALIKE = 0.85
#: Motifs without a family that correlate as much on average share an archetype.
_ARCHETYPE = 0.9
#: Library motifs with shuffled columns that a motif is compared with, and the share of them that make the tail.
_NULL_SIZE, _TAIL = 10_000, 0.02
#: Between the families of a dimer, where semicolons have another meaning.
_AND = " & "


@dataclass(frozen=True)
class Match:
    """A library motif that a discovered motif resembles, for its whole family.

    Attributes
    ----------
    motif : Motif
        The best one of its family.
    p_value, q_value : float or None
        None in a library that is too small for p-values.
    correlation : float
        Of the two matrices, see `bioattn.data.motif.best_correlation`.
    offset : int
        Column of the library motif, on its matching strand, at which the discovered
        one begins; negative if it begins before it.
    overlap : int
        Columns that lie on each other.
    strand : str
        "-" if the library motif matches on its other strand.
    family : str
        "" for a motif without a family to which no other one is alike.
    members : tuple of str
        Names of the other members of the family that match, best first.
    """

    motif: Motif
    p_value: float | None
    q_value: float | None
    correlation: float
    offset: int
    overlap: int
    strand: str
    family: str = ""
    members: tuple[str, ...] = ()

    @property
    def n_in_family(self) -> int:
        """How many other members of the family match."""
        return len(self.members)

    def __str__(self) -> str:
        how = f"r={self.correlation:.2f}" if self.q_value is None else f"q={self.q_value:.1e}"
        text = f"{self.motif.name} {self.motif.motif_id} ({how})"
        if self.n_in_family:
            text += f" +{self.n_in_family}"
        if self.family:
            text += f" of {self.family}"
        # In a table, semicolons part the matches of a motif.
        return text.replace("; ", _AND).replace(";", ",")


class NamedMatch(NamedTuple):
    """What the text of a `Match` says."""

    name: str
    motif_id: str
    q_value: float | None
    correlation: float | None
    n_in_family: int
    families: tuple[str, ...]


_MATCH = re.compile(
    r"^(?P<name>.+) (?P<id>\S+) \((?P<kind>[qr])=(?P<value>[^)]+)\)(?: \+(?P<n>\d+))?(?: of (?P<of>.+))?$"
)


def read_matches(text: str) -> list[NamedMatch]:
    """Matches of a table's cell, which holds `str` of each, parted by "; "; what is none is left out."""
    found = [_MATCH.match(part.strip()) for part in text.split(";")]
    return [
        NamedMatch(
            match["name"],
            match["id"],
            float(match["value"]) if match["kind"] == "q" else None,
            float(match["value"]) if match["kind"] == "r" else None,
            int(match["n"] or 0),
            tuple(match["of"].split(_AND)) if match["of"] else (),
        )
        for match in found
        if match
    ]


def ambiguous(matches: Sequence[Match]) -> bool:
    """Whether several families match, so that the best one is not the name of the motif."""
    return len(matches) > 1


def name_motifs(ppms: Sequence[NDArray[np.float64]], library: Sequence[Motif], *, q_value: float) -> list[list[Match]]:
    """Library motifs that match each discovered motif, best first, one for each family.

    P-values of TomTom (memelite), corrected for what shuffled motifs reach (see
    `calibrated`) and adjusted over all targets; in a small library, correlation of at
    least `ALIKE` instead. A motif with fewer than `NAMEABLE_BITS` gets no name. Several
    entries mean that several families match.

    Parameters
    ----------
    ppms : sequence of ndarray (A, W)
    library : sequence of Motif
        At least `FEWEST_FOR_P_VALUES` motifs for p-values: they come from the library's
        own columns.

    Source: Gupta et al. 2007.
    """
    matches: list[list[Match]] = [[] for _ in ppms]
    nameable = [i for i, ppm in enumerate(ppms) if information(ppm).sum() >= NAMEABLE_BITS]
    if not nameable or not library:
        return matches
    queries, targets = [ppms[i] for i in nameable], [motif.ppm for motif in library]
    compared = _compared(queries, targets)
    close = compared.alike >= ALIKE if compared.q_value is None else compared.q_value <= q_value
    families = _families(library, np.flatnonzero(close.any(0)))
    for row, i in enumerate(nameable):
        order = sorted(np.flatnonzero(close[row]).tolist(), key=lambda t: compared.rank(row, t))
        matches[i] = _by_family([compared.match(row, t, library[t], families[t]) for t in order])
    return matches


class _Compared(NamedTuple):
    """All queries against all targets, each field (N, T)."""

    p_value: NDArray[np.float64] | None
    q_value: NDArray[np.float64] | None
    alike: NDArray[np.float64]
    offset: NDArray[np.int64]
    overlap: NDArray[np.int64]
    reverse: NDArray[np.bool_]

    def rank(self, row: int, t: int) -> tuple[float, float]:
        return (0.0 if self.p_value is None else self.p_value[row, t], -self.alike[row, t])

    def match(self, row: int, t: int, motif: Motif, family: str) -> Match:
        p, q = (None if each is None else float(each[row, t]) for each in (self.p_value, self.q_value))
        where = int(self.offset[row, t]), int(self.overlap[row, t]), "-" if self.reverse[row, t] else "+"
        return Match(motif, p, q, float(self.alike[row, t]), *where, family)


def _compared(queries: Sequence[NDArray[np.float64]], targets: Sequence[NDArray[np.float64]]) -> _Compared:
    aligned = align(queries, targets)
    if len(targets) < FEWEST_FOR_P_VALUES:
        return _Compared(None, None, *aligned)
    raw, offset, overlap, reverse = _tomtom(queries, targets)
    p = calibrated(raw, shuffled_p_values(queries, targets))
    # For each query by itself: beside queries with many matches, a motif like none would pass with chance matches.
    q = false_discovery_control(p, axis=1)
    return _Compared(p, q, aligned.correlation, offset, overlap, reverse)


def calibrated(p_values: NDArray[np.float64], null: NDArray[np.float64]) -> NDArray[np.float64]:
    """P-values corrected for the tail of the p-values that the same query has without any relation, never smaller.

    TomTom draws a target's columns one by one from all columns of the library. Those of
    a real motif are of a kind: to a GC-rich query, a GC-rich motif is a match in
    whatever order its columns stand. So p-values of shuffled targets are up to 200 times
    too small for such queries (uniform for most others). The share of the null that is as
    small replaces them, and where few of it are, its tail: -log p of the smallest is
    exponential, with the mean that Hill's estimator gives.

    Parameters
    ----------
    p_values : ndarray, shape (N, T)
        Of N queries.
    null : ndarray, shape (N, S)
        Of the same queries with shuffled targets.

    Source: Hill 1975; Knijnenburg et al. 2009 for p-values from a fitted tail.
    """
    edge = np.quantile(null, _TAIL, axis=1, keepdims=True)
    inside = null <= edge
    excess = np.where(inside, np.log(edge) - np.log(null), 0).sum(1, keepdims=True) / inside.sum(1, keepdims=True)
    tail = _TAIL * (p_values / edge) ** (1 / np.maximum(excess, 1))
    share = [np.searchsorted(np.sort(n), p, side="right") for n, p in zip(null, p_values, strict=True)]
    return np.maximum(p_values, np.where(p_values < edge, tail, np.array(share) / null.shape[1]))


def shuffled_p_values(
    queries: Sequence[NDArray[np.float64]], targets: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """P-values (N, S) of queries against targets whose columns were shuffled, about 10,000 each."""
    draw = rng.stream(0, "naming", "shuffled targets")
    parts = []
    for _ in range(-(-_NULL_SIZE // len(targets))):
        shuffled = [ppm[:, draw.permutation(ppm.shape[1])] for ppm in targets]
        parts.append(_tomtom(queries, shuffled).p_value)
    return np.concatenate(parts, axis=1)


class _Found(NamedTuple):
    """What TomTom says of all pairs, each (N, T)."""

    p_value: NDArray[np.float64]
    offset: NDArray[np.int64]
    overlap: NDArray[np.int64]
    reverse: NDArray[np.bool_]


def _tomtom(queries: Sequence[NDArray[np.float64]], targets: Sequence[NDArray[np.float64]]) -> _Found:
    from memelite import tomtom  # numba compiles at import: only when needed

    threads = torch.get_num_threads()
    p, _, offset, overlap, strand = tomtom(list(queries), list(targets), n_jobs=1)
    # On its way out it sets the number of OpenMP threads, which PyTorch shares, to that of the machine.
    torch.set_num_threads(threads)
    # A p-value of 0 has no logarithm, and rounding may leave a sum above 1.
    return _Found(np.clip(p, 1e-300, 1), offset.astype(np.int64), overlap.astype(np.int64), strand == 1)


def _families(library: Sequence[Motif], matching: NDArray[np.int64]) -> dict[int, str]:
    """Family of each matching motif of a library; those without one that are alike share an archetype."""
    families = {int(t): library[t].family for t in matching}
    without = [t for t, family in families.items() if not family]
    label = groups([library[t].ppm for t in without], least=_ARCHETYPE)
    for group in np.unique(label):
        members = [t for t, other in zip(without, label, strict=True) if other == group]
        if len(members) > 1:
            families.update(dict.fromkeys(members, f"archetype {library[members[0]].name}"))
    return families


def _by_family(ordered: Sequence[Match]) -> list[Match]:
    """The best match of each family, with the names of the others.

    A dimer has the families of both factors and joins the first of them, since its
    matrix may hold one half only.
    """
    best: list[Match] = []
    for match in ordered:
        own = set(match.family.split("; ")) - {""}
        for i, other in enumerate(best):
            if own & set(other.family.split("; ")):
                best[i] = replace(other, members=(*other.members, match.motif.name))
                break
        else:
            best.append(match)
    return best
