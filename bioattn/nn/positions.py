"""How positions enter attention: added to tokens, rotating queries and keys, or added to scores."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from bioattn.errors import ConfigError


class SinusoidalPositions(nn.Module):
    """Adds fixed sines and cosines of the position (Vaswani et al. 2017, section 3.5)."""

    frequency: Tensor

    def __init__(self, d_model: int) -> None:
        super().__init__()
        half = (d_model + 1) // 2
        self.register_buffer("frequency", 10_000.0 ** (-torch.arange(half) / half), persistent=False)
        self.d_model = d_model

    def forward(self, x_BLD: Tensor) -> Tensor:  # noqa: D102
        position = torch.arange(x_BLD.shape[1], device=x_BLD.device, dtype=torch.float32)
        angle = position[:, None] * self.frequency
        table = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[:, : self.d_model]
        return x_BLD + table.to(x_BLD.dtype)


class LearnedPositions(nn.Module):
    """Adds a learned vector for each position up to `max_length` tokens."""

    def __init__(self, d_model: int, max_length: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(max_length, d_model) * 0.02)

    def forward(self, x_BLD: Tensor) -> Tensor:  # noqa: D102
        length = x_BLD.shape[1]
        if length > len(self.table):
            raise ConfigError(
                f"learned positions reach {len(self.table)} tokens, got {length}: raise model.max_length or use 'rope'"
            )
        return x_BLD + self.table[:length]


class RotaryPositions(nn.Module):
    """Rotates queries and keys so that scores depend on the difference of positions only.

    Split-half pairing: channel c turns with channel c + C/2.

    Source: Su et al. 2021, RoFormer, eq. 34.
    """

    frequency: Tensor

    def __init__(self, d_head: int, base: float = 10_000.0) -> None:
        super().__init__()
        if d_head % 2:
            raise ConfigError(f"rotary positions need an even head width, got {d_head}")
        half = d_head // 2
        self.register_buffer("frequency", base ** (-torch.arange(half) / half), persistent=False)

    def forward(self, x_BHLC: Tensor) -> Tensor:  # noqa: D102
        position = torch.arange(x_BHLC.shape[-2], device=x_BHLC.device, dtype=torch.float32)
        angle = position[:, None] * self.frequency
        cos, sin = angle.cos().to(x_BHLC.dtype), angle.sin().to(x_BHLC.dtype)
        first, second = x_BHLC.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class ScoreBias(nn.Module, ABC):
    """What the positions of query and key add to their score, for each head."""

    n_heads: int

    @abstractmethod
    def entry(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Bias of heads, queries and keys (int64) that broadcast against each other."""

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Bias (H, ...) between positions (int64) that broadcast against each other to (...)."""
        n_axes = max(query.ndim, key.ndim)
        head = torch.arange(self.n_heads, device=key.device).view(-1, *[1] * n_axes)
        return self.entry(head, query, key)


class RelativeBias(ScoreBias):
    """Learned score bias per head and bucket of the signed distance key - query.

    Half of the buckets are for each sign; within a sign the first half is exact
    and the rest grows logarithmically up to `max_distance` tokens.

    Source: Raffel et al. 2020 (T5), section 2.1.
    """

    def __init__(self, n_heads: int, n_buckets: int = 64, max_distance: int = 256) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(n_buckets, n_heads))
        self.n_heads = n_heads
        self.max_distance = max_distance

    def bucket(self, distance: Tensor) -> Tensor:
        """Bucket index of each signed distance."""
        half = len(self.table) // 2
        exact = half // 2
        size = distance.abs()
        ratio = (size.clamp(min=exact).float() / exact).log() / math.log(self.max_distance / exact)
        far = (exact + (ratio * (half - exact)).long()).clamp(max=half - 1)
        return torch.where(size < exact, size, far) + half * (distance > 0)

    def entry(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:  # noqa: D102
        return self.table[self.bucket(key - query), head]


class AlibiBias(ScoreBias):
    """Score bias that falls linearly with the distance, with a fixed slope for each head; symmetric.

    Slopes are 2 ** (-8 h / n_heads) for h = 1 ... n_heads.

    Source: Press et al. 2022, section 3.
    """

    slope: Tensor

    def __init__(self, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.register_buffer("slope", 2.0 ** (-8 * torch.arange(1, n_heads + 1) / n_heads), persistent=False)

    def entry(self, head: Tensor, query: Tensor, key: Tensor) -> Tensor:  # noqa: D102
        return -self.slope[head] * (query - key).abs()
