"""Whatever a VCF holds: every allele becomes a record or a bad record, every sequence that of a slow loop."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_vcf import vcf_text, write_vcf

from bioattn.config import DataConfig
from bioattn.data.regions import Region
from bioattn.data.sequences import BadRecord, Record
from bioattn.errors import BioattnError
from bioattn.io.genome import Genome
from bioattn.io.variants import variant_records

CONTIGS = {"chr1": "ACGTTGCAAGGATACAGTNACCGTAGGATTACATTTACGGACCA", "chr2": "GGCATTAGCCACAGT"}
SAMPLES = ["ann", "bob"]
REGIONS = [
    Region("chr1", 3, 21, "+", "a", "some.bed", 1, {}),
    Region("chr1", 12, 40, "-", "b", "some.bed", 2, {}),
    Region("chr2", 0, 15, ".", "c", "some.bed", 3, {}),
]
WINDOW = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("variants")


@pytest.fixture(scope="module")
def genome(folder: Path) -> Genome:
    path = folder / "toy.fa"
    path.write_text("".join(f">{name}\n{letters}\n" for name, letters in CONTIGS.items()))
    return Genome(path)


def read(
    path: Path,
    genome: Genome,
    *,
    regions: Sequence[Region] | None = None,
    targets: Sequence[str] = (),
    **variants: object,
) -> list[Record | BadRecord]:
    rules = DataConfig.model_validate({"variants": {"window_bp": WINDOW, **variants}})
    return list(variant_records(path, genome, sample="s", rules=rules, targets=targets, regions=regions))


class Variant(NamedTuple):
    contig: str
    start: int
    ref: str
    alts: tuple[str, ...]


LETTERS = st.text(alphabet="ACGT", min_size=1, max_size=4)


@st.composite
def true_variants(draw: st.DrawFn) -> Variant:
    """One whose REF is in the genome."""
    contig = draw(st.sampled_from(sorted(CONTIGS)))
    start = draw(st.integers(0, len(CONTIGS[contig]) - 1))
    length = draw(st.integers(1, min(4, len(CONTIGS[contig]) - start)))
    ref = CONTIGS[contig][start : start + length]
    alts = draw(st.lists(LETTERS.filter(lambda alt: alt != ref), min_size=1, max_size=3, unique=True))
    return Variant(contig, start, ref, tuple(alts))


ODD_ALLELES = st.one_of(
    LETTERS,
    st.sampled_from(["*", "<DEL>", "<INS:ME>", "<*>", "G]chr2:5]", "[chr1:2[T", ".", "N", "acg", "R", "T" * 60]),
    st.text(alphabet="ACGTNacgtn<>*[].RY:2", min_size=1, max_size=6),
)
ODD_ROWS = st.builds(
    lambda contig, place, ref, alts, info: f"{contig} {place} . {ref} {','.join(alts)} . . {info}",
    st.sampled_from(["chr1", "chr2", "chr3", "1", "chrM"]),
    st.sampled_from([0, 1, 2, 3, 7, 20, 38, 41, 44, 45, 46, 2**31 - 2]),
    st.one_of(LETTERS, st.sampled_from(["N", "R", "acgt", "A" * 70])),
    st.lists(ODD_ALLELES, min_size=1, max_size=3),
    st.sampled_from(
        [".", "y=1", "y=1,2", "y=.", "hit", "y=nan;hit", "one=4;any=a,b,c", "END=30", "END=1", "new=5", "y"]
    ),
)


@given(rows=st.lists(ODD_ROWS, max_size=7), both=st.booleans(), kind=st.sampled_from([".vcf", ".vcf.gz"]))
@settings(max_examples=150, deadline=None)
def test_every_allele_is_a_record_or_a_bad_record(
    folder: Path, genome: Genome, rows: list[str], both: bool, kind: str
) -> None:
    """Odd positions, letters, alleles and values raise nothing, and none is lost or counted twice."""
    path = write_vcf(folder / f"odd{kind}", vcf_text(rows))
    found = read(path, genome, targets=["y", "hit", "one", "any"], alleles="both" if both else "alternative")
    n_alleles = sum(len(row.split(" ")[4].split(",")) for row in rows)
    assert len(found) == n_alleles * (2 if both else 1)
    for one in found:
        assert one.file == str(path)
        if isinstance(one, Record):
            assert set(one.sequence) <= set("ACGTN") and len(one.sequence) > 0
        else:
            assert one.reason


@given(found=st.lists(true_variants(), max_size=7))
@settings(max_examples=150, deadline=None)
def test_windows_are_those_of_a_loop(folder: Path, genome: Genome, found: list[Variant]) -> None:
    """Each window is cut letter by letter, and undoing its change gives the reference window back."""
    rows = [f"{one.contig} {one.start + 1} . {one.ref} {','.join(one.alts)}" for one in found]
    records = read(write_vcf(folder / "true.vcf", vcf_text(rows)), genome)
    expected: list[tuple[str, str] | None] = []
    for one in found:
        start = one.start + len(one.ref) // 2 - WINDOW // 2
        for alt in one.alts:
            letters = ""
            for place in range(start, start + WINDOW):
                if place == one.start:
                    letters += alt
                if not one.start <= place < one.start + len(one.ref):
                    letters += CONTIGS[one.contig][place] if 0 <= place < len(CONTIGS[one.contig]) else "!"
            name = f"{one.contig}:{one.start + 1}:{one.ref}>{alt}"
            expected.append(None if "!" in letters else (name, letters))
    assert [(r.name, r.sequence) if isinstance(r, Record) else None for r in records] == expected
    for record in records:
        if isinstance(record, Record):
            place = int(record.fields["variant_start"]) - int(record.fields["start"])
            ref, alt = record.fields["ref"], record.fields["alt"]
            assert record.sequence[place : place + len(alt)] == alt
            undone = record.sequence[:place] + ref + record.sequence[place + len(alt) :]
            start, end = int(record.fields["start"]), int(record.fields["end"])
            assert undone == CONTIGS[record.fields["chromosome"]][start:end]


class Genotyped(NamedTuple):
    variant: Variant
    #: Allele index of each haplotype of each sample.
    alleles: tuple[tuple[int, int], ...]


@st.composite
def genotyped(draw: st.DrawFn) -> list[Genotyped]:
    """Phased genotypes of variants that lie apart from each other, by place."""
    chosen: dict[str, list[Genotyped]] = {name: [] for name in CONTIGS}
    for variant in sorted(draw(st.lists(true_variants(), max_size=6))):
        before = chosen[variant.contig]
        if not before or before[-1].variant.start + len(before[-1].variant.ref) < variant.start:
            index = st.integers(0, len(variant.alts))
            before.append(Genotyped(variant, tuple(draw(st.tuples(index, index)) for _ in SAMPLES)))
    return [one for ones in chosen.values() for one in ones]


def slow_haplotype(region: Region, sites: Sequence[Genotyped], sample: int, haplotype: int) -> str | None:
    """The haplotype letter by letter; None if an allele that it carries reaches over the border of the region."""
    letters = [CONTIGS[region.contig][place] for place in range(region.start, region.end)]
    put_in = [""] * (len(letters) + 1)
    for site in sites:
        variant = site.variant
        allele = site.alleles[sample][haplotype]
        if variant.contig != region.contig or not allele:
            continue
        ref, alt, start = variant.ref, variant.alts[allele - 1], variant.start
        while ref and alt and ref[-1] == alt[-1]:
            ref, alt = ref[:-1], alt[:-1]
        while ref and alt and ref[0] == alt[0]:
            ref, alt, start = ref[1:], alt[1:], start + 1
        changed = [place for place in range(start, start + len(ref)) if region.start <= place < region.end]
        inside = region.start < start < region.end
        if not changed and not (not ref and inside):
            continue
        if len(changed) < len(ref):
            return None
        put_in[start - region.start] += alt
        for place in changed:
            letters[place - region.start] = ""
    text = "".join(new + old for new, old in zip(put_in, [*letters, ""], strict=True))
    if region.strand == "-":
        text = "".join({"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}[letter] for letter in reversed(text))
    return text or None


@given(sites=genotyped(), kind=st.sampled_from([".vcf", ".vcf.bgz"]))
@settings(max_examples=100, deadline=None)
def test_haplotypes_are_those_of_a_loop(folder: Path, genome: Genome, sites: list[Genotyped], kind: str) -> None:
    """Every region and sample gives two haplotypes, letter for letter, from plain VCF and by look-ups in an index."""
    rows = []
    for site in sites:
        calls = " ".join("|".join(map(str, alleles)) for alleles in site.alleles)
        variant = site.variant
        rows.append(f"{variant.contig} {variant.start + 1} . {variant.ref} {','.join(variant.alts)} . . . GT {calls}")
    path = write_vcf(folder / f"phased{kind}", vcf_text(rows, samples=SAMPLES, contigs=CONTIGS))
    found = {one.name: one.sequence if isinstance(one, Record) else None for one in read(path, genome, regions=REGIONS)}
    expected = {
        f"{region.name}|{name}|h{haplotype + 1}": slow_haplotype(region, sites, sample, haplotype)
        for region in REGIONS
        for sample, name in enumerate(SAMPLES)
        for haplotype in (0, 1)
    }
    assert found == expected


CALLS = st.sampled_from(["0|1", "1/1", "0/1", "./.", ".|1", ".", "1", "0|1|1", "2|1", "0/0", "|", "1|"])


@given(
    rows=st.lists(st.tuples(true_variants(), st.tuples(CALLS, CALLS), st.sampled_from(["5", "7", "."])), max_size=6),
    keep=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_every_haplotype_is_a_record_or_a_bad_record(
    folder: Path, genome: Genome, rows: list[tuple[Variant, tuple[str, str], str]], keep: bool
) -> None:
    """Any genotypes raise nothing but our errors; each region and sample has haplotypes 1, 2, ... once each."""
    lines = []
    for variant, calls, phase_set in rows:
        genotypes = " ".join(f"{call}:{phase_set}" for call in calls)
        lines.append(
            f"{variant.contig} {variant.start + 1} . {variant.ref} {','.join(variant.alts)} . . . GT:PS {genotypes}"
        )
    path = write_vcf(folder / "calls.vcf", vcf_text(lines, samples=SAMPLES))
    try:
        found = read(path, genome, regions=REGIONS, unphased="reference" if keep else "reject")
    except BioattnError as error:
        assert "calls.vcf" in str(error)
        return
    names = Counter(one.name for one in found)
    assert not names or max(names.values()) == 1
    per_pair = Counter(str(name).rsplit("|", 1)[0] for name in names)
    assert set(per_pair) == {f"{region.name}|{name}" for region in REGIONS for name in SAMPLES}
    for pair, n in per_pair.items():
        assert {f"{pair}|h{i}" for i in range(1, n + 1)} <= set(names)


TEXT = vcf_text(
    [
        "chr1 4 rs1 T A,<DEL> 3.5 PASS y=0.1,0.2;hit GT:PS 0|1:5 1/1:7",
        "chr1 12 . AT A . q10;s50 y=0.3 GT 0|1 1|1",
        "chr2 4 . A T . . y=0.3;END=9 GT 0|1 .",
    ],
    samples=SAMPLES,
    contigs=CONTIGS,
)
PIECES = [
    "\t",
    "\n",
    ",",
    "|",
    "/",
    ".",
    ";",
    "=",
    "-1",
    "99999999999",
    "\x00",
    "\xff",
    "<",
    "#",
    ":",
    "chr9",
    "NaN",
    "e999",
]


@st.composite
def broken(draw: st.DrawFn, whole: bytes, pieces: Sequence[bytes]) -> bytes:
    """A file with some pieces deleted, put in or written over."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.sampled_from([0, 1, 3, 40]))] = draw(st.sampled_from(pieces))
    return bytes(data)


