"""Triangle attention, one exact operation with several ways to compute it.

Every pair (i, j) reads the pairs (i, k) of its own row, and how strongly depends on the pair (j, k) too:

    o_ij = sum_k softmax_k(q_ij . k_ik / sqrt(C) + b_jk) v_ik

All backends give these values and their gradients. Written out, the scores have N^3 entries for each head; only
`reference` holds them.

Source: Jumper et al. 2021, supplement, algorithm 13.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bioattn.errors import ConfigError, DataError
from bioattn.nn import attention

#: Values (B, I, H, J, C) from query, key, value (B, I, H, J, C), bias (B, H, J, K) and keep (B, I or 1, K).
TriangleBackend = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None], Tensor]

#: Scores that are held at a time where they are written out: some megabytes stay in the caches of a CPU.
MOST_SCORES = 2**20


def make_triangle_backend(name: str) -> TriangleBackend:
    """Backend of a name: one of `TRIANGLE_BACKENDS`. Packages for GPUs are imported here, and nowhere else.

    Raises
    ------
    ConfigError
        If there is no such backend, or its package is not installed.
    """
    if name in _OURS:
        return _OURS[name]
    if name in _EXTRAS:
        return _EXTRAS[name]()
    raise ConfigError(f"'{name}' is not a backend of triangle attention; allowed: {', '.join(TRIANGLE_BACKENDS)}")


def check_triangle(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, keep: Tensor | None) -> None:
    """Raise `DataError` unless the shapes are those of one triangle attention."""
    if query.ndim != 5 or query.shape != key.shape or key.shape[:-1] != value.shape[:-1]:
        raise DataError(
            "query, key and value must have the axes (batch, row, head, position, channel) and the same sizes, got "
            f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}"
        )
    n_batch, n_rows, n_heads, length = query.shape[:4]
    if bias.shape != (n_batch, n_heads, length, length):
        raise DataError(
            f"bias must have shape (batch, head, query, key) = {(n_batch, n_heads, length, length)}, "
            f"got {tuple(bias.shape)}"
        )
    if keep is None:
        return
    if keep.dtype != torch.bool:
        raise DataError(f"keep must be boolean, True = may attend, got {keep.dtype}")
    if keep.ndim != 3 or keep.shape[0] != n_batch or keep.shape[1] not in (1, n_rows) or keep.shape[2] != length:
        raise DataError(
            f"keep must have shape (batch, row or 1, key) = {(n_batch, n_rows, length)}, got {tuple(keep.shape)}"
        )


# ------------------------------------------------------------------- written out


def triangle_pattern(query: Tensor, key: Tensor, bias: Tensor, *, keep: Tensor | None = None) -> Tensor:
    """Pattern (B, I, H, J, K), at least float32, of the rows that are given; rows of it sum to one, or to zero.

    For chosen rows give `query[:, rows]`, `key[:, rows]` and `keep[:, rows]`; for chosen heads likewise: each row
    is exact by itself.
    """
    raised = torch.promote_types(query.dtype, torch.float32)
    scores = query.to(raised) @ key.to(raised).transpose(-2, -1) / math.sqrt(query.shape[-1])
    scores = scores + bias[:, None].to(raised)
    if keep is not None:
        scores = scores.masked_fill(~keep[:, :, None, None], -math.inf)
    return attention.pattern(scores)


def reference(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, keep: Tensor | None = None) -> Tensor:
    """The readable way, which holds all scores at once."""
    check_triangle(query, key, value, bias, keep)
    pattern = triangle_pattern(query, key, bias, keep=keep)
    return (pattern @ value.to(pattern.dtype)).to(value.dtype)


def chunked(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, keep: Tensor | None = None) -> Tensor:
    """As `reference`, some rows at a time, which are computed again for the gradient."""
    check_triangle(query, key, value, bias, keep)
    parts = []
    # Each chunk adds a gradient of the whole bias, so they are larger here.
    for rows in _row_chunks(query, most=16 * MOST_SCORES):
        part = None if keep is None else keep[:, rows] if keep.shape[1] > 1 else keep
        inputs = (query[:, rows], key[:, rows], value[:, rows], bias, part)
        again = torch.is_grad_enabled() and any(x.requires_grad for x in inputs[:4])
        parts.append(checkpoint(reference, *inputs, use_reentrant=False) if again else reference(*inputs))
    return torch.cat(parts, dim=1)


def _row_chunks(query: Tensor, *, most: int, examples: int | None = None) -> Iterator[slice]:
    """Slices of rows of which no more than so many scores are held at a time, one row at least."""
    n_batch, n_rows, n_heads, length = query.shape[:4]
    size = max(1, most // max((examples or n_batch) * n_heads * length**2, 1))
    for start in range(0, n_rows, size):
        yield slice(start, start + size)


# ------------------------------------------------------------------------- fused


def sdpa_exact(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, keep: Tensor | None = None) -> Tensor:
    """Fused kernels forward, rows in chunks backward: nothing of the size N^3 is ever held.

    PyTorch's fused kernels give no gradient to a bias, and fall back to writing out all scores where one is needed.
    So the gradient is computed here, from the inputs and the output alone.
    """
    check_triangle(query, key, value, bias, keep)
    return _Triangle.apply(query, key, value, bias, keep)


class _Triangle(torch.autograd.Function):
    """Triangle attention with a backward pass that needs the memory of some rows."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, keep: Tensor | None) -> Tensor:
        output = torch.empty_like(value)
        for b in range(len(query)):
            output[b] = _fused_rows(query[b], key[b], value[b], bias[b], None if keep is None else keep[b])
        ctx.save_for_backward(query, key, value, bias, keep, output)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, bias, keep, output = ctx.saved_tensors
        raised = torch.promote_types(query.dtype, torch.float32)
        d_query, d_key, d_value = (torch.empty_like(x) for x in (query, key, value))
        d_bias = torch.zeros_like(bias, dtype=raised)
        scale = 1 / math.sqrt(query.shape[-1])
        for b in range(len(query)):
            grads, offset = grad[b], bias[b].to(raised)
            forbidden = None
            if keep is not None:
                forbidden, nothing = _forbidden(keep[b])
                grads = grads.masked_fill(nothing[..., None, None], 0.0)
            if forbidden is not None and len(forbidden) == 1:
                offset, forbidden = offset.masked_fill(forbidden[:, None], -math.inf), None
            for rows in _row_chunks(query, most=MOST_SCORES, examples=1):
                q, k, v, o = (x[b, rows].to(raised) for x in (query, key, value, output))
                g = grads[rows].to(raised)
                scores = torch.matmul(q * scale, k.transpose(-2, -1)).add_(offset)
                if forbidden is not None:
                    scores.masked_fill_(forbidden[rows][:, None, None], -math.inf)
                pattern = torch.softmax(scores, dim=-1)
                d_value[b, rows] = torch.matmul(pattern.transpose(-2, -1), g).to(value.dtype)
                d_scores = torch.matmul(g, v.transpose(-2, -1), out=scores)
                d_scores.sub_((g * o).sum(-1, keepdim=True)).mul_(pattern)
                d_bias[b] += d_scores.sum(0)
                d_query[b, rows] = (torch.matmul(d_scores, k) * scale).to(query.dtype)
                d_key[b, rows] = (torch.matmul(d_scores.transpose(-2, -1), q) * scale).to(key.dtype)
        return d_query, d_key, d_value, d_bias.to(bias.dtype), None


