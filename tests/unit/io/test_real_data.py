"""Ingest and split of real files, where they are at hand."""

import gzip
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bioattn.config import RunConfig, parse_run
from bioattn.data import splits
from bioattn.data.alphabet import reverse_complement
from bioattn.data.sequences import Ingested
from bioattn.data.splits import leakage, split
from bioattn.errors import DataError
from bioattn.io.genome import Genome
from bioattn.io.ingest import ingest
from bioattn.io.samples import read_samples

SharedData = Callable[[str], Path]
#: Positives are '>ECK.._reverse_3388263_[..', negatives '>Escherichia coli K-12 reverse 3292866_3292947' or strandless.
COORDINATES = r"(?:(?P<strand>forward|reverse)[_ ]|K-12 )(?P<start>\d+)_"


def read(folder: Path, samples: str, run: RunConfig) -> Ingested:
    (folder / "samples.tsv").write_text(samples)
    return ingest(read_samples(folder / "samples.tsv", run.task.targets), run.data, run.task, seed=run.seed)


def read_whole(path: Path) -> dict[str, str]:
    """Sequences of a FASTA file by name, read at one go."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    parts = (record.split("\n", 1) for record in text.split(">")[1:])
    return {head.split()[0]: body.replace("\n", "") for head, body in parts}


@pytest.fixture(scope="module")
def yeast_genome(tmp_path_factory: pytest.TempPathFactory, shared_data: SharedData) -> Path:
    """Folder with chromosomes I and II in one FASTA file, and their annotation."""
    source = shared_data("dna/debian_yeast_chr1_2")
    folder = tmp_path_factory.mktemp("genome")
    (folder / "g.fa").write_bytes((source / "chr1.fa").read_bytes() + (source / "chr2.fa").read_bytes())
    (folder / "a.gff3").write_bytes((source / "yeast_chr1+2.gff3").read_bytes())
    return folder


def annotated(folder: Path, **regions: Any) -> Ingested:
    samples = f"sample\tpath\tgenome\tlabel\nyeast\t{folder / 'a.gff3'}\t{folder / 'g.fa'}\t1\n"
    data = {"regions": regions, "on_bad_record": "skip", "negatives": {"kind": "mononucleotide_shuffle"}}
    done = read(folder, samples, parse_run({"data": data}))
    return Ingested(done.table[done.table["label"] == 1], done.rejected, done.summary)


def gff_lines(folder: Path, feature: str) -> list[list[str]]:
    rows = (line.split("\t") for line in (folder / "a.gff3").read_text().splitlines() if not line.startswith("#"))
    return [row for row in rows if len(row) == 9 and row[2] == feature]


def test_yeast_promoters_of_both_strands(yeast_genome: Path) -> None:
    """All 573 genes are accounted for, and every promoter is the slice of its chromosome, on its own strand."""
    done = annotated(yeast_genome, upstream=200, downstream=50)
    genes = gff_lines(yeast_genome, "gene")
    assert len(genes) == 573 == len(done.table) + len(done.rejected) == done.summary["n_read"]
    letters = read_whole(yeast_genome / "g.fa")
    table = done.table.set_index("name")
    strands: Counter[str] = Counter()
    for contig, _, _, first, last, _, strand, _, attributes in genes:
        name = attributes.partition("ID=")[2].partition(";")[0]
        if name not in table.index:
            continue
        if strand == "+":
            expected = letters[contig][int(first) - 201 : int(first) + 49]
        else:
            expected = reverse_complement(letters[contig][int(last) - 50 : int(last) + 200])
        assert table.loc[name, "sequence"] == expected.upper(), name
        assert (table.loc[name, "chromosome"], table.loc[name, "strand"]) == (contig, strand)
        strands[strand] += 1
    assert strands.total() == len(table) and min(strands.values()) > 250
    assert done.rejected["reason"].str.contains("same place|beyond contig").all()


def test_yeast_coding_sequences_begin_with_a_start_codon(yeast_genome: Path) -> None:
    """The first downstream bases of the coding sequences are ATG: almost all, less introns and frameshifts."""
    done = annotated(yeast_genome, feature="CDS", upstream=20, downstream=20, name_attribute="Name", off_end="pad")
    starts = done.table["sequence"].str[20:23]
    for strand in "+-":
        assert starts[done.table["strand"] == strand].eq("ATG").mean() > 0.9, strand
    assert starts.str.len().eq(3).all()


def test_contigs_of_another_naming_are_diagnosed(yeast_genome: Path, tmp_path: Path) -> None:
    """A genome without 'chr' in its names is told apart from a wrong one, and taken on request."""
    (tmp_path / "g.fa").write_text((yeast_genome / "g.fa").read_text().replace(">chr", ">"))
    (tmp_path / "a.gff3").write_bytes((yeast_genome / "a.gff3").read_bytes())
    with pytest.raises(DataError, match=r"line \d+, '.*': .*no contig 'chrI', the file calls it 'I': set data.regions"):
        annotated(tmp_path)
    found = annotated(tmp_path, contig_names="chr_prefix").table
    assert found["sequence"].tolist() == annotated(yeast_genome).table["sequence"].tolist()
    assert set(found["chromosome"]) == {"I", "II"}


def test_regions_of_a_bacterial_genome(tmp_path: Path, shared_data: SharedData) -> None:
    """Regions of E. coli in random order are slices of the genome; as plain gzip it is refused with a way out."""
    packed = shared_data("dna/debian_ecoli536") / "NC_008253.fna.gz"
    with pytest.raises(DataError, match="found plain gzip.*bgzip"):
        Genome(packed)
    ((name, letters),) = read_whole(packed).items()
    (tmp_path / "g.fa").write_bytes(gzip.decompress(packed.read_bytes()))
    assert Genome(tmp_path / "g.fa").lengths == {name: len(letters)}
    draw = np.random.default_rng(1)
    rows = [
        (int(start), int(start + length), "+-"[i % 2])
        for i, (start, length) in enumerate(
            zip(draw.integers(0, len(letters) - 400, 3000), draw.integers(50, 400, 3000), strict=True)
        )
    ]
    (tmp_path / "a.bed").write_text("".join(f"{name}\t{s}\t{e}\tr{i}\t{i}\t{d}\n" for i, (s, e, d) in enumerate(rows)))
    run = parse_run({"task": {"kind": "regression", "targets": ["score"]}})
    table = read(tmp_path, "sample\tpath\tgenome\ns\ta.bed\tg.fa\n", run).table
    for found, (start, end, strand) in zip(table["sequence"], rows, strict=True):
        piece = letters[start:end]
        assert found == (piece if strand == "+" else reverse_complement(piece))


def test_fly_upstream_sequences_with_copies(tmp_path: Path, shared_data: SharedData) -> None:
    """Cut to the 250 bases before the TSS, each of the distinct ends of 26,454 lower-case records is kept once."""
    source = shared_data("dna/debian_dm3_upstream") / "dm3_upstream2000.fa.gz"
    settings: dict[str, Any] = {
        "data": {
            "length": {"bp": 250, "anchor": "end"},
            "duplicate_sequences": "drop",
            "header_pattern": r" (?P<chromosome>\w+):-?\d+-(?P<label>\d+)",
        },
        "task": {"kind": "regression", "targets": ["label"]},
    }
    done = read(tmp_path, f"sample\tpath\nfly\t{source}\n", parse_run(settings))
    records = gzip.decompress(source.read_bytes()).decode().split(">")[1:]
    ends = [record.partition("\n")[2].replace("\n", "")[-250:].upper() for record in records]
    assert len(ends) == 26_454 == done.summary["n_read"]
    assert done.table["sequence"].tolist() == list(dict.fromkeys(ends))
    assert done.summary["n_duplicates_dropped"] == 26_454 - len(set(ends)) == len(done.rejected)
    assert done.table["length"].eq(250).all() and "soft_masked" not in done.table


def promoters(source: Path) -> str:
    rows = [f"promoter\t{source / 'positive2860.txt'}\t1", f"other\t{source / 'negative2860.txt'}\t0"]
    return "sample\tpath\tlabel\n" + "\n".join(rows) + "\n"


def test_promoter_headers_share_their_first_word(tmp_path: Path, shared_data: SharedData) -> None:
    """The negatives' headers all begin alike: the error says which naming helps, and full headers do help."""
    samples = promoters(shared_data("dna/ipromoter2l"))
    with pytest.raises(DataError, match="negative2860.txt line 4: record 'Escherichia'.*number or full_header"):
        read(tmp_path, samples, parse_run({}))
    done = read(tmp_path, samples, parse_run({"data": {"name_from": "full_header"}}))
    assert done.table["sample"].value_counts().to_dict() == {"promoter": 2860, "other": 2860}
    assert done.table["length"].eq(81).all()
    assert done.summary["n_duplicate_sequences"] == 1


