"""What stands behind the real tokens changes nothing.

Sequences of unequal length are filled up to the longest of their batch. Keys that are padding must not be read, and
padded rows must be zeroed and left out of pooling, loss and statistics. Then outputs and loss of the real tokens are
the same whatever the padding holds and however long it is. Each defence is needed: with either removed, the answer
depends on what fills the gap.

Source: the contract of `bioattn.nn`; Vaswani et al. 2017, section 3.2.3 for masking before softmax.
"""

import sys

import pandas as pd
import torch
from torch import Tensor

from bioattn.config import PrinciplesConfig
from bioattn.nn.encoder import Encoder
from bioattn.nn.readouts import MeanPooling
from bioattn.principles.finding import Drawing, Finding, Verdict, finding_of

_WIDTH, _REAL = 16, 23


def run(settings: PrinciplesConfig) -> Finding:
    """Outputs and pooled readouts with padding of growing length, with and without the defences."""
    torch.manual_seed(settings.seeds[0])
    model = Encoder(_WIDTH, 2, 2, _WIDTH, positions="rope").double().eval().requires_grad_(False)
    pool = MeanPooling()
    real = torch.randn(1, _REAL, _WIDTH, dtype=torch.float64)
    whole = model(real)
    rows = []
    for extra in (1, 4, 16, 64):
        x = torch.cat([real, 10 * torch.randn(1, extra, _WIDTH, dtype=torch.float64)], dim=1)
        keep = torch.arange(_REAL + extra)[None] < _REAL
        guarded = model(x, keep=keep)
        rows.append([extra, "both", _off(guarded[:, :_REAL], whole), _off(pool(guarded, keep=keep), pool(whole))])
        open_ = model(x)
        rows.append([extra, "keys unmasked", _off(open_[:, :_REAL], whole), _off(pool(open_, keep=keep), pool(whole))])
        rows.append([extra, "pooled as if real", 0.0, _off(pool(guarded), pool(whole))])
    table = pd.DataFrame(rows, columns=["padding", "defences", "outputs", "readout"])
    worst = {what: table.groupby("defences")[what].max() for what in ("outputs", "readout")}
    least = table.groupby("defences")["readout"].min()
    verdicts = [
        Verdict(
            "Largest relative change of real tokens' outputs.", "constructed", 0.0,
            (float(worst["outputs"]["both"]),), 1e-12,
        ),
        Verdict(
            "Largest relative change of the pooled readout.", "constructed", 0.0,
            (float(worst["readout"]["both"]),), 1e-12,
        ),
        Verdict(
            "With padded keys readable the readout changes: least relative change.", "control", 0.01,
            (float(least["keys unmasked"]),), rule="at least",
        ),
        Verdict(
            "With padded rows in the pooling it changes too.", "control", 0.01,
            (float(least["pooled as if real"]),), rule="at least",
        ),
    ]  # fmt: skip
    shown = table.assign(readout=table["readout"].clip(lower=1e-17))
    drawing = Drawing(
        "lines", "padding", "readout", "defences", "padded tokens", "relative change of readout", True, True
    )
    return finding_of(sys.modules[__name__], verdicts, shown, drawing)


def _off(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
