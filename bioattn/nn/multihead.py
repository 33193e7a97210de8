"""Multi-head self-attention with taps."""

import torch
from torch import Tensor, nn

from bioattn.errors import ConfigError
from bioattn.nn import attention
from bioattn.nn.positions import RelativeBias, RotaryPositions
from bioattn.nn.taps import Tap


class MultiHeadAttention(nn.Module):
    """Self-attention over tokens.

    Parameters
    ----------
    d_model, n_heads : int
        `d_model` must be a multiple of `n_heads`.
    backend : {"reference", "sdpa"}
        Kernel, chosen here once. A tapped pattern is computed by the reference for this layer.
    rotary, relative : module, optional
        Positions that act on queries and keys, or on scores.

    Taps: `scores`, `pattern` (B, H, Q, K); `head_output` (B, H, Q, C), before the output projection.

    Raises
    ------
    ConfigError
        If the widths do not divide or the backend is unknown.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        backend: str = "sdpa",
        rotary: RotaryPositions | None = None,
        relative: RelativeBias | None = None,
    ) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ConfigError(f"d_model must be a multiple of n_heads, got {d_model} and {n_heads}")
        if backend not in attention.BACKENDS:
            raise ConfigError(f"'{backend}' is not an attention backend; allowed: {', '.join(attention.BACKENDS)}")
        self.n_heads = n_heads
        self.backend = backend
        self.project_in = nn.Linear(d_model, 3 * d_model)
        self.project_out = nn.Linear(d_model, d_model)
        self.rotary = rotary
        self.relative = relative
        self.scores = Tap()
        self.pattern = Tap()
        self.head_output = Tap()

    def forward(self, x_BLD: Tensor, *, keep: Tensor | None = None) -> Tensor:
        """Updated tokens (B, L, D). `keep` (B, L) is True where a token is real and may be read."""
        query, key, value = (
            t.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for t in self.project_in(x_BLD).chunk(3, dim=-1)
        )
        if self.rotary is not None:
            query, key = self.rotary(query), self.rotary(key)
        bias = None if self.relative is None else self.relative(query.shape[-2], key.shape[-2])
        keep_keys = None if keep is None else keep[:, None, None, :]
        values_BHQC = self.head_output(self._attend(query, key, value, bias, keep_keys))
        return self.project_out(values_BHQC.transpose(1, 2).flatten(2))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, keep: Tensor | None) -> Tensor:
        if self.backend == "sdpa" and not (self.scores.active or self.pattern.active):
            return attention.fused(query, key, value, bias=bias, keep=keep)
        scores_BHQK = self.scores(attention.scores(query, key, bias=bias, keep=keep))
        pattern_BHQK = self.pattern(attention.pattern(scores_BHQK))
        return torch.matmul(pattern_BHQK, value.to(pattern_BHQK.dtype)).to(value.dtype)
