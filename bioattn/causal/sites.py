"""Sites of motifs that are put into backgrounds: real ones, drawn from the hits in sequences."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn import rng
from bioattn.data import alphabet
from bioattn.data.motif import Motif, log_odds, score_threshold

#: With fewer hits, sites are drawn from the matrix.
_FEWEST_HITS = 10
#: Sites drawn from a matrix until one scores like a hit.
_DRAWS = 20


def drawn_sites(
    codes: NDArray[np.uint8],
    hits: pd.DataFrame,
    motifs: Sequence[Motif],
    *,
    n: int,
    hit_p_value: float,
    seed: int,
) -> list[NDArray[np.uint8]]:
    """Letters (n, W) of `n` sites of each motif, on the motif's own strand.

    Hits in the sequences are what the data hold and what models have seen, strong and weak ones.
    Where there are fewer than ten, sites are drawn from the matrix: the first of twenty that scores
    like a hit, or the best of them. A motif's sites do not depend on which others there are.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    hits : DataFrame
        As `bioattn.explain.hits.find_hits` gives them, on the rows of `codes`.
    """
    found = []
    for m, motif in enumerate(motifs):
        draw = rng.stream(seed, "insertions", motif.motif_id)
        known = _hit_letters(codes, hits[hits["motif"] == m], motif.width)
        if len(known) >= _FEWEST_HITS:
            found.append(known[draw.integers(0, len(known), n)])
        else:
            least = score_threshold(log_odds(motif.ppm), hit_p_value)
            found.append(_from_matrix(motif, n, least, draw))
    return found


def _hit_letters(codes: NDArray[np.uint8], hits: pd.DataFrame, width: int) -> NDArray[np.uint8]:
    """Letters (n, W) of hits without unknown bases, turned to the motif's strand."""
    at = hits["start"].to_numpy(dtype=np.int64)[:, None] + np.arange(width)
    letters = codes[hits["sequence"].to_numpy(dtype=np.int64)[:, None], at]
    reverse = (hits["strand"] == "-").to_numpy()
    known = (letters < alphabet.N_LETTERS).all(1)
    turned: NDArray[np.uint8] = np.where(reverse[:, None], 3 - letters[:, ::-1], letters)[known]
    return turned


def _from_matrix(motif: Motif, n: int, least_score: float, draw: np.random.Generator) -> NDArray[np.uint8]:
    upto = np.cumsum(motif.ppm / motif.ppm.sum(0), axis=0)[:-1]
    letters = (draw.random((n, _DRAWS, motif.width, 1)) > upto.T).sum(-1).astype(np.uint8)
    scores = log_odds(motif.ppm)[letters, np.arange(motif.width)].sum(-1)
    good = scores >= least_score
    chosen = np.where(good.any(1), good.argmax(1), scores.argmax(1))
    return letters[np.arange(n), chosen]
