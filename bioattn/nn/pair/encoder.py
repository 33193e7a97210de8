"""An encoder with a pair track: pairs are fed by tokens, updated by triangles, and bias the attention of tokens.

The bias is any function of two tokens, so it cannot be a position bias that all examples share. It enters as channels
that are appended to queries and keys: a query carries its row of the bias, a key the mark of its bin, and their
product is the entry. Scores stay dot products, so every kernel, tap and way of looking at attention works as without.
"""

import math
from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bioattn.errors import ConfigError, DataError
from bioattn.nn.blocks import zero_padding
from bioattn.nn.encoder import Encoder
from bioattn.nn.pair.inputs import RelativePositions, SingleToPair
from bioattn.nn.pair.updates import PairUpdates, UpdateOptions
from bioattn.nn.taps import Tap, tapped

#: Pairs of more bins are refused: their number grows with the square, the work of triangles with the cube.
MOST_BINS = 128


class PairStep(PairUpdates):
    """What the pair track does before one block of the encoder.

    Taps: `state` (B, I, J, P), pairs after the step; `bias` (B, H, I, J), what they add to the scores of the block.
    """

    def __init__(self, d_model: int, n_heads: int, *, d_pair: int, **options: Unpack[UpdateOptions]) -> None:
        super().__init__()
        self.feed = SingleToPair(d_model, d_pair)
        self.add_updates(d_pair, **options)
        self.norm = nn.LayerNorm(d_pair)
        self.project = nn.Linear(d_pair, n_heads, bias=False)
        self.state, self.bias = Tap(), Tap()

    def forward(self, binned: Tensor, pair: Tensor, *, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pairs (B, I, J, P) after the step, zero at padding, and the bias (B, H, I, J).

        `binned` (B, I, D) are tokens by bin; `keep` (B, I) is True for bins with a real token.
        """
        pair = self.state(self.updated(pair + self.feed(binned), keep=keep))
        return pair, self.bias(self.project(self.norm(pair)).permute(0, 3, 1, 2))


class PairEncoder(Encoder):
    """An `Encoder` with a pair track beside its tokens.

    Parameters
    ----------
    d_model, n_layers, n_heads, d_feedforward
        As of `Encoder`, which takes further options too.
    d_pair, n_pair_heads, d_pair_head, d_hidden : int
        Width of pairs; heads of triangle attention and their channels; channels of triangle multiplication.
    bin_tokens : int
        Consecutive tokens that share one bin of the pair track.
    triangle_backend : str
        See `bioattn.nn.pair.triangle.TRIANGLE_BACKENDS`.

    Taps: `pair.{i}.state` and `pair.{i}.bias` of each layer, see `PairStep`, and those of its triangle updates. Queries
    and keys that are tapped in `layer.{i}.attn` hold the channels of the bias too.

    More than `MOST_BINS` bins are refused with `DataError`.
    """

    def __init__(
        self,
        d_model: int,
        n_layers: int,
        n_heads: int,
        d_feedforward: int,
        *,
        d_pair: int = 16,
        n_pair_heads: int = 2,
        d_pair_head: int = 8,
        d_hidden: int = 16,
        bin_tokens: int = 1,
        triangle_backend: str = "sdpa_exact",
        dropout: float = 0.0,
        **options: object,
    ) -> None:
        super().__init__(d_model, n_layers, n_heads, d_feedforward, dropout=dropout, **options)  # type: ignore[arg-type]
        if bin_tokens < 1:
            raise ConfigError(f"bin_tokens must be at least 1, got {bin_tokens}")
        self.bin_tokens = bin_tokens
        self.start = RelativePositions(d_pair)
        self.pair = nn.ModuleList(
            PairStep(
                d_model, n_heads, d_pair=d_pair, n_pair_heads=n_pair_heads, d_pair_head=d_pair_head,
                d_hidden=d_hidden, dropout=dropout, backend=triangle_backend,
            )
            for _ in range(n_layers)
        )  # fmt: skip

    def _start(self, x_BLD: Tensor) -> Tensor:
        n_bins = -(-x_BLD.shape[1] // self.bin_tokens)
        if n_bins > MOST_BINS:
            fitting = -(-x_BLD.shape[1] // MOST_BINS)
            raise DataError(
                f"{x_BLD.shape[1]} tokens make {n_bins} bins of the pair track, at most {MOST_BINS} are allowed: set "
                f"model.pair.bin_tokens to at least {fitting}, or pool more bases into a token"
            )
        index = torch.arange(n_bins, device=x_BLD.device)[None]
        return self.start(index).expand(len(x_BLD), -1, -1, -1)

    def _run(self, x_BLD: Tensor, keep: Tensor | None, *, first: int = 0, pair: Tensor | None = None) -> Tensor:
        pair = self._start(x_BLD) if pair is None else pair
        for step, block in zip(self.pair[first:], self.layer[first:], strict=True):
            if self.checkpointing and torch.is_grad_enabled() and not (tapped(block) or tapped(step)):
                x_BLD, pair = checkpoint(self._layer, step, block, x_BLD, pair, keep, use_reentrant=False)
            else:
                x_BLD, pair = self._layer(step, block, x_BLD, pair, keep)
        return zero_padding(self.norm(x_BLD), keep)

    def _layer(
        self, step: nn.Module, block: nn.Module, x_BLD: Tensor, pair: Tensor, keep: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        binned, real = self.binned(x_BLD, keep)
        pair, bias = step(binned, pair, keep=real)
        return block(x_BLD, keep=keep, bias=BinBias(bias, self.bin_tokens)), pair

    def binned(self, x_BLD: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Mean of the real tokens of each bin (B, I, D), and which bins have one (B, I), or None if all have."""
        if self.bin_tokens == 1:
            return x_BLD, keep
        short = -x_BLD.shape[1] % self.bin_tokens
        real = x_BLD.new_ones(x_BLD.shape[:2]) if keep is None else keep.to(x_BLD.dtype)
        x_BLD, real = F.pad(x_BLD, (0, 0, 0, short)), F.pad(real, (0, short))
        summed = (x_BLD * real[..., None]).unflatten(1, (-1, self.bin_tokens)).sum(2)
        n = real.unflatten(1, (-1, self.bin_tokens)).sum(2)
        return summed / n.clamp(min=1)[..., None], None if keep is None else n > 0


class BinBias:
    """A bias of scores between bins (B, H, I, J), as channels of queries and keys."""

    def __init__(self, bias: Tensor, bin_tokens: int) -> None:
        self.bias, self.bin_tokens = bias, bin_tokens

    def appended(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys (B, H, L, C + bins) whose scaled dot products are those of before plus the bias."""
        length, width = query.shape[2:]
        n_bins = self.bias.shape[-1]
        index = torch.arange(length, device=query.device) // self.bin_tokens
        wide = width + n_bins
        # Scores are divided by the root of the width, which has grown.
        rows = self.bias[:, :, index].to(query.dtype) * math.sqrt(wide)
        marks = F.one_hot(index, n_bins).to(key.dtype).expand(*key.shape[:2], -1, -1)
        scaled = query * math.sqrt(wide / width)
        return torch.cat([scaled, rows], dim=-1), torch.cat([key, marks], dim=-1)
