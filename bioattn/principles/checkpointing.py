"""Activations can be computed again instead of kept.

The gradient needs what every layer computed. Kept, that takes memory for every layer; computed again from the input
of each layer when the gradient arrives, it takes memory for one layer at a time and one more forward pass. Nothing
else changes: loss and gradients are the same numbers, with dropout too, if the random state of the first pass is set
again for the second.

Source: Chen et al. 2016, Training deep nets with sublinear memory cost.
"""

import sys

import pandas as pd
import torch

from bioattn.config import PrinciplesConfig
from bioattn.nn.encoder import Encoder
from bioattn.principles.finding import Drawing, Finding, Verdict, finding_of
from bioattn.train.memory import track_memory

_WIDTH, _LENGTH = 16, 256


def run(settings: PrinciplesConfig) -> Finding:
    """Gradients and peak memory with and without checkpointing, by the number of layers."""
    layers = (2, 4, 8) if settings.size == "fast" else (2, 4, 8, 16)
    rows, errors = [], []
    for n in layers:
        gradients = []
        for kept in (True, False):
            torch.manual_seed(settings.seeds[0])
            model = Encoder(_WIDTH, n, 2, _WIDTH, dropout=0.2, backend="reference", checkpointing=not kept).train()
            x = torch.randn(2, _LENGTH, _WIDTH)
            with track_memory([*model.parameters(), x]) as counted:
                before = counted.live_bytes
                torch.manual_seed(1)
                loss = model(x).square().mean()
                loss.backward()
            rows.append([n, "kept" if kept else "computed again", counted.peak_bytes - before])
            gradients.append(torch.cat([loss.detach()[None], *(p.grad.flatten() for p in model.parameters())]))  # type: ignore[union-attr]
        errors.append(float((gradients[0] - gradients[1]).norm() / gradients[0].norm()))
    torch.manual_seed(2)
    other = Encoder(_WIDTH, 2, 2, _WIDTH, dropout=0.2, backend="reference").train()
    x = torch.randn(2, _LENGTH, _WIDTH)
    with torch.no_grad():
        apart = float((other(x) - other(x)).norm() / other(x).norm())
    table = pd.DataFrame(rows, columns=["layers", "activations", "bytes"])
    by = table.set_index(["activations", "layers"])["bytes"]
    verdicts = [
        Verdict(
            "Loss and gradients are the same with dropout: largest relative difference.", "constructed", 0.0,
            (max(errors),), 1e-6,
        ),
        Verdict(
            "Peak memory of the deepest stack, as a share of that with everything kept.", "constructed", 0.5,
            (float(by["computed again", layers[-1]] / by["kept", layers[-1]]),), rule="at most",
        ),
        Verdict(
            "Without setting the random state again two passes differ: relative difference of outputs.", "control",
            0.01, (apart,), rule="at least",
        ),
    ]  # fmt: skip
    drawing = Drawing("lines", "layers", "bytes", "activations", "layers", "peak bytes")
    return finding_of(sys.modules[__name__], verdicts, table, drawing)
