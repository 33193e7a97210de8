"""Sums over whole attention patterns that are never held.

What a key receives is the sum of exp(s_qk - lse_q) over queries q, where lse_q is
the logarithm of the denominator of a query's softmax. Fused kernels return lse,
and a second call with the roles of queries and keys exchanged and -lse_q added to
the scores returns the logarithm of that sum; what it mixes is the mean over queries,
so times the sum it is the pattern's transpose times anything that queries have. The
entropy of a row is lse_q less its mean score, and the mean score is the query times
the mean key, which is what the kernel returns where keys serve as values.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from bioattn.nn import attention
from bioattn.nn.backends import MOST_SCORES, Layout, Local, Part, make_layout, take
from bioattn.nn.multihead import MultiHeadAttention

#: Added to scores of what is padding: its exponential is zero beside any other.
_NEVER = -1e30
#: Highest bound on scores with which float32 leaves errors of about 1e-5 in a sum over a column of the pattern.
_MOST_IN_SUMS = 256.0
#: The same in a single entry, and in an entropy, which is a difference of two numbers as large as scores.
_MOST_IN_ENTRIES = 64.0
#: Not every build of PyTorch has it.
_HAS_KERNEL = hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")


class Observed(NamedTuple):
    """One attention layer on some examples.

    `query` and `key` (B, H, L, C); `keep` (B, L) is True for real tokens, or None
    if all are; `rows` says which examples of the caller these are.
    """

    module: MultiHeadAttention
    query: Tensor
    key: Tensor
    keep: Tensor | None
    rows: slice


def is_plain(seen: Observed) -> bool:
    """Whether scores are dot products of all pairs of tokens, and on a CPU: then fused kernels give sums."""
    module = seen.module
    is_dot_product = module.relative is None and module.backend.mask is None
    return _HAS_KERNEL and is_dot_product and seen.key.device.type == "cpu"


def layer_sums(seen: Observed) -> tuple[Tensor, Tensor]:
    """Attention that each key receives from real queries, and entropy of each query in bits, of one layer.

    Both (B, H, L), float32; NaN at padding. By fused kernels on a CPU where scores are
    plain dot products; with a sparse mask or a bias, and on a GPU, in chunks of queries.
    """
    received, entropy = _fused(seen) if is_plain(seen) else _chunked(seen)
    return _without_padding(received, seen.keep), _without_padding(entropy, seen.keep)


def layer_received(seen: Observed) -> Tensor:
    """The first of `layer_sums`, in less time."""
    if not is_plain(seen):
        return layer_sums(seen)[0]
    return layer_returns(seen, seen.query)[0]


def layer_returns(seen: Observed, x_BHLC: Tensor, *, lse: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Attention that each key receives (B, H, L), and sum over real queries of pattern times `x` (B, H, L, C).

    The former is NaN at padding, the latter zero.
    With the gradient of a head's output for `x` that is the gradient of its values.

    Parameters
    ----------
    seen : Observed
        Of a layer that `is_plain`.
    lse : Tensor, shape (B, H, L), optional
        What `kept_lse` found; else it is computed.
    """
    raised = _raised(seen, _MOST_IN_SUMS)
    if lse is None or lse.dtype != raised.key.dtype:
        lse = _row_sums(raised)[1]
    received, returned = _column_sums(raised, lse, x_BHLC.to(lse.dtype))
    if seen.keep is not None:
        returned = returned.masked_fill(~seen.keep[:, None, :, None], 0.0)
    return _without_padding(received, seen.keep), returned.float()


def kept_lse(values: Tensor) -> Tensor | None:
    """Logarithms of denominators (B, H, L) that a fused kernel kept for the gradient of its values, or None."""
    return getattr(values.grad_fn, "_saved_logsumexp", None)


