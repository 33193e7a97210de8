"""A patch transformer learns diffusion, and takes it to grids it never saw.

Fields are cut into patches; each is a token, and before them stands one that says how fast heat spreads and whether the
ends meet or are held at zero. Trained on single steps of trajectories on small grids, an encoder with rotary positions
learns the rule and not the place: the Jacobian of its step is the stencil (r, 1 - 2r, r) of the r it is told, a hundred
of its steps stay near the solution, and they do so on a larger grid too. The same encoder with positions added to its
tokens learns the seen grids, and fails at places it never saw. Convolutions of as many parameters, which have the
rule's locality built in, do better still. Fourier layers do worse: what a step does to a wave of the whole grid depends
on the grid, and walls are no waves.

Source: Courant, Friedrichs and Lewy 1928 for the step; Li et al. 2021 for Fourier layers; Su et al. 2021 for positions.
"""

import sys

import pandas as pd
import torch
from torch import Tensor, nn

from bioattn.config import PrinciplesConfig
from bioattn.principles.fields import NETWORKS, Scaled, State, euler, trajectories, waves
from bioattn.principles.finding import Drawing, Finding, Verdict, finding_of
from bioattn.principles.training import train_steps
from bioattn.rng import stream_seed

_SEEN, _UNSEEN, _R, _STEPS = (32, 40, 48), (64, 96), 0.2, 100
#: Diffusivities whose stencil is asked for; training has all from 0.05 to 0.45.
_TOLD = (0.1, 0.2, 0.4)
_BATCH, _FRESH = 32, 8
_ROTARY, _ADDED = list(NETWORKS)[:2]


class _Change(nn.Module):
    """What a step changes, over the root of r: neither slow diffusion nor fast alone decides."""

    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        self.step = step

    def forward(self, state: State) -> Tensor:
        return (self.step(state) - state[0]) / state[1].sqrt()


def run(settings: PrinciplesConfig) -> Finding:
    """Error of a hundred steps by grid and network; the Jacobian of one step; rotary against added positions."""
    steps = 1800 if settings.size == "fast" else 5000
    rows, kernels = [], []
    for seed in settings.seeds:
        for name in NETWORKS:
            # Rivals are no claim: one seed shows what they do.
            if name not in (_ROTARY, _ADDED) and seed != settings.seeds[0]:
                continue
            step = _learned(name, seed, steps=steps)
            generator = torch.Generator().manual_seed(seed)
            parameters = sum(weight.numel() for weight in step.parameters())
            for points in (*_SEEN, *_UNSEEN):
                for ring in (False, True):
                    error = rollout(step, waves(16, points, generator, ring=ring, r=_R))
                    rows.append([seed, name, points, "ring" if ring else "walls", error, parameters])
            if name == _ROTARY:
                kernels.append(max(_kernel_error(step, r, generator) / r for r in _TOLD))
    table = pd.DataFrame(rows, columns=["seed", "network", "points", "ends", "error", "parameters"])
    sizes = table.drop_duplicates("network")["parameters"]

    def worst(name: str, *grids: int) -> tuple[float, ...]:
        chosen = table[(table["network"] == name) & table["points"].isin(grids)]
        return tuple(chosen.groupby("seed")["error"].max())

    verdicts = [
        Verdict(
            "The Jacobian of one step is the stencil of the r it is told (0.1, 0.2, 0.4): largest difference over r.",
            "trained", 0.25, tuple(kernels), rule="at most",
        ),
        Verdict(
            f"{_STEPS} steps stay near the solution, between walls and on rings: relative error.", "trained", 0.15,
            worst(_ROTARY, *_SEEN), rule="at most",
        ),
        Verdict(
            f"Also on a grid of {_UNSEEN[0]} points, which it never saw: relative error.", "trained", 0.2,
            worst(_ROTARY, _UNSEEN[0]), rule="at most",
        ),
        Verdict(
            f"With positions added to tokens it does not, at {_UNSEEN[0]} points: relative error.", "control", 0.4,
            worst(_ADDED, _UNSEEN[0]), rule="at least",
        ),
        Verdict(
            "Though it does on the grids it saw: relative error.", "trained", 0.2,
            worst(_ADDED, *_SEEN), rule="at most",
        ),
        Verdict(
            "All four networks have as many parameters: largest over smallest number.", "constructed", 1.1,
            (float(sizes.max() / sizes.min()),), rule="at most",
        ),
    ]  # fmt: skip
    shown = table.groupby(["network", "points"], sort=False)["error"].mean().reset_index()
    drawing = Drawing(
        "lines", "points", "error", "network", "points of the grid (trained: 32, 40, 48)",
        f"relative error after {_STEPS} steps", log_y=True,
    )  # fmt: skip
    return finding_of(sys.modules[__name__], verdicts, shown, drawing)


def _learned(name: str, seed: int, *, steps: int) -> Scaled:
    """A network that was trained on single steps of trajectories on the seen grids."""
    torch.manual_seed(stream_seed(seed, "principles", "diffusion", name))
    generator = torch.Generator().manual_seed(seed)
    step = Scaled(NETWORKS[name]())
    n = 400
    known = {points: trajectories(n, points, generator) for points in _SEEN}

    def batch() -> tuple[State, Tensor]:
        states = known[_SEEN[int(torch.randint(len(_SEEN), (), generator=generator))]]
        rows = torch.randint(len(states[0]), (_BATCH,), generator=generator)
        # Rough fields are few along a trajectory, and show what the far ends of the stencil do.
        rows[:_FRESH] = torch.randint(n, (_FRESH,), generator=generator)
        state = (states[0][rows], states[1][rows], states[2][rows])
        return state, (euler(state) - state[0]) / state[1].sqrt()

    train_steps(_Change(step), batch, steps=steps, learning_rate=5e-3, loss=_root_mean_square)
    return step.eval()


def _root_mean_square(found: Tensor, expected: Tensor) -> Tensor:
    """Mean over fields of the root of the mean square error: smooth fields, which hardly change, count as well."""
    return (found - expected).square().mean(1).add(1e-6).sqrt().mean()


@torch.no_grad()
def rollout(step: nn.Module, state: State) -> float:
    """Relative error after many steps, each from the network's own field."""
    field, r, ring = state
    true = field
    for _ in range(_STEPS):
        field, true = step((field, r, ring)), euler((true, r, ring))
    return float((field - true).norm() / true.norm())


def _kernel_error(step: nn.Module, r: float, generator: torch.Generator, *, points: int = 48) -> float:
    """Largest difference between what a point takes from those around it, on average over places, and the stencil."""
    fields = trajectories(8, points, generator, times=4)[0]
    told, ring = torch.full((len(fields), 1), r), torch.ones(len(fields), 1)

    def total(field: Tensor) -> Tensor:
        return step((field, told, ring)).sum(0)

    jacobian = torch.autograd.functional.jacobian(total, fields).permute(1, 0, 2)
    found = torch.stack([torch.diagonal(jacobian.roll(-turn, 2), dim1=1, dim2=2).mean() for turn in range(points)])
    stencil = euler((torch.eye(points)[:1], torch.full((1, 1), r), torch.ones(1, 1)))[0]
    return float((found - stencil).abs().max())
