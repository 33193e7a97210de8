"""Distances of pairs of residues as probabilities over bins, and what follows from them."""

import torch
from torch import Tensor, nn

from bioattn.errors import ConfigError

#: Borders of bins are the same if they differ by less, in angstrom.
_SAME = 1e-3


class Distogram(nn.Module):
    """Logits (B, I, J, bins) of the distance of each pair, the same for (i, j) and (j, i).

    Parameters
    ----------
    edges_angstrom : Tensor (bins - 1,)
        Borders between bins, rising: the first bin lies below the first, the last above the last. Stored with the
        weights.

    Source: Jumper et al. 2021, supplement, section 1.9.8.
    """

    edges_angstrom: Tensor

    def __init__(self, d_pair: int, edges_angstrom: Tensor) -> None:
        super().__init__()
        if edges_angstrom.ndim != 1 or not bool((edges_angstrom.diff() > 0).all()):
            raise ConfigError("edges of distance bins must rise, in angstrom")
        self.register_buffer("edges_angstrom", edges_angstrom.float())
        self.norm = nn.LayerNorm(d_pair)
        self.project = nn.Linear(d_pair, len(edges_angstrom) + 1)

    def forward(self, pair: Tensor) -> Tensor:  # noqa: D102
        logits = self.one_way(pair)
        return (logits + logits.transpose(1, 2)) / 2

    def one_way(self, pair: Tensor) -> Tensor:
        """Logits (..., bins) of pairs (..., P) in one order of their residues; those of both orders are averaged."""
        logits: Tensor = self.project(self.norm(pair))
        return logits

    def bins(self, distance_angstrom: Tensor) -> Tensor:
        """Bin of each distance; a border belongs to the bin above it."""
        return torch.bucketize(distance_angstrom, self.edges_angstrom, right=True)

    @property
    def centres_angstrom(self) -> Tensor:
        """Middle of each bin; of the two open ones as far outside as their neighbours are wide."""
        edges = self.edges_angstrom
        middle = (edges[1:] + edges[:-1]) / 2
        first, last = edges[0] - (edges[1] - edges[0]) / 2, edges[-1] + (edges[-1] - edges[-2]) / 2
        return torch.cat([first[None], middle, last[None]])


def contact_probability(logits: Tensor, edges_angstrom: Tensor, *, below_angstrom: float = 8.0) -> Tensor:
    """Probability (B, I, J) that a distance is below a border between two bins.

    Raises
    ------
    ConfigError
        If there is no such border.
    """
    return logits.softmax(-1)[..., : _bins_below(edges_angstrom, below_angstrom)].sum(-1)


def contact_log_probabilities(
    logits: Tensor, edges_angstrom: Tensor, *, below_angstrom: float = 8.0
) -> tuple[Tensor, Tensor]:
    """Logarithms of `contact_probability` and of one less it, (B, I, J) each; raises as it does."""
    below, log_p = _bins_below(edges_angstrom, below_angstrom), logits.log_softmax(-1)
    return log_p[..., :below].logsumexp(-1), log_p[..., below:].logsumexp(-1)


def _bins_below(edges_angstrom: Tensor, below_angstrom: float) -> int:
    border = (edges_angstrom - below_angstrom).abs() < _SAME
    if not bool(border.any()):
        raise ConfigError(f"no border between distance bins at {below_angstrom:g} angstrom")
    return int(border.nonzero()[0, 0]) + 1


def expected_distance(logits: Tensor, centres_angstrom: Tensor) -> Tensor:
    """Mean of the predicted distribution, (B, I, J), in angstrom."""
    return logits.softmax(-1) @ centres_angstrom
