"""What every tokenizer can do, and the projection of token values onto bases."""

from typing import NamedTuple, Protocol

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
    """

    ids: Tensor
    start: Tensor
    end: Tensor


#: Padding, an unknown token (one that holds an unknown base), and a token that is hidden for prediction.
PAD_ID, UNKNOWN_ID, MASK_ID = 0, 1, 2
#: Ids of the special tokens come first in every vocabulary.
N_SPECIAL = 3


class Tokenizer(Protocol):
    """Turns base codes into tokens that know the bases they cover, and back."""

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary, special tokens included."""

    def encode(self, codes: Tensor) -> Tokens:
        """Tokens of base codes (N, L), any integer type, padded on the right with `alphabet.PAD`."""

    def decode(self, ids: Tensor) -> list[str]:
        """Sequences of token ids (N, t); padding is dropped."""

    def describe(self) -> dict[str, object]:
        """JSON document from which `tokenizer_from` makes the same tokenizer."""


def to_bases(values: Tensor, start: Tensor, end: Tensor, length: int) -> Tensor:
    """Values of tokens spread over the bases that they cover, shape (N, ..., L).

    Every token's value is divided evenly among its bases, so the sum over bases is
    the sum over tokens, whether tokens tile, overlap or differ in length.

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
    covered = end - start
    if end.numel() and int(end.max()) > length:
        raise DataError(f"tokens reach to base {int(end.max())} of sequences of {length} bases")
    between = [1] * (values.ndim - 2)
    widths = covered.view(len(covered), *between, -1)
    if bool(((widths == 0) & (values != 0)).any()):
        raise DataError("tokens without bases (padding) must carry no value")
    share = torch.where(widths > 0, values / widths.clamp(min=1), torch.zeros_like(values))
    # Each span adds its share at its start and takes it away at its end; the running sum is the value per base.
    steps = share.new_zeros(*share.shape[:-1], length + 1)
    steps.scatter_add_(-1, start.view(len(start), *between, -1).expand_as(share), share)
    steps.scatter_add_(-1, end.view(len(end), *between, -1).expand_as(share), -share)
    return steps[..., :length].cumsum(-1)
