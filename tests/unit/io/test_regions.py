"""Annotations to regions, and regions to sequences."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioattn.config import RegionsConfig, parse_run
from bioattn.data.matching import Interval
from bioattn.data.regions import Region
from bioattn.data.sequences import BadRecord, LeftOut
from bioattn.errors import ConfigError, DataError
from bioattn.io import regions as regions_module
from bioattn.io.genome import Genome
from bioattn.io.regions import read_excluded, read_features, read_regions, sequences_of

RNG = np.random.default_rng(5)
CONTIGS = {name: "".join(RNG.choice(list("ACGTacgtNR"), length)) for name, length in [("c1", 211), ("c2", 97)]}
PAIRS = dict(zip("ACGTRYSWKMBDHVN", "TGCAYRSWMKVHDBN", strict=True))


def other_strand(sequence: str) -> str:
    """The other strand letter by letter, upper and lower case kept."""
    swapped = [PAIRS[letter] if letter.isupper() else PAIRS[letter.upper()].lower() for letter in sequence]
    return "".join(reversed(swapped))


def rules(**regions: Any) -> RegionsConfig:
    return parse_run({"data": {"regions": regions}}).data.regions


def make_genome(folder: Path, contigs: dict[str, str]) -> Genome:
    (folder / "g.fa").write_text("".join(f">{name}\n{letters}\n" for name, letters in contigs.items()))
    return Genome(folder / "g.fa")


@pytest.fixture
def genome(tmp_path: Path) -> Genome:
    return make_genome(tmp_path, CONTIGS)


def read(genome: Genome, name: str, text: str, **regions: Any) -> list[Region | BadRecord | LeftOut]:
    path = genome.path.parent / name
    path.write_text(text)
    return list(read_regions(path, rules(**regions), genome))


def places(found: list[Region | BadRecord | LeftOut]) -> list[tuple[str, int, int, str, str]]:
    assert all(isinstance(region, Region) for region in found), found
    return [tuple(region[:5]) for region in found]  # type: ignore[misc]


# ---------------------------------------------------------------------------- BED


def test_bed_with_three_columns(genome: Genome) -> None:
    """Contig, start and end are enough; the name is the place; comments, track and empty lines are skipped."""
    text = "# note\nbrowser position c1\ntrack name=x\n\nc1\t10\t20\nc2 5 9\n"
    found = read(genome, "a.bed", text)
    assert places(found) == [("c1", 10, 20, ".", "c1:10-20(.)"), ("c2", 5, 9, ".", "c2:5-9(.)")]
    assert [region.line for region in found] == [5, 6]


def test_bed_columns_become_fields(genome: Genome) -> None:
    """Score and further columns come along as text, by the names that BED, peaks or a header line give them."""
    bed6 = read(genome, "a.bed", "c1\t1\t5\tx\t7.5\t-\n")
    assert (bed6[0].name, bed6[0].strand, bed6[0].fields) == ("x", "-", {"score": "7.5"})
    more = read(genome, "a.bed", "c1\t1\t5\tx\t7.5\t-\ta\tb\n")
    assert more[0].fields == {"score": "7.5", "column7": "a", "column8": "b"}
    twelve = read(genome, "a.bed", "c1\t1\t5\tx\t0\t+\t1\t5\t0,0,0\t1\t4\t0\n")
    assert twelve[0].fields["blockSizes"] == "4"
    for header in ("#chrom\tchromStart\tchromEnd\tid\texpression\n", "chr\tstart\tstop\tid\texpression\n"):
        named = read(genome, "a.bed", header + "c1\t1\t5\tx\t7.5\n")
        assert named[0].fields == {"id": "x", "expression": "7.5"} and named[0].name == "c1:1-5(.)"
    peaks = read(genome, "a.narrowPeak", "c1\t1\t50\tp\t9\t.\t4.5\t-1\t3\t20\n", upstream=2, downstream=2)
    assert peaks[0].fields == {"score": "9", "signalValue": "4.5", "pValue": "-1", "qValue": "3", "peak": "20"}
    broad = read(genome, "a.broadPeak", "c1\t1\t50\tp\t9\t.\t4.5\t-1\t3\n")
    assert broad[0].fields == {"score": "9", "signalValue": "4.5", "pValue": "-1", "qValue": "3"}


def test_peaks_are_centred_on_their_summit(genome: Genome) -> None:
    """narrowPeak counts from the summit; -1 means that there is none, and the centre is taken."""
    text = "c1\t40\t61\ta\t0\t.\t1\t-1\t-1\t3\nc1\t40\t61\tb\t0\t.\t1\t-1\t-1\t-1\n"
    found = read(genome, "a.narrowPeak", text, upstream=4, downstream=6)
    assert [place[1:3] for place in places(found)] == [(39, 49), (46, 56)]


@pytest.mark.parametrize(
    ("name", "line", "expected"),
    [
        ("a.bed", "c1\t30\t20", "found start 30 after end 20"),
        ("a.bed", "c1\t20\t20", "found start and end 20, an empty region"),
        ("a.bed", "c1\t-3\t20", "found start -3, allowed is at least 0"),
        ("a.bed", "c1\t1e2\t200", "found start '1e2', allowed is a whole number"),
        ("a.bed", "c1\t10\t٣٠", "found end '٣٠', allowed is a whole number"),
        ("a.bed", f"c1\t10\t{'9' * 5000}", "found end '9+', allowed is a whole number"),
        ("a.bed", "c1\t10", "found 2 columns, BED has at least 3"),
        ("a.bed", "c1\t10\t20\tx", "found 4 columns, BED has at least 3"),
        ("a.bed", "c1\t200\t212", "found 200-212 on contig c1, which is 211 bp long: is the annotation of another"),
        ("a.bed", "c3\t10\t20", r"no contig 'c3', it has 2 \(c1, c2\)"),
        ("a.bed", "chrc1\t10\t20", "no contig 'chrc1', the file calls it 'c1': set data.regions.contig_names"),
        ("a.narrowPeak", "c1\t10\t20\tx\t0\t+", "found 6 columns, narrowPeak has 10"),
        (
            "a.narrowPeak",
            "c1\t10\t20\tx\t0\t+\t0\t0\t0\t10",
            "found summit 10, allowed is an offset below the length 10",
        ),
        ("a.narrowPeak", "c1\t10\t20\tx\t0\t*\t0\t0\t0\t1", r"found strand '\*', allowed are \+, - and \."),
        ("a.broadPeak", "c1\t10\t20\tx\t0\t+\t0\t0\t0\t10", "found 10 columns, broadPeak has 9"),
        ("a.gtf", "c1\ts\tgene\t0\t20\t.\t+\t.\tx", "found start 0, allowed is at least 1: GTF and GFF3 count from 1"),
        ("a.gtf", "c1\ts\tgene\t30\t20\t.\t+\t.\tx", "found start 30 after end 20"),
        ("a.gtf", "c1\ts\tgene\t30\t40\t.\tx\t.\tx", "found strand 'x'"),
        ("a.gtf", "c1\ts\tgene\t30\t40\t.\t+\t.", "found 8 columns, GTF and GFF3 have 9"),
        ("a.gff3", "c1\ts\tgene\t30\t40\t.\t?\t.\tID=x", "found no strand, data.regions.anchor: five_prime needs"),
        ("a.gff3", "c1\ts\tgene\t3\t40\t.\t+\t.\tID=x", r"its region -2-13 goes beyond contig c1.*off_end: pad"),
        ("a.gff3", "c1\ts\tgene\t210\t240\t.\t+\t.\tID=x", "found 209-240 on contig c1, which is 211 bp long"),
    ],
)
def test_lines_that_give_no_region(genome: Genome, name: str, line: str, expected: str) -> None:
    """Each kind of unusable line is a bad record with its line number, what was found and what is allowed."""
    good = {
        "a.bed": "c1\t100\t120",
        "a.narrowPeak": "c1\t100\t120\tg\t0\t+\t0\t0\t0\t10",
        "a.broadPeak": "c1\t100\t120\tg\t0\t+\t0\t0\t0",
        "a.gtf": 'c1\ts\tgene\t101\t120\t.\t+\t.\tgene_id "g"',
        "a.gff3": "c1\ts\tgene\t101\t120\t.\t+\t.\tID=g",
    }[name]
    first, bad, last = read(genome, name, f"{good}\n{line}\n{good}\n", upstream=4, downstream=11, same_place="keep")
    assert isinstance(first, Region) and isinstance(last, Region) and isinstance(bad, BadRecord)
    assert (bad.file, bad.line) == (str(genome.path.parent / name), 2)
    assert re.search(expected, bad.reason), bad.reason


# ------------------------------------------------------------------- GTF and GFF3

GTF = """#!genome
c1\tsrc\tgene\t21\t60\t5\t+\t.\tgene_id "g;1"; gene_name "alpha"; tag "a"; tag "b"; level 2;
c1\tsrc\ttranscript\t21\t60\t.\t+\t.\tgene_id "g;1"; transcript_id "t1"
c1\tsrc\ttranscript\t21\t50\t.\t+\t.\tgene_id "g;1"; transcript_id "t2"
c2\tsrc\tgene\t11\t40\t.\t-\t.\tgene_id "g2"; split "test"; group "x";
"""
GFF3 = """##gff-version 3
c1\tsrc\tgene\t21\t60\t5\t+\t.\tID=g%3B1;Name=alpha;Note=a%09b, c%3Dd
c1\tsrc\tmRNA\t21\t60\t.\t+\t.\tID=t1;Parent=g%3B1
c2\tsrc\tgene\t11\t40\t.\t-\t.\tName=only name
##FASTA
>c1
ACGT\tACGT
"""


def test_gtf_counts_from_one(genome: Genome) -> None:
    """1-based closed coordinates become 0-based half-open; quotes protect semicolons; attributes become fields."""
    first, second = read(genome, "a.gtf", GTF, anchor="whole")
    assert places([first, second]) == [("c1", 20, 60, "+", "g;1"), ("c2", 10, 40, "-", "g2")]
    assert first.fields == {"score": "5", "gene_id": "g;1", "gene_name": "alpha", "tag": "a,b", "level": "2"}
    assert second.fields == {"gene_id": "g2"}, "attributes do not set split or group"
    named = read(genome, "a.gtf", GTF, anchor="whole", feature="transcript", name_attribute="gene_id")
    assert [region.name for region in named] == ["g;1", "g;1"]


def test_gff3_is_percent_encoded_and_ends_at_its_sequences(genome: Genome) -> None:
    """Encoded characters are decoded, control characters are blanks, and ##FASTA ends the annotation."""
    first, second = read(genome, "a.gff", GFF3, anchor="whole")
    assert places([first, second]) == [("c1", 20, 60, "+", "g;1"), ("c2", 10, 40, "-", "only name")]
    assert first.fields["Note"] == "a b, c=d"
    assert read(genome, "b.gff3", GFF3.replace("##FASTA\n", ""), anchor="whole") == [
        region._replace(file=region.file.replace("a.gff", "b.gff3")) for region in (first, second)
    ]


