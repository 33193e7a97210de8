"""Regions of a genome from BED, narrowPeak, broadPeak, GTF and GFF3, and their sequences."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from bioattn.config import RegionsConfig
from bioattn.data import alphabet
from bioattn.data.matching import Interval
from bioattn.data.regions import Region
from bioattn.data.sequences import BadRecord, LeftOut, Unusable
from bioattn.errors import ConfigError, DataError
from bioattn.io.genome import Contigs, Genome
from bioattn.io.lines import LONGEST_LINE, read_lines
from bioattn.io.samples import REGIONS, kind_of

_BED_COLUMNS = ("chrom", "start", "end", "name", "score", "strand")
_PEAK_COLUMNS = (*_BED_COLUMNS, "signalValue", "pValue", "qValue", "peak")
#: Names of the columns by kind and number of them; BED with other numbers has columns of its own after the sixth.
_COLUMNS = {
    ("narrowpeak", 10): _PEAK_COLUMNS,
    ("broadpeak", 9): _PEAK_COLUMNS[:9],
    ("bed", 9): (*_BED_COLUMNS, "thickStart", "thickEnd", "itemRgb"),
    ("bed", 12): (
        *_BED_COLUMNS, "thickStart", "thickEnd", "itemRgb", "blockCount", "blockSizes", "blockStarts",
    ),
}  # fmt: skip
_N_COLUMNS = {"narrowpeak": 10, "broadpeak": 9}
#: What a header line calls the second column.
_START_NAMES = {"start", "chromstart", "chrom_start", "begin", "from"}
#: Columns with a meaning of their own, which an attribute or a further column of the same name must not take on.
_TAKEN = {"sequence", "sample", "length", "split_given", "soft_masked", "chromosome", "start", "end", "strand", "name"}
_TAKEN_ATTRIBUTES = _TAKEN | {"group", "split"}
#: Attributes that name a record, best first.
_GTF_NAMES, _GTF_GENE_NAMES = ("transcript_id", "gene_id"), ("gene_id",)
_GFF_NAMES = ("ID", "Name")

_NUMBER = re.compile(r"[0-9]{1,15}")
_GTF_ATTRIBUTE = re.compile(r'(?:[^;"]|"[^"]*")+')
_GTF_STYLE = re.compile(r'\s*[^\s;="]+\s+["\w]')
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

#: A contig is read whole where the wanted bases are more than one in so many of it.
_SPARSE = 100


class Feature(NamedTuple):
    """One line of an annotation: an interval, 0-based and half-open, before anything is counted from it.

    Attributes
    ----------
    name : str
        "" where the line has none.
    summit : int or None
        Offset of the summit from `start` (narrowPeak).
    fields : dict of str to str
        Further columns or attributes.
    """

    contig: str
    start: int
    end: int
    strand: str
    name: str
    summit: int | None
    fields: dict[str, str]
    line: int


# ------------------------------------------------------------------------ regions


def read_regions(path: str | Path, rules: RegionsConfig, genome: Genome) -> Iterator[Region | BadRecord | LeftOut]:
    """Regions of an annotation on a genome, by the rules of a run, in file order.

    Contigs have the genome's names. Every region overlaps its contig; with
    `off_end: pad` it may go beyond.

    Raises
    ------
    DataError
        If the file cannot be read, or has no line of the wanted feature.
    ConfigError
        If the rules ask for what the kind of file does not have.
    """
    path = Path(path)
    anchor = _anchor(path, rules)
    contigs = Contigs(genome, rules.contig_names)
    first_there: dict[tuple[str, int, int, str], tuple[str, int]] = {}
    for feature in read_features(path, rules):
        if isinstance(feature, BadRecord):
            yield feature
            continue
        try:
            region = _region(path, feature, contigs[feature.contig], anchor, rules, genome)
        except Unusable as error:
            yield BadRecord(str(path), feature.line, feature.name or _coordinates(feature), str(error))
            continue
        if rules.same_place == "merge":
            name, line = first_there.setdefault(region[:4], (region.name, region.line))
            if line != region.line:
                yield LeftOut(
                    region.file,
                    region.line,
                    region.name,
                    f"same place as '{name}' of line {line}, merged (data.regions.same_place: keep takes both)",
                )
                continue
        yield region


def read_excluded(paths: Iterable[str | Path], rules: RegionsConfig) -> list[Interval]:
    """Intervals of BED, GTF and GFF3 files as they are.

    Raises
    ------
    DataError
        If a file cannot be read, for the first line that is no interval.
    """
    intervals = []
    for path in map(Path, paths):
        _check_kind(path)
        for feature in read_features(path, rules):
            if isinstance(feature, BadRecord):
                raise DataError(f"{feature.file} line {feature.line}: {feature.reason}")
            intervals.append(Interval(feature.contig, feature.start, feature.end))
    return intervals


def sequences_of(regions: Sequence[Region], genome: Genome) -> list[str]:
    """Letters of regions on their own strand, in the order of the regions, upper or lower case as in the genome.

    Contigs are read one after the other, each once. What lies beyond a contig is N.
    """
    found = [""] * len(regions)
    rows_of: dict[str, list[int]] = defaultdict(list)
    n_of: dict[str, int] = defaultdict(int)
    for row, region in enumerate(regions):
        rows_of[region.contig].append(row)
        n_of[region.contig] += region.end - region.start
    for contig, rows in rows_of.items():
        length, n_wanted = genome.lengths[contig], n_of[contig]
        whole = genome.letters(contig).tobytes().decode("latin-1") if n_wanted * _SPARSE > length else None
        for row in rows:
            region = regions[row]
            start, end = region.start, region.end
            if whole is not None and start >= 0 and end <= length:
                letters = whole[start:end]
            else:
                first, last = max(start, 0), min(end, length)
                inside = whole[first:last] if whole is not None else genome.sequence(contig, first, last)
                letters = "N" * (first - start) + inside + "N" * (end - last)
            found[row] = alphabet.other_strand(letters) if region.strand == "-" else letters
    return found


def _check_kind(path: Path) -> str:
    kind = kind_of(path)
    if kind not in REGIONS:
        raise DataError(f"{path}: found another suffix, allowed are .bed, .narrowPeak, .broadPeak, .gtf, .gff, .gff3")
    return kind


def _anchor(path: Path, rules: RegionsConfig) -> str:
    kind = _check_kind(path)
    if rules.anchor == "summit" and kind != "narrowpeak":
        raise ConfigError(f"data.regions.anchor: found 'summit' for {path}, allowed with narrowPeak files only")
    if rules.anchor != "auto":
        return rules.anchor
    return {"gtf": "five_prime", "gff": "five_prime", "narrowpeak": "summit"}.get(kind, "whole")


def _region(path: Path, feature: Feature, contig: str, anchor: str, rules: RegionsConfig, genome: Genome) -> Region:
    length = genome.lengths[contig]
    if feature.start >= length or (feature.end > length and rules.off_end == "reject"):
        raise Unusable(
            f"found {feature.start}-{feature.end} on contig {contig}, which is {length} bp long: is the annotation of "
            f"another assembly?"
        )
    start, end = _interval(feature, anchor, rules)
    if (start < 0 or end > length) and rules.off_end == "reject":
        raise Unusable(
            f"its region {start}-{end} goes beyond contig {contig} of {length} bp (data.regions.off_end: pad fills "
            f"up with N)"
        )
    if end <= 0 or start >= length:
        raise Unusable(f"its region {start}-{end} does not touch contig {contig} of {length} bp")
    if end - start > LONGEST_LINE:
        raise Unusable(f"its region is {end - start} bp long, allowed are at most {LONGEST_LINE}")
    name = feature.name or f"{contig}:{start}-{end}({feature.strand})"
    return Region(contig, start, end, feature.strand, name, str(path), feature.line, feature.fields)


def _interval(feature: Feature, anchor: str, rules: RegionsConfig) -> tuple[int, int]:
    """Interval around the anchor of a feature. The anchor is a base, the first downstream; no summit is the centre."""
    if anchor == "whole":
        return feature.start, feature.end
    if anchor == "five_prime" and feature.strand == ".":
        raise Unusable("found no strand, data.regions.anchor: five_prime needs + or -")
    backward = feature.strand == "-"
    if anchor == "summit" and feature.summit is not None:
        base = feature.start + feature.summit
    else:
        # Counted from the 5' end, so that the two strands mirror each other where there is no middle base.
        offset = 0 if anchor == "five_prime" else (feature.end - feature.start) // 2
        base = feature.end - 1 - offset if backward else feature.start + offset
    if backward:
        return base - rules.downstream + 1, base + rules.upstream + 1
    return base - rules.upstream, base + rules.downstream


def _coordinates(feature: Feature) -> str:
    return f"{feature.contig}:{feature.start}-{feature.end}({feature.strand})"


# --------------------------------------------------------------------------- lines


def read_features(path: str | Path, rules: RegionsConfig) -> Iterator[Feature | BadRecord]:
    """Lines of an annotation as intervals, in file order; of GTF and GFF3 those of the wanted feature.

    Comments, `track` and `browser` lines, empty lines and a header line are
    passed over. Coordinates of GTF and GFF3, 1-based and closed, become 0-based
    and half-open.

    Raises
    ------
    DataError
        If the file cannot be read, or has no line that counts.
    """
    path = Path(path)
    kind = kind_of(path)
    yield from _read_gff(path, rules, kind) if kind in ("gtf", "gff") else _read_bed(path, kind)


def _read_bed(path: Path, kind: str) -> Iterator[Feature | BadRecord]:
    names: Sequence[str] = ()
    comment: list[str] = []
    n_rows = 0
    for number, text in read_lines(path):
        if not text.strip() or text.split(None, 1)[0] in ("track", "browser"):
            continue
        if text.startswith("#"):
            comment = _split(text.lstrip("#").strip())
            continue
        cells = _split(text)
        if not names:
            if kind == "bed" and len(cells) > 2 and cells[1].lower() in _START_NAMES:
                names = _header(path, number, cells)
                continue
            n_columns = _N_COLUMNS.get(kind) or max(len(cells), 3)
            names = _COLUMNS.get((kind, n_columns)) or _plain_columns(n_columns)
            if kind == "bed" and len(comment) == len(cells) > 2 and comment[1].lower() in _START_NAMES:
                names = _header(path, number - 1, comment)
        n_rows += 1
        name = cells[names.index("name")] if "name" in names and len(cells) == len(names) else ""
        try:
            yield _bed_feature(cells, names, kind, number)
        except Unusable as error:
            yield BadRecord(str(path), number, name or f"line {number}", str(error))
    if not n_rows:
        raise DataError(f"{path}: found no region, expected lines with contig, start, end")


def _bed_feature(cells: list[str], names: Sequence[str], kind: str, line: int) -> Feature:
    if len(cells) != len(names):
        expected = {"narrowpeak": "narrowPeak has 10", "broadpeak": "broadPeak has 9"}.get(
            kind, f"the first row or header has {len(names)}" if len(names) > 3 else "BED has at least 3"
        )
        raise Unusable(f"found {len(cells)} columns, {expected}, separated by tabs")
    start, end = _number("start", cells[1]), _number("end", cells[2])
    if start > end:
        raise Unusable(f"found start {start} after end {end}")
    if start == end:
        raise Unusable(f"found start and end {start}, an empty region: BED counts from 0, and the end is not part")
    further = dict(zip(names[3:], cells[3:], strict=True))
    strand = further.pop("strand", ".")
    if strand not in ("+", "-", "."):
        raise Unusable(f"found strand '{strand}', allowed are +, - and .")
    name = further.pop("name", "")
    summit = None
    if kind == "narrowpeak" and further["peak"] != "-1":
        summit = _number("peak", further["peak"])
        if summit >= end - start:
            raise Unusable(f"found summit {summit}, allowed is an offset below the length {end - start}, or -1")
    fields = {key: value for key, value in further.items() if key not in _TAKEN}
    return Feature(cells[0], start, end, strand, "" if name == "." else name, summit, fields, line)


def _split(text: str) -> list[str]:
    return [cell.strip() for cell in (text.split("\t") if "\t" in text else text.split())]


def _header(path: Path, line: int, cells: list[str]) -> list[str]:
    """Names of the columns; the first three have theirs by place."""
    names = [*_BED_COLUMNS[:3], *cells[3:]]
    repeated = next((name for name in names if names.count(name) > 1 or not name), None)
    if repeated is not None:
        raise DataError(f"{path} line {line}: found column '{repeated}' twice or without a name, names must differ")
    return names


def _plain_columns(n: int) -> list[str]:
    return [*_BED_COLUMNS[:n], *(f"column{i}" for i in range(len(_BED_COLUMNS) + 1, n + 1))]


def _read_gff(path: Path, rules: RegionsConfig, kind: str) -> Iterator[Feature | BadRecord]:
    types: Counter[str] = Counter()
    n_rows = 0
    for number, text in read_lines(path):
        if text.startswith(("##FASTA", ">")):
            break  # sequences follow, to the end of the file
        if not text.strip() or text.startswith("#") or text.split(None, 1)[0] in ("track", "browser"):
            continue
        cells = text.split("\t")
        if len(cells) == 9:
            types[cells[2]] += 1
            if cells[2] != rules.feature:
                continue
        n_rows += 1
        try:
            yield _gff_feature(cells, kind, rules, number)
        except Unusable as error:
            yield BadRecord(str(path), number, f"line {number}", str(error))
    if not n_rows:
        found = ", ".join(f"{name} ({n})" for name, n in types.most_common(10)) or "nothing"
        raise DataError(
            f"{path}: found no feature '{rules.feature}', it has {found}: set data.regions.feature to one of them"
        )


def _gff_feature(cells: list[str], kind: str, rules: RegionsConfig, line: int) -> Feature:
    if len(cells) != 9:
        raise Unusable(f"found {len(cells)} columns, GTF and GFF3 have 9, separated by tabs")
    start, end = _number("start", cells[3]), _number("end", cells[4])
    if start < 1:
        raise Unusable("found start 0, allowed is at least 1: GTF and GFF3 count from 1")
    if start > end:
        raise Unusable(f"found start {start} after end {end}")
    if cells[6] not in ("+", "-", ".", "?"):
        raise Unusable(f"found strand '{cells[6]}', allowed are +, -, . and ?")
    # By what it holds: .gff is used for both, and the suffix may be wrong.
    is_gtf = bool(_GTF_STYLE.match(cells[8])) if "=" in cells[8] else kind == "gtf" or bool(cells[8].strip(". "))
    attributes = _gtf_attributes(cells[8]) if is_gtf else _gff_attributes(cells[8])
    named = (rules.name_attribute,) if rules.name_attribute else _name_attributes(is_gtf, rules.feature)
    name = next((attributes[key] for key in named if key and attributes.get(key)), "")
    if rules.name_attribute and not name:
        raise Unusable(
            f"found no attribute '{rules.name_attribute}' (data.regions.name_attribute), it has "
            f"{', '.join(attributes) or 'none'}"
        )
    score = {} if cells[5] in (".", "") else {"score": cells[5]}
    fields = {key: value for key, value in attributes.items() if key not in _TAKEN_ATTRIBUTES}
    contig = cells[0] if is_gtf else _decoded(cells[0])
    strand = cells[6] if cells[6] in "+-" else "."
    return Feature(contig, start - 1, end, strand, name, None, {**score, **fields}, line)


def _name_attributes(is_gtf: bool, feature: str) -> tuple[str, ...]:
    if not is_gtf:
        return _GFF_NAMES
    return _GTF_GENE_NAMES if feature == "gene" else _GTF_NAMES


def _gtf_attributes(text: str) -> dict[str, str]:
    """Attributes of the form `key "value"; key value`; of a key that occurs again all values."""
    found: dict[str, str] = {}
    for part in _GTF_ATTRIBUTE.findall(text):
        key, _, value = part.strip().partition(" ")
        value = value.strip().strip('"')
        if key:
            found[key] = f"{found[key]},{value}" if key in found else value
    return found


def _gff_attributes(text: str) -> dict[str, str]:
    """Attributes of the form `key=value;key=value`, percent-encoded."""
    pairs = (part.partition("=") for part in text.split(";") if part.strip())
    return {_decoded(key.strip()): _decoded(value.strip()) for key, _, value in pairs}


def _decoded(text: str) -> str:
    return _CONTROL.sub(" ", unquote(text)) if "%" in text else text


def _number(what: str, text: str) -> int:
    if _NUMBER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text.removeprefix("-")):
        raise Unusable(f"found {what} {text}, allowed is at least 0")
    raise Unusable(f"found {what} '{text}', allowed is a whole number of at least 0")
