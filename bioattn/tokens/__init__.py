"""Sequences to tokens; every token knows the bases it covers."""

from collections.abc import Mapping
from typing import Any

from bioattn.errors import ConfigError, DataError
from bioattn.tokens.base import Tokenizer
from bioattn.tokens.bpe import BpeTokenizer
from bioattn.tokens.kmer import KmerTokenizer
from bioattn.tokens.nucleotide import NucleotideTokenizer

__all__ = ["BpeTokenizer", "KmerTokenizer", "NucleotideTokenizer", "Tokenizer", "tokenizer_for", "tokenizer_from"]


def tokenizer_for(kind: str, k: int = 1, stride: int = 1) -> Tokenizer:
    """Tokenizer of a kind that needs no training: "nucleotide", or "kmer" with its `k` and `stride`.

    Raises
    ------
    ConfigError
        For "bpe", which `bioattn.tokens.bpe.train_bpe` learns from sequences, and unknown kinds.
    """
    if kind == "nucleotide":
        return NucleotideTokenizer()
    if kind == "kmer":
        return KmerTokenizer(k, stride)
    if kind == "bpe":
        raise ConfigError("a tokenizer of kind 'bpe' is learned from training sequences: use train_bpe")
    raise ConfigError(f"'{kind}' is not a kind of tokenizer; allowed: nucleotide, kmer, bpe")


def tokenizer_from(document: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer whose `describe` gave this document.

    Raises
    ------
    DataError
        If the document describes no tokenizer.
    """
    try:
        if document["kind"] == "bpe":
            return BpeTokenizer.from_description(document)
        return tokenizer_for(document["kind"], document.get("k", 1), document.get("stride", 1))
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise DataError(f"not the description of a tokenizer ({type(error).__name__}: {error})") from None