def test_format_is_known_by_the_attributes(genome: Genome) -> None:
    """A wrong suffix does no harm: quotes and spaces are GTF, equal signs are GFF3."""
    assert places(read(genome, "a.gff", GTF, anchor="whole")) == places(read(genome, "a.gtf", GTF, anchor="whole"))
    assert places(read(genome, "b.gtf", GFF3, anchor="whole")) == places(read(genome, "b.gff3", GFF3, anchor="whole"))


def test_transcripts_of_one_start_are_merged_or_kept(genome: Genome) -> None:
    """Regions of equal place and strand are one, the others listed with their reason; keep takes all."""
    settings: dict[str, Any] = {"feature": "transcript", "upstream": 5, "downstream": 3}
    first, merged = read(genome, "a.gtf", GTF, **settings)
    assert places([first]) == [("c1", 15, 23, "+", "t1")]
    assert isinstance(merged, LeftOut) and (merged.line, merged.name) == (4, "t2")
    assert "same place as 't1' of line 3, merged (data.regions.same_place: keep" in merged.reason
    strands = read(genome, "a.bed", "c1\t5\t9\tx\t0\t+\nc1\t5\t9\ty\t0\t-\nc1\t5\t8\tz\t0\t+\n")
    assert [place[4] for place in places(strands)] == ["x", "y", "z"]
    kept = read(genome, "a.gtf", GTF, same_place="keep", **settings)
    assert [place[4] for place in places(kept)] == ["t1", "t2"]


