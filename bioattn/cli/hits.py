"""Verb `hits`: the motifs that pairs are made of, and where they are in all sequences."""

from pathlib import Path
from typing import Annotated

import typer

from bioattn.cli.options import Fold, Run, Sequences, Settings, Split, step_record
from bioattn.config import load_run
from bioattn.explain.library import save_library, scan_library
from bioattn.io.tables import read_parquet


def hits(
    settings: Settings,
    sequences: Sequences,
    split: Split,
    out: Annotated[Path, typer.Option(help="Folder for the motifs and their hits (parquet).")],
    fold: Fold = 0,
    run: Run = None,
) -> None:
    """Take one motif of each group of similar ones, and look for them in all sequences."""
    chosen = load_run(settings, run)
    library = scan_library(chosen, read_parquet(sequences), read_parquet(split), fold=fold)
    save_library(out, library, step_record(chosen, "hits", fold=fold))
    n_named = sum(len(names) for names in library.members)
    typer.echo(f"{out}: {len(library.hits)} hits of {len(library.motifs)} motifs, which stand for {n_named}")