def layer_columns(seen: Observed, keys_BK: Tensor) -> Tensor:
    """Pattern entries (B, H, K, L) of all queries for chosen keys, of a layer that `is_plain`; -1 gives zeros."""
    seen = _raised(seen, _MOST_IN_ENTRIES)
    lse = _row_sums(seen)[1]
    index = keys_BK.clamp(min=0)
    chosen = seen.key.gather(2, index[:, None, :, None].expand(-1, seen.key.shape[1], -1, seen.key.shape[-1]))
    scores_BHKL = attention.scores(chosen, seen.query) - lse[:, :, None]
    there = keys_BK >= 0 if seen.keep is None else (keys_BK >= 0) & seen.keep.gather(1, index)
    return scores_BHKL.exp().masked_fill(~there[:, None, :, None], 0.0)


def _without_padding(sums: Tensor, keep: Tensor | None) -> Tensor:
    sums = sums.float()
    return sums if keep is None else sums.masked_fill(~keep[:, None].to(sums.device), math.nan)


def is_exact(seen: Observed) -> bool:
    """Whether the numbers' own precision is enough for sums over columns of the pattern."""
    return _precision(seen, _MOST_IN_SUMS) == seen.key.dtype


def _precision(seen: Observed, most: float) -> torch.dtype:
    """At least float32, and float64 where scores may be larger than `most`."""
    raised = torch.promote_types(seen.key.dtype, torch.float32)
    return torch.float64 if raised == torch.float32 and _score_bound(seen.query, seen.key) > most else raised


def _raised(seen: Observed, most: float) -> Observed:
    raised = _precision(seen, most)
    return seen._replace(query=seen.query.to(raised), key=seen.key.to(raised))


def _score_bound(query: Tensor, key: Tensor) -> float:
    norms = [torch.linalg.vector_norm(x, dim=-1, dtype=torch.float32).max() for x in (query, key)]
    return float(norms[0] * norms[1]) / math.sqrt(query.shape[-1])


def _fused(seen: Observed) -> tuple[Tensor, Tensor]:
    """Received attention and entropy of a layer, by two fused calls."""
    seen = _raised(seen, _MOST_IN_ENTRIES)
    mean_key, lse = _row_sums(seen)
    mean_score = torch.linalg.vecdot(seen.query, mean_key) / math.sqrt(seen.query.shape[-1])
    entropy = ((lse - mean_score) / math.log(2)).clamp(min=0)
    return _column_sums(seen, lse, seen.query)[0], entropy


def _row_sums(seen: Observed) -> tuple[Tensor, Tensor]:
    """Mean key (B, H, L, C) and logarithm of the denominator (B, H, L) of each query."""
    term = None
    if seen.keep is not None:
        term = torch.where(seen.keep, 0.0, _NEVER).to(seen.key.dtype)[:, None].expand(seen.key.shape[:3])
    return _softmax_over(seen.query, seen.key, term, value=seen.key)


