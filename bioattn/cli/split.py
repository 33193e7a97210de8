"""Verb `split`: which sequences are held out, and what they share with training."""

from pathlib import Path
from typing import Annotated

import typer

from bioattn.config import FORMAT_VERSION, digest, load_run, step_settings
from bioattn.data.splits import leakage
from bioattn.data.splits import split as split_sequences
from bioattn.io.files import replacing_folder
from bioattn.io.tables import read_parquet, write_parquet, write_tsv


def split(
    settings: Annotated[Path, typer.Option(help="Settings of the step (JSON), or a configuration file (YAML).")],
    sequences: Annotated[Path, typer.Option(help="sequences.parquet of the verb ingest.")],
    out: Annotated[Path, typer.Option(help="Folder for split.parquet and leakage.tsv.")],
    run: Annotated[str | None, typer.Option(help="Run, if the configuration file holds several.")] = None,
) -> None:
    """Hold out groups of related sequences, and measure leakage."""
    chosen = load_run(settings, run)
    table = read_parquet(sequences)
    subsets = split_sequences(table, chosen.split, chosen.task, seed=chosen.seed)
    record = {
        "step": "split",
        "digest": digest(step_settings(chosen, "split")),
        "seed": chosen.seed,
        "format": FORMAT_VERSION,
    }
    with replacing_folder(out) as folder:
        write_parquet(folder / "split.parquet", subsets, record)
        write_tsv(folder / "leakage.tsv", leakage(table, subsets), record)
    n_folds = sum(name.startswith("fold_") for name in subsets.columns)
    typer.echo(f"{out}: {len(subsets)} sequences in {subsets['group'].nunique()} groups, {n_folds} fold(s)")
