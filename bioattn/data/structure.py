"""A protein chain as what contact maps need: its residues and where their side chains begin."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Two residues touch if their C-beta are nearer than this.
CONTACT_ANGSTROM = 8.0


@dataclass(frozen=True)
class Chain:
    """Residues of one chain that the structure shows.

    Attributes
    ----------
    name : str
        File and chain.
    sequence : str
        One letter each, "X" for what is no amino acid of the twenty.
    numbers : list of str
        Residue numbers as the file has them, with insertion codes: "52", "52A".
    cb_angstrom : ndarray, float64, shape (L, 3)
        C-beta; C-alpha of glycine; where C-beta is missing, the place that the backbone gives it; NaN without that.
    """

    name: str
    sequence: str
    numbers: list[str]
    cb_angstrom: NDArray[np.float64]

    @property
    def resolved(self) -> NDArray[np.bool_]:
        """Which residues have a place (L,)."""
        return np.asarray(np.isfinite(self.cb_angstrom).all(axis=1))

    def distances(self) -> NDArray[np.float64]:
        """Distances (L, L) in angstrom, NaN where a residue has no place."""
        return pair_distances(self.cb_angstrom)


def pair_distances(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances (L, L) between places (L, 3); NaN where either is unknown."""
    difference = places[:, None] - places[None]
    found: NDArray[np.float64] = np.sqrt((difference**2).sum(-1))
    return found


def virtual_cb(n: NDArray[np.float64], ca: NDArray[np.float64], c: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where ideal geometry puts the C-beta of a backbone: 1.52 angstrom from C-alpha, opposite to N and C."""
    to_n, to_c = n - ca, c - ca
    bisector = -(to_n / np.linalg.norm(to_n) + to_c / np.linalg.norm(to_c))
    normal = np.cross(to_n, to_c)
    bisector, normal = bisector / np.linalg.norm(bisector), normal / np.linalg.norm(normal)
    # Half of the tetrahedral angle lies between the C-beta bond and the bisector.
    half = np.deg2rad(109.5) / 2
    direction: NDArray[np.float64] = np.cos(half) * bisector + np.sin(half) * normal
    return ca + 1.52 * direction
