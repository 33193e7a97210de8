"""Third residues make distances consistent.

Of the distances between points in space some are known. The others are limited by them: no side of a triangle is
longer than the other two together. A network that updates each pair by itself cannot know; one that updates pairs
through third points can, and its predicted distances violate the triangle inequality less, and are nearer to the
truth. With the third points of one side shuffled against those of the other there are no triangles any more, and the
distances are no better.

Source: Jumper et al. 2021, supplement, section 1.6 (triangle updates).
"""

import sys
from functools import partial

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bioattn.config import PrinciplesConfig
from bioattn.nn import taps
from bioattn.nn.pair.trunk import PairTrunk
from bioattn.principles.finding import Drawing, Finding, Verdict, finding_of
from bioattn.principles.training import train_steps
from bioattn.rng import stream_seed

_POINTS, _KNOWN = 10, 0.35
_WITHOUT = ("outgoing", "incoming", "starting", "ending")


class Completer(nn.Module):
    """Known distances (B, N, N, 2: value, whether known) to all distances (B, N, N)."""

    def __init__(self, *, triangles: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(2, 24)
        # Of the updates multiplication alone, whose third points can be shuffled on one side.
        without = ("single", "starting", "ending") if triangles else (*_WITHOUT, "single")
        self.trunk = PairTrunk(
            8, 24, 3, n_heads=1, n_pair_heads=2, d_pair_head=8, d_hidden=24, backend="reference", without=without
        )
        self.readout = nn.Linear(24, 1)

    def forward(self, known: Tensor) -> Tensor:  # noqa: D102
        single = known.new_zeros(len(known), known.shape[1], 8)
        _, pair = self.trunk(single, self.embed(known))
        made = F.softplus(self.readout(pair)[..., 0])
        made = (made + made.transpose(1, 2)) / 2
        return made * (1 - torch.eye(made.shape[1]))


def examples(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Known distances (n, N, N, 2) of random points in space, and all of them (n, N, N)."""
    points = torch.randn(n, _POINTS, 3, generator=generator)
    distance = torch.cdist(points, points)
    shown = torch.rand(n, _POINTS, _POINTS, generator=generator) < _KNOWN / 2
    shown = shown | shown.transpose(1, 2) | torch.eye(_POINTS, dtype=torch.bool)
    return torch.stack([distance * shown, shown.float()], dim=-1), distance


def run(settings: PrinciplesConfig) -> Finding:
    """Error and violations of predicted distances with triangle updates, without, and with shuffled third points."""
    steps = 500 if settings.size == "fast" else 3000
    rows = []
    for seed in settings.seeds:
        generator = torch.Generator().manual_seed(seed)
        networks = {}
        for name in ("triangles", "none"):
            torch.manual_seed(stream_seed(seed, "principles", "triangle", name))
            networks[name] = Completer(triangles=name == "triangles")
            train_steps(
                networks[name], partial(examples, 32, generator), steps=steps, learning_rate=3e-3, loss=F.mse_loss
            )
        known, distance = examples(300, generator)
        order = torch.randperm(_POINTS, generator=generator)
        shuffled = {
            f"trunk.block.{i}.{part}.right": _third(part, order)
            for i in range(3) for part in ("outgoing", "incoming")
        }  # fmt: skip
        for name, network, edits in (
            ("triangle updates", networks["triangles"], {}), ("no triangle updates", networks["none"], {}),
            ("third points shuffled", networks["triangles"], shuffled),
        ):  # fmt: skip
            with torch.no_grad(), taps.edit(network, edits):
                found = network(known)
            rows.append([seed, name, float((found - distance).abs().mean()), _violations(found)])
    table = pd.DataFrame(rows, columns=["seed", "network", "error", "violations"])
    by = {what: table.pivot(index="seed", columns="network", values=what) for what in ("error", "violations")}
    verdicts = [
        Verdict(
            "Violated triangles with triangle updates, as a share of those without.", "trained", 0.8,
            tuple(by["violations"]["triangle updates"] / by["violations"]["no triangle updates"]), rule="at most",
        ),
        Verdict(
            "Error of distances, likewise.", "trained", 0.9,
            tuple(by["error"]["triangle updates"] / by["error"]["no triangle updates"]), rule="at most",
        ),
        Verdict(
            "With third points shuffled they are no better: error over that without shuffling.", "control", 1.1,
            tuple(by["error"]["third points shuffled"] / by["error"]["triangle updates"]), rule="at least",
        ),
    ]  # fmt: skip
    drawing = Drawing(
        "points", "error", "violations", "network", "mean error of distances", "share of violated triangles"
    )
    return finding_of(sys.modules[__name__], verdicts, table, drawing)


def _third(part: str, order: Tensor) -> taps.Change:
    """Edit that gives the right edges of a multiplication other third points than the left ones have."""
    axis = 2 if part == "outgoing" else 1
    return lambda edges: edges.index_select(axis, order)


def _violations(distance: Tensor) -> float:
    """Share of triangles with a side longer than the other two together, by more than rounding."""
    excess = distance[:, :, :, None] - distance[:, :, None, :] - distance.transpose(1, 2)[:, None]
    n = distance.shape[1]
    i, j, k = torch.meshgrid(*[torch.arange(n)] * 3, indexing="ij")
    different = (i != j) & (j != k) & (i != k)
    return float((excess[:, different] > 1e-4).float().mean())
