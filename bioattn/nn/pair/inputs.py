"""From sequences and alignments to pairs: outer products, their mean over an alignment, relative positions."""

import torch
from torch import Tensor, nn

from bioattn.nn.pair.updates import zeroed
from bioattn.nn.taps import Tap


class OuterProductMean(nn.Module):
    """Pairs (B, I, J, P) from an alignment (B, S, I, D): mean over sequences of the outer product of two columns.

    What two columns have in common over the sequences, beyond what each is by itself, is seen here.
    `keep` (B, S, I) is True where a residue is known; pairs that no sequence has both of get the bias alone.

    Source: Jumper et al. 2021, supplement, algorithm 10.
    """

    def __init__(self, d_model: int, d_hidden: int, d_pair: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.left, self.right = nn.Linear(d_model, d_hidden), nn.Linear(d_model, d_hidden)
        self.project_out = zeroed(nn.Linear(d_hidden**2, d_pair))
        self.output = Tap()

    def forward(self, rows: Tensor, *, keep: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        """Update of the pair representation. `weight` (B, S), of the sequences, makes the mean a weighted one."""
        x = self.norm(rows)
        left, right = self.left(x), self.right(x)
        known = rows.new_ones(rows.shape[:3]) if keep is None else keep.to(rows.dtype)
        left, right = left * known[..., None], right * known[..., None]
        counted = known
        if weight is not None:
            left, counted = left * weight[..., None, None], known * weight[..., None]
        total = torch.einsum("bsic,bsjd->bijcd", left, right)
        n = torch.einsum("bsi,bsj->bij", counted, known)
        mean = total / n.clamp(min=1e-3)[..., None, None]
        return self.output(self.project_out(mean.flatten(-2)))


class SingleToPair(nn.Module):
    """Pairs (B, I, J, P) from single residues (B, L, D): what either is, and their product, channel by channel."""

    def __init__(self, d_model: int, d_pair: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.left, self.right = nn.Linear(d_model, d_pair), nn.Linear(d_model, d_pair)
        self.product = nn.Linear(d_pair, d_pair)

    def forward(self, single: Tensor) -> Tensor:  # noqa: D102
        x = self.norm(single)
        left, right = self.left(x)[:, :, None], self.right(x)[:, None]
        return left + right + self.product(left * right)


class RelativePositions(nn.Module):
    """Pairs (B, I, J, P) from the distance j - i of two residues in the sequence, clipped at `furthest`.

    Source: Jumper et al. 2021, supplement, algorithm 4.
    """

    def __init__(self, d_pair: int, furthest: int = 32) -> None:
        super().__init__()
        self.furthest = furthest
        self.table = nn.Embedding(2 * furthest + 1, d_pair)

    def forward(self, index: Tensor) -> Tensor:
        """`index` (B, L) numbers the residues of a chain; gaps in it are real distances."""
        distance = (index[:, None, :] - index[:, :, None]).clamp(-self.furthest, self.furthest)
        return self.table(distance + self.furthest)