def _fused_rows(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, keep: Tensor | None) -> Tensor:
    """Values (I, H, J, C) of one example by a fused kernel, whose bias (H, J, K) is the same memory for all rows."""
    scale = 1 / math.sqrt(query.shape[-1])
    # A bias that wants a gradient, as a view of one does even here, would make the kernel write all scores out.
    bias = bias.detach().to(query.dtype)
    if keep is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias.expand(len(query), -1, -1, -1))
    forbidden_keys, nothing = _forbidden(keep)
    if len(keep) == 1:
        # The same keys for all rows: they can be left out in the bias.
        bias = bias.masked_fill(forbidden_keys[:, None], -math.inf)
        values = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.expand(len(query), -1, -1, -1))
    else:
        # A mask of each row would need a bias of each row, of N^3 entries. One more channel does the same: the query
        # holds a one there, and a forbidden key a score that underflows. Values get a channel too, as kernels want it.
        forbidden = torch.zeros_like(key[..., :1]).masked_fill_(~keep[:, None, :, None], _FORBIDDEN / scale)
        values = F.scaled_dot_product_attention(
            torch.cat([query, torch.ones_like(query[..., :1])], -1),
            torch.cat([key, forbidden], -1),
            F.pad(value, (0, 1)),
            attn_mask=bias.expand(len(query), -1, -1, -1),
            scale=scale,
        )[..., :-1]
    return values.masked_fill(nothing[..., None, None], 0.0)


