"""Haplotypes of regions from phased genotypes of a VCF or BCF file."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import NamedTuple

import pysam

from bioattn.config import DataConfig
from bioattn.data import alphabet
from bioattn.data.haplotypes import Edit, apply_edits, trimmed
from bioattn.data.regions import Region
from bioattn.data.sequences import BadRecord, Record, Unusable
from bioattn.errors import DataError
from bioattn.io.genome import Contigs, Genome
from bioattn.io.vcf import (
    Variant,
    VcfFile,
    as_text,
    check_allele,
    check_length,
    check_reference,
    has_index,
    in_case_of,
    is_plain,
    reading,
    variants,
    window_letters,
)

#: Columns that come with a haplotype.
HAPLOTYPE_COLUMNS = ("chromosome", "start", "end", "strand", "group", "individual", "haplotype", "n_variants")

#: With an index, as many look-ups are made at most; more cost more than reading the file through.
_MOST_LOOKUPS = 20_000
#: Regions nearer than this are looked up together.
_GAP = 10_000


class _Call(NamedTuple):
    """Genotype of one sample: index of each allele (None: missing), whether phased, and its phase set."""

    alleles: tuple[int | None, ...]
    phased: bool
    phase_set: str


class _Site(NamedTuple):
    """A variant that matters to a region.

    `edits` by allele index: the edit, None for no change, or why it cannot be used.
    `calls` of samples that carry anything but the reference; `ploidy` of all (0: no genotype).
    `wrong` says why REF does not fit the genome, "" if it does.
    """

    place: str
    wrong: str
    edits: tuple[Edit | str | None, ...]
    ploidy: bytes
    calls: dict[int, _Call]


class _Place(NamedTuple):
    """A region on the genome: the genome's contig, and which of the regions it is."""

    contig: str
    start: int
    end: int
    number: int


def haplotype_records(
    file: VcfFile, genome: Genome, sample: str, rules: DataConfig, regions: Sequence[Region], labels: str | None
) -> Iterator[Record | BadRecord]:
    """Every haplotype of every sample of the file in every region; see `bioattn.io.variants.variant_records`."""
    with reading(file, 0):
        individuals = list(file.handle.header.samples)
    if not individuals:
        raise DataError(
            f"{file.path}: found no samples, expected genotypes (columns after FORMAT) to make haplotypes of regions: "
            f"leave out the column regions of samples.tsv for windows around the variants"
        )
    contigs = Contigs(genome, rules.regions.contig_names)
    places = [
        _Place(contig, region.start, region.end, i)
        for i, region in enumerate(regions)
        if (contig := contigs.get(region.contig)) is not None
    ]
    sites = _sites(file, genome, contigs, rules, sorted(places))
    number = 0
    for i, region in enumerate(regions):
        reference, problem, fields = "", "", dict(region.fields)
        try:
            contig = contigs[region.contig]
            reference = window_letters(genome, contig, region.start, region.end, rules)
            fields |= {"chromosome": contig, "start": str(region.start), "end": str(region.end)}
        except Unusable as bad:
            problem = str(bad)
        for j, individual in enumerate(individuals):
            for haplotype, edits in enumerate(_edits(sites.get(i, []), j, rules), 1):
                name = f"{region.name}|{individual}|h{haplotype}"
                try:
                    sequence = _edited(reference, problem or edits, region)
                except Unusable as bad:
                    yield BadRecord(region.file, region.line, name, f"{bad} (haplotypes of {file.path.name})")
                    continue
                number += 1
                own = {
                    "strand": region.strand,
                    "group": region.name,
                    "individual": individual,
                    "haplotype": str(haplotype),
                    "n_variants": str(len(edits)),
                }
                yield Record(
                    sample,
                    region.file,
                    region.line,
                    number,
                    sequence,
                    name=name,
                    fields={**fields, **own},
                    labels=labels,
                )


def _edited(reference: str, edits: Sequence[Edit] | str, region: Region) -> str:
    if isinstance(edits, str):
        raise Unusable(edits)
    try:
        sequence = apply_edits(reference, edits, offset=region.start)
    except DataError as error:
        raise Unusable(str(error)) from None
    if not sequence:
        raise Unusable("found a deletion of the whole region, at least one letter must remain")
    return alphabet.other_strand(sequence) if region.strand == "-" else sequence


