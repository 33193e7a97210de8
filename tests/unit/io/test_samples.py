"""samples.tsv."""

import os
from pathlib import Path

import pytest

from bioattn.errors import BioattnWarning, DataError
from bioattn.io.samples import Sample, files_named, kind_of, read_samples


def samples(folder: Path, *lines: str) -> Path:
    for name in (
        "a.fa",
        "b.fa",
        "labels.tsv",
        "table.tsv",
        "a.bed",
        "a.GFF3.gz",
        "a.vcf.gz",
        "x.bw",
        "y.bam",
        "s=1.bw",
    ):
        (folder / name).touch()
    (folder / "folder").mkdir()
    (folder / "broken.fa").symlink_to("gone.fa")
    (folder / "loop.fa").symlink_to("loop.fa")
    os.mkfifo(folder / "pipe.fa")
    path = folder / "samples.tsv"
    path.write_text("".join(line + "\n" for line in lines))
    return path


def test_rows_become_samples(tmp_path: Path) -> None:
    """Paths are found from the folder of samples.tsv; empty cells are None."""
    path = samples(tmp_path, "sample\tpath\tlabel\tlabels", "pos\ta.fa\t1\t", "neg.2\tb.fa\t\tlabels.tsv")
    assert read_samples(path, ["label"]) == [
        Sample("pos", tmp_path / "a.fa", label="1"),
        Sample("neg.2", tmp_path / "b.fa", labels=tmp_path / "labels.tsv"),
    ]


def test_regions_variants_and_signal(tmp_path: Path) -> None:
    """Genome, regions and signal are found like other paths; the suffix tells the kind of a file."""
    path = samples(
        tmp_path,
        "sample\tpath\tgenome\tregions\tsignal",
        "peaks\ta.bed\ta.fa\t\ty=x.bw, z = y.bam",
        "genes\ta.GFF3.gz\ta.fa\t\t",
        "people\ta.vcf.gz\ta.fa\ta.bed\t",
    )
    peaks, genes, people = read_samples(path, ["y", "z"])
    assert peaks == Sample(
        "peaks",
        tmp_path / "a.bed",
        genome=tmp_path / "a.fa",
        signal=(("y", tmp_path / "x.bw"), ("z", tmp_path / "y.bam")),
    )
    assert people.regions == tmp_path / "a.bed"
    assert [sample.kind for sample in (peaks, genes, people)] == ["bed", "gff", "variants"]
    assert peaks.files == {
        "path": tmp_path / "a.bed",
        "genome": tmp_path / "a.fa",
        "signal y": tmp_path / "x.bw",
        "signal z": tmp_path / "y.bam",
    }


def test_signal_of_a_single_target_may_be_a_path(tmp_path: Path) -> None:
    """A single target needs no name before its file, even if the file's name has an equal sign."""
    for cell, file in [("x.bw", "x.bw"), ("y=x.bw", "x.bw"), ("s=1.bw", "s=1.bw"), ("y=s=1.bw", "s=1.bw")]:
        folder = tmp_path / cell
        folder.mkdir()
        path = samples(folder, "sample\tpath\tgenome\tsignal", f"a\ta.bed\ta.fa\t{cell}")
        assert read_samples(path, ["y"])[0].signal == (("y", folder / file),)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.fa", "fasta"),
        ("a.fna.gz", "fasta"),
        ("positives.txt", "fasta"),
        ("noname", "fasta"),
        ("a.fasta.bgz", "fasta"),
        ("a.TSV", "table"),
        ("a.csv.gz", "table"),
        ("a.parquet", "table"),
        ("a.bed.gz", "bed"),
        ("p.narrowPeak", "narrowpeak"),
        ("p.broadPeak.gz", "broadpeak"),
        ("a.gtf.gz", "gtf"),
        ("a.gff", "gff"),
        ("a.gff3.bgz", "gff"),
        ("a.vcf", "variants"),
        ("a.vcf.bgz", "variants"),
        ("a.bcf", "variants"),
    ],
)
def test_kinds_of_files(name: str, kind: str) -> None:
    """The suffix under .gz or .bgz tells what a file holds, in upper or lower case; any other is FASTA."""
    assert kind_of(Path(name)) == kind


def test_files_named_are_those_that_exist(tmp_path: Path) -> None:
    """Every file of every column is named once; what is missing, or no samples.tsv at all, is passed over."""
    path = samples(
        tmp_path,
        "sample\tpath\tlabels\tgenome\tregions\tsignal",
        "a\ta.bed\tlabels.tsv\ta.fa\t\ty=x.bw,z=y.bam",
        "b\ta.vcf.gz\tgone.tsv\ta.fa\ta.bed\t",
        "c\ta.bed\t\tb.fa\t\ts=1.bw",
    )
    names = ["a.bed", "labels.tsv", "a.fa", "a.vcf.gz", "b.fa", "x.bw", "y.bam", "s=1.bw"]
    assert sorted(files_named(path)) == sorted(tmp_path / name for name in names)
    assert files_named(tmp_path / "none.tsv") == []


