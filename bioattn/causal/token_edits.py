"""Tokens of edited sequences, computed from the edited window alone.

Stem features of a token depend on a few bases around it, so an edit of some bases
changes a few tokens and no other. These are computed from a window and put into the
tokens of the original; edits that touch no token in common combine freely, which is how
the four cells of a pair are assembled from two edits.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bioattn.data import alphabet
from bioattn.models import SequenceModel


class Patch(NamedTuple):
    """Tokens that an edit may change.

    Attributes
    ----------
    first : Tensor, int64, shape (B,)
        First of them.
    hidden : Tensor, shape (B, W, D)
        Embedded tokens `first` to `first + W`.
    """

    first: Tensor
    hidden: Tensor


def touched_tokens(model: SequenceModel, start: Tensor, end: Tensor, n_tokens: int) -> tuple[Tensor, Tensor]:
    """First and last token (B,) whose features depend on bases [start, end), shape (B,), of `n_tokens` tokens."""
    reach, token_bp = model.receptive_field_bp // 2, model.token_bp
    first = (start - reach).clamp(min=0) // token_bp
    last = (end - 1 + reach).clamp(max=n_tokens * token_bp - 1) // token_bp
    return first, last


def edited_tokens(
    model: SequenceModel, edited: Tensor, start: Tensor, end: Tensor, *, width: int | None = None
) -> Patch:
    """Tokens of edited sequences that depend on the bases that were edited.

    Parameters
    ----------
    edited : Tensor, int64, shape (B, L)
        Codes of one strand, after the edit.
    start, end : Tensor, int64, shape (B,)
        Bases [start, end) that differ from the original, on that strand.
    width : int, optional
        Tokens of a patch, at least as many as an edit touches; by default the most that one does.

    Raises
    ------
    DataError
        If tokens do not tile sequences, or an edit may move the borders of others.
    """
    token_bp = model.token_bp
    n_tokens = -(-edited.shape[1] // token_bp)
    halo = -(-(model.receptive_field_bp // 2) // token_bp)
    first, last = touched_tokens(model, start, end, n_tokens)
    width = min(int((last - first).max()) + 1 if width is None else width, n_tokens)
    wide = min(width + 2 * halo, n_tokens)
    first = first.clamp(max=n_tokens - width)
    window = (first - halo).clamp(min=0, max=n_tokens - wide)
    padded = F.pad(edited, (0, n_tokens * token_bp - edited.shape[1]), value=alphabet.PAD)
    bases = window[:, None] * token_bp + torch.arange(wide * token_bp, device=edited.device)
    hidden, _ = model.embed(padded.gather(1, bases))
    kept = (first - window)[:, None] + torch.arange(width, device=edited.device)
    return Patch(first, hidden[torch.arange(len(edited), device=edited.device)[:, None], kept])


def assembled(hidden_BtD: Tensor, *patches: Patch) -> Tensor:
    """Copy of the tokens of sequences (B, t, D) with patches of edits that touch no token in common."""
    hidden_BtD = hidden_BtD.clone()
    row = torch.arange(len(hidden_BtD), device=hidden_BtD.device)[:, None]
    for first, tokens in patches:
        hidden_BtD[row, first[:, None] + torch.arange(tokens.shape[1], device=tokens.device)] = tokens
    return hidden_BtD
