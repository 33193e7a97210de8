"""One family looked at in full: couplings, attention and its heads, against the structure and two nulls."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn.config import CouplingsConfig, FactoredConfig, FamilyConfig
from bioattn.data.residues import sequence_weights, shuffled_columns
from bioattn.data.structure import CONTACT_ANGSTROM
from bioattn.io.msa import read_alignment
from bioattn.io.packages import find_data
from bioattn.io.structures import read_chain
from bioattn.protein.coevolution import average_product_corrected, coupling_scores, mean_field_couplings
from bioattn.protein.contacts import contact_precision
from bioattn.protein.factored import FactoredAttention, family_scores, fit_family
from bioattn.protein.family import Family, family_of
from bioattn.protein.phylogeny import descend
from bioattn.rng import stream

#: What an alignment is replaced by: nothing; columns permuted; sequences of the same tree, columns by themselves.
CONTROLS = ("alignment", "permuted columns", "phylogeny alone")
#: The two ways, and the mean over seeds of the second.
COUPLINGS, ATTENTION = "mean-field couplings", "factored attention"
_HEADS = ["seed", "head", "precision", "table_size"]


class FamilyAnalysis(NamedTuple):
    """What is said of a family.

    Attributes
    ----------
    precision : DataFrame
        method, control, seed ("mean": scores averaged over seeds; NA: no seed), range, top, precision, n, n_contacts,
        n_pairs.
    pairs : DataFrame
        i, j (0-based, of the query), residue_i, residue_j, distance_angstrom, contact, couplings, attention (mean over
        seeds).
    heads : DataFrame
        seed, head, precision (long range, best L/5), table_size (root mean square of its table of residues).
    patterns : ndarray, float32, shape (H, L, L)
        Symmetrised and corrected patterns of the first seed's heads.
    losses : DataFrame
        seed, step, loss.
    """

    precision: pd.DataFrame
    pairs: pd.DataFrame
    heads: pd.DataFrame
    patterns: NDArray[np.float32]
    losses: pd.DataFrame

    @classmethod
    def empty(cls) -> "FamilyAnalysis":
        """Tables without a row: of a family that cannot be used."""
        precision = ["method", "control", "seed", "range", "top", "precision", "n", "n_contacts", "n_pairs"]
        scored = ["distance_angstrom", "contact", "couplings", "attention"]
        return cls(
            pd.DataFrame(columns=precision),
            pd.DataFrame(columns=["i", "j", "residue_i", "residue_j", *scored]),
            pd.DataFrame(columns=_HEADS),
            np.zeros((0, 0, 0), dtype=np.float32),
            pd.DataFrame(columns=["seed", "step", "loss"]),
        )


def load_family(family: FamilyConfig, couplings: CouplingsConfig) -> Family:
    """Read an alignment and its structure.

    Raises
    ------
    DataError
        If either cannot be read, or they do not fit.
    """
    alignment = read_alignment(find_data(family.alignment), lower_case=family.lower_case)
    chain = read_chain(find_data(family.structure), family.chain)
    return family_of(alignment, chain, query=family.query, most_gaps=couplings.most_gaps, identity=couplings.identity)


def analyse_family(
    family: Family,
    couplings: CouplingsConfig,
    factored: FactoredConfig,
    *,
    seed: int,
    tick: Callable[[str], None] | None = None,
) -> FamilyAnalysis:
    """Contacts by couplings and by attention, on the alignment and on its two nulls.

    Nulls are fitted with the first seed alone.

    Parameters
    ----------
    tick : callable, optional
        Called with a word on what begins.
    """
    distances = family.distances_angstrom
    precisions, losses, heads = [], [], []
    patterns: NDArray[np.float32] | None = None
    scored: dict[str, NDArray[np.float64]] = {}
    for control, codes, weights in with_nulls(family, couplings.identity, seed):
        if tick is not None:
            tick(f"{control}: {COUPLINGS}")
        found = mean_field_couplings(codes, weights, pseudocount=couplings.pseudocount)
        scores = coupling_scores(found)
        precisions.append(_precision(scores, distances, COUPLINGS, control, "NA"))
        own = control == CONTROLS[0]
        if own:
            scored["couplings"] = scores
        made = []
        for each in factored.seeds if own else factored.seeds[:1]:
            if tick is not None:
                tick(f"{control}: {ATTENTION}, seed {each}")
            fitted = fit_family(codes, weights, seed=each, **factored.model_dump(exclude={"seeds"}))
            made.append(family_scores(fitted.model))
            precisions.append(_precision(made[-1], distances, ATTENTION, control, str(each)))
            if own:
                maps, table = _heads(fitted.model, distances, each)
                patterns = maps if patterns is None else patterns
                heads.append(table)
                losses.append(
                    pd.DataFrame({"seed": each, "step": np.arange(len(fitted.losses)), "loss": fitted.losses})
                )
        if own:
            scored["attention"] = np.mean(made, axis=0)
            precisions.append(_precision(scored["attention"], distances, ATTENTION, control, "mean"))
    assert patterns is not None
    return FamilyAnalysis(
        pd.concat(precisions, ignore_index=True),
        _pairs(family, scored),
        pd.concat(heads, ignore_index=True),
        patterns,
        pd.concat(losses, ignore_index=True),
    )


def with_nulls(
    family: Family, identity: float, seed: int
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.float64]]]:
    """Name, codes and weights of the alignment and of its nulls (`CONTROLS`), each with weights of its own rows."""
    yield CONTROLS[0], family.codes, family.weights
    permuted = shuffled_columns(family.codes, stream(seed, "protein", "permuted"))
    yield CONTROLS[1], permuted, sequence_weights(permuted, identity=identity)
    descended = descend(family.codes, family.weights, stream(seed, "protein", "phylogeny"))
    yield CONTROLS[2], descended, sequence_weights(descended, identity=identity)


def _precision(
    scores: NDArray[np.float64], distances: NDArray[np.float64], method: str, control: str, seed: str
) -> pd.DataFrame:
    table = contact_precision(scores, distances)
    table.insert(0, "method", method)
    table.insert(1, "control", control)
    table.insert(2, "seed", seed)
    return table


def _heads(
    model: FactoredAttention, distances: NDArray[np.float64], seed: int
) -> tuple[NDArray[np.float32], pd.DataFrame]:
    patterns = model.pattern().detach().double().numpy()
    maps = np.stack([average_product_corrected(pattern) for pattern in patterns])
    sizes = model.value.detach().square().mean((1, 2)).sqrt().tolist()
    rows = []
    for head, (scores, size) in enumerate(zip(maps, sizes, strict=True)):
        table = contact_precision(scores, distances)
        best = table[(table["range"] == "long") & (table["top"] == "L/5")]["precision"].iloc[0]
        rows.append([seed, head, float(best), size])
    return maps.astype(np.float32), pd.DataFrame(rows, columns=_HEADS)


def _pairs(family: Family, scored: dict[str, NDArray[np.float64]]) -> pd.DataFrame:
    i, j = np.triu_indices(len(family.query), 1)
    letters = np.array(list(family.query))
    distance = family.distances_angstrom[i, j]
    contact = pd.Series(distance < CONTACT_ANGSTROM, dtype="boolean").mask(np.isnan(distance))
    return pd.DataFrame(
        {
            "i": i, "j": j, "residue_i": letters[i], "residue_j": letters[j], "distance_angstrom": distance,
            "contact": contact, **{name: scores[i, j] for name, scores in scored.items()},
        }
    ).sort_values("attention", ascending=False, ignore_index=True)  # fmt: skip
