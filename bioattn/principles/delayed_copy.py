"""Attention reaches any distance in one step, recurrence does not.

A symbol is shown, then noise, then the symbol is asked for. Attention reads it directly: the path of the gradient
from question to symbol is one step long at any delay. Before training all tokens are read alike, so the gradient falls
as one over the length; a model that has learned to look for the symbol finds it at delays it never saw. A recurrent
network must carry the symbol through every step in between, and so must the gradient, which shrinks with each. Gates
that training has opened can carry one symbol far: the figure shows how far they got in equal training. A local window
fails once the delay is longer than it reaches, however long it is trained.

Source: Hochreiter et al. 2001 (gradient flow in recurrent nets); Vaswani et al. 2017, table 1.
"""

import sys

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from bioattn.config import PrinciplesConfig
from bioattn.nn.encoder import Encoder
from bioattn.nn.masks import Window
from bioattn.nn.recurrent import RecurrentEncoder
from bioattn.principles.finding import Drawing, Finding, Verdict, finding_of
from bioattn.principles.training import accuracy, train_steps
from bioattn.rng import stream_seed

_SYMBOLS, _NOISE, _WIDTH, _REACH = 8, 8, 32, 10


class Copier(nn.Module):
    """Tokens (B, L) to logits (B, symbols) of what the last token asks for."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        # Symbols, as many kinds of noise, and the question.
        self.embed = nn.Embedding(_SYMBOLS + _NOISE + 1, _WIDTH)
        self.encoder = encoder
        self.readout = nn.Linear(_WIDTH, _SYMBOLS)

    def forward(self, tokens: Tensor) -> Tensor:  # noqa: D102
        return self.readout(self.encoder(self.embed(tokens))[:, -1])


def examples(n: int, delay: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Tokens (n, delay + 2): a symbol, `delay` kinds of noise, the question; and the symbols."""
    symbol = torch.randint(_SYMBOLS, (n, 1), generator=generator)
    noise = _SYMBOLS + torch.randint(_NOISE, (n, delay), generator=generator)
    question = torch.full((n, 1), _SYMBOLS + _NOISE)
    return torch.cat([symbol, noise, question], dim=1), symbol[:, 0]


def gradient(name: str, delay: int, seed: int) -> float:
    """Mean norm of the gradient from an untrained network's answers to the embedded symbol."""
    network = _initial(name, seed).double()
    tokens, _ = examples(32, delay, torch.Generator().manual_seed(seed))
    embedded = network.embed(tokens).detach().requires_grad_()
    network.readout(network.encoder(embedded)[:, -1]).square().sum().backward()
    assert embedded.grad is not None
    return float(embedded.grad[:, 0].norm(dim=-1).mean())


def _exponent(seed: int) -> float:
    """Exponent of the length in the gradient through attention."""
    lengths = np.array([16, 32, 64, 128, 256])
    found = [gradient("attention", int(length) - 2, seed) for length in lengths]
    return float(np.polyfit(np.log(lengths), np.log(found), 1)[0])


def run(settings: PrinciplesConfig) -> Finding:
    """Accuracy of each network by delay, over seeds."""
    fast = settings.size == "fast"
    delays, steps = ((4, 8, 16, 32), 150) if fast else ((4, 8, 16, 32, 64, 128), 600)
    rows = []
    for seed in settings.seeds:
        for name in ("attention", "window", "gru"):
            network = _initial(name, seed)
            generator = torch.Generator().manual_seed(seed)

            def batch(generator: torch.Generator = generator) -> tuple[Tensor, Tensor]:
                delay = delays[int(torch.randint(len(delays), (), generator=generator))]
                return examples(64, delay, generator)

            train_steps(network, batch, steps=steps, learning_rate=3e-3)
            for delay in (*delays, 2 * delays[-1]):
                found = accuracy(network, *examples(400, delay, generator))
                rows.append([seed, name, delay, found])
    table = pd.DataFrame(rows, columns=["seed", "network", "delay", "accuracy"])
    by = table.set_index(["network", "delay", "seed"])["accuracy"].sort_index()
    chance = 1 / _SYMBOLS
    verdicts = [
        Verdict(
            f"Attention recalls at a delay of {delays[-1]}: accuracy.", "trained", 0.99,
            tuple(by["attention", delays[-1]]), rule="at least",
        ),
        Verdict(
            f"And at twice that, which it never saw ({2 * delays[-1]}).", "trained", 0.95,
            tuple(by["attention", 2 * delays[-1]]), rule="at least",
        ),
        Verdict(
            f"A window of {_REACH} tokens is at chance beyond its reach: accuracy.", "control", chance + 0.06,
            tuple(by["window", delays[-1]]), rule="at most",
        ),
        Verdict(
            "Before training the gradient from question to symbol falls as one over the length: exponent.",
            "constructed", -1.0, tuple(map(_exponent, settings.seeds)), 0.1,
        ),
        Verdict(
            "Through recurrence it vanishes: gradient at a delay of 64 over that at 32 (attention: 0.5).", "control",
            1e-3, tuple(gradient("gru", 64, seed) / gradient("gru", 32, seed) for seed in settings.seeds),
            rule="at most",
        ),
        Verdict(
            "From beyond a window none arrives.", "control", 0.0,
            tuple(gradient("window", 32, seed) for seed in settings.seeds),
        ),
    ]  # fmt: skip
    mean = table.groupby(["network", "delay"])["accuracy"].mean().reset_index()
    drawing = Drawing("lines", "delay", "accuracy", "network", "tokens between symbol and question", "accuracy", True)
    return finding_of(sys.modules[__name__], verdicts, mean, drawing)


def _initial(name: str, seed: int) -> Copier:
    torch.manual_seed(stream_seed(seed, "principles", "copy", name))
    return Copier(_encoder(name))


def _encoder(name: str) -> nn.Module:
    if name == "gru":
        return RecurrentEncoder(_WIDTH, 1)
    mask = Window(_REACH) if name == "window" else None
    return Encoder(_WIDTH, 1, 2, 2 * _WIDTH, positions="none", mask=mask, backend="sdpa")
