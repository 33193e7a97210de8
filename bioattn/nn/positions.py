"""How positions enter attention: added to tokens, rotating queries and keys, or added to scores."""

import math

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


class RelativeBias(nn.Module):
    """Learned score bias per head and bucket of the signed distance key - query.

    Half of the buckets are for each sign; within a sign the first half is exact
    and the rest grows logarithmically up to `max_distance` tokens.

    Source: Raffel et al. 2020 (T5), section 2.1.
    """

    def __init__(self, n_heads: int, n_buckets: int = 64, max_distance: int = 256) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(n_buckets, n_heads))
        self.max_distance = max_distance

    def bucket(self, distance: Tensor) -> Tensor:
        """Bucket index of each signed distance."""
        half = len(self.table) // 2
        exact = half // 2
        size = distance.abs()
        ratio = (size.clamp(min=exact).float() / exact).log() / math.log(self.max_distance / exact)
        far = (exact + (ratio * (half - exact)).long()).clamp(max=half - 1)
        return torch.where(size < exact, size, far) + half * (distance > 0)

    def forward(self, n_query: int, n_key: int) -> Tensor:
        """Bias of shape (1, H, Q, K)."""
        device = self.table.device
        distance = torch.arange(n_key, device=device) - torch.arange(n_query, device=device)[:, None]
        return self.table[self.bucket(distance)].permute(2, 0, 1)[None]
