"""Pre-norm Transformer block and its feed-forward layers."""

import torch.nn.functional as F
from torch import Tensor, nn

from bioattn.nn.multihead import AppendedBias, MultiHeadAttention
from bioattn.nn.taps import Tap


class GELUFeedForward(nn.Module):
    """Token-wise two-layer network with GELU."""

    def __init__(self, d_model: int, d_feedforward: int) -> None:
        super().__init__()
        self.widen = nn.Linear(d_model, d_feedforward)
        self.narrow = nn.Linear(d_feedforward, d_model)

    def forward(self, x_BLD: Tensor) -> Tensor:  # noqa: D102
        return self.narrow(F.gelu(self.widen(x_BLD)))


class SwiGLUFeedForward(nn.Module):
    """Token-wise gated network (Shazeer 2020, eq. 6)."""

    def __init__(self, d_model: int, d_feedforward: int) -> None:
        super().__init__()
        self.widen = nn.Linear(d_model, 2 * d_feedforward)
        self.narrow = nn.Linear(d_feedforward, d_model)

    def forward(self, x_BLD: Tensor) -> Tensor:  # noqa: D102
        gate, value = self.widen(x_BLD).chunk(2, dim=-1)
        return self.narrow(F.silu(gate) * value)


FEEDFORWARDS = {"gelu": GELUFeedForward, "swiglu": SwiGLUFeedForward}


class Block(nn.Module):
    """Attention and feed-forward, each on normalised input and added to the stream.

    Padded tokens are set to zero at the end, so nothing that padding holds can
    travel on, whatever reads the stream later.

    Taps (B, L, D): `feedforward_output`, what the feed-forward layer adds;
    `resid`, the stream after the block.
    """

    def __init__(self, attn: MultiHeadAttention, feedforward: nn.Module, d_model: int, dropout: float) -> None:
        super().__init__()
        self.norm_attn = nn.LayerNorm(d_model)
        self.attn = attn
        self.norm_feedforward = nn.LayerNorm(d_model)
        self.feedforward = feedforward
        self.dropout = nn.Dropout(dropout)
        self.feedforward_output = Tap()
        self.resid = Tap()

    def forward(self, x_BLD: Tensor, *, keep: Tensor | None = None, bias: AppendedBias | None = None) -> Tensor:
        """Stream after the block (B, L, D); `keep` (B, L) is True for real tokens, `bias` as of the attention."""
        x_BLD = x_BLD + self.dropout(self.attn(self.norm_attn(x_BLD), keep=keep, bias=bias))
        x_BLD = x_BLD + self.dropout(self.feedforward_output(self.feedforward(self.norm_feedforward(x_BLD))))
        return self.resid(zero_padding(x_BLD, keep))


def zero_padding(x_BLD: Tensor, keep: Tensor | None) -> Tensor:
    """Tokens with padded rows set to exact zeros, whatever they held (NaN too)."""
    return x_BLD if keep is None else x_BLD.masked_fill(~keep[..., None], 0.0)
