"""Saturation mutagenesis: the effect of every single substitution on the readout."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bioattn.data import alphabet
from bioattn.explain.predict import BATCH, predict
from bioattn.models import SequenceModel, one_hot

#: Sequences whose tokens are held at a time.
_SEQUENCES = 64
#: Tokens of a batch on a CPU: as many as its caches hold; larger batches are up to 1.7 times slower.
_CPU_TOKENS = 8192

#: Readouts (B,) of sequences `row` with `letter` at `position`, each an int64 Tensor (B,).
_Change = Callable[[Tensor, Tensor, Tensor], Tensor]


@torch.inference_mode()
def ism(
    model: SequenceModel,
    codes: NDArray[np.uint8],
    *,
    readout: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Change of the readout for every letter at every position.

    Batches are filled across sequences. Where a stem computes tokens, only those near
    the substitution are computed again before attention.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    progress : callable, optional
        Called with the substitutions done and their number.

    Returns
    -------
    ndarray, float32, shape (N, A, L)
        f(substituted) - f(original) on the pre-link scale: zero at the original
        letter, NaN at padding.
    """
    n, length = codes.shape
    padded = np.broadcast_to((codes == alphabet.PAD)[:, None], (n, alphabet.N_LETTERS, length))
    wanted = (codes[:, None] != np.arange(alphabet.N_LETTERS)[:, None]) & ~padded
    effect = np.zeros(wanted.shape, dtype=np.float32)
    done, total, size = 0, int(wanted.sum()), _batch_size(model, length)
    for first in range(0, n, _SEQUENCES):
        some = codes[first : first + _SEQUENCES]
        change = (_by_sequence if model.tokenizer is not None else _by_token)(model, some, readout)
        original = torch.from_numpy(predict(model, some)[:, readout])
        for index in torch.from_numpy(np.argwhere(wanted[first : first + _SEQUENCES])).split(size):
            row, letter, position = index.T
            value = change(row, position, letter).cpu() - original[row]
            effect[first + row.numpy(), letter.numpy(), position.numpy()] = value.float().numpy()
            done += len(index)
            if progress is not None:
                progress(done, total)
    effect[padded] = np.nan
    return effect


def _batch_size(model: SequenceModel, n_bases: int) -> int:
    if next(model.parameters()).device.type != "cpu":
        return BATCH
    words = model.tokenizer
    n_tokens = -(-n_bases // model.token_bp) if words is None else words.most_tokens(n_bases)
    return max(1, min(BATCH, _CPU_TOKENS // max(n_tokens, 1)))


def _by_sequence(model: SequenceModel, codes: NDArray[np.uint8], readout: int) -> _Change:
    """Run the whole model: a substitution may change any word."""

    def change(row: Tensor, position: Tensor, letter: Tensor) -> Tensor:
        changed = codes[row.numpy()]
        changed[np.arange(len(changed)), position.numpy()] = letter.numpy()
        return torch.from_numpy(predict(model, changed)[:, readout])

    return change


def _by_token(model: SequenceModel, codes: NDArray[np.uint8], readout: int) -> _Change:
    """Run the stem on the neighbourhood of a substitution, and the rest of the model on all tokens."""
    tokens = torch.from_numpy(codes.astype(np.int64)).to(next(model.parameters()).device)
    length = (tokens != alphabet.PAD).sum(1)
    given, *other = [_StemWindows(model, strand) for strand in model.strands(tokens)]

    def change(row: Tensor, position: Tensor, letter: Tensor) -> Tensor:
        row, position, letter = (each.to(tokens.device) for each in (row, position, letter))
        values = [model.tail(*given.changed(row, position, letter))[:, readout]]
        for strand in other:
            mirrored = strand.changed(row, length[row] - 1 - position, alphabet.N_LETTERS - 1 - letter)
            values.append(model.tail(*mirrored)[:, readout])
        return torch.stack(values).mean(0)

    return change


class _StemWindows:
    """Tokens of one strand of sequences, of which those that see a changed base are computed anew.

    A base is seen by the tokens up to `reach` from its own, and these see as far
    again: so the stem gets 4 x reach + 1 tokens' bases, and gives 2 x reach + 1 tokens
    that do not see beyond. Bases outside the sequence are padding, as to the stem at
    the ends of a whole sequence.
    """

    def __init__(self, model: SequenceModel, tokens_BL: Tensor) -> None:
        self.stem, self.dtype = model.stem, model.readout.weight.dtype
        self.hidden_BLD, self.keep_BL = model.embed(tokens_BL)
        self.token_bp = model.token_bp
        self.reach = -(-(model.receptive_field_bp // 2) // self.token_bp)
        margin = 2 * self.reach * self.token_bp
        self.padded_BL = F.pad(tokens_BL, (margin, margin + self.token_bp), value=alphabet.PAD)

    def changed(self, row: Tensor, position: Tensor, letter: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens of sequences with one base changed, and which of them are real, as `model.embed` gives them."""
        token = position // self.token_bp
        window = torch.arange((4 * self.reach + 1) * self.token_bp, device=row.device)
        # Padding in front shifts a position by as much as a window begins before its token.
        index = (token * self.token_bp)[:, None] + window
        bases = self.padded_BL[row[:, None], index]
        middle = 2 * self.reach * self.token_bp + position % self.token_bp
        bases[torch.arange(len(row), device=row.device), middle] = letter
        fresh = self.stem(one_hot(bases).to(self.dtype), bases != alphabet.PAD)[:, self.reach : 3 * self.reach + 1]
        hidden = self.hidden_BLD[row]
        for offset in range(-self.reach, self.reach + 1):
            place = token + offset
            inside = torch.nonzero((place >= 0) & (place < hidden.shape[1]))[:, 0]
            hidden[inside, place[inside]] = fresh[inside, offset + self.reach]
        return hidden, None if self.keep_BL is None else self.keep_BL[row]


def importance(effect: NDArray[np.float32]) -> NDArray[np.float32]:
    """Importance (N, L) of each position: root mean square effect of its three substitutions."""
    return np.sqrt((effect**2).sum(1) / (alphabet.N_LETTERS - 1))


def contribution(effect: NDArray[np.float32]) -> NDArray[np.float32]:
    """Contribution (N, A, L) of each letter at each position: its effect less the mean over letters."""
    return effect - effect.mean(1, keepdims=True)


def ism_table(effect: NDArray[np.float32], codes: NDArray[np.uint8], names: Sequence[str]) -> pd.DataFrame:
    """Effects (N, A, L) as a table: name, position, reference letter, and the effect of each letter."""
    real = codes != alphabet.PAD
    sequence, position = np.nonzero(real)
    table = pd.DataFrame({"name": np.asarray(names)[sequence], "position": position})
    table["reference"] = np.array(list(alphabet.LETTERS + "N"))[codes[real]]
    for letter, column in zip(alphabet.LETTERS, effect.transpose(1, 0, 2), strict=True):
        table[letter] = column[real]
    return table
