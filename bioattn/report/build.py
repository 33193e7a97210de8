"""Puts the report together: headline, sections, and one HTML page around them."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

import bioattn
from bioattn.config import RunConfig
from bioattn.errors import DataError
from bioattn.plot.style import KINDS, VERDICTS
from bioattn.report.attribution import attribution_section
from bioattn.report.bakeoff import bakeoff_section
from bioattn.report.blocks import Block, Notice, Points, Section, Text, Tiles
from bioattn.report.data import data_section
from bioattn.report.files import ResultFiles
from bioattn.report.heads import heads_section
from bioattn.report.interactions import interactions_section, read_interactions, truth_section, verdict_tiles
from bioattn.report.methods import methods
from bioattn.report.model import (
    HeadlineScore,
    ceiling_sentence,
    headline_score,
    metrics_section,
    read_metrics,
    training_section,
)
from bioattn.report.numbers import count, number, with_interval
from bioattn.report.record import record_section
from bioattn.report.split import split_section
from bioattn.report.words import LIMITS, MODEL_KINDS, MODEL_NAMES


def build_report(results: str | Path, run: RunConfig) -> str:
    """One self-contained HTML page about a run: no network, no other file.

    Everything comes from the result files; one that is missing or damaged is named
    where its numbers would stand, with the command that makes it.

    Parameters
    ----------
    results : path
        Folder results/{run}; its name is the run's name.
    run : RunConfig
        Settings of the run.

    Raises
    ------
    DataError
        If there is no such folder.
    """
    root = Path(results)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder, expected results/{{run}}: run the workflow first")
    files = ResultFiles(root)
    truth = truth_section(files, run)
    tokenizers = bakeoff_section(files)
    sections = [
        summary_section(files, run),
        interactions_section(files, run),
        *([truth] if truth else []),
        metrics_section(files, run),
        heads_section(files, run),
        attribution_section(files, run),
        data_section(files, run),
        split_section(files, run),
        training_section(files),
        *([tokenizers] if tokenizers else []),
        Section("methods", "Methods", [Text(part) for part in methods(run, version=bioattn.__version__)]),
        Section("limits", "What this cannot say", [Points(LIMITS)]),
        record_section(files, run, version=bioattn.__version__),
    ]
    return render(f"{files.run}: bioattn report", files.run, run.description, sections)


def render(title: str, run: str, description: str, sections: Sequence[Section]) -> str:
    """The page around the sections; every text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bioattn.report"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html.j2").render(
        title=title,
        run=run,
        description=description,
        sections=sections,
        css=Markup(_package_text("report.css")),
        script=Markup(_package_text("report.js")),
        kinds=KINDS,
        colors=[style.color for style in VERDICTS.values()],
        version=bioattn.__version__,
    )


def summary_section(files: ResultFiles, run: RunConfig) -> Section:
    """What was run, how well the model does, and the verdict counts."""
    blocks: list[Block] = [Text(_what_was_run(run), "lead")]
    metrics = read_metrics(files)
    score = None if isinstance(metrics, Notice) else headline_score(metrics, run)
    if isinstance(metrics, Notice):
        blocks.append(metrics)
    elif score is not None:
        sentences = [score_sentence(score), ceiling_sentence(files, run, score)]
        blocks.append(Text(" ".join(sentence for sentence in sentences if sentence)))
    pairs = read_interactions(files, run)
    if isinstance(pairs, Notice):
        blocks.append(pairs)
    else:
        blocks += [Text(f"Verdicts on {count(len(pairs), 'pair')} of motifs:"), Tiles(verdict_tiles(pairs))]
    return Section("summary", "Summary", blocks)


def _what_was_run(run: RunConfig) -> str:
    targets = ", ".join(run.task.targets)
    source = "simulated promoters" if run.data.simulate else "sequences"
    model = run.model
    heads = f" of {count(model.n_heads, 'head')}" if model.has_attention else ""
    then = "; then its attention was read and tested by intervention" if model.has_attention else ""
    return (
        f"{MODEL_KINDS[model.encoder]} with {count(model.n_layers, 'layer')}{heads} was trained "
        f"{count(len(run.train.seeds), 'time')} on {source} to predict {targets}{then}."
    )


def score_sentence(score: HeadlineScore) -> str:
    """The held-out score and the best baseline, in words with numbers."""
    model = score.model
    whole = with_interval(model["value"], model["ci_low"], model["ci_high"])
    text = f"On {number(model['n'])} held-out sequences the model reaches {score.name} {whole}"
    if score.baseline is None:
        return f"{text}. No baseline was scored, so there is nothing to compare that with."
    name = MODEL_NAMES.get(score.baseline["model"], score.baseline["model"])
    base = with_interval(score.baseline["value"], score.baseline["ci_low"], score.baseline["ci_high"])
    relation = "better" if score.gain > 0 else "worse"
    return f"{text}; the best baseline ({name}) reaches {base}: the model is {number(abs(score.gain))} {relation}."


def _package_text(name: str) -> str:
    return resources.files("bioattn.report").joinpath("templates", name).read_text(encoding="utf-8")
