"""Nucleotides: sequences as base codes, which models take, and one token per base."""

from typing import Any

import torch
from torch import Tensor

from bioattn.data import alphabet
from bioattn.tokens.kmer import KmerTokenizer


def encode(sequences: list[str]) -> Tensor:
    """Base codes, int64, shape (N, L of the longest); padding is `alphabet.PAD` on the right."""
    return torch.from_numpy(alphabet.encode_batch(sequences)).long()


def decode(codes: Tensor) -> list[str]:
    """Sequences of base codes (N, L); padding is dropped. The inverse of `encode` on A, C, G, T and N."""
    return [alphabet.decode(row) for row in codes.cpu().numpy()]


class NucleotideTokenizer(KmerTokenizer):
    """One token per base, which is a word of one base; an unknown base is `UNKNOWN_ID`."""

    def __init__(self) -> None:
        super().__init__(1, 1)

    def describe(self) -> dict[str, Any]:
        """The kind."""
        return {"kind": "nucleotide"}
