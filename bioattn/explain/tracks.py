"""Tracks: what every head gives to every token of a sequence, and what of it shuffled sequences explain.

The gradient-weighted tracks need no pattern. For a head with pattern P, values v and
output o, the sum over queries of P_qk dF/dP_qk is the product of v_k and dF/dv_k, and
the sum over keys is that of o_q and dF/do_q.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bioattn import rng
from bioattn.data import alphabet
from bioattn.data.edits import dinucleotide_shuffle_codes
from bioattn.errors import DataError
from bioattn.explain.predict import batches, require_readout
from bioattn.models import SequenceModel
from bioattn.nn import taps
from bioattn.nn.multihead import MultiHeadAttention
from bioattn.nn.observe import BATCH, NO_LAYERS, attention_layers
from bioattn.nn.reverse import Gradients, Reverse
from bioattn.nn.sums import Observed, is_exact, is_plain, kept_lse, layer_received, layer_returns
from bioattn.tokens.base import to_bases

#: Tokens of a batch: few, so that what a backward pass keeps of a layer stays near the processor.
_BATCH_TOKENS = 4096
#: Place and composition are fitted in turns. They hardly depend on each other in shuffles, so this converges at once.
_ROUNDS = 3
#: Neighbourhood of a token whose composition counts, in bp.
_NEIGHBOURHOOD_BP = 30


class HeadTracks(NamedTuple):
    """Each (N, C, t), float32, NaN at padding; C = layer * n_heads + head; without tokens before the sequence.

    Attributes
    ----------
    received : ndarray
        Attention that each token receives from all queries: 1 = uniform.
    gradient : ndarray or None
        Sum over queries of pattern times its gradient: what the reading of this token
        does to the readout, signed, in its units.
    output : ndarray or None
        Sum over keys of the same: what a token's own reading does to the readout.
    """

    received: NDArray[np.float32]
    gradient: NDArray[np.float32] | None
    output: NDArray[np.float32] | None


def head_tracks(
    model: SequenceModel, codes: NDArray[np.uint8], *, readout: int = 0, gradients: bool = True
) -> HeadTracks:
    """Tracks of every head in one pass over the sequences, on the strand that is given.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    readout : int
        Readout, before its link, that gradients are of.
    gradients : bool
        Whether the last two tracks are wanted, which take a backward pass.

    Raises
    ------
    DataError
        If the model has no attention layers or no such readout, or there is no sequence.

    Source: gradient times attention, Chefer et al. 2021, summed over queries or keys.
    """
    if not attention_layers(model):
        raise DataError(NO_LAYERS)
    require_readout(model, codes, readout)
    size = _batch_size(model, codes.shape[1])
    parts = [_batch_tracks(model, batch, readout, gradients) for batch in batches(codes, size)]
    received, *weighted = (stacked(list(tensors), float("nan")).numpy() for tensors in zip(*parts, strict=True))
    return HeadTracks(received, *(weighted or (None, None)))


def _batch_size(model: SequenceModel, n_bases: int) -> int:
    words = model.tokenizer
    n_tokens = -(-n_bases // model.token_bp) if words is None else words.most_tokens(n_bases)
    return max(1, min(BATCH, _BATCH_TOKENS // max(n_tokens + model.n_prefix, 1)))


def _batch_tracks(model: SequenceModel, batch: Tensor, readout: int, gradients: bool) -> list[Tensor]:
    batch = batch.to(next(model.parameters()).device)
    with torch.no_grad():
        hidden, real = model.embed(batch)
    keep = None if real is None else F.pad(real, (model.n_prefix, 0), value=True)
    layers = [_Layer(layer, f"layer.{i}.attn", keep) for i, layer in enumerate(attention_layers(model))]
    by_layer = (_weighted if gradients else _received)(model, hidden, real, layers, readout)
    tracks = [torch.cat(kind, dim=1)[..., model.n_prefix :].float().cpu() for kind in zip(*by_layer, strict=True)]
    if real is not None:
        tracks = [track.masked_fill(~real[:, None].cpu(), float("nan")) for track in tracks]
    return tracks


class _Layer:
    """One attention layer in one batch."""

    def __init__(self, module: MultiHeadAttention, name: str, keep: Tensor | None) -> None:
        self.module, self.name, self.keep = module, name, keep
        self.store: dict[str, Tensor] = {}
        self.lse: Tensor | None = None
        self.found: list[Gradients] = []

    def names(self, *kinds: str) -> list[str]:
        return [f"{self.name}.{kind}" for kind in kinds]

    def of(self, kind: str) -> Tensor:
        return self.store[f"{self.name}.{kind}"]

    @property
    def seen(self) -> Observed:
        query, key = (self.of(kind).detach() for kind in ("query", "key"))
        return Observed(self.module, query, key, self.keep, slice(None))

    def reverse(self, output: Tensor) -> Tensor:
        """The output as it is; where it can be, with a gradient that finds what keys receive on its way."""
        self.lse = kept_lse(output)
        if self.lse is None or not is_plain(self.seen) or not is_exact(self.seen):
            return output
        inputs = (self.of(kind) for kind in ("query", "key", "value"))
        reversing: Tensor = Reverse.apply(output.detach(), *inputs, self.lse, self.keep, self.found)
        return reversing


@torch.no_grad()
def _received(
    model: SequenceModel, hidden: Tensor, real: Tensor | None, layers: list[_Layer], readout: int
) -> list[list[Tensor]]:
    """The first track (B, H, L) of each layer."""
    with taps.record(model, [name for layer in layers for name in layer.names("query", "key")]) as store:
        model.encode(hidden, real)
    for layer in layers:
        layer.store = store
    return [[layer_received(layer.seen)] for layer in layers]


def _weighted(
    model: SequenceModel, hidden: Tensor, real: Tensor | None, layers: list[_Layer], readout: int
) -> list[list[Tensor]]:
    """The three tracks (B, H, L) of each layer."""
    with (
        torch.enable_grad(),
        taps.record(model, [name for layer in layers for name in layer.names("query", "key", "value")]) as store,
        taps.edit(model, {layer.names("head_output")[0]: layer.reverse for layer in layers}),
        # After the edit, to record what it made.
        taps.record(model, [layer.names("head_output")[0] for layer in layers]) as outputs_by_name,
    ):
        for layer in layers:
            layer.store = store
        # Gradients are taken from the tokens on, and of activations only: weights get none.
        value = model.tail(hidden.detach().requires_grad_(), real)[:, readout].sum()
    outputs = [outputs_by_name[layer.names("head_output")[0]] for layer in layers]
    by_autograd = [layer.of("value") for layer in layers if not is_plain(layer.seen)]
    slopes = iter(torch.autograd.grad(value, [*outputs, *by_autograd], materialize_grads=True))
    output_slopes = [next(slopes) for _ in outputs]
    tracks = []
    with torch.no_grad():
        for layer, output, slope in zip(layers, outputs, output_slopes, strict=True):
            if layer.found:
                received, v_slope = layer.found[0].received, layer.found[0].value
            elif is_plain(layer.seen):  # in the first layer no gradient goes further than the output
                received, v_slope = layer_returns(layer.seen, slope, lse=layer.lse)
            else:
                received, v_slope = layer_received(layer.seen), next(slopes)
            pairs = ((layer.of("value"), v_slope), (output, slope))
            tracks.append([received, *(torch.linalg.vecdot(x, y.to(x.dtype)) for x, y in pairs)])
    return tracks


def stacked(parts: list[Tensor], filler: float) -> Tensor:
    """Batches one below the other; of learned words their last axis differs in length."""
    widest = max(part.shape[-1] for part in parts)
    return torch.cat([F.pad(part, (0, widest - part.shape[-1]), value=filler) for part in parts])


class Places(NamedTuple):
    """Where tokens lie.

    Attributes
    ----------
    start, end : ndarray, int64, shape (N, t)
        Spans of the tokens, 0 and 0 for padding.
    centre : ndarray, int64, shape (N, t)
        Base in the middle of each token.
    on_grid : bool
        Whether token t lies at the same place in every sequence.
    length : int
        Bases of the longest sequence.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    centre: NDArray[np.int64]
    on_grid: bool
    length: int

    @property
    def real(self) -> NDArray[np.bool_]:
        """Which tokens cover any base, (N, t)."""
        return self.end > self.start

    @property
    def first(self) -> NDArray[np.int64]:
        """First base of each place of a profile."""
        return self.start.max(0) if self.on_grid else np.arange(self.length)


