"""Stack of pre-norm blocks."""

from torch import Tensor, nn

from bioattn.errors import ConfigError
from bioattn.nn.blocks import FEEDFORWARDS, Block, zero_padding
from bioattn.nn.multihead import MultiHeadAttention
from bioattn.nn.positions import LearnedPositions, RelativeBias, RotaryPositions, SinusoidalPositions

POSITIONS = ("none", "sinusoidal", "learned", "rope", "relative")


class Encoder(nn.Module):
    """Positions, then `n_layers` blocks, then a final normalisation of each token.

    Parameters
    ----------
    d_model, n_layers, n_heads, d_feedforward : int
    positions : {"none", "sinusoidal", "learned", "rope", "relative"}
    feedforward : {"gelu", "swiglu"}
    dropout : float
        On the residual branches.
    backend : {"reference", "sdpa"}
    max_length : int
        Longest input in tokens, for learned positions.
    """

    def __init__(
        self,
        d_model: int,
        n_layers: int,
        n_heads: int,
        d_feedforward: int,
        *,
        positions: str = "rope",
        feedforward: str = "gelu",
        dropout: float = 0.0,
        backend: str = "sdpa",
        max_length: int = 4096,
    ) -> None:
        super().__init__()
        if positions not in POSITIONS:
            raise ConfigError(f"'{positions}' is not a kind of positions; allowed: {', '.join(POSITIONS)}")
        if feedforward not in FEEDFORWARDS:
            raise ConfigError(f"'{feedforward}' is not a feed-forward layer; allowed: {', '.join(FEEDFORWARDS)}")
        added = {
            "sinusoidal": lambda: SinusoidalPositions(d_model),
            "learned": lambda: LearnedPositions(d_model, max_length),
        }
        self.positions = added[positions]() if positions in added else nn.Identity()
        self.layer = nn.ModuleList(
            Block(
                MultiHeadAttention(
                    d_model,
                    n_heads,
                    backend=backend,
                    rotary=RotaryPositions(d_model // n_heads) if positions == "rope" else None,
                    relative=RelativeBias(n_heads) if positions == "relative" else None,
                ),
                FEEDFORWARDS[feedforward](d_model, d_feedforward),
                d_model,
                dropout,
            )
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x_BLD: Tensor, *, keep: Tensor | None = None) -> Tensor:
        """Contextual tokens (B, L, D), zero at padding; `keep` (B, L) is True for real tokens."""
        x_BLD = zero_padding(self.positions(x_BLD), keep)
        for block in self.layer:
            x_BLD = block(x_BLD, keep=keep)
        return zero_padding(self.norm(x_BLD), keep)
