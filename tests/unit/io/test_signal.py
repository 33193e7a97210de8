"""Targets from bigWig and BAM, against slow loops over what was written into the files."""

import gzip
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyBigWig
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioattn.config import SignalConfig
from bioattn.data.regions import Region
from bioattn.errors import DataError
from bioattn.io import htslib, signal
from bioattn.io.signal import signal_targets

LENGTHS = {"chr1": 1009, "chr2": 503}
#: Start, end, value.
Entries = Mapping[str, Sequence[tuple[int, int, float]]]
ENTRIES: Entries = {
    "chr1": [(0, 10, 1.5), (10, 11, -2.0), (20, 40, 0.25), (500, 501, 7.0), (1000, 1009, 3.0)],
    "chr2": [(100, 200, 4.0)],
}


def regions_of(places: Iterable[tuple[str, int, int]]) -> list[Region]:
    return [Region(*place, "-", f"r{i}", "some.bed", i + 1, {}) for i, place in enumerate(places)]


def exact(name: str, contigs: Mapping[str, int], path: Path) -> str:
    if name not in contigs:
        raise DataError(f"{path}: found no contig '{name}'")
    return name


def write_bigwig(path: Path, entries: Entries, lengths: Mapping[str, int] = LENGTHS) -> Path:
    with pyBigWig.open(str(path), "w") as file:
        file.addHeader(list(lengths.items()))
        for contig in lengths:
            if entries.get(contig):
                starts, ends, values = zip(*entries[contig], strict=True)
                file.addEntries([contig] * len(starts), list(starts), ends=list(ends), values=list(values))
    return path


def slow_statistic(entries: Entries, contig: str, start: int, end: int, rules: SignalConfig) -> float:
    """Base by base, from what was written."""
    values = []
    for base in range(max(start, 0), end):
        values.append(next((value for low, high, value in entries.get(contig, []) if low <= base < high), None))
    known = [value for value in values if value is not None]
    if rules.statistic == "coverage":
        return len(known) / len(values)
    used = known if rules.uncovered == "missing" else [value or 0.0 for value in values]
    if not used:
        return math.nan
    return {"mean": math.fsum(used) / len(used), "sum": math.fsum(used), "max": max(used)}[rules.statistic]


def read(path: Path, places: Iterable[tuple[str, int, int]], **rules: Any) -> list[float]:
    found = signal_targets(regions_of(places), {"y": path}, SignalConfig(**rules), resolve=exact)
    assert list(found) == ["y"] and found["y"].dtype == np.float64
    return found["y"].tolist()


@pytest.fixture(scope="module")
def bigwig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bigwig(tmp_path_factory.mktemp("bigwig") / "a.bw", ENTRIES)


PLACES = st.sampled_from(list(LENGTHS)).flatmap(
    lambda contig: st.tuples(
        st.just(contig), st.integers(-5, LENGTHS[contig] - 1), st.integers(1, LENGTHS[contig])
    ).filter(lambda place: max(place[1], 0) < place[2])
)


@pytest.mark.parametrize("uncovered", ["zero", "missing"])
@pytest.mark.parametrize("statistic", ["mean", "sum", "max", "coverage"])
@given(places=st.lists(PLACES, max_size=13), batch=st.sampled_from([1, 50, 2**22]), gap=st.sampled_from([0, 7, 4096]))
@settings(max_examples=40, deadline=None)
def test_bigwig_statistics_are_those_of_a_loop_over_bases(
    bigwig: Path, statistic: Any, uncovered: Any, places: list[tuple[str, int, int]], batch: int, gap: int
) -> None:
    """Any regions in any order, overlapping or off the start, give what a loop over single bases gives."""
    rules = SignalConfig(statistic=statistic, uncovered=uncovered)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "_BATCH", batch)
        patch.setattr(signal, "_BIGWIG_GAP", gap)
        found = read(bigwig, places, statistic=statistic, uncovered=uncovered)
    expected = [slow_statistic(ENTRIES, *place, rules) for place in places]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_known_statistics(bigwig: Path) -> None:
    """Region chr1:5-25 holds five bases of 1.5, one of -2, five of 0.25 and nine without a value."""
    place = [("chr1", 5, 25)]
    assert read(bigwig, place) == [pytest.approx((7.5 - 2 + 1.25) / 20)]
    assert read(bigwig, place, uncovered="missing") == [pytest.approx((7.5 - 2 + 1.25) / 11)]
    assert read(bigwig, place, statistic="sum") == [6.75]
    assert read(bigwig, place, statistic="coverage") == [11 / 20]
    assert read(bigwig, [("chr1", 10, 11)], statistic="max") == [-2]
    assert read(bigwig, [("chr1", 10, 12)], statistic="max") == [0]
    assert read(bigwig, [("chr1", 10, 12)], statistic="max", uncovered="missing") == [-2]
    assert np.isnan(read(bigwig, [("chr2", 0, 100)], uncovered="missing")[0])
    assert read(bigwig, [("chr2", 0, 100)]) == [0]
    assert read(bigwig, [("chr2", 100, 200)], transform="log1p") == [pytest.approx(math.log(5))]