def _forbidden(keep: Tensor) -> tuple[Tensor, Tensor]:
    """Keys (I or 1, K) that may not be read, and rows (I or 1, 1) without any: those read all, and it is dropped."""
    nothing = ~keep.any(-1, keepdim=True)
    return ~(keep | nothing), nothing


#: A score that no sum of others makes up for: its exponential is zero in every type, and times 1 / scale it is finite.
_FORBIDDEN = -3e4


# -------------------------------------------------------------- kernels for GPUs


def flex(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, keep: Tensor | None = None) -> Tensor:
    """PyTorch's FlexAttention, for CUDA: on a CPU it has no backward pass.

    Raises
    ------
    ConfigError
        If a gradient is needed on a CPU.
    """
    from torch.nn.attention.flex_attention import flex_attention

    check_triangle(query, key, value, bias, keep)
    if (
        query.device.type == "cpu"
        and torch.is_grad_enabled()
        and any(x.requires_grad for x in (query, key, value, bias))
    ):
        raise ConfigError("backend 'flex' of triangle attention has no gradient on a CPU: use 'sdpa_exact'")
    n_rows = query.shape[1]

    def score(value_: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        value_ = value_ + bias[b // n_rows, h, q, k]
        if keep is None:
            return value_
        row = b % n_rows if keep.shape[1] > 1 else b * 0
        return torch.where(keep[b // n_rows, row, k], value_, -math.inf)

    # Not compiled, it writes all scores out.
    kernel = flex_attention if query.device.type == "cpu" else torch.compile(flex_attention, dynamic=False)
    folded_query, folded_key, folded_value = (x.flatten(0, 1) for x in (query, key, value))
    values: Tensor = kernel(folded_query, folded_key, folded_value, score_mod=score)
    return _zero_without_keys(values.unflatten(0, query.shape[:2]), keep)


def _cuequivariance() -> TriangleBackend:
    """NVIDIA's kernel. Its mask is True where a key is valid, as ours."""
    try:
        from cuequivariance_torch import triangle_attention as kernel  # type: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError(_not_installed("cuequivariance", "cuequivariance-torch", error)) from None

    def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, keep: Tensor | None = None) -> Tensor:
        check_triangle(query, key, value, bias, keep)
        mask = None if keep is None else keep.expand(-1, query.shape[1], -1)[:, :, None, None]
        values: Tensor = kernel(query, key, value, bias[:, None], mask, scale=1 / math.sqrt(query.shape[-1]))
        return _zero_without_keys(values, keep)

    return attend


def _trifast() -> TriangleBackend:
    """Triton kernel trifast, heads before rows. Its mask is the opposite of ours: True where a key is masked."""
    try:
        from trifast import triangle_attention as kernel  # type: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError(_not_installed("trifast", "trifast", error)) from None

    def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, keep: Tensor | None = None) -> Tensor:
        check_triangle(query, key, value, bias, keep)
        shape = (len(query), query.shape[1], query.shape[3])
        masked = query.new_zeros(shape, dtype=torch.bool) if keep is None else ~keep.expand(shape)
        heads_first = (x.transpose(1, 2).contiguous() for x in (query, key, value))
        values: Tensor = kernel(*heads_first, bias.contiguous(), masked.contiguous()).transpose(1, 2)
        return _zero_without_keys(values, keep)

    return attend


def _zero_without_keys(values: Tensor, keep: Tensor | None) -> Tensor:
    return values if keep is None else values.masked_fill(~keep.any(-1)[:, :, None, None, None], 0.0)


def _not_installed(name: str, package: str, error: ImportError) -> str:
    return (
        f"backend '{name}' of triangle attention needs the package {package} (pip install '{package}'), which cannot "
        f"be imported ({error}); 'sdpa_exact' needs nothing more"
    )


_OURS: dict[str, TriangleBackend] = {
    "reference": reference, "chunked": chunked, "sdpa_exact": sdpa_exact, "flex": flex,
}  # fmt: skip
_EXTRAS: dict[str, Callable[[], TriangleBackend]] = {"cuequivariance": _cuequivariance, "trifast": _trifast}
#: All backends; the last two need packages of their own and a GPU.
TRIANGLE_BACKENDS = (*_OURS, *_EXTRAS)
