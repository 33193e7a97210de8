"""k-mers: words of k bases on a regular grid, tiling or overlapping."""

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bioattn.data import alphabet
from bioattn.errors import ConfigError
from bioattn.tokens.base import N_SPECIAL, PAD_ID, UNKNOWN_ID, Tokens

#: Letters of a word that may hold unknown bases.
_SPELLING = alphabet.LETTERS + "N"
#: Longest word: there are 4^8 of that length.
MOST_K = 8

Width = TypeVar("Width", int, Tensor)


class KmerTokenizer:
    """Words of `k` bases, `stride` bases from one to the next.

    Token t starts at base t * stride. Tokens are made until one reaches the end of
    the sequence; the last one holds the bases that are left, 1 to k of them, so no
    base is lost. The vocabulary therefore has all words of 1 to k bases, the
    shorter ones first. A word with an unknown base is `UNKNOWN_ID` to a model;
    `Tokens.unknown` keeps its letters.

    Everything is arithmetic on tensors, on any device, and the number of tokens
    follows from the shape, so it may run inside a model, compiled or on shapes only.

    Raises
    ------
    ConfigError
        If k is not 1 to 8, or stride not 1 to k.
    """

    def __init__(self, k: int, stride: int) -> None:
        if not 1 <= k <= MOST_K:
            raise ConfigError(f"k-mers have 1 to {MOST_K} bases, got k = {k}")
        if not 1 <= stride <= k:
            raise ConfigError(f"the stride of {k}-mers must be 1 to {k}, or bases are lost, got {stride}")
        self.k = k
        self.stride = stride

    @property
    def n_tokens(self) -> int:
        """Special tokens and words of 1 to k bases."""
        return first_id(self.k + 1)

    @property
    def token_bp(self) -> int | None:
        """k where k-mers tile; None where they overlap."""
        return self.k if self.stride == self.k else None

    @property
    def on_grid(self) -> bool:
        """Always."""
        return True

    def most_tokens(self, length: int) -> int:
        """Exactly the tokens of `length` bases: the first, and one for each further stride that is begun."""
        return 0 if length < 1 else 1 - (-max(length - self.k, 0) // self.stride)

    def encode(self, codes: Tensor) -> Tokens:
        """Tokens of base codes (N, L), any integer type, padded on the right with `alphabet.PAD`."""
        n, length = codes.shape
        t = self.most_tokens(length)
        start = torch.arange(t, device=codes.device) * self.stride
        length_N1 = (codes != alphabet.PAD).sum(1, keepdim=True)
        real = (start < length_N1) & ((start == 0) | (start - self.stride + self.k < length_N1))
        number, spelled, width = torch.zeros(3, n, t, dtype=torch.long, device=codes.device)
        unknown = torch.zeros_like(real)
        reach = max((t - 1) * self.stride, 0)
        padded = F.pad(codes.long(), (0, reach + self.k - length), value=alphabet.PAD)
        for i in range(self.k):
            letter = padded[:, i : i + reach + 1 : self.stride][:, :t]
            inside = letter != alphabet.PAD
            number = torch.where(inside, number * alphabet.N_LETTERS + letter, number)
            spelled = torch.where(inside, spelled * len(_SPELLING) + letter, spelled)
            unknown = unknown | (letter == alphabet.UNKNOWN)
            width = width + inside
        ids = torch.where(unknown, UNKNOWN_ID, first_id(width) + number)
        zero = torch.zeros((), dtype=torch.long, device=codes.device)
        return Tokens(
            torch.where(real, ids, PAD_ID),
            torch.where(real, start, zero),
            torch.where(real, start + width, zero),
            torch.where(real & unknown, spelled, zero),
        )

    def decode(self, tokens: Tokens) -> list[str]:
        """The sequences whose tokens these are."""
        ids, width = tokens.ids.cpu(), (tokens.end - tokens.start).cpu()
        unknown = torch.zeros_like(ids) if tokens.unknown is None else tokens.unknown.cpu()
        texts = []
        for row in zip(ids.tolist(), width.tolist(), unknown.tolist(), strict=True):
            words = [
                _digits(spelled, bases, _SPELLING) if token == UNKNOWN_ID else self.word(token)
                for token, bases, spelled in zip(*row, strict=True)
                if token != PAD_ID
            ]
            texts.append("".join([*(word[: self.stride] for word in words[:-1]), *words[-1:]]))
        return texts

    def word(self, token: int) -> str:
        """Bases of an id of the vocabulary."""
        if token < N_SPECIAL:
            return "N" if token == UNKNOWN_ID else ""
        width = next(w for w in range(1, self.k + 1) if token < first_id(w + 1))
        return _digits(token - first_id(width), width, alphabet.LETTERS)

    def describe(self) -> dict[str, Any]:
        """Kind, k and stride."""
        return {"kind": "kmer", "k": self.k, "stride": self.stride}


def first_id(width: Width) -> Width:
    """Id of the first word of so many bases (1 or more): after the special tokens and all shorter words."""
    return N_SPECIAL + (alphabet.N_LETTERS**width - alphabet.N_LETTERS) // (alphabet.N_LETTERS - 1)


def _digits(number: int, n: int, letters: str) -> str:
    """The n digits of a number, as letters."""
    found = ""
    for _ in range(n):
        number, digit = divmod(number, len(letters))
        found = letters[digit] + found
    return found
