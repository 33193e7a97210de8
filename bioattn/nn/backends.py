"""Kernels that compute attention, behind one contract and chosen when a module is built.

Every backend returns the values of `scaled_dot_product` for the same queries,
keys, mask, padding and position bias; they differ in what they store and in how
their cost grows with the length.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils.checkpoint import checkpoint

from bioattn.errors import ConfigError, DataError
from bioattn.nn import attention
from bioattn.nn.checks import check_attention
from bioattn.nn.masks import Mask
from bioattn.nn.positions import ScoreBias

BACKENDS = ("reference", "sdpa", "local", "flex")

#: Queries per block of the local backend: large enough to keep matrix products efficient on CPU and GPU.
BLOCK = 128
#: Most scores that exist at one time where scores must be written out (64 MiB in float32), unless a single block of
#: queries has more.
MOST_SCORES = 2**24
#: Lengths whose layout is kept: batches of different lengths come again.
_LAYOUTS = 16


class Backend(Protocol):
    """Values (B, H, L, C) read by self-attention.

    `query`, `key` and `value` have shape (B, H, L, C); `keep` (B, L) is True
    where a token is real; `bias` gives what positions add to scores. The mask was
    given when the backend was made.
    """

    name: str
    #: Whether the cost of a sparse mask is linear in the length; then writing the pattern out is worth a warning.
    linear: bool
    mask: Mask | None

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, *, keep: Tensor | None = None, bias: ScoreBias | None = None
    ) -> Tensor:
        """Values (B, H, L, C)."""
        ...


def make_backend(name: str, mask: Mask | None = None) -> Backend:
    """Backend of a name: "reference", "sdpa", "local" or "flex".

    Raises
    ------
    ConfigError
        If there is no such backend, it needs a mask and has none, or the mask holds the padding of one batch.
    """
    kinds: dict[str, type] = {"reference": Reference, "sdpa": Fused, "local": Local, "flex": Flex}
    if name not in kinds:
        raise ConfigError(f"'{name}' is not an attention backend; allowed: {', '.join(BACKENDS)}")
    if mask is not None and mask.looks_at_examples:
        raise ConfigError("the mask of a backend serves every batch, so it cannot hold Padding: pass that as `keep`")
    backend: Backend = kinds[name](mask)
    return backend


class _Dense(ABC):
    """A kernel that takes bias and mask over all pairs of positions."""

    name: str
    linear = False

    def __init__(self, mask: Mask | None = None) -> None:
        self.mask = mask

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, *, keep: Tensor | None = None, bias: ScoreBias | None = None
    ) -> Tensor:
        """Values (B, H, L, C)."""
        bias_HQK, keep_BHQK = dense_terms(query.shape[-2], self.mask, keep, bias, query.device)
        return self._attend(query, key, value, bias_HQK, keep_BHQK)

    @abstractmethod
    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, keep: Tensor | None) -> Tensor:
        """Values (B, H, L, C)."""


class Reference(_Dense):
    """The readable formula; holds all scores."""

    name = "reference"

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, keep: Tensor | None) -> Tensor:
        return attention.scaled_dot_product(query, key, value, bias=bias, keep=keep)[0]


class Fused(_Dense):
    """PyTorch's fused kernels (flash where they apply). A learned bias makes them hold all scores."""

    name = "sdpa"

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, keep: Tensor | None) -> Tensor:
        return attention.fused(query, key, value, bias=bias, keep=keep)


class Uniform(_Dense):
    """Every query reads all keys that it may read alike, whatever they hold: attention with its pattern taken away."""

    name = "uniform"

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, keep: Tensor | None) -> Tensor:
        check_attention(query, key, value)
        if keep is None:
            return value.mean(-2, keepdim=True).expand_as(value)
        weight = keep.expand(*keep.shape[:-2], query.shape[-2], key.shape[-2]).to(value.dtype)
        return torch.matmul(weight / weight.sum(-1, keepdim=True).clamp(min=1), value)


