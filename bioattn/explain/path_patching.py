"""What flows through one head alone: a model is run again from a layer on, with other outputs of heads."""

import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bioattn.data import alphabet
from bioattn.errors import BioattnWarning, DataError
from bioattn.explain.predict import BATCH
from bioattn.models import SequenceModel
from bioattn.nn import taps
from bioattn.nn.blocks import Block, zero_padding
from bioattn.nn.encoder import Encoder

#: A head as (layer, head).
Head = tuple[int, int]
#: Bases per forward pass: streams and head outputs of all layers are held for as many.
_BASES = 2**15


class Pass(NamedTuple):
    """What one forward pass over one strand left behind, so that it can be run again from any layer on.

    Attributes
    ----------
    keep : bool Tensor, shape (B, n_prefix + t), or None
        Real tokens; None if all are.
    streams : tuple of Tensor (B, n_prefix + t, D)
        What goes into each layer.
    outputs : tuple of Tensor (B, H, n_prefix + t, C)
        `head_output` of each layer.
    readouts : Tensor, shape (B, T)
    pairs : tuple of Tensor (B, I, J, P)
        State of the pair track in each layer; empty without one.
    """

    keep: Tensor | None
    streams: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    readouts: Tensor
    pairs: tuple[Tensor, ...] = ()

    def rows(self, index: Tensor) -> "Pass":
        """Of some sequences, which may repeat."""
        keep = None if self.keep is None else self.keep[index]
        streams, outputs, pairs = (tuple(t[index] for t in each) for each in (self.streams, self.outputs, self.pairs))
        return Pass(keep, streams, outputs, self.readouts[index], pairs)


