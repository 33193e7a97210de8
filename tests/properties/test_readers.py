"""Whatever bytes a file holds: every record is accounted for, or an error names the file."""

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bioattn.config import parse_run
from bioattn.data.sequences import Ingested
from bioattn.errors import BioattnError
from bioattn.io.ingest import ingest
from bioattn.io.lines import read_delimited
from bioattn.io.samples import read_samples

RNG = np.random.default_rng(11)
CONTIG = "".join(RNG.choice(list("ACGTacgt"), 3000))
SEQUENCES = ["".join(RNG.choice(list("ACGTN"), 12 + i, p=[0.24, 0.24, 0.24, 0.24, 0.04])) for i in range(14)]
STRANDS = "+-"

FASTA = "".join(f">r{i} note\n{s[:9]}\n{s[9:]}\n" for i, s in enumerate(SEQUENCES)).encode()
TABLE = ("name\tsequence\ty\n" + "".join(f"r{i}\t{s}\t{i / 4}\n" for i, s in enumerate(SEQUENCES))).encode()
BED = "".join(f"c\t{90 * i}\t{90 * i + 40}\tr{i}\t{i}\t{STRANDS[i % 2]}\n" for i in range(14)).encode()
PEAKS = "".join(f"c\t{90 * i}\t{90 * i + 40}\tr{i}\t{i}\t.\t1\t2\t3\t{i}\n" for i in range(1, 15)).encode()
GENES = [
    ("gene" if i % 3 else "exon", f"{90 * i + 61}\t{90 * i + 80}\t.\t{STRANDS[i % 2]}\t.", str(i)) for i in range(21)
]
GTF = "".join(f'c\tx\t{kind}\t{place}\tgene_id "g{i}"; tag "a;b";\n' for kind, place, i in GENES).encode()
GFF3 = (
    b"##gff-version 3\n" + "".join(f"c\tx\t{kind}\t{place}\tID=g%2C{i};Note=a b\n" for kind, place, i in GENES).encode()
)
SAMPLES = b"sample\tpath\tlabel\na\ta.fa\t1\nb\ta.fa\t0\n"

#: What files are spoilt with: separators, line ends, quotes, numbers, other scripts, no text at all.
HOSTILE = [
    b"\0", b"\t", b"\n", b"\r", b"\r\n", b'"', b"'", b">", b"#", b"##FASTA\n", b"%", b"%zz", b"=", b";", b",", b"-",
    b"-1", b".", b"NA", b"nan", b"1e9", b"9" * 30, b"inf", b"track\n", b"gene", b"ACGT", b"RY", b"\xff\xfe",
    b"\xef\xbb\xbf", b"\x1f\x8b", b"PK\x03\x04", "é".encode(), "ß".encode(), "\u2028".encode(), "٣".encode(), b" ",
    b"\x0b", b"\x1c", b"c\t5\t9\n",
]  # fmt: skip


@st.composite
def spoilt(draw: st.DrawFn, base: bytes) -> bytes:
    """The file with a few places overwritten, cut out, repeated or filled in; sometimes packed, sometimes cut short."""
    data = base
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 0, 1, 3, 40])))
        filling = draw(st.sampled_from(HOSTILE) | st.binary(max_size=4) | st.just(data[start:end] * 2))
        data = data[:start] + filling + data[end:]
    if draw(st.integers(0, 9)) == 0:
        data = gzip.compress(data, mtime=0)
        if draw(st.booleans()):
            data = data[: draw(st.integers(0, len(data)))]
    return data