def test_values_are_exact_where_zoom_levels_are_not(tmp_path: Path) -> None:
    """A single tall base in a long contig counts in full: means do not come from summaries."""
    entries = {"chr1": [(i, i + 1, float(i % 7)) for i in range(0, 200_000, 2)]}
    path = write_bigwig(tmp_path / "a.bw", entries, {"chr1": 200_000})
    expected = [math.fsum(float(i % 7) for i in range(3, 150_001) if i % 2 == 0) / (150_001 - 3)]
    assert read(path, [("chr1", 3, 150_001)]) == pytest.approx(expected, rel=1e-12)


def test_each_target_has_its_file(bigwig: Path, tmp_path: Path) -> None:
    """Several sources come back under their names, in order."""
    other = write_bigwig(tmp_path / "b.bw", {"chr1": [(0, 1009, 2.0)]})
    found = signal_targets(
        regions_of([("chr1", 0, 10)]), {"z": other, "a": bigwig}, SignalConfig(), resolve=lambda name, *_: name
    )
    assert {name: values.tolist() for name, values in found.items()} == {"z": [2.0], "a": [1.5]}
    assert list(found) == ["z", "a"]


def test_no_regions_give_no_values(bigwig: Path) -> None:
    """An empty list is no error."""
    assert read(bigwig, []) == []


def test_contig_names_go_through_resolve(bigwig: Path) -> None:
    """What `resolve` returns is what is read, regions of two names of one contig included; its errors name a region."""
    places = regions_of([("1", 0, 10), ("chr1", 10, 11)])
    found = signal_targets(
        places, {"y": bigwig}, SignalConfig(), resolve=lambda name, *_: f"chr{name.removeprefix('chr')}"
    )
    assert found["y"].tolist() == [1.5, -2.0]
    with pytest.raises(
        DataError, match=r"a.bw: found no contig '1' \(needed for region 'r0' \(1:0-10, some.bed line 1"
    ):
        signal_targets(places, {"y": bigwig}, SignalConfig(), resolve=exact)


@pytest.mark.parametrize(
    ("place", "rules", "expected"),
    [
        (
            ("chr1", 1000, 1010),
            {},
            "no values at the end of region 'r0'.*bed line 1.*'chr1' ends at 1009.*assembly",
        ),
        (("chr1", -9, 0), {}, "found no base of 'chr1' in region 'r0'"),
        (("chr1", 8, 8), {}, "found no base of 'chr1' in region 'r0'"),
        (("chr1", 10, 11), {"transform": "log1p"}, "target 'y': found -2 in region 'r0'.*at least 0.*log1p"),
    ],
)
def test_regions_that_cannot_be_used(bigwig: Path, place: Any, rules: Any, expected: str) -> None:
    """Errors name the file, the region, what was found and what is allowed."""
    with pytest.raises(DataError, match=f"a.bw: .*{expected}"):
        read(bigwig, [place], **rules)


def test_infinite_values_are_refused(tmp_path: Path) -> None:
    """Infinity is no target."""
    path = write_bigwig(tmp_path / "a.bw", {"chr1": [(0, 5, math.inf)]})
    with pytest.raises(DataError, match="found inf in region 'r0'"):
        read(path, [("chr1", 0, 10)])
    assert read(path, [("chr1", 5, 10)]) == [0]


OTHER_FILES = {
    "empty": (b"", "an empty file; allowed are bigWig and BAM"),
    "text": (b"chr1\t0\t5\t1.0\n", "b'chr1' at the start"),
    "big-endian": (b"\x88\x8f\xfc\x26" + bytes(100), "byte order"),
    "bigBed": (b"\xeb\xf2\x89\x87" + bytes(100), "bigBed"),
    "CRAM": (b"CRAM\3\0", "CRAM"),
    "SAM": (b"@HD\tVN:1.6\n", "SAM as text"),
    "gzip": (gzip.compress(b"chr1\t0\t5\t1.0\n"), "a packed file that is no BAM"),
    "cut gzip": (b"\x1f\x8b\x08", "a packed file that is no BAM"),
}