def test_feature_and_name_that_are_not_there(genome: Genome) -> None:
    """A feature type without lines names those with some; a name attribute that a line lacks makes it bad."""
    with pytest.raises(
        DataError, match=r"a\.gtf: found no feature 'exon', it has gene \(2\), transcript \(2\): set data"
    ):
        read(genome, "a.gtf", GTF, feature="exon")
    found = read(genome, "a.gtf", GTF, anchor="whole", name_attribute="gene_name")
    assert places(found[:1]) == [("c1", 20, 60, "+", "alpha")]
    assert isinstance(found[1], BadRecord) and "no attribute 'gene_name'" in found[1].reason


@pytest.mark.parametrize(("name", "text"), [("a.bed", "#c\n"), ("a.gff3", "##FASTA\n>x\nAC\n"), ("a.bed", "")])
def test_files_without_regions(genome: Genome, name: str, text: str) -> None:
    """A file without a single region raises with its name."""
    with pytest.raises(DataError, match=f"{name}: found no (region|feature)"):
        read(genome, name, text)


def test_anchors_that_a_file_does_not_have(genome: Genome) -> None:
    """A summit needs narrowPeak, and a region needs a known suffix."""
    with pytest.raises(ConfigError, match="found 'summit' for .*a.bed, allowed with narrowPeak"):
        read(genome, "a.bed", "c1\t1\t5\n", anchor="summit")
    with pytest.raises(DataError, match="a.fa: found another suffix, allowed are .bed"):
        read(genome, "a.fa", "c1\t1\t5\n")
    with pytest.raises(ConfigError, match="upstream and data.regions.downstream are both 0"):
        rules(upstream=0, downstream=0)


