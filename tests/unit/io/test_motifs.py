"""Motifs from JASPAR and MEME files."""

import numpy as np
import pytest

from bioattn.config import MotifsConfig
from bioattn.data.motif import Motif
from bioattn.errors import ConfigError, DataError
from bioattn.io.motifs import (
    jaspar_group,
    jaspar_motif,
    load_motifs,
    naming_library,
    read_matrices,
    read_meme,
    write_meme,
)

HEADER = "MEME version 4\n\nALPHABET= ACGT\n\n"


def test_jaspar_is_read_offline_with_name_family_and_probabilities():
    """A known matrix has its name, width and family; columns sum to one."""
    motif = jaspar_motif("MA0060.4")
    assert (motif.name, motif.width, motif.family) == ("NFYA", 8, "Heteromeric CCAAT-binding")
    assert motif.consensus == "CCAATCAG" and np.allclose(motif.ppm.sum(0), 1)


def test_a_group_has_many_motifs_in_a_stable_order():
    """Fungi: more than a hundred matrices, sorted by identifier, each once."""
    identifiers = [m.motif_id for m in jaspar_group("fungi")]
    assert len(identifiers) > 100 and identifiers == sorted(set(identifiers))


@pytest.mark.parametrize(("call", "name"), [(jaspar_motif, "MA9999.1"), (jaspar_group, "dragons")])
def test_unknown_names_are_refused(call, name: str):
    """The message names what was asked for, the release, and a way out."""
    with pytest.raises(ConfigError, match=f"'{name}' is not a .*JASPAR2026: use "):
        call(name)


def test_meme_files_are_read_back_as_written(tmp_path):
    """Names, identifiers and probabilities survive to six digits; the same motif is loaded once."""
    motifs = [jaspar_motif("MA0060.4"), Motif("x", "m2", np.full((4, 3), 0.25))]
    path = tmp_path / "motifs.meme"
    write_meme(path, motifs, n_sites=[10, 20])
    for motif, again in zip(motifs, read_meme(path), strict=True):
        assert (again.name, again.motif_id) == (motif.name, motif.motif_id)
        np.testing.assert_allclose(again.ppm, motif.ppm, atol=1e-5)
    loaded = load_motifs(MotifsConfig(jaspar_ids=["MA0060.4"], meme=str(path)))
    assert [m.motif_id for m in loaded] == ["MA0060.4", "m2"]


def test_names_come_from_a_group_a_file_or_both(tmp_path):
    """The run's own motifs come first and once; without a group they are the library; without either it is empty."""
    path = tmp_path / "own.meme"
    write_meme(path, [Motif("mine", "m1", np.full((4, 3), 0.25)), jaspar_motif("MA0060.4")])
    own = MotifsConfig(jaspar_ids=["MA0093.4"], meme=str(path), naming_tax_group=None)
    assert [m.motif_id for m in naming_library(own)] == ["MA0093.4", "m1", "MA0060.4"]
    assert naming_library(MotifsConfig(naming_tax_group=None)) == []
    group = {m.motif_id for m in jaspar_group("vertebrates")}
    both = [m.motif_id for m in naming_library(own.model_copy(update={"naming_tax_group": "vertebrates"}))]
    assert both[:3] == ["MA0093.4", "m1", "MA0060.4"] and len(both) == len(set(both)) and set(both) == group | {"m1"}
    assert naming_library(own.model_copy(update={"naming_tax_group": "vertebrates"}))[0].family == "bHLH-ZIP"


