"""Attention between the nodes of a graph, along its edges."""

import torch.nn.functional as F
from torch import Tensor, nn

from bioattn.errors import DataError
from bioattn.nn import attention
from bioattn.nn.taps import Tap


class GraphAttention(nn.Module):
    """Graph attention layer: scores of an edge are learned from the features of its two ends.

    Node i reads node j with softmax over its neighbours of LeakyReLU(s . W x_j + t . W x_i).

    Parameters
    ----------
    d_in, d_out : int
        Features of a node; features of each head, which are put side by side.
    n_heads : int
    slope : float
        Of LeakyReLU below zero.

    Taps: `scores`, `pattern` (1, H, N, N).

    Source: Velickovic et al. 2018, eq. 1 to 5.
    """

    def __init__(self, d_in: int, d_out: int, *, n_heads: int = 1, slope: float = 0.2) -> None:
        super().__init__()
        self.n_heads, self.slope = n_heads, slope
        self.project = nn.Linear(d_in, n_heads * d_out, bias=False)
        self.source = nn.Parameter(nn.init.xavier_uniform_(self.project.weight.new_empty(n_heads, d_out)))
        self.target = nn.Parameter(nn.init.xavier_uniform_(self.project.weight.new_empty(n_heads, d_out)))
        self.bias = nn.Parameter(self.project.weight.new_zeros(n_heads * d_out))
        self.scores, self.pattern = Tap(), Tap()

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Features (N, H * d_out) of nodes (N, d_in); `edges` (N, N) is True where node i may read node j.

        Raises
        ------
        DataError
            If the edges are not those of as many nodes.
        """
        if edges.shape != (len(x), len(x)):
            raise DataError(f"edges of {len(x)} nodes must have shape ({len(x)}, {len(x)}), got {tuple(edges.shape)}")
        h = self.project(x).unflatten(-1, (self.n_heads, -1)).transpose(0, 1)  # (H, N, C)
        read, reads = (h * self.source[:, None]).sum(-1), (h * self.target[:, None]).sum(-1)
        raw = F.leaky_relu(reads[:, :, None] + read[:, None], self.slope)
        scores = self.scores(raw.masked_fill(~edges, -float("inf"))[None])
        pattern = self.pattern(attention.pattern(scores))[0]
        return (pattern.to(h.dtype) @ h).transpose(0, 1).flatten(1) + self.bias