def token_places(model: SequenceModel, codes: NDArray[np.uint8]) -> Places:
    """Where the tokens of some sequences lie."""
    spans = [model.token_spans(batch) for batch in batches(codes, BATCH)]
    start, end = (stacked([span[i] for span in spans], 0).numpy() for i in (0, 1))
    on_grid = model.tokenizer is None or model.tokenizer.on_grid
    width = end - start
    if on_grid:  # the last token may be cut; its middle is that of a whole one
        width = np.where(width > 0, width.max(initial=0), 0)
    return Places(start, end, start + width // 2, on_grid, codes.shape[1])


def track_table(tracks: HeadTracks, places: Places, names: Sequence[str], n_heads: int) -> pd.DataFrame:
    """Tracks as a table, one row per token and head.

    Columns name (of the sequence), layer, head, start and end (bases that the token
    covers, 0-based half-open), received, gradient, output (see `HeadTracks`; without
    gradients only the first).

    Parameters
    ----------
    names : sequence of str
        Of the sequences.
    n_heads : int
        Heads of each layer.
    """
    real = places.real[:, : tracks.received.shape[2]]
    sequence, token = np.nonzero(real)
    n = tracks.received.shape[1]
    row, column = np.repeat(sequence, n), np.repeat(token, n)
    head = np.tile(np.arange(n), len(sequence))
    values = {kind: track for kind, track in tracks._asdict().items() if track is not None}
    return pd.DataFrame(
        {
            "name": np.asarray(names)[row],
            "layer": head // n_heads,
            "head": head % n_heads,
            "start": places.start[row, column],
            "end": places.end[row, column],
            **{kind: track[row, head, column] for kind, track in values.items()},
        }
    )


def by_place(track: NDArray[np.float32], places: Places) -> NDArray[np.float32]:
    """A track (N, C, t) by place (N, C, places), NaN at padding: each token of a grid, else each base's share."""
    if places.on_grid:
        return track
    values, start, end = map(torch.from_numpy, (np.nan_to_num(track), places.start, places.end))
    bases = to_bases(values, start, end, places.length).numpy()
    beyond = np.arange(places.length) >= places.end.max(1)[:, None]
    return np.where(beyond[:, None], np.nan, bases)


class Expectation(NamedTuple):
    """What place and composition make of a track.

    Attributes
    ----------
    profile : ndarray, float32, shape (C, places)
        Mean by place over shuffled sequences, at mean composition.
    slope : ndarray, float64, shape (C, 4)
        Change of a token's value by the GC share and the CpG share of its
        neighbourhood, by the GC share of the sequence, and by the bases that a learned
        word covers, each less its mean. The last tells what every word gets from what
        every base gets.
    centre : ndarray, float64, shape (4,)
        These means.
    sd : ndarray, float64, shape (C,)
        Of what the shuffled sequences have beyond all that: excess / sd is a z-score.
    """

    profile: NDArray[np.float32]
    slope: NDArray[np.float64]
    centre: NDArray[np.float64]
    sd: NDArray[np.float64]

    def excess(self, track: NDArray[np.float32], codes: NDArray[np.uint8], places: Places) -> NDArray[np.float32]:
        """What a track (N, C, t) has beyond the expectation; NaN beyond the longest shuffled sequence."""
        features = _composition(codes, places)[:, : track.shape[2]] - self.centre
        return _less(_less(track, _placed(self.profile, places, track.shape[2])), _composed(features, self.slope))


def expectation(track: NDArray[np.float32], codes: NDArray[np.uint8], places: Places) -> Expectation:
    """Expectation of a track (N, C, t) from shuffled sequences: additive in place and composition, by least squares."""
    n_tokens = track.shape[2]
    real = places.real[:, :n_tokens]
    features = _composition(codes, places)[:, :n_tokens]
    centre = features[real].mean(0)
    features -= centre
    slope: NDArray[np.float64] = np.zeros((track.shape[1], features.shape[-1]))
    for _ in range(_ROUNDS):
        profile = mean_over_sequences(by_place(_less(track, _composed(features, slope)), places))
        left = _less(track, _placed(profile, places, n_tokens)).transpose(0, 2, 1)[real]
        slope = np.linalg.lstsq(features[real], left.astype(np.float64), rcond=1e-6)[0].T.astype(np.float64)
    return Expectation(profile, slope, centre, (left - features[real] @ slope.T).std(0))


def _less(track: NDArray[np.float32], part: NDArray) -> NDArray[np.float32]:
    return np.subtract(track, part, dtype=np.float32)


def _composed(features: NDArray[np.float64], slope: NDArray[np.float64]) -> NDArray[np.float32]:
    """What composition (N, t, 4) adds to tokens, (N, C, t)."""
    return np.einsum("ntf,cf->nct", features.astype(np.float32), slope.astype(np.float32))


def _placed(profile: NDArray[np.float32], places: Places, n_tokens: int) -> NDArray[np.float32]:
    """A profile at each token: (1, C, t) on a grid, else the sum over the token's bases (N, C, t)."""
    n_places = n_tokens if places.on_grid else places.length
    known = np.full((len(profile), n_places), np.nan, dtype=np.float32)
    known[:, : profile.shape[1]] = profile[:, :n_places]
    if places.on_grid:
        return known[None]
    before = np.concatenate([np.zeros((len(known), 1)), known.cumsum(1, dtype=np.float64)], axis=1)
    end, start = places.end[:, :n_tokens], places.start[:, :n_tokens]
    return (before[:, end] - before[:, start]).transpose(1, 0, 2).astype(np.float32)


def mean_over_sequences(track: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of a track (N, ..., places) over the sequences that reach so far; NaN where none does."""
    n = (~np.isnan(track)).sum(0)
    mean: NDArray[np.float32] = np.where(n > 0, np.nansum(track, axis=0, dtype=np.float64) / np.maximum(n, 1), np.nan)
    return mean.astype(np.float32)


def shuffled(codes: NDArray[np.uint8], seed: int, *names: str | int) -> NDArray[np.uint8]:
    """A dinucleotide shuffle of each sequence."""
    draw = rng.stream(seed, *names)
    result = codes.copy()
    lengths = (codes != alphabet.PAD).sum(1)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        result[rows, :length] = dinucleotide_shuffle_codes(codes[rows, :length], draw)
    return result


def _composition(codes: NDArray[np.uint8], places: Places) -> NDArray[np.float64]:
    """GC and CpG share of each token's neighbourhood, GC share of its sequence, and bases of the token, (N, t, 4)."""
    gc = (codes == 1) | (codes == 2)
    cpg = np.zeros_like(gc)
    cpg[:, :-1] = (codes[:, :-1] == 1) & (codes[:, 1:] == 2)
    length = (codes != alphabet.PAD).sum(1)
    middle = np.minimum(places.centre, length[:, None])
    low = np.maximum(middle - _NEIGHBOURHOOD_BP // 2, 0)
    high = np.minimum(middle + _NEIGHBOURHOOD_BP // 2, length[:, None])
    shares = []
    for is_there in (gc, cpg):
        before = np.concatenate([np.zeros((len(codes), 1)), is_there.cumsum(1)], axis=1)
        inside = np.take_along_axis(before, high, 1) - np.take_along_axis(before, low, 1)
        shares.append(inside / np.maximum(high - low, 1))
    whole = np.broadcast_to((gc.sum(1) / np.maximum(length, 1))[:, None], middle.shape)
    # On a grid only the last token of a sequence differs, which its place says already.
    width = np.zeros(middle.shape) if places.on_grid else places.end - places.start
    return np.stack([*shares, whole, width], axis=-1)
