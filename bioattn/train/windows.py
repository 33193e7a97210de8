"""Unlabelled windows to pretrain on: cut from FASTA files, without what belongs to held-out sequences of the run."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn.config import PretrainConfig
from bioattn.data import alphabet
from bioattn.data.composition import words_of
from bioattn.data.splits import fold_columns, kmers
from bioattn.errors import ConfigError, DataError
from bioattn.io.fasta import read_fasta
from bioattn.rng import stream
from bioattn.train.store import Codes, codes_of_texts, read_sequences

#: A window that shares so many bases in a row with a held-out sequence, on either strand, would leak it.
LEAK_BP = 20
#: Largest share of unknown bases in a window.
MOST_UNKNOWN = 0.1
#: Windows that are judged at a time.
_CHUNK = 16_384


class Windows(NamedTuple):
    """Windows to learn from and to be judged by, and how many there were of each kind.

    `counts` has: found (in the files), judged (of them, in random order, until there were enough), unknown (judged
    and left out for unknown bases), leaking (judged and left out for sharing bases with held-out sequences), train,
    validation.
    """

    train: Codes
    validation: Codes
    counts: dict[str, int]


def read_windows(
    paths: Sequence[str | Path], length: int, rules: PretrainConfig, held_out: Sequence[str], *, seed: int
) -> Windows:
    """Random windows of FASTA files, without unknown bases in plenty and without held-out sequences.

    Records longer than `length` are cut into windows side by side; what is left at
    their end is not used. Shorter records are windows of their own, if they have
    `LEAK_BP` bases at least.

    Parameters
    ----------
    length : int
        Bases of a window.
    held_out : sequence of str
        A window is left out that shares `LEAK_BP` bases in a row with one of them on either strand, or contains one
        that is shorter than this.

    Raises
    ------
    DataError
        If a file cannot be read, or there are too few windows for one batch of each kind.
    """
    everything = _cut(paths, length)
    known = _held_out_kmers(held_out, min(LEAK_BP, length))
    order = stream(seed, "pretrain", "windows").permutation(len(everything))
    kept: list[NDArray[np.int64]] = []
    judged = unknown = leaking = 0
    for start in range(0, len(order), _CHUNK):
        if sum(map(len, kept)) >= rules.max_windows:
            break
        index = order[start : start + _CHUNK]
        codes = everything.rows(index)
        poor = (codes == alphabet.UNKNOWN).sum(1) > MOST_UNKNOWN * everything.lengths[index]
        leaks = _shares(list(everything.take(index).texts()), known) & ~poor
        kept.append(index[~poor & ~leaks])
        judged, unknown, leaking = judged + len(index), unknown + int(poor.sum()), leaking + int(leaks.sum())
    chosen = np.concatenate([np.zeros(0, dtype=np.int64), *kept])[: rules.max_windows]
    n_validation = max(round(rules.validation_fraction * len(chosen)), 1)
    counts = {"found": len(everything), "judged": judged, "unknown": unknown, "leaking": leaking}
    counts |= {"train": max(len(chosen) - n_validation, 0), "validation": min(n_validation, len(chosen))}
    if counts["train"] < rules.batch_size:
        raise _too_few(counts, rules, length)
    return Windows(everything.take(chosen[n_validation:]), everything.take(chosen[:n_validation]), counts)


def _too_few(counts: dict[str, int], rules: PretrainConfig, length: int) -> DataError:
    return DataError(
        f"found {counts['train']} windows of {length} bp to pretrain on, at least pretrain.batch_size "
        f"({rules.batch_size}) are needed: of {counts['judged']} that were looked at {counts['unknown']} have too many "
        f"unknown bases and {counts['leaking']} share {LEAK_BP} bp with held-out sequences: add FASTA files "
        "(pretrain.fasta), or lower pretrain.window_bp or pretrain.batch_size"
    )


def _cut(paths: Sequence[str | Path], length: int) -> Codes:
    """All windows of FASTA files, as intervals of one block of bytes."""
    flat = bytearray()
    starts, lengths = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for path in paths:
        for record in read_fasta(path):
            codes = alphabet.encode(record.sequence)
            if len(codes) >= length:
                found = np.arange(0, len(codes) - length + 1, length, dtype=np.int64)
            else:
                found = np.zeros(int(len(codes) >= LEAK_BP), dtype=np.int64)
            starts.append(found + len(flat))
            lengths.append(np.full(len(found), min(len(codes), length), dtype=np.int64))
            flat += codes.data
    flat += bytes([alphabet.PAD]) * length
    return Codes(np.frombuffer(flat, dtype=np.uint8), np.concatenate(starts), np.concatenate(lengths), length)


def _held_out_kmers(held_out: Sequence[str], k: int) -> dict[int, NDArray[np.uint64]]:
    """k-mers of the sequences, sorted; of those shorter than k the whole, by their lengths."""
    by_length: dict[int, list[str]] = {}
    for text in held_out:
        if text:
            by_length.setdefault(min(len(text), k), []).append(text)
    return {
        width: np.unique(np.concatenate([codes for codes, _ in kmers(texts, width)]))
        for width, texts in by_length.items()
    }


def _shares(texts: Sequence[str], known: dict[int, NDArray[np.uint64]]) -> NDArray[np.bool_]:
    """Which sequences hold a known k-mer on either strand."""
    shares = np.zeros(len(texts), dtype=bool)
    for k, wanted in known.items():
        for codes, rows in kmers(texts, k):
            place = np.minimum(np.searchsorted(wanted, codes), len(wanted) - 1)
            shares[rows[wanted[place] == codes]] = True
    return shares


# -------------------------------------------------------------- sequences of the run


def longest_and_held_out(sequences: pd.DataFrame | str | Path, split: pd.DataFrame) -> tuple[int, list[str]]:
    """Longest sequence of a run in bp, and all sequences that any fold holds out for validation or test."""
    if isinstance(sequences, pd.DataFrame):
        names, codes = sequences["name"], codes_of_texts(sequences["sequence"])
    else:
        table, codes = read_sequences(sequences, ["name"])
        names = table["name"]
    held_out = np.flatnonzero(names.isin(_held_out_names(split)).to_numpy())
    return codes.width, list(codes.take(held_out).texts())


def held_out_digest(split: pd.DataFrame) -> str:
    """Twelve hex digits of which sequences a split holds out in any fold."""
    return hashlib.sha256("\n".join(sorted(_held_out_names(split))).encode()).hexdigest()[:12]


def _held_out_names(split: pd.DataFrame) -> list[str]:
    folds = fold_columns(split)
    if not folds:
        raise ConfigError(f"the split has no column 'fold_0', found {list(split.columns)}: split the sequences first")
    return list(split["name"][split[folds].isin(["validation", "test"]).any(axis=1)])


# ------------------------------------------------------------------- what is to beat


def markov_bits(train: Codes, held_out: Codes, *, order: int, both_strands: bool) -> float:
    """Bits per base that a Markov model of `train` needs for `held_out`, where a base's `order` predecessors are known.

    Each letter counts once more than it was seen. With `both_strands` it learns from
    the reverse complements too.
    """
    counts = np.ones(alphabet.N_LETTERS ** (order + 1))
    for codes in train.chunks():
        counts += _word_counts(codes, order + 1)
        if both_strands:
            counts += _word_counts(alphabet.reverse_complement_codes(codes), order + 1)
    by_context = counts.reshape(-1, alphabet.N_LETTERS)
    bits = -np.log2(by_context / by_context.sum(1, keepdims=True)).reshape(-1)
    found = sum(_word_counts(codes, order + 1) for codes in held_out.chunks())
    return float((found * bits).sum() / np.maximum(np.sum(found), 1))


def _word_counts(codes: NDArray[np.uint8], n: int) -> NDArray[np.int64]:
    """How often each word of n known bases is in the rows of codes (N, L)."""
    words = words_of(codes.ravel(), np.full(len(codes), codes.shape[1]), n)[1]
    return np.bincount(words, minlength=alphabet.N_LETTERS**n)
