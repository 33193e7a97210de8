"""Reads the result files of one run; what is missing or unusable becomes a notice, never a crash."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bioattn.errors import DataError
from bioattn.io.tables import read_parquet, read_record, read_tsv
from bioattn.report.blocks import Notice


@dataclass
class ResultFiles:
    """The folder results/{run}, and a list of what was read from it."""

    root: Path
    read: list[str] = field(default_factory=list)

    @property
    def run(self) -> str:
        """Name of the run: the folder's name."""
        return self.root.resolve().name

    def table(self, path: str, columns: Iterable[str], *, needed_for: str) -> pd.DataFrame | Notice:
        """Table of a TSV or parquet file below the folder, or a notice that says why not.

        Parameters
        ----------
        path : str
            Relative to results/{run}.
        columns : iterable of str
            Columns that must be there.
        needed_for : str
            What the reader misses without it.
        """
        full = self.root / path
        if not full.exists():
            return self._missing(path, needed_for)
        try:
            table = read_parquet(full) if full.suffix == ".parquet" else read_tsv(full)
        except (DataError, ValueError) as error:  # pandas raises ValueError subclasses on malformed text
            return Notice(f"{path} cannot be read, so there is no {needed_for}: {error}", self._command(path))
        lacking = [column for column in columns if column not in table]
        if lacking:
            text = f"{path} lacks the columns {', '.join(lacking)}, so there is no {needed_for}."
            return Notice(text, self._command(path))
        self.read.append(path)
        if table.empty:
            return Notice(f"{path} has no rows, so there is no {needed_for}.")
        return table

    def document(self, path: str) -> dict[str, Any] | None:
        """Object of a JSON file, or None if there is no readable one."""
        try:
            content = json.loads((self.root / path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        self.read.append(path)
        return content if isinstance(content, dict) else None

    def replicates(self, pattern: str) -> list[str]:
        """Paths below the folder that match, in order of the numbers in their names."""
        found = [path.relative_to(self.root).as_posix() for path in self.root.glob(pattern)]
        return sorted(found, key=lambda path: (_numbers(path), path))

    def stacked(
        self, pattern: str, columns: Iterable[str], *, needed_for: str, example: str
    ) -> tuple[pd.DataFrame | None, list[Notice]]:
        """Tables of all replicates one below the other, with columns fold and seed from their folders.

        Returns the table, or None if no replicate is usable, and a notice for each that is not.
        """
        columns = list(columns)
        paths = self.replicates(pattern)
        if not paths:
            return None, [self._missing(example, needed_for)]
        parts, notices = [], []
        for path in paths:
            part = self.table(path, columns, needed_for=f"{needed_for} of this replicate")
            if isinstance(part, Notice):
                notices.append(part)
            else:
                parts.append(part.assign(**_labels(path)))
        return (pd.concat(parts, ignore_index=True) if parts else None), notices

    def records(self) -> list[tuple[str, dict[str, Any]]]:
        """Provenance record of every table that was read, in order of first use."""
        found = []
        for path in dict.fromkeys(self.read):
            if Path(path).suffix in (".tsv", ".parquet"):
                try:
                    found.append((path, read_record(self.root / path)))
                except (DataError, OSError, ValueError):
                    found.append((path, {}))
        return found

    def _missing(self, path: str, needed_for: str) -> Notice:
        return Notice(f"{path} is missing, so there is no {needed_for}. Make it with:", self._command(path))

    def _command(self, path: str) -> str:
        root = self.root.resolve()
        return f"snakemake --cores 2 {root.parent.name}/{root.name}/{path}"


def _labels(path: str) -> dict[str, int]:
    """Fold and seed that the folders of a path name."""
    labels = {}
    for part in Path(path).parts:
        for key in ("fold", "seed"):
            if part.startswith(key) and part[len(key) :].isdigit():
                labels[key] = int(part[len(key) :])
    return labels


def _numbers(path: str) -> list[int]:
    return list(_labels(path).values())
