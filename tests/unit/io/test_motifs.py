"""Motifs from JASPAR and MEME files."""

import numpy as np
import pytest

from bioattn.config import MotifsConfig
from bioattn.data.motif import Motif
from bioattn.errors import ConfigError, DataError
from bioattn.io.motifs import jaspar_group, jaspar_motif, load_motifs, read_meme, write_meme

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
    ],
)
def test_what_is_no_meme_file_is_refused_with_its_line(tmp_path, text: str, message: str):
    """The message names file and line."""
    path = tmp_path / "bad.meme"
    path.write_text(HEADER + text)
    with pytest.raises(DataError, match=f"bad.meme.*{message}"):
        read_meme(path)


def test_missing_and_binary_files_are_named(tmp_path):
    """No traceback of the operating system or the decoder."""
    with pytest.raises(DataError, match="none.meme: no such motif file"):
        read_meme(tmp_path / "none.meme")
    (tmp_path / "b.meme").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="b.meme: not UTF-8 text"):
        read_meme(tmp_path / "b.meme")
