"""Small VCF files for tests."""

import gzip
from collections.abc import Iterable, Sequence
from pathlib import Path

import pysam

INFO = (
    '##INFO=<ID=y,Number=A,Type=Float,Description="per alternative allele">',
    '##INFO=<ID=REF_y,Number=1,Type=Float,Description="of the reference">',
    '##INFO=<ID=all,Number=R,Type=Float,Description="per allele">',
    '##INFO=<ID=one,Number=1,Type=Integer,Description="of the variant">',
    '##INFO=<ID=any,Number=.,Type=String,Description="any number">',
    '##INFO=<ID=END,Number=1,Type=Integer,Description="end">',
    '##INFO=<ID=hit,Number=0,Type=Flag,Description="flag">',
)
FILTERS = ('##FILTER=<ID=q10,Description="quality">', '##FILTER=<ID=s50,Description="samples">')
FORMATS = (
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">',
    '##FORMAT=<ID=PS,Number=1,Type=Integer,Description="phase set">',
)
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"


def vcf_text(rows: Iterable[str], *, samples: Sequence[str] = (), contigs: Iterable[str] = ()) -> str:
    """A whole VCF file. Cells of rows are separated by spaces; missing trailing ones become '.'."""
    meta = ["##fileformat=VCFv4.3", *(f"##contig=<ID={name}>" for name in contigs), *INFO, *FILTERS, *FORMATS]
    header = "\t".join([COLUMNS, *(("FORMAT", *samples) if samples else ())])
    lines = []
    for row in rows:
        cells = row.split(" ")
        lines.append("\t".join(cells + ["."] * (8 - len(cells))))
    return "\n".join([*meta, header, *lines]) + "\n"


def write_vcf(path: Path, text: str) -> Path:
    """Write a VCF file as its name says: .vcf, .vcf.gz (plain gzip), .vcf.bgz (bgzip with an index), .bcf."""
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
        return path
    plain = path if path.suffix == ".vcf" else path.with_suffix(".plain.vcf")
    plain.write_text(text)
    if path.suffix == ".bgz":
        pysam.tabix_compress(str(plain), str(path), force=True)
        pysam.tabix_index(str(path), preset="vcf", force=True)
    elif path.suffix == ".bcf":
        with pysam.VariantFile(str(plain)) as source, pysam.VariantFile(str(path), "wb", header=source.header) as out:
            for record in source:
                out.write(record)
    return path
