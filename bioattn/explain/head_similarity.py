"""How alike the patterns of two heads are, and how many heads that leaves."""

import numpy as np
import torch
from numpy.typing import NDArray

from bioattn import rng
from bioattn.errors import DataError
from bioattn.explain.predict import batches
from bioattn.models import SequenceModel
from bioattn.nn.observe import BATCH, attention_rows

#: Pattern entries of all heads that are held at once.
_MOST_ENTRIES = 2**24


def head_similarity(
    model: SequenceModel, codes: NDArray[np.uint8], *, n_sequences: int = 100, n_queries: int = 20, seed: int = 0
) -> NDArray[np.float64]:
    """Overlap of the patterns of all pairs of heads, shape (C, C), C = layer * n_heads + head.

    For a query, the overlap of two rows is the sum of the smaller entries: the part of
    the attention that both heads give to the same keys, 1 for equal rows and 0 for
    disjoint ones. Mean over random queries of random sequences. Overlap and not the
    Jensen-Shannon distance, since it is a share of attention that can be read as such.
    Two heads that read nothing in particular are alike in this sense too: both read
    everything; and so are heads that read the same places whatever stands there.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    n_sequences, n_queries : int
        Sequences, and queries in each, that are looked at. Tokens before the sequence
        are read, but are no queries.

    Returns
    -------
    ndarray, float64, shape (C, C)
        Symmetric, from 0 to 1, 1 on the diagonal.

    Raises
    ------
    DataError
        If no sequence has a base.
    """
    draw = rng.stream(seed, "heads", "similarity")
    some = codes[draw.permutation(len(codes))[:n_sequences]]
    n_heads = model.n_layers * model.n_heads
    total, count = np.zeros((n_heads, n_heads)), 0
    size = max(1, min(BATCH, _MOST_ENTRIES // max(n_heads * n_queries * codes.shape[1], 1)))
    for batch in batches(some, size):
        n_real = model.real_tokens(batch).sum(1).numpy()
        query = (draw.random((len(batch), n_queries)) * n_real[:, None]).astype(np.int64) + model.n_prefix
        query[n_real == 0] = -1
        rows = attention_rows(model, batch, None, None, torch.from_numpy(query), batch_size=size)
        rows = rows.flatten(1, 2)  # (N, C, Q, L)
        for c in range(n_heads):
            overlap = torch.minimum(rows[:, c : c + 1], rows[:, c:]).sum(-1)
            total[c, c:] += overlap.sum((0, 2)).double().numpy()
        count += int((query >= 0).sum())
    if count == 0:
        raise DataError("there is no token to look from: sequences must have at least one base")
    similarity = np.triu(total, 1) / count
    similarity += similarity.T
    np.fill_diagonal(similarity, 1.0)  # exactly: rows of a softmax sum to one only up to rounding
    return similarity.clip(0.0, 1.0)


def effective_heads(similarity: NDArray[np.float64]) -> float:
    """Number of heads that differ: (sum of eigenvalues)^2 / sum of their squares, from 1 to the number of heads.

    All heads alike give 1, heads that share nothing all of them; 0 without heads.
    """
    values = np.linalg.eigvalsh(similarity)
    return float(values.sum() ** 2 / (values**2).sum()) if len(values) else 0.0
