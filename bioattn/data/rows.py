"""Rows collected in Arrow memory: a million sequences take up their letters and little more."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

#: Rows that are turned into Arrow memory at a time.
_BATCH = 8_192


class Rows:
    """Rows with the same or different columns, added one by one.

    Parameters
    ----------
    types : mapping of str to DataType
        Of the columns that are not text.
    """

    def __init__(self, types: Mapping[str, pa.DataType]) -> None:
        self._types = types
        self._batches: list[pa.Table] = []
        self._pending: list[Mapping[str, Any]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, cells: Mapping[str, Any]) -> None:
        """Add a row; a column that it lacks is null."""
        self._pending.append(cells)
        self._count += 1
        if len(self._pending) == _BATCH:
            self._flush()

    def frame(self) -> pd.DataFrame:
        """All rows, columns in the order in which they first occurred. Empties this collection."""
        self._flush()
        if not self._batches:
            return pd.DataFrame()
        table = pa.concat_tables(self._batches, promote_options="default")
        self._batches = []
        # self_destruct: where pandas holds text as Python objects, no column is held twice.
        return table.to_pandas(split_blocks=True, self_destruct=True)

    def _flush(self) -> None:
        if not self._pending:
            return
        names = dict.fromkeys(name for cells in self._pending for name in cells)
        arrays = [
            pa.array([cells.get(name) for cells in self._pending], type=self._types.get(name, pa.large_string()))
            for name in names
        ]
        self._batches.append(pa.table(arrays, names=list(names)))
        self._pending = []


def copies(texts: pd.Series) -> pd.Series:
    """Number of the first of the texts that equals each, shape (N,), index 0 to N - 1.

    Texts are compared by a digest of 128 bits, so that none is held a second time.
    """
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
    keys = pd.DataFrame(np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2), columns=["high", "low"])
    group = keys.groupby(["high", "low"], sort=False).ngroup()
    return group.map(pd.Series(np.unique(group, return_index=True)[1]))
