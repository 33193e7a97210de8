"""From files to one table."""

import gzip
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bioattn.config import parse_run
from bioattn.data.alphabet import reverse_complement
from bioattn.data.sequences import Ingested
from bioattn.errors import DataError
from bioattn.io.ingest import ingest
from bioattn.io.samples import read_samples

SEQUENCES = ["".join(np.random.default_rng(i).choice(list("ACGT"), 23 + i)) for i in range(14)]


def fasta(names: list[str], sequences: list[str]) -> str:
    return "".join(f">{name}\n{sequence}\n" for name, sequence in zip(names, sequences, strict=True))


def read(folder: Path, samples: str, **sections: Any) -> Ingested:
    run = parse_run(sections)
    (folder / "samples.tsv").write_text(samples)
    return ingest(read_samples(folder / "samples.tsv", run.task.targets), run.data, run.task, seed=run.seed)


def test_two_files_with_constant_labels(tmp_path: Path) -> None:
    """Records of several files come in order with their sample and label; names may be numbered per sample."""
    (tmp_path / "p.fa").write_text(fasta(list("abcdefg"), SEQUENCES[:7]))
    (tmp_path / "n.fa.gz").write_bytes(gzip.compress(fasta(list("abcdefg"), SEQUENCES[7:]).encode()))
    samples = "sample\tpath\tlabel\npos\tp.fa\t1\nneg\tn.fa.gz\t0\n"
    done = read(tmp_path, samples, data={"name_from": "number"})
    assert done.table["sequence"].tolist() == SEQUENCES
    assert done.table["sample"].tolist() == ["pos"] * 7 + ["neg"] * 7
    assert done.table["label"].tolist() == [1.0] * 7 + [0.0] * 7
    assert done.table["name"].tolist()[6:8] == ["pos_000007", "neg_000001"]
    with pytest.raises(DataError, match=r"n\.fa\.gz line 1: record 'a'.*p\.fa line 1.*number"):
        read(tmp_path, samples)


def test_one_label_table_for_two_files(tmp_path: Path) -> None:
    """Files may share a label table: a label is unknown only if none of them has the record."""
    (tmp_path / "p.fa").write_text(fasta(list("abcdefg"), SEQUENCES[:7]))
    (tmp_path / "n.fa").write_text(fasta(list("hijklmn"), SEQUENCES[7:]))
    rows = "".join(f"{name},{i / 4},train\n" for i, name in enumerate("abcdefghijklmn"))
    (tmp_path / "y.csv").write_text("name,strength,split\n" + rows)
    samples = "sample\tpath\tlabels\npos\tp.fa\ty.csv\nneg\tn.fa\ty.csv\n"
    task = {"kind": "regression", "targets": ["strength"]}
    done = read(tmp_path, samples, task=task)
    assert done.table["strength"].tolist() == [i / 4 for i in range(14)]
    assert done.table["split_given"].eq("train").all()
    (tmp_path / "y.csv").write_text("name,strength,split\n" + rows + "zz,1,test\n")
    with pytest.raises(DataError, match=r"y\.csv line 16: record 'zz': found labels for a record that no"):
        read(tmp_path, samples, task=task)


def test_labels_need_their_columns_and_one_row_each(tmp_path: Path) -> None:
    """A label table without a target column, or with a name twice, raises with line and columns."""
    (tmp_path / "p.fa").write_text(fasta(list("abcdefghijklmn"), SEQUENCES))
    samples = "sample\tpath\tlabels\npos\tp.fa\ty.tsv\n"
    (tmp_path / "y.tsv").write_text("name\ty\na\t1\n")
    with pytest.raises(DataError, match=r"y\.tsv line 1: no column 'label', found name, y"):
        read(tmp_path, samples)
    (tmp_path / "y.tsv").write_text("name\tlabel\na\t1\na\t0\n")
    with pytest.raises(DataError, match=r"y\.tsv line 3, column 'name': found 'a', which line 2 has already"):
        read(tmp_path, samples)


