"""Letters of a genome by coordinate."""

import gzip
import os
from pathlib import Path

import numpy as np
import pysam
import pytest

from bioattn.data import alphabet
from bioattn.errors import DataError
from bioattn.io import genome as genome_module
from bioattn.io import htslib
from bioattn.io.genome import Genome

RNG = np.random.default_rng(7)
CONTIGS = {
    name: "".join(RNG.choice(list("ACGTacgtNR"), length)) for name, length in [("chr1", 997), ("chr2", 61), ("MT", 31)]
}


def fasta(contigs: dict[str, str], *, width: int = 60, end: str = "\n") -> bytes:
    lines = [
        line
        for name, letters in contigs.items()
        for line in [f">{name} length {len(letters)}", *(letters[i : i + width] for i in range(0, len(letters), width))]
    ]
    return (end.join(lines) + end).encode()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture(params=["plain", "crlf", "one line", "bgzip"])
def genome(request: pytest.FixtureRequest, tmp_path: Path) -> Genome:
    kinds = {"plain": {}, "crlf": {"end": "\r\n"}, "one line": {"width": 10_000}, "bgzip": {}}
    path = write(tmp_path / "g.fa", fasta(CONTIGS, **kinds[request.param]))
    if request.param == "bgzip":
        pysam.tabix_compress(str(path), str(tmp_path / "g.fa.gz"))
        path.unlink()
        path = tmp_path / "g.fa.gz"
    return Genome(path)


def test_every_interval_is_a_slice(genome: Genome) -> None:
    """Lengths, intervals, whole contigs and codes are those of the letters, whatever the layout of the file."""
    assert genome.lengths == {name: len(letters) for name, letters in CONTIGS.items()}
    for _ in range(2):  # before and after whole contigs are in memory
        for name, letters in CONTIGS.items():
            bounds = np.sort(np.random.default_rng(1).integers(0, len(letters) + 1, (20, 2)))
            for start, end in [*map(tuple, bounds.tolist()), (0, len(letters)), (5, 5)]:
                assert genome.sequence(name, start, end) == letters[start:end]
            assert genome.letters(name).tobytes().decode() == letters
            assert (genome.codes(name) == alphabet.encode(letters)).all()


def test_windows_are_stacked_slices(genome: Genome) -> None:
    """Many windows at once are the slices one by one, in the order asked for; none is none."""
    starts = np.random.default_rng(2).integers(0, 997 - 37 + 1, 50)
    expected = np.stack([alphabet.encode(CONTIGS["chr1"][start : start + 37]) for start in starts])
    assert (genome.windows("chr1", starts, 37) == expected).all()
    assert genome.windows("chr1", [], 37).shape == (0, 37)
    for starts in ([0, -1], [997 - 36]):
        with pytest.raises(DataError, match=r"g\.fa.*found chr1:(-1-36|961-998), allowed is within 0-997"):
            genome.windows("chr1", starts, 37)


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (0, 62), (9, 8)])
def test_intervals_beyond_the_contig(genome: Genome, start: int, end: int) -> None:
    """What does not lie on the contig raises with the contig's length, instead of giving fewer letters."""
    with pytest.raises(DataError, match=f"found chr2:{start}-{end}, allowed is within 0-61"):
        genome.sequence("chr2", start, end)


def test_memory_for_contigs_is_bounded(genome: Genome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit earlier contigs are given up, and read again when asked for."""
    monkeypatch.setattr(genome_module, "_CACHED_BYTES", 100)
    for name in ["chr1", "chr2", "MT", "chr1", "MT"]:
        assert genome.letters(name).tobytes().decode() == CONTIGS[name]
    assert list(genome._cache) == ["MT"]
    genome.letters("chr2")
    assert list(genome._cache) == ["MT", "chr2"]


def test_index_is_kept_and_made_anew_when_stale_or_damaged(tmp_path: Path) -> None:
    """The index lies beside the file, is used again, and is remade when the file is newer or the index is no index."""
    path = write(tmp_path / "g.fa", fasta(CONTIGS))
    Genome(path)
    index = tmp_path / "g.fa.fai"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g.fa", "g.fa.fai"]
    made = index.stat().st_mtime_ns
    Genome(path)
    assert index.stat().st_mtime_ns == made
    write(path, fasta({"other": "ACGTTT"}))
    os.utime(index, (1, 1))
    assert Genome(path).sequence("other", 2, 6) == "GTTT"
    write(index, b"nonsense\n")
    assert Genome(path).sequence("other", 2, 6) == "GTTT"


def test_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no index can be kept, it is made in memory and nothing is left behind."""

    def refuse(path: Path) -> None:
        raise DataError(f"{path}: cannot be written")

    monkeypatch.setattr(htslib, "replacing", refuse)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    path = write(tmp_path / "g.fa", fasta(CONTIGS))
    assert Genome(path).sequence("chr2", 3, 9) == CONTIGS["chr2"][3:9]
    assert not list((tmp_path / "scratch").iterdir()) and not (tmp_path / "g.fa.fai").exists()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "found an empty file, expected a genome"),
        (b"ACGT\n", "found b'ACGT.n' at the start, allowed is a genome as FASTA"),
        (
            gzip.compress(fasta(CONTIGS), mtime=0),
            r"found plain gzip.*allowed are plain text and bgzip.*gunzip -c g\.fa \| bgzip",
        ),
        (fasta(CONTIGS) + b">chr1\nACGT\n", "line 24: found contig name 'chr1', which line 1 has already"),
        (b">a\nACGT\n>b\n>c\nACGT\n", "line 3: contig 'b' has no letters"),
        (b">a\nACGT\n>b\n", "line 3: contig 'b' has no letters"),
        (b">a\nACGT\nAC\nACGT\n", "line 4: found lines of different lengths in contig 'a'"),
        (b">a\nACGT\n\nACGT\n", "line 4: found lines of different lengths in contig 'a'"),
        (b">a\nACGT\n> \nACGT\n", "line 3: found no name"),
        (b">a\rACGT\r", "lines that end in CR alone"),
    ],
)
def test_unusable_files(tmp_path: Path, data: bytes, expected: str) -> None:
    """What cannot serve as a genome raises with file, line and what is allowed; no name is dropped silently."""
    with pytest.raises(DataError, match=rf"g\.fa.*{expected}"):
        Genome(write(tmp_path / "g.fa", data))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    """A path without a file, and a folder, raise with the path."""
    with pytest.raises(DataError, match="none.fa: no such file, expected a genome"):
        Genome(tmp_path / "none.fa")
    with pytest.raises(DataError, match="cannot be read"):
        Genome(tmp_path)


