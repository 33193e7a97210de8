"""Updates of a pair representation z (B, I, J, P): triangle multiplication, triangle attention, transition.

Pair (i, j) is updated through every third residue k. A mask `keep` (B, I, J) is True where both
residues of a pair are real.

Chosen pairs can also be updated apart from all others, through some third residues only: what a pair owes to one
triangle is found by cutting that triangle for this pair and no other. Copies of such a pair are `own` (V, N, P);
`rows`, `columns` (N,) say where it stands in `pair` (I, J, P), the pairs of one example, which its triangles are made
of; `third` (V, K) is True where a residue may be the third one.

Source: Jumper et al. 2021, supplement, algorithms 11 to 15.
"""

import math
from collections.abc import Collection
from typing import Literal, Required, TypedDict, Unpack, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bioattn.errors import ConfigError
from bioattn.nn import attention
from bioattn.nn.pair.triangle import MOST_SCORES, make_triangle_backend, triangle_pattern
from bioattn.nn.taps import Tap

Direction = Literal["outgoing", "incoming"]
Node = Literal["starting", "ending"]


def zeroed(linear: nn.Linear) -> nn.Linear:
    """The layer with weights and bias of zero: an update that starts as none."""
    nn.init.zeros_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear


def opened(linear: nn.Linear) -> nn.Linear:
    """The layer as a gate that starts open: weights of zero, a bias of one."""
    nn.init.zeros_(linear.weight)
    nn.init.ones_(linear.bias)
    return linear


class TriangleMultiplication(nn.Module):
    """Update of pair (i, j) by products of the other two edges of each triangle, summed over its third residue k.

    outgoing: sum_k a_ik * b_jk; incoming: sum_k a_ki * b_kj.

    Parameters
    ----------
    d_pair : int
    d_hidden : int
        Channels of the products.

    Taps: `left`, `right` (B, I, K, C) or (B, K, I, C), the gated edges; `output` (B, I, J, P).
    """

    def __init__(self, d_pair: int, d_hidden: int, *, direction: Direction) -> None:
        super().__init__()
        if direction not in ("outgoing", "incoming"):
            raise ConfigError(f"direction must be outgoing or incoming, got '{direction}'")
        self.direction = direction
        self.norm_in, self.norm_out = nn.LayerNorm(d_pair), nn.LayerNorm(d_hidden)
        self.edges = nn.Linear(d_pair, 2 * d_hidden)
        self.edge_gates = opened(nn.Linear(d_pair, 2 * d_hidden))
        self.gate = opened(nn.Linear(d_pair, d_pair))
        self.project_out = zeroed(nn.Linear(d_hidden, d_pair))
        self.left, self.right, self.output = Tap(), Tap(), Tap()

    def forward(self, pair: Tensor, *, keep: Tensor | None = None) -> Tensor:
        """What is added to the pair representation, (B, I, J, P)."""
        z = self.norm_in(pair)
        edges = self._gated(z)
        if keep is not None:
            edges = edges * keep[..., None]
        left, right = edges.chunk(2, dim=-1)
        left, right = self.left(left), self.right(right)
        # One matrix product for each channel.
        left, right = left.permute(0, 3, 1, 2), right.permute(0, 3, 1, 2)
        if self.direction == "outgoing":
            product = left @ right.transpose(-2, -1)
        else:
            product = left.transpose(-2, -1) @ right
        return self.output(self._made(z, product.permute(0, 2, 3, 1)))

    def apart(self, own: Tensor, pair: Tensor, rows: Tensor, columns: Tensor, third: Tensor) -> Tensor:
        """What is added to chosen pairs, (V, N, P), through some third residues; see the module."""
        left, right = self._gated(self.norm_in(pair)).chunk(2, dim=-1)
        if self.direction == "incoming":
            left, right = left.transpose(0, 1), right.transpose(0, 1)
        product = torch.einsum("vk,nkc->vnc", third.to(left.dtype), left[rows] * right[columns])
        return self._made(self.norm_in(own), product)

    def _gated(self, z: Tensor) -> Tensor:
        edges: Tensor = self.edges(z) * torch.sigmoid(self.edge_gates(z))
        return edges

    def _made(self, z: Tensor, product: Tensor) -> Tensor:
        update: Tensor = self.project_out(self.norm_out(product))
        return torch.sigmoid(self.gate(z)) * update


