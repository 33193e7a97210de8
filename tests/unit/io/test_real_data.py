"""Ingest and split of real files, where they are at hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bioattn.config import RunConfig, parse_run
from bioattn.data import splits
from bioattn.data.sequences import Ingested
from bioattn.data.splits import leakage, split
from bioattn.errors import DataError
from bioattn.io.ingest import ingest
from bioattn.io.samples import read_samples

SharedData = Callable[[str], Path]
#: Positives are '>ECK.._reverse_3388263_[..', negatives '>Escherichia coli K-12 reverse 3292866_3292947' or strandless.
COORDINATES = r"(?:(?P<strand>forward|reverse)[_ ]|K-12 )(?P<start>\d+)_"


def read(folder: Path, samples: str, run: RunConfig) -> Ingested:
    (folder / "samples.tsv").write_text(samples)
    return ingest(read_samples(folder / "samples.tsv", run.task.targets), run.data, run.task, seed=run.seed)


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