def files(base: bytes) -> st.SearchStrategy[bytes]:
    """Spoilt files, and now and then bytes that have nothing to do with one."""
    return st.one_of(spoilt(base), spoilt(base), spoilt(base), st.binary(max_size=200))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder with a genome. That targets vary, which is a matter of the file as a whole, is not looked at."""
    made = tmp_path_factory.mktemp("readers")
    (made / "g.fa").write_text(f">c\n{CONTIG}\n>d\n{CONTIG[:500]}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bioattn.data.sequences.check_targets", lambda table, task: None)
        yield made


def read(folder: Path, name: str, content: bytes, columns: dict[str, str], **sections: Any) -> Ingested:
    (folder / name).write_bytes(content)
    columns = {"sample": "s", "path": name, **columns}
    (folder / "samples.tsv").write_text("\t".join(columns) + "\n" + "\t".join(columns.values()) + "\n")
    run = parse_run(sections)
    return ingest(read_samples(folder / "samples.tsv", run.task.targets), run.data, run.task, seed=1)


def lines_of(content: bytes) -> list[str]:
    """Lines of a file, found in another way than the reader does; it need not be readable to its end."""
    if content.startswith(b"\x1f\x8b"):
        content = zlib.decompressobj(31).decompress(content)
    text = content.decode("utf-8-sig", errors="replace")
    return [line.removesuffix("\r") for line in text.split("\n")]


def check(
    folder: Path,
    name: str,
    content: bytes,
    columns: dict[str, str],
    count: Callable[[list[str]], list[int]],
    *,
    target: str = "label",
    **rules: Any,
) -> None:
    """Ingest a file both ways, and compare what came out with the lines of the file that hold records.

    Parameters
    ----------
    count : callable
        1-based numbers of the lines that hold records.
    """

    def again(**more: Any) -> Ingested:
        data = {"min_length": 2, **rules, **more}
        return read(folder, name, content, columns, data=data, task={"kind": "regression", "targets": [target]})

    file = str(folder / name)
    try:
        done = again(on_bad_record="skip", max_bad_fraction=1.0)
    except BioattnError as error:
        assert file in str(error) and "\n" not in str(error)
        with pytest.raises(BioattnError, match=re.escape(file)):
            again()
        return
    expected = count(lines_of(content))
    n_bad, n_read = done.summary["n_rejected"], done.summary["n_read"]
    assert n_read == len(expected)
    assert len(done.table) + len(done.rejected) == n_read, "every record is kept or listed"
    assert set(done.rejected["file"]) <= {file} and set(done.rejected["line"]) <= set(expected)
    assert done.rejected["line"].is_unique and done.rejected["reason"].str.len().gt(0).all()
    assert done.table["name"].is_unique and done.table["name"].str.len().gt(0).all()
    assert done.table["sequence"].str.fullmatch("[ACGTN]+").all()
    assert (done.table["length"] == done.table["sequence"].str.len()).all()
    if not n_bad:
        pd.testing.assert_frame_equal(again().table, done.table)
        return
    with pytest.raises(BioattnError, match=f"{re.escape(file)} line .*data.on_bad_record: skip"):
        again()
    assert len(again(on_bad_record="skip", max_bad_fraction=n_bad / n_read).table) == len(done.table)
    with pytest.raises(BioattnError, match=f"found {n_bad} bad of {n_read} records.*{re.escape(file)}"):
        again(on_bad_record="skip", max_bad_fraction=(n_bad - 0.5) / n_read)


@settings(deadline=None, max_examples=50)
@given(content=files(FASTA))
@example(content=FASTA + b">x\nACGTACG\xc3\x9fACGT\n")
@example(content=FASTA + b">\nACGTACGTACGT\n>only header")
def test_fasta(folder: Path, content: bytes) -> None:
    """Every header of a FASTA file is a kept or a listed record, or the file is refused by name."""

    def headers(lines: list[str]) -> list[int]:
        return [i for i, line in enumerate(lines, 1) if line.strip().startswith(">")]

    check(folder, "a.fa", content, {"label": "1"}, headers)


@settings(deadline=None, max_examples=50)
@given(content=files(TABLE))
@example(content=TABLE + b'r99\t"ACGTACGTACGT\t1\nr98\tACGT"\t2\n')
@example(content=TABLE + b"\t\t\n \n\t\t1\n")
def test_tables(folder: Path, content: bytes) -> None:
    """Every row of a table is a kept or a listed record, or the file is refused by name."""

    def rows(lines: list[str]) -> list[int]:
        filled = [i for i, line in enumerate(lines, 1) if line.strip()]
        separator = "\t" if "\t" in lines[filled[0] - 1] else ","
        return [i for i in filled[1:] if any(cell.strip().strip('"') for cell in lines[i - 1].split(separator))]

    check(folder, "a.tsv", content, {"sequence_column": "sequence"}, rows, target="y")


def region_lines(lines: list[str]) -> list[int]:
    """Lines of a BED file that hold regions."""
    filled = [i for i, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    return [i for i in filled if lines[i - 1].split()[0] not in ("track", "browser")]


@settings(deadline=None, max_examples=50)
@given(content=files(BED), off_end=st.sampled_from(["reject", "pad"]), anchor=st.sampled_from(["whole", "five_prime"]))
@example(content=BED + BED, off_end="reject", anchor="whole")
@example(content=BED + b"c\t2990\t3010\tx\t1\t+\nd\t1\t999999999999\ty\t1\t-\n", off_end="pad", anchor="whole")
def test_bed(folder: Path, content: bytes, off_end: str, anchor: str) -> None:
    """Every line of a BED file is a kept, a merged or a listed region, or the file is refused by name."""
    regions = {"off_end": off_end, "anchor": anchor, "upstream": 20, "downstream": 10, "contig_names": "chr_prefix"}
    check(folder, "a.bed", content, {"genome": "g.fa"}, region_lines, target="score", regions=regions)


@settings(deadline=None, max_examples=50)
@given(content=files(PEAKS))
@example(content=PEAKS.replace(b"\t4\n", b"\t4\t\n", 1))
@example(content=PEAKS.replace(b"\n", b"\tx\n"))
def test_narrow_peaks(folder: Path, content: bytes) -> None:
    """Every line of a narrowPeak file is a kept, a merged or a listed region, or the file is refused by name."""
    regions = {"upstream": 20, "downstream": 10}
    check(folder, "a.narrowPeak", content, {"genome": "g.fa"}, region_lines, target="signalValue", regions=regions)


@pytest.mark.parametrize(("name", "base"), [("a.gtf", GTF), ("a.gff3", GFF3)], ids=["gtf", "gff3"])
@settings(deadline=None, max_examples=50)
@given(values=st.data())
def test_gtf_and_gff3(folder: Path, name: str, base: bytes, values: st.DataObject) -> None:
    """Every line of the wanted feature, or with too few columns to tell, is accounted for, or the file is refused."""

    def features(lines: list[str]) -> list[int]:
        ends = [i for i, line in enumerate(lines) if line.startswith(("##FASTA", ">"))]
        before = lines[: ends[0]] if ends else lines
        cells = {i: before[i - 1].split("\t") for i in region_lines(before)}
        return [i for i, row in cells.items() if len(row) != 9 or row[2] == "gene"]

    content = values.draw(files(base))
    regions = {"upstream": 20, "downstream": 10}
    check(folder, name, content, {"genome": "g.fa", "label": "1"}, features, regions=regions)


@settings(deadline=None, max_examples=50)
@given(content=files(SAMPLES) | files(b"sample\tpath\tgenome\tsignal\na\ta.bed\tg.fa\tx.bw\n"))
@pytest.mark.filterwarnings("ignore::bioattn.errors.BioattnWarning")
def test_samples(folder: Path, content: bytes) -> None:
    """samples.tsv gives names that are safe as parts of a path, and files that exist, or is refused by name."""
    for name in ("a.fa", "a.bed", "x.bw"):
        (folder / name).touch()
    path = folder / "fuzz.tsv"
    path.write_bytes(content)
    try:
        samples = read_samples(path, ["label"])
    except BioattnError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return
    for sample in samples:
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", sample.name)
        assert all(file.is_file() for file in sample.files.values())
    assert len({sample.name for sample in samples}) == len(samples)


@settings(deadline=None, max_examples=50)
@given(rows=st.lists(st.lists(st.text(max_size=5).map(str.strip), min_size=3, max_size=3), max_size=6))
def test_tables_that_pandas_writes_are_read_back(folder: Path, rows: list[list[str]]) -> None:
    """Cells with separators, quotes and any script survive, unless they hold a line break, which is refused."""
    frame = pd.DataFrame(rows, columns=["a", "b", "c"], dtype=object)
    for name, separator in [("t.csv", ","), ("t.tsv", "\t")]:
        path = folder / name
        frame.to_csv(path, sep=separator, index=False)
        kept = [row for row in rows if any(row)]
        if any(set(cell) & set("\r\n") for row in rows for cell in row):
            with pytest.raises(BioattnError, match=name):
                list(read_delimited(path).rows)
        else:
            assert [list(row.values.values()) for row in read_delimited(path).rows] == kept
