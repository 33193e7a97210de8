"""What every tokenizer can do, and the projection of token values onto bases."""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from bioattn.errors import DataError


class Tokens(NamedTuple):
    """Tokens of a batch of sequences, padded on the right.

    Attributes
    ----------
    ids : Tensor, int64, shape (N, t)
        Vocabulary indices; `PAD_ID` is padding.
    start, end : Tensor, int64, shape (N, t)
        0-based half-open span of bases that each token covers; 0 and 0 for padding.
    unknown : Tensor, int64, shape (N, t), or None
        What an `UNKNOWN_ID` stands for, where that is not a single unknown base: the
        letters A C G T N of its span as digits of a number in base 5. For `decode`
        only; a model sees `ids`.
    """

    ids: Tensor
    start: Tensor
    end: Tensor
    unknown: Tensor | None = None


#: Padding, an unknown token (one that holds an unknown base), and a token that is hidden for prediction.
PAD_ID, UNKNOWN_ID, MASK_ID = 0, 1, 2
#: Ids of the special tokens come first in every vocabulary.
N_SPECIAL = 3


class Tokenizer(Protocol):
    """Turns base codes into tokens that know the bases they cover, and back.

    The spans of a sequence's tokens cover all of its bases, and its tokens do not
    depend on its batch mates, nor on how far it is padded.
    """

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary, special tokens included."""

    @property
    def token_bp(self) -> int | None:
        """Bases per token: token t covers [t * token_bp, (t + 1) * token_bp), cut at the end; None if it may not."""

    @property
    def on_grid(self) -> bool:
        """Whether where token t lies is the same in every sequence, but for its end."""

    def most_tokens(self, length: int) -> int:
        """Tokens to reckon with for a sequence of so many bases: exact on a grid, else an estimate from above."""

    def encode(self, codes: Tensor) -> Tokens:
        """Tokens of base codes (N, L), any integer type, padded on the right with `alphabet.PAD`."""

    def decode(self, tokens: Tokens) -> list[str]:
        """The sequences whose tokens these are, in A, C, G, T and N. The inverse of `encode`."""

    def word(self, token: int) -> str:
        """Bases of an id of the vocabulary; "N" for `UNKNOWN_ID`, nothing for padding and hidden tokens."""

    def describe(self) -> dict[str, Any]:
        """JSON document from which `tokenizer_from` makes the same tokenizer."""


def to_bases(values: Tensor, start: Tensor, end: Tensor, length: int) -> Tensor:
    """Values of tokens spread over the bases that they cover, shape (N, ..., L).

    Every token's value is divided evenly among its bases, so the sum over bases is
    the sum over tokens, whether tokens tile, overlap or differ in length. Bases that
    no token covers get exactly zero.

    Parameters
    ----------
    values : Tensor, float, shape (N, ..., t)
    start, end : Tensor, int64, shape (N, t)
        Spans of the tokens; an empty span (padding) must carry no value.
    length : int
        L, bases of the longest sequence.

    Raises
    ------
    DataError
        If a token without bases carries a value, or a span reaches past `length`.
    """
    width = end - start
    if end.numel() and int(end.max()) > length:
        raise DataError(f"tokens reach to base {int(end.max())} of sequences of {length} bases")
    between = [1] * (values.ndim - 2)
    width, start = (x.view(len(x), *between, -1).expand_as(values) for x in (width, start))
    if bool(((width == 0) & (values != 0)).any()):
        raise DataError("tokens without bases (padding) must carry no value")
    share = torch.where(width > 0, values / width.clamp(min=1), torch.zeros_like(values))
    bases = values.new_zeros(*values.shape[:-1], length)
    # One base of every token at a time: sums of shares only, where differences of running sums would lose digits.
    for i in range(int(width.max()) if width.numel() else 0):
        inside = i < width
        bases.scatter_add_(-1, torch.where(inside, start + i, 0), torch.where(inside, share, 0.0))
    return bases


def touched(bases: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Which tokens cover a marked base, bool (N, t), of marks `bases` (N, L) and spans (N, t)."""
    before = torch.nn.functional.pad(bases.long().cumsum(1), (1, 0))
    return before.gather(1, end) > before.gather(1, start)
