"""From VCF or BCF to sequences: windows around variants, or haplotypes of regions."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pysam

from bioattn.config import DataConfig
from bioattn.data.haplotypes import Edit, apply_edits
from bioattn.data.regions import Region
from bioattn.data.sequences import BadRecord, Record, Unusable
from bioattn.errors import ConfigError, DataError
from bioattn.io.genome import Contigs, Genome
from bioattn.io.haplotypes import HAPLOTYPE_COLUMNS, haplotype_records
from bioattn.io.vcf import (
    Variant,
    VcfFile,
    as_text,
    check_allele,
    check_length,
    check_reference,
    in_case_of,
    open_vcf,
    reading,
    shortened,
    variants,
    window_letters,
)

#: Columns that come with a window around a variant.
WINDOW_COLUMNS = (
    "chromosome", "start", "end", "strand", "group", "variant_id", "variant_start", "ref", "alt", "allele", "qual",
    "filter",
)  # fmt: skip


def variant_records(
    path: str | Path,
    genome: Genome,
    *,
    sample: str,
    rules: DataConfig,
    targets: Sequence[str],
    regions: Sequence[Region] | None = None,
    labels: str | None = None,
) -> Iterator[Record | BadRecord]:
    """Sequences that a VCF or BCF file describes: windows around its variants, or haplotypes of regions.

    **Windows** (no `regions`): one record for each alternative allele, or with
    `alleles: both` two, `...|ref` and `...|alt`. The window of `window_bp` bases
    of the genome has the middle of REF at index `window_bp // 2` and the
    allele in its place as the file writes it, not shifted or trimmed. The window
    of the genome is fixed, so insertions make the sequence longer and deletions
    shorter; `data.length` brings all to one length. The allele takes upper or
    lower case from the first letter that it replaces. The name is
    `contig:position:REF>ALT` with the position as in the file; `group` is
    `contig:position`, so that all alleles of a place can be kept together.
    Windows of neighbours overlap: `chromosome`, `start` and `end` (of the window)
    let `split.group_by: [overlap]` see that. Targets come from INFO: one value
    for all alleles, one for each alternative allele, or one for each allele with
    the reference first; a flag is 1 or 0. Numbers of type Float have the
    precision that VCF readers agree on, 32 bits.

    **Haplotypes** (with `regions`): for each region and each sample of the file
    one record per haplotype, `region|sample|h1`, with all of its alternative
    alleles; on the minus strand the other strand of the result. Without a
    genotype in the region there are two. Every haplotype becomes a `Record` or a
    `BadRecord`: the latter if a genotype is missing; if it is heterozygous and
    not phased (with `unphased: reference` left as reference instead), which
    includes different phase sets in one region; if alleles of one haplotype
    overlap, are symbolic, too long, or reach over the border of the region; if
    REF differs from the genome. The allele `*` stands for a deletion that is
    written elsewhere and changes nothing. An insertion exactly at a border lies
    outside. `group` is the region. Targets come from labels or from the fields
    of the region.

    Parameters
    ----------
    path : path
        VCF, plain, gzip or bgzip, or BCF. Read in one pass; with an index (.tbi,
        .csi) only the parts near regions.
    sample : str
        Name of the row of samples.tsv.
    rules : DataConfig
        Sections `variants` and `regions` (`off_end`, `contig_names`).
    targets : sequence of str
        INFO fields to take with `target_from: info`; empty if targets come from
        elsewhere.
    regions : sequence of Region, optional
        Intervals; `start` below 0 or `end` beyond the contig follow `off_end`.
    labels : str, optional
        Passed on in every record.

    Raises
    ------
    DataError
        If the file is missing, not VCF or BCF, cut short or has a line that is no
        variant; if its header declares no INFO field of a target; if it has no
        samples, or none of the regions' contigs.
    ConfigError
        If a target has the name of one of the columns made here.
    """
    columns = WINDOW_COLUMNS if regions is None else HAPLOTYPE_COLUMNS
    taken = sorted(set(targets) & set(columns))
    if taken:
        raise ConfigError(f"task.targets: found '{taken[0]}', which is a column made from VCF files: rename the target")
    with open_vcf(Path(path)) as file:
        if regions is None:
            yield from _windows(file, genome, sample, rules, targets, labels)
        else:
            yield from haplotype_records(file, genome, sample, rules, regions, labels)


def _windows(
    file: VcfFile,
    genome: Genome,
    sample: str,
    rules: DataConfig,
    targets: Sequence[str],
    labels: str | None,
) -> Iterator[Record | BadRecord]:
    wanted = tuple(targets) if rules.variants.target_from == "info" else ()
    _check_declared(file, wanted)
    contigs = Contigs(genome, rules.regions.contig_names)
    suffixes = ["|ref", "|alt"] if rules.variants.alleles == "both" else [""]
    number = 0
    for variant in variants(file):
        for i, alternative in enumerate(variant.alternatives or (".",)):
            name = f"{variant.place}:{variant.reference}>{alternative}"
            try:
                window = _window(variant, alternative, genome, contigs, rules)
                with reading(file, variant.line):
                    passed_on = _passed_on(variant.record)
                    values = _target_cells(variant, i, wanted, rules)
            except Unusable as bad:
                yield from (BadRecord(str(file.path), variant.line, name + suffix, str(bad)) for suffix in suffixes)
                continue
            for suffix, (allele, sequence) in zip(suffixes, window.sequences.items(), strict=True):
                number += 1
                yield Record(
                    sample,
                    str(file.path),
                    variant.line,
                    number,
                    sequence,
                    name=name + suffix,
                    fields={**window.fields, "allele": allele, **passed_on, **values[allele]},
                    labels=labels,
                )


class _Window(NamedTuple):
    """Sequences of one alternative allele by 'ref' and 'alt', and the cells that they share."""

    sequences: dict[str, str]
    fields: dict[str, str]


def _window(variant: Variant, alternative: str, genome: Genome, contigs: Contigs, rules: DataConfig) -> _Window:
    contig = contigs[variant.contig]
    there = check_reference(genome, contig, variant)
    check_length(variant.reference, rules)
    letters = in_case_of(check_allele(alternative, rules), there)
    width = rules.variants.window_bp
    start = variant.start + len(there) // 2 - width // 2
    end = start + width
    if not start <= variant.start <= variant.start + len(there) <= end:
        raise Unusable(f"found REF of {len(there)} bp, allowed is what fits {width} bp (data.variants.window_bp)")
    reference = window_letters(genome, contig, start, end, rules)
    edit = Edit(variant.start, variant.start + len(there), letters)
    sequences = {"ref": reference, "alt": apply_edits(reference, [edit], offset=start)}
    if rules.variants.alleles == "alternative":
        del sequences["ref"]
    fields = {
        "chromosome": contig,
        "start": str(start),
        "end": str(end),
        "strand": "+",
        "group": variant.place,
        "variant_start": str(variant.start),
        "ref": variant.reference,
        "alt": alternative,
    }
    return _Window(sequences, fields)


def _passed_on(record: pysam.VariantRecord) -> dict[str, str]:
    qual = "" if record.qual is None else as_text(record.qual)
    return {"variant_id": record.id or "", "qual": qual, "filter": ";".join(record.filter.keys())}


# ----------------------------------------------------------------------- targets


def _check_declared(file: VcfFile, targets: Iterable[str]) -> None:
    with reading(file, 0):
        declared = list(file.handle.header.info.keys())
    for target in targets:
        if target not in declared:
            near = difflib.get_close_matches(target, declared, n=1)
            hint = f"did you mean '{near[0]}'? Else add" if near else "add"
            raise DataError(
                f"{file.path}: the header declares no INFO field '{target}', found {', '.join(declared) or 'none'}: "
                f"{hint} a line ##INFO=<ID={target},...>, or give targets by the column label or labels of samples.tsv "
                f"(data.variants.target_from: labels)"
            )


def _target_cells(variant: Variant, i: int, targets: Sequence[str], rules: DataConfig) -> dict[str, dict[str, str]]:
    """Targets of 'ref' and 'alt' for an alternative allele."""
    cells: dict[str, dict[str, str]] = {"ref": {}, "alt": {}}
    given = rules.variants.reference_value
    for target in targets:
        reference, *alternatives = _per_allele(variant, target)
        cells["alt"][target] = alternatives[i]
        if given is not None:
            reference = repr(given)
        elif not reference:
            reference = ",".join(_info(variant.record, f"REF_{target}"))
        cells["ref"][target] = reference
    return cells


def _per_allele(variant: Variant, key: str) -> list[str]:
    """Values of an INFO field for the reference and each alternative allele, "" where there is none."""
    n, declared = len(variant.alternatives), variant.record.header.info[key]
    if declared.type == "Flag":
        return ["", *[str(int(key in variant.record.info))] * n]
    values = _info(variant.record, key)
    if not values:
        return [""] * (n + 1)
    allowed = {"A": (n,), "R": (n + 1,), 1: (1,)}.get(declared.number, (1, n, n + 1))
    if len(values) not in allowed:
        raise Unusable(
            f"found {len(values)} values of INFO/{key} ({shortened(','.join(values))}), allowed are "
            f"{' or '.join(map(str, allowed))} (Number={declared.number}, {n} alternative alleles)"
        )
    if len(values) == n + 1:
        return values
    return ["", *(values if len(values) == n else values * n)]


def _info(record: pysam.VariantRecord, key: str) -> list[str]:
    """Values of an INFO field as text, none if it is missing."""
    value = record.info.get(key) if key in record.info else None
    values = value if isinstance(value, tuple) else (value,)
    return [] if all(each is None for each in values) else [as_text(each) for each in values]
