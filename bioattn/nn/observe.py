"""Exact attention on demand: only the entries that are asked for, whatever the backend.

Flash attention never holds its pattern. Nothing is lost by that: queries and keys
are at hand, and a row of the pattern is one softmax over the scores of one query.
These functions compute such rows exactly, layer by layer while the model runs,
and keep only what was asked for.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bioattn.errors import DataError
from bioattn.nn import attention
from bioattn.nn.backends import MOST_SCORES, Layout, Local, Part, make_layout, take
from bioattn.nn.multihead import MultiHeadAttention

#: Examples per forward pass, unless the caller says otherwise.
BATCH = 64


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


class AttentionSums(NamedTuple):
    """Sums over whole patterns, each (N, layers, H, L), float32; NaN at padding.

    `received` is how much attention a key gets from all real queries (a uniform
    pattern gives 1); `entropy` is that of a query's row, in bits.
    """

    received: Tensor
    entropy: Tensor


def attention_layers(model: nn.Module) -> list[MultiHeadAttention]:
    """Self-attention layers of a model, first to last."""
    return [m for m in model.modules() if isinstance(m, MultiHeadAttention)]


@torch.inference_mode()
def attention_rows(
    model: nn.Module,
    x: Tensor,
    layer: int | None,
    head: int | None,
    queries: Tensor,
    *,
    keep: Tensor | None = None,
    batch_size: int = BATCH,
) -> Tensor:
    """Exact pattern rows of chosen queries: O(Q x L) time and storage per head.

    Edits (see `bioattn.nn.taps`) of what comes before the scores of a layer count;
    edits of its own scores or pattern do not.

    Parameters
    ----------
    model : module
        Any model with `MultiHeadAttention` layers; it is not changed. A model with
        `one_strand` is run on the strand that it is given.
    x : Tensor, shape (N, ...)
        What the model takes.
    layer, head : int or None
        None: all of them.
    queries : int64 Tensor, shape (Q,) or (N, Q)
        Token positions, for all examples or for each; -1 for none, whose rows are zero.
    keep : bool Tensor, shape (N, L), optional
        For models that take it beside `x`.
    batch_size : int
        Examples per forward pass.

    Returns
    -------
    Tensor, float32, on the CPU, shape (N, layers, H, Q, L)
        Without the axis of a layer or head that was given as a number.

    Raises
    ------
    DataError
        If there is no such layer, head or position.
    """
    return _entries(model, x, layer, head, queries, None, keep, batch_size)


@torch.inference_mode()
def attention_blocks(
    model: nn.Module,
    x: Tensor,
    layer: int | None,
    head: int | None,
    queries: Tensor,
    keys: Tensor,
    *,
    keep: Tensor | None = None,
    batch_size: int = BATCH,
) -> Tensor:
    """Exact pattern entries between chosen queries and keys, normalised over the full row.

    O(Q x L) time and O(Q x K) storage per head. Parameters as for
    `attention_rows`; `keys` as `queries`.

    Returns
    -------
    Tensor, float32, on the CPU, shape (N, layers, H, Q, K)
        Without the axis of a layer or head that was given as a number.

    Raises
    ------
    DataError
        If there is no such layer, head or position.
    """
    return _entries(model, x, layer, head, queries, keys, keep, batch_size)


@torch.inference_mode()
def attention_sums(
    model: nn.Module,
    x: Tensor,
    *,
    keep: Tensor | None = None,
    batch_size: int = BATCH,
) -> AttentionSums:
    """Attention that each key receives and entropy of each query, for every layer and head.

    Scores exist for a chunk of queries at a time, and under a sparse mask of the
    local backend only for the keys that it reaches. Parameters as for `attention_rows`.
    """
    layers = attention_layers(model)
    if not layers:
        raise DataError("this model has no attention layers")
    received: list[Tensor] = []
    entropy: list[Tensor] = []

    def sum_up(seen: Observed) -> Tensor:
        return torch.stack(_sums(seen))

    for sums in _run(model, x, range(len(layers)), sum_up, keep, batch_size):
        both = torch.stack([sums[i] for i in range(len(layers))], dim=2).float().cpu()  # (2, B, layers, H, L)
        received.append(both[0])
        entropy.append(both[1])
    return AttentionSums(torch.cat(received), torch.cat(entropy))


def _entries(
    model: nn.Module,
    x: Tensor,
    layer: int | None,
    head: int | None,
    queries: Tensor,
    keys: Tensor | None,
    keep: Tensor | None,
    batch_size: int,
) -> Tensor:
    layers = attention_layers(model)
    wanted = _chosen("layer", layer, len(layers))
    if head is not None:
        for i in wanted:
            _chosen("head", head, layers[i].n_heads)
    queries = _per_example("queries", queries, len(x))
    keys = None if keys is None else _per_example("keys", keys, len(x))

    def look(seen: Observed) -> Tensor:
        chosen_keys = None if keys is None else keys[seen.rows].to(seen.key.device)
        return _pattern_entries(seen, queries[seen.rows].to(seen.key.device), chosen_keys, head)

    found = []
    for parts in _run(model, x, wanted, look, keep, batch_size):
        stacked = torch.stack([parts[i] for i in wanted], dim=1)
        if layer is not None:
            stacked = stacked[:, 0]
        found.append(stacked[..., 0, :, :] if head is not None else stacked)
    return torch.cat(found)


def _chosen(what: str, index: int | None, n: int) -> list[int]:
    if n == 0:
        raise DataError("this model has no attention layers")
    if index is None:
        return list(range(n))
    if not 0 <= index < n:
        raise DataError(f"{what} {index} does not exist: this model has {n}, numbered 0 to {n - 1}")
    return [index]


def _per_example(name: str, positions: Tensor, n: int) -> Tensor:
    positions = torch.as_tensor(positions)
    if positions.dtype != torch.int64 or positions.ndim not in (1, 2) or positions.ndim == 2 and len(positions) != n:
        raise DataError(
            f"{name} must be int64 positions of shape (n,) or ({n}, n), got {positions.dtype} {tuple(positions.shape)}"
        )
    return positions if positions.ndim == 2 else positions.expand(n, -1)


def _pattern_entries(seen: Observed, queries_BQ: Tensor, keys_BK: Tensor | None, head: int | None) -> Tensor:
    """Entries (B, H, Q, L or K) on the CPU, in chunks of queries that bound the scores."""
    n_batch, n_heads, length, _ = seen.key.shape
    for name, positions in {"queries": queries_BQ, "keys": keys_BK}.items():
        if (
            positions is not None
            and positions.numel()
            and not -1 <= int(positions.min()) <= int(positions.max()) < length
        ):
            raise DataError(
                f"{name} must lie in 0 to {length - 1} (or be -1 for none), "
                f"got {int(positions.min())} to {int(positions.max())}"
            )
    if head is not None:
        n_heads = 1
    size = max(1, MOST_SCORES // (n_batch * n_heads * length))
    chunks = [
        _rows(seen, part, head) if keys_BK is None else _pick(_rows(seen, part, head), keys_BK)
        for part in queries_BQ.split(size, dim=1)
    ]
    return torch.cat(chunks, dim=2).float().cpu()


def _rows(seen: Observed, queries_BQ: Tensor, head: int | None) -> Tensor:
    """Pattern rows (B, H, Q, L); zeros where a query is -1."""
    module, length = seen.module, seen.key.shape[2]
    heads = slice(None) if head is None else slice(head, head + 1)
    query, key = seen.query[:, heads], seen.key[:, heads]
    index_BQ = queries_BQ.clamp(min=0)
    query = query.gather(2, index_BQ[:, None, :, None].expand(-1, query.shape[1], -1, query.shape[-1]))
    position_L = torch.arange(length, device=key.device)
    bias = None
    if module.relative is not None:
        bias = module.relative(index_BQ[:, :, None], position_L).transpose(0, 1)[:, heads]
    keep = (queries_BQ >= 0)[:, None, :, None]
    if seen.keep is not None:
        keep = keep & seen.keep[:, None, None, :]
    if module.backend.mask is not None:
        keep = keep & module.backend.mask.allows(index_BQ[:, None, :, None], position_L[None, None, None])
    return attention.pattern(attention.scores(query, key, bias=bias, keep=keep))


def _pick(rows_BHQL: Tensor, keys_BK: Tensor) -> Tensor:
    index = keys_BK.clamp(min=0)[:, None, None].expand(-1, *rows_BHQL.shape[1:3], -1)
    return rows_BHQL.gather(3, index) * (keys_BK >= 0)[:, None, None]


def _sums(seen: Observed) -> tuple[Tensor, Tensor]:
    """Received attention and entropy (B, H, L) of one layer."""
    n_batch, n_heads, length, _ = seen.key.shape
    device = seen.key.device
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
    if seen.keep is not None:
        padded = ~seen.keep[:, None].to(device)
        received, entropy = received.masked_fill(padded, math.nan), entropy.masked_fill(padded, math.nan)
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


class _Stop(Exception):
    """Ends a forward pass after the last layer that is looked at."""


def _run(
    model: nn.Module,
    x: Tensor,
    layers: Any,
    look: Callable[[Observed], Tensor],
    keep: Tensor | None,
    batch_size: int,
) -> Iterator[dict[int, Tensor]]:
    """For each batch what `look` makes of each chosen layer. The model runs no further than the last of them."""
    if len(x) == 0:
        raise DataError("there is no example to look at")
    if batch_size < 1:
        raise DataError(f"batch_size must be at least 1, got {batch_size}")
    forward = getattr(model, "one_strand", model)
    device = next(model.parameters()).device
    for first in range(0, len(x), batch_size):
        rows = slice(first, first + batch_size)
        found: dict[int, Tensor] = {}

        def seen(
            module: MultiHeadAttention, query: Tensor, key: Tensor, real: Tensor | None, rows: slice = rows
        ) -> Tensor:
            return look(Observed(module, query, key, real, rows))

        extra = {} if keep is None else {"keep": keep[rows].to(device)}
        with suppress(_Stop), _watching(model, list(layers), seen, found):
            forward(x[rows].to(device), **extra)
        missing = [i for i in layers if i not in found]
        if missing:
            raise DataError(f"layer {missing[0]} was not run: the model does not use it")
        yield found


@contextmanager
def _watching(
    model: nn.Module, layers: list[int], look: Callable[..., Tensor], found: dict[int, Tensor]
) -> Iterator[None]:
    """While open, `found[i]` is `look(module, query, key, keep)` of layer i as soon as these are known."""
    modules = attention_layers(model)
    with ExitStack() as stack:
        for i in layers:
            module = modules[i]
            seen: dict[str, Any] = {}

            def note_keep(_m: nn.Module, _args: object, kwargs: dict[str, Any], seen: dict = seen) -> None:
                seen["keep"] = kwargs.get("keep")

            def note_query(_m: nn.Module, _args: object, output: Tensor, seen: dict = seen) -> None:
                seen["query"] = output

            def note_key(
                _m: nn.Module,
                _args: object,
                output: Tensor,
                i: int = i,
                module: MultiHeadAttention = module,
                seen: dict = seen,
            ) -> None:
                found[i] = look(module, seen.pop("query"), output, seen.pop("keep"))
                if i == layers[-1]:
                    raise _Stop

            stack.callback(module.register_forward_pre_hook(note_keep, with_kwargs=True).remove)
            stack.callback(module.query.register_forward_hook(note_query).remove)
            stack.callback(module.key.register_forward_hook(note_key).remove)
        yield
