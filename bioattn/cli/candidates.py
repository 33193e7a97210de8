"""Verb `candidates`: pairs that are tested: co-attention passes, or the screen shows something, and a random sample."""

from pathlib import Path
from typing import Annotated

import typer

from bioattn.causal import pair_tests
from bioattn.cli.options import Fold, Hits, Run, Sequences, Settings, Split, step_record
from bioattn.config import load_run
from bioattn.explain.coattention import load_coattention
from bioattn.explain.library import load_library
from bioattn.explain.pairs import Geometry, pair_data
from bioattn.io.tables import read_parquet, write_tsv


def candidates(
    settings: Settings,
    sequences: Sequences,
    split: Split,
    hits: Hits,
    coattention: Annotated[list[Path], typer.Option(help="Co-attention of one model; repeat for every replicate.")],
    out: Annotated[Path, typer.Option(help="Table of all pairs (TSV).")],
    screen: Annotated[
        list[Path] | None, typer.Option(help="Table of the verb screen for the same model; repeat likewise.")
    ] = None,
    fold: Fold = 0,
    run: Run = None,
) -> None:
    """Choose the motif pairs that interventions will test."""
    chosen = load_run(settings, run)
    replicates, records = zip(*map(load_coattention, coattention), strict=True)
    geometry = Geometry(**records[0]["geometry"])
    data = pair_data(
        chosen, read_parquet(sequences), read_parquet(split), load_library(hits), fold=fold, geometry=geometry
    )
    table = pair_tests.pairs_to_test(chosen, data, replicates, [read_parquet(path) for path in screen or []])
    record = step_record(chosen, "coattention", n_replicates=len(replicates), fold=fold)
    write_tsv(out, table, record)
    typer.echo(f"{out}: {table['candidate'].sum()} candidates, {table['tested'].sum()} of {len(table)} pairs to test")