def _column_sums(seen: Observed, lse: Tensor, x_BHLC: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over real queries of the pattern (B, H, L), and of the pattern times x (B, H, L, C)."""
    term = -lse if seen.keep is None else torch.where(seen.keep[:, None], -lse, _NEVER)
    mean, log_received = _softmax_over(seen.key, seen.query, term, value=x_BHLC)
    received = log_received.exp()
    return received, mean * received[..., None]


def _softmax_over(query: Tensor, key: Tensor, term: Tensor | None, *, value: Tensor) -> tuple[Tensor, Tensor]:
    """Mean value (B, H, L, C) and logarithm of the denominator (B, H, L) of softmax(q k / sqrt(C) + term).

    `term` (B, H, K) becomes a channel of the keys, which keeps the kernel on its
    fastest path, unlike a mask.
    """
    width = query.shape[-1]
    scale = 1 / math.sqrt(width)
    if term is not None:
        query, key, value = _widened(query, 1.0), _widened(key, term / scale), _widened(value, 0.0)
    values, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, scale=scale)
    return values[..., :width], lse


def _widened(x: Tensor, last: Tensor | float) -> Tensor:
    """With one more channel, in one pass over `x`."""
    wide = x.new_empty(*x.shape[:-1], x.shape[-1] + 1)
    wide[..., :-1], wide[..., -1] = x, last
    return wide


def _chunked(seen: Observed) -> tuple[Tensor, Tensor]:
    """Received attention and entropy (B, H, L): scores exist for a chunk of queries at a time."""
    n_batch, n_heads, length, _ = seen.key.shape
    received = seen.key.new_zeros((n_batch, n_heads, length), dtype=torch.float32)
    entropy = torch.zeros_like(received)
    for part in _pieces(seen, n_batch * n_heads):
        is_query = part.query >= 0
        real = is_query if seen.keep is None else is_query & seen.keep[:, part.query.clamp(min=0)]
        pattern_BHnwm, total_BHnw, bits_BHnw = _unnormalised(_part_scores(seen, part))
        # Where a block is filled up, its last query stands for nothing: leave it out.
        index = part.query.clamp(min=0)[is_query]
        entropy[:, :, index] = bits_BHnw[:, :, is_query].float()
        weight_BHnw = real.view(-1, 1, *real.shape[-2:]) / total_BHnw
        given_BHnm = (weight_BHnw[..., None, :] @ pattern_BHnwm).squeeze(-2)
        received.index_add_(2, part.key.flatten(), given_BHnm.flatten(2).float())
    return received, entropy


def _pieces(seen: Observed, n_rows: int) -> Iterator[Part]:
    """Queries of a layer in pieces that bound the scores; fillers of a block are marked -1."""
    length, device = seen.key.shape[2], seen.key.device
    backend = seen.module.backend
    layout: Layout
    if isinstance(backend, Local):
        layout = backend.layout(length, device)
    else:
        block = max(1, min(length, MOST_SCORES // (n_rows * length)))
        layout = make_layout(None, length, device, block=block)
    for part in layout.parts:
        n_scores = n_rows * part.query.shape[1] * part.key.shape[1]
        for piece in part.pieces(max(1, MOST_SCORES // n_scores)):
            first = piece.query[:, :1]
            filler = piece.query != first + torch.arange(piece.query.shape[1], device=device)
            allowed = piece.allowed
            if backend.mask is not None and not isinstance(backend, Local):
                allowed = allowed & backend.mask.allows(piece.query[:, :, None], piece.key[:, None])
            yield Part(piece.query.masked_fill(filler, -1), piece.key, allowed)


def _part_scores(seen: Observed, part: Part) -> Tensor:
    """Scores (B, H, n, w, m) of the queries of a part over the keys of their blocks."""
    index = part.query.clamp(min=0)
    bias = None
    if seen.module.relative is not None:
        bias = seen.module.relative(index[:, :, None], part.key[:, None])
    keep = None if bool(part.allowed[part.query >= 0].all()) else part.allowed
    if seen.keep is not None:
        real = seen.keep[:, None, part.key][:, :, :, None]
        keep = real if keep is None else keep & real
    return attention.scores(take(seen.query, index), take(seen.key, part.key), bias=bias, keep=keep)


def _unnormalised(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pattern times its row sums, the row sums, and the entropy of the rows in bits, in few passes over `scores`.

    `scores` is overwritten. A row without keys gives zeros.
    """
    highest = scores.amax(-1, keepdim=True)
    nothing = highest == -math.inf
    # Entries so far below the highest are zero in the pattern, and finite here: zero times minus infinity is NaN.
    below = scores.sub_(highest.masked_fill(nothing, 0.0)).clamp_(min=-1e4)
    pattern = below.exp()
    total = pattern.sum(-1)
    entropy = total.log() - torch.linalg.vecdot(pattern, below) / total
    nothing = nothing.squeeze(-1)
    total = total.masked_fill(nothing, math.inf)
    return pattern, total, entropy.masked_fill(nothing, 0.0) / math.log(2)
