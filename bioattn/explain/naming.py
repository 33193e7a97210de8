"""Names for discovered motifs: matches in a library, by TomTom, with the ambiguity shown."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from bioattn.data.motif import Motif, information

#: A matrix with less information in all is not named: TomTom gives absurd p-values to (nearly) flat queries.
NAMEABLE_BITS = 6.0


@dataclass(frozen=True)
class Match:
    """A library motif that a discovered motif resembles."""

    motif: Motif
    q_value: float

    def __str__(self) -> str:
        return f"{self.motif.name} {self.motif.motif_id} (q={self.q_value:.1e})"


def name_motifs(ppms: Sequence[NDArray[np.float64]], library: Sequence[Motif], *, q_value: float) -> list[list[Match]]:
    """Library motifs that match each discovered motif, best first, the best one of each family.

    P-values of TomTom (memelite), adjusted over all queries and targets. A motif
    with fewer than `NAMEABLE_BITS` gets no name.

    Parameters
    ----------
    ppms : sequence of ndarray (A, W)
    library : sequence of Motif
        At least 50 motifs: the p-values come from the library's own columns.

    Source: Gupta et al. 2007.
    """
    matches: list[list[Match]] = [[] for _ in ppms]
    nameable = [i for i, ppm in enumerate(ppms) if information(ppm).sum() >= NAMEABLE_BITS]
    if not nameable or not library:
        return matches
    from memelite import tomtom  # numba compiles at import: only when needed

    p_values = np.asarray(tomtom([ppms[i] for i in nameable], [m.ppm for m in library], n_jobs=1)[0])
    q = false_discovery_control(np.clip(p_values, 0, 1).ravel()).reshape(p_values.shape)
    for i, row in zip(nameable, q, strict=True):
        best: dict[str, Match] = {}
        for t in np.argsort(row):
            if row[t] > q_value:
                break
            best.setdefault(library[t].family or library[t].name, Match(library[t], float(row[t])))
        matches[i] = list(best.values())
    return matches
