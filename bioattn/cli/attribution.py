"""Verb `attribution`: what each base does to the readout of one model, by substitution, gradients and attention."""

from pathlib import Path
from typing import Annotated

import typer

from bioattn.cli.network import load_network
from bioattn.cli.options import Fold, Model, Run, Sequences, Settings, Split, progress_bar, step_record
from bioattn.config import load_run
from bioattn.explain.attribution import attribution_table, attributions
from bioattn.explain.edge_sufficiency import edge_sufficiency
from bioattn.explain.faithfulness import faithfulness
from bioattn.explain.ism import ism, ism_table
from bioattn.explain.sample import held_out_sample
from bioattn.explain.tracks import head_tracks, token_places, track_table
from bioattn.io.files import replacing_folder
from bioattn.io.tables import read_parquet, write_parquet, write_tsv


def attribution(
    settings: Settings,
    sequences: Sequences,
    split: Split,
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for mutagenesis, attributions and how faithful they are.")],
    fold: Fold = 0,
    run: Run = None,
) -> None:
    """Attribute the readout to bases of held-out sequences, and test which attribution says what the model does."""
    chosen = load_run(settings, run)
    network, trained = load_network(model)
    sample = held_out_sample(chosen, read_parquet(sequences), read_parquet(split), fold=fold)
    n, readout = chosen.explain.ism_sequences, chosen.task.readout
    codes, names = sample.held_out[:n], sample.held_out_names[:n]
    effect = ism(network, codes, readout=readout, progress=progress_bar("mutagenesis"))
    found = attributions(network, codes, effect, readout=readout, seed=chosen.seed)
    result = faithfulness(
        network,
        codes,
        found.values,
        effect,
        readout=readout,
        seed=chosen.seed,
        left_out=found.left_out,
        progress=progress_bar("deletion and insertion"),
    )
    tracks, edges = None, None
    if network.n_heads:
        tracks = head_tracks(network, codes, readout=readout)
        edges = edge_sufficiency(network, codes, readout=readout, seed=chosen.seed)
    record = step_record(chosen, "attribution", model_digest=trained["digest"], model_seed=trained["seed"], fold=fold)
    with replacing_folder(out) as folder:
        write_parquet(folder / "ism.parquet", ism_table(effect, codes, names), record)
        write_parquet(folder / "attributions.parquet", attribution_table(found, codes, names), record)
        if tracks is not None and edges is not None:
            write_tsv(folder / "edges.tsv", edges, record)
            table = track_table(tracks, token_places(network, codes), names, network.n_heads)
            write_parquet(folder / "head_tracks.parquet", table, record)
        write_tsv(folder / "curves.tsv", result.curves, record)
        write_tsv(folder / "faithfulness.tsv", result.summary, record)
    skipped = f"; left out: {', '.join(found.left_out)}" if found.left_out else ""
    typer.echo(f"{out}: {len(found.values)} attributions of {len(codes)} held-out sequences{skipped}")
