"""Gradient of attention that also finds what each key receives, in the same pass over the scores.

The gradient computes the pattern again, a block of queries at a time, and its
product with the gradient of the output is that of the values. One more column of
ones beside the output's gradient gives the sums over queries too.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Scores that exist at one time: few enough to stay in the cache of a processor between the products that use them.
_BLOCK_SCORES = 2**19


class Gradients(NamedTuple):
    """Gradients of queries, keys and values (B, H, L, C), and what keys receive from real queries (B, H, L).

    At padded keys the last two are zero.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    received: Tensor


def attention_gradients(
    query: Tensor, key: Tensor, value: Tensor, output: Tensor, slope: Tensor, lse: Tensor, keep: Tensor | None
) -> Gradients:
    """Gradients of plain attention from `slope`, that of its output.

    Parameters
    ----------
    query, key, value, output, slope : Tensor, shape (B, H, L, C)
    lse : Tensor, shape (B, H, L)
        Logarithm of the denominator of each query.
    keep : bool Tensor, shape (B, L), optional
        True for real tokens.

    Source: Dao et al. 2022, algorithm 4.
    """
    shape, scale = query.shape, 1 / math.sqrt(query.shape[-1])
    n_heads, length, width = shape[1:]
    query, key, value, output, slope = (x.reshape(-1, length, width) for x in (query, key, value, output, slope))
    real = slope.new_ones(shape[0], length) if keep is None else keep.to(slope.dtype)
    wide_slope = torch.cat([slope, real.repeat_interleave(n_heads, 0)[..., None]], -1)
    minus_lse = -lse.reshape(-1, length, 1)
    minus_mean = -torch.linalg.vecdot(slope, output)[..., None]
    d_query, d_key = torch.empty_like(query), torch.zeros_like(key)
    d_value = value.new_zeros(len(value), length, width + 1)
    # Queries at a time, and heads at a time where all queries of several fit.
    size = max(1, min(length, _BLOCK_SCORES // length))
    group = max(1, min(len(query), _BLOCK_SCORES // length**2))
    buffers = query.new_empty(2, group, size, length)
    for first_head in range(0, len(query), group):
        heads = slice(first_head, first_head + group)
        q, k, v, dq, dk, dv, given, less, mean = (
            x[heads] for x in (query, key, value, d_query, d_key, d_value, wide_slope, minus_lse, minus_mean)
        )
        hidden = None if keep is None else ~keep.repeat_interleave(n_heads, 0)[heads, None]
        for first in range(0, length, size):
            some = slice(first, first + size)
            pattern, slopes = buffers[:, : len(q), : min(size, length - first)]
            torch.baddbmm(less[:, some], q[:, some], k.transpose(1, 2), alpha=scale, out=pattern)
            if hidden is not None:
                pattern.masked_fill_(hidden, -math.inf)
            pattern.exp_()
            dv.baddbmm_(pattern.transpose(1, 2), given[:, some])
            torch.baddbmm(mean[:, some], given[:, some, :width], v.transpose(1, 2), out=slopes)
            pattern.mul_(slopes)
            dq[:, some] = torch.bmm(pattern, k).mul_(scale)
            dk.baddbmm_(pattern.transpose(1, 2), q[:, some], alpha=scale)
    return Gradients(
        d_query.view(shape), d_key.view(shape), d_value[..., :width].view(shape), d_value[..., width].view(shape[:3])
    )


class Reverse(torch.autograd.Function):
    """The output of plain attention as it is, with a gradient that leaves `Gradients` in `found` on its way.

    Takes output (detached), query, key, value, lse, keep and the list `found`.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        output: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        lse: Tensor,
        keep: Tensor | None,
        found: list[Gradients],
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, output, lse, keep)
        ctx.found = found
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        query, key, value, output, lse, keep = ctx.saved_tensors
        gradients = attention_gradients(query, key, value, output, slope, lse, keep)
        ctx.found.append(gradients)
        return None, gradients.query, gradients.key, gradients.value, None, None, None
