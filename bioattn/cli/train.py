"""Verb `train`: one model of one fold and seed."""

import json
import logging
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bioattn.cli.options import Fold, Run, Sequences, Settings, Split
from bioattn.config import load_run
from bioattn.io.files import replacing_folder
from bioattn.io.motifs import load_motifs
from bioattn.io.tables import read_parquet, write_tsv
from bioattn.models import save_model
from bioattn.train.fit import fit


def train(
    settings: Settings,
    sequences: Sequences,
    split: Split,
    out: Annotated[
        Path, typer.Option(help="Folder for weights, history and record; OUT.work keeps what a kill leaves.")
    ],
    fold: Fold = 0,
    seed: Annotated[int, typer.Option(min=0, help="Replicate.")] = 1,
    pretrained: Annotated[
        Path | None, typer.Option(help="Folder of the verb pretrain, for a run with a section `pretrain`.")
    ] = None,
    run: Run = None,
) -> None:
    """Train one model; resumes after a kill."""
    log_epochs()
    chosen = load_run(settings, run)
    motifs = load_motifs(chosen.motifs) if chosen.model.stem.kind == "pwm" else []
    work_dir = out.with_name(f"{out.name}.work")
    result = fit(
        chosen,
        sequences,
        read_parquet(split),
        fold=fold,
        seed=seed,
        work_dir=work_dir,
        motifs=motifs,
        pretrained=pretrained,
    )
    with replacing_folder(out) as folder:
        save_model(folder, result.model, config=chosen.model, motifs=motifs, record=result.record)
        short = {key: result.record[key] for key in ("step", "digest", "fold", "seed", "format")}
        write_tsv(folder / "history.tsv", result.history, short)
        write_record(folder, result.record)
    remove_checkpoints(work_dir)
    best = result.record["best_validation_loss"]
    typer.echo(
        f"{out}: {len(result.history)} epochs, best validation loss {best:.4f} at epoch {result.record['best_epoch']}"
    )


def log_epochs() -> None:
    """Show one line for each epoch where no progress bar is drawn, such as in a log file."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("bioattn.train").setLevel(logging.WARNING if sys.stderr.isatty() else logging.INFO)


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write run_record.json: all that is known of where a model came from."""
    (folder / "run_record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def remove_checkpoints(work_dir: Path) -> None:
    """Remove what a finished training needs no longer; logs stay."""
    for checkpoint in work_dir.glob("*.ckpt"):
        checkpoint.unlink(missing_ok=True)
    if not any(work_dir.iterdir()):
        shutil.rmtree(work_dir)
