"""Many chains made ready for networks: read, grouped by relatedness, held out, and kept in one table."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn.config import ChainsConfig, CouplingsConfig
from bioattn.data.residues import N_AMINO_ACIDS, encode_residues, one_hot_residues, profile
from bioattn.data.structure import Chain, pair_distances
from bioattn.errors import BioattnError, DataError
from bioattn.io.chains import read_chains
from bioattn.io.msa import read_alignment
from bioattn.protein.batches import Protein
from bioattn.protein.coevolution import coupling_scores, mean_field_couplings
from bioattn.protein.family import family_of
from bioattn.protein.relatives import leakage, related_pairs, split_chains


class Prepared(NamedTuple):
    """Chains ready for networks.

    Attributes
    ----------
    chains : DataFrame
        name, sequence, cb (places of C-beta, flat, x y z of each residue), profile and couplings (flat; missing without
        an alignment), n_effective, group, subset.
    rejected : DataFrame
        name, source, reason.
    related : DataFrame
        See `bioattn.protein.relatives.related_pairs`.
    leakage : DataFrame
        See `bioattn.protein.relatives.leakage`.
    """

    chains: pd.DataFrame
    rejected: pd.DataFrame
    related: pd.DataFrame
    leakage: pd.DataFrame


def prepare_chains(
    config: ChainsConfig,
    couplings: CouplingsConfig,
    *,
    seed: int,
    tick: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Read all chains of a source, hold out groups of related ones, and say what leaks.

    Raises
    ------
    DataError
        If the source cannot be read, or some chains have an alignment and others none.
    """
    found = read_chains(
        config.source,
        least_residues=config.least_residues,
        most_residues=config.most_residues,
        least_resolved=config.least_resolved,
    )
    rows, rejected = [], []
    for name, chain in found.chains.items():
        path = found.alignments.get(name)
        try:
            rows.append(_alone(name, chain) if path is None else _with_alignment(name, chain, path, couplings))
        except BioattnError as error:
            rejected.append((name, str(path), str(error)))
    if found.alignments and len(found.alignments) < len(found.chains):
        without = next(name for name in found.chains if name not in found.alignments)
        raise DataError(f"{config.source}: '{without}' has no alignment, but others have: give one to all or to none")
    if not rows:
        raise DataError(f"{config.source}: no chain can be used, first {rejected[0][0]}: {rejected[0][2]}")
    table = pd.DataFrame(rows)
    related = related_pairs(table["sequence"].tolist(), most_e_value=config.most_e_value, tick=tick)
    parts = split_chains(
        len(table),
        related,
        test_fraction=config.test_fraction,
        validation_fraction=config.validation_fraction,
        seed=seed,
    )
    more = pd.DataFrame(rejected, columns=found.rejected.columns)
    return Prepared(
        pd.concat([table, parts], axis=1),
        pd.concat([found.rejected, more], ignore_index=True) if len(more) else found.rejected,
        related.assign(
            left=table["name"].to_numpy()[related["left"]], right=table["name"].to_numpy()[related["right"]]
        ),
        leakage(parts["subset"].tolist(), related),
    )


def _alone(name: str, chain: Chain) -> dict[str, object]:
    return _row(name, chain.sequence, chain.cb_angstrom)


def _with_alignment(name: str, chain: Chain, path: Path, config: CouplingsConfig) -> dict[str, object]:
    family = family_of(read_alignment(path), chain, most_gaps=config.most_gaps, identity=config.identity)
    scores = coupling_scores(mean_field_couplings(family.codes, family.weights, pseudocount=config.pseudocount))
    # In units of the spread of all pairs: alignments differ in depth.
    scores = scores / (scores[np.triu_indices(len(scores), 1)].std() or 1.0)
    return _row(
        name, family.query, family.cb_angstrom, profile=profile(family.codes, family.weights), couplings=scores,
        n_effective=family.n_effective,
    )  # fmt: skip


def _row(
    name: str,
    sequence: str,
    cb: NDArray[np.float64],
    *,
    profile: NDArray[np.float64] | None = None,
    couplings: NDArray[np.float64] | None = None,
    n_effective: float = float("nan"),
) -> dict[str, object]:
    return {
        "name": name,
        "sequence": sequence,
        "cb": cb.astype(np.float32).ravel(),
        "profile": None if profile is None else profile.astype(np.float32).ravel(),
        "couplings": None if couplings is None else couplings.astype(np.float32).ravel(),
        "n_effective": n_effective,
    }


def proteins_of(table: pd.DataFrame) -> list[Protein]:
    """Chains of `Prepared.chains` as networks see them.

    Residues are one-hot, with the profile of the alignment beside it if there is one; couplings are a feature of pairs.

    Raises
    ------
    DataError
        If a column is missing.
    """
    missing = [name for name in ("name", "sequence", "cb", "profile", "couplings") if name not in table]
    if missing:
        raise DataError(f"the table of chains has no column {missing}, found {list(table.columns)}: prepare it anew")
    made = []
    for row in table.to_dict("records"):
        sequence = str(row["sequence"])
        n = len(sequence)
        single = one_hot_residues(encode_residues(sequence), n=N_AMINO_ACIDS)
        pair = None
        if row["profile"] is not None:
            single = np.concatenate([single, np.asarray(row["profile"], dtype=np.float32).reshape(n, -1)], axis=1)
            pair = np.asarray(row["couplings"], dtype=np.float32).reshape(n, n, 1)
        distances = pair_distances(np.asarray(row["cb"], dtype=np.float64).reshape(n, 3))
        made.append(Protein(str(row["name"]), single, distances.astype(np.float32), pair))
    return made