class TriangleAttention(nn.Module):
    """Update of pair (i, j) by attention to the other pairs of residue i (starting node), or of j (ending node).

    starting: softmax_k(q_ij . k_ik / sqrt(C) + b_jk) v_ik; ending: softmax_k(q_ij . k_kj / sqrt(C) + b_ki) v_kj, which
    is the former on the transposed pair representation.

    Parameters
    ----------
    d_pair, n_heads : int
    d_head : int
        Channels of a head.
    backend : str
        See `bioattn.nn.pair.triangle.TRIANGLE_BACKENDS`.

    Taps: `pattern` (B, I, H, J, K), which writes all of it out while it is tapped; of the ending node
    transposed: (B, J, H, I, K). `head_output` (B, I, H, J, C), likewise; `output` (B, I, J, P).
    """

    def __init__(self, d_pair: int, n_heads: int, d_head: int, *, node: Node, backend: str = "sdpa_exact") -> None:
        super().__init__()
        if node not in ("starting", "ending"):
            raise ConfigError(f"node must be starting or ending, got '{node}'")
        self.node, self.n_heads = node, n_heads
        self.backend = make_triangle_backend(backend)
        self.norm = nn.LayerNorm(d_pair)
        self.project_in = nn.Linear(d_pair, 3 * n_heads * d_head, bias=False)
        self.bias = nn.Linear(d_pair, n_heads, bias=False)
        self.gate = opened(nn.Linear(d_pair, n_heads * d_head))
        self.project_out = zeroed(nn.Linear(n_heads * d_head, d_pair))
        self.pattern, self.head_output, self.output = Tap(), Tap(), Tap()

    def forward(self, pair: Tensor, *, keep: Tensor | None = None) -> Tensor:
        """What is added to the pair representation, (B, I, J, P)."""
        if self.node == "ending":
            pair, keep = pair.transpose(1, 2), None if keep is None else keep.transpose(1, 2)
        z = self.norm(pair)
        query, key, value, bias = self.terms(z)
        if self.pattern.active:
            pattern = self.pattern(triangle_pattern(query, key, bias, keep=keep))
            values = (pattern @ value.to(pattern.dtype)).to(value.dtype)
        else:
            values = self.backend(query, key, value, bias, keep)
        values = self.head_output(values).transpose(2, 3).flatten(-2)
        update = self.project_out(torch.sigmoid(self.gate(z)) * values)
        return self.output(update.transpose(1, 2) if self.node == "ending" else update)

    def terms(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query, key and value (B, I, H, J, C) and bias (B, H, J, K) of a normalised pair representation."""
        query, key, value = (
            x.unflatten(-1, (self.n_heads, -1)).transpose(2, 3) for x in self.project_in(z).chunk(3, dim=-1)
        )
        return query, key, value, self.bias(z).permute(0, 3, 1, 2)

    def rows(self, pair: Tensor, rows: Tensor, *, keep: Tensor | None = None) -> Tensor:
        """Exact pattern (B, R, H, J, K) of chosen rows (R,) alone: i of the starting node, j of the ending one.

        Parameters
        ----------
        pair : Tensor, shape (B, I, J, P)
            What the layer is given.
        """
        if self.node == "ending":
            pair, keep = pair.transpose(1, 2), None if keep is None else keep.transpose(1, 2)
        z = self.norm(pair)
        bias = self.bias(z).permute(0, 3, 1, 2)
        query, key, _ = (
            x.unflatten(-1, (self.n_heads, -1)).transpose(2, 3) for x in self.project_in(z[:, rows]).chunk(3, dim=-1)
        )
        return triangle_pattern(query, key, bias, keep=None if keep is None else keep[:, rows])

    def apart(self, own: Tensor, pair: Tensor, rows: Tensor, columns: Tensor, third: Tensor) -> Tensor:
        """What is added to chosen pairs, (V, N, P), through some third residues; see the module.

        The pair itself, which is among those that it reads, is read as it is in `pair`.
        """
        if self.node == "ending":
            pair, rows, columns = pair.transpose(0, 1), columns, rows
        z, z_own = self.norm(pair), self.norm(own)
        _, key, value, bias = self.terms(z[None])
        key, value, bias = key[0, rows], value[0, rows], bias[0, :, columns].transpose(0, 1)
        query = self.project_in(z_own).chunk(3, dim=-1)[0].unflatten(-1, (self.n_heads, -1))
        parts = []
        # Scores have V N H K entries: some copies at a time.
        size = max(1, MOST_SCORES // max(bias.numel(), 1))
        for q, keep in zip(query.split(size), third.split(size), strict=True):
            scores = torch.einsum("vnhc,nhkc->vnhk", q, key) / math.sqrt(q.shape[-1]) + bias
            pattern = attention.pattern(scores.masked_fill(~keep[:, None, None], -math.inf))
            parts.append(torch.einsum("vnhk,nhkc->vnhc", pattern, value).flatten(-2))
        update: Tensor = self.project_out(torch.sigmoid(self.gate(z_own)) * torch.cat(parts))
        return update


class PairTransition(nn.Module):
    """Two-layer network on each pair by itself. Tap: `output`."""

    def __init__(self, d_pair: int, factor: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_pair)
        self.widen = nn.Linear(d_pair, factor * d_pair)
        self.narrow = zeroed(nn.Linear(factor * d_pair, d_pair))
        self.output = Tap()

    def forward(self, pair: Tensor) -> Tensor:
        """What is added to the pair representation."""
        return self.output(self.narrow(F.relu(self.widen(self.norm(pair)))))


class SharedDropout(nn.Module):
    """Dropout that drops the same channels all along one axis of a pair representation.

    Row-wise dropout has one draw for all rows (`axis` 1), column-wise one for all columns (`axis` 2).
    """

    def __init__(self, probability: float, *, axis: int) -> None:
        super().__init__()
        self.probability, self.axis = probability, axis

    def forward(self, pair: Tensor) -> Tensor:  # noqa: D102
        if not self.training or self.probability == 0:
            return pair
        shape = list(pair.shape)
        shape[self.axis] = 1
        return pair * F.dropout(pair.new_ones(shape), self.probability)


class UpdateOptions(TypedDict, total=False):
    """Options of `PairUpdates.add_updates`."""

    n_pair_heads: Required[int]
    d_pair_head: Required[int]
    d_hidden: Required[int]
    dropout: Required[float]
    backend: Required[str]
    without: Collection[str]


class PairUpdates(nn.Module):
    """Base of what updates pairs once: both multiplications, attention of both nodes, the transition."""

    def add_updates(self, d_pair: int, **options: Unpack[UpdateOptions]) -> None:
        """Add the parts, less those in `without`: outgoing, incoming, starting, ending, transition.

        A subclass calls it where their weights are to be drawn.
        """
        without, dropout = options.get("without", ()), options["dropout"]
        self.outgoing, self.incoming = (
            None if direction in without else TriangleMultiplication(d_pair, options["d_hidden"], direction=direction)
            for direction in get_args(Direction)
        )
        self.starting, self.ending = (
            None
            if node in without
            else TriangleAttention(
                d_pair, options["n_pair_heads"], options["d_pair_head"], node=node, backend=options["backend"]
            )
            for node in get_args(Node)
        )
        self.transition = None if "transition" in without else PairTransition(d_pair)
        self.row_dropout, self.column_dropout = SharedDropout(dropout, axis=1), SharedDropout(dropout, axis=2)

    def updated(self, pair: Tensor, *, keep: Tensor | None = None) -> Tensor:
        """Pairs (B, I, J, P) after all parts, zero where a residue is padding; `keep` is (B, L)."""
        both = None if keep is None else keep[:, :, None] & keep[:, None, :]
        # Of the third residue alone: what pairs of padding read is dropped, and one mask for all rows is cheaper.
        starting, ending = (None, None) if keep is None else (keep[:, None, :], keep[:, :, None])
        for update, readable in ((self.outgoing, both), (self.incoming, both), (self.starting, starting)):
            if update is not None:
                pair = pair + self.row_dropout(update(pair, keep=readable))
        if self.ending is not None:
            pair = pair + self.column_dropout(self.ending(pair, keep=ending))
        if self.transition is not None:
            pair = pair + self.transition(pair)
        return pair if both is None else pair.masked_fill(~both[..., None], 0.0)

    def updated_apart(
        self, own: Tensor, pair: Tensor, rows: Tensor, columns: Tensor, third: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Chosen pairs (V, N, P) after all parts, and all pairs (I, J, P), without dropout; see the module."""
        for update in (self.outgoing, self.incoming, self.starting, self.ending):
            if update is not None:
                own, pair = own + update.apart(own, pair, rows, columns, third), pair + update(pair[None])[0]
        if self.transition is not None:
            own, pair = own + self.transition(own), pair + self.transition(pair)
        return own, pair
