"""Verb `ingest`: samples.tsv to one checked table of sequences."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bioattn.cli.options import Run, Settings, step_record
from bioattn.config import load_run
from bioattn.data.balance import balance_table, composition_table
from bioattn.io.files import replacing_folder
from bioattn.io.ingest import ingest as read_sequences
from bioattn.io.samples import read_samples
from bioattn.io.tables import write_parquet, write_tsv


def ingest(
    settings: Settings,
    samples: Annotated[Path, typer.Option(help="samples.tsv: one row per file.")],
    out: Annotated[
        Path, typer.Option(help="Folder for sequences.parquet, rejected, balance and composition.tsv, summary.json.")
    ],
    run: Run = None,
) -> None:
    """Read and check sequences, regions or variants, and their targets."""
    chosen = load_run(settings, run)
    rows = read_samples(samples, chosen.task.targets)
    ingested = read_sequences(rows, chosen.data, chosen.task, seed=chosen.seed)
    record = step_record(chosen, "ingest")
    with replacing_folder(out) as folder:
        write_parquet(folder / "sequences.parquet", ingested.table, record)
        write_tsv(folder / "rejected.tsv", ingested.rejected, record)
        balance = balance_table(ingested.table, chosen.task, before=ingested.before, seed=chosen.seed)
        write_tsv(folder / "balance.tsv", balance, record)
        composition = composition_table(ingested.table, chosen.task, seed=chosen.seed)
        write_tsv(folder / "composition.tsv", composition, record)
        text = json.dumps({"record": record, **ingested.summary}, indent=1)
        (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    left_out = sum(ingested.summary[key] for key in ("n_rejected", "n_merged", "n_duplicates_dropped"))
    typer.echo(f"{out}: {len(ingested.table)} sequences, {left_out} records left out")
