"""Verb `pretrain`: weights to start from, learned from unlabelled sequences."""

from pathlib import Path
from typing import Annotated

import typer

from bioattn.cli.options import Run, Sequences, Settings, Split
from bioattn.cli.train import log_epochs, remove_checkpoints, write_record
from bioattn.config import load_run
from bioattn.io.files import replacing_folder
from bioattn.io.motifs import load_motifs
from bioattn.io.tables import read_parquet, write_tsv
from bioattn.models import save_model
from bioattn.train import pretrain as pretraining


def pretrain(
    settings: Settings,
    sequences: Sequences,
    split: Split,
    out: Annotated[
        Path, typer.Option(help="Folder for weights, history and record; OUT.work keeps what a kill leaves.")
    ],
    fasta: Annotated[
        list[Path] | None, typer.Option(help="Unlabelled sequences; by default the files that the settings name.")
    ] = None,
    run: Run = None,
) -> None:
    """Learn from unlabelled sequences to predict hidden bases; resumes after a kill."""
    log_epochs()
    chosen = load_run(settings, run)
    motifs = load_motifs(chosen.motifs) if chosen.model.stem.kind == "pwm" else []
    work_dir = out.with_name(f"{out.name}.work")
    result = pretraining.pretrain(
        chosen, sequences, read_parquet(split), fasta=fasta or (), work_dir=work_dir, motifs=motifs
    )
    record = result.record
    with replacing_folder(out) as folder:
        save_model(folder, result.model, config=chosen.model, motifs=motifs, record=record)
        write_tsv(folder / "history.tsv", result.history, {key: record[key] for key in ("step", "digest", "format")})
        write_record(folder, record)
    remove_checkpoints(work_dir)
    counts, alone = record["windows"], record["isolated_bits"]
    typer.echo(
        f"{out}: {counts['train']} windows ({counts['leaking']} left out that share bases with held-out sequences), "
        f"{record['validation_bits_per_base']:.4f} bits per hidden base at epoch {record['best_epoch']}"
        f"{'' if alone is None else f', {alone:.4f} for single ones'}; Markov models of order 0 and 3 need "
        f"{record['order0_bits']:.4f} and {record['order3_bits']:.4f}"
    )