def test_promoters_grouped_by_coordinate(tmp_path: Path, shared_data: SharedData) -> None:
    """Coordinates from the headers group neighbours; folds never part starts closer than 81 bp."""
    settings: dict[str, Any] = {
        "data": {"name_from": "full_header", "header_pattern": COORDINATES},
        "split": {"group_by": ["coordinate"], "n_folds": 5},
    }
    run = parse_run(settings)
    table = read(tmp_path, promoters(shared_data("dna/ipromoter2l")), run).table
    assert table["start"].notna().all()
    positives = np.sort(table.loc[table["label"] == 1, "start"].to_numpy(dtype=int))
    gaps = np.diff(positives)
    near = (np.append(gaps, 10**6) < 40) | (np.append(10**6, gaps) < 40)
    assert near.sum() == 790, "positives with another one closer than 40 bp, as counted independently"
    folds = split(table, run.split, run.task, seed=1)
    order = np.argsort(table["start"].to_numpy(dtype=int), kind="stable")
    neighbours = np.flatnonzero(np.diff(table["start"].to_numpy(dtype=int)[order]) < 81)
    group = folds["group"].to_numpy()[order]
    assert (group[neighbours] == group[neighbours + 1]).all()
    assert folds.groupby("group").nunique().filter(like="fold_").eq(1).all(axis=None)


