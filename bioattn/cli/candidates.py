"""Verb `candidates`: pairs whose co-attention passes, and the random sample of others that is tested with them."""

from pathlib import Path
from typing import Annotated

import typer

from bioattn.cli.options import Fold, Run, Sequences, Settings, Split, step_record
from bioattn.config import load_run
from bioattn.explain.coattention import candidate_table, load_coattention
from bioattn.explain.pairs import Geometry, choose_pairs, pair_data
from bioattn.io.tables import read_parquet, write_tsv


def candidates(
    settings: Settings,
    sequences: Sequences,
    split: Split,
    coattention: Annotated[list[Path], typer.Option(help="Co-attention of one model; repeat for every replicate.")],
    out: Annotated[Path, typer.Option(help="Table of all pairs (TSV).")],
    fold: Fold = 0,
    run: Run = None,
) -> None:
    """Choose the motif pairs that interventions will test."""
    chosen = load_run(settings, run)
    replicates, records = zip(*map(load_coattention, coattention), strict=True)
    geometry = Geometry(**records[0]["geometry"])
    data = pair_data(chosen, read_parquet(sequences), read_parquet(split), fold=fold, geometry=geometry)
    rules = chosen.interactions
    table = candidate_table(replicates, floor_bits=rules.attention_floor_bits, q_value=rules.q_value)
    table = choose_pairs(table, data, n_noncandidates=rules.n_noncandidates, seed=chosen.seed)
    record = step_record(chosen, "coattention", n_replicates=len(replicates), fold=fold)
    write_tsv(out, table, record)
    typer.echo(f"{out}: {table['candidate'].sum()} candidates, {table['tested'].sum()} of {len(table)} pairs to test")
