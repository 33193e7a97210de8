"""Small tokenizers of every kind, and sequences with repeated words to learn from."""

import numpy as np
from torch import Tensor

from bioattn.tokens import KmerTokenizer, NucleotideTokenizer, Tokenizer, nucleotide
from bioattn.tokens.bpe import train_bpe


def related(n: int, *, seed: int = 0) -> list[str]:
    """Sequences of 11 to 47 bases, half of them made of a few words."""
    generator = np.random.default_rng(seed)
    words = ["TATAAT", "TTGACA", "GGC", "CACGTG", "A", "C", "G", "T"]
    texts = []
    for _ in range(n):
        length = int(generator.integers(11, 48))
        texts.append("".join(generator.choice(words, length))[:length])
    return texts


def codes_of(texts: list[str]) -> Tensor:
    """Base codes (N, L) of texts."""
    return nucleotide.encode(texts)


#: Learned from sequences of its own; 40 different tokens.
BPE = train_bpe(related(60, seed=99), vocabulary=40)
TOKENIZERS: dict[str, Tokenizer] = {
    "nucleotide": NucleotideTokenizer(),
    "3-mers": KmerTokenizer(3, 3),
    "3-mers, stride 1": KmerTokenizer(3, 1),
    "4-mers, stride 3": KmerTokenizer(4, 3),
    "bpe": BPE,
}
