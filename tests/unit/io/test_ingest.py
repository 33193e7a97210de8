"""From files to one table."""

import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bioattn.config import parse_run
from bioattn.data.sequences import Ingested
from bioattn.errors import DataError
from bioattn.io.ingest import ingest
from bioattn.io.samples import read_samples

SEQUENCES = ["".join(np.random.default_rng(i).choice(list("ACGT"), 23 + i)) for i in range(14)]


def fasta(names: list[str], sequences: list[str]) -> str:
    return "".join(f">{name}\n{sequence}\n" for name, sequence in zip(names, sequences, strict=True))


def read(folder: Path, samples: str, **sections: Any) -> Ingested:
    run = parse_run(sections)
    (folder / "samples.tsv").write_text(samples)
    return ingest(read_samples(folder / "samples.tsv", run.task.targets), run.data, run.task, seed=run.seed)


def test_two_files_with_constant_labels(tmp_path: Path) -> None:
    """Records of several files come in order with their sample and label; names may be numbered per sample."""
    (tmp_path / "p.fa").write_text(fasta(list("abcdefg"), SEQUENCES[:7]))
    (tmp_path / "n.fa.gz").write_bytes(gzip.compress(fasta(list("abcdefg"), SEQUENCES[7:]).encode()))
    samples = "sample\tpath\tlabel\npos\tp.fa\t1\nneg\tn.fa.gz\t0\n"
    done = read(tmp_path, samples, data={"name_from": "number"})
    assert done.table["sequence"].tolist() == SEQUENCES
    assert done.table["sample"].tolist() == ["pos"] * 7 + ["neg"] * 7
    assert done.table["label"].tolist() == [1.0] * 7 + [0.0] * 7
    assert done.table["name"].tolist()[6:8] == ["pos_000007", "neg_000001"]
    with pytest.raises(DataError, match=r"n\.fa\.gz line 1: record 'a'.*p\.fa line 1.*number"):
        read(tmp_path, samples)


def test_one_label_table_for_two_files(tmp_path: Path) -> None:
    """Files may share a label table: a label is unknown only if none of them has the record."""
    (tmp_path / "p.fa").write_text(fasta(list("abcdefg"), SEQUENCES[:7]))
    (tmp_path / "n.fa").write_text(fasta(list("hijklmn"), SEQUENCES[7:]))
    rows = "".join(f"{name},{i / 4},train\n" for i, name in enumerate("abcdefghijklmn"))
    (tmp_path / "y.csv").write_text("name,strength,split\n" + rows)
    samples = "sample\tpath\tlabels\npos\tp.fa\ty.csv\nneg\tn.fa\ty.csv\n"
    task = {"kind": "regression", "targets": ["strength"]}
    done = read(tmp_path, samples, task=task)
    assert done.table["strength"].tolist() == [i / 4 for i in range(14)]
    assert done.table["split_given"].eq("train").all()
    (tmp_path / "y.csv").write_text("name,strength,split\n" + rows + "zz,1,test\n")
    with pytest.raises(DataError, match=r"y\.csv line 16: record 'zz': found labels for a record that no"):
        read(tmp_path, samples, task=task)


def test_labels_need_their_columns_and_one_row_each(tmp_path: Path) -> None:
    """A label table without a target column, or with a name twice, raises with line and columns."""
    (tmp_path / "p.fa").write_text(fasta(list("abcdefghijklmn"), SEQUENCES))
    samples = "sample\tpath\tlabels\npos\tp.fa\ty.tsv\n"
    (tmp_path / "y.tsv").write_text("name\ty\na\t1\n")
    with pytest.raises(DataError, match=r"y\.tsv line 1: no column 'label', found name, y"):
        read(tmp_path, samples)
    (tmp_path / "y.tsv").write_text("name\tlabel\na\t1\na\t0\n")
    with pytest.raises(DataError, match=r"y\.tsv line 3, column 'name': found 'a', which line 2 has already"):
        read(tmp_path, samples)


