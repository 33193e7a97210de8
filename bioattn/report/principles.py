"""The page of the principles: one part for each experiment with its idea, claims, numbers and figure."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

import bioattn
from bioattn.errors import DataError
from bioattn.io.tables import read_tsv
from bioattn.plot.principles import experiment
from bioattn.report.blocks import Cell, Column, Pictures, Points, Section, Table, Text, Tile, Tiles, picture
from bioattn.report.build import render
from bioattn.report.numbers import number

#: How a rule reads.
_RULES = {"equal": "=", "at most": "≤", "at least": "≥"}
_KINDS = {"constructed": "constructed", "trained": "trained", "control": "negative control"}


def build_principles_report(folders: Sequence[str | Path]) -> str:
    """One self-contained HTML page of experiments.

    Parameters
    ----------
    folders : sequence of path
        Of the verb principle, one for each experiment, in the order of the page.

    Raises
    ------
    DataError
        If a result is missing.
    """
    read = [_read(Path(folder)) for folder in folders]
    verdicts = pd.concat([table for _, table, _ in read], ignore_index=True)
    passed = int(verdicts["passed"].sum())
    controls = verdicts[verdicts["kind"] == "control"]
    sections = [
        Section(
            "summary",
            "Summary",
            [
                Text(
                    f"{passed} of {len(verdicts)} claims hold. Every claim has an answer that is known beforehand; the "
                    "experiments use the same attention parts as the models.",
                    "lead",
                ),
                *_failed(verdicts),
                Tiles(
                    [
                        Tile(str(len(read)), "experiments"),
                        Tile(f"{passed} of {len(verdicts)}", "claims hold"),
                        Tile(f"{int(controls['passed'].sum())} of {len(controls)}", "negative controls are negative"),
                    ]
                ),
            ],
        ),
        *(_experiment(*each) for each in read),
    ]
    return render("bioattn principles", "principles", f"Known answers, bioattn {bioattn.__version__}.", sections)


def _failed(verdicts: pd.DataFrame) -> list[Points]:
    rows = verdicts[~verdicts["passed"]].to_dict("records")
    return [Points([f"Does not hold: {row['experiment']}: {row['claim']}" for row in rows])] if rows else []


def _read(folder: Path) -> tuple[Mapping[str, object], pd.DataFrame, pd.DataFrame]:
    try:
        about = dict(json.loads((folder / "experiment.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / 'experiment.json'}: cannot be read ({error}): run the experiment again") from None
    return about, read_tsv(folder / "verdicts.tsv"), read_tsv(folder / "table.tsv")


def _experiment(about: Mapping[str, object], verdicts: pd.DataFrame, table: pd.DataFrame) -> Section:
    drawing = about["drawing"]
    assert isinstance(drawing, dict)
    idea, _, source = str(about["idea"]).rpartition("Source:")
    figure = picture(experiment(table, **drawing), alt=str(about["title"]), caption=f"Source: {source.strip()}")
    blocks = [Text(" ".join(part.split())) for part in idea.strip().split("\n\n") if part.strip()]
    return Section(str(about["name"]), str(about["title"]), [*blocks, Pictures([figure]), _claims(about, verdicts)])


def _claims(about: Mapping[str, object], verdicts: pd.DataFrame) -> Table:
    columns = [
        Column("claim", "claim"),
        Column("kind", "kind"),
        Column("truth", "known answer", numeric=True),
        Column("measured", "measured", "mean over seeds", numeric=True),
        Column("rate", "seeds that agree"),
        Column("passed", "holds"),
    ]
    rows = []
    for row in verdicts.to_dict("records"):
        within = f" ± {number(row['tolerance'])}" if row["rule"] == "equal" and row["tolerance"] else ""
        rows.append(
            [
                Cell(str(row["claim"])),
                Cell(_KINDS[str(row["kind"])]),
                Cell(f"{_RULES[str(row['rule'])]} {number(row['truth'])}{within}"),
                Cell(number(row["measured"])),
                Cell(f"{round(row['rate'] * row['seeds'])} of {row['seeds']}"),
                Cell("yes" if str(row["passed"]) == "True" else "NO"),
            ]
        )
    return Table(f"claims-{about['name']}", "Claims", columns, rows)