def test_file_that_was_cut_after_indexing(tmp_path: Path) -> None:
    """Letters that the index promises and the file lacks raise instead of coming out short."""
    path = write(tmp_path / "g.fa", fasta({"a": "ACGTACGGT" * 50_000}))
    opened = Genome(path)
    path.write_bytes(path.read_bytes()[:300_000])
    with pytest.raises(DataError, match=r"g\.fa: cannot be read at a:290000-400000.*the file is cut short"):
        opened.sequence("a", 290_000, 400_000)
    with pytest.raises(DataError, match=r"g\.fa: cannot be read at a:0-450000"):
        opened.letters("a")


def test_damaged_bgzip(tmp_path: Path) -> None:
    """A bgzip file that was cut short raises."""
    plain = write(tmp_path / "g.fa", fasta({"a": "ACGTACGGT" * 50_000}))
    pysam.tabix_compress(str(plain), str(tmp_path / "g.fa.gz"))
    data = (tmp_path / "g.fa.gz").read_bytes()
    with pytest.raises(DataError, match=r"g\.fa\.gz"):
        Genome(write(tmp_path / "g.fa.gz", data[: len(data) // 2]))


def test_contig_names_with_and_without_chr(tmp_path: Path) -> None:
    """Names that differ by 'chr' are told apart from names that are not there, and taken on request."""
    genome = Genome(write(tmp_path / "g.fa", fasta(CONTIGS)))
    for asked, found in [("1", "chr1"), ("chrM", "MT"), ("M", "MT"), ("chrMT", "MT")]:
        with pytest.raises(
            DataError, match=f"no contig '{asked}', the file calls it '{found}': set data.regions.contig"
        ):
            genome.resolve(asked)
        assert genome.resolve(asked, "chr_prefix") == found
    other = Genome(write(tmp_path / "h.fa", fasta({"1": "ACGT", "chrM": "AC"})))
    assert [other.resolve(name, "chr_prefix") for name in ("chr1", "1", "MT")] == ["1", "1", "chrM"]
    for contig_names in ("exact", "chr_prefix"):
        with pytest.raises(DataError, match=r"no contig 'chr11', it has 3 \(chr1, chr2, MT\): is it 'chr1'"):
            genome.resolve("chr11", contig_names)
        with pytest.raises(DataError, match="no contig 'scaffold_7'.*are the two of one assembly"):
            genome.resolve("scaffold_7", contig_names)


def test_index_that_lists_an_empty_contig(tmp_path: Path) -> None:
    """An index of another tool may list a contig without letters: every header is there, so the genome is read."""
    path = tmp_path / "g.fa"
    path.write_text(">a\nACGT\n>empty\n>b\nGGCC\n")
    Path(f"{path}.fai").write_text("a\t4\t3\t4\t5\nempty\t0\t15\t0\t0\nb\t4\t18\t4\t5\n")
    genome = Genome(path)
    assert genome.lengths == {"a": 4, "empty": 0, "b": 4} and genome.sequence("b", 0, 4) == "GGCC"


def test_index_without_a_header_of_the_file(tmp_path: Path) -> None:
    """A header that the index lacks, wherever it stands, or an offset before the last contig's end, is refused."""
    path = tmp_path / "g.fa"
    path.write_text(">a\nACGT\n>b\nGGCC\n>c\nTTAA\n")
    lines = ["a\t4\t3\t4\t5\n", "b\t4\t11\t4\t5\n", "c\t4\t19\t4\t5\n"]
    for kept in ([0, 1], [0, 2], [1, 2], [0, 2, 1]):
        Path(f"{path}.fai").write_text("".join(lines[i] for i in kept))
        with pytest.raises(DataError, match=r"g\.fa.*delete the index"):
            Genome(path)
