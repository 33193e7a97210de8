"""What an experiment says: claims with their truth, what was measured, and whether that is within the tolerance."""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

#: "equal": within the tolerance of the truth; "at most" and "at least": bounds.
Rule = Literal["equal", "at most", "at least"]
#: constructed: weights set by hand; trained: learned from data; control: must come out the other way.
Kind = Literal["constructed", "trained", "control"]


@dataclass(frozen=True)
class Verdict:
    """One claim.

    Attributes
    ----------
    claim : str
        A sentence.
    kind : {"constructed", "trained", "control"}
    truth : float
        The known answer, or the bound.
    measured : tuple of float
        One number for each seed; of what is constructed, one alone.
    tolerance : float
        Of "equal".
    rule : {"equal", "at most", "at least"}
    """

    claim: str
    kind: Kind
    truth: float
    measured: tuple[float, ...]
    tolerance: float = 0.0
    rule: Rule = "equal"

    def holds(self, value: float) -> bool:
        """Whether one number agrees with the truth; NaN never does."""
        if math.isnan(value):
            return False
        if self.rule == "equal":
            return abs(value - self.truth) <= self.tolerance
        return value <= self.truth if self.rule == "at most" else value >= self.truth

    @property
    def rate(self) -> float:
        """Share of seeds that agree."""
        return float(np.mean([self.holds(value) for value in self.measured])) if self.measured else 0.0

    @property
    def passed(self) -> bool:
        """Whether all seeds agree."""
        return self.rate == 1.0


class Drawing(NamedTuple):
    """How the table of an experiment is drawn.

    y against x, a line or a kind of points for each value of `series`; or a logo for each, of columns A, C, G and T.
    """

    kind: Literal["lines", "points", "logos"]
    x: str
    y: str
    series: str
    x_label: str
    y_label: str
    log_x: bool = False
    log_y: bool = False


class Finding(NamedTuple):
    """All that an experiment found.

    Attributes
    ----------
    name, title : str
    idea : str
        What it teaches, with its source.
    verdicts : list of Verdict
    table : DataFrame
        What the figure shows.
    drawing : Drawing
    """

    name: str
    title: str
    idea: str
    verdicts: list[Verdict]
    table: pd.DataFrame
    drawing: Drawing

    @property
    def passed(self) -> bool:
        """Whether every claim holds."""
        return all(verdict.passed for verdict in self.verdicts)


def number(table: pd.DataFrame, value: str, **where: object) -> float:
    """The one entry of a column in the row whose other columns have these values."""
    rows = table
    for column, wanted in where.items():
        rows = rows[rows[column] == wanted]
    (found,) = rows[value].tolist()
    return float(found)


def finding_of(module: ModuleType, verdicts: Sequence[Verdict], table: pd.DataFrame, drawing: Drawing) -> Finding:
    """Finding of the module of an experiment, whose docstring has the title, then the idea."""
    title, _, idea = inspect.cleandoc(module.__doc__ or "").partition("\n")
    return Finding(module.__name__.rpartition(".")[2], title.rstrip("."), idea.strip(), list(verdicts), table, drawing)


def verdict_table(findings: Sequence[Finding]) -> pd.DataFrame:
    """Every claim: experiment, kind, claim, truth, rule, tolerance, measured (mean over seeds), seeds, rate, passed."""
    rows = [
        {
            "experiment": finding.name, "kind": verdict.kind, "claim": verdict.claim, "truth": verdict.truth,
            "rule": verdict.rule, "tolerance": verdict.tolerance, "measured": float(np.mean(verdict.measured)),
            "seeds": len(verdict.measured), "rate": verdict.rate, "passed": verdict.passed,
        }
        for finding in findings
        for verdict in finding.verdicts
    ]  # fmt: skip
    return pd.DataFrame(rows)
