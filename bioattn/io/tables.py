"""Result tables that say where they come from: parquet and TSV with a provenance record.

Parquet files carry the record in their schema; a TSV carries it in a JSON file of
the same name beside it, so that the TSV itself stays plain.
"""

import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bioattn.errors import DataError
from bioattn.io.files import replacing, write_text
from bioattn.io.lines import Row

_KEY = b"bioattn"
#: Rows that are written, and may be read, at a time.
_ROW_GROUP = 65_536


def write_parquet(path: str | Path, table: pd.DataFrame, record: Mapping[str, Any]) -> None:
    """Write a table with its provenance record (config digest, seed, control, ...)."""
    data = pa.Table.from_pandas(table, preserve_index=False)
    data = data.replace_schema_metadata({**(data.schema.metadata or {}), _KEY: json.dumps(dict(record)).encode()})
    with replacing(path) as temporary:
        pq.write_table(data, temporary, row_group_size=_ROW_GROUP)


def read_parquet(path: str | Path) -> pd.DataFrame:
    """Table of a parquet file. Raises `DataError` if it is missing or not parquet."""
    return _open(path).to_pandas()


def read_record(path: str | Path) -> dict[str, Any]:
    """Provenance record of a parquet file or of a TSV written by `write_tsv`."""
    path = Path(path)
    if path.suffix == ".parquet":
        return dict(json.loads((_open(path).schema.metadata or {}).get(_KEY, b"{}")))
    beside = path.with_suffix(".json")
    return dict(json.loads(beside.read_text(encoding="utf-8"))) if beside.exists() else {}


def write_tsv(path: str | Path, table: pd.DataFrame, record: Mapping[str, Any]) -> None:
    """Write a TSV and, beside it, a JSON file of the same name with its provenance record."""
    path = Path(path)
    write_text(path.with_suffix(".json"), json.dumps(dict(record), indent=1) + "\n")
    with replacing(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, float_format="%.6g", na_rep="NA")


def read_tsv(path: str | Path) -> pd.DataFrame:
    """Table of a TSV. Raises `DataError` if it is missing or has no columns."""
    try:
        return pd.read_csv(path, sep="\t", na_values=["NA"], keep_default_na=False)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{path}: empty file, expected a TSV with a header") from None


def text_rows(path: str | Path, *, required: Iterable[str] = ()) -> Iterator[Row]:
    """Rows of a parquet file as text with their 1-based numbers, some thousand read at a time.

    Raises
    ------
    DataError
        If the file is missing or not parquet, or lacks a required column.
    """
    with parquet_errors(path):
        file = pq.ParquetFile(path)
        # pandas writes an index without a name as a column like this one.
        names = [name for name in file.schema_arrow.names if not name.startswith("__index_level_")]
    for name in required:
        if name not in names:
            raise DataError(f"{path}: no column '{name}', found {', '.join(names)}")
    batches = file.iter_batches(batch_size=_ROW_GROUP // 16, columns=names)
    number = 0
    while True:
        with parquet_errors(path):
            batch = next(batches, None)
            rows = [] if batch is None else batch.to_pylist()
        if batch is None:
            return
        for row in rows:
            number += 1
            yield Row(number, {name: "" if _is_missing(cell) else str(cell) for name, cell in row.items()})


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _open(path: str | Path) -> pa.Table:
    with parquet_errors(path):
        return pq.read_table(path)


@contextlib.contextmanager
def parquet_errors(path: str | Path) -> Iterator[None]:
    """Turn what Arrow raises for missing, foreign and damaged files into `DataError`."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        what = " ".join(str(error).split())
        raise DataError(f"{path}: not a complete parquet file ({what}): make it anew") from None
