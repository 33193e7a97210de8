"""Sequences from VCF and BCF: windows around variants, and haplotypes of regions."""

import gzip
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pysam
import pytest
from toy_vcf import vcf_text, write_vcf

from bioattn.config import DataConfig
from bioattn.data.regions import Region
from bioattn.data.sequences import BadRecord, Record
from bioattn.errors import ConfigError, DataError
from bioattn.io.genome import Genome
from bioattn.io.variants import variant_records

CHR1 = "ACGTTGCAACgtacGTNACCGTAGGATTACA"
CHR2 = "GGGGGCCCCC"
HEAD = vcf_text([])
#: Line of the first record below it.
FIRST = len(HEAD.splitlines()) + 1
KINDS = [".vcf", ".vcf.gz", ".vcf.bgz", ".bcf"]


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    path = tmp_path_factory.mktemp("genome") / "toy.fa"
    path.write_text(f">chr1\n{CHR1}\n>chr2\n{CHR2}\n")
    return Genome(path)


def settings(off_end: str = "reject", contig_names: str = "exact", **variants: Any) -> DataConfig:
    variants = {"window_bp": 8, **variants}
    return DataConfig.model_validate(
        {"variants": variants, "regions": {"off_end": off_end, "contig_names": contig_names}}
    )


def regions_of(*places: str) -> list[Region]:
    """From 'contig:start-end', with or without a strand after it."""
    regions = []
    for i, place in enumerate(places, 1):
        contig, _, rest = place.partition(":")
        strand = rest[-1] if rest[-1] in "+-." else "+"
        start, end = rest.rstrip("+-.").rsplit("-", 1)
        regions.append(Region(contig, int(start), int(end), strand, f"r{i}", "some.bed", i, {}))
    return regions


def read(
    path: Path,
    genome: Genome,
    *,
    regions: Sequence[Region] | None = None,
    targets: Sequence[str] = (),
    labels: str | None = None,
    **rules: Any,
) -> tuple[dict[str, Record], dict[str, str]]:
    """Records and reasons by name."""
    found = list(
        variant_records(
            path, genome, sample="s", rules=settings(**rules), targets=targets, regions=regions, labels=labels
        )
    )
    names = [found_one.name for found_one in found]
    assert len(set(names)) == len(names)
    good = {str(one.name): one for one in found if isinstance(one, Record)}
    return good, {one.name: one.reason for one in found if isinstance(one, BadRecord)}


def sequences(records: dict[str, Record]) -> dict[str, str]:
    return {name: record.sequence for name, record in records.items()}


# ----------------------------------------------------------------------- windows


@pytest.mark.parametrize("kind", KINDS)
def test_windows_of_every_kind_of_file(tmp_path: Path, genome: Genome, kind: str) -> None:
    """Substitution, deletion and insertion in plain, gzip, bgzip and BCF: the window is fixed, the sequence is not."""
    rows = ["chr1 6 rs1 G A,T 9.5 PASS", "chr1 6 . GC G", "chr1 6 . G GTT . q10;s50"]
    path = write_vcf(tmp_path / f"a{kind}", vcf_text(rows, contigs=["chr1"]))
    records, bad = read(path, genome)
    assert not bad
    # 0-based 5 is in the middle of 1-9: CGTT G CAA. REF of two letters moves it by one: GTTG CA AC with C removed.
    assert sequences(records) == {
        "chr1:6:G>A": "CGTTACAA",
        "chr1:6:G>T": "CGTTTCAA",
        "chr1:6:GC>G": "GTTGAAC",
        "chr1:6:G>GTT": "CGTTGTTCAA",
    }
    first_line = 1 if kind == ".bcf" else len(vcf_text([], contigs=["chr1"]).splitlines()) + 1
    assert [record.line for record in records.values()] == [first_line, first_line, first_line + 1, first_line + 2]
    assert [record.number for record in records.values()] == [1, 2, 3, 4]
    assert records["chr1:6:G>T"].fields == {
        "chromosome": "chr1", "start": "1", "end": "9", "strand": "+", "group": "chr1:6", "variant_start": "5",
        "ref": "G", "alt": "T", "allele": "alt", "variant_id": "rs1", "qual": "9.5", "filter": "PASS",
    }  # fmt: skip
    assert {record.fields["group"] for record in records.values()} == {"chr1:6"}
    assert records["chr1:6:GC>G"].fields["start"] == "2"
    assert records["chr1:6:G>GTT"].fields["filter"] == "q10;s50"
    assert (records["chr1:6:G>A"].file, records["chr1:6:G>A"].sample) == (str(path), "s")


