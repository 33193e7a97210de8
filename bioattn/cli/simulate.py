"""Verb `simulate`: promoters with known truth, written as FASTA and labels like anybody's."""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bioattn.cli.options import Run, Settings, step_record
from bioattn.config import SimulateConfig, load_run, step_settings
from bioattn.data.simulate import Simulation
from bioattn.data.simulate import simulate as draw
from bioattn.errors import ConfigError
from bioattn.io.fasta import write_fasta
from bioattn.io.files import replacing_folder, write_text
from bioattn.io.motifs import load_motifs
from bioattn.io.tables import write_parquet, write_tsv


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
        write_tsv(folder / "labels.tsv", _labels(result), record)
        write_tsv(folder / "truth_sequences.tsv", result.table, record)
        write_tsv(folder / "truth_motifs.tsv", result.motifs, record)
        write_tsv(folder / "truth_pairs.tsv", result.pairs, record)
        write_parquet(folder / "truth_sites.parquet", result.sites, record)
        if result.twins is not None:
            write_tsv(folder / "truth_twins.tsv", result.twins, record)
        document = _summary(result, chosen.data.simulate) | {
            "settings": step_settings(chosen, "simulate"),
            "record": record,
        }
        write_text(folder / "truth.json", json.dumps(document, indent=1) + "\n")
        write_text(folder / "samples.tsv", "sample\tpath\tlabels\nsimulated\tsequences.fa\tlabels.tsv\n")
    typer.echo(f"{out}: {len(result.sequences)} sequences, ceiling r = {result.ceiling:.3f}")


def _labels(result: Simulation) -> Any:
    """Table of targets; twins carry what was set in them, and the sequence they stem from as their group."""
    labels = result.table[["name", *result.targets]]
    if result.twins is None:
        return labels
    return labels.assign(group=result.table["unit"], **result.table[["unit", "pair", "cell"]])


def _summary(result: Simulation, config: SimulateConfig) -> dict[str, Any]:
    """Ceilings and counts. A ceiling is null where nothing in the sequence matters."""
    known = {
        target: {name: None if np.isnan(value) else value for name, value in values.items()}
        for target, values in result.ceilings.items()
    }
    return {
        "metric": "pearson",
        **known["y"],
        "ceilings": known,
        "regime": config.regime,
        "n_sequences": len(result.sequences),
        "n_with_twins": 0 if result.twins is None else len(result.twins),
        "crowded": result.crowded,
    }