# ----------------------------------------------------------------------- sequences


@pytest.mark.parametrize("sparse", [0, 10**9])
def test_sequences_are_slices_in_the_order_of_the_regions(
    genome: Genome, monkeypatch: pytest.MonkeyPatch, sparse: int
) -> None:
    """Sequences equal slices of the contigs in input order, other strand on -, case kept, however they are read."""
    monkeypatch.setattr(regions_module, "_SPARSE", sparse)
    draw = np.random.default_rng(3)
    wanted = []
    for i in range(60):
        contig = ["c1", "c2"][int(draw.integers(2))]
        start, end = sorted(draw.choice(len(CONTIGS[contig]) + 1, 2, replace=False).tolist())
        wanted.append(Region(contig, start, end, "+-."[i % 3], f"r{i}", "x.bed", i, {}))
    for region, found in zip(wanted, sequences_of(wanted, genome), strict=True):
        letters = CONTIGS[region.contig][region.start : region.end]
        assert found == (other_strand(letters) if region.strand == "-" else letters)


def test_regions_off_the_end_are_filled_up(genome: Genome) -> None:
    """With pad, unknown bases stand for what lies beyond the contig, on the side where it lies on that strand."""
    text = "c2\ts\tgene\t4\t50\t.\t+\t.\tID=a\nc2\ts\tgene\t50\t95\t.\t-\t.\tID=b\n"
    settings: dict[str, Any] = {"upstream": 7, "downstream": 5}
    rejected = read(genome, "a.gff3", text, **settings)
    assert all(isinstance(region, BadRecord) for region in rejected)
    found = read(genome, "a.gff3", text, off_end="pad", **settings)
    assert [place[1:3] for place in places(found)] == [(-4, 8), (90, 102)]
    regions = [region for region in found if isinstance(region, Region)]
    letters = CONTIGS["c2"]
    assert sequences_of(regions, genome) == ["NNNN" + letters[:8], "NNNNN" + other_strand(letters[90:97])]
    whole = read(genome, "a.bed", "c2\t90\t100\n", off_end="pad")
    assert sequences_of(whole, genome) == [letters[90:] + "NNN"]
    gone = read(genome, "a.bed", "c2\t97\t100\n", off_end="pad")
    assert isinstance(gone[0], BadRecord)
    endless = read(genome, "a.bed", f"c2\t0\t{10**12}\n", off_end="pad")
    assert isinstance(endless[0], BadRecord) and "allowed are at most" in endless[0].reason


