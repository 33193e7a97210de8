"""Verb `bakeoff`: tokenizers compared on the run's own data."""

import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from bioattn.cli.options import Fold, Run, Sequences, Settings, Split, step_record
from bioattn.config import RunConfig, load_run
from bioattn.data.motif import Motif
from bioattn.explain.recovery import motif_recovery
from bioattn.explain.sample import held_out_sample
from bioattn.io.files import replacing_folder
from bioattn.io.motifs import load_motifs
from bioattn.io.tables import read_parquet, write_tsv
from bioattn.models import SequenceModel
from bioattn.train.bakeoff import bakeoff as compare


def bakeoff(
    settings: Settings,
    sequences: Sequences,
    split: Split,
    out: Annotated[
        Path, typer.Option(help="Folder for bakeoff.tsv and seeds.tsv; OUT.work keeps finished models' numbers.")
    ],
    fold: Fold = 0,
    run: Run = None,
) -> None:
    """Compare tokenizers on the run's data: accuracy, bits per base, motifs, speed; goes on after a kill."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("bioattn.train.bakeoff").setLevel(logging.INFO)
    chosen = load_run(settings, run)
    table, parts = read_parquet(sequences), read_parquet(split)
    # A tax group is a library to look names up in, not a list of what is in these sequences.
    named = chosen.motifs.has_matrices and not chosen.motifs.jaspar_tax_group
    motifs = load_motifs(chosen.motifs) if named or chosen.model.stem.kind == "pwm" else []
    result = compare(
        chosen,
        table,
        parts,
        fold=fold,
        work_dir=out.with_name(f"{out.name}.work"),
        motifs=motifs,
        recovery=_recovery(chosen, table, parts, motifs, fold) if named and chosen.model.has_attention else None,
    )
    record = step_record(chosen, "bakeoff", fold=fold)
    with replacing_folder(out) as folder:
        write_tsv(folder / "bakeoff.tsv", result.table, record)
        write_tsv(folder / "seeds.tsv", result.seeds, record)
    typer.echo(f"{out}: {len(result.table)} tokenizers, {len(result.seeds)} models{_best(result.table)}")


def _recovery(
    run: RunConfig, sequences: pd.DataFrame, split: pd.DataFrame, known: list[Motif], fold: int
) -> Callable[[SequenceModel], float]:
    """Share of the run's motifs that the heads of a model show."""
    sample = held_out_sample(run, sequences, split, fold=fold)
    return partial(
        motif_recovery,
        discovery=sample.discovery,
        held_out=sample.held_out,
        known=known,
        config=run.explain,
        readout=run.task.readout,
        seed=run.seed,
    )


def _best(table: pd.DataFrame) -> str:
    if table["metric"].isna().all():
        return ""
    best = table.iloc[int(table["metric"].argmax())]
    return f"; best {best['metric_name']} {best['metric']:.4f} ({best['tokenizer']})"
