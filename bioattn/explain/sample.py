"""Which sequences explanations look at: discovery never touches the test set, tests touch nothing else."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn import rng
from bioattn.config import RunConfig
from bioattn.data import alphabet
from bioattn.data.splits import subset_of
from bioattn.errors import DataError
from bioattn.explain.head_ablation import Scored


@dataclass(frozen=True)
class Sample:
    """Codes (N, L) and names of sequences for discovery and of held-out ones, and some of the latter with targets."""

    discovery: NDArray[np.uint8]
    held_out: NDArray[np.uint8]
    scored: Scored
    discovery_names: list[str]
    held_out_names: list[str]


def held_out_sample(run: RunConfig, sequences: pd.DataFrame, split: pd.DataFrame, *, fold: int) -> Sample:
    """Random sequences of training and validation for discovery, and of the test set to test on.

    For a binary task only positives are taken: their motifs are what one looks for.
    Those on which heads are scored are of all classes.

    Raises
    ------
    DataError
        If the fold has no sequences to take, of training or of test, or no positives there.
    """
    subset = subset_of(sequences, split, fold=fold)
    wanted, what = np.ones(len(sequences), dtype=bool), "sequence"
    if run.task.kind == "binary":
        wanted, what = sequences[run.task.targets[0]].to_numpy() == 1, f"sequence with {run.task.targets[0]} = 1"
    draw = rng.stream(run.seed, "explain", "sample", fold)
    parts = []
    for name, inside in (("training and validation", subset != "test"), ("test", subset == "test")):
        rows = np.flatnonzero(wanted & inside)
        if not len(rows):
            raise DataError(
                f"fold {fold} has no {what} to explain among the {inside.sum()} of {name}: motifs are sought in "
                f"{'positives' if run.task.kind == 'binary' else 'sequences'} of training and validation and tested "
                "on those of the test set, so both must have some; make the split anew, or see the targets"
            )
        parts.append(draw.permutation(rows)[: run.explain.n_sequences])
    text, names = sequences["sequence"].to_numpy(), sequences["name"].to_numpy()
    discovery, held_out = (alphabet.encode_batch(text[rows].tolist()) for rows in parts)
    tested = draw.permutation(np.flatnonzero(subset == "test"))[: run.explain.scored_sequences]
    targets = sequences[run.task.targets].iloc[tested].to_numpy(np.float32)
    scored = Scored(alphabet.encode_batch(text[tested].tolist()), targets)
    return Sample(discovery, held_out, scored, names[parts[0]].tolist(), names[parts[1]].tolist())


def two_parts(
    discovery: NDArray[np.uint8] | Sequence[str], held_out: NDArray[np.uint8] | Sequence[str] | None, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
    """Codes of sequences for discovery and of held-out ones, and which of `discovery` the former are.

    Without held-out sequences, random halves of the others are both.
    """
    first = checked_codes(discovery, "discovery")
    if held_out is not None:
        return first, checked_codes(held_out, "held_out"), np.arange(len(first))
    if len(first) < 2:
        raise DataError(f"found {len(first)} sequence: motifs are sought in some and tested on others")
    order = rng.stream(seed, "heads", "halves").permutation(len(first))
    half = len(order) // 2
    return first[order[:half]], first[order[half:]], order[:half]


def checked_codes(sequences: NDArray[np.uint8] | Sequence[str], name: str) -> NDArray[np.uint8]:
    """Codes (N, L) of sequences that a caller gives, as codes or as text of A, C, G, T and N, under a name for errors.

    Raises
    ------
    DataError
        If there is none, or one is empty or of other letters.
    """
    if isinstance(sequences, str):
        raise DataError(f"{name} is one text of {len(sequences)} letters, expected a list of sequences")
    if isinstance(sequences, np.ndarray) and sequences.dtype.kind in "iu":
        if sequences.ndim != 2 or sequences.size and not 0 <= sequences.min() <= sequences.max() <= alphabet.PAD:
            raise DataError(f"{name}: expected codes from 0 to {alphabet.PAD} of shape (N, L), got {sequences.shape}")
        codes = sequences.astype(np.uint8, copy=False)
    else:
        texts = list(sequences)
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(f"{name}[{i}] is {type(text).__name__}, expected text")
            if found := re.search("[^ACGTN]", text, re.IGNORECASE | re.ASCII):
                raise DataError(
                    f"{name}[{i}] has '{found[0]}' at position {found.start() + 1}, allowed are A, C, G, T and N"
                )
        codes = alphabet.encode_batch(texts)
    if not len(codes):
        raise DataError(f"{name} has no sequence, expected at least one")
    empty = np.flatnonzero((codes == alphabet.PAD).all(1))
    if len(empty):
        raise DataError(f"{name}[{empty[0]}] is empty: leave it out")
    return codes
