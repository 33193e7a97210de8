"""Verb `report`: one self-contained HTML file about a run."""

from pathlib import Path
from typing import Annotated

import typer

from bioattn.cli.options import Run, Settings
from bioattn.config import load_run
from bioattn.io.files import write_text
from bioattn.report import build_report


def report(
    settings: Settings,
    results: Annotated[Path, typer.Option(help="Folder results/{run}.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
    run: Run = None,
) -> None:
    """Write one self-contained HTML file about a run."""
    write_text(out, build_report(results, load_run(settings, run)))