def test_both_alleles(tmp_path: Path, genome: Genome) -> None:
    """With `both` every alternative allele has the reference beside it, in the same group."""
    path = write_vcf(tmp_path / "a.vcf", vcf_text(["chr1 6 . G A,T", "chr1 6 . G <DEL>"]))
    records, bad = read(path, genome, alleles="both")
    assert sequences(records) == {
        "chr1:6:G>A|ref": "CGTTGCAA",
        "chr1:6:G>A|alt": "CGTTACAA",
        "chr1:6:G>T|ref": "CGTTGCAA",
        "chr1:6:G>T|alt": "CGTTTCAA",
    }
    assert [record.fields["allele"] for record in records.values()] == ["ref", "alt"] * 2
    assert list(bad) == ["chr1:6:G><DEL>|ref", "chr1:6:G><DEL>|alt"]


def test_soft_masking_stays_where_it_is(tmp_path: Path, genome: Genome) -> None:
    """An allele takes the case of the letters that it replaces; REF may be in any case."""
    path = write_vcf(tmp_path / "a.vcf", vcf_text(["chr1 12 . T C", "chr1 6 . g aa", "chr1 10 . C T"]))
    records, bad = read(path, genome, window_bp=6)
    assert sequences(records) == {"chr1:12:T>C": "ACgcac", "chr1:6:g>aa": "GTTAACA", "chr1:10:C>T": "CAATgt"}
    assert not bad


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("chr1 6 . G *", r"the allele '\*' of a deletion"),
        ("chr1 6 . G <DEL>", "the symbolic allele '<DEL>'"),
        ("chr1 6 . G <NON_REF>", "the symbolic allele"),
        ("chr1 6 . G G]chr2:5]", "the breakend"),
        ("chr1 6 . G .", "no alternative allele"),
        ("chr1 6 . G R", "the allele 'R'"),
        ("chr1 6 . G GAAAA", "allele of 5 bp, allowed are 4"),
        ("chr1 5 . TGCAA T", "allele of 5 bp, allowed are 4"),
        ("chr1 6 . A G", "found REF 'A' where the genome has 'G' .chr1:6, toy.fa.*one assembly"),
        ("chr1 31 . AT A", "found position 31, allowed is within 1-31"),
        ("chr1 0 . A C", "found position 0"),
        ("chr1 99999999 . A C", "found position 99999999"),
        ("chr3 6 . G A", "found no contig 'chr3'.*is it 'chr"),
        ("1 6 . G A", "no contig '1', .* calls it 'chr1': set data.regions.contig_names: chr_prefix"),
        ("chr1 3 . G A", "interval chr1:-2-6, allowed is within 0-31.*data.regions.off_end: pad"),
        ("chr1 30 . C A", "interval chr1:25-33"),
        ("chr1 6 . G A . . y=1,2", r"found 2 values of INFO/y \(1.0,2.0\), allowed are 1 \(Number=A, 1 alternative"),
        ("chr1 6 . G A,C . . y=1", r"found 1 values of INFO/y \(1.0\), allowed are 2"),
    ],
)
def test_variants_that_cannot_be_used(tmp_path: Path, genome: Genome, row: str, expected: str) -> None:
    """Each is a bad record with its line and the reason; the variant after it is read all the same."""
    path = write_vcf(tmp_path / "a.vcf", text := vcf_text([row, "chr1 7 . C T . . y=3"]))
    found = list(
        variant_records(path, genome, sample="s", rules=settings(max_allele_bp=4), targets=["y"], regions=None)
    )
    first = found[0]
    assert isinstance(first, BadRecord)
    assert text.splitlines()[first.line - 1].startswith(row.replace(" ", "\t"))
    assert re.search(expected, first.reason), first.reason
    assert [one.name for one in found if isinstance(one, Record)] == ["chr1:7:C>T"]


def test_windows_off_the_contig_may_be_filled_up(tmp_path: Path, genome: Genome) -> None:
    """With `pad` what lies before and after the contig is N, and start and end say where the window would lie."""
    path = write_vcf(tmp_path / "a.vcf", vcf_text(["chr1 3 . G A", "chr1 30 . C T"]))
    records, bad = read(path, genome, off_end="pad")
    assert sequences(records) == {"chr1:3:G>A": "NNACATTG", "chr1:30:C>T": "ATTATANN"}
    assert [(one.fields["start"], one.fields["end"]) for one in records.values()] == [("-2", "6"), ("25", "33")]
    assert not bad


def test_a_reference_allele_must_fit_the_window(tmp_path: Path, genome: Genome) -> None:
    """A window shorter than REF is refused; one of its length is all REF."""
    path = write_vcf(tmp_path / "a.vcf", vcf_text(["chr1 5 . TGCA T"]))
    assert sequences(read(path, genome, window_bp=4)[0]) == {"chr1:5:TGCA>T": "T"}
    assert "REF of 4 bp, allowed is what fits 3 bp" in read(path, genome, window_bp=3)[1]["chr1:5:TGCA>T"]


