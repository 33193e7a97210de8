"""A small convolutional network: the baseline that has no attention."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bioattn.errors import ConfigError
from bioattn.nn.taps import Tap


class ResidualConv(nn.Module):
    """Convolution, rectifier and dropout, added to the stream; padding stays zero.

    Tap: `resid` (B, C, P), the stream after the layer.
    """

    def __init__(self, n_channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(n_channels, n_channels, width, padding=width // 2)
        self.dropout = nn.Dropout(dropout)
        self.resid = Tap()

    def forward(self, x_BCP: Tensor, keep_BP: Tensor) -> Tensor:  # noqa: D102
        return self.resid((x_BCP + self.dropout(F.relu(self.convolution(x_BCP)))) * keep_BP)


class ConvNet(nn.Module):
    """Convolutions, one pooling step, residual convolutions, masked mean and maximum, a linear readout.

    Nothing is coupled across the batch and padding takes no part, as in the Transformer.

    Parameters
    ----------
    n_letters : int
        Letters 0 .. n_letters - 1 are one-hot; the code after them is an unknown base.
    pad : int
        Code of padding, on the right.
    n_readouts : int
    n_channels : int
        Filters of every layer.
    width, inner_width : int
        Filter widths in bp and in pooled positions, odd.
    n_inner : int
        Residual convolutions after pooling.
    pool : int
        bp per pooled position.
    """

    readout_mean: Tensor
    readout_sd: Tensor
    table: Tensor

    def __init__(
        self,
        *,
        n_letters: int,
        pad: int,
        n_readouts: int,
        n_channels: int,
        width: int = 15,
        inner_width: int = 5,
        n_inner: int = 2,
        pool: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.pad, self.pool = pad, pool
        self.filters = nn.Conv1d(n_letters, n_channels, width, padding=width // 2)
        self.layer = nn.ModuleList(ResidualConv(n_channels, inner_width, dropout) for _ in range(n_inner))
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(2 * n_channels, n_readouts)
        table = torch.zeros(pad + 1, n_letters)
        table[:n_letters] = torch.eye(n_letters)
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("readout_mean", torch.zeros(n_readouts))
        self.register_buffer("readout_sd", torch.ones(n_readouts))

    def set_readout_scale(self, mean: Tensor, sd: Tensor) -> None:
        """Report readouts as raw * sd + mean, shapes (T,): the units of the targets."""
        self.readout_mean.copy_(mean)
        self.readout_sd.copy_(sd)

    def forward(self, tokens: Tensor) -> Tensor:
        """Readouts (B, T) on the pre-link scale of tokens (B, L), int64."""
        real_BL = tokens != self.pad
        x_BCL = F.relu(self.filters(self.table[tokens].transpose(1, 2)))
        # Zero is the smallest value after the rectifier, so zeroed padding never wins the maximum.
        x_BCP = F.max_pool1d(x_BCL * real_BL[:, None], self.pool, ceil_mode=True)
        keep_BP = F.max_pool1d(real_BL[:, None].float(), self.pool, ceil_mode=True)
        for layer in self.layer:
            x_BCP = layer(x_BCP, keep_BP)
        mean_BC = x_BCP.sum(2) / keep_BP.sum(2).clamp(min=1)
        pooled_BC = torch.cat([mean_BC, x_BCP.amax(2)], dim=1)
        return self.readout(self.dropout(pooled_BC)) * self.readout_sd + self.readout_mean


def channels_for(n_parameters: int, *, n_letters: int, n_readouts: int) -> int:
    """Number of channels with which a `ConvNet` of default shape has about `n_parameters` parameters.

    Raises
    ------
    ConfigError
        If `n_parameters` is not positive.
    """
    if n_parameters < 1:
        raise ConfigError(f"n_parameters must be positive, got {n_parameters}")
    # Filters, inner layers and readout are n_inner * inner_width * c^2 + b * c + n_readouts in channels c.
    a, b = 2 * 5, n_letters * 15 + 1 + 2 + 2 * n_readouts
    root = (-b + math.sqrt(b * b + 4 * a * max(n_parameters - n_readouts, 1))) / (2 * a)
    return max(1, round(root))
