"""Verb `split`: which sequences are held out, and what they share with training."""

from pathlib import Path
from typing import Annotated

import typer

from bioattn.cli.options import Run, Sequences, Settings, step_record
from bioattn.config import load_run
from bioattn.data.audit import audit
from bioattn.data.splits import fold_columns, leakage
from bioattn.data.splits import split as split_sequences
from bioattn.io.files import replacing_folder
from bioattn.io.tables import read_parquet, write_parquet, write_tsv


def split(
    settings: Settings,
    sequences: Sequences,
    out: Annotated[Path, typer.Option(help="Folder for split.parquet, leakage.tsv, neighbours.parquet and audit.tsv.")],
    run: Run = None,
) -> None:
    """Hold out groups of related sequences, and measure leakage."""
    chosen = load_run(settings, run)
    table = read_parquet(sequences)
    subsets = split_sequences(table, chosen.split, chosen.task, seed=chosen.seed)
    audited = audit(table, subsets, chosen.split, chosen.task, seed=chosen.seed)
    record = step_record(chosen, "split")
    search = {**record, "search": audited.seeds._asdict()}
    with replacing_folder(out) as folder:
        write_parquet(folder / "split.parquet", subsets, record)
        write_tsv(folder / "leakage.tsv", leakage(table, subsets), record)
        write_parquet(folder / "neighbours.parquet", audited.neighbours, search)
        write_tsv(folder / "audit.tsv", audited.table, search)
    n_folds = len(fold_columns(subsets))
    test = audited.neighbours[audited.neighbours["subset"] == "test"]
    near = (test["identity"] >= chosen.split.leak_free_identity).mean()
    typer.echo(
        f"{out}: {len(subsets)} sequences in {subsets['group'].nunique()} groups, {n_folds} fold(s); {near:.1%} of the "
        f"test sequences have a training neighbour of identity {chosen.split.leak_free_identity:g} or more"
    )