def rows_at_once(length: int) -> int:
    """Sequences of so many bases in one forward pass that is recorded."""
    return int(np.clip(_BASES // max(length, 1), 1, BATCH))


def output_tap(layer: int) -> str:
    """Name of the tap of a layer's heads."""
    return f"layer.{layer}.attn.head_output"


def record_pass(model: SequenceModel, tokens: Tensor) -> Pass:
    """Forward pass over the given strand of base codes (B, L), recorded; the model is in evaluation mode."""
    streams = ["embed", *(f"layer.{layer}.resid" for layer in range(model.n_layers - 1))]
    outputs = [output_tap(layer) for layer in range(model.n_layers)]
    pairs = [f"pair.{layer}.state" for layer in range(model.n_layers)] if model.has_pairs else []
    hidden, real = model.embed(tokens)
    with taps.record(model, [*streams, *outputs, *pairs]) as store:
        encoded, keep = model.encode(hidden, real)
    readouts = _read(model, encoded, keep)
    kept = [tuple(store[name] for name in names) for names in (streams, outputs, pairs)]
    return Pass(keep, kept[0], kept[1], readouts, kept[2])


def rerun(model: SequenceModel, seen: Pass, changes: Mapping[int, taps.Change]) -> Tensor:
    """Readouts (B, T) of a recorded pass with edits of the head outputs of some layers.

    Nothing before the first edited output is run again, its own attention neither; all after it responds.
    """
    if not changes:
        return seen.readouts
    first = min(changes)
    x_BLD = _after_heads(model.encoder.layer[first], seen, first, changes[first])
    pair = seen.pairs[first] if seen.pairs else None
    with taps.edit(model, {output_tap(layer): change for layer, change in changes.items() if layer > first}):
        assert isinstance(model.encoder, Encoder)
        encoded = model.encoder.after(first, x_BLD, keep=seen.keep, pair=pair)
    return _read(model, encoded, seen.keep)


def _after_heads(block: nn.Module, seen: Pass, layer: int, change: taps.Change) -> Tensor:
    """Stream after a block whose heads have other outputs: what `Block` does from there on."""
    assert isinstance(block, Block)
    attended_BLD = block.attn.project_out(change(seen.outputs[layer]).transpose(1, 2).flatten(2))
    x_BLD = seen.streams[layer] + attended_BLD
    return zero_padding(x_BLD + block.feedforward(block.norm_feedforward(x_BLD)), seen.keep)


def _read(model: SequenceModel, encoded_BLD: Tensor, keep: Tensor | None) -> Tensor:
    return model.readout(model.pooling(encoded_BLD, keep=keep)) * model.readout_sd + model.readout_mean


def require_heads(model: SequenceModel, heads: Sequence[Head]) -> None:
    """Raise DataError for heads that the model does not have."""
    if model.n_heads == 0:
        raise DataError("this model has no attention heads: its encoder is recurrent")
    for layer, head in heads:
        if not (0 <= layer < model.n_layers and 0 <= head < model.n_heads):
            raise DataError(
                f"head L{layer}H{head} does not exist: this model has layers 0 to {model.n_layers - 1} "
                f"with heads 0 to {model.n_heads - 1}"
            )


@torch.inference_mode()
def head_restricted_mutagenesis(
    model: SequenceModel,
    codes: NDArray[np.uint8],
    heads: Sequence[Head],
    positions: NDArray[np.int64],
    *,
    readout: int = 0,
) -> NDArray[np.float32]:
    """Effect of substitutions on the readout that flows through one head alone.

    The mutated sequence is run once and the output of every head is kept. Then the
    original is run with the output of one head replaced by that of the mutated run; later
    layers respond to it, all else is as in the original (path patching). The sum over heads
    is not the effect of the substitution: the residual stream carries a part past all heads,
    and later layers are not linear.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    heads : sequence of (layer, head)
    positions : ndarray of int, shape (N, K)
        Bases of each sequence to substitute; -1 is none.

    Returns
    -------
    ndarray, float32, shape (N, len(heads), K, A)
        Change of the readout, in the readout's units, of the mean over strands where the
        model averages them. 0 at the original letter; NaN where there is no position or
        only padding, and where a substitution moves the borders of learned words: the
        tokens of the two runs are then not the same places. A warning counts the latter.

    Raises
    ------
    DataError
        If a head or a position does not exist, or the shapes do not fit.
    """
    positions = np.asarray(positions)
    require_heads(model, heads)
    _check_positions(codes, positions)
    at = np.take_along_axis(codes, positions.clip(min=0), axis=1)
    usable = (positions >= 0) & (at != alphabet.PAD)
    effect = np.zeros((len(codes), len(heads), positions.shape[1], alphabet.N_LETTERS), dtype=np.float32)
    effect[np.broadcast_to(~usable[:, None, :, None], effect.shape)] = np.nan
    # In the order of sequences, so that few originals belong to a batch of mutants.
    row, place, letter = np.nonzero(usable[:, :, None] & (at[:, :, None] != np.arange(alphabet.N_LETTERS)))
    size, n_moved = rows_at_once(codes.shape[1]), 0
    for first in range(0, len(row), size):
        r, k, a = (index[first : first + size] for index in (row, place, letter))
        mutated = codes[r].copy()
        mutated[np.arange(len(r)), positions[r, k]] = a
        original, which = np.unique(r, return_inverse=True)
        found, moved = _through_heads(model, codes[original], mutated, which, heads, readout)
        effect[r, :, k, a] = found
        n_moved += int(moved.sum())
    if n_moved:
        warnings.warn(
            f"{n_moved} of {len(row)} substitutions move the borders of words, so their tokens cannot be compared "
            "with the original's: their effects are NaN; model.tokenizer.kind 'nucleotide' or 'kmer' has none",
            BioattnWarning,
            stacklevel=2,
        )
    return effect


@torch.inference_mode()
def through_heads(
    model: SequenceModel,
    codes: NDArray[np.uint8],
    mutated: NDArray[np.uint8],
    heads: Sequence[Head],
    *,
    readout: int = 0,
) -> NDArray[np.float32]:
    """Change of the readout (N, len(heads)) from sequences to mutated ones that flows through each head alone.

    As `head_restricted_mutagenesis`, for any replacement of bases: codes and mutated
    have shape (N, L) and the same padding. NaN where the borders of learned words move.

    Raises
    ------
    DataError
        If a head does not exist, or the sequences do not have the same lengths.
    """
    require_heads(model, heads)
    if codes.shape != mutated.shape or ((codes == alphabet.PAD) != (mutated == alphabet.PAD)).any():
        raise DataError("mutated sequences must have the length of the original ones")
    size = rows_at_once(codes.shape[1])
    parts = [np.zeros((0, len(heads)), dtype=np.float32)]
    for first in range(0, len(codes), size):
        some = slice(first, first + size)
        which = np.arange(len(codes[some]))
        parts.append(_through_heads(model, codes[some], mutated[some], which, heads, readout)[0])
    return np.concatenate(parts)


def _check_positions(codes: NDArray[np.uint8], positions: NDArray[np.int64]) -> None:
    length = codes.shape[1]
    if positions.ndim != 2 or len(positions) != len(codes) or not np.issubdtype(positions.dtype, np.integer):
        raise DataError(
            f"positions must be integers of shape ({len(codes)}, n), a row for each sequence, "
            f"got {positions.dtype} {positions.shape}"
        )
    if positions.size and not -1 <= positions.min() <= positions.max() < length:
        raise DataError(
            f"positions must lie in 0 to {length - 1} (or be -1 for none), got {positions.min()} to {positions.max()}"
        )


def _through_heads(
    model: SequenceModel,
    original: NDArray[np.uint8],
    mutated: NDArray[np.uint8],
    which: NDArray[np.int64],
    heads: Sequence[Head],
    readout: int,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Effects (M, len(heads)) of M mutants of `original[which]`, and whether their tokens lie elsewhere (M,)."""
    device = next(model.parameters()).device
    # Both in one batch: their tokens are padded to one length.
    both = torch.from_numpy(np.concatenate([original, mutated]).astype(np.int64)).to(device)
    n, index = len(original), torch.from_numpy(which).to(device)
    effect = torch.zeros(len(mutated), len(heads), device=device)
    moved = torch.zeros(len(mutated), dtype=torch.bool, device=device)
    strands = model.strands(both)
    for strand in strands:
        if model.tokenizer is not None:
            spans = torch.stack(model.token_spans(strand), dim=-1)
            moved |= (spans[n:] != spans[:n][index]).flatten(1).any(1)
        seen = record_pass(model, strand)
        intact = seen.rows(index)
        for column, (layer, head) in enumerate(heads):
            change = taps.patch(seen.outputs[layer][n:], np.s_[:, head])
            patched = rerun(model, intact, {layer: change})
            effect[:, column] += (patched - intact.readouts)[:, readout] / len(strands)
    effect[moved] = torch.nan
    return effect.float().cpu().numpy(), moved.cpu().numpy()
