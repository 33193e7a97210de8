"""Parts of the benchmark of reading data: planted truth, scores and the slow ways. Nothing is timed."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bioattn.data import alphabet


@pytest.fixture
def cases(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Module with what is measured."""
    monkeypatch.syspath_prepend(root / "tests" / "benchmarks")
    return importlib.import_module("ingest_cases")


@pytest.fixture
def script(cases: ModuleType) -> ModuleType:
    """Module that makes the rows."""
    return importlib.import_module("ingestion")


def test_planted_relatives_are_what_they_are_called(cases: ModuleType) -> None:
    """Each child equals its parent, its reverse complement, its shifted letters, or all but a tenth of its letters."""
    data = cases.planted(200, 50)
    parent = {family: text for text, family, kind in zip(*data, strict=True) if not kind}
    assert len(parent) == 120
    for text, family, kind in zip(*data, strict=True):
        original, other = parent[family], alphabet.reverse_complement(text)
        if kind == "copy":
            assert text == original
        elif kind == "reverse complement":
            assert other == original
        elif kind == "overlap":
            assert original[5:] in (text[:45], other[:45])
        elif kind == "mutated":
            assert sum(a != b for a, b in zip(text, original, strict=True)) == 5


def test_scores_of_known_groups(cases: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the pairs of {0, 1, 2} and {3, 4}, groups {0, 1}, {2, 3, 4} hold 2 of 4, among 4 pairs in all."""
    monkeypatch.setattr(cases, "KINDS", ("copy",))
    kind = np.array(["", "copy", "copy", "", "copy"])
    data = cases.Planted([""] * 5, np.array([7, 7, 7, 9, 9]), kind)
    scores = cases._pairs(np.array([0, 0, 1, 1, 1]), data)
    assert (scores["precision"], scores["recall"]) == (0.5, 0.5)
    assert scores["copy"] == pytest.approx(2 / 3)


def test_scaled_steps_count_for_all_of_the_work(cases: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """A way that does a tenth of the work has its seconds multiplied by ten."""
    monkeypatch.setattr(cases, "interleaved_seconds", lambda steps, repetitions: dict.fromkeys(steps, [0.5, 1.0]))
    found = cases.compare({"all": (list, 1), "tenth": (list, 10)}, repetitions=2)
    assert found == {"all": [0.5, 1.0], "tenth": [5.0, 10.0]}


def test_ours_is_held_against_the_fastest_of_the_others(cases: ModuleType, script: ModuleType) -> None:
    """The ratio is the median over turns, the threshold stands in full runs only, and other results miss one."""
    found = cases.Timed({"bioattn: a": [2.0, 3.0, 8.0], "x": [9.0, 9.0, 9.0], "y": [1.0, 2.0, 4.0]}, ["bioattn: a"])
    found.seconds["limit, z"] = [0.1, 0.1, 0.1]
    rows = list(script._compared("section", "case", 7, found, script.FULL))
    assert [row.seconds for row in rows[:3]] == [3.0, 9.0, 2.0]
    assert (rows[4].ratio, rows[4].against, rows[4].missed) == (2.0, "y", True)
    assert rows[5].missed
    assert list(script._compared("section", "case", 7, found, script.QUICK))[4].threshold is None


def test_all_ways_give_the_same(cases: ModuleType, tmp_path: Path) -> None:
    """On little data every comparison ends without a difference."""
    paths = cases.write_genome(str(tmp_path), 3000)
    done = [
        *(cases.extraction(path, 20, 31, repetitions=1) for path in paths.values()),
        cases.encoding(20, 31, repetitions=1),
        cases.kmers(20, 31, 3, 1, repetitions=1),
        cases.kmers(20, 31, 3, 3, repetitions=1),
        cases.bpe(20, 31, 40, repetitions=1),
    ]
    assert [found.different for found in done] == [[]] * 6