@pytest.mark.parametrize("suffix", ["tsv", "tsv.gz", "csv", "parquet"])
def test_tables_with_sequences(tmp_path: Path, suffix: str) -> None:
    """A table gives names, sequences, targets, split and further columns, whatever its format."""
    table = pd.DataFrame(
        {"id": [f"v{i}" for i in range(14)], "seq": SEQUENCES, "y": np.arange(14) / 8, "split": "test"}
    )
    table["replicate"] = np.arange(14) / 4
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="," if suffix == "csv" else "\t", index=False)
    samples = f"sample\tpath\tsequence_column\tname_column\ns\tt.{suffix}\tseq\tid\n"
    done = read(tmp_path, samples, task={"kind": "regression", "targets": ["y"]}).table
    assert done["name"].tolist() == table["id"].tolist()
    assert done["sequence"].tolist() == SEQUENCES
    assert done["y"].tolist() == table["y"].tolist()
    assert done["replicate"].tolist() == table["replicate"].tolist()
    assert done["split_given"].eq("test").all()


def test_table_without_names_is_numbered(tmp_path: Path) -> None:
    """Rows without a name column are named by sample and number."""
    pd.DataFrame({"seq": SEQUENCES, "label": [0, 1] * 7}).to_csv(tmp_path / "t.csv", index=False)
    done = read(tmp_path, "sample\tpath\tsequence_column\ns\tt.csv\tseq\n").table
    assert done["name"].tolist()[:2] == ["s_000001", "s_000002"]


def test_bad_row_of_a_table_names_its_line(tmp_path: Path) -> None:
    """Records from tables are checked like FASTA records, with the line in the table."""
    rows = "".join(f"{s}\t{i % 2}\n" for i, s in enumerate([*SEQUENCES[:5], "ACGTJACGTACG", *SEQUENCES[5:]]))
    (tmp_path / "t.tsv").write_text("seq\tlabel\n" + rows)
    with pytest.raises(DataError, match=r"t\.tsv line 7: record 's_000006': found 'J' at position 5"):
        read(tmp_path, "sample\tpath\tsequence_column\ns\tt.tsv\tseq\n")


def test_empty_record_can_be_skipped(tmp_path: Path) -> None:
    """A record without a sequence is a bad record like others."""
    text = fasta(list("abcdefghijklmn"), SEQUENCES) + ">empty\n"
    (tmp_path / "p.fa").write_text(text)
    (tmp_path / "y.tsv").write_text(
        "name\tlabel\n" + "".join(f"{n}\t{i % 2}\n" for i, n in enumerate("abcdefghijklmn"))
    )
    samples = "sample\tpath\tlabels\npos\tp.fa\ty.tsv\n"
    with pytest.raises(DataError, match=r"p\.fa line 29: record 'empty': found no sequence"):
        read(tmp_path, samples)
    done = read(tmp_path, samples, data={"on_bad_record": "skip", "max_bad_fraction": 0.1})
    assert done.rejected["name"].tolist() == ["empty"]
    assert len(done.table) == 14


def test_negatives_are_made_on_request(tmp_path: Path) -> None:
    """Positives alone become a binary task by shuffling; without it, one class only raises."""
    (tmp_path / "p.fa").write_text(fasta(list("abcdefghijklmn"), SEQUENCES))
    samples = "sample\tpath\tlabel\npos\tp.fa\t1\n"
    with pytest.raises(DataError, match="one class only"):
        read(tmp_path, samples)
    done = read(tmp_path, samples, data={"negatives": {"kind": "dinucleotide_shuffle", "per_positive": 2}})
    assert done.table["label"].value_counts().to_dict() == {0.0: 28, 1.0: 14}
    assert done.summary["n_negatives_made"] == 28
    assert done.table["name"].is_unique


def test_summary_names_the_files_by_checksum(tmp_path: Path) -> None:
    """The summary holds the checksum of every file that was read."""
    (tmp_path / "p.fa").write_text(fasta(list("abcdefghijklmn"), SEQUENCES))
    done = read(tmp_path, "sample\tpath\tlabel\npos\tp.fa\t1\n", data={"negatives": {"kind": "dinucleotide_shuffle"}})
    digest = hashlib.sha256((tmp_path / "p.fa").read_bytes()).hexdigest()
    assert done.summary["files"] == [{"sample": "pos", "file": "p.fa", "sha256": digest}]
