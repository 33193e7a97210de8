"""Rows in Arrow memory."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bioattn.data import rows
from bioattn.data.rows import Rows, copies


def test_rows_of_several_batches_with_changing_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns that come late, or not in every row, are null elsewhere; order and types hold across batches."""
    monkeypatch.setattr(rows, "_BATCH", 3)
    collected = Rows({"y": pa.float64()})
    cells = [{"name": f"r{i}", "y": i / 2, **({"late": f"v{i}"} if i in (7, 10) else {})} for i in range(11)]
    for row in cells:
        collected.add(row)
    assert len(collected) == 11
    frame = collected.frame()
    assert list(frame.columns) == ["name", "y", "late"]
    assert frame["name"].tolist() == [row["name"] for row in cells]
    assert frame["y"].dtype == np.float64 and frame["y"].tolist() == [row["y"] for row in cells]
    assert {i: value for i, value in enumerate(frame["late"]) if isinstance(value, str)} == {7: "v7", 10: "v10"}


def test_no_rows() -> None:
    """A collection without rows is an empty table."""
    assert Rows({}).frame().empty


def test_copies_name_the_first_of_each_text() -> None:
    """Every text is told which one it repeats, as a slow search finds."""
    texts = ["b", "a", "b", "", "a", "c", "", "b"]
    assert copies(pd.Series(texts)).tolist() == [texts.index(text) for text in texts]
    assert copies(pd.Series([], dtype=object)).tolist() == []