@settings(deadline=None, max_examples=50)
@given(
    spans=st.lists(
        st.tuples(st.integers(0, 200), st.integers(1, 60), st.sampled_from("+-"), st.integers(-1, 59)), min_size=1
    ),
    anchor=st.sampled_from(["five_prime", "center", "summit", "whole"]),
    upstream=st.integers(0, 30),
    downstream=st.integers(1, 30),
    off_end=st.sampled_from(["pad", "reject"]),
)
def test_both_strands_are_treated_alike(
    tmp_path_factory: pytest.TempPathFactory,
    spans: list[tuple[int, int, str, int]],
    anchor: str,
    upstream: int,
    downstream: int,
    off_end: str,
) -> None:
    """The mirrored annotation of the other strand of a genome gives the same sequences, for every anchor."""
    letters = CONTIGS["c1"]
    rows = [(s, min(s + n, 211), strand, p) for s, n, strand, p in spans]
    rows = [(start, end, strand, summit if summit < end - start else -1) for start, end, strand, summit in rows]
    mirrored = [
        (211 - end, 211 - start, "+" if strand == "-" else "-", -1 if summit < 0 else end - start - 1 - summit)
        for start, end, strand, summit in rows
    ]
    chosen = rules(anchor=anchor, upstream=upstream, downstream=downstream, off_end=off_end, same_place="keep")
    results = []
    for contig, spans_there in [(letters, rows), (other_strand(letters), mirrored)]:
        folder = tmp_path_factory.mktemp("strand")
        genome = make_genome(folder, {"c": contig})
        lines = [f"c\t{a}\t{b}\tn\t0\t{strand}\t0\t0\t0\t{summit}\n" for a, b, strand, summit in spans_there]
        (folder / "a.narrowPeak").write_text("".join(lines))
        found = list(read_regions(folder / "a.narrowPeak", chosen, genome))
        regions = [region for region in found if isinstance(region, Region)]
        results.append(([isinstance(region, Region) for region in found], sequences_of(regions, genome)))
    assert results[0] == results[1]


def test_five_prime_is_the_end_of_a_minus_strand_feature(genome: Genome) -> None:
    """The first downstream base is the first of the feature on its own strand."""
    text = "c1\ts\tCDS\t31\t60\t.\t+\t0\tID=a\nc1\ts\tCDS\t101\t130\t.\t-\t0\tID=b\n"
    found = read(genome, "a.gff3", text, feature="CDS", upstream=2, downstream=3)
    assert [place[1:3] for place in places(found)] == [(28, 33), (127, 132)]
    letters = CONTIGS["c1"]
    assert sequences_of(found, genome) == [letters[28:33], other_strand(letters[127:132])]


def test_contigs_are_named_as_in_the_genome(genome: Genome) -> None:
    """With chr_prefix a region of 'chrc1' lies on 'c1', and merges with a region that says so."""
    text = "chrc1\t10\t20\nc1\t10\t20\n"
    found = read(genome, "a.bed", text, contig_names="chr_prefix")
    assert places(found[:1]) == [("c1", 10, 20, ".", "c1:10-20(.)")] and isinstance(found[1], LeftOut)


def test_places_to_avoid_are_taken_as_they_are(tmp_path: Path) -> None:
    """Excluded regions are the intervals of the file, whatever is counted from an anchor; a bad line raises."""
    (tmp_path / "a.bed").write_text("c1\t5\t9\nc9\t1\t300\n")
    assert read_excluded([tmp_path / "a.bed"], rules(anchor="center")) == [Interval("c1", 5, 9), Interval("c9", 1, 300)]
    (tmp_path / "a.bed").write_text("c1\t5\t9\nc1\t9\t5\n")
    with pytest.raises(DataError, match=r"a\.bed line 2: found start 9 after end 5"):
        read_excluded([tmp_path / "a.bed"], rules())


def test_attributes_of_any_length_are_read_in_linear_time(tmp_path: Path) -> None:
    """Long blanks, unclosed quotes and separators are read without hanging, and the line still counts."""
    for hostile in (" " * 200_000, '"' * 200_000, "a" * 200_000, ";" * 200_000, 'a "' + " " * 200_000):
        for name in ("a.gtf", "a.gff3"):
            (tmp_path / name).write_text(f"c1\ts\tgene\t5\t9\t.\t+\t.\t{hostile}\n")
            assert len(list(read_features(tmp_path / name, rules()))) == 1
