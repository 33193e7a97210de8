"""Softmax of log precision is the best linear unbiased estimate.

Sensors measure one quantity with independent errors of known variance. No linear unbiased estimate has less variance
than the mean weighted with inverse variances (BLUE). Softmax of the logarithms of the precisions is just that mean,
so attention whose scores are log precisions fuses sensors optimally; a failed sensor (precision zero, score minus
infinity) gets weight zero without any retraining, and any number of sensors will do. Where errors are correlated, which
variances do not show, the learned weights degrade just as inverse variances do. There the best weights may be negative,
which no softmax has: knowing all correlations would help it only in part.

Source: Gauss-Markov theorem; Aitken 1935 for correlated errors.
"""

import math
import sys

import numpy as np
import pandas as pd
import torch
from scipy.optimize import nnls
from torch import Tensor, nn

from bioattn.config import PrinciplesConfig
from bioattn.nn import attention
from bioattn.principles.finding import Drawing, Finding, Verdict, finding_of
from bioattn.principles.training import train_steps
from bioattn.rng import stream_seed

_COUNTS = (3, 4, 5, 6, 8)
_UNSEEN = (12, 24)
#: Of the errors of any two sensors, and the sets of sensors over which variances are averaged.
_CORRELATIONS, _SETS = (0.0, 0.2, 0.4, 0.6, 0.8), 200


class Fusion(nn.Module):
    """Readings and log variances (B, S, 2) to an estimate (B,): one head whose key is learned from the log variance."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.key = nn.Sequential(nn.Linear(1, width), nn.GELU(), nn.Linear(width, width))
        self.query = nn.Parameter(torch.randn(width))

    def forward(self, sensors: Tensor) -> Tensor:  # noqa: D102
        return (self.weights(sensors[..., 1]) * sensors[..., 0]).sum(-1)

    def weights(self, log_variance: Tensor, works: Tensor | None = None) -> Tensor:
        """Pattern (B, S) over sensors; those that do not work, False in `works`, cannot be read."""
        keys = self.key(log_variance[..., None])[:, None]
        query = self.query.expand(len(keys), 1, 1, -1)
        keep = None if works is None else works[:, None, None]
        return attention.pattern(attention.scores(query, keys, keep=keep))[:, 0, 0]


def draw_sensors(n: int, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Readings and log variances (n, count, 2) of a quantity, and the quantity (n,)."""
    truth = torch.randn(n, generator=generator)
    log_variance = 3.0 * torch.rand(n, count, generator=generator) - 2.0
    error = torch.randn(n, count, generator=generator) * (0.5 * log_variance).exp()
    return torch.stack([truth[:, None] + error, log_variance], dim=-1), truth


