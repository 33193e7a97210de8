"""The odd item is the one that nobody attends to.

Items of one kind are alike, so their queries and keys have a large product, and each reads the others of its kind. An
item of another kind is like none: the attention that it receives from the others is the least. With no odd item every
one receives the same, one over their number from each. Trained to name the odd one, attention does the same.

Source: attention received as in Clark et al. 2019, What does BERT look at?
"""

import sys

import pandas as pd
import torch
from torch import Tensor, nn

from bioattn.config import PrinciplesConfig
from bioattn.nn import attention, taps
from bioattn.nn.multihead import MultiHeadAttention
from bioattn.principles.finding import Drawing, Finding, Verdict, finding_of
from bioattn.principles.training import accuracy, train_steps
from bioattn.rng import stream_seed

_ITEMS, _WIDTH = 7, 24


class OddOneOut(nn.Module):
    """Items (B, L, D) to scores (B, L) of being the odd one: less the more an item is read."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = MultiHeadAttention(_WIDTH, 1, backend="reference")
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, items: Tensor) -> Tensor:  # noqa: D102
        with taps.record(self, ["attn.pattern"]) as store:
            self.attn(items)
        return -self.scale.exp() * from_others(store["attn.pattern"][:, 0])


def from_others(pattern: Tensor) -> Tensor:
    """Attention (B, L) that each item receives from all but itself, of patterns (B, L, L)."""
    return pattern.sum(1) - pattern.diagonal(dim1=1, dim2=2)


def examples(n: int, generator: torch.Generator, *, odd: bool = True) -> tuple[Tensor, Tensor]:
    """Items (n, L, D) around a direction of their kind, one of them, at a random place (n,), around another."""
    kind, other = torch.randn(2, n, 1, _WIDTH, generator=generator)
    items = kind + 0.3 * torch.randn(n, _ITEMS, _WIDTH, generator=generator)
    place = torch.randint(_ITEMS, (n,), generator=generator)
    if odd:
        strange = other[:, 0] + 0.3 * torch.randn(n, _WIDTH, generator=generator)
        items[torch.arange(n), place] = strange
    return items, place


def run(settings: PrinciplesConfig) -> Finding:
    """Attention received by the odd item and the others: constructed, trained, and without an odd item."""
    generator = torch.Generator().manual_seed(settings.seeds[0])
    items, place = examples(2000, generator)
    received = _received(items)
    right = float((received.argmin(1) == place).float().mean())
    same = torch.ones(1, _ITEMS, _WIDTH)
    uniform = float((_received(same) - (_ITEMS - 1) / _ITEMS).abs().max())
    steps = 150 if settings.size == "fast" else 600
    trained, noise = [], []
    for seed in settings.seeds:
        torch.manual_seed(stream_seed(seed, "principles", "odd"))
        own = torch.Generator().manual_seed(seed)
        network = OddOneOut()

        def batch(own: torch.Generator = own) -> tuple[Tensor, Tensor]:
            return examples(128, own)

        train_steps(network, batch, steps=steps, learning_rate=5e-3)
        trained.append(accuracy(network, *examples(2000, own)))
        noise.append(accuracy(network, *examples(2000, own, odd=False)))
    others = received[torch.arange(_ITEMS) != place[:, None]]
    odd = received[torch.arange(len(place)), place]
    table = pd.DataFrame(
        [["odd", i, float(v)] for i, v in enumerate(odd[:200].sort().values)]
        + [["others", i, float(v)] for i, v in enumerate(others[:1200].sort().values[::6])],
        columns=["item", "rank", "received"],
    )
    verdicts = [
        Verdict("The odd item receives least: share of sets.", "constructed", 0.99, (right,), rule="at least"),
        Verdict("A trained head names it: accuracy.", "trained", 0.98, tuple(trained), rule="at least"),
        Verdict(
            "Items that are all the same receive the same from each other: largest difference.",
            "control",
            0.0,
            (uniform,),
            1e-6,
        ),
        Verdict(
            "Without an odd item the trained head is at chance: accuracy.", "control", 1 / _ITEMS, tuple(noise), 0.04
        ),
    ]
    drawing = Drawing("points", "rank", "received", "item", "items in order", "attention received")
    return finding_of(sys.modules[__name__], verdicts, table, drawing)


def _received(items: Tensor) -> Tensor:
    """Attention (B, L) that each item receives from the others, with the items themselves as queries and keys."""
    return from_others(attention.pattern(attention.scores(items[:, None], items[:, None]))[:, 0])
