"""Heads split the work when there are two relations to follow.

Each token must report two others: the one before it and the one three places before. One head has one pattern, so one
head cannot follow both; two heads share them out, and taking one out costs one answer and leaves the other. Heads
that are copies of each other have the same pattern (a redundancy of one) and bring nothing over a single one.

Source: Voita et al. 2019, Analyzing multi-head self-attention; Michel et al. 2019, Are sixteen heads really better
than one?
"""

import sys
from functools import partial

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bioattn.config import PrinciplesConfig
from bioattn.nn import taps
from bioattn.nn.multihead import MultiHeadAttention
from bioattn.nn.positions import RelativeBias
from bioattn.principles.finding import Drawing, Finding, Verdict, finding_of
from bioattn.principles.training import train_steps
from bioattn.rng import stream_seed

_SYMBOLS, _WIDTH, _LENGTH = 6, 24, 16
_OFFSETS = (1, 3)


class TwoRelations(nn.Module):
    """Symbols (B, L) to logits (B, symbols, 2, L) of those at both offsets; one attention layer, no stream past it."""

    def __init__(self, n_heads: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(_SYMBOLS, _WIDTH)
        self.attn = MultiHeadAttention(_WIDTH, n_heads, backend="reference", relative=RelativeBias(n_heads))
        self.readout = nn.Linear(_WIDTH, 2 * _SYMBOLS)

    def forward(self, symbols: Tensor) -> Tensor:  # noqa: D102
        made = self.readout(self.attn(self.embed(symbols)))
        return made.unflatten(-1, (2, _SYMBOLS)).permute(0, 3, 2, 1)


def examples(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Symbols (n, L), and those at both offsets before each (n, 2, L); -100 where there is none."""
    symbols = torch.randint(_SYMBOLS, (n, _LENGTH), generator=generator)
    target = torch.full((n, 2, _LENGTH), -100)
    for place, offset in enumerate(_OFFSETS):
        target[:, place, offset:] = symbols[:, :-offset]
    return symbols, target


def run(settings: PrinciplesConfig) -> Finding:
    """Accuracy of both relations with each head taken out; redundancy of heads; one head, and two that are copies."""
    steps = 1500 if settings.size == "fast" else 4000
    rows, whole, alone, hit, spared, redundancy, copies = [], [], [], [], [], [], []
    for seed in settings.seeds:
        networks, generator = {}, torch.Generator().manual_seed(seed)
        for n_heads in (1, 2):
            torch.manual_seed(stream_seed(seed, "principles", "heads", n_heads))
            networks[n_heads] = TwoRelations(n_heads)
            train_steps(networks[n_heads], partial(examples, 64, generator), steps=steps, learning_rate=0.03)
        test = examples(400, generator)
        two = networks[2]
        found = _accuracies(two, *test)
        whole.append(float(found.min()))
        alone.append(float(_accuracies(networks[1], *test).min()))
        without = []
        for head in (0, 1):
            with taps.edit(two, {"attn.head_output": taps.zero(np.s_[:, head])}):
                without.append(_accuracies(two, *test))
        left = np.stack(without)
        falls = found - left
        # Which head it is that a relation rests on differs between seeds.
        for r in (0, 1):
            rows += [
                [seed, "both heads", r, float(found[r])],
                [seed, "without the head it rests on", r, float(left[:, r].min())],
                [seed, "without the other head", r, float(left[:, r].max())],
            ]
        # Each relation rests on one head: what it loses with that head, and with the other one.
        hit.append(float(falls.max(0).min()))
        spared.append(float(falls.min(0).max()))
        apart = bool(falls[:, 0].argmax() != falls[:, 1].argmax())
        hit[-1] = hit[-1] if apart else 0.0
        redundancy.append(_redundancy(two, test[0]))
        copies.append(_redundancy(_copied(networks[1]), test[0]))
    table = pd.DataFrame(rows, columns=["seed", "heads", "relation", "accuracy"])
    shown = table.groupby(["heads", "relation"], sort=False)["accuracy"].mean().reset_index()
    verdicts = [
        Verdict(
            "Two heads follow both relations: accuracy of the worse.", "trained", 0.97, tuple(whole), rule="at least"
        ),
        Verdict(
            "Each relation rests on a head of its own: fall without it.", "trained", 0.5, tuple(hit), rule="at least"
        ),
        Verdict("And not on the other: fall without that.", "trained", 0.1, tuple(spared), rule="at most"),
        Verdict("Their patterns differ: redundancy.", "trained", 0.8, tuple(redundancy), rule="at most"),
        Verdict("One head cannot follow both: accuracy of the worse.", "control", 0.8, tuple(alone), rule="at most"),
        Verdict("Copies of a head have a redundancy of one.", "control", 1.0, tuple(copies), 1e-5),
    ]
    drawing = Drawing(
        "points", "relation", "accuracy", "heads", "relation (0: one before, 1: three before)", "accuracy"
    )
    return finding_of(sys.modules[__name__], verdicts, shown, drawing)


@torch.no_grad()
def _accuracies(network: TwoRelations, symbols: Tensor, target: Tensor) -> np.ndarray:
    """Accuracy of each relation, (2,)."""
    right = (network(symbols).argmax(1) == target) & (target >= 0)
    return (right.sum((0, 2)) / (target >= 0).sum((0, 2))).numpy()


@torch.no_grad()
def _redundancy(network: TwoRelations, symbols: Tensor) -> float:
    """Cosine between the patterns of two heads, mean over examples."""
    with taps.record(network, ["attn.pattern"]) as store:
        network(symbols)
    first, second = store["attn.pattern"].flatten(2).unbind(1)
    return float(F.cosine_similarity(first, second, dim=-1).mean())


def _copied(single: TwoRelations) -> TwoRelations:
    """A network of two heads with the query, key and position bias of one."""
    double = TwoRelations(2)
    half = _WIDTH // 2
    with torch.no_grad():
        double.embed.load_state_dict(single.embed.state_dict())
        weight, bias = single.attn.project_in.weight, single.attn.project_in.bias
        for part in range(3):
            for head in range(2):
                rows = slice(part * _WIDTH + head * half, part * _WIDTH + (head + 1) * half)
                source = slice(part * _WIDTH, part * _WIDTH + half)
                double.attn.project_in.weight[rows] = weight[source]
                double.attn.project_in.bias[rows] = bias[source]
        assert isinstance(double.attn.relative, RelativeBias) and isinstance(single.attn.relative, RelativeBias)
        double.attn.relative.table.copy_(single.attn.relative.table.expand(-1, 2))
    return double.eval()
