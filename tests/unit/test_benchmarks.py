"""The benchmark's own parts: exponents, thresholds, the table and the measurement of memory. Nothing is timed."""

import importlib
import math
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn


@pytest.fixture
def measure(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Module that measures and writes the table."""
    monkeypatch.syspath_prepend(root / "tests" / "benchmarks")
    return importlib.import_module("measure")


@pytest.fixture
def cases(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Module with what is measured."""
    monkeypatch.syspath_prepend(root / "tests" / "benchmarks")
    return importlib.import_module("cases")


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, -0.5])
def test_an_exact_power_law_gives_its_exponent_with_no_error(measure: ModuleType, exponent: float) -> None:
    """3.7 n ** e has exponent e, whatever its factor."""
    sizes = [256, 1024, 2048, 16384]
    fitted, error = measure.fit_exponent(sizes, [3.7 * n**exponent for n in sizes])
    assert fitted == pytest.approx(exponent, abs=1e-12)
    assert error == pytest.approx(0, abs=1e-7)


def test_standard_error_of_an_exponent_is_that_of_the_textbook(measure: ModuleType) -> None:
    """Residuals e, -2 e, e at log sizes -1, 0, 1 leave the slope and give the error sqrt(6 e^2 / 1 / 2)."""
    e = 0.05
    sizes, values = np.exp([-1, 0, 1]), np.exp([-2 + e, 0 - 2 * e, 2 + e])
    assert measure.fit_exponent(sizes, values) == pytest.approx((2, math.sqrt(6 * e**2 / 1 / 2)), abs=1e-12)


def test_an_exponent_of_two_points_has_no_error(measure: ModuleType) -> None:
    """A line through two points says nothing of its error."""
    slope, error = measure.fit_exponent([1, 10], [1, 1000])
    assert slope == pytest.approx(3)
    assert math.isnan(error)


@pytest.mark.parametrize(
    ("kind", "value", "missed"),
    [("at most", 1.9, True), ("at most", 2.1, False), ("at least", 1.9, False), ("at least", 2.1, True)],
)
def test_a_threshold_is_missed_on_the_wrong_side_only(
    measure: ModuleType, kind: str, value: float, missed: bool
) -> None:
    """A ratio of 2 against bounds below and above it."""
    row = measure.Row("section", "case", ratio=2.0, threshold=measure.Threshold(kind, value))
    assert row.missed is missed
    assert row.cells()[-1].endswith("MISSED" if missed else "met")


@pytest.mark.parametrize("number", [None, math.nan])
def test_a_missing_number_misses_its_threshold(measure: ModuleType, number: float | None) -> None:
    """What could not be measured is not taken for kept."""
    assert measure.Row("section", "case", peak_mib=number, threshold=measure.Threshold("at most", 4, "peak_mib")).missed


def test_rows_line_up_and_survive_a_round_trip_through_tsv(measure: ModuleType, tmp_path: Path) -> None:
    """Every row has a cell for every column; empty numbers stay empty; columns end at the same place in print."""
    rows = [
        measure.Row("scaling", "local", 1024, 0.012346, 12.34, 0.5, "sdpa (time)"),
        measure.Row("long", "local", 16384, peak_mib=300.0, threshold=measure.Threshold("at most", 4096, "peak_mib")),
    ]
    measure.write_tsv(tmp_path / "table.tsv", rows)
    header, *lines = [text.split("\t") for text in (tmp_path / "table.tsv").read_text().splitlines()]
    assert header == measure.HEADER
    assert lines[0] == ["scaling", "local", "1024", "0.01235", "12.3", "0.5", "sdpa (time)", ""]
    assert lines[1] == ["long", "local", "16384", "", "300.0", "", "", "at most 4096 MiB: met"]
    title, first, second = (measure.line(cells) for cells in (header, *lines))
    assert title.index("length") + len("length") == first.index("1024") + 4 == second.index("16384") + 5


def test_peak_memory_sees_what_was_allocated_and_freed_again(measure: ModuleType) -> None:
    """200 MB that are gone at the end of the block are seen within 10 %; a block without work has no such peak."""
    with measure.Peak() as idle:
        pass
    with measure.Peak() as peak:
        x = np.ones(200_000_000 // 8)
        del x
    assert peak.mib * measure.MIB == pytest.approx(200e6, rel=0.1)
    if measure.reset_peak():  # without it, peaks of earlier work count
        with measure.Peak() as after:
            pass
        assert max(idle.mib, after.mib) < 20


def test_a_case_runs_in_a_process_of_its_own(measure: ModuleType) -> None:
    """Another process, and another one each time."""
    first, second = (measure.in_fresh_process(os.getpid) for _ in range(2))
    assert len({first, second, os.getpid()}) == 3


def test_repetitions_take_turns(measure: ModuleType) -> None:
    """After one warm-up each, steps alternate in order and every step is timed equally often."""
    calls: list[str] = []
    steps = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    seconds = measure.interleaved_seconds(steps, repetitions=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(each) for name, each in seconds.items()} == {"a": 3, "b": 3}


@pytest.mark.parametrize(("ratio", "status"), [(0.5, 0), (1.5, 1)])
def test_a_missed_threshold_shows_in_the_exit_status(
    measure: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    ratio: float,
    status: int,
) -> None:
    """With a bound of 1, 0.5 exits with 0 and 1.5 with 1, and the table is printed and written either way."""
    script = importlib.import_module("attention")
    row = measure.Row("flops", "a case", 7, ratio=ratio, threshold=measure.Threshold("at most", 1))
    monkeypatch.setattr(script, "SECTIONS", {"flops": lambda scale: iter([row]), "other": None})
    assert script.main(["--only", "flops", "--out", str(tmp_path / "table.tsv")]) == status
    assert (tmp_path / "table.tsv").read_text().splitlines()[1].split("\t") == row.cells()
    assert measure.line(row.cells()) in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(("case", "alone"), [("local", True), ("local", False), ("sdpa", True), ("reference", True)])
def test_only_growth_of_the_wrong_kind_misses_its_threshold(measure: ModuleType, case: str, alone: bool) -> None:
    """Local attention that grows quadratically and full attention whose time grows linearly are caught."""
    script = importlib.import_module("attention")
    bound = script._exponent_bound(case, "time", alone)
    missed = {e: measure.Row("scaling", case, ratio=e, threshold=bound).missed for e in (1.0, 2.0)}
    assert missed == {1.0: case != "local", 2.0: case == "local"}


def test_encoders_that_are_compared_hold_equally_many_parameters(cases: ModuleType) -> None:
    """Ours and PyTorch's have the same layers: any difference in time is not one of size."""

    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    sizes = (24, 3, 4, 40, 0.1)
    assert count(cases._ours(*sizes)) == count(cases._Torch(*sizes))


def test_the_fused_kernel_is_counted_as_the_products_it_stands_for(cases: ModuleType) -> None:
    """Scores and values are 2 products forward and 5 backward of 2 L K C operations for each head."""
    from torch.utils.flop_counter import FlopCounterMode

    n_batch, n_heads, n_query, n_key, width = 2, 3, 13, 11, 5
    query = torch.randn(n_batch, n_heads, n_query, width, requires_grad=True)
    key = torch.randn(n_batch, n_heads, n_key, width, requires_grad=True)
    with FlopCounterMode(display=False, custom_mapping=cases.FORMULAS) as counter:
        nn.functional.scaled_dot_product_attention(query, key, key).sum().backward()
    assert counter.get_total_flops() == 7 * 2 * n_batch * n_heads * n_query * n_key * width
