"""Verbs of the protein track: families, many chains, networks over them, and what these are worth."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from bioattn.cli.options import Settings, progress_bar
from bioattn.cli.train import log_epochs, remove_checkpoints, write_record
from bioattn.config import FORMAT_VERSION, ProteinConfig, digest, load_protein, protein_step_settings
from bioattn.errors import ConfigError, DataError
from bioattn.io.files import replacing, replacing_folder, write_text
from bioattn.io.tables import read_parquet, write_parquet, write_tsv
from bioattn.protein.analysis import FamilyAnalysis, analyse_family, load_family
from bioattn.protein.chains import prepare_chains, proteins_of
from bioattn.protein.family import Family
from bioattn.protein.network import fit_distances, load_network, save_network
from bioattn.protein.study import study

Chains = Annotated[Path, typer.Option(help="Folder of the verb chains.")]


def family(
    settings: Settings,
    out: Annotated[Path, typer.Option(help="Folder for precision, pairs and heads.")],
    name: Annotated[str | None, typer.Option(help="Family, if there are several.")] = None,
    reject: Annotated[
        bool,
        typer.Option("--reject", help="If the family cannot be used, write why and empty tables, and do not fail."),
    ] = False,
) -> None:
    """Predict contacts of a protein family from its alignment, by couplings and by attention, and against two nulls."""
    config = load_protein(settings)
    chosen = _family_name(config, name)
    try:
        loaded = load_family(config.families[chosen], config.couplings)
    except DataError as error:
        if not reject:
            raise
        found, summary = FamilyAnalysis.empty(), {"family": chosen, "rejected": str(error)}
        told = f"rejected: {error}"
    else:
        found = analyse_family(loaded, config.couplings, config.factored, seed=config.seed, tick=_say)
        summary, told = _summary(chosen, loaded), f"long-range precision at L/5: {_best(found.precision)}"
    record = _record(config, "family", chosen)
    with replacing_folder(out) as folder:
        write_tsv(folder / "precision.tsv", found.precision, record)
        write_parquet(folder / "pairs.parquet", found.pairs, record)
        write_tsv(folder / "heads.tsv", found.heads, record)
        write_parquet(folder / "losses.parquet", found.losses, record)
        with replacing(folder / "patterns.npz") as temporary:
            np.savez_compressed(temporary, patterns=found.patterns.astype(np.float16))
        write_text(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    typer.echo(f"{out}: {told}")


def _summary(name: str, family: Family) -> dict[str, Any]:
    return {
        "family": name, "n_residues": len(family.query), "n_sequences": len(family.codes),
        "n_effective": family.n_effective, "query": family.query,
        "n_resolved": int(np.isfinite(family.cb_angstrom).all(1).sum()),
    }  # fmt: skip


def _best(precision: pd.DataFrame) -> str:
    best = precision[(precision["range"] == "long") & (precision["top"] == "L/5")]
    best = best[(best["control"] == "alignment") & best["seed"].isin(["NA", "mean"])]
    return ", ".join(f"{row['method']} {row['precision']:.3f}" for row in best.to_dict("records"))


def _family_name(config: ProteinConfig, name: str | None) -> str:
    if name is None and len(config.families) == 1:
        return next(iter(config.families))
    if name not in config.families:
        found = "none was named" if name is None else f"'{name}' is not one of them"
        raise ConfigError(f"the families are {list(config.families)} and {found}: choose one with --name")
    return name


def chains(
    settings: Settings, out: Annotated[Path, typer.Option(help="Folder for chains, split, leakage, rejected chains.")]
) -> None:
    """Read protein chains, hold out groups of related ones, and say what leaks."""
    config = load_protein(settings)
    if config.chains is None:
        raise ConfigError(f"{settings}: the section protein.chains is missing: it names the chains")
    found = prepare_chains(config.chains, config.couplings, seed=config.seed, tick=progress_bar("alignments"))
    record = _record(config, "chains")
    with replacing_folder(out) as folder:
        write_parquet(folder / "chains.parquet", found.chains, record)
        write_tsv(folder / "rejected.tsv", found.rejected, record)
        write_tsv(folder / "related.tsv", found.related, record)
        write_tsv(folder / "leakage.tsv", found.leakage, record)
    sizes = found.chains["subset"].value_counts()
    told = ", ".join(f"{sizes[name]} {name}" for name in ("train", "validation", "test"))
    typer.echo(f"{out}: {told}, in {found.chains['group'].nunique()} groups; {len(found.rejected)} rejected")


def trunk(
    settings: Settings,
    chains: Chains,
    variant: Annotated[str, typer.Option(help="Network: trunk, no_triangles, window, ...")],
    out: Annotated[
        Path, typer.Option(help="Folder for weights, history and record; OUT.work keeps what a kill leaves.")
    ],
) -> None:
    """Train one network over many chains; resumes after a kill."""
    log_epochs()
    config = load_protein(settings)
    table = read_parquet(chains / "chains.parquet")
    parts = {name: proteins_of(table[table["subset"] == name]) for name in ("train", "validation")}
    work_dir = out.with_name(f"{out.name}.work")
    fitted = fit_distances(variant, config.trunk, parts["train"], parts["validation"], work_dir=work_dir)
    record = {"step": "trunk", "format": FORMAT_VERSION, **fitted.record}
    with replacing_folder(out) as folder:
        save_network(folder, fitted.network, record)
        write_tsv(folder / "history.tsv", fitted.history, {"step": "trunk", "variant": variant})
        write_record(folder, record)
    remove_checkpoints(work_dir)
    typer.echo(
        f"{out}: {len(fitted.history)} epochs, best validation loss {record['best_validation_loss']:.4f} at epoch "
        f"{record['best_epoch']}"
    )


def distances(
    settings: Settings,
    chains: Chains,
    network: Annotated[list[Path], typer.Option(help="Folder of the verb trunk; repeat for every network.")],
    out: Annotated[Path, typer.Option(help="Folder for scores, differences, audits, knock-outs and the probe.")],
) -> None:
    """Score networks on held-out chains, look inside the trunk, and cut out third residues."""
    config = load_protein(settings)
    table = read_parquet(chains / "chains.parquet")
    networks = {}
    for folder in network:
        loaded, told = load_network(folder)
        if told["variant"] in networks:
            raise DataError(f"{folder}: a network '{told['variant']}' was given before: give each once")
        networks[told["variant"]] = loaded
    test = table[table["subset"] == "test"]
    found = study(
        networks,
        proteins_of(test),
        test["group"].to_numpy(np.int64),
        proteins_of(table[table["subset"] == "train"].head(config.trunk.probe_chains)),
        config,
        progress=progress_bar,
    )
    record = _record(config, "distances")
    with replacing_folder(out) as folder:
        for name, made in found.tables.items():
            write_tsv(folder / f"{name}.tsv", made, record)
        with replacing(folder / "examples.npz") as temporary:
            np.savez_compressed(temporary, **found.arrays)  # type: ignore[arg-type]
        write_text(folder / "summary.json", json.dumps(found.summary, indent=1) + "\n")
    for line in _told(found.tables["scores"]):
        typer.echo(f"{out}: {line}")


def _told(scores: pd.DataFrame) -> list[str]:
    shown = scores[scores["score"] == "precision_all_L5"]
    return [
        f"{row['network']}: precision at L/5 {row['mean']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
        for row in shown.to_dict("records")
    ]


def _record(config: ProteinConfig, step: str, family: str | None = None) -> dict[str, Any]:
    settings = protein_step_settings(config, step, family)
    return {"step": step, "digest": digest(settings), "seed": config.seed, "format": FORMAT_VERSION}


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
