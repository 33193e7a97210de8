"""Small inputs that come with the project."""

import hashlib
import re
from pathlib import Path

import pytest

from bioattn.config import parse_run
from bioattn.data.sequences import Ingested
from bioattn.io.ingest import ingest
from bioattn.io.samples import read_samples


@pytest.fixture(scope="module")
def lac(root: Path) -> Ingested:
    run = parse_run({"task": {"kind": "regression", "targets": ["expression"]}})
    samples = read_samples(root / "resources" / "lac" / "samples.tsv", run.task.targets)
    return ingest(samples, run.data, run.task, seed=1)


def test_checksums_match_sources(root: Path) -> None:
    """Every resource whose checksum SOURCES.md states has it, and the lac table is among them."""
    text = (root / "resources" / "SOURCES.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"sha256 of `([^`]+/[^`]+)`: `([0-9a-f]{64})`", text))
    assert "lac/lac_sortseq.tsv.gz" in stated
    for name, digest in stated.items():
        assert hashlib.sha256((root / "resources" / name).read_bytes()).hexdigest() == digest, name


def test_licence_comes_with_the_data(root: Path) -> None:
    """The notice that the licence of the lac table asks for lies beside it."""
    notice = (root / "resources" / "lac" / "LICENSE").read_text(encoding="utf-8")
    assert "Copyright (c) 2020 Ammar Tareen, Justin B. Kinney" in notice
    assert "The above copyright notice and this permission notice shall be included" in notice


def test_lac_has_the_published_counts(lac: Ingested) -> None:
    """50,518 unique 75-nt variants with the split of the source and bins 0 to 9."""
    table = lac.table
    assert len(table) == table["sequence"].nunique() == 50_518
    assert table["length"].eq(75).all()
    assert table["split_given"].value_counts().to_dict() == {"train": 30_516, "validation": 10_067, "test": 9_935}
    assert table["expression"].between(0, 9).all()


def test_lac_consensus_is_the_wild_type(lac: Ingested) -> None:
    """The commonest base at every position spells the wild type, with 12 % mutations."""
    wild_type = "AATTAATGTGAGTTAGCTCACTCATTAGGCACCCCAGGCTTTACACTTTATGCTTCCGGCTCGTATGTTGTGTGG"
    columns = list(zip(*lac.table["sequence"], strict=True))
    assert "".join(max("ACGT", key=column.count) for column in columns) == wild_type
    kept = sum(column.count(base) for column, base in zip(columns, wild_type, strict=True))
    assert 1 - kept / (75 * 50_518) == pytest.approx(0.12, abs=0.01)
