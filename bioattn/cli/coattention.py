"""Verb `coattention`: co-attention of all motif pairs in one model."""

from pathlib import Path
from typing import Annotated

import typer

from bioattn.causal.pair_tests import measure_coattention
from bioattn.cli.network import load_network
from bioattn.cli.options import Fold, Hits, Model, Run, Sequences, Settings, Split, step_record
from bioattn.config import load_run
from bioattn.explain.coattention import save_coattention
from bioattn.explain.library import load_library
from bioattn.explain.pairs import Geometry, pair_data
from bioattn.io.tables import read_parquet


def coattention(
    settings: Settings,
    sequences: Sequences,
    split: Split,
    hits: Hits,
    model: Model,
    out: Annotated[Path, typer.Option(help="File for the co-attention of all pairs and its null (npz).")],
    fold: Fold = 0,
    run: Run = None,
) -> None:
    """Measure co-attention of motif pairs against permuted identities."""
    chosen = load_run(settings, run)
    network, trained = load_network(model)
    geometry = Geometry.of(network)
    data = pair_data(
        chosen, read_parquet(sequences), read_parquet(split), load_library(hits), fold=fold, geometry=geometry
    )
    result = measure_coattention(chosen, network, data)
    record = step_record(chosen, "coattention", model_digest=trained["digest"], model_seed=trained["seed"], fold=fold)
    save_coattention(out, result, record | {"geometry": geometry._asdict()})
    typer.echo(f"{out}: {len(data.instances)} pair instances of {data.n_motifs} motifs in {len(data.codes)} sequences")