def test_names_with_and_without_chr(tmp_path: Path, genome: Genome) -> None:
    """By `chr_prefix` contig 1 is chr1: the name keeps the file's spelling, the column has the genome's."""
    path = write_vcf(tmp_path / "a.vcf", vcf_text(["1 6 . G A"]))
    records, bad = read(path, genome, contig_names="chr_prefix")
    assert records["1:6:G>A"].fields["chromosome"] == "chr1"
    assert not bad


def test_targets_from_info(tmp_path: Path, genome: Genome) -> None:
    """One value per alternative allele, per allele, for all; flags are 1 or 0; what is missing is empty."""
    rows = [
        "chr1 6 . G A,T . . y=0.1,-2;all=1,2,3;one=7;any=a,b;hit;REF_y=0.25",
        "chr1 7 . C T . . y=3e-05;any=x",
        "chr1 8 . A G . . any=r,s",
    ]
    targets = ["y", "all", "one", "any", "hit"]
    path = write_vcf(tmp_path / "a.vcf", vcf_text(rows))
    records, bad = read(path, genome, targets=targets, alleles="both")
    values = {name: tuple(record.fields[target] for target in targets) for name, record in records.items()}
    assert values == {
        "chr1:6:G>A|ref": ("0.25", "1.0", "", "", ""),
        "chr1:6:G>A|alt": ("0.1", "2.0", "7", "a", "1"),
        "chr1:6:G>T|ref": ("0.25", "1.0", "", "", ""),
        "chr1:6:G>T|alt": ("-2.0", "3.0", "7", "b", "1"),
        "chr1:7:C>T|ref": ("", "", "", "", ""),
        "chr1:7:C>T|alt": ("3e-05", "", "", "x", "0"),
        "chr1:8:A>G|ref": ("", "", "", "r", ""),
        "chr1:8:A>G|alt": ("", "", "", "s", "0"),
    }
    assert not bad
    given, _ = read(path, genome, targets=["y"], alleles="both", reference_value=0.5)
    assert [record.fields["y"] for record in given.values()] == ["0.5", "0.1", "0.5", "-2.0", "0.5", "3e-05", "0.5", ""]


def test_targets_from_elsewhere(tmp_path: Path, genome: Genome) -> None:
    """With `labels` INFO is left alone, and every record names the label table."""
    path = write_vcf(tmp_path / "a.vcf", vcf_text(["chr1 6 . G A . . y=1"]))
    records, _ = read(path, genome, targets=["y", "unheard_of"], target_from="labels", labels="labels.tsv")
    assert "y" not in records["chr1:6:G>A"].fields
    assert records["chr1:6:G>A"].labels == "labels.tsv"


def test_targets_that_cannot_be_taken(tmp_path: Path, genome: Genome) -> None:
    """A field that the header does not declare, and a target called like one of our columns, are refused."""
    path = write_vcf(tmp_path / "a.vcf", vcf_text(["chr1 6 . G A . . y=1"]))
    with pytest.raises(DataError, match="a.vcf: the header declares no INFO field 'hits', found .*did you mean 'hit'"):
        read(path, genome, targets=["hits"])
    with pytest.raises(ConfigError, match="task.targets: found 'qual'"):
        read(path, genome, targets=["qual"])
    with pytest.raises(ConfigError, match="task.targets: found 'haplotype'"):
        read(path, genome, targets=["haplotype"], regions=[])


# -------------------------------------------------------------------- haplotypes


def haplotypes(
    path: Path, genome: Genome, places: Iterable[str], **rules: Any
) -> tuple[dict[str, str], dict[str, str]]:
    records, bad = read(path, genome, regions=regions_of(*places), **rules)
    return sequences(records), bad


