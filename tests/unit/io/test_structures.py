"""Chains of structures: made-up files with everything that real ones hold."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from bioattn.data.structure import virtual_cb
from bioattn.errors import DataError
from bioattn.io.structures import read_chain

IDEAL = {"N": (1.46, 0.0, 0.0), "CA": (0.0, 0.0, 0.0), "C": (-0.55, 1.42, 0.0), "CB": (-0.53, -0.77, 1.21)}


def atom(
    n: int, name: str, residue: str, chain: str, number: int, place, *, alt=" ", code=" ", occupancy=1.0, het=False
):
    kind = "HETATM" if het else "ATOM  "
    x, y, z = place
    return (
        f"{kind}{n:5d}  {name:<3s}{alt}{residue:>3s} {chain}{number:4d}{code}   {x:8.3f}{y:8.3f}{z:8.3f}"
        f"{occupancy:6.2f}{10.0:6.2f}          {name[0]:>2s}\n"
    )


def residue(
    start: int, name: str, number: int, shift: float, *, chain="A", atoms=("N", "CA", "C", "CB"), **more
) -> str:
    return "".join(
        atom(start + i, a, name, chain, number, np.add(IDEAL[a], (shift, 0, 0)), **more) for i, a in enumerate(atoms)
    )


@pytest.fixture
def pdb(tmp_path: Path) -> Path:
    """Chain A: Ala, Gly, a gap, Ser 52 and 52A, MSE, Lys without C-beta, Arg without backbone; water; chain B."""
    text = (
        residue(1, "ALA", 1, 0)
        + residue(11, "GLY", 2, 4, atoms=("N", "CA", "C"))
        + residue(21, "SER", 52, 8)
        + residue(31, "SER", 52, 12, code="A")
        + residue(41, "MSE", 53, 16, het=True)
        + residue(51, "LYS", 54, 20, atoms=("N", "CA", "C"))
        + residue(61, "ARG", 55, 24, atoms=("CA",))
        + residue(71, "HOH", 201, 50, atoms=("N",), het=True)
        + residue(81, "VAL", 1, 30, chain="B")
    )
    path = tmp_path / "made.pdb"
    path.write_text(text + "END\n")
    return path


def test_a_chain_is_read_with_all_its_peculiarities(pdb: Path):
    """Letters, numbers with insertion codes, C-beta or what stands for it."""
    chain = read_chain(pdb, "A")
    assert chain.sequence == "AGSSMKR" and chain.numbers == ["1", "2", "52", "52A", "53", "54", "55"]
    np.testing.assert_allclose(chain.cb_angstrom[0], IDEAL["CB"], atol=1e-3)
    np.testing.assert_allclose(chain.cb_angstrom[1], (4, 0, 0), atol=1e-3)
    np.testing.assert_allclose(chain.cb_angstrom[5], np.add(IDEAL["CB"], (20, 0, 0)), atol=0.1)
    assert chain.resolved.tolist() == [True] * 6 + [False] and chain.name == "made.pdb:A"
    assert chain.distances()[2, 3] == pytest.approx(4, abs=1e-3) and np.isnan(chain.distances()[0, 6])
    assert read_chain(pdb, "B").sequence == "V"


def test_the_likelier_of_alternative_places_is_taken(tmp_path: Path):
    """Of an atom, and of two residues that share a place."""
    lines = [atom(i, a, "ALA", "A", 1, IDEAL[a]) for i, a in enumerate(("N", "CA", "C"))]
    lines.append(atom(4, "CB", "ALA", "A", 1, (1, 1, 1), alt="A", occupancy=0.3))
    lines.append(atom(5, "CB", "ALA", "A", 1, (2, 2, 2), alt="B", occupancy=0.7))
    for alt, name, occupancy in (("A", "SER", 0.4), ("B", "THR", 0.6)):
        lines += [atom(9 + i, a, name, "A", 2, IDEAL[a], alt=alt, occupancy=occupancy) for i, a in enumerate(IDEAL)]
    path = tmp_path / "alt.pdb"
    path.write_text("".join(lines))
    chain = read_chain(path)
    assert chain.sequence == "AT" and chain.cb_angstrom[0].tolist() == [2, 2, 2]


def test_mmcif_gives_the_same(pdb: Path, tmp_path: Path):
    """Written by Biopython from the same atoms, and compressed."""
    from Bio.PDB.mmcifio import MMCIFIO
    from Bio.PDB.PDBParser import PDBParser

    writer = MMCIFIO()
    writer.set_structure(PDBParser(QUIET=True).get_structure("x", pdb))
    writer.save(str(tmp_path / "x.cif"))
    packed = tmp_path / "y.cif.gz"
    packed.write_bytes(gzip.compress((tmp_path / "x.cif").read_bytes()))
    expected = read_chain(pdb, "A")
    for path in (tmp_path / "x.cif", packed):
        chain = read_chain(path, "A")
        assert chain.sequence == expected.sequence and chain.numbers == expected.numbers
        np.testing.assert_allclose(chain.cb_angstrom, expected.cb_angstrom, atol=1e-3)


def test_missing_chains_and_broken_files_are_named(pdb: Path, tmp_path: Path):
    """What there is, is said."""
    with pytest.raises(DataError, match="no chain 'C' with amino acids; there are A, B"):
        read_chain(pdb, "C")
    with pytest.raises(DataError, match="several chains, A, B: name one"):
        read_chain(pdb)
    with pytest.raises(DataError, match="no such file"):
        read_chain(tmp_path / "none.pdb")
    (tmp_path / "empty.pdb").write_text("REMARK nothing\n")
    with pytest.raises(DataError, match="empty.pdb: "):
        read_chain(tmp_path / "empty.pdb")
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(DataError, match=r"a structure ends in .pdb"):
        read_chain(tmp_path / "x.txt")
    (tmp_path / "x.cif").write_text("data_x\n_cell.length_a 3\n")
    with pytest.raises(DataError, match="cannot be read as a structure|no atoms"):
        read_chain(tmp_path / "x.cif")


def test_the_virtual_c_beta_is_where_ideal_geometry_has_it():
    """Within a tenth of an angstrom of an L amino acid's, not of its mirror image."""
    n, ca, c, cb = (np.array(IDEAL[name]) for name in ("N", "CA", "C", "CB"))
    assert np.linalg.norm(virtual_cb(n, ca, c) - cb) < 0.1
