"""Stack of pre-norm blocks."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bioattn.errors import ConfigError
from bioattn.nn.backends import make_backend
from bioattn.nn.blocks import FEEDFORWARDS, Block, zero_padding
from bioattn.nn.checks import check_heads, check_tokens
from bioattn.nn.masks import Mask
from bioattn.nn.multihead import MultiHeadAttention
from bioattn.nn.positions import (
    AlibiBias,
    LearnedPositions,
    RelativeBias,
    RotaryPositions,
    ScoreBias,
    SinusoidalPositions,
)
from bioattn.nn.taps import Tap, tapped

POSITIONS = ("none", "sinusoidal", "learned", "rope", "relative", "alibi")


class Encoder(nn.Module):
    """Positions, then `n_layers` blocks, then a final normalisation of each token.

    Parameters
    ----------
    d_model, n_layers, n_heads, d_feedforward : int
    positions : {"none", "sinusoidal", "learned", "rope", "relative", "alibi"}
    feedforward : {"gelu", "swiglu"}
    dropout : float
        On the residual branches.
    backend : {"reference", "sdpa", "local", "flex"}
    max_length : int
        Longest input in tokens, for learned positions.
    mask : Mask, optional
        Which token may read which, in every layer.
    checkpointing : bool
        Keep only the input of each block for the gradient and compute the rest
        again (Chen et al. 2016): same loss and gradients, also with dropout, for
        less memory and one more forward pass. Blocks that are tapped keep all.

    Tap: `embed` (B, L, D), the stream before the first block.
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
        mask: Mask | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_heads(d_model, n_heads)
        if positions not in POSITIONS:
            raise ConfigError(f"'{positions}' is not a kind of positions; allowed: {', '.join(POSITIONS)}")
        if feedforward not in FEEDFORWARDS:
            raise ConfigError(f"'{feedforward}' is not a feed-forward layer; allowed: {', '.join(FEEDFORWARDS)}")
        added = {
            "sinusoidal": lambda: SinusoidalPositions(d_model),
            "learned": lambda: LearnedPositions(d_model, max_length),
        }
        self.d_model = d_model
        self.checkpointing = checkpointing
        self.positions = added[positions]() if positions in added else nn.Identity()
        self.embed = Tap()
        kernel = make_backend(backend, mask)  # one for all layers: they share the layout of the mask
        self.layer = nn.ModuleList(
            Block(
                MultiHeadAttention(
                    d_model,
                    n_heads,
                    backend=kernel,
                    rotary=RotaryPositions(d_model // n_heads) if positions == "rope" else None,
                    relative=_score_bias(positions, n_heads),
                    name=f"layer.{i}.attn",
                ),
                FEEDFORWARDS[feedforward](d_model, d_feedforward),
                d_model,
                dropout,
            )
            for i in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x_BLD: Tensor, *, keep: Tensor | None = None) -> Tensor:
        """Contextual tokens (B, L, D), zero at padding; `keep` (B, L) is True for real tokens.

        Raises
        ------
        DataError
            If the shapes do not fit, an example holds padding only, or a real token is NaN or infinite.
        """
        check_tokens(x_BLD, keep, self.d_model)
        return self._run(self.embed(zero_padding(self.positions(x_BLD), keep)), keep)

    def after(self, layer: int, x_BLD: Tensor, *, keep: Tensor | None = None, pair: Tensor | None = None) -> Tensor:
        """Contextual tokens (B, L, D) when the stream after block `layer` is `x_BLD`.

        `pair` is the state of the pair track then, of an encoder that has one.
        """
        return self._run(x_BLD, keep, first=layer + 1, pair=pair)

    def _run(self, x_BLD: Tensor, keep: Tensor | None, *, first: int = 0, pair: Tensor | None = None) -> Tensor:
        """Contextual tokens of the stream before block `first`."""
        for block in self.layer[first:]:
            # A tapped block is kept whole: its hooks may be gone when the gradient would run it again.
            if self.checkpointing and torch.is_grad_enabled() and not tapped(block):
                x_BLD = checkpoint(block, x_BLD, keep=keep, use_reentrant=False)
            else:
                x_BLD = block(x_BLD, keep=keep)
        return zero_padding(self.norm(x_BLD), keep)


def _score_bias(positions: str, n_heads: int) -> ScoreBias | None:
    kinds: dict[str, type[RelativeBias] | type[AlibiBias]] = {"relative": RelativeBias, "alibi": AlibiBias}
    return kinds[positions](n_heads) if positions in kinds else None
