"""Negative examples made from positives."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from bioattn.data import alphabet
from bioattn.data.edits import dinucleotide_shuffle_codes
from bioattn.errors import DataError
from bioattn.rng import stream

#: A shuffle that equals its parent is drawn again this often before the parent counts as unshufflable.
_ATTEMPTS = 50


class WithNegatives(NamedTuple):
    """The table with negatives below the positives, and parents that gave none."""

    table: pd.DataFrame
    rejected: pd.DataFrame


def add_shuffled(table: pd.DataFrame, *, target: str, per_positive: int, seed: int) -> WithNegatives:
    """Table with dinucleotide shuffles of its positives added as negatives.

    A shuffle is called ``parent|shuffle1``, has sample "shuffled" and target 0.
    It takes over the parent's `split_given` and `group`, so predefined splits
    and splits by a column stay valid, but it is not tied to its parent
    otherwise: the two share composition, which both classes have alike, and no
    longer words, so parting them leaks nothing. Coordinates and other columns
    are empty, because a shuffle lies nowhere.

    Parents with no other sequence of the same dinucleotide counts (AAAA) give
    no negative and are listed; they stay positives.

    Raises
    ------
    DataError
        If no positive can be shuffled, or there is none.
    """
    positives = table.index[table[target] == 1]
    if not len(positives):
        raise DataError(f"target '{target}': found no positive (1) to shuffle, data.negatives needs some")
    rng = stream(seed, "negatives", "dinucleotide_shuffle")
    sequences, names = table["sequence"].to_dict(), table["name"].to_dict()
    shuffled = {int(row): [""] * per_positive for row in positives}
    stuck: set[int] = set()
    for _, rows in table.loc[positives].groupby("length", sort=True).groups.items():
        parents = np.stack([alphabet.encode(sequences[row]) for row in rows])
        for copy in range(per_positive):
            made, same = _unlike(parents, rng)
            stuck.update(int(row) for row, failed in zip(rows, same, strict=True) if failed)
            for row, codes in zip(rows, made, strict=True):
                shuffled[int(row)][copy] = alphabet.decode(codes)
    keep = [row for row in shuffled if row not in stuck]
    rejected = pd.DataFrame(
        {
            "file": "(made)",
            "line": 0,
            "name": [f"{names[row]}|shuffle1" for row in sorted(stuck)],
            "reason": "no other sequence has the dinucleotide counts of its parent",
        }
    )
    if not keep:
        raise DataError(
            f"found no positive that can be shuffled: no other sequence has the same dinucleotide counts (first: "
            f"'{names[positives[0]]}'); give negatives of your own"
        )
    return WithNegatives(pd.concat([table, _rows(table, keep, shuffled, target)], ignore_index=True), rejected)


def _unlike(parents: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Shuffles (N, L) of parents (N, L), and which of them still equal their parent."""
    made = parents.copy()
    same = np.ones(len(parents), dtype=bool)
    for _ in range(_ATTEMPTS):
        made[same] = dinucleotide_shuffle_codes(parents[same], rng)
        same = (made == parents).all(axis=1)
        if not same.any():
            break
    return made, same


def _rows(table: pd.DataFrame, keep: list[int], shuffled: dict[int, list[str]], target: str) -> pd.DataFrame:
    rows = [(row, copy) for row in keep for copy in range(len(shuffled[row]))]
    parent = table.loc[[row for row, _ in rows]].reset_index(drop=True)
    negatives = pd.DataFrame(
        {
            "name": [f"{name}|shuffle{copy + 1}" for name, (_, copy) in zip(parent["name"], rows, strict=True)],
            "sequence": [shuffled[row][copy] for row, copy in rows],
            "sample": "shuffled",
            "length": parent["length"],
            "split_given": parent["split_given"],
            "group": parent["group"],
            target: 0.0,
        }
    )
    if "strand" in table:
        negatives["strand"] = "."
    # With the dtypes of the table, so that columns a shuffle lacks are empty rather than retyped.
    return negatives.reindex(columns=table.columns).astype(table.dtypes.to_dict())
