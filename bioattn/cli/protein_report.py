"""Verb `protein`: one self-contained HTML file about the protein track."""

from pathlib import Path
from typing import Annotated

import typer

from bioattn.cli.options import Settings
from bioattn.config import FORMAT_VERSION, load_protein
from bioattn.io.files import write_text
from bioattn.io.tables import write_tsv
from bioattn.report.protein import build_protein_report, rejected_proteins


def protein(
    settings: Settings,
    results: Annotated[Path, typer.Option(help="Folder results/protein.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
    rejected: Annotated[
        Path | None, typer.Option(help="Table to write of families and chains that could not be used.")
    ] = None,
) -> None:
    """Write one self-contained HTML file about the protein track."""
    config = load_protein(settings)
    page = build_protein_report(results, config)
    if rejected is not None:
        write_tsv(rejected, rejected_proteins(results, config), {"step": "protein", "format": FORMAT_VERSION})
    write_text(out, page)
