"""Stems: one-hot bases to tokens, each token covering `pool` bases."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "exp": torch.exp}


class BaseStem(nn.Module):
    """One token per base: a learned vector for each letter, zero for an unknown base."""

    def __init__(self, n_letters: int, d_model: int) -> None:
        super().__init__()
        self.project = nn.Linear(n_letters, d_model)
        self.pool = 1
        self.receptive_field_bp = 1

    def forward(self, x_BAL: Tensor, real_BL: Tensor) -> Tensor:  # noqa: D102
        return self.project(x_BAL.transpose(1, 2))


class ConvStem(nn.Module):
    """Filters over bases, an activation, max pooling over each token's bases, a projection.

    Parameters
    ----------
    n_letters, d_model : int
    n_filters : int
        Learned filters.
    width : int
        Width of the learned filters in bp, odd.
    pool : int
        Bases per token.
    activation : {"relu", "gelu", "exp"}
    pwms : sequence of ndarray (A, W), optional
        Log-odds matrices that start further filters. These filters take the
        better of both strands, and have a gain and a threshold of their own,
        set so that `thresholds` maps to zero and the best site to one.
    strands : {"merged", "separate"}
        Whether the PWM filters give one feature for both strands, or one for each.
    thresholds : sequence of float
        Score of each PWM, in bits, below which a site does not count.
    trainable_pwms : bool
        Let training change the PWM weights (their gain and threshold always train).
    """

    def __init__(
        self,
        n_letters: int,
        d_model: int,
        *,
        n_filters: int,
        width: int,
        pool: int,
        activation: str = "relu",
        pwms: Sequence[NDArray[np.float64]] = (),
        thresholds: Sequence[float] = (),
        trainable_pwms: bool = False,
        strands: str = "merged",
    ) -> None:
        super().__init__()
        self.pool = pool
        self.activation = activation
        self.strands = strands
        self.filters = nn.Conv1d(n_letters, n_filters, width, padding=width // 2)
        widest = max([p.shape[1] for p in pwms], default=1)
        self.receptive_field_bp = max(width, widest)
        weight = torch.zeros(len(pwms), n_letters, widest)
        gain, shift = torch.ones(len(pwms)), torch.zeros(len(pwms))
        for i, (pwm, threshold) in enumerate(zip(pwms, thresholds, strict=True)):
            start = (widest - pwm.shape[1]) // 2
            weight[i, :, start : start + pwm.shape[1]] = torch.from_numpy(pwm)
            best = float(pwm.max(0).sum())
            gain[i] = 1 / max(best - threshold, 1.0)
            shift[i] = -threshold
        self.pwm_weight = nn.Parameter(weight, requires_grad=trainable_pwms)
        self.pwm_gain = nn.Parameter(gain)
        self.pwm_shift = nn.Parameter(shift)
        self.project = nn.Linear(n_filters + len(pwms) * (2 if strands == "separate" else 1), d_model)

    def forward(self, x_BAL: Tensor, real_BL: Tensor) -> Tensor:
        """Tokens (B, ceil(L / pool), D) of one-hot bases (B, A, L); padded bases take no part."""
        features = _ACTIVATIONS[self.activation](self.filters(x_BAL))
        if len(self.pwm_gain):
            features = torch.cat([self._motif_features(x_BAL), features], dim=1)
        features = features.masked_fill(~real_BL[:, None], -math.inf)
        if self.pool > 1:
            features = F.max_pool1d(features, self.pool, ceil_mode=True)
        features = features.masked_fill(features == -math.inf, 0.0)
        return self.project(features.transpose(1, 2))

    def _motif_features(self, x_BAL: Tensor) -> Tensor:
        width = self.pwm_weight.shape[-1]
        padded = F.pad(x_BAL, ((width - 1) // 2, width // 2))
        both = F.conv1d(padded, self.pwm_weight), F.conv1d(padded, self.pwm_weight.flip(1, 2))
        scores = both if self.strands == "separate" else (torch.maximum(*both),)
        return torch.cat(
            [F.relu((score + self.pwm_shift[:, None]) * self.pwm_gain[:, None]) for score in scores], dim=1
        )