MATRIX = "letter-probability matrix: alength= 4 w= 2 nsites= 20 E= 0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no motif found"),
        ("not a motif file\n", "no motif found"),
        ("MOTIF\n", "line 5: MOTIF without an identifier"),
        (MATRIX, "line 5: matrix without a MOTIF line"),
        ("MOTIF a\n" + MATRIX + "1 0 0 0\n", "line 8: row 2 of 2 of motif 'a' must be 4 probabilities"),
        ("MOTIF a\n" + MATRIX + "1 0 0 0\n1 1 0 0\n", "line 8: row 2 of 2 of motif 'a' must be 4 probabilities"),
        ("MOTIF a\n" + MATRIX + "1 0 0\n1 0 0 0\n", "line 7: row 1 of 2 of motif 'a' must be 4 probabilities"),
        ("MOTIF a\nletter-probability matrix: alength= 4 w= 0\n", "line 6: motif 'a' has zero rows"),
        ("MOTIF a\nletter-probability matrix: alength= 4\n", "line 6: motif 'a' has zero rows"),
        ("MOTIF a\nletter-probability matrix: alength= 4 w= x\n", "line 6: found width 'w= x', expected a whole"),
        ("MOTIF a\n" + MATRIX + "1 0 0 0\n" * 3, "line 9: motif 'a' has more rows than its 'w= 2' says"),
        ("MOTIF a\n" + MATRIX + "1 0 0 0\nnan 0 0 0\n", "line 8: row 2 of 2 of motif 'a' must be 4 probabilities"),
        ("MOTIF a\n" + MATRIX + "1 0 0 0\n1 x 0 0\n", "line 8: row 2 of 2 of motif 'a' must be 4 probabilities"),
        ("MOTIF a\n" + MATRIX + "9 3 2 1\n8 3 3 1\n", "line 7: row 1 of 2 of motif 'a' must be 4 probabilities"),
        ("MOTIF a\n" + MATRIX + "1.2 -0.2 0 0\n1 0 0 0\n", "line 7: row 1 of 2 of motif 'a' must be 4 prob"),
        ("MOTIF a\nMOTIF b\n" + MATRIX + "1 0 0 0\n" * 2, "line 5: motif 'a' has no letter-probability matrix"),
        ("MOTIF a\n" + MATRIX + "1 0 0 0\n" * 2 + "MOTIF b\n", "line 9: motif 'b' has no letter-probability"),
        (("MOTIF a\n" + MATRIX + "1 0 0 0\n" * 2) * 2, "line 9: motif 'a' stands twice"),
    ],
)
def test_what_is_no_meme_file_is_refused_with_its_line(tmp_path, text: str, message: str):
    """The message names file and line."""
    path = tmp_path / "bad.meme"
    path.write_text(HEADER + text)
    with pytest.raises(DataError, match=f"bad.meme.*{message}"):
        read_meme(path)


def test_widths_may_be_left_out(tmp_path):
    """Without 'w=' a matrix ends at the first line that is no row; byte order marks and line ends do not matter."""
    rows = "0.7 0.1 0.1 0.1\n0.1 0.7 0.1 0.1\n0.25 0.25 0.25 0.25\n"
    text = HEADER + "MOTIF a A\nletter-probability matrix: alength= 4\n" + rows + "URL x\nMOTIF b\n" + MATRIX
    (tmp_path / "m.meme").write_bytes(b"\xef\xbb\xbf" + (text + "1 0 0 0\n" * 2).replace("\n", "\r\n").encode())
    found = read_meme(tmp_path / "m.meme")
    assert [(m.name, m.motif_id, m.consensus) for m in found] == [("A", "a", "ACA"), ("b", "b", "AA")]


def test_matrices_are_read_back(tmp_path):
    """Arrays of an npz file by name, also of one without any; what is missing, foreign or no matrix is named."""
    ppm = jaspar_motif("MA0060.4").ppm
    path = tmp_path / "m.npz"
    np.savez(path, first=ppm, second=ppm[:, :3].astype(np.float32))
    found = read_matrices(path)
    assert (
        list(found) == ["first", "second"] and np.array_equal(found["first"], ppm) and found["second"].shape == (4, 3)
    )
    np.savez(path)
    assert read_matrices(path) == {}
    for wrong in (ppm.T, ppm[:, :0], ppm[0], np.full((4, 2), np.nan)):
        np.savez(path, odd=wrong)
        with pytest.raises(DataError, match="m.npz: 'odd' is no matrix of shape"):
            read_matrices(path)
    np.savez(path, first=ppm)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="m.npz: not a complete npz file"):
        read_matrices(path)
    np.save(tmp_path / "one.npy", ppm)
    with pytest.raises(DataError, match="one.npy: not a complete npz file"):
        read_matrices(tmp_path / "one.npy")
    with pytest.raises(DataError, match="none.npz: no such file"):
        read_matrices(tmp_path / "none.npz")


def test_missing_and_binary_files_are_named(tmp_path):
    """No traceback of the operating system or the decoder."""
    with pytest.raises(DataError, match="none.meme: no such motif file"):
        read_meme(tmp_path / "none.meme")
    with pytest.raises(DataError, match="a folder, expected a MEME motif file"):
        read_meme(tmp_path)
    (tmp_path / "b.meme").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="b.meme: not UTF-8 text"):
        read_meme(tmp_path / "b.meme")
