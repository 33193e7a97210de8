"""Factored attention: a single layer whose pattern does not depend on the sequence, as a model of one family.

    log p(x_i = a | others) = log softmax_a( b_i(a) + sum_h sum_j [A^h_ij W^h(x_j, a) + A^h_ji W^h(a, x_j)] / 2 )
    A^h_ij = softmax_j( q^h_i . k^h_j / sqrt(d) )

Queries and keys belong to columns and not to residues, so the layer is a Potts model whose couplings share a few tables
of residues (one for each head), with far fewer parameters. As those of a Potts model, couplings are the same seen from
either column: what i learns of j helps j to read i. Which columns read each other is what predicts contacts.

Source: Bhattacharya et al. 2022; symmetric couplings as in Ekeberg et al. 2013.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bioattn import rng
from bioattn.data.residues import N_AMINO_ACIDS
from bioattn.protein.coevolution import coupling_scores, zero_sum

_STATES = N_AMINO_ACIDS + 1


class FactoredAttention(nn.Module):
    """Attention between the columns of an alignment, with a table of residues for each head.

    Parameters
    ----------
    length : int
        Columns.
    n_heads, d_head : int
    """

    def __init__(self, length: int, *, n_heads: int = 32, d_head: int = 32) -> None:
        super().__init__()
        # Scores of variance one and tables that are not zero: without either, no gradient tells heads apart.
        self.query = nn.Parameter(torch.randn(n_heads, length, d_head))
        self.key = nn.Parameter(torch.randn(n_heads, length, d_head))
        self.value = nn.Parameter(0.05 * torch.randn(n_heads, _STATES, _STATES))
        self.field = nn.Parameter(torch.zeros(length, _STATES))

    def pattern(self) -> Tensor:
        """Pattern (H, L, L): no column reads itself."""
        scores = self.query @ self.key.transpose(-2, -1) / math.sqrt(self.query.shape[-1])
        own = torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device)
        return scores.masked_fill(own, -math.inf).softmax(-1)

    def couplings(self) -> Tensor:
        """What residue b in column j adds to the logit of residue a in column i, and a in i to b in j.

        Returns
        -------
        Tensor, shape (L, 21, L, 21)
            By i, a, j, b.
        """
        length = self.query.shape[1]
        pattern = self.pattern()
        either = torch.cat([pattern, pattern.transpose(-2, -1)]).flatten(1)
        joint = either.T @ torch.cat([self.value, self.value.transpose(-2, -1)]).flatten(1) / 2
        return joint.view(length, length, _STATES, _STATES).permute(0, 3, 1, 2)

    def forward(self, codes: Tensor) -> Tensor:
        """Logits (S, L, 21) of each residue given the others; codes (S, L)."""
        one_hot = nn.functional.one_hot(codes, _STATES).to(self.field.dtype)
        length = self.field.shape[0]
        matrix = self.couplings().reshape(length * _STATES, length * _STATES)
        return (one_hot.flatten(1) @ matrix.T).view(-1, length, _STATES) + self.field


class FamilyFit(NamedTuple):
    """A trained layer and the loss of each step."""

    model: FactoredAttention
    losses: NDArray[np.float64]


def fit_family(
    codes: NDArray[np.uint8],
    weights: NDArray[np.float64],
    *,
    n_heads: int = 32,
    d_head: int = 32,
    steps: int = 900,
    batch_size: int = 128,
    learning_rate: float = 0.1,
    penalty: float = 1e-4,
    seed: int = 1,
) -> FamilyFit:
    """Factored attention of a family, by pseudo-likelihood.

    Sequences are drawn with their weights. The fields begin at the frequencies of the columns.

    Parameters
    ----------
    codes : ndarray, uint8, shape (S, L)
    weights : ndarray, shape (S,)
    penalty : float
        On the squares of pattern times table, as on the couplings of a Potts model.
    """
    draw = rng.stream(seed, "family")
    torch.manual_seed(rng.stream_seed(seed, "family", "init"))
    model = FactoredAttention(codes.shape[1], n_heads=n_heads, d_head=d_head)
    share = weights / weights.sum()
    frequencies = np.stack([np.bincount(column, share, _STATES) for column in codes.T])
    with torch.no_grad():
        logs = np.log(frequencies + 1 / (_STATES * len(codes)))
        model.field.copy_(torch.from_numpy(logs - logs.mean(1, keepdims=True)))
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps)
    everything = torch.from_numpy(codes.astype(np.int64))
    losses = np.zeros(steps)
    for step in range(steps):
        rows = torch.from_numpy(draw.choice(len(codes), batch_size, p=share))
        batch = everything[rows]
        loss = nn.functional.cross_entropy(model(batch).flatten(0, 1), batch.flatten())
        spread = (model.pattern().square().sum((1, 2)) * model.value.square().sum((1, 2))).sum()
        optimiser.zero_grad()
        (loss + penalty * spread / codes.shape[1]).backward()
        optimiser.step()
        schedule.step()
        losses[step] = loss.item()
    return FamilyFit(model.eval(), losses)


def family_scores(model: FactoredAttention) -> NDArray[np.float64]:
    """Contact scores (L, L) of a trained layer: sizes of its couplings, average product corrected."""
    with torch.no_grad():
        return coupling_scores(zero_sum(model.couplings().double().numpy()))
