"""Options that several verbs share, and the provenance record of what they write."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bioattn.config import FORMAT_VERSION, RunConfig, digest, step_settings

Settings = Annotated[Path, typer.Option(help="Settings of the step (JSON), or a configuration file (YAML).")]
Run = Annotated[str | None, typer.Option(help="Run, if the configuration file holds several.")]
Sequences = Annotated[Path, typer.Option(help="sequences.parquet of the verb ingest.")]
Split = Annotated[Path, typer.Option(help="split.parquet of the verb split.")]
Hits = Annotated[Path, typer.Option(help="Folder of the verb hits.")]
Model = Annotated[Path, typer.Option(help="Folder of a trained model.")]
Fold = Annotated[int, typer.Option(min=0, help="Fold, which names the held-out sequences.")]


def step_record(run: RunConfig, step: str, **more: Any) -> dict[str, Any]:
    """Provenance record of a step's results: settings digest, seed, format, and what else the step says."""
    settings = step_settings(run, step)
    return {"step": step, "digest": digest(settings), "seed": run.seed, "format": FORMAT_VERSION, **more}


def progress_bar(label: str) -> Callable[[int, int], None] | None:
    """Callback (done, total) that draws a bar on a terminal; None elsewhere, where a bar would fill the log."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int) -> None:
        filled = 30 * done // total
        end = "\n" if done == total else ""
        sys.stderr.write(f"\r{label} [{'#' * filled}{'.' * (30 - filled)}] {done}/{total}{end}")
        sys.stderr.flush()

    return show