@pytest.mark.parametrize("kind", KINDS)
def test_haplotypes_of_every_kind_of_file(tmp_path: Path, genome: Genome, kind: str) -> None:
    """Two sequences per region and sample, with all variants of that haplotype, on the strand of the region."""
    rows = [
        "chr1 6 . G A,T . . . GT 0|1 2|1",
        "chr1 8 . AA A . . . GT 0|1 1|0",
        "chr1 20 . C CGG . . . GT 1/1 0|0",
        "chr2 4 . G T . . . GT 0|0 1|1",
    ]
    path = write_vcf(tmp_path / f"a{kind}", vcf_text(rows, samples=["ann", "bob"], contigs=["chr1", "chr2"]))
    records, bad = read(path, genome, regions=regions_of("chr1:2-10", "chr1:17-24-", "chr2:0-3"))
    assert not bad
    assert sequences(records) == {
        "r1|ann|h1": "GTTGCAAC",
        "r1|ann|h2": "GTTACAC",
        "r1|bob|h1": "GTTTCAC",
        "r1|bob|h2": "GTTACAAC",
        # ACCGTAG with two G put in after its third letter, the other strand.
        "r2|ann|h1": "CTACCCGGT",
        "r2|ann|h2": "CTACCCGGT",
        "r2|bob|h1": "CTACGGT",
        "r2|bob|h2": "CTACGGT",
        "r3|ann|h1": "GGG",
        "r3|ann|h2": "GGG",
        "r3|bob|h1": "GGG",
        "r3|bob|h2": "GGG",
    }
    assert records["r2|bob|h2"].fields == {
        "chromosome": "chr1", "start": "17", "end": "24", "strand": "-", "group": "r2", "individual": "bob",
        "haplotype": "2", "n_variants": "0",
    }  # fmt: skip
    assert records["r1|ann|h2"].fields["n_variants"] == "2"
    assert (records["r2|bob|h1"].file, records["r2|bob|h1"].line) == ("some.bed", 2)


def test_fields_of_the_region_and_labels_are_passed_on(tmp_path: Path, genome: Genome) -> None:
    """What the annotation says of a region comes with each of its haplotypes; so does the label table."""
    path = write_vcf(tmp_path / "a.vcf", vcf_text(["chr1 6 . G A . . . GT 0|1"], samples=["ann"]))
    region = regions_of("chr1:2-10")[0]._replace(fields={"y": "3", "score": "9"})
    records, _ = read(path, genome, regions=[region], targets=["y"], labels="labels.tsv")
    for record in records.values():
        assert (record.fields["y"], record.fields["score"], record.labels) == ("3", "9", "labels.tsv")


@pytest.mark.parametrize(
    ("calls", "rules", "expected"),
    [
        ("GT 1|0", {}, ["GTTACAAC", "GTTGCAAC"]),
        ("GT 1", {}, ["GTTACAAC"]),
        ("GT 1/1", {}, ["GTTACAAC", "GTTACAAC"]),
        ("GT 0|1|1", {}, ["GTTGCAAC", "GTTACAAC", "GTTACAAC"]),
        ("GT 0/1", {}, ["heterozygous genotype without phase at chr1:6"] * 2),
        ("GT 0/1", {"unphased": "reference"}, ["GTTGCAAC", "GTTGCAAC"]),
        ("GT .|1", {}, ["no genotype at chr1:6", "GTTACAAC"]),
        ("GT ./1", {"unphased": "reference"}, ["no complete genotype at chr1:6"] * 2),
        ("GT ./.", {}, ["no genotype at chr1:6"] * 2),
        ("GT .", {}, ["no genotype at chr1:6"]),
        ("PS 5", {}, ["no genotype at chr1:6"] * 2),
    ],
)
def test_genotypes(tmp_path: Path, genome: Genome, calls: str, rules: Any, expected: list[str]) -> None:
    """Each haplotype of a genotype is a sequence, or a bad record that says why."""
    path = write_vcf(tmp_path / "a.vcf", vcf_text([f"chr1 6 . G A . . . {calls}"], samples=["ann"]))
    good, bad = haplotypes(path, genome, ["chr1:2-10"], **rules)
    found = {**good, **bad}
    assert sorted(found) == [f"r1|ann|h{i}" for i in range(1, len(expected) + 1)]
    for name, words in zip(sorted(found), expected, strict=True):
        assert words in found[name]
        assert (name in good) == words.isupper()


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (("5", "5"), ["GTTACAAC", "GTTGCGAC"]),
        ((".", "."), ["GTTACAAC", "GTTGCGAC"]),
        (("5", "8"), ["another phase set than its neighbours at chr1:6"] * 2),
        (("5", "."), ["another phase set than its neighbours at chr1:6"] * 2),
    ],
)
def test_phase_sets(tmp_path: Path, genome: Genome, sets: tuple[str, str], expected: list[str]) -> None:
    """Phase holds within one set; across two of them which alleles lie together is not known."""
    rows = [f"chr1 6 . G A . . . GT:PS 1|0:{sets[0]}", f"chr1 8 . A G . . . GT:PS 0|1:{sets[1]}"]
    path = write_vcf(tmp_path / "a.vcf", vcf_text(rows, samples=["ann"]))
    good, bad = haplotypes(path, genome, ["chr1:2-10"])
    for name, words in zip(["r1|ann|h1", "r1|ann|h2"], expected, strict=True):
        assert words in {**good, **bad}[name]
    # Alone in a region either is phased.
    assert not haplotypes(path, genome, ["chr1:2-7", "chr1:7-10"])[1]
    assert sequences_as_reference(path, genome) == (["GTTGCAAC"] * 2 if len(set(sets)) > 1 else expected)


