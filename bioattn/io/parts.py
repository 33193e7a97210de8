"""Long tables made in parts: what is finished when a job is stopped is not made again."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from bioattn.errors import DataError
from bioattn.io.tables import read_parquet, read_record, write_parquet

T = TypeVar("T")


def make_in_parts(
    out: str | Path,
    items: Sequence[T],
    make: Callable[[Sequence[T]], pd.DataFrame],
    record: Mapping[str, Any],
    *,
    size: int,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Table of all items, made `size` of them at a time.

    Each part is written to the folder `out`.parts, whole or not at all, and read from there
    if it is there with the same record. `finish_parts` removes the folder once `out` is written.

    Parameters
    ----------
    make : callable
        From some items to their rows; must not depend on the other items.
    record : mapping
        All that the parts depend on, the items included.
    progress : callable, optional
        Called with the number of items done and to do.
    """
    folder = _folder(out)
    tables = []
    for part, start in enumerate(range(0, len(items), size)):
        path = folder / f"{part:05d}.parquet"
        own = {**record, "part": [start, size]}
        table = _finished(path, own)
        if table is None:
            table = make(items[start : start + size])
            folder.mkdir(parents=True, exist_ok=True)
            write_parquet(path, table, own)
        tables.append(table)
        if progress is not None:
            progress(min(start + size, len(items)), len(items))
    return pd.concat(tables, ignore_index=True) if tables else make(items)


def finish_parts(out: str | Path) -> None:
    """Remove the parts of a table that is written."""
    shutil.rmtree(_folder(out), ignore_errors=True)


def _folder(out: str | Path) -> Path:
    return Path(f"{out}.parts")


def _finished(path: Path, record: Mapping[str, Any]) -> pd.DataFrame | None:
    """A part that is whole and has that record, else None."""
    try:
        return read_parquet(path) if read_record(path) == dict(record) else None
    except DataError:
        return None
