"""Verb `split`: which sequences are held out, and what they share with training."""

from pathlib import Path
from typing import Annotated

import typer

from bioattn.cli.options import Run, Sequences, Settings, step_record
from bioattn.config import load_run
from bioattn.data.splits import leakage
from bioattn.data.splits import split as split_sequences
from bioattn.io.files import replacing_folder
from bioattn.io.tables import read_parquet, write_parquet, write_tsv


def split(
    settings: Settings,
    sequences: Sequences,
    out: Annotated[Path, typer.Option(help="Folder for split.parquet and leakage.tsv.")],
    run: Run = None,
) -> None:
    """Hold out groups of related sequences, and measure leakage."""
    chosen = load_run(settings, run)
    table = read_parquet(sequences)
    subsets = split_sequences(table, chosen.split, chosen.task, seed=chosen.seed)
    record = step_record(chosen, "split")
    with replacing_folder(out) as folder:
        write_parquet(folder / "split.parquet", subsets, record)
        write_tsv(folder / "leakage.tsv", leakage(table, subsets), record)
    n_folds = sum(name.startswith("fold_") for name in subsets.columns)
    typer.echo(f"{out}: {len(subsets)} sequences in {subsets['group'].nunique()} groups, {n_folds} fold(s)")
