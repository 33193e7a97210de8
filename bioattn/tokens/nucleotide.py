"""Nucleotide tokens: one token per base, as tensors."""

import torch
from torch import Tensor

from bioattn.data import alphabet


def encode(sequences: list[str]) -> Tensor:
    """Tokens, int64, shape (N, L of the longest); padding is `alphabet.PAD` on the right."""
    return torch.from_numpy(alphabet.encode_batch(sequences)).long()


def decode(tokens: Tensor) -> list[str]:
    """Sequences of tokens (N, L); padding is dropped. The inverse of `encode` on A, C, G, T and N."""
    return [alphabet.decode(row) for row in tokens.cpu().numpy()]
