"""Verb `knockout`: knock-outs of sites and of the attention edge between them, in one model."""

from pathlib import Path
from typing import Annotated

import typer

from bioattn.causal import pair_tests
from bioattn.cli.network import load_network
from bioattn.cli.options import Fold, Hits, Model, Run, Sequences, Settings, Split, progress_bar, step_record
from bioattn.config import load_run
from bioattn.explain.library import load_library
from bioattn.explain.pairs import Geometry, pair_data
from bioattn.io.tables import read_parquet, read_tsv, write_parquet


def knockout(
    settings: Settings,
    sequences: Sequences,
    split: Split,
    hits: Hits,
    model: Model,
    candidates: Annotated[Path, typer.Option(help="Table of the verb candidates.")],
    out: Annotated[Path, typer.Option(help="Table of the readouts of all cells (parquet).")],
    fold: Fold = 0,
    run: Run = None,
) -> None:
    """Knock out motif pairs in real sequences, with and without the attention edge between them."""
    chosen = load_run(settings, run)
    network, trained = load_network(model)
    geometry = Geometry.of(network)
    data = pair_data(
        chosen, read_parquet(sequences), read_parquet(split), load_library(hits), fold=fold, geometry=geometry
    )
    table = read_tsv(candidates)
    cells = pair_tests.knock_outs(chosen, network, data, table, progress=progress_bar("knock-outs"))
    record = step_record(chosen, "coattention", model_digest=trained["digest"], model_seed=trained["seed"], fold=fold)
    write_parquet(out, cells, record | {"control": "motif-free shuffle of the site; control locus; moved edge"})
    n, draws = cells[["motif_a", "motif_b", "instance"]].drop_duplicates(), chosen.interactions.draws
    typer.echo(f"{out}: {len(n)} instances of {table['tested'].sum()} pairs, {draws} draws")
