"""Data frames as report tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bioattn.report.blocks import Cell, Column, Table
from bioattn.report.numbers import MISSING, as_float, count, interval, number, p_value
from bioattn.report.words import COLUMN_TITLES


def plain_table(
    id: str, caption: str, frame: pd.DataFrame, *, titles: Mapping[str, str] | None = None, sortable: bool = False,
    note: str = "", most_rows: int = 200,
) -> Table:  # fmt: skip
    """A table that shows every column of a frame, numbers rounded, at most `most_rows` rows."""
    shown = frame.head(most_rows)
    columns = [
        Column(str(name), (titles or {}).get(str(name), readable(str(name))), numeric=is_numeric(frame[name]))
        for name in frame
    ]
    rows = [[value_cell(column.key, row[column.key]) for column in columns] for row in shown.to_dict("records")]
    if len(frame) > len(shown):
        note = f"{note} First {len(shown):,} of {count(len(frame), 'row')}.".strip()
    return Table(id, caption, columns, rows, sortable=sortable, note=note)


def value_cell(column: str, value: Any) -> Cell:
    """A cell with the format that the column's name asks for."""
    if isinstance(value, (list, tuple)):
        return Cell(", ".join(map(str, value)))
    if value is None or value is pd.NA or (isinstance(value, float) and pd.isna(value)) or value == "":
        return Cell(MISSING)
    if isinstance(value, bool) or str(value) in ("True", "False"):
        return Cell("yes" if str(value) == "True" else "no", sort=str(value))
    numeric = as_float(value) if not isinstance(value, str) else None
    if numeric is None:
        return Cell(str(value), sort=str(value).lower())
    return Cell(p_value(numeric) if is_probability(column) else number(numeric), sort=repr(numeric))


def measured_cell(row: Mapping[str, Any], name: str, start: str) -> Cell:
    """A cell with a measured number, and below it the interval whose ends begin with `start`."""
    value = as_float(row.get(name))
    if value is None:
        return Cell(MISSING)
    ends = interval(row.get(f"{start}_ci_low"), row.get(f"{start}_ci_high"))
    return Cell(number(value), below=ends, sort=repr(value))


def is_known(value: object) -> bool:
    """Whether a value is there: neither None nor NaN nor an empty text."""
    return value is not None and value == value and value != ""


def is_probability(column: str) -> bool:
    """Whether a column holds p- or q-values, by its name."""
    return column in ("p", "q") or column.endswith(("_p", "_q", "p_value", "q_value"))


def is_numeric(values: pd.Series) -> bool:
    """Whether a column holds numbers (booleans do not count)."""
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def readable(name: str) -> str:
    """A column name for people."""
    return COLUMN_TITLES.get(name, name.replace("_", " "))


def definitions(dictionary: pd.DataFrame | None) -> dict[str, str]:
    """Column name to its definition."""
    if dictionary is None:
        return {}
    return {str(row["column"]): str(row["definition"]) for row in dictionary.to_dict("records")}


def records(frame: pd.DataFrame, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Rows as dicts with string keys."""
    rows: Any = (frame if columns is None else frame[list(columns)]).to_dict("records")
    return list(rows)