@pytest.fixture(scope="module")
def yeast(tmp_path_factory: pytest.TempPathFactory, shared_data: SharedData) -> pd.DataFrame:
    source = shared_data("dna/deboer2020_yeast_native") / "native_tidy.tsv.gz"
    run = parse_run({"task": {"kind": "regression", "targets": ["expression"]}})
    samples = f"sample\tpath\tsequence_column\tname_column\nyeast\t{source}\tsequence\tid\n"
    return read(tmp_path_factory.mktemp("yeast"), samples, run).table


def test_yeast_fragments_form_the_known_clusters(yeast: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared 20-mers of the given strand alone make 5,967 clusters, the largest 5,380, as counted independently."""

    def forward_only(bases: np.ndarray, k: int) -> np.ndarray:
        n_windows = len(bases) - k + 1
        return sum((bases[i : i + n_windows].astype(np.uint64) & 3) << np.uint64(2 * i) for i in range(k))

    monkeypatch.setattr(splits, "_canonical", forward_only)
    edges = [splits._chains(codes, rows) for codes, rows in splits.kmers(list(yeast["sequence"]), 20)]
    sizes = np.bincount(splits._components(len(yeast), edges))
    assert (len(sizes), sizes.max()) == (5967, 5380)


def test_yeast_split_by_clusters_leaks_nothing(yeast: pd.DataFrame) -> None:
    """With clusters held out no held-out fragment shares a 20-mer with training; by identity alone most do."""
    settings: dict[str, Any] = {"task": {"kind": "regression", "targets": ["expression"]}}
    grouped = parse_run({**settings, "split": {"group_by": ["shared_kmer"]}})
    free = parse_run(settings)
    strict = leakage(yeast, split(yeast, grouped.split, grouped.task, seed=1))
    loose = leakage(yeast, split(yeast, free.split, free.task, seed=1))
    assert strict["n_sharing_kmer_with_train"].eq(0).all()
    assert strict["n"].between(0.14 * len(yeast), 0.16 * len(yeast)).all()
    assert loose["fraction_sharing_kmer_with_train"].gt(0.5).all()
    assert loose["n_reverse_complement_of_train"].eq(0).all()