def sequences_as_reference(path: Path, genome: Genome) -> list[str]:
    return list(haplotypes(path, genome, ["chr1:2-10"], unphased="reference")[0].values())


def test_homozygous_sites_belong_to_every_phase_set(tmp_path: Path, genome: Genome) -> None:
    """Only heterozygous sites have a phase that sets could part."""
    rows = ["chr1 6 . G A . . . GT:PS 1|0:5", "chr1 8 . A G . . . GT:PS 1|1:8"]
    path = write_vcf(tmp_path / "a.vcf", vcf_text(rows, samples=["ann"]))
    assert list(haplotypes(path, genome, ["chr1:2-10"])[0].values()) == ["GTTACGAC", "GTTGCGAC"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["chr1 6 . GC G", "chr1 7 . C T"], "edits that overlap"),
        (["chr1 6 . G GA", "chr1 6 . G GT"], "edits that overlap"),
        (["chr1 6 . G A", "chr1 6 . G A"], "edits that overlap"),
        (["chr1 6 . G <DEL>"], "symbolic allele '<DEL>'.* at chr1:6"),
        (["chr1 1 . A <DEL> . . END=4"], "symbolic allele '<DEL>'.* at chr1:1"),
        (["chr1 6 . G GAAAAA"], "allele of 6 bp, allowed are 5 .* at chr1:6"),
        (["chr1 9 . ACg A"], "reaches over the border of the region at chr1:9"),
        (["chr1 2 . CG C", "chr1 1 . ACG A"], "reaches over the border of the region at chr1:1"),
        (["chr1 2 . CGTTGCAACg C"], "allele of 10 bp"),
        (["chr1 6 . C A"], "found REF 'C' where the genome has 'G'"),
    ],
)
def test_haplotypes_that_cannot_be_made(tmp_path: Path, genome: Genome, rows: list[str], expected: str) -> None:
    """Alleles that have no one result spoil the haplotype that carries them; the other is fine, but for a wrong REF."""
    text = vcf_text([f"{' '.join((row.split(' ') + ['.'] * 8)[:8])} GT 0|1" for row in rows], samples=["ann"])
    good, bad = haplotypes(write_vcf(tmp_path / "a.vcf", text), genome, ["chr1:2-10"], max_allele_bp=5)
    assert re.search(f"{expected}.*haplotypes of a.vcf", bad["r1|ann|h2"])
    assert good == ({} if "REF" in expected else {"r1|ann|h1": "GTTGCAAC"})


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("chr1 10 . Cg C", "GTTGCAAC"),  # deletes 10, the first base after the region
        ("chr1 10 . C CTT", "GTTGCAAC"),  # put in exactly at the end
        ("chr1 2 . C CTT", "GTTGCAAC"),  # put in exactly at the beginning
        ("chr1 2 . CG C", "TTGCAAC"),  # deletes 2, the first base
        ("chr1 9 . AC A", "GTTGCAA"),  # deletes 9, the last base
        ("chr1 3 . G GA", "GATTGCAAC"),
        ("chr1 2 . CG CA", "ATTGCAAC"),
        ("chr1 6 . G *", "GTTGCAAC"),
        ("chr1 6 . G G", "GTTGCAAC"),
        ("chr2 3 . G A", "GTTGCAAC"),
    ],
)
def test_borders_of_a_region(tmp_path: Path, genome: Genome, row: str, expected: str) -> None:
    """What counts is which bases of the region change, not where REF begins."""
    path = write_vcf(tmp_path / "a.vcf", vcf_text([f"{row} . . . GT 1|1"], samples=["ann"]))
    good, bad = haplotypes(path, genome, ["chr1:2-10"])
    assert good == {"r1|ann|h1": expected, "r1|ann|h2": expected}
    assert not bad


def test_a_missing_genotype_beyond_the_border_is_none_of_the_region(tmp_path: Path, genome: Genome) -> None:
    """Only the letter before the deletion lies in the region, and that one stays."""
    path = write_vcf(tmp_path / "a.vcf", vcf_text(["chr1 10 . Cg C . . . GT ./."], samples=["ann"]))
    assert haplotypes(path, genome, ["chr1:2-10"]) == ({"r1|ann|h1": "GTTGCAAC", "r1|ann|h2": "GTTGCAAC"}, {})
    assert not haplotypes(path, genome, ["chr1:2-11"])[0]


def test_a_deletion_of_the_whole_region(tmp_path: Path, genome: Genome) -> None:
    """Nothing is no sequence."""
    path = write_vcf(tmp_path / "a.vcf", vcf_text(["chr1 2 . CGT C . . . GT 0|1"], samples=["ann"]))
    good, bad = haplotypes(path, genome, ["chr1:2-4"])
    assert good == {"r1|ann|h1": "GT"}
    assert "deletion of the whole region" in bad["r1|ann|h2"]


