"""Verb `interactions`: all evidence on every pair, and the verdict."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from bioattn.causal.decide import COLUMNS
from bioattn.causal.interactions import Interventions, single_motifs
from bioattn.causal.interactions import interactions as combine
from bioattn.causal.motif_effects import COLUMNS as SINGLE_COLUMNS
from bioattn.causal.syntax import spacing_curves
from bioattn.cli.options import Fold, Hits, Run, Sequences, Settings, Split, step_record
from bioattn.config import load_run
from bioattn.errors import ConfigError, DataError
from bioattn.explain.coattention import load_coattention
from bioattn.explain.library import load_library
from bioattn.explain.pairs import Geometry, pair_data
from bioattn.io.files import replacing_folder
from bioattn.io.measured import read_measured
from bioattn.io.tables import read_parquet, read_tsv, write_parquet, write_tsv


def interactions(
    settings: Settings,
    sequences: Sequences,
    split: Split,
    hits: Hits,
    candidates: Annotated[Path, typer.Option(help="Table of the verb candidates.")],
    coattention: Annotated[list[Path], typer.Option(help="Co-attention of one model; repeat for every replicate.")],
    knockout: Annotated[list[Path], typer.Option(help="Knock-outs in the same models, in the same order.")],
    out: Annotated[Path, typer.Option(help="Folder for interactions.tsv, columns.tsv, spacing.tsv and motifs.tsv.")],
    screen: Annotated[list[Path] | None, typer.Option(help="Screen of all pairs in the same models.")] = None,
    knockin: Annotated[list[Path] | None, typer.Option(help="Knock-ins in the same models.")] = None,
    syntax: Annotated[list[Path] | None, typer.Option(help="Arrangements in the same models.")] = None,
    environment: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=FILE: knock-ins in a model trained in another environment; repeat for every replicate."
        ),
    ] = None,
    fold: Fold = 0,
    run: Run = None,
) -> None:
    """Combine replicates into one verdict for each pair."""
    chosen = load_run(settings, run)
    more = {"screen": screen or [], "knock-in": knockin or [], "syntax": syntax or []}
    counts = {"co-attention": len(coattention), "knock-out": len(knockout)} | {
        name: len(paths) for name, paths in more.items() if paths or any(more.values())
    }
    if len(set(counts.values())) > 1:
        raise DataError(
            "every replicate needs all tables, got " + ", ".join(f"{n} {name}" for name, n in counts.items())
        )
    attention, records = zip(*map(load_coattention, coattention), strict=True)
    geometry = Geometry(**records[0]["geometry"])
    table = read_parquet(sequences)
    data = pair_data(chosen, table, read_parquet(split), load_library(hits), fold=fold, geometry=geometry)
    knockouts, screens, knock_ins, syntaxes = (
        [read_parquet(path) for path in paths] for paths in (knockout, *more.values())
    )
    elsewhere = _by_environment(environment or [])
    interventions = Interventions(knockouts, screens, knock_ins, syntaxes, elsewhere)
    library = chosen.interactions.measured
    measured = None if library is None else read_measured(**library.model_dump(exclude={"least_backgrounds"}))
    result = combine(chosen, table, data, read_tsv(candidates), attention, interventions, measured=measured)
    record = step_record(chosen, "interactions", n_replicates=len(knockout), fold=fold)
    with replacing_folder(out) as folder:
        write_tsv(folder / "interactions.tsv", result, record)
        write_parquet(folder / "interactions.parquet", result, record)
        dictionary = pd.DataFrame(COLUMNS.items(), columns=["column", "definition"])
        write_tsv(folder / "columns.tsv", dictionary, record)
        curves = spacing_curves(interventions.syntaxes)
        if interventions.knock_ins:
            single = single_motifs(chosen, data, interventions)
            write_tsv(folder / "motifs.tsv", single, record)
            told = pd.DataFrame(SINGLE_COLUMNS.items(), columns=["column", "definition"])
            write_tsv(folder / "motif_columns.tsv", told, record)
        names = dict(enumerate(motif.name for motif in data.motifs))
        for end in ("a", "b"):
            curves.insert(0 if end == "a" else 1, f"tf_{end}", curves.pop(f"motif_{end}").map(names))
        write_tsv(folder / "spacing.tsv", curves, record)
    verdicts = result["verdict"].value_counts()
    typer.echo(f"{out}: " + ", ".join(f"{n} {verdict}" for verdict, n in verdicts.items()))


def _by_environment(named: Sequence[str]) -> dict[str, list[pd.DataFrame]]:
    """Tables of each environment, from NAME=FILE."""
    found: dict[str, list[pd.DataFrame]] = {}
    for word in named:
        name, mark, path = word.partition("=")
        if not (name and mark and path):
            raise ConfigError(f"--environment must be NAME=FILE, got '{word}'")
        found.setdefault(name, []).append(read_parquet(path))
    return found
