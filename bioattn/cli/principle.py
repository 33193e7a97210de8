"""Verbs `principle`, `principles` and `judge`: experiments with known answers, their page, and whether all hold."""

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer

from bioattn.config import FORMAT_VERSION, PrinciplesConfig, PrinciplesSize, digest
from bioattn.errors import BioattnError
from bioattn.io.files import replacing_folder, write_text
from bioattn.io.tables import read_tsv, write_tsv
from bioattn.plot.principles import experiment
from bioattn.plot.save import svg_bytes
from bioattn.plot.style import figure_of
from bioattn.principles import EXPERIMENTS, run_experiment
from bioattn.principles.finding import Finding, verdict_table
from bioattn.report.principles import build_principles_report


def principle(
    name: Annotated[str, typer.Argument(help="Experiment, or 'all'.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for verdicts, table and figure; of 'all', one for each inside it.")
    ] = None,
    size: Annotated[PrinciplesSize, typer.Option(help="full: more training, more points.")] = "full",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 1, 2, ... of what is trained or drawn.")] = 5,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Of 'all': experiments that run at once; by default one for each core.")
    ] = None,
    judge: Annotated[bool, typer.Option(help="Fail if a verdict does; without, the verb judge can.")] = True,
) -> None:
    """Run an experiment whose answer is known; fails if a verdict does."""
    settings = PrinciplesConfig(size=size, n_seeds=seeds)
    names = list(EXPERIMENTS) if name == "all" else [name]
    failed = []
    for finding in _findings(names, settings, workers or _cores()):
        _tell(finding)
        if out is not None:
            _write(out / finding.name if name == "all" else out, finding, settings)
        if not finding.passed:
            failed.append(finding.name)
    if failed and judge:
        raise BioattnError(f"verdicts failed in {', '.join(failed)}")


def principles(
    experiment: Annotated[list[Path], typer.Option(help="Folder of the verb principle; repeat for every experiment.")],
    out: Annotated[Path, typer.Option(help="Folder for verdicts.tsv and report.html.")],
) -> None:
    """Write the verdicts of experiments as one table and one page."""
    table = pd.concat([read_tsv(folder / "verdicts.tsv") for folder in experiment], ignore_index=True)
    page = build_principles_report(experiment)
    write_tsv(out / "verdicts.tsv", table, {"step": "principles", "format": FORMAT_VERSION})
    write_text(out / "report.html", page)
    typer.echo(f"{out}: {int(table['passed'].sum())} of {len(table)} claims hold")


def judge(
    verdicts: Annotated[Path, typer.Argument(help="File verdicts.tsv of the verb principle or principles.")],
) -> None:
    """Fail if a claim does not hold, and say which."""
    table = read_tsv(verdicts)
    failed = table[~table["passed"]]
    if len(failed):
        told = "".join(f"\n{row['experiment']}: {row['claim']}" for row in failed.to_dict("records"))
        raise BioattnError(f"{verdicts}: {len(failed)} of {len(table)} claims do not hold:{told}")
    typer.echo(f"{verdicts}: all {len(table)} claims hold")


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _findings(names: Sequence[str], settings: PrinciplesConfig, workers: int) -> Iterator[Finding]:
    """What the experiments find, in their order, some at a time."""
    workers = min(workers, len(names))
    if workers == 1:
        yield from map(_find, names, repeat(settings))
        return
    # Spawned, not forked: a fork copies the locks of torch's threads but not the threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_find, names, repeat(settings))


def _find(name: str, settings: PrinciplesConfig) -> Finding:
    # Tensors are small: more threads would wait for each other, and rounding would depend on their number.
    torch.set_num_threads(1)
    return run_experiment(name, settings)


def _tell(finding: Finding) -> None:
    for verdict in finding.verdicts:
        word = "ok  " if verdict.passed else "FAIL"
        mean = sum(verdict.measured) / len(verdict.measured)
        typer.echo(
            f"{word} {finding.name:25s} {verdict.kind:11s} {mean:.4g} ({verdict.rule} {verdict.truth:g}, "
            f"{verdict.rate:.0%} of {len(verdict.measured)}): {verdict.claim}"
        )


def _write(out: Path, finding: Finding, settings: PrinciplesConfig) -> None:
    record = {
        "step": "principle", "experiment": finding.name, "format": FORMAT_VERSION,
        "digest": digest(settings.model_dump(mode="json")), "size": settings.size, "seeds": settings.seeds,
    }  # fmt: skip
    drawing = finding.drawing._asdict()
    about = {"name": finding.name, "title": finding.title, "idea": finding.idea, "drawing": drawing}
    with replacing_folder(out) as folder:
        write_tsv(folder / "verdicts.tsv", verdict_table([finding]), record)
        write_tsv(folder / "table.tsv", finding.table, record)
        write_text(folder / "experiment.json", json.dumps(about, indent=1) + "\n")
        (folder / "figure.svg").write_bytes(svg_bytes(figure_of(experiment(finding.table, **drawing))))