def test_regions_that_cannot_be_cut(tmp_path: Path, genome: Genome) -> None:
    """Unknown contigs and, by `reject`, regions off the contig give a bad record for each haplotype; `pad` fills up."""
    path = write_vcf(tmp_path / "a.vcf", vcf_text(["chr1 30 . C T . . . GT 0|1"], samples=["ann"]))
    places = ["chr9:2-10", "chr1:28-33"]
    good, bad = haplotypes(path, genome, places)
    assert not good
    assert [name for name in bad] == ["r1|ann|h1", "r1|ann|h2", "r2|ann|h1", "r2|ann|h2"]
    assert "no contig 'chr9'" in bad["r1|ann|h1"] and "data.regions.off_end: pad" in bad["r2|ann|h1"]
    assert haplotypes(path, genome, places, off_end="pad")[0] == {"r2|ann|h1": "ACANN", "r2|ann|h2": "ATANN"}


def test_mixed_ploidy(tmp_path: Path, genome: Genome) -> None:
    """One and two alleles in one region do not fit together; other regions of the sample are fine."""
    rows = ["chr1 6 . G A . . . GT 0|1", "chr1 8 . A G . . . GT 1"]
    path = write_vcf(tmp_path / "a.vcf", vcf_text(rows, samples=["ann"]))
    good, bad = haplotypes(path, genome, ["chr1:2-10", "chr1:2-7", "chr1:7-9"])
    assert all("genotypes of 1 and 2 alleles in one region" in reason for reason in bad.values())
    assert list(bad) == ["r1|ann|h1", "r1|ann|h2"]
    assert good == {"r2|ann|h1": "GTTGC", "r2|ann|h2": "GTTAC", "r3|ann|h1": "GA"}


def test_contigs_that_are_called_otherwise_are_noticed(tmp_path: Path, genome: Genome) -> None:
    """Variants on '1' for regions on 'chr1' would silently be left out: an error, unless names are matched by rule."""
    for kind in (".vcf", ".vcf.bgz"):
        text = vcf_text(["1 6 . G A . . . GT 0|1", "chr2 3 . G A . . . GT 0|1"], samples=["ann"], contigs=["1", "chr2"])
        path = write_vcf(tmp_path / f"a{kind}", text)
        with pytest.raises(DataError, match="its variants lie on no contig.*no contig '1', .* calls it 'chr1'"):
            haplotypes(path, genome, ["chr1:2-10"])
        good, _ = haplotypes(path, genome, ["chr1:2-10"], contig_names="chr_prefix")
        assert good == {"r1|ann|h1": "GTTGCAAC", "r1|ann|h2": "GTTACAAC"}
        assert len(haplotypes(path, genome, ["chr2:2-10"])[0]) == 2, "no region lies there"
    nowhere = write_vcf(tmp_path / "b.vcf", vcf_text(["NC_1 6 . G A . . . GT 0|1"], samples=["ann"]))
    with pytest.raises(DataError, match="no contig 'NC_1'"):
        haplotypes(nowhere, genome, ["chr1:2-10"])


def test_haplotypes_need_samples(tmp_path: Path, genome: Genome) -> None:
    """A file of sites only has no haplotypes."""
    path = write_vcf(tmp_path / "a.vcf", vcf_text(["chr1 6 . G A"]))
    with pytest.raises(DataError, match="a.vcf: found no samples, expected genotypes"):
        haplotypes(path, genome, ["chr1:2-10"])


@pytest.mark.parametrize("most_lookups", [0, 100])
def test_an_index_changes_nothing(
    tmp_path: Path, genome: Genome, monkeypatch: pytest.MonkeyPatch, most_lookups: int
) -> None:
    """Looked up near each region or read through, each variant is applied once to every region that it lies in."""
    monkeypatch.setattr("bioattn.io.haplotypes._GAP", 0)
    monkeypatch.setattr("bioattn.io.haplotypes._MOST_LOOKUPS", most_lookups)
    rows = ["chr1 6 . GCAAC G . . . GT 0|1", "chr1 13 . a T . . . GT 1|1", "chr1 19 . C T . . . GT 1|0"]
    path = write_vcf(tmp_path / "a.vcf.bgz", vcf_text(rows, samples=["ann"], contigs=["chr1"]))
    good, bad = haplotypes(path, genome, ["chr1:12-20", "chr1:2-6", "chr1:8-9", "chr1:3-14", "chr1:11-13"])
    assert good == {
        "r1|ann|h1": "tcGTNATC",
        "r1|ann|h2": "tcGTNACC",
        "r2|ann|h1": "GTTG",
        "r2|ann|h2": "GTTG",
        "r3|ann|h1": "A",
        "r4|ann|h1": "TTGCAACgttc",
        "r4|ann|h2": "TTGgttc",
        "r5|ann|h1": "tt",
        "r5|ann|h2": "tt",
    }
    assert list(bad) == ["r3|ann|h2"]


