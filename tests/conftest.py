"""Fixtures that all tests share."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

# Before PyTorch is imported: where a test process runs on every core, more threads of each wait for one another.
if "PYTEST_XDIST_WORKER" in os.environ:
    for library in ("OMP", "NUMBA"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """Root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Function from a name such as 'dna/ipromoter2l' to its folder; skips the test where the real data are absent."""

    def find(name: str) -> Path:
        folder = ROOT.parent / "shared" / "data" / name
        if not folder.exists():
            pytest.skip(f"real data are not here: ../shared/data/{name}")
        return folder

    return find
