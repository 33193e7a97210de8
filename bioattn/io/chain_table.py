"""The table that names protein chains, read without loading structures: the workflow asks for it often."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bioattn.errors import DataError
from bioattn.io.lines import read_delimited

#: In place of a table: the chains of this package.
CGDMS = "cgdms"


class ChainRow(NamedTuple):
    """A chain that a table names: its line, its structure, its chain there, its alignment."""

    line: int
    name: str
    structure: Path
    chain: str | None
    alignment: Path | None


def chain_rows(path: str | Path) -> Iterator[ChainRow]:
    """Rows of a table with the columns name and path, and, if you like, chain and alignment.

    Paths are relative to the table.

    Raises
    ------
    DataError
        If the table cannot be read, or names a chain twice.
    """
    path = Path(path)
    seen: dict[str, int] = {}
    for line, row in read_delimited(path, required=("name", "path")).rows:
        name, alignment = row["name"], row.get("alignment")
        if name in seen:
            raise DataError(f"{path} line {line}: '{name}' was named in line {seen[name]}: names must differ")
        seen[name] = line
        yield ChainRow(
            line,
            name,
            path.parent / row["path"],
            row.get("chain") or None,
            path.parent / alignment if alignment else None,
        )


def files_of_table(source: str | Path) -> list[Path]:
    """The table of a source and the files that it names; none for a package."""
    if str(source) == CGDMS:
        return []
    try:
        rows = list(chain_rows(source))
    except DataError:
        return [Path(source)]  # whose message the step gives
    found = [path for row in rows for path in (row.structure, row.alignment) if path is not None]
    return [Path(source), *dict.fromkeys(found)]
