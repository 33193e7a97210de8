"""Verb `environment`: training sequences drawn anew, so that motifs keep other company."""

from pathlib import Path
from typing import Annotated

import typer

from bioattn.causal.environments import balanced_tables
from bioattn.cli.options import Fold, Hits, Run, Sequences, Settings, Split, step_record
from bioattn.config import load_run
from bioattn.explain.hits import presence_of
from bioattn.explain.library import load_library
from bioattn.io.files import replacing_folder
from bioattn.io.tables import read_parquet, write_parquet


def environment(
    settings: Settings,
    sequences: Sequences,
    split: Split,
    hits: Hits,
    kind: Annotated[str, typer.Option(help="cooccurrence or gc: what is balanced.")],
    out: Annotated[Path, typer.Option(help="Folder for sequences.parquet and split.parquet.")],
    fold: Fold = 0,
    run: Run = None,
) -> None:
    """Draw training sequences with weights, so that motifs are independent of each other, or of GC."""
    chosen = load_run(settings, run)
    table, library = read_parquet(sequences), load_library(hits)
    presence = presence_of(library.hits, len(table), len(library.motifs))
    made, parts, summary = balanced_tables(
        kind, table, read_parquet(split), presence, fold=fold, config=chosen.interactions, seed=chosen.seed
    )
    record = step_record(chosen, "hits", environment=kind, fold=fold, **summary)
    with replacing_folder(out) as folder:
        write_parquet(folder / "sequences.parquet", made, record)
        write_parquet(folder / "split.parquet", parts, record)
    share = f"{summary['effective_share']:.0%}"
    typer.echo(f"{out}: {summary['n_constraints']} constraints; weights leave {share} of the training sequences")
