"""The motifs that pairs are made of, and where they are in all sequences of a run: looked for once, for all models."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn import rng
from bioattn.config import RunConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif
from bioattn.data.splits import subset_of
from bioattn.errors import BioattnWarning, ConfigError, DataError
from bioattn.explain.hits import find_hits, site_hits, site_motifs
from bioattn.explain.similar_motifs import groups
from bioattn.io.files import replacing_folder
from bioattn.io.motifs import load_motifs
from bioattn.io.tables import read_parquet, write_parquet

#: Training sequences in which the motifs of a library are counted.
_SAMPLE = 2000
#: Hits of a motif in a sequence: the best one stands for it, the second makes a pair with it.
_COPIES = 2


@dataclass(frozen=True)
class Library:
    """Motifs and their hits.

    Attributes
    ----------
    motifs : list of Motif
        Motif indices in all tables point here.
    members : list of tuple of str
        Names of the motifs that each stands for, its own first: those that look so much alike that they
        share their sites.
    hits : DataFrame
        `bioattn.explain.hits.find_hits` in all sequences of the run.
    """

    motifs: list[Motif]
    members: list[tuple[str, ...]]
    hits: pd.DataFrame


def scan_library(run: RunConfig, sequences: pd.DataFrame, split: pd.DataFrame, *, fold: int) -> Library:
    """The run's motifs, one for each group of similar ones, with all hits.

    Matrices are scanned for; fixed sites count where they are intact, which is the half of the sequences
    that match the library best there. Of similar motifs the one with most hits in training sequences is
    taken; of a large library those with most hits, one of each family. The choice looks at neither
    targets nor models, so it biases no test.

    Parameters
    ----------
    sequences, split : DataFrame
        As the steps `ingest` and `split` write them.

    Raises
    ------
    ConfigError
        If the run names fewer than two motifs or sites, or they all look alike.
    """
    codes = alphabet.encode_batch(sequences["sequence"].tolist())
    training = codes[subset_of(sequences, split, fold=fold) == "train"]
    if run.motifs.sites:
        motifs = site_motifs(training, run.motifs.sites)
        _check_two(motifs)
        hits = site_hits(codes, run.motifs.sites, motifs)
        intact = hits["score"] >= hits.groupby("motif")["score"].transform("median")
        return Library(motifs, [(motif.name,) for motif in motifs], hits[intact].reset_index(drop=True))
    named = load_motifs(run.motifs)
    _check_two(named)
    motifs, members = _chosen(named, training, run)
    if len(motifs) < 2:
        raise ConfigError(
            f"pairs need motifs with sites of their own, but the {len(named)} that are named all look alike: name "
            "others, or set interactions.similar_motifs to 1"
        )
    return Library(motifs, members, find_hits(codes, motifs, p_value=run.interactions.hit_p_value, copies=_COPIES))


def _check_two(motifs: Sequence[Motif]) -> None:
    if len(motifs) < 2:
        raise ConfigError(f"pairs need at least 2 motifs or sites, got {len(motifs)}: see the section motifs")


def _chosen(
    motifs: Sequence[Motif], training: NDArray[np.uint8], run: RunConfig
) -> tuple[list[Motif], list[tuple[str, ...]]]:
    """One motif of each group of similar ones, and of a large library the most frequent, one of each family."""
    most = run.interactions.most_motifs
    group = groups([motif.ppm for motif in motifs], least=run.interactions.similar_motifs)
    if group.max() + 1 == len(motifs) <= most:
        return list(motifs), [(motif.name,) for motif in motifs]
    draw = rng.stream(run.seed, "pairs", "library")
    sample = training[draw.permutation(len(training))[:_SAMPLE]]
    hits = find_hits(sample, motifs, p_value=run.interactions.hit_p_value)
    count = np.bincount(hits["motif"].to_numpy(dtype=int), minlength=len(motifs))
    by_count = [int(m) for m in np.argsort(-count, kind="stable")]
    kept = _with_members(by_count, group.tolist())
    if len(kept) > most:
        family = [motif.family or motif.motif_id for motif in motifs]
        merged = _with_members(list(kept), family)
        # Of a family's motifs all those that its members stand for.
        kept = {m: [each for other in merged[m] for each in kept[other]] for m in list(merged)[:most]}
        warnings.warn(
            f"pairs are made of {len(kept)} of {len(motifs)} motifs: those with most hits, one of each family; "
            "interactions.most_motifs or motifs.jaspar_ids change that",
            BioattnWarning,
            stacklevel=3,
        )
    chosen = sorted(kept)
    return [motifs[m] for m in chosen], [tuple(motifs[other].name for other in kept[m]) for m in chosen]


def _with_members(order: Sequence[int], label: Sequence[Any]) -> dict[int, list[int]]:
    """The first of each label in this order, with all that have it."""
    first: dict[Any, int] = {}
    found: dict[int, list[int]] = {}
    for m in order:
        found.setdefault(first.setdefault(label[m], m), []).append(m)
    return found


def save_library(folder: str | Path, library: Library, record: Mapping[str, Any]) -> None:
    """Write hits.parquet and library.parquet, whole or not at all."""
    table = pd.DataFrame(
        {
            "motif_id": [motif.motif_id for motif in library.motifs],
            "name": [motif.name for motif in library.motifs],
            "family": [motif.family for motif in library.motifs],
            "members": [list(names) for names in library.members],
            "ppm": [motif.ppm.ravel().tolist() for motif in library.motifs],
        }
    )
    with replacing_folder(folder) as made:
        write_parquet(made / "library.parquet", table, record)
        write_parquet(made / "hits.parquet", library.hits, record)


def load_library(folder: str | Path) -> Library:
    """What `save_library` wrote. Raises `DataError` if it is not there."""
    missing = [name for name in ("library.parquet", "hits.parquet") if not (Path(folder) / name).exists()]
    if missing:
        raise DataError(f"{folder}: no {' and no '.join(missing)}; a folder of the verb hits is needed")
    table = read_parquet(Path(folder) / "library.parquet")
    motifs = [
        Motif(row["name"], row["motif_id"], np.asarray(row["ppm"]).reshape(alphabet.N_LETTERS, -1), row["family"])
        for row in table.to_dict("records")
    ]
    members = [tuple(names) for names in table["members"]]
    return Library(motifs, members, read_parquet(Path(folder) / "hits.parquet"))
