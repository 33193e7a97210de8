"""Bad input to `ingest` and `split`: one line that says what to mend, status 2, earlier output as it was."""

import errno
import gzip
import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from bioattn.cli.app import main

LETTERS = list("ACGT")


def good(name: str, seed: int, n: int = 12) -> bytes:
    rng = np.random.default_rng(seed)
    return "".join(f">{name}{i}\n{''.join(rng.choice(LETTERS, 31))}\n" for i in range(n)).encode()


class Project:
    """A folder with two good FASTA files, samples.tsv and settings, to be spoilt one by one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        self.write("pos.fa", good("p", 1))
        self.write("neg.fa", good("n", 2))
        self.write("samples.tsv", b"sample\tpath\tlabel\npos\tpos.fa\t1\nneg\tneg.fa\t0\n")
        self.settings()

    def write(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)

    def settings(self, **sections: Any) -> None:
        self.write("settings.json", json.dumps(sections).encode())

    def call(self, verb: str, **options: str) -> tuple[int, str, str]:
        arguments = [verb, "--settings", str(self.folder / "settings.json")]
        for name, value in options.items():
            arguments += [f"--{name}", value]
        out, err = io.StringIO(), io.StringIO()
        with pytest.raises(SystemExit) as ended, redirect_stdout(out), redirect_stderr(err):
            main(arguments)
        return int(ended.value.code or 0), out.getvalue(), err.getvalue()

    def ingest(self, out: str = "data") -> tuple[int, str, str]:
        return self.call("ingest", samples=str(self.folder / "samples.tsv"), out=str(self.folder / out))

    def split(self, out: str = "split") -> tuple[int, str, str]:
        sequences = str(self.folder / "data" / "sequences.parquet")
        return self.call("split", sequences=sequences, out=str(self.folder / out))

    def outputs(self) -> dict[str, bytes]:
        folders = [self.folder / name for name in ("data", "split")]
        return {str(p): p.read_bytes() for folder in folders for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a project whose good input has been ingested and split, once for all tests."""
    project = Project(tmp_path_factory.mktemp("finished"))
    project.fill()
    assert project.ingest()[0] == 0
    assert project.split()[0] == 0
    return project.folder


