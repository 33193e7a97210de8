"""Every kind of input from samples.tsv to a report, with real files and models that learn little in seconds."""

import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pysam
import pytest

from bioattn.data.alphabet import reverse_complement
from bioattn.io.fasta import read_fasta
from bioattn.io.tables import read_parquet, read_tsv

pytestmark = pytest.mark.slow

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "dna"

#: What all runs share: a model of minimal size, one seed, no motifs and so no pairs.
SMALL: dict[str, Any] = {
    "model": {
        "stem": {"kind": "conv", "n_filters": 8, "width": 11, "pool": 10},
        "d_model": 8, "n_layers": 1, "n_heads": 2, "d_feedforward": 8, "dropout": 0.0, "pooling": "mean",
    },
    "train": {"seeds": [1], "epochs": 2, "batch_size": 32},
    "evaluate": {"bootstrap": 20, "baselines": ["composition"]},
    "explain": {"n_sequences": 100, "ism_sequences": 4, "seqlets_per_head": 50},
    "motifs": {"naming_tax_group": None},
}  # fmt: skip
#: In place of the convolution: tokens that are looked up.
NO_STEM = {"kind": "none", "pool": 1}


def run_of(samples: str, task: dict[str, Any], data: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A run on one samples.tsv; keyword arguments replace keys of sections."""
    run: dict[str, Any] = {**SMALL, "data": {"samples": samples, **(data or {})}, "task": task}
    for section, keys in changes.items():
        run[section] = {**run.get(section, {}), **keys}
    return run


def write_samples(work: Path, name: str, **cells: str) -> str:
    """A samples.tsv of one row."""
    columns = {"sample": name, **cells}
    (work / f"{name}.tsv").write_text("\t".join(columns) + "\n" + "\t".join(columns.values()) + "\n")
    return f"{name}.tsv"


def yeast_genome(work: Path) -> dict[str, str]:
    """Chromosomes I and II of yeast in one FASTA file."""
    folder = DATA / "debian_yeast_chr1_2"
    (work / "yeast.fa").write_bytes((folder / "chr1.fa").read_bytes() + (folder / "chr2.fa").read_bytes())
    shutil.copy(folder / "yeast_chr1+2.gff3", work / "yeast.gff3")
    return {record.header.split()[0]: record.sequence for record in read_fasta(work / "yeast.fa")}


def flies(work: Path) -> dict[str, Any]:
    """FASTA.gz in lower case; upstream sequences cut to the 200 bp before the TSS, with shuffled negatives."""
    kept = []
    for number, record in enumerate(read_fasta(DATA / "debian_dm3_upstream" / "dm3_upstream2000.fa.gz")):
        if number % 60 == 0:
            kept.append(f">{record.header}\r\n{record.sequence}\r\n")
    # Windows line ends and a byte order mark, as an editor may leave them.
    (work / "flies.fa.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + "".join(kept).encode()))
    return run_of(
        write_samples(work, "flies", path="flies.fa.gz", label="1"),
        {"kind": "binary", "targets": ["label"]},
        {
            "length": {"bp": 200, "anchor": "end"},
            "duplicate_sequences": "drop",
            "negatives": {"kind": "markov", "markov_order": 2},
        },
        split={"group_by": ["homology"]},
        train={"augment": {"shift_bp": 5, "mutation_rate": 0.02, "only_labels": [0.0]}},
    )


def annotated(work: Path) -> dict[str, Any]:
    """Genome and GFF3: promoters by strand, negatives from the same genome, overlaps kept together, pretraining."""
    return run_of(
        write_samples(work, "annotated", path="yeast.gff3", genome="yeast.fa", label="1"),
        {"kind": "binary", "targets": ["label"]},
        {
            "regions": {"feature": "gene", "upstream": 200, "downstream": 50, "name_attribute": "ID"},
            "negatives": {"kind": "genomic", "genome": "yeast.fa"},
        },
        split={"group_by": ["overlap"]},
        pretrain={"fasta": ["yeast.fa"], "max_windows": 500, "epochs": 1},
    )


def peaks(work: Path, genome: dict[str, str]) -> dict[str, Any]:
    """narrowPeak with a bigWig and a BAM as two targets."""
    import pyBigWig

    draw = np.random.default_rng(3)
    rows, reads = [], []
    for contig, sequence in genome.items():
        for i, start in enumerate(range(1_000, len(sequence) - 1_000, 2_500)):
            rows.append(
                f"{contig}\t{start}\t{start + 300}\tpeak_{contig}_{i}\t500\t.\t7.5\t-1\t-1\t{int(draw.integers(300))}"
            )
            reads += [(contig, int(start + at)) for at in draw.integers(0, 250, int(draw.integers(1, 20)))]
    (work / "peaks.narrowPeak").write_text("track type=narrowPeak\n" + "\n".join(rows) + "\n")
    signal = pyBigWig.open(str(work / "gc.bw"), "w")
    signal.addHeader([(contig, len(sequence)) for contig, sequence in genome.items()])
    for contig, sequence in genome.items():
        is_gc = np.isin(np.frombuffer(sequence.upper().encode(), dtype="S1"), [b"G", b"C"]).astype(float)
        signal.addEntries(contig, 0, values=is_gc.tolist(), span=1, step=1)
    signal.close()
    contigs = list(genome)
    header = {"HD": {"VN": "1.6", "SO": "coordinate"}, "SQ": [{"SN": c, "LN": len(s)} for c, s in genome.items()]}
    with pysam.AlignmentFile(str(work / "reads.bam"), "wb", header=header) as bam:
        for number, (contig, start) in enumerate(sorted(reads, key=lambda read: (contigs.index(read[0]), read[1]))):
            read = pysam.AlignedSegment(bam.header)
            read.query_name, read.query_sequence = f"read{number}", genome[contig][start : start + 30]
            read.reference_id, read.reference_start, read.cigarstring = contigs.index(contig), start, "30M"
            read.mapping_quality = 60
            bam.write(read)
    return run_of(
        write_samples(work, "peaks", path="peaks.narrowPeak", genome="yeast.fa", signal="gc=gc.bw,reads=reads.bam"),
        {"kind": "regression", "targets": ["gc", "reads"]},
        {"regions": {"upstream": 100, "downstream": 100}},
        split={"group_by": ["overlap"], "overlap_distance_bp": 10},
    )


def expression(work: Path) -> dict[str, Any]:
    """Parquet with two targets, read by a model on learned words."""
    table = pd.read_csv(DATA / "deboer2020_yeast_native" / "native_tidy.tsv.gz", sep="\t").iloc[::80]
    table.to_parquet(work / "expression.parquet", index=False)
    return run_of(
        write_samples(work, "expression", path="expression.parquet", sequence_column="sequence", name_column="id"),
        {"kind": "regression", "targets": ["rep1", "rep2"]},
        split={"group_by": ["homology"]},
        model={"tokenizer": {"kind": "bpe", "vocabulary": 128}, "stem": NO_STEM},
    )


def kircher_vcf(work: Path) -> None:
    """Measured variants of three promoters as a VCF on a genome that holds these promoters alone."""
    table = pd.read_csv(DATA / "kircher2019_satmut" / "elements.tsv.gz", sep="\t", dtype={"Chrom": str, "Pos": "Int64"})
    table = table[(table["Release"] == "GRCh38") & (table["Barcodes"] >= 10) & (table["Alt"] != "-")]
    contigs, lines = [], []
    for element in ("LDLR", "F9", "TERT-GBM"):
        part = table[table["Element"] == element].sort_values("Pos")
        first, last = int(part["Pos"].min()), int(part["Pos"].max())
        letters = ["N"] * (last - first + 1)
        for position, letter in zip(part["Pos"], part["Ref"], strict=True):
            letters[position - first] = letter
        contigs.append((element, "".join(letters)))
        lines += [
            f"{element}\t{row.Pos - first + 1}\t.\t{row.Ref}\t{row.Alt}\t.\tPASS\teffect={row.Coefficient}"
            for row in part.itertuples()
        ]
    (work / "elements.fa").write_text("".join(f">{name}\n{sequence}\n" for name, sequence in contigs))
    header = ["##fileformat=VCFv4.2", '##INFO=<ID=effect,Number=A,Type=Float,Description="log2 effect">']
    header += [f"##contig=<ID={name},length={len(sequence)}>" for name, sequence in contigs]
    header.append("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO")
    (work / "elements.vcf").write_text("\n".join([*header, *lines]) + "\n")


def variants(work: Path) -> dict[str, Any]:
    """VCF: one sequence per variant, target from INFO, read by a model on 3-mers."""
    kircher_vcf(work)
    return run_of(
        write_samples(work, "variants", path="elements.vcf", genome="elements.fa"),
        {"kind": "regression", "targets": ["effect"]},
        {"variants": {"window_bp": 120}, "regions": {"off_end": "pad"}},
        model={"tokenizer": {"kind": "kmer", "k": 3, "stride": 3}, "stem": NO_STEM},
    )


def haplotypes(work: Path, genome: dict[str, str]) -> dict[str, Any]:
    """Phased VCF and BED: two sequences per region and individual, with labels by name."""
    draw = np.random.default_rng(5)
    contig, sequence = next(iter(genome.items()))
    starts = list(range(5_000, 200_000, 4_000))
    (work / "loci.bed").write_text(
        "".join(f"{contig}\t{s}\t{s + 120}\tlocus{i}\t0\t{'+-'[i % 2]}\n" for i, s in enumerate(starts))
    )
    lines, labels = [], ["name\ty"]
    for i, start in enumerate(starts):
        position = start + int(draw.integers(10, 110))
        reference = sequence[position].upper()
        alternative = "ACGT"[("ACGT".index(reference) + 1) % 4]
        calls = draw.integers(0, 2, (2, 2))
        genotypes = "\t".join("|".join(map(str, call)) for call in calls)
        lines.append(f"{contig}\t{position + 1}\t.\t{reference}\t{alternative}\t.\tPASS\t.\tGT\t{genotypes}")
        labels += [f"locus{i}|{who}|h{h + 1}\t{calls[p][h] + i / 50}" for p, who in enumerate("AB") for h in range(2)]
    header = f"##fileformat=VCFv4.2\n##contig=<ID={contig},length={len(sequence)}>\n" + (
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">\n'
    )
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tA\tB\n"
    (work / "people.vcf").write_text(header + columns + "\n".join(lines) + "\n")
    (work / "people_labels.tsv").write_text("\n".join(labels) + "\n")
    return run_of(
        write_samples(
            work, "haplotypes", path="people.vcf", genome="yeast.fa", regions="loci.bed", labels="people_labels.tsv"
        ),
        {"kind": "regression", "targets": ["y"]},
        {"variants": {"target_from": "labels"}},
        split={"group_by": ["column"], "column": "group"},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, make_clone):
    """All inputs in one workflow."""
    if not DATA.is_dir():
        pytest.skip("the real data are not on this machine")
    clone = make_clone(tmp_path_factory.mktemp("inputs"))
    genome = yeast_genome(clone.work)
    runs = {
        "flies": flies(clone.work),
        "annotated": annotated(clone.work),
        "peaks": peaks(clone.work, genome),
        "expression": expression(clone.work),
        "variants": variants(clone.work),
        "haplotypes": haplotypes(clone.work, genome),
    }
    clone.write_config({"results": "results", "runs": runs})
    clone.run("--configfile", "config.yaml", "--show-failed-logs")
    return clone


@pytest.mark.parametrize("run", ["flies", "annotated", "peaks", "expression", "variants", "haplotypes"])
def test_every_input_ends_in_a_report(finished, run):
    """Each kind of input gives sequences, a leakage audit, a scored model, and a report that names the sequences."""
    results = finished.work / "results" / run
    table = read_parquet(results / "data" / "sequences.parquet")
    assert len(table) > 100 and table["name"].is_unique
    assert len(read_tsv(results / "split" / "audit.tsv"))
    assert "transformer" in set(read_tsv(results / "evaluation" / "metrics.tsv")["model"])
    assert f"{len(table):,}" in (results / "report.html").read_text()


def test_promoters_of_both_strands_are_where_the_annotation_says(finished):
    """Sequences of yeast genes equal slices of the genome, reverse-complemented on the minus strand."""
    genome = {r.header.split()[0]: r.sequence.upper() for r in read_fasta(finished.work / "yeast.fa")}
    table = read_parquet(finished.work / "results" / "annotated" / "data" / "sequences.parquet")
    promoters = table[table["label"] == 1].set_index("name")
    seen = set()
    for line in (finished.work / "yeast.gff3").read_text().splitlines():
        cells = line.split("\t")
        if len(cells) < 9 or cells[2] != "gene":
            continue
        name = dict(pair.split("=", 1) for pair in cells[8].rstrip(";").split(";"))["ID"]
        if name not in promoters.index:
            continue
        first, last, strand = int(cells[3]), int(cells[4]), cells[6]
        # 1-based closed: the TSS is the first base of a gene on +, its last on -.
        start, end = (first - 1 - 200, first - 1 + 50) if strand == "+" else (last - 50, last + 200)
        expected = genome[cells[0]][start:end]
        expected = expected if strand == "+" else reverse_complement(expected)
        assert promoters.loc[name, "sequence"] == expected, name
        seen.add(strand)
    assert seen == {"+", "-"} and len(promoters) > 500


def test_signal_targets_are_those_of_the_files(finished):
    """The bigWig target of a peak is the GC content of its sequence, since that is what the file holds."""
    table = read_parquet(finished.work / "results" / "peaks" / "data" / "sequences.parquet")
    gc = table["sequence"].str.count("[GC]") / table["length"]
    assert np.allclose(table["gc"], gc, atol=1e-5)
    assert (table["reads"] == table["reads"].round()).all() and table["reads"].max() > 5


def test_variants_change_one_base(finished):
    """Every sequence of a single-base variant differs from the reference window in that base alone."""
    genome = {r.header: r.sequence for r in read_fasta(finished.work / "elements.fa")}
    table = read_parquet(finished.work / "results" / "variants" / "data" / "sequences.parquet")
    for row in table.sample(200, random_state=1).itertuples():
        contig, position, change = row.name.split(":")
        reference, alternative = change.split(">")
        letters = genome[contig]
        window = [letters[i] if 0 <= i < len(letters) else "N" for i in range(int(row.start), int(row.end))]
        inside = int(position) - 1 - int(row.start)
        assert window[inside] == reference
        window[inside] = alternative
        assert row.sequence == "".join(window), row.name
