"""Multi-head self-attention with taps."""

import logging
import warnings
from typing import Protocol

import torch
from torch import Tensor, nn

from bioattn.errors import BioattnWarning
from bioattn.nn import attention
from bioattn.nn.backends import Backend, dense_terms, make_backend
from bioattn.nn.checks import check_heads
from bioattn.nn.positions import RotaryPositions, ScoreBias
from bioattn.nn.taps import Tap

_LOG = logging.getLogger(__name__)


class AppendedBias(Protocol):
    """A bias of scores that is carried by further channels of queries and keys."""

    def appended(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Wider queries and keys (B, H, L, C'), whose scaled dot products hold the bias."""
        ...


class MultiHeadAttention(nn.Module):
    """Self-attention over tokens.

    Parameters
    ----------
    d_model, n_heads : int
        `d_model` must be a multiple of `n_heads`.
    backend : Backend, or {"reference", "sdpa"} for attention without a mask
        Kernel and mask, chosen here once (see `make_backend`).
    rotary, relative : module, optional
        Positions that act on queries and keys, or on scores.
    name : str
        For messages, e.g. "layer.2.attn".

    Taps: `query`, `key`, `value` (B, H, L, C), queries and keys after rotation;
    `scores`, `pattern` (B, H, Q, K); `head_output` (B, H, Q, C), before the output
    projection; `output` (B, L, D), after it. While scores or pattern are tapped,
    this layer computes them in full, and says so.

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
        backend: Backend | str = "sdpa",
        rotary: RotaryPositions | None = None,
        relative: ScoreBias | None = None,
        name: str = "attention",
    ) -> None:
        super().__init__()
        check_heads(d_model, n_heads)
        self.n_heads = n_heads
        self.name = name
        self.backend = make_backend(backend) if isinstance(backend, str) else backend
        self.project_in = nn.Linear(d_model, 3 * d_model)
        self.project_out = nn.Linear(d_model, d_model)
        self.rotary = rotary
        self.relative = relative
        self.query, self.key, self.value = Tap(), Tap(), Tap()
        self.scores = Tap()
        self.pattern = Tap()
        self.head_output = Tap()
        self.output = Tap()

    def forward(self, x_BLD: Tensor, *, keep: Tensor | None = None, bias: "AppendedBias | None" = None) -> Tensor:
        """Updated tokens (B, L, D). `keep` (B, L) is True where a token is real and may be read.

        `bias` adds to the scores of each example what channels appended to queries and keys can.
        """
        query, key, value = (
            t.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for t in self.project_in(x_BLD).chunk(3, dim=-1)
        )
        if self.rotary is not None:
            query, key = self.rotary(query), self.rotary(key)
        if bias is not None:
            query, key = bias.appended(query, key)
        values_BHQC = self._attend(self.query(query), self.key(key), self.value(value), keep)
        return self.output(self.project_out(self.head_output(values_BHQC).transpose(1, 2).flatten(2)))

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, keep: Tensor | None) -> Tensor:
        if not (self.scores.active or self.pattern.active):
            return self.backend(query, key, value, keep=keep, bias=self.relative)
        self._say_that_scores_are_written_out(query)
        bias_HQK, keep_BHQK = dense_terms(query.shape[-2], self.backend.mask, keep, self.relative, query.device)
        scores_BHQK = self.scores(attention.scores(query, key, bias=bias_HQK, keep=keep_BHQK))
        pattern_BHQK = self.pattern(attention.pattern(scores_BHQK))
        return torch.matmul(pattern_BHQK, value.to(pattern_BHQK.dtype)).to(value.dtype)

    def _say_that_scores_are_written_out(self, query: Tensor) -> None:
        n_batch, n_heads, length = query.shape[:3]
        message = (
            f"{self.name}: backend '{self.backend.name}' does not hold scores, so while they are tapped this layer "
            f"computes all of them ({n_batch} x {n_heads} x {length} x {length}, "
            f"{n_batch * n_heads * length**2 * 4 / 2**20:.0f} MiB)"
        )
        if self.backend.linear:
            message += "; attention_rows and attention_blocks read single entries without"
            warnings.warn(message, BioattnWarning, stacklevel=4)
        elif self.backend.name != "reference":
            _LOG.debug(message)