@pytest.mark.parametrize(("data", "expected"), OTHER_FILES.values(), ids=OTHER_FILES)
def test_other_files_are_named(tmp_path: Path, data: bytes, expected: str) -> None:
    """What is neither bigWig nor BAM raises with what it is."""
    path = tmp_path / "a.bw"
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"a.bw: found.* {expected}"):
        read(path, [("chr1", 0, 10)])
    with pytest.raises(DataError, match="b.bw: no such file"):
        read(tmp_path / "b.bw", [("chr1", 0, 10)])


def test_a_cut_bigwig_is_never_taken_for_a_whole_one(tmp_path: Path, bigwig: Path) -> None:
    """Without its last byte, or any number of bytes, a bigWig raises `DataError`."""
    whole = bigwig.read_bytes()
    path = tmp_path / "cut.bw"
    for keep in (*range(4, 80), *range(80, len(whole) - 8, 11), *range(len(whole) - 8, len(whole))):
        path.write_bytes(whole[:keep])
        with pytest.raises(DataError, match="cut.bw: found a bigWig that is cut short or damaged"):
            read(path, [("chr1", 0, 1000)])


@given(changes=st.lists(st.tuples(st.integers(4, 63), st.integers(0, 255)), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_a_damaged_header_of_a_bigwig_raises_data_errors_only(
    tmp_path_factory: Any, bigwig: Path, changes: list[tuple[int, int]]
) -> None:
    """Whatever the header claims, its values are read or `DataError` names the file."""
    path = tmp_path_factory.getbasetemp() / "damaged.bw"
    damaged = bytearray(bigwig.read_bytes())
    for place, value in changes:
        damaged[place] = value
    path.write_bytes(damaged)
    try:
        assert len(read(path, [("chr1", 0, 1000)])) == 1
    except DataError as error:
        assert "damaged.bw" in str(error)


# --------------------------------------------------------------------------- BAM


#: Start, length in the genome, flag, mapping quality.
Read = tuple[str, int, int, int, int]
READS: list[Read] = [
    ("chr1", 10, 20, 0, 60),
    ("chr1", 10, 20, 16, 60),
    ("chr1", 10, 20, 0x400, 60),
    ("chr1", 10, 20, 0x100, 60),
    ("chr1", 10, 20, 0x800, 60),
    ("chr1", 10, 20, 0x200, 60),
    ("chr1", 10, 20, 0, 3),
    ("chr1", 100, 50, 99, 60),
    ("chr1", 130, 50, 147, 60),
    ("chr2", 0, 30, 16, 60),
]


def write_bam(path: Path, reads: Sequence[Read], *, order: str = "coordinate", keep_order: bool = False) -> Path:
    header = {
        "HD": {"VN": "1.6", "SO": order},
        "SQ": [{"SN": name, "LN": length} for name, length in LENGTHS.items()],
    }
    contigs = list(LENGTHS)
    with pysam.AlignmentFile(str(path), "wb", header=header) as file:
        for i, (contig, start, length, flag, quality) in enumerate(
            reads if keep_order else sorted(reads, key=lambda read: (contigs.index(read[0]), read[1]))
        ):
            read = pysam.AlignedSegment(file.header)
            read.query_name, read.flag, read.mapping_quality = f"q{i}", flag, quality
            read.reference_id, read.reference_start = contigs.index(contig), start
            # Half of it, a deletion of one base, the rest: the 5' end of a reverse read follows from the CIGAR.
            read.cigartuples = [(4, 2), (0, length // 2), (2, 1), (0, length - length // 2 - 1)]
            read.query_sequence = "A" * (2 + length - 1)
            file.write(read)
    return path


def slow_count(reads: Sequence[Read], place: tuple[str, int, int], rules: SignalConfig) -> int:
    contig, start, end = place
    n = 0
    for name, at, length, flag, quality in reads:
        five_prime = at + length - 1 if flag & 16 else at
        usable = not flag & (0x4 | 0x100 | 0x200 | 0x800) and quality >= rules.min_mapping_quality
        usable = usable and (rules.keep_duplicates or not flag & 0x400)
        n += usable and name == contig and start <= five_prime < end
    return n


@pytest.fixture(scope="module")
def bam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bam(tmp_path_factory.mktemp("bam") / "a.bam", READS)


def test_known_counts(bam: Path) -> None:
    """Of reads at 10-30 the forward ones count at 10, the reverse one at 29; filters and mates as documented."""
    assert read(bam, [("chr1", 0, 11), ("chr1", 11, 29), ("chr1", 29, 30)]) == [2, 0, 1]
    assert read(bam, [("chr1", 0, 11)], keep_duplicates=True) == [3]
    assert read(bam, [("chr1", 0, 11)], min_mapping_quality=4) == [1]
    assert read(bam, [("chr1", 90, 200)]) == [2]
    assert read(bam, [("chr1", 0, 11)], transform="log1p") == [pytest.approx(math.log(3))]
    assert read(bam, [("chr2", 0, 29), ("chr2", 29, 30)]) == [0, 1]


READ = st.tuples(
    st.just("chr1"), st.integers(0, 900), st.integers(5, 90), st.sampled_from([0, 16, 99, 147, 0x410, 0x110]),
    st.integers(0, 60),
)  # fmt: skip


@given(
    reads=st.lists(READ, max_size=23),
    cuts=st.lists(st.integers(1, 1008), max_size=7, unique=True),
    gap=st.sampled_from([0, 50, 16_384]),
    quality=st.sampled_from([0, 30]),
)
@settings(max_examples=40, deadline=None)
def test_counts_are_those_of_a_loop_and_add_up(
    tmp_path_factory: Any, reads: list[Read], cuts: list[int], gap: int, quality: int
) -> None:
    """Regions that tile a contig count each read once, and each region as a loop over the written reads does."""
    path = tmp_path_factory.getbasetemp() / "random.bam"
    for stale in path.parent.glob("random.bam*"):
        stale.unlink()
    write_bam(path, reads)
    rules = SignalConfig(min_mapping_quality=quality)
    edges = [0, *sorted(cuts), 1009]
    places = [("chr1", start, end) for start, end in zip(edges, edges[1:], strict=False)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal, "_BAM_GAP", gap)
        counts = read(path, places, min_mapping_quality=quality)
    assert counts == [slow_count(reads, place, rules) for place in places]
    assert sum(counts) == slow_count(reads, ("chr1", 0, 1009), rules)


def test_a_missing_index_is_made_and_a_stale_one_made_anew(tmp_path: Path) -> None:
    """The index appears beside the file; one that is older than the file, or damaged, is not trusted."""
    path = write_bam(tmp_path / "a.bam", READS[:1])
    index = tmp_path / "a.bam.bai"
    assert read(path, [("chr1", 0, 11)]) == [1]
    assert index.exists()
    write_bam(path, READS)
    os.utime(index, (1, 1))
    assert read(path, [("chr1", 0, 11), ("chr2", 29, 30)]) == [2, 1]
    assert index.stat().st_mtime > 1
    index.write_bytes(b"BAI\1" + b"\xff" * 40)
    assert read(path, [("chr1", 0, 11), ("chr2", 29, 30)]) == [2, 1]


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the index cannot be kept, it is made for this time only."""

    def refuse(path: Path) -> None:
        raise DataError(f"{path}: cannot be written")

    path = write_bam(tmp_path / "a.bam", READS)
    monkeypatch.setattr(htslib, "replacing", refuse)
    assert read(path, [("chr1", 0, 11)]) == [2]
    assert list(tmp_path.iterdir()) == [path]


def test_unsorted_bam(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The error says that it is not sorted and how to sort it; nothing goes to stderr."""
    path = write_bam(tmp_path / "a.bam", READS[::-1], order="queryname", keep_order=True)
    with pytest.raises(DataError, match="a.bam: found a BAM that is not sorted.*'queryname'.*samtools sort"):
        read(path, [("chr1", 0, 11)])
    assert capfd.readouterr().err == ""


def test_cut_bam(tmp_path: Path, bam: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A BAM cut at any place raises `DataError` and prints nothing, with and without an index of the whole."""
    whole = bam.read_bytes()
    path = tmp_path / "a.bam"
    for keep in range(30, len(whole), 17):
        path.write_bytes(whole[:keep])
        with pytest.raises(DataError, match="a.bam: (cannot be read as BAM|found a packed file)"):
            read(path, [("chr1", 0, 11)])
    assert capfd.readouterr().err == ""


def test_verbosity_of_htslib_is_restored(bam: Path) -> None:
    """Messages are silenced for the time of reading only."""
    before = pysam.set_verbosity(2)
    try:
        read(bam, [("chr1", 0, 11)])
        assert pysam.get_verbosity() == 2
    finally:
        pysam.set_verbosity(before)