def test_paths_fall_back_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is not beside samples.tsv is looked up from the working directory."""
    (tmp_path / "work" / "data").mkdir(parents=True)
    (tmp_path / "work" / "data" / "c.fa").touch()
    monkeypatch.chdir(tmp_path / "work")
    path = samples(tmp_path, "sample\tpath", "c\tdata/c.fa")
    assert read_samples(path, ["label"])[0].path == Path("data/c.fa")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["sample\tfile", "a\ta.fa"], "line 1: no column 'path', found sample, file"),
        (["sample,path", "a,a.fa"], "line 1: found columns separated by commas, allowed are tabs"),
        (["sample\tpath\tlable", "a\ta.fa\t1"], "'lable' is not a column of samples.tsv; did you mean 'label'"),
        (["sample\tpath"], "found no rows"),
        (
            ["sample\tpath", "my sample\ta.fa"],
            "line 2, column 'sample': found 'my sample', allowed is a name of letters",
        ),
        (["sample\tpath", "a\ta.fa", "\tb.fa"], "line 3, column 'sample': found ''"),
        (["sample\tpath", "a\ta.fa", "a\tb.fa"], "line 3, column 'sample': found 'a', which line 2 has already"),
        (["sample\tpath", "a\t"], "line 2, column 'path': found nothing"),
        (["sample\tpath", "a\tmissing.fa"], "line 2, column 'path': no such file 'missing.fa', looked in"),
        (["sample\tpath\tlabels", "a\ta.fa\tmissing.tsv"], "line 2, column 'labels': no such file 'missing.tsv'"),
        (["sample\tpath\tlabel\tlabels", "a\ta.fa\t1\tlabels.tsv"], "column 'label': found '1' beside labels"),
        (["sample\tpath", "a\ttable.tsv"], "column 'sequence_column': found nothing for the table table.tsv"),
        (["sample\tpath\tsequence_column", "a\ta.fa\tseq"], "found 'seq' for a.fa, allowed is a table"),
        (["sample\tpath\tname_column", "a\ta.fa\tid"], "found nothing beside a name_column"),
        (["sample\tpath", ".\ta.fa"], "line 2, column 'sample': found '.', allowed is a name of letters"),
        (["sample\tpath", "..\ta.fa"], "found '..', allowed is"),
        (["sample\tpath", "-rf\ta.fa"], "found '-rf', allowed is"),
        (["sample\tpath", ".hidden\ta.fa"], "found '.hidden', allowed is"),
        (["sample\tpath", "a/b\ta.fa"], "found 'a/b', allowed is"),
        (["sample\tpath", "a\tfolder"], "column 'path': 'folder' is a folder, not a file"),
        (["sample\tpath", "a\tbroken.fa"], "'broken.fa' is a link to 'gone.fa', where there is nothing"),
        (["sample\tpath", "a\tloop.fa"], "'loop.fa' is a link to 'loop.fa' that leads back to itself"),
        (["sample\tpath", "a\tpipe.fa"], "'pipe.fa' is a device or pipe"),
        (["sample\tpath", "a\t" + "x" * 5000], "no such file 'xxxx"),
        (["sample\tpath", "a\tnul\0.fa"], "no such file 'nul"),
        (["sample\tpath", "a\ta.bed"], "column 'genome': found nothing for the regions of a.bed, allowed is the FASTA"),
        (["sample\tpath", "a\ta.vcf.gz"], "column 'genome': found nothing for the variants of a.vcf.gz"),
        (["sample\tpath\tgenome", "a\ta.fa\tb.fa"], "found 'b.fa' for the sequences of a.fa, allowed is a BED, GTF"),
        (["sample\tpath\tgenome", "a\ta.bed\tmissing.fa"], "column 'genome': no such file 'missing.fa'"),
        (
            ["sample\tpath\tgenome\tregions", "a\ta.bed\ta.fa\ta.bed"],
            "column 'regions': found 'a.bed' for a.bed, allow",
        ),
        (
            ["sample\tpath\tgenome\tregions", "a\ta.vcf.gz\ta.fa\tb.fa"],
            "column 'regions': found 'b.fa', allowed is a BED",
        ),
        (["sample\tpath\tsignal", "a\ta.fa\tx.bw"], "column 'signal': found 'x.bw' for a.fa, allowed is a BED"),
        (["sample\tpath\tgenome\tsignal", "a\ta.vcf.gz\ta.fa\tx.bw"], "column 'signal': found 'x.bw' for a.vcf.gz"),
        (["sample\tpath\tgenome\tsignal\tlabel", "a\ta.bed\ta.fa\tx.bw\t1"], "found '1' beside signal 'x.bw'"),
        (
            ["sample\tpath\tgenome\tsignal", "a\ta.bed\ta.fa\tz=x.bw"],
            "found 'z=x.bw', allowed are one path for a single",
        ),
        (["sample\tpath\tgenome\tsignal", "a\ta.bed\ta.fa\tlabel="], "found 'label=', allowed are one path"),
        (["sample\tpath\tgenome\tsignal", "a\ta.bed\ta.fa\tlabel=no.bw"], "column 'signal': no such file 'no.bw'"),
        (["sample\tpath\tsequence_column", "a\ta.bed\tseq"], "found 'seq' for a.bed, allowed is a table"),
    ],
)
def test_bad_rows(tmp_path: Path, lines: list[str], expected: str) -> None:
    """Each mistake raises with file, line, column, what was found and what is allowed."""
    with pytest.raises(DataError, match=f"samples.tsv.*{expected}"):
        read_samples(samples(tmp_path, *lines), ["label"])


def test_constant_label_needs_a_single_target(tmp_path: Path) -> None:
    """One label per file cannot fill two targets."""
    path = samples(tmp_path, "sample\tpath\tlabel", "a\ta.fa\t1")
    with pytest.raises(DataError, match="'1' for the targets y, z, allowed is a single target"):
        read_samples(path, ["y", "z"])


def test_unknown_column_is_ignored_with_a_warning(tmp_path: Path) -> None:
    """A column that other tools use does no harm, and is named."""
    path = samples(tmp_path, "sample\tpath\tplatform", "a\ta.fa\tIllumina")
    with pytest.warns(BioattnWarning, match="column 'platform' is ignored"):
        assert read_samples(path, ["label"]) == [Sample("a", tmp_path / "a.fa")]
