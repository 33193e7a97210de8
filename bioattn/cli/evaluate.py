"""Verb `evaluate`: held-out scores of all trained models of a run, next to baselines."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from bioattn.config import FORMAT_VERSION, digest, load_run, step_settings
from bioattn.io.files import replacing_folder
from bioattn.io.tables import read_parquet, write_parquet, write_tsv
from bioattn.train.evaluate import evaluate as evaluate_models
from bioattn.train.evaluate import load_models


def evaluate(
    settings: Annotated[Path, typer.Option(help="Settings of the step (JSON), or a configuration file (YAML).")],
    sequences: Annotated[Path, typer.Option(help="sequences.parquet of the verb ingest.")],
    split: Annotated[Path, typer.Option(help="split.parquet of the verb split.")],
    model: Annotated[list[Path], typer.Option(help="Folder of a trained model; repeat for every fold and seed.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.tsv, predictions.parquet and curves.parquet.")],
    run: Annotated[str | None, typer.Option(help="Run, if the configuration file holds several.")] = None,
) -> None:
    """Score trained models and baselines on held-out sequences."""
    chosen = load_run(settings, run)
    work_dir = out.with_name(f"{out.name}.work")
    result = evaluate_models(
        chosen, read_parquet(sequences), read_parquet(split), load_models(model), work_dir=work_dir
    )
    record = {
        "step": "evaluate",
        "digest": digest(step_settings(chosen, "evaluate")),
        "seed": chosen.seed,
        "format": FORMAT_VERSION,
        "baselines": result.baselines,
    }
    with replacing_folder(out) as folder:
        write_tsv(folder / "metrics.tsv", result.metrics, record)
        write_parquet(folder / "predictions.parquet", result.predictions, record)
        write_parquet(folder / "curves.parquet", result.curves, record)
    # Only after success: until then its checkpoints let the next call go on.
    shutil.rmtree(work_dir, ignore_errors=True)
    typer.echo(f"{out}: {len(model)} models and {len(result.baselines)} baselines scored")
