"""From tokens to one vector per sequence; padding takes no part."""

import math

import torch
from torch import Tensor, nn

from bioattn.errors import ConfigError


class MeanPooling(nn.Module):
    """Mean over real tokens."""

    def forward(self, x_BLD: Tensor, *, keep: Tensor | None = None) -> Tensor:  # noqa: D102
        if keep is None:
            return x_BLD.mean(1)
        return (x_BLD * keep[..., None]).sum(1) / keep.sum(1, keepdim=True).clamp(min=1)


class SumPooling(nn.Module):
    """Sum over real tokens."""

    def forward(self, x_BLD: Tensor, *, keep: Tensor | None = None) -> Tensor:  # noqa: D102
        return x_BLD.sum(1) if keep is None else (x_BLD * keep[..., None]).sum(1)


class AttentionPooling(nn.Module):
    """Mean over real tokens weighted by a learned score of each token."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.score = nn.Linear(d_model, 1)

    def forward(self, x_BLD: Tensor, *, keep: Tensor | None = None) -> Tensor:  # noqa: D102
        score_BL = self.score(x_BLD).squeeze(-1)
        score_BL = score_BL.to(torch.promote_types(score_BL.dtype, torch.float32))
        if keep is not None:
            score_BL = score_BL.masked_fill(~keep, -math.inf)
        weight_BL = torch.softmax(score_BL, dim=-1).to(x_BLD.dtype)
        return (weight_BL[..., None] * x_BLD).sum(1)


class FirstToken(nn.Module):
    """The first token, where a model has put a token of its own ("CLS") that reads the others."""

    def forward(self, x_BLD: Tensor, *, keep: Tensor | None = None) -> Tensor:  # noqa: D102
        return x_BLD[:, 0]


def pooling(kind: str, d_model: int) -> nn.Module:
    """Pooling module of a kind: "mean", "sum", "attention" or "cls".

    Raises
    ------
    ConfigError
        If there is no such kind.
    """
    if kind == "attention":
        return AttentionPooling(d_model)
    plain = {"mean": MeanPooling, "sum": SumPooling, "cls": FirstToken}
    if kind not in plain:
        raise ConfigError(f"'{kind}' is not a kind of pooling; allowed: mean, sum, attention, cls")
    return plain[kind]()
