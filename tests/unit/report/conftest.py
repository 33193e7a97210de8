"""Made-up results folders for the report's tests."""

import shutil
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from toy_results import Made, binary_run, planted_run, write_results


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A complete simulated regression; read only."""
    return write_results(tmp_path_factory.mktemp("results") / "planted", planted_run())


@pytest.fixture(scope="session")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A complete classification with fixed sites; read only."""
    return write_results(tmp_path_factory.mktemp("results") / "sites", binary_run())


@pytest.fixture
def empty_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn but not rendered, which is most of a report's time."""
    monkeypatch.setattr("bioattn.report.blocks.svg_bytes", lambda figure: b"<svg/>")
    # Letters and grids take long to draw, rendered or not.
    for name in ("head_card", "received_profiles"):
        monkeypatch.setattr(f"bioattn.report.heads.{name}", lambda *_: Figure())


@pytest.fixture
def editable(planted: Made, tmp_path: Path, empty_figures: None) -> Made:
    """A complete results folder that a test may damage."""
    root = tmp_path / "results" / "mine"
    shutil.copytree(planted.root, root)
    return Made(root, planted.run)