@given(
    data=st.one_of(broken(TEXT.encode(), [piece.encode("latin-1") for piece in ["", *PIECES]]), st.binary(max_size=99))
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_broken_text_raises_our_errors_only(folder: Path, genome: Genome, data: bytes) -> None:
    """Changed, cut and random text is read, or refused by an error that names the file."""
    path = folder / "broken.vcf"
    path.write_bytes(data)
    for outcome in outcomes(path, genome):
        assert outcome is None or "broken.vcf" in str(outcome)


def outcomes(path: Path, genome: Genome) -> Iterator[BioattnError | None]:
    for regions, targets in ((None, ["y", "hit"]), (REGIONS, [])):
        try:
            read(path, genome, regions=regions, targets=targets)
            yield None
        except BioattnError as error:
            yield error


@pytest.mark.parametrize("kind", [".vcf.gz", ".vcf.bgz", ".bcf"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_broken_packed_files_raise_our_errors_only(
    folder: Path, genome: Genome, kind: str, data: st.DataObject
) -> None:
    """So are gzip, bgzip and BCF with changed bytes."""
    whole = write_vcf(folder / f"whole{kind}", TEXT).read_bytes()
    path = folder / f"broken{kind}"
    path.write_bytes(data.draw(broken(whole, [b"", b"\x00", b"\xff", b"A", b"\x1f\x8b"])))
    for outcome in outcomes(path, genome):
        assert outcome is None or "broken.vcf" in str(outcome) or "broken.bcf" in str(outcome)


def test_the_broken_ones_are_broken_from_a_good_one(folder: Path, genome: Genome) -> None:
    """Before it is broken the file is fine, so the properties above are about something."""
    path = write_vcf(folder / "fine.vcf", TEXT)
    assert list(outcomes(path, genome)) == [None, None]
    assert pysam.get_verbosity() > 0
