"""Which motifs that are known to be there the heads of a model show."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn.config import ENRICHED_Q, ExplainConfig
from bioattn.data.motif import Motif, best_correlation
from bioattn.errors import DataError
from bioattn.explain.head_motifs import enriched_motifs
from bioattn.explain.naming import NamedMatch, read_matches
from bioattn.explain.similar_motifs import align
from bioattn.models import SequenceModel

#: A known motif is found if a head's motif correlates with it at least so much.
FOUND_CORRELATION = 0.8
#: It is recovered, as a matrix that can stand for it, at this one.
RECOVERED_CORRELATION = 0.9

RECOVERY_COLUMNS = (
    "motif", "motif_id", "layer", "head", "number", "correlation", "q_value", "verdict", "named",
)  # fmt: skip


def motif_recovery(
    model: SequenceModel,
    discovery: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    known: Sequence[Motif],
    config: ExplainConfig,
    *,
    readout: int = 0,
    seed: int = 0,
) -> float:
    """Share of the known motifs that some head's motif matches; NaN for a model without attention.

    Only motifs count that are enriched in held-out sequences. A match is a
    correlation of at least `FOUND_CORRELATION` (see `best_correlation`): the p-values
    of a name would need a library much larger than the few motifs of a run.

    Raises
    ------
    DataError
        If no motif is known.
    """
    if not known:
        raise DataError("no motif is known, so there is no share of them to recover")
    if model.n_heads == 0:
        return float("nan")
    found = enriched_motifs(model, discovery, held_out, config, readout=readout, seed=seed)
    alike = align([motif.ppm for motif in known], [motif.ppm for motif in found]).correlation
    return float((alike >= FOUND_CORRELATION).any(axis=1).mean())


def recovery_table(
    found: pd.DataFrame, motifs: Sequence[Motif], known: Sequence[Motif], *, library: Sequence[Motif] = ()
) -> pd.DataFrame:
    """The head motif that comes closest to each known motif, and whether it was named right.

    Enriched ones (q < 0.05) go first, however close others come; a known motif counts as
    recovered at `RECOVERED_CORRELATION`, and what else it takes (a verdict) is up to
    the reader of the table.

    Parameters
    ----------
    found : DataFrame
        Table of `HeadMotifs`.
    motifs : sequence of Motif
        Motifs of `HeadMotifs`: those of the table's rows that have one, in their order.
    library : sequence of Motif
        What the found motifs were named after. Without it, a name of a motif that
        belongs to no family is right only if it is the known motif's own.

    Returns
    -------
    DataFrame
        One row per known motif: motif, motif_id, layer, head, number (of the motif within
        its head), correlation, q_value, verdict, named (a match of the right family is among
        the matches). Where no head has a motif: -1, NaN and "".

    Raises
    ------
    DataError
        If no motif is known, or table and motifs do not belong together.
    """
    if not known:
        raise DataError("no motif is known, so there is none to recover")
    rows = found[found["motif"] >= 0].reset_index(drop=True)
    if len(rows) != len(motifs):
        raise DataError(f"the table has {len(rows)} rows with a motif, found {len(motifs)} motifs")
    alike = align([motif.ppm for motif in known], [motif.ppm for motif in motifs]).correlation
    enriched = rows["q_value"].to_numpy(np.float64) < ENRICHED_Q
    by_id = {motif.motif_id: motif for motif in library}
    result = []
    for motif, values in zip(known, alike, strict=True):
        row: dict[str, Any] = {"motif": motif.name, "motif_id": motif.motif_id}
        if len(rows):
            best = int(np.lexsort((values, enriched))[-1])
            at = rows.iloc[best]
            row |= {"layer": at["layer"], "head": at["head"], "number": at["motif"], "correlation": values[best]}
            row |= {"q_value": at["q_value"], "verdict": at["verdict"]}
            row |= {"named": any(_same(match, motif, by_id) for match in read_matches(str(at["matches"])))}
        else:
            row |= {"layer": -1, "head": -1, "number": -1, "correlation": np.nan, "q_value": np.nan}
            row |= {"verdict": "", "named": False}
        result.append(row)
    return pd.DataFrame(result, columns=list(RECOVERY_COLUMNS))


def _same(match: NamedMatch, motif: Motif, library: dict[str, Motif]) -> bool:
    """Whether a match says what a known motif is: itself, its family, or a matrix that is nearly the same."""
    if match.motif_id == motif.motif_id or set(match.families) & (set(motif.family.split("; ")) - {""}):
        return True
    named = library.get(match.motif_id)
    return named is not None and best_correlation(named.ppm, motif.ppm) >= RECOVERED_CORRELATION
