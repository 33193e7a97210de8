"""Motifs from JASPAR (inside the pyjaspar package, offline) and from MEME files."""

import functools
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bioattn.config import MotifsConfig
from bioattn.data.motif import Motif, ppm_from_counts
from bioattn.errors import ConfigError, DataError
from bioattn.io.files import write_text

JASPAR_RELEASE = "JASPAR2026"


def load_motifs(config: MotifsConfig) -> list[Motif]:
    """Motif matrices that a run names, in the order JASPAR identifiers, JASPAR group, MEME file."""
    motifs = [jaspar_motif(motif_id) for motif_id in config.jaspar_ids]
    if config.jaspar_tax_group:
        motifs += jaspar_group(config.jaspar_tax_group)
    if config.meme:
        motifs += read_meme(config.meme)
    return _each_once(motifs)


def naming_library(config: MotifsConfig) -> list[Motif]:
    """Motifs that discovered ones are named after: the run's own, then the other ones of a JASPAR group.

    Without `naming_tax_group` the run's own motifs are the library; a run that names
    neither gets an empty one, which names nothing.
    """
    group = jaspar_group(config.naming_tax_group) if config.naming_tax_group else ()
    return _each_once([*load_motifs(config), *group])


def _each_once(motifs: Iterable[Motif]) -> list[Motif]:
    """The first motif of each identifier."""
    seen: dict[str, Motif] = {}
    for motif in motifs:
        seen.setdefault(motif.motif_id, motif)
    return list(seen.values())


@functools.cache
def _jaspar():  # type: ignore[no-untyped-def]  # pyjaspar has no types
    from pyjaspar import jaspardb

    return jaspardb(release=JASPAR_RELEASE)


def jaspar_motif(motif_id: str) -> Motif:
    """Motif of a JASPAR matrix identifier such as "MA0060.4". Raises `ConfigError` if there is none."""
    try:
        found = _jaspar().fetch_motif_by_id(motif_id)
    except Exception:  # pyjaspar raises what its SQL raises
        found = None
    if found is None:
        raise ConfigError(
            f"'{motif_id}' is not a matrix of {JASPAR_RELEASE}: use an identifier with version, e.g. MA0060.4"
        )
    return _from_jaspar(found)


@functools.cache
def jaspar_group(tax_group: str) -> tuple[Motif, ...]:
    """All latest CORE motifs of a JASPAR taxonomic group, sorted by identifier."""
    found = _jaspar().fetch_motifs(collection="CORE", tax_group=tax_group)
    if not found:
        raise ConfigError(
            f"'{tax_group}' is not a taxonomic group of {JASPAR_RELEASE}: "
            "use vertebrates, insects, fungi, plants, nematodes, urochordates, ..."
        )
    return tuple(sorted((_from_jaspar(m) for m in found), key=lambda m: m.motif_id))


def _from_jaspar(found) -> Motif:  # type: ignore[no-untyped-def]
    counts = np.array([found.counts[letter] for letter in "ACGT"], dtype=float)
    return Motif(found.name, found.matrix_id, ppm_from_counts(counts), "; ".join(found.tf_family or []))


def read_meme(path: str | Path) -> list[Motif]:
    """Motifs of a MEME file (minimal format, DNA).

    Raises
    ------
    DataError
        With file and line, if the file is missing, holds no motif or one twice, or a
        motif has no matrix, or one that is cut short, longer than it says, or not
        made of probabilities.
    """
    lines = _lines(path)
    motifs: dict[str, Motif] = {}
    header: _Header | None = None
    i = 0
    while i < len(lines):
        line = lines[i].strip()
        if re.match(r"MOTIF(\s|$)", line):
            _require_matrix(path, header)
            header = _header(path, line, i + 1)
            if header.motif_id in motifs:
                raise DataError(f"{path} line {i + 1}: motif '{header.motif_id}' stands twice: give each its own name")
        elif line.startswith("letter-probability matrix"):
            if header is None:
                raise DataError(f"{path} line {i + 1}: matrix without a MOTIF line before it")
            rows = _matrix_rows(path, lines, i + 1, _width(path, line, i + 1), header.motif_id)
            motifs[header.motif_id] = Motif(header.name, header.motif_id, rows.T / rows.T.sum(0, keepdims=True))
            i += len(rows)
            header = None
        i += 1
    _require_matrix(path, header)
    if not motifs:
        raise DataError(f"{path}: no motif found, expected a MEME file with 'letter-probability matrix' blocks")
    return list(motifs.values())


