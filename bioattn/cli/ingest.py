"""Verb `ingest`: samples.tsv to one checked table of sequences."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bioattn.config import FORMAT_VERSION, digest, load_run, step_settings
from bioattn.io.files import replacing_folder
from bioattn.io.ingest import ingest as read_sequences
from bioattn.io.samples import read_samples
from bioattn.io.tables import write_parquet, write_tsv


def ingest(
    settings: Annotated[Path, typer.Option(help="Settings of the step (JSON), or a configuration file (YAML).")],
    samples: Annotated[Path, typer.Option(help="samples.tsv: one row per file.")],
    out: Annotated[Path, typer.Option(help="Folder for sequences.parquet, rejected.tsv and summary.json.")],
    run: Annotated[str | None, typer.Option(help="Run, if the configuration file holds several.")] = None,
) -> None:
    """Read and check FASTA files and their labels."""
    chosen = load_run(settings, run)
    rows = read_samples(samples, chosen.task.targets)
    ingested = read_sequences(rows, chosen.data, chosen.task, seed=chosen.seed)
    record = {
        "step": "ingest",
        "digest": digest(step_settings(chosen, "ingest")),
        "seed": chosen.seed,
        "format": FORMAT_VERSION,
    }
    with replacing_folder(out) as folder:
        write_parquet(folder / "sequences.parquet", ingested.table, record)
        write_tsv(folder / "rejected.tsv", ingested.rejected, record)
        text = json.dumps({"record": record, **ingested.summary}, indent=1)
        (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    typer.echo(f"{out}: {len(ingested.table)} sequences, {ingested.summary['n_rejected']} records left out")
