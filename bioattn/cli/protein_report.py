"""Verb `protein`: one self-contained HTML file about the protein track."""

from pathlib import Path
from typing import Annotated

import typer

from bioattn.cli.options import Settings
from bioattn.config import load_protein
from bioattn.io.files import write_text
from bioattn.report.protein import build_protein_report


def protein(
    settings: Settings,
    results: Annotated[Path, typer.Option(help="Folder results/protein.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
) -> None:
    """Write one self-contained HTML file about the protein track."""
    write_text(out, build_protein_report(results, load_protein(settings)))
