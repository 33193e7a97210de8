"""Cutting attention edges between two places of a sequence, in every layer and head.

Source: Geva et al. 2023, attention knock-out.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bioattn.errors import DataError
from bioattn.explain.coattention import footprint_tokens
from bioattn.explain.predict import BATCH
from bioattn.models import SequenceModel
from bioattn.nn import taps
from bioattn.nn.pair.encoder import PairEncoder

#: Tokens on either side of a footprint that are cut with it: a site may straddle a token border.
DILATION = 1
#: Most scores of one layer at a time where attention edges are cut: 256 MiB in float32.
_MOST_SCORES = 2**26


def rows_with_scores(model: SequenceModel, n_tokens: int) -> int:
    """Sequences of so many tokens in one forward pass in which layers write out their scores."""
    return max(1, min(BATCH, _MOST_SCORES // (model.n_heads * (n_tokens + model.n_prefix) ** 2)))


@contextmanager
def cut_edges(model: SequenceModel, edges_BQK: Tensor, *, head: int | None = None) -> Iterator[None]:
    """While open, no query reads the keys marked True in `edges_BQK`, bool, in any layer or head, or in one head.

    `head` counts all heads: layer * n_heads + head.

    Tokens are those of the sequence; a token that the model puts before them is
    not cut off. The remaining attention of a query is renormalised. The model is not changed.
    """
    edges = F.pad(edges_BQK, (model.n_prefix, 0, model.n_prefix, 0))[:, None]
    layers = range(model.n_layers)
    if head is not None:
        layer, within = divmod(head, model.n_heads)
        layers = range(layer, layer + 1)
        edges = edges & (torch.arange(model.n_heads, device=edges.device) == within)[:, None, None]
    with taps.edit(model, {f"layer.{i}.attn.scores": taps.cut(edges) for i in layers}):
        yield


def edges_between(
    start_a: NDArray, end_a: NDArray, start_b: NDArray, end_b: NDArray, *, n_tokens: int, token_bp: int
) -> NDArray[np.bool_]:
    """Edges between two footprints in both directions, bool (N, Q, K).

    Footprints are base intervals [start, end), shape (N,), widened by `DILATION`
    tokens. A token's edge to itself is never cut.
    """
    in_a = _marks(start_a, end_a, n_tokens, token_bp)
    in_b = _marks(start_b, end_b, n_tokens, token_bp)
    edges = (in_a[:, :, None] & in_b[:, None, :]) | (in_b[:, :, None] & in_a[:, None, :])
    return edges & ~np.eye(n_tokens, dtype=bool)


def matched_shift(
    start_a: NDArray,
    end_a: NDArray,
    start_b: NDArray,
    end_b: NDArray,
    *,
    length: NDArray,
    token_bp: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Random shift (N,), in bp, that moves both footprints to a place of their own at the same distance.

    A shift is a multiple of `token_bp` that keeps both inside the sequence and
    moves each off its old dilated tokens; NaN where there is none. The edge
    between the moved footprints is the control for the edge between the real ones.
    """
    lowest, highest = np.minimum(start_a, start_b), np.maximum(end_a, end_b)
    widest = np.maximum(end_a - start_a, end_b - start_b)
    least = widest // token_bp + 2 * DILATION + 1
    result = np.full(len(lowest), np.nan)
    for i in range(len(lowest)):
        low, high = -(int(lowest[i]) // token_bp), int(length[i] - highest[i]) // token_bp
        shifts = np.array([s for s in range(low, high + 1) if abs(s) >= least[i]])
        if len(shifts):
            result[i] = rng.choice(shifts) * token_bp
    return result


def _marks(start: NDArray, end: NDArray, n_tokens: int, token_bp: int) -> NDArray[np.bool_]:
    """Tokens (N, t) of a footprint, dilated."""
    first, last = footprint_tokens(start, end, token_bp)
    token = np.arange(n_tokens)
    return (token >= first[:, None] - DILATION) & (token <= last[:, None] + DILATION)


def strand_interval(span: NDArray, length: NDArray, *, reverse: bool) -> tuple[NDArray, NDArray]:
    """Starts and ends of base intervals (2, N) as they lie on the given or the reverse-complement strand."""
    return (length - span[1], length - span[0]) if reverse else (span[0], span[1])


def inside(first: Tensor, last: Tensor, n_tokens: int) -> Tensor:
    """Tokens from first to last, each (B,), as bool (B, t)."""
    token = torch.arange(n_tokens, device=first.device)
    return (token >= first[:, None]) & (token <= last[:, None])


def one_way(first_query: Tensor, last_query: Tensor, first_key: Tensor, last_key: Tensor, n_tokens: int) -> Tensor:
    """Edges by which one place reads another, bool (B, t, t)."""
    queries, keys = inside(first_query, last_query, n_tokens), inside(first_key, last_key, n_tokens)
    return queries[:, :, None] & keys[:, None]


def tail_with_messages(
    model: SequenceModel, hidden: Tensor, keep: Tensor | None, others: Sequence[tuple[Tensor, Tensor]]
) -> Tensor:
    """Readouts (B, T) of stem tokens in which some edges carry the values of other tokens.

    Parameters
    ----------
    others : sequence of (Tensor (B, t, D), bool Tensor (B, Q, K))
        Stem tokens of another run, and edges whose messages are taken from it. The
        pattern stays that of `hidden`, with earlier messages replaced.
    """
    layers = range(model.n_layers)
    values = [f"layer.{i}.attn.value" for i in layers]
    patterns = [f"layer.{i}.attn.pattern" for i in layers]
    theirs, masks = [], []
    for tokens, edges in others:
        with taps.record(model, values) as store:
            model.tail(tokens, keep)
        theirs.append(dict(store))
        masks.append(F.pad(edges, (model.n_prefix, 0, model.n_prefix, 0))[:, None])
    with taps.record(model, [*values, *patterns]) as seen:

        def replaced(layer: int) -> taps.Change:
            def change(output_BHQC: Tensor) -> Tensor:
                for store, mask in zip(theirs, masks, strict=True):
                    message = store[values[layer]] - seen[values[layer]]
                    output_BHQC = output_BHQC + torch.matmul(seen[patterns[layer]] * mask, message)
                return output_BHQC

            return change

        with taps.edit(model, {f"layer.{i}.attn.head_output": replaced(i) for i in layers}):
            return model.tail(hidden, keep)


def tail_with_cut(
    model: SequenceModel,
    hidden: Tensor,
    keep: Tensor | None,
    edges: Tensor,
    *,
    head: int | None = None,
    pair_layer: int | None = None,
) -> Tensor:
    """Readouts (B, T) of stem tokens with edges, bool (B, Q, K), cut.

    Of attention, see `cut_edges`; with `pair_layer` what the pair track holds of them in that layer, see
    `without_pairs`.
    """
    edges = edges.to(hidden.device)
    with cut_edges(model, edges, head=head) if pair_layer is None else without_pairs(model, edges, pair_layer):
        return model.tail(hidden, keep)


@contextmanager
def without_pairs(model: SequenceModel, edges_BQK: Tensor, layer: int) -> Iterator[None]:
    """While open, the pair track of one layer holds zeros for the bins of the edges, which attention still has.

    Later layers feed these pairs from the tokens again.

    Raises
    ------
    DataError
        If the model has no pair track.
    """
    if not isinstance(model.encoder, PairEncoder):
        raise DataError("this model has no pair track: train it with model.trunk 'pair'")
    size = model.encoder.bin_tokens
    short = -edges_BQK.shape[-1] % size
    bins = F.pad(edges_BQK, (0, short, 0, short)).unflatten(1, (-1, size)).unflatten(-1, (-1, size)).any(2).any(-1)
    with taps.edit(model, {f"pair.{layer}.state": lambda state: state.masked_fill(bins[..., None], 0.0)}):
        yield
