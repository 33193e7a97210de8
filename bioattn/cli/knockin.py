"""Verbs `screen` and `knockin`: motif pairs put into the same backgrounds of one model, alone and together."""

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from bioattn.causal import pair_tests
from bioattn.cli.network import load_network
from bioattn.cli.options import Fold, Hits, Model, Run, Sequences, Settings, Split, progress_bar, step_record
from bioattn.config import RunConfig, load_run
from bioattn.explain.library import load_library
from bioattn.explain.pairs import Geometry, PairData, pair_data
from bioattn.io.parts import finish_parts, make_in_parts
from bioattn.io.tables import read_parquet, read_tsv, write_parquet
from bioattn.models import SequenceModel

#: Pairs in a part that is written down when it is done.
_PART = 50


def screen(
    settings: Settings,
    sequences: Sequences,
    split: Split,
    hits: Hits,
    model: Model,
    out: Annotated[Path, typer.Option(help="Table of the readouts of all cells (parquet).")],
    fold: Fold = 0,
    run: Run = None,
) -> None:
    """Put all motif pairs, and pairs with a decoy, into a few backgrounds."""
    chosen, network, data, table, record = _read(settings, sequences, split, hits, model, fold, run)
    n = chosen.interactions.screen_backgrounds
    made = pair_tests.knock_in(chosen, network, data, table, n=n)
    pairs = pair_tests.screen_pairs(data, made)
    cells = make_in_parts(out, pairs, made.pairs, record, size=_PART, progress=progress_bar("knock-ins"))
    write_parquet(out, cells, record)
    finish_parts(out)
    typer.echo(f"{out}: {len(pairs)} pairs in {n} backgrounds")


def knockin(
    settings: Settings,
    sequences: Sequences,
    split: Split,
    hits: Hits,
    model: Model,
    candidates: Annotated[Path, typer.Option(help="Table of the verb candidates.")],
    out: Annotated[Path, typer.Option(help="Table of the readouts of all cells (parquet).")],
    syntax: Annotated[
        Path | None,
        typer.Option(
            help="Table of the epistasis in every arrangement (parquet); without it only the four cells are made."
        ),
    ] = None,
    fold: Fold = 0,
    run: Run = None,
) -> None:
    """Put chosen motif pairs into many backgrounds, with and without edges, and compare their arrangements."""
    chosen, network, data, table, record = _read(settings, sequences, split, hits, model, fold, run)
    n = chosen.interactions.backgrounds
    made = pair_tests.knock_in(chosen, network, data, table, n=n)
    pairs = pair_tests.tested(read_tsv(candidates))
    record = record | {"pairs": [list(pair) for pair in pairs], "edges": syntax is not None}
    whole = syntax is not None
    cells = make_in_parts(
        out, pairs, lambda some: made.pairs(some, edges=whole), record, size=_PART, progress=progress_bar("knock-ins")
    )
    if syntax is not None:
        arranged = pair_tests.syntax(chosen, network, data, table)
        arrangements = make_in_parts(
            syntax, pairs, arranged.pairs, record, size=_PART, progress=progress_bar("arrangements")
        )
        write_parquet(syntax, arrangements, record)
        finish_parts(syntax)
        cells = pd.concat([cells, made.pairs(made.decoy_pairs())], ignore_index=True)
    write_parquet(out, cells, record)
    finish_parts(out)
    typer.echo(f"{out}: {len(pairs)} pairs in {n} backgrounds")


def _read(
    settings: Path, sequences: Path, split: Path, hits: Path, model: Path, fold: int, run: str | None
) -> tuple[RunConfig, SequenceModel, PairData, pd.DataFrame, dict[str, Any]]:
    """Settings, model, motifs and sequences, and the provenance record."""
    chosen = load_run(settings, run)
    network, trained = load_network(model)
    table = read_parquet(sequences)
    data = pair_data(chosen, table, read_parquet(split), load_library(hits), fold=fold, geometry=Geometry.of(network))
    record = step_record(chosen, "coattention", model_digest=trained["digest"], model_seed=trained["seed"], fold=fold)
    return chosen, network, data, table, record | {"control": "decoy of the second motif; moved edge"}
