"""Verb `knockout`: knock-outs of sites and of the attention edge between them, in one model."""

from pathlib import Path
from typing import Annotated

import typer

from bioattn.causal.motif_ablation import choose_instances, knock_out
from bioattn.cli.network import load_network
from bioattn.cli.options import Fold, Model, Run, Sequences, Settings, Split, progress_bar, step_record
from bioattn.config import load_run
from bioattn.explain.pairs import Geometry, pair_data
from bioattn.io.tables import read_parquet, read_tsv, write_parquet


def knockout(
    settings: Settings,
    sequences: Sequences,
    split: Split,
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
    data = pair_data(chosen, read_parquet(sequences), read_parquet(split), fold=fold, geometry=geometry)
    table = read_tsv(candidates)
    pairs = set(table.loc[table["tested"], ["motif_a", "motif_b"]].itertuples(index=False, name=None))
    rules = chosen.interactions
    instances = choose_instances(data.instances, pairs, most=rules.instances_per_pair, seed=chosen.seed)
    cells = knock_out(
        network,
        data.codes,
        data.hits,
        instances,
        data.pwms,
        occupied=data.occupied,
        flank_bp=data.flank_bp,
        draws=rules.draws,
        readout=chosen.task.readout,
        seed=chosen.seed,
        progress=progress_bar("knock-outs"),
    )
    record = step_record(chosen, "coattention", model_digest=trained["digest"], model_seed=trained["seed"], fold=fold)
    write_parquet(out, cells, record | {"control": "motif-free shuffle of the site; control locus; moved edge"})
    typer.echo(f"{out}: {len(instances)} instances of {len(pairs)} pairs, {rules.draws} draws")
