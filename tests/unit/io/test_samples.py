"""samples.tsv."""

from pathlib import Path

import pytest

from bioattn.errors import BioattnWarning, DataError
from bioattn.io.samples import Sample, read_samples


def samples(folder: Path, *lines: str) -> Path:
    for name in ("a.fa", "b.fa", "labels.tsv", "table.tsv"):
        (folder / name).touch()
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
