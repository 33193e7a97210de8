"""Attention on a ring of points whose scores depend on the difference of positions only, and fields to try it on."""

import math

import torch
from torch import Tensor, nn

from bioattn.nn import attention


class RingAttention(nn.Module):
    """Fields (B, L) to fields (B, L): one head with a score for each distance on the ring up to `reach`.

    Points farther apart do not read each other.

    Parameters
    ----------
    scaled : bool
        What is read is multiplied by a learned number.
    """

    def __init__(self, reach: int, *, scaled: bool = False) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(reach + 1))
        self.log_scale = nn.Parameter(torch.zeros(())) if scaled else None

    def kernel(self, length: int) -> Tensor:
        """What a point reads of those 0, 1, ... to its right, (L,)."""
        return self.matrix(length)[0]

    def matrix(self, length: int) -> Tensor:
        """Everything that points read of each other, (L, L): the pattern, times the scale if there is one."""
        apart = (torch.arange(length)[:, None] - torch.arange(length)).abs()
        ring = torch.minimum(apart, length - apart)
        reach = len(self.scores) - 1
        scores = self.scores[ring.clamp(max=reach)].masked_fill(ring > reach, -math.inf)
        pattern = attention.pattern(scores[None, None])[0, 0]
        return pattern if self.log_scale is None else self.log_scale.exp() * pattern

    def forward(self, field: Tensor) -> Tensor:  # noqa: D102
        return field @ self.matrix(field.shape[-1]).T


class FreeAttention(nn.Module):
    """The same with a query and a key for every position, which know nothing of distances."""

    def __init__(self, length: int, width: int = 64, *, scaled: bool = False) -> None:
        super().__init__()
        self.query, self.key = (nn.Parameter(0.1 * torch.randn(length, width)) for _ in range(2))
        self.log_scale = nn.Parameter(torch.zeros(())) if scaled else None

    def forward(self, field: Tensor) -> Tensor:  # noqa: D102
        pattern = attention.pattern(attention.scores(self.query[None, None], self.key[None, None]))[0, 0]
        made = field @ pattern.T
        return made if self.log_scale is None else self.log_scale.exp() * made


class RingWaves(nn.Module):
    """The same by a Fourier layer: a learned positive factor for each wave of a ring of `length` points."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.log_factor = nn.Parameter(torch.zeros(length // 2 + 1))

    def forward(self, field: Tensor) -> Tensor:  # noqa: D102
        return torch.fft.irfft(torch.fft.rfft(field) * self.log_factor.exp(), n=field.shape[-1])


class RingConvolution(nn.Module):
    """The same by a convolution that reaches `reach` points to either side."""

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(2 * reach + 1))

    def forward(self, field: Tensor) -> Tensor:  # noqa: D102
        reach = len(self.kernel) // 2
        around = torch.cat([field[:, -reach:], field, field[:, :reach]], dim=1)
        return nn.functional.conv1d(around[:, None], self.kernel[None, None])[:, 0]


def smooth_fields(n: int, length: int, generator: torch.Generator, *, waves: int = 4) -> Tensor:
    """Random sums (n, L) of the longest waves of a ring."""
    x = 2 * math.pi * torch.arange(length) / length
    k = torch.arange(1, waves + 1)
    a, b = torch.randn(2, n, waves, generator=generator)
    return a @ torch.cos(k[:, None] * x) + b @ torch.sin(k[:, None] * x)
