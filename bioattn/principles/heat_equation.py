"""One step of diffusion is one row of attention.

An explicit Euler step of the heat equation replaces each point by r of its left neighbour, r of its right one and 1 -
2 r of itself. These weights are positive and sum to one: softmax of the scores log r, log(1 - 2 r), log r. A head
whose scores depend on the difference of positions learns them from pairs of states, and then holds on grids it never
saw and over many steps. Where r exceeds one half the middle weight is negative: no softmax has such a row, and
Euler's method is unstable there too.

Source: Courant, Friedrichs and Lewy 1928.
"""

import math
import sys

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from bioattn.config import PrinciplesConfig
from bioattn.nn import attention
from bioattn.principles.finding import Drawing, Finding, Verdict, finding_of
from bioattn.principles.ring import RingAttention, smooth_fields
from bioattn.principles.training import train_steps
from bioattn.rng import stream_seed

_R, _GRID, _UNSEEN, _STEPS, _REACH = 0.2, 32, 48, 100, 4


def euler(state: Tensor, r: float) -> Tensor:
    """One explicit step on a ring, (B, L)."""
    return state + r * (state.roll(1, -1) - 2 * state + state.roll(-1, -1))


def run(settings: PrinciplesConfig) -> Finding:
    """The constructed row against Euler's step; a learned one's kernel, rollout and other grid; r above one half."""
    scores = torch.full((_GRID, _GRID), -math.inf, dtype=torch.float64)
    index = torch.arange(_GRID)
    scores[index, index] = math.log(1 - 2 * _R)
    for turn in (-1, 1):
        scores[index, (index + turn) % _GRID] = math.log(_R)
    pattern = attention.pattern(scores[None, None])[0, 0]
    generator = torch.Generator().manual_seed(settings.seeds[0])
    state = torch.randn(8, _GRID, generator=generator, dtype=torch.float64)
    exact = float((state @ pattern.T - euler(state, _R)).abs().max())
    steps = 1500 if settings.size == "fast" else 6000
    kernels, rollouts, grids, rows = [], [], [], []
    for seed in settings.seeds:
        torch.manual_seed(stream_seed(seed, "principles", "heat"))
        own = torch.Generator().manual_seed(seed)
        network = RingAttention(_REACH)

        def batch(own: torch.Generator = own) -> tuple[Tensor, Tensor]:
            fields = torch.randn(64, _GRID, generator=own)
            return fields, euler(fields, _R)

        train_steps(network, batch, steps=steps, learning_rate=1.0, loss=F.mse_loss)
        with torch.no_grad():
            kernel = network.kernel(_GRID).double()
            stencil = euler(torch.eye(_GRID, dtype=torch.float64), _R)[0]
            kernels.append(float((kernel - stencil).abs().max()))
            begin = smooth_fields(16, _GRID, own)
            rollouts.append(_rollout(network, begin)[-1])
            grids.append(_rollout(network, smooth_fields(16, _UNSEEN, own))[-1])
            if seed == settings.seeds[0]:
                errors = _rollout(network, begin)
                rows += [[step, "learned", error] for step, error in enumerate(errors, 1)]
    unstable = 0.6
    state = smooth_fields(4, _GRID, generator) + 1e-3 * torch.randn(4, _GRID, generator=generator)
    start = state.norm()
    for _ in range(_STEPS):
        state = euler(state, unstable)
    verdicts = [
        Verdict(
            "The row (log r, log(1 - 2 r), log r) is one step: largest difference.", "constructed", 0.0, (exact,), 1e-14
        ),
        Verdict("A learned kernel is the stencil: largest difference.", "trained", 0.0, tuple(kernels), 2e-3),
        Verdict(f"It rolls out {_STEPS} steps: relative error.", "trained", 0.1, tuple(rollouts), rule="at most"),
        Verdict(f"And on a grid of {_UNSEEN} it never saw.", "trained", 0.1, tuple(grids), rule="at most"),
        Verdict(
            "Above one half the middle weight is negative, which no softmax has.",
            "control",
            0.0,
            (1 - 2 * unstable,),
            rule="at most",
        ),
        Verdict(
            "And Euler's method grows there: factor of the norm.",
            "control",
            10.0,
            (float(state.norm() / start),),
            rule="at least",
        ),
    ]
    table = pd.DataFrame(rows, columns=["step", "network", "error"])
    table["error"] = np.maximum(table["error"], 1e-9)
    drawing = Drawing("lines", "step", "error", "network", "steps rolled out", "relative error", log_y=True)
    return finding_of(sys.modules[__name__], verdicts, table, drawing)


def _rollout(network: RingAttention, state: Tensor) -> list[float]:
    """Relative error after each of many steps."""
    true, errors = state, []
    for _ in range(_STEPS):
        state, true = network(state), euler(true, _R)
        errors.append(float((state - true).norm() / true.norm()))
    return errors
