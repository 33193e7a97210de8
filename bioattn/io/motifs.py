"""Motifs from JASPAR (inside the pyjaspar package, offline) and from MEME files."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

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
        With file and line, if the file is missing, holds no motif, or a matrix
        is cut short or not made of probabilities.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path}: no such motif file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text, expected a MEME motif file") from None
    motifs: list[Motif] = []
    header: tuple[str, str] | None = None
    i = 0
    while i < len(lines):
        line = lines[i].strip()
        if line.startswith("MOTIF"):
            words = line.split()[1:]
            if not words:
                raise DataError(f"{path} line {i + 1}: MOTIF without an identifier")
            header = (words[0], words[1] if len(words) > 1 else words[0])
        elif line.startswith("letter-probability matrix"):
            width = re.search(r"w=\s*(\d+)", line)
            if header is None or width is None:
                raise DataError(f"{path} line {i + 1}: matrix without a MOTIF line before it or without 'w='")
            rows = _matrix_rows(path, lines, i + 1, int(width.group(1)), header[0])
            ppm = rows.T / rows.T.sum(0, keepdims=True)
            motifs.append(Motif(header[1], header[0], ppm))
            i += int(width.group(1))
            header = None
        i += 1
    if not motifs:
        raise DataError(f"{path}: no motif found, expected a MEME file with 'letter-probability matrix' blocks")
    return motifs


def _matrix_rows(path: str | Path, lines: list[str], first: int, width: int, name: str) -> np.ndarray:
    rows = []
    for i in range(first, first + width):
        try:
            row = [float(word) for word in lines[i].split()]
        except (IndexError, ValueError):
            row = []
        if len(row) != 4 or min(row) < 0 or abs(sum(row) - 1) > 0.02:
            raise DataError(
                f"{path} line {i + 1}: row {i - first + 1} of {width} of motif '{name}' "
                "must be 4 probabilities that sum to 1"
            )
        rows.append(row)
    if not rows:
        raise DataError(f"{path} line {first}: motif '{name}' has zero rows")
    return np.array(rows)


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
