"""Intervals of a genome."""

from collections.abc import Mapping
from typing import NamedTuple


class Region(NamedTuple):
    """An interval of a genome, and where it was read.

    Coordinates are 0-based and half-open. `start` may be negative and `end`
    beyond the contig where the letters out there count as unknown.

    Attributes
    ----------
    contig : str
        Name as the annotation has it; `Genome.resolve` finds the genome's.
    strand : str
        "+", "-" or ".".
    file, line : str, int
        Where it comes from, line 1-based.
    fields : mapping of str to str
        Further cells, such as a score.
    """

    contig: str
    start: int
    end: int
    strand: str
    name: str
    file: str
    line: int
    fields: Mapping[str, str]