class _Header(NamedTuple):
    """A MOTIF line."""

    motif_id: str
    name: str
    line: int


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path}: no such motif file") from None
    except IsADirectoryError:
        raise DataError(f"{path}: a folder, expected a MEME motif file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text, expected a MEME motif file") from None


def _header(path: str | Path, line: str, number: int) -> _Header:
    words = line.split()[1:]
    if not words:
        raise DataError(f"{path} line {number}: MOTIF without an identifier")
    return _Header(words[0], words[1] if len(words) > 1 else words[0], number)


def _require_matrix(path: str | Path, header: _Header | None) -> None:
    if header is not None:
        raise DataError(f"{path} line {header.line}: motif '{header.motif_id}' has no letter-probability matrix")


def _width(path: str | Path, line: str, number: int) -> int | None:
    """Number of rows that a matrix line announces; None if it does not."""
    width = re.search(r"\bw=\s*(\S*)", line)
    if width is None:
        return None
    if not width[1].isdecimal():
        raise DataError(f"{path} line {number}: found width 'w= {width[1]}', expected a whole number")
    return int(width[1])


def _matrix_rows(path: str | Path, lines: list[str], first: int, width: int | None, name: str) -> np.ndarray:
    """Rows of a matrix that begins at index `first`: as many as announced, or all that look like rows."""
    most = len(lines) - first
    numeric = next((i for i in range(most) if not _numbers(lines[first + i])), most)
    n = numeric if width is None else width
    if n == 0:
        raise DataError(f"{path} line {first}: motif '{name}' has zero rows")
    rows = []
    for i in range(n):
        row = _numbers(lines[first + i]) if i < most else []
        if len(row) != 4 or min(row) < 0 or not abs(sum(row) - 1) <= 0.02:
            where = f"{path} line {first + i + 1}: row {i + 1} of {n} of motif '{name}'"
            raise DataError(f"{where} must be 4 probabilities that sum to 1")
        rows.append(row)
    if numeric > n:
        raise DataError(f"{path} line {first + n + 1}: motif '{name}' has more rows than its 'w= {n}' says")
    return np.array(rows)


def _numbers(line: str) -> list[float]:
    """The numbers of a line; none if it holds anything else."""
    try:
        return [float(word) for word in line.split()]
    except ValueError:
        return []


def read_matrices(path: str | Path) -> dict[str, NDArray[np.float64]]:
    """Matrices (A, W) of an npz file by name.

    Raises
    ------
    DataError
        If the file is missing or damaged, or an array is no motif matrix.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            matrices = {name: np.asarray(file[name], dtype=np.float64) for name in file.files}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a complete npz file ({' '.join(str(error).split())}): make it anew") from None
    for name, matrix in matrices.items():
        if matrix.ndim != 2 or matrix.shape[0] != 4 or matrix.shape[1] == 0 or not np.isfinite(matrix).all():
            raise DataError(f"{path}: '{name}' is no matrix of shape (4, width > 0) of numbers, found {matrix.shape}")
    return matrices


def meme_text(motifs: Sequence[Motif], n_sites: Sequence[int] | None = None) -> str:
    """MEME minimal-format text of motifs."""
    parts = [
        "MEME version 4\n\nALPHABET= ACGT\n\nstrands: + -\n",
        "Background letter frequencies\nA 0.25 C 0.25 G 0.25 T 0.25\n",
    ]
    for i, motif in enumerate(motifs):
        sites = 20 if n_sites is None else n_sites[i]
        parts.append(f"MOTIF {motif.motif_id} {motif.name}")
        parts.append(f"letter-probability matrix: alength= 4 w= {motif.width} nsites= {sites} E= 0")
        parts += [" ".join(f"{p:.6f}" for p in column) for column in motif.ppm.T]
        parts.append("")
    return "\n".join(parts)


def write_meme(path: str | Path, motifs: Sequence[Motif], n_sites: Sequence[int] | None = None) -> None:
    """Write motifs in MEME minimal format, whole or not at all."""
    write_text(path, meme_text(motifs, n_sites))
