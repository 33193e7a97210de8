"""Exact attention on demand: only the entries that are asked for, whatever the backend.

Flash attention never holds its pattern. Nothing is lost by that: queries and keys
are at hand, and a row of the pattern is one softmax over the scores of one query.
These functions compute such rows exactly, layer by layer while the model runs,
and keep only what was asked for.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bioattn.errors import DataError
from bioattn.nn import attention
from bioattn.nn.backends import MOST_SCORES
from bioattn.nn.multihead import MultiHeadAttention
from bioattn.nn.sums import Observed, is_plain, layer_columns, layer_sums

#: Examples per forward pass, unless the caller says otherwise.
BATCH = 64
#: What is said of a model that cannot be looked into.
NO_LAYERS = "this model has no attention layers with taps: bioattn.build_model and the layers of bioattn.nn have them"


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
def attention_columns(
    model: nn.Module,
    x: Tensor,
    layer: int | None,
    head: int | None,
    keys: Tensor,
    *,
    keep: Tensor | None = None,
    batch_size: int = BATCH,
) -> Tensor:
    """Exact pattern columns of chosen keys: how much every query reads each, normalised over the full row.

    O(K x L) storage per head. Parameters as for `attention_rows`, with `keys` for
    `queries`. Where scores are plain dot products on a CPU no other entry is
    computed; elsewhere whole rows are, in chunks of queries.

    Returns
    -------
    Tensor, float32, on the CPU, shape (N, layers, H, K, L)
        Without the axis of a layer or head that was given as a number.

    Raises
    ------
    DataError
        If there is no such layer, head or position.
    """
    return _entries(model, x, layer, head, None, keys, keep, batch_size)


@torch.inference_mode()
def attention_sums(
    model: nn.Module,
    x: Tensor,
    *,
    keep: Tensor | None = None,
    batch_size: int = BATCH,
) -> AttentionSums:
    """Attention that each key receives and entropy of each query, for every layer and head.

    The pattern is never held, see `bioattn.nn.sums`. Parameters as for `attention_rows`.
    """
    layers = attention_layers(model)
    if not layers:
        raise DataError(NO_LAYERS)
    received: list[Tensor] = []
    entropy: list[Tensor] = []

    def sum_up(seen: Observed) -> Tensor:
        return torch.stack(layer_sums(seen))

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
    queries: Tensor | None,
    keys: Tensor | None,
    keep: Tensor | None,
    batch_size: int,
) -> Tensor:
    """Entries (N, layers, H, Q, K), or of whole rows or columns where keys or queries are None."""
    layers = attention_layers(model)
    wanted = _chosen("layer", layer, len(layers))
    if head is not None:
        for i in wanted:
            _chosen("head", head, layers[i].n_heads)
    queries = None if queries is None else _per_example("queries", queries, len(x))
    keys = None if keys is None else _per_example("keys", keys, len(x))

    def look(seen: Observed) -> Tensor:
        at_queries, at_keys = (
            None if at is None else _checked(name, at[seen.rows].to(seen.key.device), seen.key.shape[2])
            for name, at in (("queries", queries), ("keys", keys))
        )
        if at_queries is not None:
            return _pattern_entries(seen, at_queries, at_keys, head)
        assert at_keys is not None
        return _pattern_columns(seen, at_keys, head)

    found = []
    for parts in _run(model, x, wanted, look, keep, batch_size):
        stacked = torch.stack([parts[i] for i in wanted], dim=1)
        if layer is not None:
            stacked = stacked[:, 0]
        found.append(stacked[..., 0, :, :] if head is not None else stacked)
    return torch.cat(found)


def _chosen(what: str, index: int | None, n: int) -> list[int]:
    if n == 0:
        raise DataError(NO_LAYERS)
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


def _checked(name: str, positions: Tensor, length: int) -> Tensor:
    if positions.numel() and not -1 <= int(positions.min()) <= int(positions.max()) < length:
        raise DataError(
            f"{name} must lie in 0 to {length - 1} (or be -1 for none), "
            f"got {int(positions.min())} to {int(positions.max())}"
        )
    return positions


def _pattern_columns(seen: Observed, keys_BK: Tensor, head: int | None) -> Tensor:
    """Entries (B, H, K, L) on the CPU."""
    if not is_plain(seen):
        every = torch.arange(seen.key.shape[2], device=seen.key.device).expand(len(keys_BK), -1)
        return _pattern_entries(seen, every, keys_BK, head).transpose(2, 3)
    if head is not None:
        seen = seen._replace(query=seen.query[:, head : head + 1], key=seen.key[:, head : head + 1])
    return layer_columns(seen, keys_BK).float()


def _pattern_entries(seen: Observed, queries_BQ: Tensor, keys_BK: Tensor | None, head: int | None) -> Tensor:
    """Entries (B, H, Q, L or K) on the CPU, in chunks of queries that bound the scores."""
    n_batch, n_heads, length, _ = seen.key.shape
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
