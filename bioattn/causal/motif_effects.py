"""What single motifs do: put into backgrounds, against their own letters in another order in the same places."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn import rng
from bioattn.causal.nulls import benjamini_hochberg, crossed_interval, directed_sign_flip_p

#: Definition of every column of motifs.tsv.
COLUMNS = {
    "tf": "name of the motif",
    "motif_id": "its accession",
    "family": "structural family of its factor",
    "members": "motifs that it stands for: they look so much alike that they share their sites",
    "n_hits": "held-out sequences with a hit",
    "effect": "change of the readout when a site is put into backgrounds, pre-link scale, mean over replicates and "
    "backgrounds",
    "effect_ci_low": "2.5 % bound, replicates and backgrounds both as random draws (two-way random effects, t)",
    "effect_ci_high": "97.5 % bound, likewise",
    "decoy_effect": "the same with the site's letters in another order",
    "p_value": "of the effect being that of the decoy: sign flips of backgrounds, two-sided",
    "q_value": "p_value after Benjamini-Hochberg over motifs",
    "seeds_supporting": "replicates whose effect, less that of the decoy, has the sign of the mean",
    "n_replicates": "trained models",
    "n_backgrounds": "backgrounds",
}


def motif_effects(replicates: Sequence[pd.DataFrame], *, n_motifs: int, permutations: int, seed: int) -> pd.DataFrame:
    """Effect of each motif alone, from the cells of pairs in which it takes part.

    Parameters
    ----------
    replicates : sequence of DataFrame
        `bioattn.causal.marginalize.KnockIn.pairs` of each model, in the same backgrounds, with pairs of
        decoys (numbered from `n_motifs`).

    Returns
    -------
    DataFrame
        motif (index) and the numbers among `COLUMNS`: one row for each motif that was put in, with NaN for the
        decoy where that was not.
    """
    effects = [_single(cells) for cells in replicates]
    rows = []
    for motif in [m for m in range(n_motifs) if m in effects[0]]:
        mine = np.stack([each[motif].to_numpy() for each in effects])
        low, high = crossed_interval(mine)
        row = {
            "motif": motif, "effect": mine.mean(), "effect_ci_low": low, "effect_ci_high": high,
            "n_replicates": len(mine), "n_backgrounds": mine.shape[1],
        }  # fmt: skip
        decoy = motif + n_motifs
        if decoy in effects[0]:
            other = np.stack([each[decoy].to_numpy() for each in effects])
            row |= _beyond(mine - other, permutations, rng.stream(seed, "nulls", "motifs", motif))
            row["decoy_effect"] = other.mean()
        rows.append(row)
    names = ["motif", *(name for name in COLUMNS if name not in ("tf", "motif_id", "family", "members", "n_hits"))]
    table = pd.DataFrame(rows).reindex(columns=names)
    table["q_value"] = benjamini_hochberg(table["p_value"].to_numpy(dtype=np.float64))
    return table


def _single(cells: pd.DataFrame) -> pd.DataFrame:
    """Effect of each motif (columns) in each background (rows), mean over the places it was put."""
    sides = [
        pd.DataFrame(
            {"motif": cells[f"motif_{side}"], "instance": cells["instance"], "effect": cells[cell] - cells["y00"]}
        )
        for side, cell in (("a", "y10"), ("b", "y01"))
    ]
    return pd.concat(sides).pivot_table(index="instance", columns="motif", values="effect")


def _beyond(values: NDArray[np.float64], permutations: int, draw: np.random.Generator) -> dict[str, float]:
    """Test of effects less those of the decoy, (R, I)."""
    mean = values.mean()
    p_value = directed_sign_flip_p(values.mean(0), mean, permutations=permutations, rng=draw)
    return {"p_value": p_value, "seeds_supporting": int((np.sign(values.mean(1)) == np.sign(mean)).sum())}
