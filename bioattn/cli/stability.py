"""Verb `stability`: which heads and motifs come back in every replicate."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bioattn.config import FORMAT_VERSION
from bioattn.errors import DataError
from bioattn.explain.stability import read_replicate
from bioattn.explain.stability import stability as compare
from bioattn.io.tables import read_record, write_tsv


def stability(
    heads: Annotated[list[Path], typer.Option(help="Folder of the verb heads; repeat for every replicate.")],
    out: Annotated[Path, typer.Option(help="Folder for stability.tsv and head_matches.tsv.")],
) -> None:
    """Match heads between replicates, and count in how many each motif is found."""
    records = [(folder, read_record(folder / "heads.tsv")) for folder in heads]
    seeds = _seeds(records)
    _check_alike(records)
    result = compare({seed: read_replicate(folder) for seed, folder in seeds.items()})
    first = records[0][1]
    record = {
        "step": "stability",
        "digest": first.get("digest"),
        "seed": first.get("seed"),
        "format": FORMAT_VERSION,
        "model_seeds": list(seeds),
    }
    # The folder holds the replicates' folders too: only these two files are replaced.
    write_tsv(out / "stability.tsv", result.motifs, record)
    write_tsv(out / "head_matches.tsv", result.heads, record)
    found = result.motifs[result.motifs["n_replicates"] > 0]
    always = int((found["n_replicates"] == found["n_total"]).sum())
    replicates = f"{len(seeds)} replicate{'s' * (len(seeds) != 1)}"
    typer.echo(f"{out}: {len(found)} enriched motifs in {replicates}, {always} of them in all")


def _seeds(records: list[tuple[Path, dict[str, Any]]]) -> dict[int, Path]:
    """Folders by the seed of their model, in the order of the seeds."""
    seeds: dict[int, Path] = {}
    for folder, record in records:
        seed = record.get("model_seed", _number(folder.name))
        if seed is None:
            raise DataError(f"{folder}: neither heads.json nor the folder's name (seed1) says which replicate this is")
        if seed in seeds:
            raise DataError(f"{seeds[seed]} and {folder} are both of seed {seed}: name every replicate once")
        seeds[int(seed)] = folder
    return dict(sorted(seeds.items()))


def _number(name: str) -> int | None:
    digits = name.removeprefix("seed")
    return int(digits) if digits.isdecimal() and digits != name else None


def _check_alike(records: list[tuple[Path, dict[str, Any]]]) -> None:
    """Replicates differ in their start only: other settings would be read as instability."""
    made = [(folder, record["digest"], record.get("fold")) for folder, record in records if "digest" in record]
    for folder, *settings in made[1:]:
        if settings != list(made[0][1:]):
            raise DataError(
                f"{made[0][0]} and {folder} were made with different settings or folds: run heads on both again"
            )