@pytest.mark.parametrize("suffix", ["tsv", "tsv.gz", "csv", "parquet"])
def test_tables_with_sequences(tmp_path: Path, suffix: str) -> None:
    """A table gives names, sequences, targets, split and further columns, whatever its format."""
    table = pd.DataFrame(
        {"id": [f"v{i}" for i in range(14)], "seq": SEQUENCES, "y": np.arange(14) / 8, "split": "test"}
    )
    table["replicate"] = np.arange(14) / 4
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="," if suffix == "csv" else "\t", index=False)
    samples = f"sample\tpath\tsequence_column\tname_column\ns\tt.{suffix}\tseq\tid\n"
    done = read(tmp_path, samples, task={"kind": "regression", "targets": ["y"]}).table
    assert done["name"].tolist() == table["id"].tolist()
    assert done["sequence"].tolist() == SEQUENCES
    assert done["y"].tolist() == table["y"].tolist()
    assert done["replicate"].tolist() == table["replicate"].tolist()
    assert done["split_given"].eq("test").all()


def test_table_without_names_is_numbered(tmp_path: Path) -> None:
    """Rows without a name column are named by sample and number."""
    pd.DataFrame({"seq": SEQUENCES, "label": [0, 1] * 7}).to_csv(tmp_path / "t.csv", index=False)
    done = read(tmp_path, "sample\tpath\tsequence_column\ns\tt.csv\tseq\n").table
    assert done["name"].tolist()[:2] == ["s_000001", "s_000002"]


def test_bad_row_of_a_table_names_its_line(tmp_path: Path) -> None:
    """Records from tables are checked like FASTA records, with the line in the table."""
    rows = "".join(f"{s}\t{i % 2}\n" for i, s in enumerate([*SEQUENCES[:5], "ACGTJACGTACG", *SEQUENCES[5:]]))
    (tmp_path / "t.tsv").write_text("seq\tlabel\n" + rows)
    with pytest.raises(DataError, match=r"t\.tsv line 7: record 's_000006': found 'J' at position 5"):
        read(tmp_path, "sample\tpath\tsequence_column\ns\tt.tsv\tseq\n")


def test_empty_record_can_be_skipped(tmp_path: Path) -> None:
    """A record without a sequence is a bad record like others."""
    text = fasta(list("abcdefghijklmn"), SEQUENCES) + ">empty\n"
    (tmp_path / "p.fa").write_text(text)
    (tmp_path / "y.tsv").write_text(
        "name\tlabel\n" + "".join(f"{n}\t{i % 2}\n" for i, n in enumerate("abcdefghijklmn"))
    )
    samples = "sample\tpath\tlabels\npos\tp.fa\ty.tsv\n"
    with pytest.raises(DataError, match=r"p\.fa line 29: record 'empty': found no sequence"):
        read(tmp_path, samples)
    done = read(tmp_path, samples, data={"on_bad_record": "skip", "max_bad_fraction": 0.1})
    assert done.rejected["name"].tolist() == ["empty"]
    assert len(done.table) == 14


def test_negatives_are_made_on_request(tmp_path: Path) -> None:
    """Positives alone become a binary task by shuffling; without it, one class only raises."""
    (tmp_path / "p.fa").write_text(fasta(list("abcdefghijklmn"), SEQUENCES))
    samples = "sample\tpath\tlabel\npos\tp.fa\t1\n"
    with pytest.raises(DataError, match="one class only"):
        read(tmp_path, samples)
    done = read(tmp_path, samples, data={"negatives": {"kind": "dinucleotide_shuffle", "per_positive": 2}})
    assert done.table["label"].value_counts().to_dict() == {0.0: 28, 1.0: 14}
    assert done.summary["n_negatives_made"] == 28
    assert done.table["name"].is_unique


def test_summary_names_the_files_by_checksum(tmp_path: Path) -> None:
    """The summary holds the checksum of every file that was read."""
    (tmp_path / "p.fa").write_text(fasta(list("abcdefghijklmn"), SEQUENCES))
    done = read(tmp_path, "sample\tpath\tlabel\npos\tp.fa\t1\n", data={"negatives": {"kind": "dinucleotide_shuffle"}})
    digest = hashlib.sha256((tmp_path / "p.fa").read_bytes()).hexdigest()
    assert done.summary["files"] == [{"sample": "pos", "column": "path", "file": "p.fa", "sha256": digest}]


