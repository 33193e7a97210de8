"""A table of sequences with measured values, from a designed or randomised library."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bioattn.config import DataConfig
from bioattn.data.letters import clean
from bioattn.errors import DataError
from bioattn.io.lines import read_delimited
from bioattn.io.tables import text_rows


class Measured(NamedTuple):
    """Sequences (N,), their values (N,), float64, and the background each was made from, or None."""

    sequences: list[str]
    values: NDArray[np.float64]
    backgrounds: list[str] | None


def read_measured(
    path: str | Path, *, sequence_column: str, value_column: str, background_column: str | None = None
) -> Measured:
    """Read a TSV, CSV (also as `.gz`) or parquet table.

    Raises
    ------
    DataError
        If the file or a column is missing, it has no rows, or a sequence or value is none: names the
        file and the line.
    """
    columns = [sequence_column, value_column, *([background_column] if background_column else [])]
    is_parquet = Path(path).suffix.lower() == ".parquet"
    rows = text_rows(path, required=columns) if is_parquet else read_delimited(path, required=columns).rows
    rules = DataConfig()
    found = Measured([], np.zeros(0), [] if background_column else None)
    values = []
    for line, cells in rows:
        try:
            letters = clean(cells[sequence_column].upper(), rules, rng=lambda: np.random.default_rng(0))
            value = float(cells[value_column])
        except (DataError, ValueError) as error:
            what = error if isinstance(error, DataError) else f"'{cells[value_column]}' is not a number"
            raise DataError(f"{path} line {line}: {what}") from None
        if not np.isfinite(value):
            raise DataError(f"{path} line {line}: '{cells[value_column]}' is not a finite number")
        found.sequences.append(letters.sequence)
        values.append(value)
        if found.backgrounds is not None and background_column:
            found.backgrounds.append(cells[background_column])
    if not values:
        raise DataError(f"{path}: found no rows, expected one per measured sequence below the header")
    return found._replace(values=np.array(values))
