"""Verb `evaluate`: held-out scores of all trained models of a run, next to baselines."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from bioattn.cli.options import Run, Sequences, Settings, Split, step_record
from bioattn.config import load_run
from bioattn.io.files import replacing_folder
from bioattn.io.motifs import load_motifs
from bioattn.io.tables import read_parquet, write_parquet, write_tsv
from bioattn.train.evaluate import evaluate as evaluate_models
from bioattn.train.evaluate import load_models


def evaluate(
    settings: Settings,
    sequences: Sequences,
    split: Split,
    model: Annotated[list[Path], typer.Option(help="Folder of a trained model; repeat for every fold and seed.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.tsv, predictions.parquet and curves.parquet.")],
    neighbours: Annotated[
        Path | None, typer.Option(help="neighbours.parquet of the verb split: scores leak-free test sequences apart.")
    ] = None,
    run: Run = None,
) -> None:
    """Score trained models and baselines on held-out sequences."""
    chosen = load_run(settings, run)
    # Only the recurrent baseline has the stem of the model.
    with_stem = {"rnn", "uniform"} & set(chosen.evaluate.baselines) and chosen.model.stem.kind == "pwm"
    motifs = load_motifs(chosen.motifs) if with_stem else []
    work_dir = out.with_name(f"{out.name}.work")
    result = evaluate_models(
        chosen,
        sequences,
        read_parquet(split),
        load_models(model),
        work_dir=work_dir,
        motifs=motifs,
        neighbours=None if neighbours is None else read_parquet(neighbours),
    )
    record = step_record(chosen, "evaluate", baselines=result.baselines)
    with replacing_folder(out) as folder:
        write_tsv(folder / "metrics.tsv", result.metrics, record)
        write_parquet(folder / "predictions.parquet", result.predictions, record)
        write_parquet(folder / "curves.parquet", result.curves, record)
    # Only after success: until then its checkpoints let the next call go on.
    shutil.rmtree(work_dir, ignore_errors=True)
    typer.echo(f"{out}: {len(model)} models and {len(result.baselines)} baselines scored")
