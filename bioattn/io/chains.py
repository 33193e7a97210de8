"""Sets of protein chains: a table that names structures, or the chains that the package cgdms carries."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from bioattn.data.structure import Chain, virtual_cb
from bioattn.errors import BioattnError, DataError
from bioattn.io.chain_table import CGDMS, chain_rows
from bioattn.io.lines import read_lines
from bioattn.io.packages import package_data
from bioattn.io.structures import read_chain


@dataclass(frozen=True)
class ChainSet:
    """Chains that could be read, by name, with their alignments if they have any, and why others could not.

    `rejected` has the columns name, source, reason.
    """

    chains: dict[str, Chain]
    alignments: dict[str, Path]
    rejected: pd.DataFrame


def read_chains(
    source: str | Path, *, least_residues: int = 20, most_residues: int = 400, least_resolved: float = 0.9
) -> ChainSet:
    """All chains of a source that can be used.

    Parameters
    ----------
    source : str or path
        "cgdms", or a table with the columns name and path (mmCIF or PDB, relative to the table), and, if you like,
        chain and alignment.
    least_residues, most_residues : int
    least_resolved : float
        Chains that show a smaller share of their residues' places are rejected.

    Raises
    ------
    DataError
        If the table cannot be read, names a chain twice, or no chain can be used. One bad chain is listed as rejected.
    """
    chains: dict[str, Chain] = {}
    alignments: dict[str, Path] = {}
    rejected: list[tuple[str, str, str]] = []
    for entry in _cgdms() if str(source) == CGDMS else _table(Path(source)):
        try:
            chain = entry.read()
            n = len(chain.sequence)
            if not least_residues <= n <= most_residues:
                raise DataError(f"{n} residues, allowed are {least_residues} to {most_residues}")
            share = float(chain.resolved.mean())
            if share < least_resolved:
                raise DataError(f"{share:.0%} of the residues have a place, at least {least_resolved:.0%} are needed")
        except BioattnError as error:
            rejected.append((entry.name, entry.source, str(error)))
        else:
            chains[entry.name] = chain
            if entry.alignment is not None:
                alignments[entry.name] = entry.alignment
    table = pd.DataFrame(rejected, columns=["name", "source", "reason"])
    if not chains:
        first = f", first {rejected[0][0]}: {rejected[0][2]}" if rejected else ""
        raise DataError(f"{source}: none of {len(rejected)} chains can be used{first}")
    return ChainSet(chains, alignments, table)


class _Entry(NamedTuple):
    """A chain that a source names: where that is said, how it is read, and its alignment."""

    name: str
    source: str
    read: Callable[[], Chain]
    alignment: Path | None = None


def _table(path: Path) -> Iterator[_Entry]:
    for row in chain_rows(path):
        yield _Entry(
            row.name, f"{path.name} line {row.line}", partial(read_chain, row.structure, row.chain), row.alignment
        )


def _cgdms() -> Iterator[_Entry]:
    folder = package_data(CGDMS) / "train_val"
    for path in sorted(folder.glob("*.txt")):
        yield _Entry(path.stem, path.name, partial(read_cgdms, path))


def read_cgdms(path: str | Path) -> Chain:
    """A chain in the text format of cgdms: sequence, secondary structure, and a line of places for each residue.

    A line holds the places of N, C-alpha, C and the centroid of the side chain, in angstrom; C-beta is put where the
    backbone has it.

    Raises
    ------
    DataError
        If a line does not hold twelve numbers, or there is not one for each residue (which line).
    """
    lines = [(number, text.split()) for number, text in read_lines(path) if text.strip()]
    if len(lines) < 3 or len(lines[0][1]) != 1:
        raise DataError(f"{path}: expected a line with the sequence, one with its secondary structure, then places")
    sequence = lines[0][1][0]
    places = []
    for number, words in lines[2:]:
        try:
            values = np.array(words, dtype=np.float64)
        except ValueError:
            values = np.empty(0)
        if len(values) != 12:
            raise DataError(f"{path} line {number}: expected 12 numbers, found {' '.join(words)[:40]}")
        places.append(values.reshape(4, 3))
    if len(places) != len(sequence):
        raise DataError(f"{path}: {len(sequence)} residues, but places of {len(places)}")
    cb = [ca if letter == "G" else virtual_cb(n, ca, c) for letter, (n, ca, c, _) in zip(sequence, places, strict=True)]
    numbers = [str(i + 1) for i in range(len(sequence))]
    return Chain(Path(path).stem, sequence, numbers, np.array(cb))
