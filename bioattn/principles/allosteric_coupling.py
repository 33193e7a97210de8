"""Two distant sites that depend on each other are found, and an intervention says so.

In a simulated protein family one pair of sites far apart in the sequence is coupled (as in allostery: a change here
needs a change there), neighbours are coupled weakly, all else is independent. Attention between columns, trained to
predict each residue from the others, reads the one site from the other. To know whether it uses what it reads, a
residue is replaced at one site, and the change of the prediction at every other site is measured: it is largest at
the coupled one. In a family whose sites are independent no site answers to any other.

Source: Lockless and Ranganathan 1999 for statistical coupling; Bhattacharya et al. 2022 for factored attention.
"""

import sys

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from bioattn.config import PrinciplesConfig
from bioattn.principles.finding import Drawing, Finding, Verdict, finding_of
from bioattn.protein.factored import FactoredAttention, family_scores, fit_family

_LENGTH, _STATES, _PAIR = 24, 4, (4, 19)


def family(n: int, seed: int, *, coupled: bool) -> NDArray[np.uint8]:
    """Residues (n, L) of four kinds by Gibbs sampling; if coupled, `_PAIR` strongly and neighbours weakly."""
    draw = np.random.default_rng(seed)
    strength = np.zeros((_LENGTH, _LENGTH))
    if coupled:
        for i in range(_LENGTH - 1):
            strength[i, i + 1] = strength[i + 1, i] = 0.5
        strength[_PAIR] = strength[_PAIR[::-1]] = 2.0
    field = draw.normal(0, 0.5, (_LENGTH, _STATES))
    codes = draw.integers(0, _STATES, (n, _LENGTH))
    for _ in range(30):
        for i in range(_LENGTH):
            same = codes[:, :, None] == np.arange(_STATES)
            energy = field[i] + np.einsum("j,nja->na", strength[i], same)
            p = np.exp(energy - energy.max(1, keepdims=True))
            p = p / p.sum(1, keepdims=True)
            codes[:, i] = (draw.random((n, 1)) > p.cumsum(1)[:, :-1]).sum(1)
    return codes.astype(np.uint8)


def run(settings: PrinciplesConfig) -> Finding:
    """Rank of the coupled pair by attention's couplings and by interventions, and the same on independent sites."""
    n, steps = (1500, 200) if settings.size == "fast" else (6000, 900)
    rows, by_attention, by_effect, contrast, null = [], [], [], [], []
    for seed in settings.seeds:
        largest = {}
        for coupled in (True, False):
            codes = family(n, seed, coupled=coupled)
            fitted = fit_family(
                codes, np.ones(n), n_heads=4, d_head=8, steps=steps, batch_size=64, learning_rate=0.05, seed=seed
            )
            effects = _effects(fitted.model, codes[:200], seed)
            i, j = np.triu_indices(_LENGTH, 6)
            largest[coupled] = float(effects[i, j].max())
            if not coupled:
                continue
            by_attention.append(_rank(family_scores(fitted.model), i, j))
            by_effect.append(_rank(effects, i, j))
            others = np.delete(effects[i, j], np.flatnonzero((i == _PAIR[0]) & (j == _PAIR[1])))
            contrast.append(float(effects[_PAIR] / others.max()))
            rows += [
                [seed, int(b - a), float(effects[a, b]), "coupled" if (a, b) == _PAIR else "others"]
                for a, b in zip(i, j, strict=True)
            ]
        null.append(largest[False] / largest[True])
    table = pd.DataFrame(rows, columns=["seed", "separation", "effect", "pair"])
    verdicts = [
        Verdict("Rank of the coupled pair by attention's couplings.", "trained", 1.0, tuple(by_attention)),
        Verdict("Rank of the coupled pair by interventions.", "trained", 1.0, tuple(by_effect)),
        Verdict(
            "Its effect over the largest of all other distant pairs.", "trained", 2.0, tuple(contrast),
            rule="at least",
        ),
        Verdict(
            "Independent sites: largest effect as a share of the coupled pair's.", "control", 0.5, tuple(null),
            rule="at most",
        ),
    ]  # fmt: skip
    drawing = Drawing("points", "separation", "effect", "pair", "separation (residues)", "change of prediction")
    return finding_of(sys.modules[__name__], verdicts, table, drawing)


def _rank(scores: NDArray[np.float64], i: NDArray[np.intp], j: NDArray[np.intp]) -> float:
    """Place of the coupled pair among distant ones, 1 for the first."""
    return float(1 + (scores[i, j] > scores[_PAIR]).sum())


@torch.no_grad()
def _effects(model: FactoredAttention, codes: NDArray[np.uint8], seed: int) -> NDArray[np.float64]:
    """Mean total variation (L, L) of the prediction at j when the residue at i is replaced by another; symmetrised."""
    draw = np.random.default_rng(seed)
    tokens = torch.from_numpy(codes.astype(np.int64))
    before = model(tokens).softmax(-1)
    effects = np.zeros((_LENGTH, _LENGTH))
    for i in range(_LENGTH):
        changed = tokens.clone()
        changed[:, i] = (changed[:, i] + torch.from_numpy(draw.integers(1, _STATES, len(codes)))) % _STATES
        effects[i] = 0.5 * (model(changed).softmax(-1) - before).abs().sum(-1).mean(0).numpy()
    np.fill_diagonal(effects, 0.0)
    made: NDArray[np.float64] = (effects + effects.T) / 2
    return made
