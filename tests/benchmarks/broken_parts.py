"""Which claims of the principles fail when a part that the models share is broken.

Runs every experiment (fast size, one seed) as it is and with each of four parts broken, and prints the claims that
fail. Exits with 1 if a claim fails with nothing broken, or a broken part is noticed by no claim.
"""

import argparse
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any
from unittest.mock import patch

import pandas as pd
import torch

from bioattn.config import PrinciplesConfig
from bioattn.errors import BioattnError
from bioattn.nn import attention
from bioattn.nn.positions import RotaryPositions
from bioattn.principles import EXPERIMENTS, run_experiment

_SCORES, _FUSED, _ROTARY = attention.scores, attention.fused, RotaryPositions.forward


def _not_kept(function: Callable[..., Any]) -> Callable[..., Any]:
    def turned(*tensors: Any, keep: Any = None, **more: Any) -> Any:
        return function(*tensors, keep=None if keep is None else ~keep, **more)

    return turned


def _not_scaled(function: Callable[..., Any]) -> Callable[..., Any]:
    def large(query: Any, *tensors: Any, **more: Any) -> Any:
        return function(query * math.sqrt(query.shape[-1]), *tensors, **more)

    return large


def _one_sign_wrong(self: RotaryPositions, x: torch.Tensor) -> torch.Tensor:
    angle = torch.arange(x.shape[-2], dtype=torch.float32)[:, None] * self.frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos + second * sin, second * cos + first * sin], dim=-1)


class _QueriesOnly:
    """Turns every other tensor: rotary positions are asked for queries first, then for keys."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, module: RotaryPositions, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return _ROTARY(module, x) if self.calls % 2 else x


@contextmanager
def broken(what: str) -> Iterator[None]:
    """One of the parts broken, for as long as it lasts."""
    if what in ("mask polarity", "root of the width"):
        make = _not_kept if what == "mask polarity" else _not_scaled
        with patch.object(attention, "scores", make(_SCORES)), patch.object(attention, "fused", make(_FUSED)):
            yield
    elif what in ("rotary sign", "untied positions"):
        queries = _QueriesOnly()
        untied = lambda self, x: queries(self, x)  # noqa: E731  (a function, so that it becomes a method)
        with patch.object(RotaryPositions, "forward", _one_sign_wrong if what == "rotary sign" else untied):
            yield
    else:
        yield


BREAKS = ("nothing", "mask polarity", "root of the width", "rotary sign", "untied positions")


def failing(job: tuple[str, str]) -> list[tuple[str, str, str]]:
    """Part, experiment and claim of each claim that fails; an experiment that ends with an error fails as a whole."""
    what, name = job
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        with broken(what):
            found = run_experiment(name, PrinciplesConfig(size="fast", n_seeds=1))
    except (BioattnError, ValueError, RuntimeError) as error:
        return [(what, name, f"(ends with an error: {str(error).splitlines()[0][:80]})")]
    return [(what, name, verdict.claim) for verdict in found.verdicts if not verdict.passed]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(EXPERIMENTS), nargs="+", default=list(EXPERIMENTS))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    jobs = [(what, name) for what in BREAKS for name in chosen.only]
    with ProcessPoolExecutor(chosen.workers, mp_context=get_context("spawn")) as pool:
        table = pd.DataFrame(
            [row for rows in pool.map(failing, jobs) for row in rows], columns=["broken", "experiment", "claim"]
        )
    for what, rows in table.groupby("broken", sort=False):
        print(f"\n{what}: {len(rows)} claims of {rows['experiment'].nunique()} experiments fail")
        print(rows[["experiment", "claim"]].to_string(index=False, header=False, max_colwidth=100))
    unnoticed = [what for what in BREAKS[1:] if what not in set(table["broken"])]
    if unnoticed:
        print(f"\nnoticed by no claim: {', '.join(unnoticed)}")
    return int(bool(unnoticed) or "nothing" in set(table["broken"]))


if __name__ == "__main__":
    sys.exit(main())
