"""Scores that depend on the difference of positions make any ring kernel.

Rotary positions turn queries and keys so that their product depends on the difference of positions only. With the
harmonics of a ring for frequencies the scores are a Fourier series of that difference, and enough of them make the
logarithm of any even kernel: softmax then is the kernel itself. The Green's function of -u'' + k^2 u = f is such a
kernel, so one head is the solution operator of the equation; learned from some sources it solves others, anywhere on
the ring. So does a Fourier layer of as many parameters, since operators of a ring are a factor for each wave; a
convolution of as many lacks what lies beyond its reach. With a query and a key for every position instead, what was
learned on one side says nothing of the other.

Source: Su et al. 2021 for rotary positions; Evans 2010, section 2.2.4, for Green's functions.
"""

import math
import sys

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bioattn.config import PrinciplesConfig
from bioattn.nn import attention
from bioattn.nn.positions import RotaryPositions
from bioattn.principles.finding import Drawing, Finding, Verdict, finding_of
from bioattn.principles.ring import FreeAttention, RingAttention, RingConvolution, RingWaves
from bioattn.principles.training import train_steps
from bioattn.rng import stream_seed

_POINTS, _RATE = 64, 0.25
_PAIRS = (1, 4, 8, 16, 32)
#: Of a convolution with as many parameters as there are distances on the ring.
_REACH = _POINTS // 4


def green(length: int, k: float) -> Tensor:
    """Matrix (L, L) of the solution operator of -u'' + k^2 u = f on a ring of L points, second differences."""
    eye = torch.eye(length, dtype=torch.float64)
    laplace = eye.roll(1, 0) - 2 * eye + eye.roll(-1, 0)
    return torch.linalg.inv(k**2 * eye - laplace)


