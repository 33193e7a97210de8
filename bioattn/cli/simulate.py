"""Verb `simulate`: promoters with known truth, written as FASTA and labels like anybody's."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bioattn.cli.options import Run, Settings, step_record
from bioattn.config import load_run
from bioattn.data.simulate import simulate as draw
from bioattn.errors import ConfigError
from bioattn.io.fasta import write_fasta
from bioattn.io.files import replacing_folder, write_text
from bioattn.io.motifs import load_motifs
from bioattn.io.tables import write_tsv


def simulate(
    settings: Settings,
    out: Annotated[Path, typer.Option(help="Folder for FASTA, labels, samples.tsv and truth tables.")],
    run: Run = None,
) -> None:
    """Draw promoters from a structural causal model with known truth."""
    chosen = load_run(settings, run)
    if chosen.data.simulate is None:
        raise ConfigError(f"{settings}: the run has no section data.simulate")
    result = draw(chosen.data.simulate, load_motifs(chosen.motifs), seed=chosen.seed)
    record = step_record(chosen, "simulate")
    with replacing_folder(out) as folder:
        write_fasta(folder / "sequences.fa", zip(result.table["name"], result.sequences, strict=True))
        write_tsv(folder / "labels.tsv", result.table[["name", "y"]], record)
        write_tsv(folder / "truth_sequences.tsv", result.table, record)
        write_tsv(folder / "truth_motifs.tsv", result.motifs, record)
        write_tsv(folder / "truth_pairs.tsv", result.pairs, record)
        truth = {"metric": "pearson", "ceiling": result.ceiling, "ceiling_given_hidden": result.ceiling_given_hidden}
        write_text(folder / "truth.json", json.dumps(truth | {"record": record}, indent=1) + "\n")
        write_text(folder / "samples.tsv", "sample\tpath\tlabels\nsimulated\tsequences.fa\tlabels.tsv\n")
    typer.echo(f"{out}: {len(result.sequences)} sequences, ceiling r = {result.ceiling:.3f}")
