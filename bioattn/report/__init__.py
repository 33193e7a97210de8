"""One self-contained HTML file about a run, built from its result files alone."""

from bioattn.report.build import build_report

__all__ = ["build_report"]