def _sites(
    file: VcfFile, genome: Genome, contigs: Contigs, rules: DataConfig, places: Sequence[_Place]
) -> dict[int, list[_Site]]:
    """Variants of each region, by its index."""
    sites: dict[int, list[_Site]] = {}
    on_contig: dict[str, list[_Place]] = {}
    for place in places:
        on_contig.setdefault(place.contig, []).append(place)
    seen: set[str] = set()
    for variant, near in _near(file, contigs, on_contig, seen):
        touched = [place for place in near if _touches(variant, place)]
        if touched:
            wrong = ""
            try:
                check_reference(genome, touched[0].contig, variant)
            except Unusable as bad:
                wrong = str(bad)
            with reading(file, variant.line):
                ploidy, calls = _calls(variant.record)
            for place in touched:
                site = _Site(variant.place, wrong, _allele_edits(variant, place, genome, rules), ploidy, calls)
                sites.setdefault(place.number, []).append(site)
    _check_names(file, genome, contigs, on_contig, seen)
    return sites


def _near(
    file: VcfFile, contigs: Contigs, on_contig: Mapping[str, Sequence[_Place]], seen: set[str]
) -> Iterator[tuple[Variant, Sequence[_Place]]]:
    """Variants with the regions that they may lie in. Puts the contigs of the file into `seen`."""
    index = {contig: _Index(places) for contig, places in on_contig.items()}
    stretches = {contig: list(_stretches(places)) for contig, places in on_contig.items()}
    if has_index(file) and sum(map(len, stretches.values())) <= _MOST_LOOKUPS:
        for name in file.handle.index:
            seen.add(name)
            contig, before = contigs.get(name), 0
            for start, end in stretches.get(contig or "", []):
                for variant in variants(file, (name, start, end)):
                    if variant.start >= before:  # else the look-up before had it
                        yield variant, index[str(contig)].near(variant.start, variant.end)
                before = end
        return
    for variant in variants(file):
        seen.add(variant.contig)
        contig = contigs.get(variant.contig)
        if contig in index:
            yield variant, index[str(contig)].near(variant.start, variant.end)


def _stretches(places: Sequence[_Place]) -> Iterator[tuple[int, int]]:
    """Intervals of a contig that hold all regions (given by start), with gaps between them."""
    start, end = max(places[0].start, 0), places[0].end
    for place in places:
        if place.start - end > _GAP:
            yield start, max(end, start + 1)
            start = place.start
        end = max(end, place.end)
    yield start, max(end, start + 1)


class _Index:
    """Regions of one contig, to be found by interval."""

    def __init__(self, places: Sequence[_Place]) -> None:
        self.places = places
        self.starts = [place.start for place in places]
        self.reach = list(accumulate((place.end for place in places), max))

    def near(self, start: int, end: int) -> list[_Place]:
        """All that overlap or touch the interval."""
        found = []
        i = bisect_right(self.starts, end) - 1
        while i >= 0 and self.reach[i] >= start:
            found.append(self.places[i])
            i -= 1
        return found


def _touches(variant: Variant, place: _Place) -> bool:
    """Whether some allele changes the region, or may do so: a common anchor letter at its border does not count."""
    if variant.end <= place.start or variant.start >= place.end:
        return False
    for alternative in variant.alternatives:
        if not is_plain(alternative):
            return True
        edit = trimmed(variant.start, variant.reference, alternative)
        if edit.start < place.end and edit.end > place.start:
            return True
    return False


def _allele_edits(variant: Variant, place: _Place, genome: Genome, rules: DataConfig) -> tuple[Edit | str | None, ...]:
    """For each allele index its edit within the region, None for no change, or why it cannot be used."""
    edits: list[Edit | str | None] = [None]
    for alternative in variant.alternatives:
        if alternative == "*":
            edits.append(None)
            continue
        try:
            check_length(variant.reference, rules)
            letters = check_allele(alternative, rules)
        except Unusable as bad:
            edits.append(f"{bad} at {variant.place}")
            continue
        edit = trimmed(variant.start, variant.reference, letters)
        outside = edit.end <= place.start or edit.start >= place.end
        if outside or (edit.start == edit.end and not edit.letters):
            edits.append(None)
        elif edit.start < place.start or edit.end > place.end:
            edits.append(f"found a variant that reaches over the border of the region at {variant.place}")
        else:
            there = genome.sequence(place.contig, variant.start, variant.start + 1) if variant.start >= 0 else ""
            edits.append(edit._replace(letters=in_case_of(edit.letters, there)))
    return tuple(edits)


