"""Verb `interactions`: all evidence on every pair, and the verdict."""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from bioattn.causal.decide import COLUMNS
from bioattn.causal.interactions import interactions as combine
from bioattn.cli.options import Fold, Run, Sequences, Settings, Split, step_record
from bioattn.config import load_run
from bioattn.errors import DataError
from bioattn.explain.coattention import load_coattention
from bioattn.explain.pairs import Geometry, pair_data
from bioattn.io.files import replacing_folder
from bioattn.io.tables import read_parquet, read_tsv, write_tsv


def interactions(
    settings: Settings,
    sequences: Sequences,
    split: Split,
    candidates: Annotated[Path, typer.Option(help="Table of the verb candidates.")],
    coattention: Annotated[list[Path], typer.Option(help="Co-attention of one model; repeat for every replicate.")],
    knockout: Annotated[list[Path], typer.Option(help="Knock-outs in the same models, in the same order.")],
    out: Annotated[Path, typer.Option(help="Folder for interactions.tsv and columns.tsv.")],
    fold: Fold = 0,
    run: Run = None,
) -> None:
    """Combine replicates into one verdict for each pair."""
    chosen = load_run(settings, run)
    if len(coattention) != len(knockout):
        raise DataError(
            f"every replicate needs both tables, got {len(coattention)} co-attention, {len(knockout)} knock-out"
        )
    attention, records = zip(*map(load_coattention, coattention), strict=True)
    geometry = Geometry(**records[0]["geometry"])
    table = read_parquet(sequences)
    data = pair_data(chosen, table, read_parquet(split), fold=fold, geometry=geometry)
    result = combine(chosen, table, data, read_tsv(candidates), attention, [read_parquet(k) for k in knockout])
    record = step_record(chosen, "interactions", n_replicates=len(knockout), fold=fold)
    with replacing_folder(out) as folder:
        write_tsv(folder / "interactions.tsv", result, record)
        dictionary = pd.DataFrame(COLUMNS.items(), columns=["column", "definition"])
        write_tsv(folder / "columns.tsv", dictionary, record)
    counts = result["verdict"].value_counts()
    typer.echo(f"{out}: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
