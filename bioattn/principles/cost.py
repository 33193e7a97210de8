"""Full attention costs the square of the length, a window its first power.

Every query meets every key: arithmetic and, where scores are written out, memory grow with the square of the length.
A window of fixed reach meets as many keys whatever the length, so both grow with its first power. Recurrence is
linear too, but its steps wait for each other: as many as there are tokens, where attention needs one. Counted, not
timed: floating-point operations and live bytes of one forward and backward pass are the same on every machine.

Source: Vaswani et al. 2017, table 1.
"""

import sys

import numpy as np
import pandas as pd
import torch
from torch import nn

from bioattn.config import PrinciplesConfig
from bioattn.nn.encoder import Encoder
from bioattn.nn.masks import Window
from bioattn.nn.recurrent import RecurrentEncoder
from bioattn.principles.finding import Drawing, Finding, Verdict, finding_of
from bioattn.train.memory import track_memory

_WIDTH, _REACH = 8, 16


def run(settings: PrinciplesConfig) -> Finding:
    """Exponents of arithmetic and memory in the length."""
    lengths = (512, 1024, 2048) if settings.size == "fast" else (512, 1024, 2048, 4096, 8192)
    networks: dict[str, nn.Module] = {
        "full": Encoder(_WIDTH, 1, 1, _WIDTH, positions="rope", backend="reference"),
        "window": Encoder(_WIDTH, 1, 1, _WIDTH, positions="rope", backend="local", mask=Window(_REACH)),
        "recurrent": RecurrentEncoder(_WIDTH, 1),
    }
    rows = []
    for name, network in networks.items():
        for length in lengths:
            x = torch.randn(1, length, _WIDTH, generator=torch.Generator().manual_seed(length))
            with track_memory([*network.parameters(), x]) as counted:
                before = counted.live_bytes
                network(x).square().sum().backward()
            network.zero_grad(set_to_none=True)
            rows.append([name, length, counted.flops, counted.peak_bytes - before])
    table = pd.DataFrame(rows, columns=["attention", "length", "operations", "bytes"])
    verdicts = []
    for name, exponent in (("full", 2.0), ("window", 1.0)):
        for what in ("operations", "bytes"):
            found = _exponent(table[table["attention"] == name], what)
            kind = "constructed" if name == "full" else "control"
            verdicts.append(
                Verdict(f"Exponent of {what} in the length, {name} attention.", kind, exponent, (found,), 0.2)  # type: ignore[arg-type]
            )
    drawing = Drawing("lines", "length", "bytes", "attention", "tokens", "peak bytes", log_x=True, log_y=True)
    return finding_of(sys.modules[__name__], verdicts, table, drawing)


def _exponent(rows: pd.DataFrame, what: str) -> float:
    return float(np.polyfit(np.log(rows["length"]), np.log(rows[what].astype(float)), 1)[0])
