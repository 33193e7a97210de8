"""Scaled dot-product attention: the readable reference, and PyTorch's fused kernels with the same answers."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from bioattn.nn.checks import check_attention, values_known


def scores(query: Tensor, key: Tensor, *, bias: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
    """Scaled dot products with bias; forbidden entries are minus infinity.

    Parameters
    ----------
    query, key : Tensor, shape (B, H, Q, C) and (B, H, K, C)
    bias : Tensor, broadcastable to (B, H, Q, K), optional
        Added after scaling.
    keep : bool Tensor, broadcastable to (B, H, Q, K), optional
        True = may attend.

    Returns
    -------
    Tensor, at least float32, shape (B, H, Q, K)

    Source: Vaswani et al. 2017, eq. 1.
    """
    raised = torch.promote_types(query.dtype, torch.float32)
    result = query.to(raised) @ key.to(raised).transpose(-2, -1) / math.sqrt(query.shape[-1])
    if bias is not None:
        result = result + bias.to(raised)
    if keep is not None:
        result = result.masked_fill(~keep, -math.inf)
    return result


def pattern(scores_BHQK: Tensor) -> Tensor:
    """Softmax over keys. A query that may attend to nothing gets zeros, with finite gradients."""
    forbidden = scores_BHQK == -math.inf
    nothing = forbidden.all(-1, keepdim=True)
    # Softmax of an all -inf row is NaN, and so is its gradient: give such rows equal scores first, zeros after.
    safe = scores_BHQK.masked_fill(nothing, 0.0)
    return torch.softmax(safe, dim=-1).masked_fill(nothing, 0.0)


def scaled_dot_product(
    query: Tensor, key: Tensor, value: Tensor, *, bias: Tensor | None = None, keep: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Values read by each query, and the pattern they were read with: the readable reference.

    Parameters
    ----------
    query, key, value : Tensor, shapes (B, H, Q, C), (B, H, K, C), (B, H, K, C)
    bias, keep
        As for `scores`.

    Returns
    -------
    values : Tensor, shape (B, H, Q, C), dtype of `value`
    pattern : Tensor, at least float32, shape (B, H, Q, K)
        Rows sum to one, or to zero where a query may attend to nothing.

    Raises
    ------
    DataError
        If the shapes do not fit together, or `keep` is not boolean.
    """
    check_attention(query, key, value, bias=bias, keep=keep)
    pattern_BHQK = pattern(scores(query, key, bias=bias, keep=keep))
    return (pattern_BHQK @ value.to(pattern_BHQK.dtype)).to(value.dtype), pattern_BHQK


def fused(
    query: Tensor, key: Tensor, value: Tensor, *, bias: Tensor | None = None, keep: Tensor | None = None
) -> Tensor:
    """Values of `scaled_dot_product` by PyTorch's fused kernels (flash where they apply), without the pattern."""
    check_attention(query, key, value, bias=bias, keep=keep)
    nothing = None
    mask = keep
    if keep is not None:
        # What the kernels return for a row without keys differs between them: let such rows read all, zero them after.
        nothing = ~keep.any(-1, keepdim=True)
        # To look is cheaper than to fill, but makes a GPU wait.
        if keep.device.type == "cpu" and values_known(nothing) and not bool(nothing.any()):
            nothing = None
        else:
            mask = keep | nothing
    if bias is not None:
        mask = bias if mask is None else bias.masked_fill(~mask, -math.inf)
        mask = mask.to(query.dtype)
    mask = None if mask is None else torch.atleast_2d(mask)
    values = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return values if nothing is None else values.masked_fill(nothing, 0.0)