@pytest.mark.slow
def test_a_million_records_fit_into_two_gibibytes(tmp_path: Path) -> None:
    """A FASTA file of 1,000,000 records of 600 bp becomes a table on disk with at most 2 GiB of memory."""
    draw = np.random.default_rng(1)
    with (tmp_path / "p.fa").open("wb") as handle:
        for first in range(0, 1_000_000, 10_000):
            letters = np.frombuffer(b"ACGT", dtype="S1")[draw.integers(0, 4, (10_000, 600), dtype=np.uint8)]
            for i, row in enumerate(letters.view("S60").tolist(), first):
                handle.write(b">r%d\n%b\n" % (i, b"\n".join(row)))
    (tmp_path / "samples.tsv").write_text("sample\tpath\tlabel\np\tp.fa\t1\n")
    code = f"""
import resource
from bioattn.config import parse_run
from bioattn.data.sequences import build_table
from bioattn.io.ingest import read_records
from bioattn.io.samples import read_samples
from bioattn.io.tables import write_parquet
run = parse_run({{}})
(sample,) = read_samples({str(tmp_path / "samples.tsv")!r}, ["label"])
built = build_table(read_records(sample, run.data, ["label"], None), {{}}, rules=run.data, task=run.task, seed=1)
write_parquet({str(tmp_path / "s.parquet")!r}, built.table, {{}})
print(len(built.table), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    n, kilobytes = map(int, done.stdout.split())
    assert n == 1_000_000 and kilobytes < 2 * 2**20


def test_parquet_text_does_not_depend_on_missing_values(tmp_path: Path) -> None:
    """Whole numbers of a column with gaps stay whole numbers, so groups keep their names; an index is no column."""
    groups = [i // 3 for i in range(14)]
    columns = {"seq": SEQUENCES, "label": [0, 1] * 7, "group": [None, *groups[1:]], "day": [1.5] * 13 + [None]}
    pq.write_table(pa.table({**columns, "__index_level_0__": list(range(14))}), tmp_path / "t.parquet")
    done = read(tmp_path, "sample\tpath\tsequence_column\ns\tt.parquet\tseq\n").table
    assert done["group"].tolist() == [None, *map(str, groups[1:])]
    assert done["day"].tolist()[:13] == [1.5] * 13 and done["day"].isna().sum() == 1
    assert list(done.columns) == ["name", "sequence", "sample", "length", "split_given", "group", "label", "day"]


@pytest.mark.parametrize("damage", ["cut", "foreign", "middle"])
def test_damaged_parquet(tmp_path: Path, damage: str) -> None:
    """A parquet file that is incomplete, none at all, or spoilt inside raises with its name."""
    path = tmp_path / "t.parquet"
    pd.DataFrame({"seq": SEQUENCES * 50, "label": [0, 1] * 350}).to_parquet(path)
    data = path.read_bytes()
    spoilt = {"cut": data[:-20], "foreign": b"seq,label\n", "middle": data[:20] + b"\xff" * 200 + data[220:]}
    path.write_bytes(spoilt[damage])
    with pytest.raises(DataError, match=r"t\.parquet: not a complete parquet file \([^\n]*\)"):
        read(tmp_path, "sample\tpath\tsequence_column\ns\tt.parquet\tseq\n")


# --------------------------------------------------------------- regions of a genome

CONTIGS = {"chr1": "".join(np.random.default_rng(50).choice(list("ACGTacgt"), 900)), "chr2": "ACGTTGCAAC" * 60}
STARTS = [10 + 50 * i for i in range(14)]


def genome_and_bed(folder: Path, columns: str = "") -> None:
    (folder / "g.fa").write_text("".join(f">{name}\n{letters}\n" for name, letters in CONTIGS.items()))
    rows = [f"chr1\t{start}\t{start + 40}\tr{i}\t{i % 2}\t{'+-'[i % 2]}" for i, start in enumerate(STARTS)]
    (folder / "a.bed").write_text(columns + "\n".join(rows) + "\n")


def test_regions_become_sequences(tmp_path: Path) -> None:
    """Every region of a BED is a row with its sequence, its place and its further columns, one of them the target."""
    genome_and_bed(tmp_path)
    samples = "sample\tpath\tgenome\np\ta.bed\tg.fa\n"
    table = read(tmp_path, samples, task={"kind": "binary", "targets": ["score"]}).table
    assert table["name"].tolist() == [f"r{i}" for i in range(14)]
    assert table["chromosome"].eq("chr1").all() and table["start"].tolist() == STARTS
    assert (table["end"] - table["start"]).eq(40).all() and table["strand"].tolist() == ["+", "-"] * 7
    assert table["score"].tolist() == [0.0, 1.0] * 7
    for row in table.itertuples():
        letters = CONTIGS["chr1"][row.start : row.end]
        assert row.sequence == (letters.upper() if row.strand == "+" else reverse_complement(letters))
        oriented = letters if row.strand == "+" else letters[::-1]
        lower = "".join("x" if letter.islower() else "." for letter in oriented)
        spans = [span.split("-") for span in row.soft_masked.split(",")]
        assert lower == "".join("x" if any(int(a) <= i < int(b) for a, b in spans) else "." for i in range(40))


def test_labels_constants_and_splits_of_regions(tmp_path: Path) -> None:
    """Targets of regions may come from samples.tsv or a label table with a split; two sources are refused."""
    genome_and_bed(tmp_path)
    rows = "".join(f"r{i}\t{i / 2}\ttrain\n" for i in range(14))
    (tmp_path / "y.tsv").write_text("name\ty\tsplit\n" + rows)
    samples = "sample\tpath\tgenome\tlabels\np\ta.bed\tg.fa\ty.tsv\n"
    done = read(tmp_path, samples, task={"kind": "regression", "targets": ["y"]})
    assert done.table["y"].tolist() == [i / 2 for i in range(14)] and done.table["split_given"].eq("train").all()
    with pytest.raises(DataError, match=r"a\.bed: found a column 'score' beside the label or signal of samples\.tsv"):
        read(tmp_path, "sample\tpath\tgenome\tlabel\np\ta.bed\tg.fa\t1\n", task={"targets": ["score"]})


def test_merged_transcripts_keep_one_label(tmp_path: Path) -> None:
    """Of transcripts with one start one is kept, the others are listed, and their labels are no error."""
    genome_and_bed(tmp_path)
    lines, labels = [], ["name\tlabel"]
    for i, start in enumerate(STARTS):
        for letter in "ab":
            lines.append(f'chr1\tx\ttranscript\t{start + 1}\t{start + 30}\t.\t+\t.\ttranscript_id "t{i}{letter}"')
            labels.append(f"t{i}{letter}\t{i % 2}")
    (tmp_path / "a.gtf").write_text("\n".join(lines) + "\n")
    (tmp_path / "y.tsv").write_text("\n".join(labels) + "\n")
    regions = {"feature": "transcript", "upstream": 10, "downstream": 25}
    samples = "sample\tpath\tgenome\tlabels\np\ta.gtf\tg.fa\ty.tsv\n"
    done = read(tmp_path, samples, data={"regions": regions})
    assert done.table["name"].tolist() == [f"t{i}a" for i in range(14)]
    assert done.rejected["name"].tolist() == [f"t{i}b" for i in range(14)]
    counts = {key: done.summary[key] for key in ("n_read", "n_rejected", "n_merged", "n_sequences")}
    assert counts == {"n_read": 28, "n_rejected": 0, "n_merged": 14, "n_sequences": 14}
    kept = read(tmp_path, samples, data={"regions": {**regions, "same_place": "keep"}})
    assert len(kept.table) == 28


def test_bad_regions_are_listed_with_file_line_and_reason(tmp_path: Path) -> None:
    """Unusable lines of an annotation stop the run at the first, or are left out and listed."""
    genome_and_bed(tmp_path)
    with (tmp_path / "a.bed").open("a") as handle:
        handle.write("chr9\t1\t40\tx\t1\t+\nchr1\t880\t920\ty\t1\t+\n")
    samples = "sample\tpath\tgenome\np\ta.bed\tg.fa\n"
    task = {"targets": ["score"]}
    with pytest.raises(DataError, match=r"a\.bed line 15: record 'x': .*g\.fa: found no contig 'chr9', it has 2"):
        read(tmp_path, samples, task=task)
    done = read(tmp_path, samples, task=task, data={"on_bad_record": "skip", "max_bad_fraction": 0.2})
    assert done.rejected[["line", "name"]].to_numpy().tolist() == [[15, "x"], [16, "y"]]
    assert "chr1, which is 900 bp long" in done.rejected["reason"][1]
    assert len(done.table) == 14 and done.summary["n_read"] == 16


def test_signal_gives_targets(tmp_path: Path) -> None:
    """bigWig values over the regions are the target; what lies beyond a contig does not count."""
    import pyBigWig

    genome_and_bed(tmp_path)
    values = np.random.default_rng(3).integers(0, 9, 900).astype(float)
    with pyBigWig.open(str(tmp_path / "x.bw"), "w") as file:
        file.addHeader([("1", 900)])
        file.addEntries("1", 0, values=values.tolist(), span=1, step=1)
    with (tmp_path / "a.bed").open("a") as handle:
        handle.write("chr1\t880\t920\tlast\t1\t+\n")
    samples = "sample\tpath\tgenome\tsignal\np\ta.bed\tg.fa\tx.bw\n"
    settings: dict[str, Any] = {
        "data": {"regions": {"off_end": "pad", "contig_names": "chr_prefix"}},
        "task": {"kind": "regression", "targets": ["y"]},
    }
    done = read(tmp_path, samples, **settings)
    assert done.table["y"].tolist() == pytest.approx([values[s : s + 40].mean() for s in [*STARTS, 880]])
    assert done.table["sequence"].iloc[-1] == CONTIGS["chr1"][880:].upper() + "N" * 20
    assert [(f["column"], f["file"]) for f in done.summary["files"]] == [
        ("path", "a.bed"), ("genome", "g.fa"), ("signal y", "x.bw"),
    ]  # fmt: skip


def test_variants_become_sequences(tmp_path: Path) -> None:
    """Variants of a VCF are sequences around them, haplotypes of regions with a BED; a label applies to all."""
    genome_and_bed(tmp_path)
    letters = CONTIGS["chr1"].upper()
    lines = ["##fileformat=VCFv4.2", "##contig=<ID=chr1,length=900>"]
    lines += ['##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">']
    lines += ["\t".join("#CHROM POS ID REF ALT QUAL FILTER INFO FORMAT me".split())]
    for start in STARTS:
        other = "ACGT"[("ACGT".index(letters[start + 20]) + 1) % 4]
        lines.append(f"chr1\t{start + 21}\t.\t{letters[start + 20]}\t{other}\t.\t.\t.\tGT\t0|1")
    (tmp_path / "a.vcf").write_text("\n".join(lines) + "\n")
    windows = read(
        tmp_path, "sample\tpath\tgenome\tlabel\nv\ta.vcf\tg.fa\t1\n",
        data={
            "variants": {"window_bp": 20}, "regions": {"off_end": "pad"},
            "negatives": {"kind": "mononucleotide_shuffle"},
        },
    ).table  # fmt: skip
    assert windows["label"].value_counts().to_dict() == {1.0: 14, 0.0: 14}
    (tmp_path / "y.tsv").write_text(
        "name\tlabel\n" + "".join(f"r{i}|me|h{h}\t{h - 1}\n" for i in range(14) for h in (1, 2))
    )
    haplotypes = read(
        tmp_path, "sample\tpath\tgenome\tregions\tlabels\nv\ta.vcf\tg.fa\ta.bed\ty.tsv\n",
        data={"variants": {"target_from": "labels"}},
    ).table  # fmt: skip
    assert len(haplotypes) == 28
    for first, second in zip(haplotypes["sequence"][::2], haplotypes["sequence"][1::2], strict=True):
        assert sum(a != b for a, b in zip(first, second, strict=True)) == 1


def test_genomic_negatives_avoid_what_they_are_told_to(tmp_path: Path) -> None:
    """Genomic negatives come from the given genome, outside the positives and the excluded regions."""
    genome_and_bed(tmp_path)
    with (tmp_path / "g.fa").open("a") as handle:
        handle.write(">chr3\n" + "".join(np.random.default_rng(4).choice(list("ACGT"), 9000)) + "\n")
    (tmp_path / "no.bed").write_text("chr1\t0\t900\nchr2\t0\t600\nchr3\t0\t5000\n")
    samples = "sample\tpath\tgenome\tlabel\np\ta.bed\tg.fa\t1\n"
    negatives = {
        "kind": "genomic", "genome": str(tmp_path / "g.fa"), "exclude": [str(tmp_path / "no.bed")], "gc_tolerance": 0.2,
    }  # fmt: skip
    done = read(tmp_path, samples, data={"negatives": negatives})
    made = done.table[done.table["label"] == 0]
    assert len(made) == 14 and made["chromosome"].eq("chr3").all() and made["start"].ge(5000).all()
    assert done.before is not None and len(done.before)
    assert [(f["sample"], f["file"]) for f in done.summary["files"]] == [
        ("p", "a.bed"), ("p", "g.fa"), ("negatives", "g.fa"), ("negatives", "no.bed"),
    ]  # fmt: skip
