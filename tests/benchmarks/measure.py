"""Time and peak memory of a step, each case in a process of its own, and the table they go into."""

import argparse
import ctypes
import math
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

MIB = 2**20
#: A step that takes longer than this many seconds is not repeated.
LONG_STEP = 4.0
#: Imported once by the process that all cases are forked from; it computes nothing itself.
PRELOAD = ["torch", "torch.utils.flop_counter", "bioattn.models", "bioattn.nn.observe"]


# ------------------------------------------------------------------------ memory


class Peak:
    """Peak resident memory inside a `with` block above the level before it, in MiB (`mib`).

    Linux counts the peak anew for each block. Elsewhere, or where that is not permitted, the
    peak since the process began stands in for it, which is right for the first large block.
    """

    mib: float

    def __enter__(self) -> Self:
        give_back_freed_memory()
        self._resets = reset_peak()
        self._before = _status("VmRSS") if self._resets else _peak_since_start()
        return self

    def __exit__(self, *_: object) -> None:
        peak = _status("VmHWM") if self._resets else _peak_since_start()
        self.mib = max(peak - self._before, 0) / MIB


def give_back_freed_memory() -> None:
    """Ask the C library to return freed memory to the system, so that it is not taken for free later."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        pass  # not glibc


def reset_peak() -> bool:
    """Set the peak resident memory of this process to its present level; False where that is not permitted."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def _peak_since_start() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# -------------------------------------------------------------------------- time


class Measured(NamedTuple):
    """Median seconds of a step and its peak memory in MiB."""

    seconds: float
    peak_mib: float


def measure(prepare: Callable[[int], Callable[[], object]], size: int, *, small: int, most: int = 9) -> Measured:
    """Time and peak memory of the step that `prepare(size)` returns.

    A step of size `small` goes first, so that neither loading code nor starting
    threads is counted. The peak is that of preparing and the first step. That step
    is also the warm-up of the times, unless it is so long that it has to do.
    """
    prepare(small)()
    with Peak() as peak:
        step = prepare(size)
        first = timed(step)
    return Measured(first if first > LONG_STEP else median_seconds(step, most=most), peak.mib)


def median_seconds(step: Callable[[], object], *, most: int = 9, budget: float = 1.0) -> float:
    """Median over up to `most` repetitions, fewer when `budget` seconds are spent, at least one."""
    seconds: list[float] = []
    while len(seconds) < most and sum(seconds) < budget:
        seconds.append(timed(step))
    return statistics.median(seconds)


def interleaved_seconds(steps: dict[str, Callable[[], object]], *, repetitions: int) -> dict[str, list[float]]:
    """Seconds of each step, repeated in turns, so that what slows the machine down slows all of them; one warm-up."""
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(repetitions):
        # Backwards every second time: no step always follows the same one.
        for name in list(steps) if i % 2 == 0 else reversed(steps):
            seconds[name].append(timed(steps[name]))
    return seconds


def timed(step: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def in_fresh_process(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What a function returns in a process that has computed nothing before.

    The process is forked from one that has imported the packages, where the system can do that.
    """
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(PRELOAD)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args, **options).result()


# --------------------------------------------------------------------- exponents


def fit_exponent(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Exponent of the power law through (size, value) and its standard error, by least squares of logarithms.

    The error is NaN with fewer than three points.
    """
    x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(values, float))
    x = x - x.mean()
    slope = float(x @ y / (x @ x))
    residual = y - y.mean() - slope * x
    error = math.sqrt(residual @ residual / (len(x) - 2) / (x @ x)) if len(x) > 2 else math.nan
    return slope, error


# ------------------------------------------------------------------------- table


class Threshold(NamedTuple):
    """A bound on one number of a row: "at most" or "at least" `value`."""

    kind: str
    value: float
    column: str = "ratio"

    def met(self, row: "Row") -> bool:
        """Whether the row keeps the bound; a missing number does not."""
        number = getattr(row, self.column)
        if number is None or math.isnan(number):
            return False
        return number <= self.value if self.kind == "at most" else number >= self.value


class Row(NamedTuple):
    """One line of the table. What a case has no number for is None."""

    section: str
    case: str
    length: int | None = None
    seconds: float | None = None
    peak_mib: float | None = None
    ratio: float | None = None
    against: str = ""
    threshold: Threshold | None = None

    @property
    def missed(self) -> bool:
        """Whether there is a threshold and the row does not keep it."""
        return self.threshold is not None and not self.threshold.met(self)

    def cells(self) -> list[str]:
        """The row as text."""
        bound = ""
        if self.threshold is not None:
            unit = {"ratio": "", "peak_mib": " MiB", "seconds": " s"}[self.threshold.column]
            verdict = "MISSED" if self.missed else "met"
            bound = f"{self.threshold.kind} {self.threshold.value:g}{unit}: {verdict}"
        return [
            self.section,
            self.case,
            "" if self.length is None else str(self.length),
            "" if self.seconds is None else f"{self.seconds:.4g}",
            "" if self.peak_mib is None else f"{self.peak_mib:.1f}",
            "" if self.ratio is None else f"{self.ratio:.3g}",
            self.against,
            bound,
        ]


HEADER = ["section", "case", "length", "seconds", "peak MiB", "ratio", "against", "threshold"]
_WIDTHS = [7, 83, 6, 9, 9, 8, 43, 0]
_NUMBERS = {"length", "seconds", "peak MiB", "ratio"}


def line(cells: Sequence[str]) -> str:
    """Cells in columns of a fixed width, numbers to the right, so that rows can be printed as they come."""
    aligned = [
        text.rjust(width) if name in _NUMBERS else text.ljust(width)
        for text, width, name in zip(cells, _WIDTHS, HEADER, strict=True)
    ]
    return "  ".join(aligned).rstrip()


def write_tsv(path: str | Path, rows: Iterable[Row]) -> None:
    """The table as tab-separated text, one line per row under a header."""
    lines = [HEADER, *(row.cells() for row in rows)]
    Path(path).write_text("".join("\t".join(cells) + "\n" for cells in lines), encoding="utf-8")


# ------------------------------------------------------------------- the whole table


def table_options(doc: str, sections: Iterable[str], *, quick: str) -> argparse.ArgumentParser:
    """Options that every script with a table has."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--only", choices=list(sections), help="one section")
    parser.add_argument("--out", metavar="FILE.tsv", help="write the table there too")
    return parser


def print_table(
    head: str,
    sections: Mapping[str, Callable[[Any], Iterable[Row]]],
    scale: object,
    *,
    only: str | None,
    out: str | None,
) -> int:
    """Print the rows of all sections, or of one, as they come; 1 if a threshold is missed."""
    start = time.perf_counter()
    print(f"# {head}, {_processor()}, {_load()}")
    print(line(HEADER))
    rows: list[Row] = []
    for name, section in sections.items():
        if only in (None, name):
            for row in section(scale):
                rows.append(row)
                print(line(row.cells()), flush=True)
    if out:
        write_tsv(out, rows)
    missed = [row for row in rows if row.missed]
    n_bounds = sum(row.threshold is not None for row in rows)
    print(f"# {n_bounds - len(missed)} of {n_bounds} thresholds met, {time.perf_counter() - start:.0f} s")
    for row in missed:
        print(f"# MISSED {row.section}: {row.case}", file=sys.stderr)
    return 1 if missed else 0


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            model = next(text.split(":", 1)[1].strip() for text in lines if text.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{os.cpu_count()} x {model}"


def _load() -> str:
    """How busy the machine already is: beside other work, times of many short parallel steps mean nothing."""
    return f"load before {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load before unknown"