def test_a_variant_that_two_look_ups_find_counts_once(
    tmp_path: Path, genome: Genome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REF spans two regions that are looked up apart; the letter that changes lies in the second."""
    monkeypatch.setattr("bioattn.io.haplotypes._GAP", 0)
    text = vcf_text(["chr1 6 . GCAAC GCATC . . . GT 0|1"], samples=["ann"], contigs=["chr1"])
    good, bad = haplotypes(write_vcf(tmp_path / "a.vcf.bgz", text), genome, ["chr1:2-6", "chr1:7-10"])
    assert good == {"r1|ann|h1": "GTTG", "r1|ann|h2": "GTTG", "r2|ann|h1": "AAC", "r2|ann|h2": "ATC"}
    assert not bad


def test_an_index_older_than_the_file_is_not_used(tmp_path: Path, genome: Genome) -> None:
    """A stale index could point anywhere: the file is read through."""
    path = write_vcf(
        tmp_path / "a.vcf.bgz", vcf_text(["chr2 6 . C A . . . GT 0|1"], samples=["ann"], contigs=["chr1", "chr2"])
    )
    index = Path(f"{path}.tbi").read_bytes()
    write_vcf(path, vcf_text(["chr1 6 . G A . . . GT 0|1"], samples=["ann"], contigs=["chr1", "chr2"]))
    Path(f"{path}.tbi").write_bytes(index)
    os.utime(f"{path}.tbi", (1, 1))
    assert haplotypes(path, genome, ["chr1:2-10"])[0] == {"r1|ann|h1": "GTTGCAAC", "r1|ann|h2": "GTTACAAC"}


# -------------------------------------------------------------------------- files


def test_records_stream(tmp_path: Path, genome: Genome) -> None:
    """Windows come before the rest of the file is read: a bad line further down shows only when reached."""
    path = write_vcf(tmp_path / "a.vcf", vcf_text(["chr1 6 . G A", "chr1 x . C T"]))
    found = variant_records(path, genome, sample="s", rules=settings(), targets=())
    assert next(found).name == "chr1:6:G>A"
    with pytest.raises(DataError, match=rf"a.vcf line {FIRST + 1}: not a variant .*found 'chr1\\tx"):
        next(found)


def test_a_file_without_variants_has_no_windows(tmp_path: Path, genome: Genome) -> None:
    """A header alone is no error: there are just no records."""
    assert read(write_vcf(tmp_path / "a.vcf", vcf_text([])), genome) == ({}, {})


BAD_FILES = {
    "empty": (b"", "a.vcf: cannot be read.*expected VCF"),
    "FASTA": (b">chr1\nACGT\n", "a.vcf: cannot be read.*expected VCF"),
    "no header": (b"chr1\t6\t.\tG\tA\t.\t.\t.\n", "a.vcf: cannot be read.*##fileformat=VCF"),
    "zip": (b"PK\3\4" + bytes(50), "a.vcf: cannot be read.*expected VCF"),
    "few columns": (f"{HEAD}chr1\t6\t.\n".encode(), rf"a.vcf line {FIRST}: .*found 'chr1\\t6\\t.' \(3 columns\)"),
    "words": (f"{HEAD}hello\n".encode(), rf"a.vcf line {FIRST}: .*found 'hello' \(1 columns\)"),
    "blank line": (f"{HEAD}\nchr1\t6\t.\tG\tA\t.\t.\t.\n".encode(), f"a.vcf line {FIRST}: "),
    "not UTF-8": (
        f"{HEAD}chr1\t6\t.\tG\tA\t.\t.\t.\n".encode() + b"chr1\t6\t\xff\tG\tA\t.\t.\t.\n",
        f"a.vcf line {FIRST + 1}",
    ),
    "cut gzip": (gzip.compress(HEAD.encode(), mtime=0)[:-20], "a.vcf line .*truncated"),
}


@pytest.mark.parametrize(("data", "expected"), BAD_FILES.values(), ids=BAD_FILES)
def test_files_that_are_no_vcf(
    tmp_path: Path, genome: Genome, capfd: pytest.CaptureFixture[str], data: bytes, expected: str
) -> None:
    """The error names the file and, where there is one, the line; nothing goes to stderr."""
    path = tmp_path / "a.vcf"
    path.write_bytes(data)
    with pytest.raises(DataError, match=expected):
        read(path, genome)
    assert capfd.readouterr().err == ""


def test_a_file_that_is_not_there(tmp_path: Path, genome: Genome) -> None:
    """Missing is not empty."""
    with pytest.raises(DataError, match="a.vcf: no such file"):
        read(tmp_path / "a.vcf", genome)


@pytest.mark.parametrize("kind", [".vcf.gz", ".vcf.bgz", ".bcf"])
def test_cut_files_never_pass_for_whole_ones(tmp_path: Path, genome: Genome, kind: str) -> None:
    """A packed file that ends too early raises wherever it was cut."""
    rows = [f"chr1 {6 + i // 2} id{i * 7919 % 1000} {CHR1[5 + i // 2].upper()} <DEL>" for i in range(40)]
    whole = write_vcf(tmp_path / f"a{kind}", vcf_text(rows, contigs=["chr1"])).read_bytes()
    path = tmp_path / f"cut{kind}"
    for keep in range(20, len(whole), 23):
        path.write_bytes(whole[:keep])
        with pytest.raises(DataError, match="cut"):
            read_all(path, genome)


def read_all(path: Path, genome: Genome) -> list[Record | BadRecord]:
    return list(variant_records(path, genome, sample="s", rules=settings(), targets=()))


def test_verbosity_of_htslib_is_restored(tmp_path: Path, genome: Genome) -> None:
    """Messages are silenced while a record is read, not while the caller works on it."""
    path = write_vcf(tmp_path / "a.vcf", vcf_text(["chr1 6 . G A", "chr1 7 . C T"]))
    before = pysam.set_verbosity(2)
    try:
        for _ in variant_records(path, genome, sample="s", rules=settings(), targets=()):
            assert pysam.get_verbosity() == 2
        assert pysam.get_verbosity() == 2
    finally:
        pysam.set_verbosity(before)


# --------------------------------------------------------------------- real data


@pytest.fixture(scope="module")
def mutagenesis(shared_data: Callable[[str], Path]) -> pd.DataFrame:
    """Measured single-base changes of 15 promoter libraries, each base in several rows."""
    folder = shared_data("dna/kircher2019_satmut")
    promoters = (folder / "promoters.tsv").read_text().split()
    table = pd.read_csv(folder / "elements.tsv.gz", sep="\t", dtype={"Chrom": str}).dropna(subset="Pos")
    table["Pos"] = table["Pos"].astype(int)
    kept = table["Release"].eq("GRCh38") & table["Element"].isin(promoters) & table["Barcodes"].ge(10)
    return table[kept].reset_index(drop=True)


def test_saturation_mutagenesis(tmp_path: Path, mutagenesis: pd.DataFrame) -> None:
    """Every sequence is its element with the one change that was measured, and its target the measured effect."""
    elements: dict[str, tuple[int, str]] = {}
    for name, rows in mutagenesis.groupby("Element"):
        first, last = rows["Pos"].min(), rows["Pos"].max()
        letters = dict(zip(rows["Pos"], rows["Ref"], strict=True))
        elements[str(name)] = (first, "".join(letters.get(place, "N") for place in range(first, last + 1)))
    (tmp_path / "genome.fa").write_text("".join(f">{name}\n{letters}\n" for name, (_, letters) in elements.items()))
    rows, expected = [], {}
    for row in mutagenesis.itertuples():
        first, letters = elements[row.Element]
        place = row.Pos - first
        if row.Alt == "-":  # a deletion is written with the base before it
            if place == 0 or letters[place - 1] == "N":
                continue
            ref, alt, place = letters[place - 1 : place + 1], letters[place - 1], place - 1
        else:
            ref, alt = row.Ref, row.Alt
        rows.append(f"{row.Element} {place + 1} . {ref} {alt} . . y={row.Coefficient!r}")
        mutated = letters[:place] + alt + letters[place + len(ref) :]
        expected[f"{row.Element}:{place + 1}:{ref}>{alt}"] = (mutated, np.float32(row.Coefficient))
    assert len(expected) == len(rows) > 16_000
    path = write_vcf(tmp_path / "measured.vcf", vcf_text(rows, contigs=elements))
    longest = 2 * max(len(letters) for _, letters in elements.values())
    genome = Genome(tmp_path / "genome.fa")
    records, bad = read(path, genome, targets=["y"], window_bp=longest, off_end="pad")
    assert not bad and set(records) == set(expected)
    for name, record in records.items():
        letters, effect = expected[name]
        # The window is longer than the element on both sides of the variant: what is not the element is N.
        before = max(-int(record.fields["start"]), 0)
        assert record.sequence[before : before + len(letters)] == letters
        assert set(record.sequence[:before] + record.sequence[before + len(letters) :]) <= {"N"}
        assert np.float32(record.fields["y"]) == effect