@pytest.fixture
def project(tmp_path: Path, finished: Path) -> Project:
    """The finished project in a folder of its own."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return Project(tmp_path)


def spoil_fasta(data: bytes) -> Callable[[Project], None]:
    return lambda project: project.write("pos.fa", data)


def spoil_samples(text: str) -> Callable[[Project], None]:
    return lambda project: project.write("samples.tsv", text.encode())


def spoil_labels(rows: str) -> Callable[[Project], None]:
    def spoil(project: Project) -> None:
        project.write("y.tsv", ("name\tlabel\n" + rows).encode())
        project.write("samples.tsv", b"sample\tpath\tlabels\npos\tpos.fa\ty.tsv\n")

    return spoil


BED_SAMPLES = "sample\tpath\tgenome\tlabel\npos\ta.bed\tg.fa\t1\nneg\tneg.fa\t\t0\n"


def spoil_regions(rows: str, samples: str = BED_SAMPLES) -> Callable[[Project], None]:
    """A BED file in place of the positives."""

    def spoil(project: Project) -> None:
        project.write("g.fa", b">c\n" + b"ACGTTGCATA" * 60 + b"\n")
        project.write("a.bed", rows.encode())
        project.write("samples.tsv", samples.encode())

    return spoil


def spoil_link(project: Project) -> None:
    (project.folder / "pos.fa").unlink()
    (project.folder / "pos.fa").symlink_to(project.folder / "pos.fa")


REGIONS = "".join(f"c\t{40 * i}\t{40 * i + 30}\n" for i in range(12))
BOMB = gzip.compress(b">a\n" + b"A" * (3 * 2**25), mtime=0)
LABELS = "".join(f"p{i}\t{i % 2}\n" for i in range(12))
INGEST_MISTAKES: dict[str, tuple[Callable[[Project], None], list[str]]] = {
    "missing FASTA": (
        lambda project: (project.folder / "pos.fa").unlink(),
        ["samples.tsv line 2, column 'path'", "no such file 'pos.fa'", "looked in"],
    ),
    "missing samples.tsv": (
        lambda project: (project.folder / "samples.tsv").unlink(),
        ["samples.tsv: no such file", "expected a text file"],
    ),
    "empty FASTA": (spoil_fasta(b""), ["pos.fa: found an empty file", "expected FASTA records"]),
    "empty record": (
        spoil_fasta(b">p99\n" + good("p", 1)),
        ["pos.fa line 1: record 'p99'", "no sequence", "DNA letters"],
    ),
    "text before the first record": (spoil_fasta(b"ACGT\n" + good("p", 1)), ["pos.fa line 1: found 'ACGT'", "'>'"]),
    "protein": (
        spoil_fasta(good("p", 1) + b">prot\nMKLVINLPQEWFYAGHK\n"),
        ["pos.fa line 25: record 'prot'", "found 'L' at position 3", "protein", "allowed are A, C, G, T"],
    ),
    "RNA": (
        spoil_fasta(b">r\nACGUACGUACGU\n" + good("p", 1)),
        ["pos.fa line 1: record 'r'", "'U' at position 4", "write T"],
    ),
    "duplicate names": (
        spoil_fasta(good("p", 1) + b">p3 again\nACGTACGTACGGT\n"),
        ["pos.fa line 25: record 'p3'", "first ", "pos.fa line 7", "data.name_from: number or full_header"],
    ),
    "illegal letters": (
        spoil_fasta(b">x\nACGTACGTAC9GTACGT\n" + good("p", 1)),
        ["pos.fa line 1: record 'x'", "found '9' at position 11", "allowed are A, C, G, T, N and the ambiguity codes"],
    ),
    "length 1": (
        spoil_fasta(b">x\nA\n" + good("p", 1)),
        ["pos.fa line 1: record 'x'", "found length 1", "allowed is at least 10 (data.min_length)"],
    ),
    "one class only": (
        spoil_samples("sample\tpath\tlabel\npos\tpos.fa\t1\n"),
        ["target 'label'", "one class only (1 for all 12 sequences)", "both 0 and 1 are needed"],
    ),
    "illegal label": (
        spoil_samples("sample\tpath\tlabel\npos\tpos.fa\tyes\n"),
        ["pos.fa line 1: record 'p0'", "found 'yes' as target 'label'", "allowed are 0 and 1"],
    ),
    "labels for unknown records": (
        spoil_labels(LABELS + "zz\t1\n"),
        ["y.tsv line 14: record 'zz'", "no sequence file has", "allowed are names of records"],
    ),
    "record without a label": (
        spoil_labels(LABELS.removeprefix("p0\t0\n")),
        ["pos.fa line 1: record 'p0'", "no row for it in the labels", "every record needs one"],
    ),
    "non-UTF-8": (
        spoil_fasta(good("p", 1) + b">caf\xe9\nACGTACGTACGGT\n"),
        ["pos.fa line 25", "found byte 0xe9 at column 5", "UTF-8"],
    ),
    "truncated gzip": (
        spoil_fasta(gzip.compress(good("p", 1))[:-20]),
        ["pos.fa line ", "truncated", "allowed is a complete one"],
    ),
    "too few sequences": (
        spoil_samples("sample\tpath\tlabel\nfew\tfew.fa\t1\n"),
        ["few.fa: found 3 usable sequences", "at least 10"],
    ),
    "config typo": (
        lambda project: project.settings(data={"min_lenght": 5}),
        ["settings.json", "'data.min_lenght' is not a setting", "did you mean 'min_length'?"],
    ),
    "config of wrong type": (
        lambda project: project.settings(data={"min_length": "five"}),
        ["settings.json", "'data.min_length'", "found 'five'"],
    ),
    "impossible combination": (
        lambda project: project.settings(
            data={"negatives": {"kind": "dinucleotide_shuffle"}}, task={"kind": "regression"}
        ),
        ["settings.json", "data.negatives need task.kind 'binary', got 'regression'"],
    ),
    "gzip bomb": (spoil_fasta(BOMB), ["pos.fa: found gzip data that expand more than 200-fold", "beyond 64 MiB"]),
    "zip archive": (spoil_fasta(b"PK\x03\x04...."), ["pos.fa: found a zip archive", "unpack the file first"]),
    "link to itself": (spoil_link, ["samples.tsv line 2, column 'path'", "link to", "leads back to itself"]),
    "folder as a file": (
        spoil_samples("sample\tpath\tlabel\npos\tdata\t1\n"),
        ["samples.tsv line 2, column 'path'", "'data' is a folder, not a file"],
    ),
    "sample named after a folder": (
        spoil_samples("sample\tpath\tlabel\n..\tpos.fa\t1\n"),
        ["samples.tsv line 2, column 'sample': found '..'", "allowed is a name of letters"],
    ),
    "ambiguity code": (
        lambda project: (
            project.write("pos.fa", good("p", 1) + b">amb\nACGTRCGTACGTACGT\n"),
            project.settings(data={"ambiguous": "reject"}),
        ),
        ["pos.fa line 25: record 'amb'", "found the ambiguity code 'R' at position 5", "data.ambiguous: mask"],
    ),
    "wrong length": (
        lambda project: project.settings(data={"length": {"bp": 30, "longer": "reject"}}),
        ["pos.fa line 1: record 'p0'", "found length 31, allowed is at most 30 (data.length.longer: crop"],
    ),
    "regions without a genome": (
        spoil_regions(REGIONS, "sample\tpath\tlabel\npos\ta.bed\t1\n"),
        ["samples.tsv line 2, column 'genome': found nothing for the regions of a.bed", "FASTA file of the genome"],
    ),
    "region of another assembly": (
        spoil_regions(REGIONS + "chrc\t1\t30\n"),
        ["a.bed line 13: record 'chrc:1-30(.)'", "the file calls it 'c'", "data.regions.contig_names: chr_prefix"],
    ),
    "region beyond its contig": (
        spoil_regions(REGIONS + "c\t580\t610\n"),
        ["a.bed line 13", "found 580-610 on contig c, which is 600 bp long"],
    ),
    "region that ends before it starts": (spoil_regions("c\t30\t20\n"), ["a.bed line 1", "start 30 after end 20"]),
    "pattern that matches nothing": (
        lambda project: project.settings(data={"header_pattern": r"chr(?P<start>\d+)"}),
        ["pos.fa line 1", "data.header_pattern", "matches no header", "'p0'"],
    ),
}


@pytest.mark.parametrize("mistake", INGEST_MISTAKES)
def test_ingest_says_what_to_mend(project: Project, mistake: str) -> None:
    """Every mistake ends in status 2, one line with place, found and allowed, and untouched earlier output."""
    spoil, expected = INGEST_MISTAKES[mistake]
    before = project.outputs()
    project.write("few.fa", good("f", 3, n=3))
    spoil(project)
    status, out, err = project.ingest()
    assert status == 2 and out == ""
    assert err.startswith("bioattn ingest: error: ") and err.count("\n") == 1
    for part in expected:
        assert part in err
    assert project.outputs() == before


SPLIT_MISTAKES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no coordinates": ({"split": {"group_by": ["coordinate"]}}, ["needs a column 'start'", "found name, sequence"]),
    "no such column": (
        {"split": {"group_by": ["column"], "column": "gene"}},
        ["split.column: found no column 'gene'", "allowed are name, sequence"],
    ),
    "no predefined split": (
        {"split": {"kind": "predefined"}},
        ["found no split for 24 of 24 sequences (first: 'p0')", "train, validation, test"],
    ),
    "too many folds": ({"split": {"n_folds": 20}}, ["fold ", "found no sequence of class", "each class needs some"]),
    "fractions": (
        {"split": {"test_fraction": 0.6, "validation_fraction": 0.5}},
        ["split.test_fraction + split.validation_fraction must be below 1, got 0.6 + 0.5"],
    ),
}


@pytest.mark.parametrize("mistake", SPLIT_MISTAKES)
def test_split_says_what_to_mend(project: Project, mistake: str) -> None:
    """Every impossible split ends in status 2, one line, and untouched earlier output."""
    sections, expected = SPLIT_MISTAKES[mistake]
    before = project.outputs()
    project.settings(**sections)
    status, out, err = project.split()
    assert status == 2 and out == ""
    assert err.startswith("bioattn split: error: ") and err.count("\n") == 1
    for part in expected:
        assert part in err
    assert project.outputs() == before


@pytest.mark.parametrize("spoilt", ["missing", "cut"])
def test_split_without_whole_sequences(project: Project, spoilt: str) -> None:
    """A missing or half-written table is named, not read."""
    path = project.folder / "data" / "sequences.parquet"
    if spoilt == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-100])
    before = project.outputs()
    status, _, err = project.split()
    assert status == 2 and "sequences.parquet" in err and err.count("\n") == 1
    assert project.outputs() == before


@pytest.mark.parametrize("verb", ["ingest", "split"])
def test_unwritable_output_folder(project: Project, verb: str) -> None:
    """An output path that cannot be made ends in status 2 and names it."""
    project.write("file", b"")
    status, _, err = getattr(project, verb)("file/data")
    assert status == 2
    assert "file/data" in err and "permissions and free space" in err and err.count("\n") == 1


@pytest.mark.parametrize("verb", ["ingest", "split"])
def test_full_disk(project: Project, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    """A disk that fills up while writing ends in status 2, and neither harms old files nor leaves new ones."""
    before = project.outputs()
    listing = sorted(project.folder.iterdir())

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    status, _, err = getattr(project, verb)()
    assert status == 2 and "No space left on device" in err and err.count("\n") == 1
    assert project.outputs() == before
    assert sorted(project.folder.iterdir()) == listing


def test_bad_records_can_be_skipped(project: Project) -> None:
    """With skip, the bad record is in rejected.tsv with file, line and reason, and the rest is ingested."""
    project.write("pos.fa", good("p", 1) + b">prot\nMKLVINLPQEWFYAGHK\n")
    project.settings(data={"on_bad_record": "skip"})
    status, out, _ = project.ingest()
    assert status == 0 and "24 sequences, 1 records left out" in out
    rejected = pd.read_csv(project.folder / "data" / "rejected.tsv", sep="\t")
    assert rejected[["line", "name"]].to_numpy().tolist() == [[25, "prot"]]
    assert rejected["file"][0].endswith("pos.fa") and "protein" in rejected["reason"][0]