def run(settings: PrinciplesConfig) -> Finding:
    """Constructed weights against inverse variances; learned ones against BLUE's variance, by number of sensors."""
    log_variance = torch.linspace(-3, 3, 7, dtype=torch.float64)[None]
    precision = (-log_variance).exp()
    pattern = attention.pattern(-log_variance[:, None, None])[:, 0, 0]
    exact = precision / precision.sum()
    failed = torch.ones(1, 7, dtype=torch.bool)
    failed[0, 2] = False
    without = attention.pattern((-log_variance).masked_fill(~failed, -math.inf)[:, None, None])[:, 0, 0]
    rest = precision * failed / (precision * failed).sum()
    steps, n_test = (400, 20_000) if settings.size == "fast" else (2000, 200_000)
    rows, broken, shared = [], [], []
    for seed in settings.seeds:
        torch.manual_seed(stream_seed(seed, "principles", "fusion"))
        generator = torch.Generator().manual_seed(seed)
        network = Fusion()

        def batch(generator: torch.Generator = generator) -> tuple[Tensor, Tensor]:
            count = _COUNTS[int(torch.randint(len(_COUNTS), (), generator=generator))]
            return draw_sensors(256, count, generator)

        train_steps(network, batch, steps=steps, learning_rate=0.01, loss=nn.functional.mse_loss)
        with torch.no_grad():
            for count in (*_COUNTS, *_UNSEEN):
                sensors, _ = draw_sensors(n_test, count, generator)
                rows.append([seed, count, _excess(network.weights(sensors[..., 1]), sensors[..., 1])])
            sensors, _ = draw_sensors(n_test, 6, generator)
            works = torch.ones(n_test, 6, dtype=torch.bool)
            works[:, 0] = False
            left = network.weights(sensors[..., 1], works)
            broken.append((float(left[:, 0].abs().max()), _excess(left[:, 1:], sensors[:, 1:, 1])))
            shared += [[seed, rho, *_under_correlation(network, rho, generator)] for rho in _CORRELATIONS]
    table = pd.DataFrame(rows, columns=["seed", "sensors", "variance_ratio"])
    by = table.set_index(["sensors", "seed"])["variance_ratio"]
    curve = pd.DataFrame(shared, columns=["seed", "correlation", "learned", "inverse variances", "best softmax"])
    off = ((curve["learned"] / curve["inverse variances"] - 1).abs()).groupby(curve["seed"]).max()
    strong = curve[curve["correlation"] == _CORRELATIONS[-1]]
    covariance, best, limited = _correlated()
    verdicts = [
        Verdict(
            "Softmax of log precision is the weight by inverse variance: largest difference.", "constructed", 0.0,
            (float((pattern - exact).abs().max()),), 1e-15,
        ),
        Verdict(
            "Its variance is one over the sum of precisions: ratio.", "constructed", 1.0,
            (float((pattern**2 / precision).sum() * precision.sum()),), 1e-12,
        ),
        Verdict(
            "A failed sensor gets no weight, the others keep their shares: largest difference.", "constructed", 0.0,
            (float((without - rest).abs().max()),), 1e-15,
        ),
        Verdict(
            "Learned weights: variance over BLUE's, worst number of sensors seen in training.", "trained", 1.02,
            tuple(by.unstack("sensors")[list(_COUNTS)].max(axis=1)), rule="at most",
        ),
        Verdict(
            f"The same with {_UNSEEN[0]} and {_UNSEEN[1]} sensors, which it never saw.", "trained", 1.02,
            tuple(by.unstack("sensors")[list(_UNSEEN)].max(axis=1)), rule="at most",
        ),
        Verdict(
            "A sensor that fails at test time gets no weight.", "trained", 0.0, tuple(w for w, _ in broken), 0.0
        ),
        Verdict(
            "And the others fuse as well without retraining: variance over BLUE's.", "trained", 1.02,
            tuple(r for _, r in broken), rule="at most",
        ),
        Verdict(
            f"Errors that correlate by up to {_CORRELATIONS[-1]} cost as much as they cost inverse variances: largest "
            "difference in variance.", "trained", 0.02, tuple(off), rule="at most",
        ),
        Verdict(
            f"Which is much: variance over BLUE's at {_CORRELATIONS[-1]}.", "control", 1.5, tuple(strong["learned"]),
            rule="at least",
        ),
        Verdict(
            "Correlated errors: the smallest weight of the best estimate is negative.", "control", -0.05,
            (float(best.min()),), rule="at most",
        ),
        Verdict(
            "So the best softmax is worse than BLUE: ratio of variances.", "control", 1.05,
            (float((limited @ covariance @ limited) / (best @ covariance @ best)),), rule="at least",
        ),
    ]  # fmt: skip
    mean = curve.drop(columns="seed").groupby("correlation").mean().reset_index()
    drawn = mean.melt("correlation", var_name="weights", value_name="variance_ratio")
    drawing = Drawing(
        "lines", "correlation", "variance_ratio", "weights", "correlation of errors", "variance over that of BLUE"
    )
    return finding_of(sys.modules[__name__], verdicts, drawn, drawing)


def _excess(weights: Tensor, log_variance: Tensor) -> float:
    """Mean variance of estimates with given weights over the mean of the best ones, exact for each set of sensors."""
    weights, variance = weights.double(), log_variance.double().exp()
    return float((weights**2 * variance).sum(-1).mean() / (1 / (1 / variance).sum(-1)).mean())


def _under_correlation(network: Fusion, rho: float, generator: torch.Generator) -> tuple[float, float, float]:
    """Mean variance over BLUE's of learned weights, of inverse variances and of the best softmax."""
    log_variance = draw_sensors(_SETS, 6, generator)[0][..., 1]
    found = {"learned": network.weights(log_variance), "inverse": torch.softmax(-log_variance, 1)}
    totals = np.zeros(4)
    for row in range(_SETS):
        covariance = _covariance(log_variance[row].double().numpy(), rho)
        blue = 1 / np.linalg.solve(covariance, np.ones(len(covariance))).sum()
        each = [found[name][row].double().numpy() for name in ("learned", "inverse")]
        totals += [*(weights @ covariance @ weights for weights in each), _best_softmax(covariance)[1], blue]
    learned, inverse, best, blue = totals
    return learned / blue, inverse / blue, best / blue


def _covariance(log_variance: np.ndarray, rho: float) -> np.ndarray:
    """Covariance of errors of which any two correlate by rho."""
    sd = np.exp(0.5 * log_variance)
    covariance: np.ndarray = rho * np.outer(sd, sd) + (1 - rho) * np.diag(sd**2)
    return covariance


def _correlated() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A covariance of errors, the weights of BLUE, and the best weights without a negative one."""
    covariance = _covariance(2 * np.log([1.0, 2.0, 3.0]), 0.8)
    best = np.linalg.solve(covariance, np.ones(3))
    return covariance, best / best.sum(), _best_softmax(covariance)[0]


def _best_softmax(covariance: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights without a negative one that sum to one and have the least variance, and that variance.

    Least squares of variance and (sum - 1)^2 without negative weights: whatever the sum that comes out, no other
    weights of that sum have less variance.
    """
    root = np.linalg.cholesky(covariance).T
    weights = nnls(np.vstack([root, np.ones(len(root))]), np.r_[np.zeros(len(root)), 1.0])[0]
    weights = weights / weights.sum()
    return weights, float(weights @ covariance @ weights)
