"""Scores are divided by the root of the width.

The dot product of two vectors with d independent entries of variance one has variance d. Undivided, scores grow with
the width, softmax picks one key whatever the keys hold (its entropy goes to zero), and the gradient through it
vanishes: nothing can be learned. Divided by the root of d their variance is one at every width, and entropy and
gradient stay.

Source: Vaswani et al. 2017, section 3.2.1, footnote 4.
"""

import math
import sys

import pandas as pd
import torch
from torch import Tensor

from bioattn.config import PrinciplesConfig
from bioattn.nn import attention
from bioattn.principles.finding import Drawing, Finding, Verdict, finding_of, number
from bioattn.rng import stream_seed

_WIDTHS = (4, 16, 64, 256, 1024)
_KEYS = 64


def run(settings: PrinciplesConfig) -> Finding:
    """Variance, entropy and gradient of scaled and unscaled scores, by width."""
    n_queries = 400 if settings.size == "fast" else 4000
    rows = []
    for width in _WIDTHS:
        generator = torch.Generator().manual_seed(stream_seed(settings.seeds[0], "principles", "scaling", width))
        query = torch.randn(1, 1, n_queries, width, generator=generator, dtype=torch.float64)
        key = torch.randn(1, 1, _KEYS, width, generator=generator, dtype=torch.float64)
        scaled = attention.scores(query, key)
        for name, scores in (("scaled", scaled), ("unscaled", scaled * math.sqrt(width))):
            pattern = attention.pattern(scores)
            rows.append([width, name, scores.var().item(), _entropy(pattern), _gradient(pattern)])
    table = pd.DataFrame(rows, columns=["width", "scores", "variance", "entropy", "gradient"])
    widest, narrowest = _WIDTHS[-1], _WIDTHS[0]
    # Four standard errors of a mean of squares over queries and keys: each score's own, and those of their lengths.
    spread = 4 * math.sqrt(2 / (n_queries * _KEYS) + 2 / (widest * _KEYS) + 2 / (widest * n_queries))
    verdicts = [
        Verdict(
            "Scaled scores have variance one at the largest width.", "constructed", 1.0,
            (number(table, "variance", scores="scaled", width=widest),), spread,
        ),
        Verdict(
            "Unscaled scores have the variance of their width.", "constructed", 1.0,
            (number(table, "variance", scores="unscaled", width=widest) / widest,), spread,
        ),
        Verdict(
            "Entropy of the scaled pattern stays: its share at the largest width of that at the smallest.",
            "constructed", 0.9,
            (
                number(table, "entropy", scores="scaled", width=widest)
                / number(table, "entropy", scores="scaled", width=narrowest),
            ),
            rule="at least",
        ),
        Verdict(
            "Without the division the pattern saturates: entropy in nats at the largest width.", "control", 0.2,
            (number(table, "entropy", scores="unscaled", width=widest),), rule="at most",
        ),
        Verdict(
            "And the gradient through it vanishes: its share of the scaled one's.", "control", 0.2,
            (
                number(table, "gradient", scores="unscaled", width=widest)
                / number(table, "gradient", scores="scaled", width=widest),
            ), rule="at most",
        ),
    ]  # fmt: skip
    drawing = Drawing("lines", "width", "entropy", "scores", "width of queries and keys", "entropy (nats)", log_x=True)
    return finding_of(sys.modules[__name__], verdicts, table, drawing)


def _entropy(pattern: Tensor) -> float:
    return float(-(pattern * pattern.clamp(min=1e-300).log()).sum(-1).mean())


def _gradient(pattern: Tensor) -> float:
    """Mean trace of the Jacobian of softmax, the sum of p (1 - p)."""
    return float((pattern * (1 - pattern)).sum(-1).mean())
