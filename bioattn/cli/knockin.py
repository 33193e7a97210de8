"""Verbs `screen` and `knockin`: motif pairs put into the same backgrounds of one model, alone and together."""

import itertools
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from bioattn.causal.marginalize import KnockIn, backgrounds_of, lowest
from bioattn.causal.syntax import Syntax
from bioattn.cli.network import load_network
from bioattn.cli.options import Fold, Model, Run, Sequences, Settings, Split, progress_bar, step_record
from bioattn.config import RunConfig, load_run
from bioattn.errors import ConfigError
from bioattn.explain.pairs import Geometry, PairData, pair_data
from bioattn.io.parts import finish_parts, make_in_parts
from bioattn.io.tables import read_parquet, read_tsv, write_parquet
from bioattn.models import SequenceModel

#: Pairs in a part that is written down when it is done.
_PART = 50

Pair = tuple[int, int]


def screen(
    settings: Settings,
    sequences: Sequences,
    split: Split,
    model: Model,
    out: Annotated[Path, typer.Option(help="Table of the readouts of all cells (parquet).")],
    fold: Fold = 0,
    run: Run = None,
) -> None:
    """Put all motif pairs, and pairs with a decoy, into a few backgrounds."""
    chosen, network, data, table, record = _read(settings, sequences, split, model, fold, run)
    made = _knock_in(chosen, network, data, table, n=chosen.interactions.screen_backgrounds)
    pairs = [*itertools.combinations(range(data.n_motifs), 2), *made.decoy_pairs()]
    cells = _in_parts(out, made, pairs, record, edges=False)
    write_parquet(out, cells, record)
    finish_parts(out)
    typer.echo(f"{out}: {len(pairs)} pairs in {chosen.interactions.screen_backgrounds} backgrounds")


def knockin(
    settings: Settings,
    sequences: Sequences,
    split: Split,
    model: Model,
    candidates: Annotated[Path, typer.Option(help="Table of the verb candidates.")],
    out: Annotated[Path, typer.Option(help="Table of the readouts of all cells (parquet).")],
    syntax: Annotated[Path, typer.Option(help="Table of the epistasis in every arrangement (parquet).")],
    fold: Fold = 0,
    run: Run = None,
) -> None:
    """Put chosen motif pairs into many backgrounds, with and without edges, and compare their arrangements."""
    chosen, network, data, table, record = _read(settings, sequences, split, model, fold, run)
    rules = chosen.interactions
    made = _knock_in(chosen, network, data, table, n=rules.backgrounds)
    wanted = read_tsv(candidates)
    pairs: list[Pair] = list(wanted.loc[wanted["tested"], ["motif_a", "motif_b"]].itertuples(index=False, name=None))
    record = record | {"pairs": [list(pair) for pair in pairs]}
    cells = pd.concat(
        [
            _in_parts(out, made, pairs, record, edges=True),
            made.pairs(made.decoy_pairs(), edges=False),
        ],
        ignore_index=True,
    )
    arranged = Syntax(
        network,
        data.codes,
        data.motifs,
        n=rules.syntax_backgrounds,
        step_bp=rules.spacing_step_bp,
        hit_p_value=rules.hit_p_value,
        readout=chosen.task.readout,
        seed=chosen.seed,
    )
    arrangements = make_in_parts(
        syntax, pairs, arranged.pairs, record, size=_PART, progress=progress_bar("arrangements")
    )
    write_parquet(syntax, arrangements, record)
    write_parquet(out, cells, record)
    finish_parts(syntax)
    finish_parts(out)
    typer.echo(f"{out}: {len(pairs)} pairs in {rules.backgrounds} backgrounds")


def _read(
    settings: Path, sequences: Path, split: Path, model: Path, fold: int, run: str | None
) -> tuple[RunConfig, SequenceModel, PairData, pd.DataFrame, dict[str, Any]]:
    """Settings, model, motifs and sequences, and the provenance record."""
    chosen = load_run(settings, run)
    if chosen.motifs.sites:
        raise ConfigError("motifs.sites are part of every sequence and are knocked out, not put into others")
    network, trained = load_network(model)
    table = read_parquet(sequences)
    data = pair_data(chosen, table, read_parquet(split), fold=fold, geometry=Geometry.of(network))
    record = step_record(chosen, "coattention", model_digest=trained["digest"], model_seed=trained["seed"], fold=fold)
    return chosen, network, data, table, record | {"control": "decoy of the second motif; moved edge"}


def _knock_in(chosen: RunConfig, network: SequenceModel, data: PairData, table: pd.DataFrame, *, n: int) -> KnockIn:
    rules = chosen.interactions
    codes, shuffle = data.codes, rules.background_kind == "shuffled"
    if not shuffle:
        target = table[chosen.task.targets[chosen.task.readout]].to_numpy(dtype=float)[data.rows]
        codes = lowest(codes, target)
    widest = max(motif.width for motif in data.motifs)
    backgrounds = backgrounds_of(codes, n=n, widest=widest, model=network, seed=chosen.seed, shuffle=shuffle)
    readout = chosen.task.readout
    return KnockIn(
        network, backgrounds, data.motifs, hit_p_value=rules.hit_p_value, readout=readout, seed=chosen.seed
    )  # fmt: skip


def _in_parts(out: Path, made: KnockIn, pairs: Items[Pair], record: dict[str, Any], *, edges: bool) -> pd.DataFrame:
    return make_in_parts(
        out, pairs, lambda some: made.pairs(some, edges=edges), record, size=_PART, progress=progress_bar("knock-ins")
    )