def _calls(record: pysam.VariantRecord) -> tuple[bytes, dict[int, _Call]]:
    """Ploidy of every sample, and the genotypes of those that are not all reference."""
    ploidy = bytearray(len(record.header.samples))  # a record may have genotypes of none
    calls: dict[int, _Call] = {}
    if "GT" not in record.format:
        return bytes(ploidy), calls
    has_sets = "PS" in record.format
    for i, genotype in enumerate(record.samples.values()):
        alleles = genotype.allele_indices or ()
        ploidy[i] = len(alleles)
        if any(allele != 0 for allele in alleles):
            phase_set = as_text(genotype["PS"]) if has_sets else ""
            calls[i] = _Call(tuple(alleles), genotype.phased, phase_set)
    return bytes(ploidy), calls


def _edits(sites: Sequence[_Site], i: int, rules: DataConfig) -> list[list[Edit] | str]:
    """Edits of each haplotype of a sample in a region, or why that haplotype cannot be made."""
    ploidies = {site.ploidy[i] for site in sites} or {2}
    n = max(ploidies) or 2
    problem = _problem_of_all(sites, i, ploidies)
    if problem:
        return [problem] * n
    calls = [(site, site.calls[i]) for site in sites if i in site.calls]
    phase_sets = {call.phase_set for _, call in calls if call.phased and len(set(call.alleles)) > 1}
    edits: list[list[Edit]] = [[] for _ in range(n)]
    problems = [""] * n
    for site, call in calls:
        if len(set(call.alleles)) > 1 and not (call.phased and len(phase_sets) < 2):
            found = _unphased(site, call, rules)
            problems = [problem or found for problem in problems]
            continue
        for haplotype, allele in enumerate(call.alleles):
            edit = f"found no genotype at {site.place}" if allele is None else site.edits[allele]
            if isinstance(edit, str):
                problems[haplotype] = problems[haplotype] or edit
            elif edit is not None:
                edits[haplotype].append(edit)
    return [problem or each for problem, each in zip(problems, edits, strict=True)]


def _unphased(site: _Site, call: _Call, rules: DataConfig) -> str:
    """Why a genotype of unknown phase cannot be used, "" if it is left as reference."""
    if None in call.alleles:
        return f"found no complete genotype at {site.place}"
    if rules.variants.unphased == "reference":
        return ""
    why = "of another phase set than its neighbours" if call.phased else "without phase"
    return f"found a heterozygous genotype {why} at {site.place} (data.variants.unphased: reference keeps REF there)"


def _problem_of_all(sites: Sequence[_Site], i: int, ploidies: set[int]) -> str:
    """Why no haplotype of a sample can be made, "" if there is no such reason."""
    for site in sites:
        if site.wrong:
            return site.wrong
        if not site.ploidy[i]:
            return f"found no genotype at {site.place}"
    if len(ploidies) > 1:
        counts = " and ".join(map(str, sorted(ploidies)))
        return f"found genotypes of {counts} alleles in one region, allowed is one number: split the region there"
    return ""


def _check_names(
    file: VcfFile, genome: Genome, contigs: Contigs, on_contig: Mapping[str, Sequence[_Place]], seen: set[str]
) -> None:
    """Raise `DataError` if variants were passed over because the file calls the contigs of regions otherwise."""
    unknown = sorted(name for name in seen if contigs.get(name) is None)
    for name in unknown:
        with suppress(DataError):
            if genome.resolve(name, "chr_prefix") in on_contig:
                break
    else:
        if not unknown or len(unknown) < len(seen):
            return
        name = unknown[0]
    raise DataError(f"{file.path}: its variants lie on no contig of the genome: {contigs.reasons[name]}")