class Local:
    """Sparse masks at a cost that is linear in the length, on CPU and GPU.

    Queries are taken in blocks, and each block only meets the keys that its mask
    can reach. A window of radius r costs about (BLOCK + 2 r) keys per query; a
    dilated window costs its whole span, since neighbouring queries reach all of it.
    With a position bias the scores of a chunk are computed again for the gradient
    instead of being stored.
    """

    name, linear = "local", True

    def __init__(self, mask: Mask | None) -> None:
        if mask is None:
            raise ConfigError("backend 'local' needs a sparse mask such as a window; without one use 'sdpa'")
        self.mask: Mask = mask
        self._layouts: dict[tuple[int, torch.device], Layout] = {}

    def layout(self, length: int, device: torch.device) -> "Layout":
        """Blocks of queries with their keys, for sequences of a length."""
        if (length, device) not in self._layouts:
            if len(self._layouts) >= _LAYOUTS:
                self._layouts.pop(next(iter(self._layouts)))
            # With numbers, and able to serve training, whatever it is first needed for: a dry run on shapes (see
            # `bioattn.train.plan`), or inference.
            with unset_fake_temporarily(), torch.inference_mode(False):
                self._layouts[length, device] = make_layout(self.mask, length, device)
        return self._layouts[length, device]

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, *, keep: Tensor | None = None, bias: ScoreBias | None = None
    ) -> Tensor:
        """Values (B, H, L, C)."""
        check_attention(query, key, value)
        length = query.shape[-2]
        layout = self.layout(length, query.device)
        blocks = []
        for part in layout.parts:
            size = len(part.query)
            if bias is not None:
                n_scores = query.shape[0] * query.shape[1] * part.query.shape[1] * part.key.shape[1]
                size = max(1, MOST_SCORES // n_scores)
            for piece in part.pieces(size):
                if bias is not None and torch.is_grad_enabled():
                    out = checkpoint(_attend_part, query, key, value, piece, keep, bias, use_reentrant=False)
                else:
                    out = _attend_part(query, key, value, piece, keep, bias)
                blocks.append(out)
        values_BHnwC = torch.cat(blocks, dim=2)
        if layout.order is not None:
            values_BHnwC = values_BHnwC.index_select(2, layout.order)
        return values_BHnwC.flatten(2, 3)[:, :, :length]


class Part(NamedTuple):
    """Blocks of queries that meet equally many keys.

    `query` (n, w) and `key` (n, m) are positions; `allowed` (n, w, m) is True
    where the mask lets the query read the key. Positions that fill up a block
    repeat others and are not allowed. `additive` says the same as numbers to add to
    scores, (n, 1, w, m), or (1, 1, w, m) where all blocks are alike, as under a
    window; `nothing` (n, 1, w, 1) marks queries without any key, if there are some.
    """

    query: Tensor
    key: Tensor
    allowed: Tensor
    additive: Tensor | None = None
    nothing: Tensor | None = None

    def pieces(self, size: int) -> Iterator["Part"]:
        """The part in pieces of at most `size` blocks."""
        if size >= len(self.query):
            yield self
            return
        for columns in zip(*(x.split(size) for x in (self.query, self.key, self.allowed)), strict=True):
            yield Part(*columns)


class Layout(NamedTuple):
    """Parts that cover all queries once, and the order that sorts their blocks, or None if they are sorted."""

    parts: list[Part]
    order: Tensor | None


def make_layout(mask: Mask | None, length: int, device: torch.device | str = "cpu", *, block: int = BLOCK) -> Layout:
    """Blocks of queries and the keys that each needs under a mask; without a mask all keys.

    Blocks are grouped by their number of keys, so that few matrix products do all
    the work and a global token does not widen every block.
    """
    if mask is not None:
        mask.check_length(length)
    block = min(block, length)
    starts = range(0, length, block)
    keys = [np.arange(length) if mask is None else mask.reach(s, min(s + block, length), length) for s in starts]
    # Rounded up, so that blocks at the ends of the sequence fall into few groups.
    grain = max(block // 2, 1)
    size = np.array([min(max(-(-len(k) // grain), 1) * grain, length) for k in keys])
    parts = []
    for m in np.unique(size):
        rows = np.flatnonzero(size == m)
        query = torch.from_numpy(rows[:, None] * block + np.arange(block)).to(device)
        filled = np.zeros((len(rows), m), dtype=np.int64)
        for i, row in enumerate(rows):
            filled[i, : len(keys[row])] = keys[row]
        real_key = torch.from_numpy(np.arange(m) < np.array([[len(keys[r])] for r in rows])).to(device)
        key = torch.from_numpy(filled).to(device)
        allowed = real_key[:, None] & (query < length)[:, :, None]
        query = query.clamp(max=length - 1)
        if mask is not None:
            allowed = allowed & mask.allows(query[:, :, None], key[:, None])
        parts.append(_part(query, key, allowed))
    order = np.argsort(np.concatenate([np.flatnonzero(size == m) for m in np.unique(size)]), kind="stable")
    in_order = bool((order == np.arange(len(order))).all())
    return Layout(parts, None if in_order else torch.from_numpy(order).to(device))


def _part(query: Tensor, key: Tensor, allowed: Tensor) -> Part:
    if bool((allowed == allowed[:1]).all()):
        # Most blocks of a window are alike: one mask for all of them is read from the cache of the processor.
        allowed = allowed[:1].clone()
    nothing = ~allowed.any(-1)[:, None, :, None]
    readable = allowed[:, None] | nothing
    additive = torch.zeros(readable.shape, device=allowed.device).masked_fill(~readable, -math.inf)
    return Part(query, key, allowed.expand(len(query), -1, -1), additive, nothing if bool(nothing.any()) else None)


def take(x_BHLC: Tensor, index: Tensor) -> Tensor:
    """Positions `index` (n, m) of (B, H, L, C): (B, H, n, m, C)."""
    return x_BHLC.index_select(2, index.flatten()).unflatten(2, index.shape)


def _attend_part(
    query: Tensor, key: Tensor, value: Tensor, part: Part, keep: Tensor | None, bias: ScoreBias | None
) -> Tensor:
    """Values (B, H, n, w, C) of the queries of a part."""
    n_batch, n_heads = query.shape[:2]
    blocks = take(query, part.query), take(key, part.key), take(value, part.key)
    if keep is None and bias is None:
        # One mask for all examples and heads.
        folded = [x.permute(2, 0, 1, 3, 4).flatten(1, 2) for x in blocks]
        assert part.additive is not None
        q, k, v = folded
        values = F.scaled_dot_product_attention(q, k, v, attn_mask=part.additive.to(query.dtype))
        values = values if part.nothing is None else values.masked_fill(part.nothing, 0.0)
        return values.unflatten(1, (n_batch, n_heads)).permute(1, 2, 0, 3, 4)
    folded = [x.transpose(1, 2).flatten(0, 1) for x in blocks]
    allowed = part.allowed[None] if keep is None else part.allowed & keep[:, part.key][:, :, None]
    allowed = allowed.expand(n_batch, -1, -1, -1).flatten(0, 1)[:, None]
    bias_nHwm = None
    if bias is not None:
        bias_nHwm = bias(part.query[:, :, None], part.key[:, None]).transpose(0, 1).repeat(n_batch, 1, 1, 1)
    values = attention.fused(*folded, bias=bias_nHwm, keep=allowed)
    return values.unflatten(0, (n_batch, -1)).transpose(1, 2)


class Flex:
    """FlexAttention: a compiled kernel that skips blocks of the mask. Trains on CUDA; on CPU forward only.

    Compiling takes some seconds at the first call with new shapes, and needs a C++ compiler on the CPU.
    """

    name, linear = "flex", True

    def __init__(self, mask: Mask | None = None) -> None:
        self.mask = mask

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, *, keep: Tensor | None = None, bias: ScoreBias | None = None
    ) -> Tensor:
        """Values (B, H, L, C)."""
        check_attention(query, key, value)
        if query.device.type == "cpu" and torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value)):
            raise DataError(
                "backend 'flex' has no gradient on a CPU: train with model.backend 'local' or 'sdpa', or on CUDA"
            )
        return _flex(query, key, value, self.mask, keep, bias)


_compiled: list = []


def _flex(
    query: Tensor, key: Tensor, value: Tensor, mask: Mask | None, keep: Tensor | None, bias: ScoreBias | None
) -> Tensor:
    # Imported here: it takes a second, and few runs use it.
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if not _compiled:
        _compiled.append(torch.compile(flex_attention, dynamic=False))
    n_batch, length = query.shape[0], query.shape[-2]
    block_mask = None
    if mask is not None:
        mask.check_length(length)
    if mask is not None or keep is not None:

        def may_read(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            allowed = q >= 0 if mask is None else mask.allows(q, k)
            return allowed if keep is None else allowed & keep[b, k]

        block_mask = create_block_mask(
            may_read, None if keep is None else n_batch, None, length, length, device=query.device
        )

    def add(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        assert bias is not None
        return score + bias.entry(h, q, k)

    return _compiled[0](query, key, value, score_mod=None if bias is None else add, block_mask=block_mask)


def dense_terms(
    length: int, mask: Mask | None, keep: Tensor | None, bias: ScoreBias | None, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Bias (1, H, Q, K) and keep, broadcastable to (B, H, Q, K), over all pairs of positions."""
    position = torch.arange(length, device=device)
    bias_HQK = None if bias is None else bias(position[:, None], position[None])[None]
    keep_BHQK = None if keep is None else keep[:, None, None, :]
    if mask is not None:
        allowed = mask.dense(length, device=device)
        keep_BHQK = allowed if keep_BHQK is None else keep_BHQK & allowed
    return bias_HQK, keep_BHQK
