"""Which head carries the interaction of a pair: its edges cut in one head, against the other heads of the layer."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bioattn import rng
from bioattn.causal.nulls import sign_flip_p

_PAIR = ["motif_a", "motif_b"]
#: Columns of knock-ins that hold the epistasis with edges cut in one head, named after its layer and head.
PREFIX = "epistasis_cut_"


def carrying_heads(replicates: Sequence[pd.DataFrame], *, minimum: float, permutations: int, seed: int) -> pd.DataFrame:
    """The head of each model through which most of a pair's epistasis passes, and whether others would do as well.

    The head is chosen in every second background and judged in the others, so that choosing the
    largest share does not make it large.

    Parameters
    ----------
    replicates : sequence of DataFrame
        `bioattn.causal.marginalize.KnockIn.pairs` of each model, with edges; columns of heads and the four cells.
    minimum : float
        Pairs with a smaller epistasis are left out.

    Returns
    -------
    DataFrame
        motif_a, motif_b, carrying_head ("layer.head" of each replicate), head_fraction (share of the
        epistasis that is gone when the edges are cut in that head alone, mean over replicates), head_p (one-sided
        sign flips of backgrounds: its share beyond the mean of the other heads of its layer; NaN for layers of one).
    """
    found = [_epistasis(cells) for cells in replicates]
    rows = []
    for a, b in found[0][_PAIR].drop_duplicates().itertuples(index=False):
        of_pair = [_of_pair(each, (a, b)) for each in found]
        if abs(float(np.mean([each["epistasis"].mean() for each in of_pair]))) <= minimum:
            continue
        chosen, shares, beyond = [], [], []
        for each in of_pair:
            name, share, more = _in_one_model(each)
            chosen.append(name)
            shares.append(share)
            beyond.append(more)
        draw = rng.stream(seed, "nulls", "heads", a, b)
        p_value = sign_flip_p(np.mean(beyond, axis=0), permutations=permutations, rng=draw)
        rows.append([a, b, ", ".join(chosen), float(np.mean(shares)), p_value])
    return pd.DataFrame(rows, columns=[*_PAIR, "carrying_head", "head_fraction", "head_p"])


def _epistasis(cells: pd.DataFrame) -> pd.DataFrame:
    """Epistasis, and with edges cut in each head, of rows in which that was measured."""
    heads = [name for name in cells if str(name).startswith(PREFIX)]
    measured = cells[cells[heads[0]].notna()] if heads else cells.iloc[:0]
    epistasis = measured["y11"] - measured["y10"] - measured["y01"] + measured["y00"]
    return measured[[*_PAIR, "instance", *heads]].assign(epistasis=epistasis)


def _of_pair(table: pd.DataFrame, pair: tuple[int, int]) -> pd.DataFrame:
    rows = table[(table["motif_a"] == pair[0]) & (table["motif_b"] == pair[1])]
    return rows.sort_values("instance", ignore_index=True)


def _in_one_model(rows: pd.DataFrame) -> tuple[str, float, np.ndarray]:
    """Name of the head, its share, and in each background its share beyond that of the other heads of its layer."""
    heads = [str(name) for name in rows if str(name).startswith(PREFIX)]
    whole = rows["epistasis"].to_numpy()
    gone = (whole[:, None] - rows[heads].to_numpy()) * np.sign(whole.mean())
    even = np.arange(len(rows)) % 2 == 0
    best = int(gone[even].mean(0).argmax())
    layer = heads[best].removeprefix(PREFIX).split(".")[0]
    others = [i for i, name in enumerate(heads) if i != best and name.removeprefix(PREFIX).split(".")[0] == layer]
    mine = gone[~even, best]
    beyond = mine - gone[~even][:, others].mean(1) if others else np.full(len(mine), np.nan)
    return heads[best].removeprefix(PREFIX), float(mine.mean() / abs(whole[~even].mean())), beyond
