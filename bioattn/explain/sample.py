"""Which sequences explanations look at: discovery never touches the test set, tests touch nothing else."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn import rng
from bioattn.config import RunConfig
from bioattn.data import alphabet
from bioattn.data.splits import subset_of
from bioattn.errors import DataError


@dataclass(frozen=True)
class Sample:
    """Codes (N, L) of sequences for discovery and of held-out ones, with the latter's names."""

    discovery: NDArray[np.uint8]
    held_out: NDArray[np.uint8]
    held_out_names: list[str]


def held_out_sample(run: RunConfig, sequences: pd.DataFrame, split: pd.DataFrame, *, fold: int) -> Sample:
    """Random sequences of training and validation for discovery, and of the test set to test on.

    For a binary task only positives are taken: their motifs are what one looks for.

    Raises
    ------
    DataError
        If the fold has no test sequences to take.
    """
    subset = subset_of(sequences, split, fold=fold)
    wanted = np.ones(len(sequences), dtype=bool)
    if run.task.kind == "binary":
        wanted = sequences[run.task.targets[0]].to_numpy() == 1
    draw = rng.stream(run.seed, "explain", "sample", fold)
    parts = []
    for inside in (subset != "test", subset == "test"):
        rows = np.flatnonzero(wanted & inside)
        parts.append(draw.permutation(rows)[: run.explain.n_sequences])
    if min(map(len, parts)) == 0:
        raise DataError(
            f"fold {fold} has no sequences to explain: the split leaves the test or the training part empty"
        )
    text, names = sequences["sequence"].to_numpy(), sequences["name"].to_numpy()
    discovery, held_out = (alphabet.encode_batch(text[rows].tolist()) for rows in parts)
    return Sample(discovery, held_out, names[parts[1]].tolist())