def run(settings: PrinciplesConfig) -> Finding:
    """Rotary scores and their difference; harmonics and the kernel they make; a learned operator and its rival."""
    rows = [[pairs, "e^(-k|x|)", _distance(pairs)] for pairs in _PAIRS]
    exact = green(_POINTS, _RATE).float()
    steps = 600 if settings.size == "fast" else 3000
    errors, spikes, other, free, by_waves, by_convolution = [], [], [], [], [], []
    for seed in settings.seeds:
        torch.manual_seed(stream_seed(seed, "principles", "green"))
        generator = torch.Generator().manual_seed(seed)

        def batch(generator: torch.Generator = generator) -> tuple[Tensor, Tensor]:
            # Sources on one half of the ring alone.
            source = torch.randn(64, _POINTS, generator=generator)
            source[:, _POINTS // 2 :] = 0.0
            return source, source @ exact

        networks: dict[str, nn.Module] = {
            "ring": RingAttention(_POINTS // 2, scaled=True), "free": FreeAttention(_POINTS, scaled=True),
            "waves": RingWaves(_POINTS), "convolution": RingConvolution(_REACH),
        }  # fmt: skip
        for network in networks.values():
            train_steps(network, batch, steps=steps, learning_rate=0.05, loss=F.mse_loss)
        with torch.no_grad():
            ring = networks["ring"]
            assert isinstance(ring, RingAttention)
            errors.append(float((ring.matrix(_POINTS) - exact).norm() / exact.norm()))
            spike = F.one_hot(torch.arange(_POINTS // 2, _POINTS), _POINTS).float()
            answers = {name: _error(network(spike), spike @ exact) for name, network in networks.items()}
            spikes.append(answers["ring"])
            free.append(answers["free"])
            by_waves.append(answers["waves"])
            by_convolution.append(answers["convolution"])
            wave = torch.sign(torch.sin(2 * math.pi * 3 * torch.arange(_POINTS) / _POINTS))[None]
            other.append(_error(ring(wave), wave @ exact))
    table = pd.DataFrame(rows, columns=["pairs", "kernel", "distance"])
    by = table.set_index("pairs")["distance"]
    verdicts = [
        Verdict(
            "Rotary scores depend on the difference of positions only: largest spread.", "constructed", 0.0,
            (_translation(settings.seeds[0]),), 1e-12,
        ),
        Verdict(
            "One harmonic is far from e^(-k|x|) on a ring: total variation.", "constructed", 0.1,
            (float(by[1]),), rule="at least",
        ),
        Verdict(
            "All harmonics make it: total variation.", "constructed", 0.0, (float(by[_PAIRS[-1]]),), 1e-6
        ),
        Verdict(
            "A learned operator is the Green's function: relative error of the matrix.", "trained", 0.02,
            tuple(errors), rule="at most",
        ),
        Verdict(
            "It solves sources where it never saw one: relative error.", "trained", 0.02, tuple(spikes), rule="at most"
        ),
        Verdict(
            "And sources of another shape, square waves: relative error.", "trained", 0.02, tuple(other), rule="at most"
        ),
        Verdict(
            "A Fourier layer of as many parameters solves the unseen sources too: relative error.", "trained", 0.02,
            tuple(by_waves), rule="at most",
        ),
        Verdict(
            "A convolution of as many misses what is beyond its reach: relative error.", "trained", _beyond(exact),
            tuple(by_convolution), 0.01,
        ),
        Verdict(
            "With positions learned one by one it does not: relative error where it saw no source.", "control", 0.2,
            tuple(free), rule="at least",
        ),
    ]  # fmt: skip
    drawing = Drawing(
        "lines", "pairs", "distance", "kernel", "rotary pairs", "total variation to the kernel", log_x=True
    )
    return finding_of(sys.modules[__name__], verdicts, table, drawing)


def _beyond(exact: Tensor) -> float:
    """Part of the operator, by norm, that lies farther away than a convolution reaches."""
    kernel = exact[0]
    return float(kernel[_from_first() > _REACH].norm() / kernel.norm())


def _from_first() -> Tensor:
    """Distance on the ring of each point from the first one, (L,)."""
    index = torch.arange(_POINTS, dtype=torch.float64)
    return torch.minimum(index, _POINTS - index)


def _translation(seed: int) -> float:
    """Largest spread of rotary scores along diagonals, of one query and one key everywhere."""
    rotary = RotaryPositions(16).double()
    generator = torch.Generator().manual_seed(seed)
    query, key = (
        torch.randn(1, 1, 1, 16, generator=generator, dtype=torch.float64).expand(1, 1, 50, -1) for _ in range(2)
    )
    scores = attention.scores(rotary(query), rotary(key))[0, 0]
    return max(float(scores.diagonal(d).max() - scores.diagonal(d).min()) for d in range(-49, 50))


def _distance(pairs: int) -> float:
    """Total variation between e^(-k|x|) on a ring and softmax of rotary scores with so many harmonics."""
    index = torch.arange(_POINTS, dtype=torch.float64)
    ring = _from_first()
    target = torch.softmax(-_RATE * ring, 0)
    # Cosine series of the logarithm; the last harmonic of an even ring has half the weight.
    harmonic = torch.arange(1, pairs + 1, dtype=torch.float64)
    waves = torch.cos(2 * math.pi * harmonic[:, None] * index / _POINTS)
    weight = torch.where(harmonic == _POINTS // 2, 1.0, 2.0) / _POINTS
    series = weight * (waves @ (-_RATE * ring))
    rotary = RotaryPositions(2 * pairs).double()
    rotary.frequency = 2 * math.pi * harmonic / _POINTS
    # Scores are divided by the root of the width.
    query = torch.cat([series * math.sqrt(2 * pairs), torch.zeros(pairs, dtype=torch.float64)])
    key = torch.cat([torch.ones(pairs, dtype=torch.float64), torch.zeros(pairs, dtype=torch.float64)])
    everywhere = [rotary(each.expand(1, 1, _POINTS, -1)) for each in (query, key)]
    pattern = attention.pattern(attention.scores(*everywhere))[0, 0, 0]
    return float(0.5 * (pattern - target).abs().sum())


def _error(found: Tensor, expected: Tensor) -> float:
    return float(np.sqrt(((found - expected) ** 2).sum() / (expected**2).sum()))
