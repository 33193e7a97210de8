"""Chains of mmCIF and PDB files."""

import gzip
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from Bio.Data.PDBData import protein_letters_3to1_extended
from Bio.PDB.MMCIFParser import MMCIFParser
from Bio.PDB.PDBExceptions import PDBConstructionWarning
from Bio.PDB.PDBParser import PDBParser
from numpy.typing import NDArray

from bioattn.data.structure import Chain, virtual_cb
from bioattn.errors import DataError

_PARSERS = {".pdb": PDBParser, ".ent": PDBParser, ".cif": MMCIFParser, ".mmcif": MMCIFParser}


def read_chain(path: str | Path, chain: str | None = None) -> Chain:
    """One chain of the first model of a structure, plain or gzip.

    Of alternative places of an atom the one with the highest occupancy is taken, of alternative residues
    likewise. Modified residues are read as what they are made from (MSE as methionine). Water and ligands are left out.

    Parameters
    ----------
    chain : str, optional
        Its name as the authors gave it; needed if there are several with residues.

    Raises
    ------
    DataError
        If the file cannot be read, has no such chain (which there are is said), or the chain has no residue.
    """
    path = Path(path)
    model = _model(path)
    found = {one.id: residues for one in model if (residues := [r for r in one if _letter(r)])}
    if not found:
        raise DataError(f"{path}: no chain with amino acids in the first model")
    if chain is None:
        if len(found) > 1:
            raise DataError(f"{path}: there are several chains, {', '.join(found)}: name one")
        chain = next(iter(found))
    if chain not in found:
        raise DataError(f"{path}: no chain '{chain}' with amino acids; there are {', '.join(found)}")
    residues = found[chain]
    return Chain(
        f"{path.name}:{chain}",
        "".join(_letter(residue) for residue in residues),
        [f"{residue.id[1]}{residue.id[2].strip()}" for residue in residues],
        np.array([_place(residue) for residue in residues], dtype=np.float64),
    )


def _model(path: Path) -> Any:
    """First model of a file."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix != ".gz"]
    if not suffixes or suffixes[-1] not in _PARSERS:
        raise DataError(f"{path}: a structure ends in {', '.join(_PARSERS)}, plain or .gz")
    opened: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", errors="replace") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", PDBConstructionWarning)
            parser: Any = _PARSERS[suffixes[-1]](QUIET=True)
            structure = parser.get_structure(path.stem, file)
        return next(iter(structure))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except StopIteration:
        raise DataError(f"{path}: no atoms: is it a structure?") from None
    except (OSError, EOFError, ValueError, KeyError, IndexError) as error:
        raise DataError(f"{path}: cannot be read as a structure ({type(error).__name__}: {error})") from None


def _letter(residue: Any) -> str:
    """Letter of an amino acid, "X" for one that is none of the known but has a backbone, "" for anything else."""
    residue = _chosen(residue)
    name = residue.get_resname().strip()
    letter = protein_letters_3to1_extended.get(name, "")
    if residue.id[0].startswith("W") or "CA" not in residue:
        return ""
    return str(letter) if letter else ("X" if {"N", "C"} <= set(residue.child_dict) else "")


def _chosen(residue: Any) -> Any:
    """Of alternative residues at one place the one with the highest occupancy."""
    if residue.is_disordered() != 2:
        return residue
    return max(residue.disordered_get_list(), key=lambda each: max(atom.get_occupancy() or 0 for atom in each))


def _place(residue: Any) -> NDArray[np.float64]:
    residue = _chosen(residue)
    atoms = {name: residue[name].get_coord().astype(np.float64) for name in ("N", "CA", "C", "CB") if name in residue}
    if residue.get_resname().strip() == "GLY":
        return atoms["CA"]
    if "CB" in atoms:
        return atoms["CB"]
    if {"N", "CA", "C"} <= set(atoms):
        return virtual_cb(atoms["N"], atoms["CA"], atoms["C"])
    return np.full(3, np.nan)
